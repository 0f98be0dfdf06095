//! Every configuration of `config/migrate/`: what its original of HAProxy or nginx means to clients.
//!
//! Where HAProxy or nginx is installed, the original runs beside ours in front of the same backends, and each test asks
//! both. Addresses are replaced by free ones and times of checks by short ones, in both alike. Invariant: nothing else
//! is changed, but for what a test says of its original.

mod backend;
mod client;
mod haproxy_cookie_site;
mod haproxy_dns;
mod haproxy_sni;
mod haproxy_tcp;
mod mysql;
mod nginx_http;
mod nginx_stream;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::Sessile;
use crate::support::program::{self, Program, find, free_address};
use crate::support::sessile::command;

/// The configurations: name, extension of the original, and an address at which both listen.
const FILES: [(&str, &str, &str); 6] = [
    ("haproxy-cookie-site", "cfg", "127.0.0.1:33500"),
    ("haproxy-dns", "cfg", "127.0.0.1:33540"),
    ("haproxy-sni", "cfg", "127.0.0.1:33514"),
    ("haproxy-tcp-stick-table", "cfg", "127.0.0.1:33512"),
    ("nginx-http", "conf", "127.0.0.1:33530"),
    ("nginx-stream", "conf", "127.0.0.1:33520"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/migrate")
}

/// A working directory for all programs of a test, with certificates, and the addresses of its backends.
struct Site {
    dir: TempDir,
    /// Free addresses by those in the files.
    backends: RefCell<HashMap<String, SocketAddr>>,
}

/// A balancer in front of the backends.
struct Proxy {
    /// "sessile", "haproxy" or "nginx".
    name: &'static str,
    /// Its free addresses by those in the files.
    listeners: HashMap<String, SocketAddr>,
    process: Process,
}

enum Process {
    Ours(Box<Sessile>),
    Peer { _program: Program },
}

impl Proxy {
    /// Where it listens for an address of the files.
    fn at(&self, written: &str) -> SocketAddr {
        self.listeners[written]
    }

    fn ours(&self) -> Option<&Sessile> {
        match &self.process {
            Process::Ours(sessile) => Some(sessile),
            Process::Peer { .. } => None,
        }
    }

    fn is_ours(&self) -> bool {
        self.ours().is_some()
    }
}

impl Site {
    /// A folder in which files of both sides find what they name. The certificate is for all names of the files.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = ["www.example.org", "*.example.org", "*.shop.example.org", "api.internal"];
        let mut certs = command(&["certs", "dev"]);
        certs.args(names.iter().flat_map(|name| ["--name", name])).current_dir(dir.path());
        program::output(&mut certs);
        let at = |name: &str| dir.path().join(name);
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        for name in ["dev.pem", "dev-key.pem", "dev-ca.pem"] {
            fs::copy(at("certs").join(name), at(name)).unwrap();
        }
        fs::write(at("site.pem"), read("dev.pem") + &read("dev-key.pem")).unwrap();
        fs::write(at("x"), "user:{PLAIN}secret\n").unwrap();
        for place in ["config/migrate", "www"] {
            fs::create_dir_all(at(place)).unwrap();
            fs::copy(folder().join("sorry.html"), at(place).join("sorry.html")).unwrap();
        }
        Self { dir, backends: RefCell::default() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The address in the place of that of a backend. Each host of the files is a host here.
    fn backend(&self, written: &str) -> SocketAddr {
        let mut backends = self.backends.borrow_mut();
        *backends.entry(written.to_owned()).or_insert_with(|| {
            let known: SocketAddr = written.parse().unwrap();
            SocketAddr::new(host(known.ip()), free_address().port())
        })
    }

    /// Replaces every address with a port. Those of this machine are listeners, all others backends.
    fn replaced(&self, text: &str, listeners: &mut HashMap<String, SocketAddr>) -> String {
        let (mut replaced, mut rest) = (String::new(), text);
        while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_ascii_digit() && !".:".contains(c)).unwrap_or(from.len());
            let (written, behind) = from.split_at(end);
            replaced += before;
            replaced += &match written.parse::<SocketAddr>() {
                Ok(address) if address.ip().is_loopback() => {
                    listeners.entry(written.to_owned()).or_insert_with(free_address).to_string()
                }
                Ok(_) => self.backend(written).to_string(),
                Err(_) => written.to_owned(),
            };
            rest = behind;
        }
        replaced + rest
    }

    /// Starts our configuration. `change` has the text with the addresses of this test.
    fn ours(&self, name: &str, change: impl Fn(&str) -> String) -> Proxy {
        let text = fs::read_to_string(folder().join(name).with_extension("toml")).unwrap();
        let mut listeners = HashMap::new();
        let text = change(&self.replaced(&text, &mut listeners));
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n"));
        let text = lines.collect::<String>().replace("[admin]\n", "[admin]\nsocket = \"$DIR/admin.sock\"\n");
        let sessile = Sessile::spawn(&text, |command| {
            command.current_dir(self.path());
        });
        sessile.ready();
        Proxy { name: "sessile", listeners, process: Process::Ours(Box::new(sessile)) }
    }

    /// Starts the original, if its program is installed. `change` has the text with the addresses of this test.
    fn original(&self, test: &str, name: &str, change: impl Fn(&str) -> String) -> Option<Proxy> {
        let (name, extension, front) = FILES.into_iter().find(|(known, ..)| *known == name).expect("a file");
        let program = if extension == "cfg" { "haproxy" } else { "nginx" };
        let found = find(test, program)?;
        let mut listeners = HashMap::new();
        let file = self.write_original(name, extension, &mut listeners, change);
        let mut command = Command::new(found);
        if program == "haproxy" {
            command.args(["-db", "-L", "lb1", "-f"]).arg(file);
        } else {
            self.prepare_nginx(&mut command, "daemon off; master_process off;").arg("-c").arg(file);
        }
        let started = Program::start(tempfile::tempdir().unwrap(), self.inside(command), listeners[front]);
        Some(Proxy { name: program, listeners, process: Process::Peer { _program: started } })
    }

    /// Ours, and the original beside it where its program is installed.
    fn both(&self, test: &str, name: &str, change: impl Fn(&str) -> String) -> Vec<Proxy> {
        let ours = self.ours(name, &change);
        std::iter::once(ours).chain(self.original(test, name, &change)).collect()
    }

    /// Writes an original into the folder, with the places of this test in the place of those of a system.
    fn write_original(
        &self,
        name: &str,
        extension: &str,
        listeners: &mut HashMap<String, SocketAddr>,
        change: impl Fn(&str) -> String,
    ) -> PathBuf {
        let file = format!("{name}.{extension}");
        let text = fs::read_to_string(folder().join(&file)).unwrap();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let own: String = temporary.map(|kind| format!("{kind}_temp_path {kind}; ")).concat();
        let text = text.replace("/var/www", self.path().join("www").to_str().unwrap());
        let text = text.replace("\nhttp {", &format!("\nhttp {{ access_log off; {own}"));
        let path = self.path().join(file);
        fs::write(&path, change(&self.replaced(&text, listeners))).unwrap();
        path
    }

    fn prepare_nginx<'c>(&self, command: &'c mut Command, directives: &str) -> &'c mut Command {
        let pid = tempfile::Builder::new().tempfile_in(self.path()).unwrap().path().display().to_string();
        let directives = format!("{directives} pid {pid}.pid; error_log stderr;");
        command.args(["-e", "stderr", "-g", &directives, "-p"]).arg(self.path())
    }

    fn inside(&self, mut command: Command) -> Command {
        command.current_dir(self.path());
        command
    }
}

