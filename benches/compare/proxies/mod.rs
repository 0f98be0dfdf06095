//! The contestants: what is installed, how it is started on its core, reloaded and stopped.
//!
//! Each runs with ports, backends and a folder of its own; nothing is shared but the machine. Invariant: a proxy that
//! was started has answered once on every front, and none outlives its value here.

mod config;
mod installed;
mod terminated;
mod tuned;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use self::config::{Front, Plan};
use self::installed::{find, has_http2_directive, said, stream_module, takes_uploads};
use self::tuned::Tuning;
use crate::Result;
use crate::backends::{Backends, Service};
use crate::launch::on_cores;
use crate::load::https::{self, Visitors};
use crate::load::identity::{Exchange, Identity};
use crate::load::{Until, bulk::Bulk, download::Download, echo::Echo, http, http::Manner, http2, tls};
use crate::measure;
use crate::stage::{Stage, free_port, scratch};

/// How long a proxy may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy in one configuration that takes part in a race.
#[derive(Debug, Clone)]
pub struct Contestant {
    /// Name in tables.
    pub name: &'static str,
    /// What is run.
    pub program: PathBuf,
    /// `--version`, first line.
    pub version: String,
    kind: Kind,
    tuning: Tuning,
    workers: u16,
    /// Whether it may use the clients' core too.
    everywhere: bool,
    /// How long it looks for more before it sleeps.
    busy_poll: &'static str,
    /// How it exchanges keys with clients where it ends TLS.
    pub exchange: Exchange,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Sessile,
    Haproxy {
        splice: bool,
    },
    /// With its stream module, where that is a file; with a directive for HTTP/2, where it is new enough.
    Nginx {
        module: Option<PathBuf>,
        http2_directive: bool,
    },
}

/// The programs of a race, where they are named.
#[derive(Debug, Default)]
pub struct Programs {
    /// The sessile that is raced.
    pub sessile: PathBuf,
    /// An earlier one.
    pub before: Option<PathBuf>,
    /// Instead of the one in PATH.
    pub haproxy: Option<PathBuf>,
    /// Instead of the one in PATH.
    pub nginx: Option<PathBuf>,
}

/// Which peers race.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peers {
    /// As they come.
    Default,
    /// Well tuned.
    Tuned,
    /// None: sessile alone.
    None,
}

impl Contestant {
    /// Sessile, sessile again, and whatever else is there; says what is missing and how to get it.
    pub fn all(programs: Programs, peers: &[Peers]) -> Vec<Self> {
        let ours = |name, program: &Path| Self {
            name,
            program: program.to_owned(),
            version: said(program, "--version"),
            kind: Kind::Sessile,
            tuning: Tuning::None,
            workers: 1,
            everywhere: false,
            busy_poll: "off",
            exchange: Exchange::X25519,
        };
        let Programs { sessile, before, haproxy, nginx } = programs;
        let mut all = vec![ours("sessile", &sessile), ours("null", &sessile)];
        all.extend(before.map(|program| ours("before", &program)));
        let mut missing = Vec::new();
        let mut found = Vec::new();
        let peer = |name, program: &Path, tuning, kind| Self {
            kind,
            tuning,
            version: said(program, "-v"),
            ..ours(name, program)
        };
        match haproxy.or_else(|| find("haproxy")) {
            Some(program) => {
                let haproxy = |name, tuning, splice| peer(name, &program, tuning, Kind::Haproxy { splice });
                found.push(haproxy("haproxy", Tuning::None, false));
                found.push(haproxy("haproxy-splice", Tuning::None, true));
                found.push(haproxy("haproxy-tuned", Tuning::Haproxy, false));
            }
            None => missing.push("haproxy"),
        }
        match nginx.or_else(|| find("nginx")).map(|program| (stream_module(&program), program)) {
            Some((Some(module), program)) => {
                let http2_directive = has_http2_directive(&said(&program, "-v"));
                let kind = || Kind::Nginx { module: module.clone(), http2_directive };
                let nginx = |name, tuning| peer(name, &program, tuning, kind());
                found.extend([nginx("nginx", Tuning::None), nginx("nginx-tuned", Tuning::Nginx)]);
            }
            Some((None, _)) => missing.push("libnginx-mod-stream"),
            None => missing.extend(["nginx-light", "libnginx-mod-stream"]),
        }
        if !missing.is_empty() {
            println!("Not everyone is here; for that: apt-get install {}", missing.join(" "));
        }
        found.retain(|peer| peers.contains(if peer.is_tuned() { &Peers::Tuned } else { &Peers::Default }));
        all.extend(found);
        all
    }

