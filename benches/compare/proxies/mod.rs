//! The contestants: what is installed, how it is started on its core, reloaded and stopped.
//!
//! Each runs with ports, backends and a folder of its own; nothing is shared but the machine. Invariant: a proxy that
//! was started has answered once on every front, and none outlives its value here.

mod config;
mod installed;
mod terminated;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use self::config::Plan;
use self::installed::{find, said, stream_module};
use crate::Result;
use crate::backends::{Backends, Service};
use crate::launch::{Cores, on_cores};
use crate::load::https::{self, Visitors};
use crate::load::identity::{Exchange, Identity};
use crate::load::{Until, bulk::Bulk, echo::Echo, http, http::Manner, tls};
use crate::measure;

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
    Haproxy { splice: bool },
    Nginx { module: Option<PathBuf> },
}

impl Contestant {
    /// Sessile, sessile again, and whatever else is there; says what is missing and how to get it.
    pub fn all(sessile: &Path, before: Option<PathBuf>, haproxy: Option<PathBuf>, nginx: Option<PathBuf>) -> Vec<Self> {
        let ours = |name, program: &Path| Self {
            name,
            program: program.to_owned(),
            version: said(program, "--version"),
            kind: Kind::Sessile,
            workers: 1,
            everywhere: false,
            busy_poll: "off",
            exchange: Exchange::X25519,
        };
        let mut all = vec![ours("sessile", sessile), ours("null", sessile)];
        all.extend(before.map(|program| ours("before", &program)));
        let mut missing = Vec::new();
        let peer = |name, program: &Path, version: &str, kind| Self {
            kind,
            version: version.to_owned(),
            ..ours(name, program)
        };
        match haproxy.or_else(|| find("haproxy")) {
            Some(program) => {
                let version = said(&program, "-v");
                for (name, splice) in [("haproxy", false), ("haproxy-splice", true)] {
                    all.push(peer(name, &program, &version, Kind::Haproxy { splice }));
                }
            }
            None => missing.push("haproxy"),
        }
        match nginx.or_else(|| find("nginx")).map(|program| (stream_module(&program), program)) {
            Some((Some(module), program)) => {
                let version = said(&program, "-v");
                all.push(peer("nginx", &program, &version, Kind::Nginx { module }));
            }
            Some((None, _)) => missing.push("libnginx-mod-stream"),
            None => missing.extend(["nginx-light", "libnginx-mod-stream"]),
        }
        if !missing.is_empty() {
            println!("Not everyone is here; for that: apt-get install {}", missing.join(" "));
        }
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

    /// Whether it only differs from another where bytes are spliced.
    pub fn is_for_bulk(&self) -> bool {
        self.kind == Kind::Haproxy { splice: true }
    }

    /// Starts it in front of backends of its own.
    pub fn start(&self, services: &[Service], cores: Cores, identity: &Identity, minted_in: &Path) -> Result<Proxy> {
        let dir = scratch()?;
        let start = |service: &Service| Backends::start(*service, cores, minted_in);
        let backends = services.iter().map(start).collect::<Result<Vec<_>>>()?;
        let fronts = backends.iter().map(|backends| Ok((free_port()?, backends))).collect::<Result<Vec<_>>>()?;
        let addresses = fronts.iter().map(|(front, backends)| (backends.service, *front)).collect();
        let (folder, metrics) = (dir.path(), free_port()?);
        let Self { workers, busy_poll, exchange, .. } = *self;
        let plan = Plan { folder, fronts, metrics, workers, busy_poll, exchange, identity };
        let file = dir.path().join("config");
        let (text, arguments): (_, &[&str]) = match &self.kind {
            Kind::Sessile => (config::sessile(&plan), &["run", "--config"]),
            Kind::Haproxy { splice } => (config::haproxy(&plan, *splice), &["-W", "-f"]),
            Kind::Nginx { module } => (config::nginx(&plan, module.as_deref()), &["-p", ".", "-e", "error.log", "-c"]),
        };
        fs::write(&file, text)?;
        let log = File::create(dir.path().join("access.log"))?;
        let on = if self.everywhere { &[cores.proxy, cores.others][..] } else { &[cores.proxy] };
        let mut command = on_cores(on, &self.program)?;
        command.args(arguments).arg(&file).current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(log).stderr(File::create(dir.path().join("error.log"))?);
        let process = command.spawn()?;
        let mut proxy = Proxy { contestant: self.clone(), process, addresses, _backends: backends, dir };
        proxy.await_answers(identity)?;
        Ok(proxy)
    }
}

/// A running proxy, and its backends.
#[derive(Debug)]
pub struct Proxy {
    /// The contestant that this process is.
    pub contestant: Contestant,
    process: Child,
    addresses: Vec<(Service, SocketAddr)>,
    _backends: Vec<Backends>,
    dir: TempDir,
}

impl Proxy {
    /// Where it listens for a service.
    pub fn front(&self, service: Service) -> Result<SocketAddr> {
        let found = self.addresses.iter().find(|(known, _)| *known == service);
        Ok(found.ok_or_else(|| format!("no front for {}", service.name()))?.1)
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
        // A master that is told to end takes its workers with it.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
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
        Service::Echo => return Ok(Echo::open(front)?.ping().map(drop)?),
        Service::Bulk => return Ok(Bulk::open(front, 1)?.run(Duration::from_millis(1)).map(drop)?),
    };
    tally.first_error.map_or(Ok(()), |error| Err(error.into()))
}

/// In memory where that is possible, so that no contestant pays for writing logs to a disk.
pub fn scratch() -> Result<TempDir> {
    Ok(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?)
}

/// Below the ports that the kernel gives to clients.
fn free_port() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 15_000 + (std::process::id() % 1_000) as u16 * 10;
    for _ in 0..10_000 {
        let port = 15_000 + (first - 15_000 + NEXT.fetch_add(1, Relaxed)) % 15_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".into())
}