/// A host of this machine, of this test program alone, in the place of a host of the files: one for each of three in a
/// row.
fn host(known: IpAddr) -> IpAddr {
    let IpAddr::V4(known) = known else { panic!("{known}") };
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let kind = [192, 64, 128][usize::from(known.octets()[3] % 3)];
    Ipv4Addr::new(127, kind | high, middle, low).into()
}

/// Shortens the times of checks and agents, in both alike.
fn with_quick_checks(text: &str) -> String {
    let text =
        text.replace("interval = \"3s\"", "interval = \"50ms\"").replace("interval = \"2s\"", "interval = \"50ms\"");
    let text = text.replace(" check", " check inter 50ms").replace("agent-check", "agent-check agent-inter 50ms");
    // Without it a check of HAProxy that takes longer than the time between two has failed.
    text.replace("timeout connect 5s\n  timeout client", "timeout connect 5s\n  timeout check 5s\n  timeout client")
}

#[test]
fn every_configuration_has_its_original_beside_it() {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let known = FILES.iter().flat_map(|(name, extension, _)| [format!("{name}.toml"), format!("{name}.{extension}")]);
    assert_eq!(files.collect::<BTreeSet<_>>(), known.chain(["sorry.html".to_owned()]).collect());
}

#[test]
fn every_original_is_accepted_by_its_program() {
    let test = "every_original_is_accepted_by_its_program";
    let (haproxy, nginx) = (find(test, "haproxy"), find(test, "nginx"));
    let site = Site::new();
    for (name, extension, _) in FILES {
        let is_haproxy = extension == "cfg";
        let program = if is_haproxy { &haproxy } else { &nginx };
        let Some(program) = program else { continue };
        let file = site.write_original(name, extension, &mut HashMap::new(), str::to_owned);
        let mut command = Command::new(program);
        if is_haproxy {
            command.args(["-c", "-L", "lb1", "-f"]).arg(file);
        } else {
            site.prepare_nginx(&mut command, "").arg("-t").arg("-c").arg(file);
        }
        program::output(&mut site.inside(command));
    }
}

#[test]
fn every_configuration_is_good_as_it_stands() {
    let site = Site::new();
    for (name, ..) in FILES {
        let file = folder().join(name).with_extension("toml");
        let said = program::output(command(&["check"]).arg(&file).current_dir(site.path()));
        // The name server of one of them is not there.
        let good = if name == "haproxy-dns" { "good, with 1 warning" } else { "good" };
        assert!(said.ends_with(&format!("{}: {good}\n", file.display())), "{said}");
    }
}