    /// One worker, the same again, two workers on a core each, and two on one.
    pub fn with_workers(&self) -> Vec<Self> {
        let variant = |name, workers, everywhere| Self { name, workers, everywhere, ..self.clone() };
        vec![
            variant("two workers", 2, true),
            variant("null", 2, true),
            variant("one worker", 1, false),
            variant("two on one core", 2, false),
        ]
    }

    /// sessile with busy polling: it looks for more work before it sleeps.
    pub fn busy(&self) -> Self {
        Self { name: "busy", busy_poll: "100us", ..self.clone() }
    }

    /// sessile with X25519MLKEM768, the post-quantum key exchange.
    pub fn post_quantum(&self) -> Self {
        Self { name: "post-quantum", exchange: Exchange::PostQuantum, ..self.clone() }
    }

    /// Whether it is sessile.
    pub fn is_ours(&self) -> bool {
        self.kind == Kind::Sessile
    }

    /// Whether it is a peer that does not run as it comes.
    pub fn is_tuned(&self) -> bool {
        self.tuning != Tuning::None
    }

    /// What it was tuned by, each setting with its reason.
    pub fn tuned_by(&self) -> Vec<String> {
        self.tuning.reasons()
    }

    /// Whether it only differs from another where bytes are spliced.
    pub fn is_for_bulk(&self) -> bool {
        self.kind == Kind::Haproxy { splice: true }
    }

    /// Starts it in front of backends of its own.
    pub fn start(&self, services: &[Service], stage: &Stage) -> Result<Proxy> {
        let dir = scratch()?;
        let start = |service: &Service| Backends::start(*service, stage);
        let backends = services.iter().map(start).collect::<Result<Vec<_>>>()?;
        let front = |Backends { service, addresses, .. }: &Backends| {
            Ok(Front { at: free_port()?, service: *service, backends: *addresses })
        };
        let fronts = backends.iter().map(front).collect::<Result<Vec<_>>>()?;
        let addresses = fronts.iter().map(|front| (front.service, front.at)).collect();
        let file = self.configure(dir.path(), fronts, stage, stage.off)?;
        let arguments: &[&str] = match &self.kind {
            Kind::Sessile => &["run", "--config"],
            Kind::Haproxy { .. } => &["-W", "-f"],
            Kind::Nginx { .. } => &["-p", ".", "-e", "error.log", "-c"],
        };
        let log = File::create(dir.path().join("access.log"))?;
        let cores = stage.cores;
        let on = if self.everywhere { &[cores.proxy, cores.others][..] } else { &[cores.proxy] };
        let mut command = on_cores(on, &self.program)?;
        command.args(arguments).arg(&file).current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(log).stderr(File::create(dir.path().join("error.log"))?);
        let process = command.spawn()?;
        let mut proxy = Proxy { contestant: self.clone(), process, addresses, backends, dir };
        proxy.await_answers(&stage.identity)?;
        Ok(proxy)
    }

    /// Has the program itself judge its configuration for all services, without a start.
    pub fn judge_configuration(&self, stage: &Stage, off: bool) -> Result<()> {
        let dir = scratch()?;
        let front = |service| Ok(Front { at: free_port()?, service, backends: [free_port()?, free_port()?] });
        let fronts = Service::ALL.into_iter().map(front).collect::<Result<Vec<_>>>()?;
        let file = self.configure(dir.path(), fronts, stage, off)?;
        let arguments: &[&str] = match &self.kind {
            Kind::Sessile => &["check"],
            Kind::Haproxy { .. } => &["-c", "-f"],
            Kind::Nginx { .. } => &["-t", "-p", ".", "-e", "error.log", "-c"],
        };
        let mut command = Command::new(&self.program);
        command.args(arguments).arg(&file).current_dir(dir.path()).stdin(Stdio::null());
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Err(format!("{} refuses its configuration (off: {off}): {said}", self.name).into())
    }

