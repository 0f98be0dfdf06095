//! Every example of `config/`: started as its head says, with the backends of `sessile demo --backends`, it keeps what
//! it promises.
//!
//! A line `#   $ COMMAND` in the head of an example is run as it stands there. Addresses are replaced by free ones, in
//! the example and in the commands alike, and files below `/run` and `/tmp` by files of the test. Left out is
//! `reference.toml`, which lists keys and serves nothing. Invariant: nothing else of an example is changed.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::program::{self, free_address};
use crate::support::sessile::command;
use crate::support::{PATIENCE, Sessile, eventually, has, http};

/// Examples that show nothing more than this: every command always gets the answer of one backend.
const STEADY: [&str; 8] = [
    "behind-decoder",
    "ecmp-fleet",
    "https",
    "locations",
    "ring-weights",
    "shared-store", // its Redis is not there
    "tcp-ip-hash",
    "tls-passthrough-sni",
];
/// Examples that have a test of their own.
const OTHERS: [&str; 9] = [
    "behind-proxy",
    "canary",
    "named-ranges",
    "round-robin",
    "server-first",
    "stick-group",
    "sticky-cookies",
    "unix-systemd",
    "websocket",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn every_example_is_tried() {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = files.filter_map(|file| file.strip_suffix(".toml").map(str::to_owned));
    let tried = STEADY.iter().chain(&OTHERS).chain(&["reference"]).map(|name| (*name).to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), tried.collect());
}

#[test]
fn a_client_gets_an_answer_and_stays_at_its_backend() {
    if !has("a_client_gets_an_answer_and_stays_at_its_backend", "curl") {
        return;
    }
    std::thread::scope(|scope| {
        for names in STEADY.chunks(STEADY.len() / 2) {
            scope.spawn(move || names.iter().for_each(|name| Example::start(name).stays()));
        }
    });
}

#[test]
fn a_cookie_of_the_application_keeps_a_client() {
    if !has("a_cookie_of_the_application_keeps_a_client", "curl") {
        return;
    }
    let example = Example::start("sticky-cookies");
    let [learned, tomcat, prefixed, hashed] = &example.commands[..] else { panic!("{:?}", example.commands) };
    for command in [learned, tomcat, prefixed] {
        let first = example.backend(command);
        assert_eq!([example.backend(command), example.backend(command)], [&*first, &*first], "{command}");
    }
    // The value that places a client comes with its first answer.
    example.backend(hashed);
    assert_eq!(example.backend(hashed), example.backend(hashed));
    // It is the cookie that does it.
    for command in [tomcat, prefixed] {
        let first = example.backend(command);
        fs::remove_file(example.site.path().join("cookies")).unwrap();
        assert_ne!(example.backend(command), first, "{command}");
    }
}

#[test]
fn one_user_in_twenty_gets_the_new_version_and_keeps_it() {
    if !has("one_user_in_twenty_gets_the_new_version_and_keeps_it", "curl") {
        return;
    }
    let example = Example::start("canary");
    let [one, others] = &example.commands[..] else { panic!("{:?}", example.commands) };
    let version = |name: &str| name.starts_with("v2");
    let first = example.backend(one);
    for _ in 0..2 {
        assert_eq!(version(&example.backend(one)), version(&first), "{one}");
    }
    // Of 20 users in a row one gets it, to within the step at either end.
    let said = example.output(others);
    let new = said.matches("backend v2a").count();
    assert!(new <= 2 && said.matches("backend v").count() == 20, "{said}");
}

#[test]
fn a_client_has_one_backend_behind_two_ports() {
    if !has("a_client_has_one_backend_behind_two_ports", "curl") {
        return;
    }
    let example = Example::start("stick-group");
    example.stays();
    let [https, imaps] = &example.commands[..] else { panic!("{:?}", example.commands) };
    assert_eq!(example.backend(https), example.backend(imaps));
}

#[test]
fn backends_without_stickiness_take_turns() {
    if !has("backends_without_stickiness_take_turns", "curl") {
        return;
    }
    let example = Example::start("round-robin");
    let mut answers: Vec<_> = (0..4).map(|_| example.backend(&example.commands[0])).collect();
    answers.sort();
    assert_eq!(answers, ["api1", "api1", "api2", "api3"], "weights 2, 1 and 1");
}

#[test]
fn a_server_that_speaks_first_is_heard_on_both_ports() {
    if !has("a_server_that_speaks_first_is_heard_on_both_ports", "curl") {
        return;
    }
    let example = Example::start("server-first");
    let [postgres, ssh, sni] = &example.commands[..] else { panic!("{:?}", example.commands) };
    assert_eq!([example.backend(postgres), example.backend(postgres)], ["primary", "primary"]);
    assert!(["bastion1", "bastion2"].contains(&&*example.backend(ssh)));
    assert_eq!([example.backend(sni), example.backend(sni)], ["primary", "primary"]);
}