    /// Writes its configuration into a folder.
    fn configure(&self, folder: &Path, fronts: Vec<Front>, stage: &Stage, off: bool) -> Result<PathBuf> {
        let Self { tuning, workers, busy_poll, exchange, .. } = *self;
        let (metrics, identity) = (free_port()?, &stage.identity);
        let http2_directive = matches!(self.kind, Kind::Nginx { http2_directive: true, .. });
        let plan =
            Plan { folder, fronts, metrics, off, tuning, workers, busy_poll, exchange, identity, http2_directive };
        let text = match &self.kind {
            Kind::Sessile => config::sessile(&plan),
            Kind::Haproxy { splice } => config::haproxy(&plan, *splice),
            Kind::Nginx { module, .. } => config::nginx(&plan, module.as_deref()),
        };
        let file = folder.join("config");
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// The nginx that serves files as backend, if one is there that can also take uploads.
pub fn file_server(nginx: Option<&Path>) -> Option<PathBuf> {
    nginx.map(Path::to_owned).or_else(|| find("nginx")).filter(|program| takes_uploads(program))
}

/// A running proxy, and its backends.
#[derive(Debug)]
pub struct Proxy {
    /// The contestant that this process is.
    pub contestant: Contestant,
    process: Child,
    addresses: Vec<(Service, SocketAddr)>,
    backends: Vec<Backends>,
    dir: TempDir,
}

impl Proxy {
    /// Where it listens for a service.
    pub fn front(&self, service: Service) -> Result<SocketAddr> {
        let found = self.addresses.iter().find(|(known, _)| *known == service);
        Ok(found.ok_or_else(|| format!("no front for {}", service.name()))?.1)
    }

    /// The process of the backends of a service.
    pub fn backends(&self, service: Service) -> Result<u32> {
        let found = self.backends.iter().find(|backends| backends.service == service);
        Ok(found.ok_or_else(|| format!("no backends for {}", service.name()))?.process())
    }

    /// Ids of its processes.
    pub fn family(&self) -> Vec<u32> {
        measure::family(self.process.id())
    }

    /// The folder with its configuration and files.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Has it read its configuration again; returns when that has been asked for, or done where it can be awaited.
    pub fn reload(&self) -> Result<()> {
        let master = Pid::from_child(&self.process);
        match self.contestant.kind {
            Kind::Sessile => self.admin("POST", "/reload").map(drop),
            Kind::Haproxy { .. } => Ok(kill_process(master, Signal::USR2)?),
            Kind::Nginx { .. } => Ok(kill_process(master, Signal::HUP)?),
        }
    }

    /// What each of sessile's workers says about itself; a peer's say nothing.
    pub fn workers(&self) -> Result<Vec<Value>> {
        if !self.contestant.is_ours() {
            return Ok(Vec::new());
        }
        let mut status: Value = serde_json::from_str(&self.admin("GET", "/status")?)?;
        Ok(status["workers"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    fn admin(&self, method: &str, path: &str) -> Result<String> {
        let mut admin = UnixStream::connect(self.dir.path().join("admin.sock"))?;
        admin.set_read_timeout(Some(PATIENCE))?;
        write!(admin, "{method} {path} HTTP/1.0\r\nHost: admin\r\nContent-Length: 0\r\n\r\n")?;
        let mut answer = String::new();
        admin.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            _ => Err(format!("{path}: {answer}").into()),
        }
    }

    fn await_answers(&mut self, identity: &Identity) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        for (service, front) in &self.addresses {
            while let Err(error) = answers(*service, *front, identity, self.contestant.exchange) {
                if Instant::now() > give_up || self.process.try_wait()?.is_some() {
                    let said = fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default();
                    let name = self.contestant.name;
                    return Err(format!("{name} does not serve {}: {error}\n{said}", service.name()).into());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let family = self.family();
        // A master that is told to end takes its workers with it; a process without any may as well end at once.
        let signal = if family.len() == 1 { Signal::KILL } else { Signal::TERM };
        let _ = kill_process(Pid::from_child(&self.process), signal);
        let give_up = Instant::now() + Duration::from_secs(2);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(2));
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            for pid in family.into_iter().filter_map(|process| Pid::from_raw(process as i32)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = self.process.wait();
        }
    }
}

fn answers(service: Service, front: SocketAddr, identity: &Identity, exchange: Exchange) -> Result<()> {
    // A refused connection is cheaper to try than an exchange that has to fail.
    TcpStream::connect(front)?;
    let tally = match service {
        Service::Http => http::load(front, 1, Manner::Once)?.run(Until::Count(1))?,
        Service::Tls => tls::load(front, 1, identity)?.run(Until::Count(1))?,
        Service::Https => {
            let visitors = Visitors::suspicious(identity, exchange)?;
            https::load(front, 1, Manner::Once, &visitors)?.run(Until::Count(1))?
        }
        Service::Http2 => {
            let config = http2::config(identity, exchange, http2::Trust::Proof)?;
            http2::load(front, 1, &config)?.run(Until::Count(1))?
        }
        Service::Echo => return Ok(Echo::open(front)?.ping().map(drop)?),
        Service::Bulk => return Ok(Bulk::open(front, 1)?.run(Duration::from_millis(1)).map(drop)?),
        Service::Files | Service::Pages => {
            return Ok(Download::open(front, "/file", 1)?.run(Duration::from_millis(1)).map(drop)?);
        }
    };
    tally.first_error.map_or(Ok(()), |error| Err(error.into()))
}