#[test]
fn ranges_of_clients_are_explained() {
    if !has("ranges_of_clients_are_explained", "curl") {
        return;
    }
    let example = Example::start("named-ranges");
    let [request, explain] = &example.commands[..] else { panic!("{:?}", example.commands) };
    assert_eq!(example.backend(request), example.backend(request));
    let said = example.output(explain);
    assert_eq!(said.matches("in range office").count(), 2, "{said}");
}

#[test]
fn announced_clients_get_the_backends_of_their_network_which_learn_of_them() {
    if !has("announced_clients_get_the_backends_of_their_network_which_learn_of_them", "curl") {
        return;
    }
    let example = Example::start("behind-proxy");
    example.stays();
    for (client, inside) in [("10.1.2.3", true), ("192.0.2.7", false)] {
        let announced = format!("PROXY TCP4 {client} 10.20.0.1 4711 443\r\n");
        let mut stream = example.tls("www.example.org", announced.as_bytes());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: www.example.org\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer); // ends without an alert
        assert_eq!(answer.contains("backend c, "), inside, "{answer}");
        assert!(answer.contains(&format!("\r\nx-client: {client}\r\n")), "{answer}");
    }
}

#[test]
fn a_websocket_comes_back_to_its_backend() {
    if !has("a_websocket_comes_back_to_its_backend", "curl") {
        return;
    }
    let example = Example::start("websocket");
    example.stays();
    let home = example.backend(&example.commands[0]);
    for _ in 0..2 {
        let stream = example.tls("chat.example.org", b"");
        let (mut socket, _) = tungstenite::client("ws://chat.example.org/ws", stream).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(&*home));
        socket.send(Message::text("hello")).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text("hello"));
    }
}

#[test]
fn sockets_of_a_service_manager_are_served() {
    let test = "sockets_of_a_service_manager_are_served";
    if !["systemd-socket-activate", "curl"].iter().all(|program| has(test, program)) {
        return;
    }
    let example = Example::start_by("unix-systemd", |command, addresses| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let out = |name: &str| File::create(file.with_file_name(name)).unwrap();
        let mut activate = Command::new("systemd-socket-activate");
        activate.args([&format!("--listen={}", addresses.of(FRONT)), "--fdname=https"]);
        activate.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        activate.stdout(out("out.log")).stderr(out("err.log"));
        *command = activate;
    });
    eventually("the socket", || example.sessile.said().contains("Listening on").then_some(()));
    // The first connection starts the process.
    example.stays();
    let mut stream = UnixStream::connect(example.site.path().join("sessile/decoded.sock")).unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n").unwrap();
    let (status, body) = http::exchange(stream, "GET", "/").unwrap();
    assert!(status == 200 && body.starts_with("backend app"), "{status} {body}");
}

/// Listener of most examples with TLS.
const FRONT: &str = "127.0.0.1:8443";

/// An example with its backends, both running.
struct Example {
    name: &'static str,
    /// Working directory of all programs, with certificates.
    site: tempfile::TempDir,
    /// Commands of its head, with other addresses.
    commands: Vec<String>,
    addresses: Addresses,
    sessile: Sessile,
    _backends: Backends,
}

impl Example {
    /// Starts what the head of the example says, and waits until it is ready.
    fn start(name: &'static str) -> Self {
        let example = Self::start_by(name, |_, _| {});
        example.sessile.ready();
        example
    }

    /// Starts it by a command that `prepare` has changed, and does not wait.
    fn start_by(name: &'static str, prepare: impl FnOnce(&mut Command, &Addresses)) -> Self {
        let site = tempfile::tempdir().unwrap();
        let path = site.path().to_str().unwrap();
        let text = fs::read_to_string(folder().join(name).with_extension("toml")).unwrap();
        let mut addresses = Addresses::default();
        let text = addresses.replace(&text.replace("/tmp/sessile/admin.sock", "$DIR/admin.sock"));
        let text = text.replace("/run/sessile/admin.sock", "$DIR/admin.sock");
        let text = text.replace("/run/", "$SITE/").replace("/tmp/", "$SITE/").replace("$SITE", path);
        fs::write(site.path().join("example.toml"), text.replace("$DIR", path)).unwrap();
        fs::write(site.path().join(".curlrc"), "silent\nshow-error\nfail\nmax-time = 20\nnoproxy = \"*\"\n").unwrap();
        program::output(certificates(&text).current_dir(site.path()));
        let backends = Backends::start(site.path());
        let sessile = Sessile::spawn(&text, |command| {
            prepare(command, &addresses);
            command.current_dir(site.path());
        });
        Self { name, commands: commands(&text), site, addresses, sessile, _backends: backends }
    }

    /// Runs every command three times: one backend answers.
    fn stays(&self) {
        assert!(!self.commands.is_empty(), "{}: nothing to try", self.name);
        for command in &self.commands {
            let answers = [(); 3].map(|()| self.backend(command));
            assert!(answers.iter().all(|name| *name == answers[0]), "{}: {command}: {answers:?}", self.name);
        }
    }

    /// Name of the backend that answers to a command.
    fn backend(&self, command: &str) -> String {
        let said = self.output(command);
        let name = said.strip_prefix("backend ").and_then(|rest| rest.split([',', ':', '\n']).next());
        name.unwrap_or_else(|| panic!("{}: {command}: {said}", self.name)).to_owned()
    }

    /// What a command of the head prints.
    fn output(&self, command: &str) -> String {
        let programs = Path::new(env!("CARGO_BIN_EXE_sessile")).parent().unwrap().display();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(command.replace(&format!("config/{}.toml", self.name), "example.toml"));
        shell.current_dir(self.site.path()).env("PATH", path).env("CURL_HOME", self.site.path()).stdin(Stdio::null());
        program::output(&mut shell)
    }

    /// A client with TLS that trusts the authority of `certs dev`; `before` goes in front of its hello.
    fn tls(&self, name: &str, before: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
        let authority = fs::read(self.site.path().join("certs/dev-ca.pem")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let mut stream = TcpStream::connect(self.addresses.of(FRONT)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(before).unwrap();
        let name = name.to_owned().try_into().unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }
}

/// The command of the head that makes certificates; some examples need other names than usual, or none.
fn certificates(text: &str) -> Command {
    let stated = text.split('`').find_map(|part| part.strip_prefix("sessile certs dev"));
    let mut certs = command(&["certs", "dev"]);
    certs.args(stated.unwrap_or_default().split_whitespace());
    certs
}

/// Commands of the head, each in one line.
fn commands(text: &str) -> Vec<String> {
    let head: Vec<_> = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect();
    let head = head.join("\n").replace("\\\n", " ");
    head.lines().filter_map(|line| line.strip_prefix("$ ").map(str::to_owned)).collect()
}

/// Free addresses in the place of those of an example.
#[derive(Default)]
struct Addresses(HashMap<SocketAddr, SocketAddr>);

impl Addresses {
    /// Replaces every address in a text, each always by the same one. Of IPv6, which no command uses, the kernel
    /// chooses the port.
    fn replace(&mut self, text: &str) -> String {
        const BASH: &str = "/dev/tcp/127.0.0.1";
        let text = text.replace(&format!("{BASH}/"), &format!("{BASH}:"));
        let (mut replaced, mut rest) = (String::new(), &*text);
        while let Some(at) = ["127.", "0.0.0.0:", "[::"].iter().filter_map(|begin| rest.find(begin)).min() {
            let (before, from) = rest.split_at(at);
            let end = from.find(|c: char| !c.is_ascii_digit() && !".:[]".contains(c)).unwrap_or(from.len());
            let (written, behind) = from.split_at(end);
            replaced += before;
            match written.parse() {
                Ok(SocketAddr::V6(_)) => replaced += "[::1]:0",
                Ok(known) => {
                    let new = self.0.entry(loopback(known)).or_insert_with(free_address).to_string();
                    let is_path = before.ends_with("/dev/tcp/");
                    replaced += &if is_path { new.replace(':', "/") } else { new };
                }
                Err(_) => replaced += written,
            }
            rest = behind;
        }
        replaced + rest
    }

    /// The address in the place of this one.
    fn of(&self, known: &str) -> SocketAddr {
        self.0[&known.parse::<SocketAddr>().unwrap()]
    }
}

/// Where a client of this machine reaches an address.
fn loopback(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, address.port()).into() } else { address }
}

/// `sessile demo --backends` for one example; killed when dropped.
struct Backends(Child);

impl Backends {
    /// Starts all backends of `example.toml` in a folder.
    fn start(site: &Path) -> Self {
        let mut demo = command(&["demo", "--backends", "--config", "example.toml"]);
        let mut backends = Self(demo.current_dir(site).stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(backends.0.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.ends_with("serving until Ctrl-C.")) {
            said.push(lines.next().unwrap_or_else(|| panic!("the demo ended: {said:?}")).unwrap());
        }
        assert!(!said.iter().any(|line| line.starts_with("not started")), "{said:?}");
        assert!(said.iter().any(|line| line.contains("by certs/dev-ca.pem")), "{said:?}");
        backends
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
