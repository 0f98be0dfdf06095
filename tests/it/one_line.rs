//! `sessile run` without a file: what the arguments stand for, and how commands find such a process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::backend::Backend;
use crate::support::program::copy_to_run;
use crate::support::sessile::{command, run};
use crate::support::{eventually, http, is_root};
use crate::terminate::client::{Talk, connect};

/// An ordinary user.
const NOBODY: u32 = 65_534;

/// A user with folders of its own, and the process that it has started.
struct User {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl User {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), child: None }
    }

    /// A user with a process that is ready.
    fn running(line: &str, backends: &[&Backend]) -> Self {
        let mut user = Self::new();
        user.start(&with_backends(line, backends));
        user
    }

    /// The binary with words of a line as arguments, in the environment of the user.
    fn command(&self, line: &str) -> Command {
        let mut command = command(&line.split_whitespace().collect::<Vec<_>>());
        command.current_dir(self.dir.path());
        command.env("XDG_RUNTIME_DIR", self.dir.path()).env("XDG_STATE_HOME", self.dir.path().join("state"));
        command
    }

    fn start(&mut self, line: &str) {
        let log = |name: &str| File::create(self.dir.path().join(name)).unwrap();
        let mut command = self.command(line);
        self.child = Some(command.stdout(log("out.log")).stderr(log("err.log")).spawn().unwrap());
        let _ = eventually("the process to be ready", || {
            http::unix_get(&self.admin(), "/readyz").filter(|(status, _)| *status == 200)
        });
    }

    /// Ends the process in order.
    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn admin(&self) -> PathBuf {
        self.dir.path().join("sessile/admin.sock")
    }

    /// Runs a command to its end; its output if it succeeds.
    fn run(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(line)).unwrap()
    }

    /// Addresses of the listener, as `sessile status` shows them without being told where the process is.
    fn addresses(&self) -> Vec<SocketAddr> {
        let status = self.json("status --json");
        let bound = status["listeners"][0]["bind"].as_array().unwrap().iter();
        bound.map(|address| address.as_str().unwrap().parse().unwrap()).collect()
    }

    fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.path().join("err.log")).unwrap_or_default());
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn with_backends(line: &str, backends: &[&Backend]) -> String {
    backends.iter().fold(format!("run {line}"), |line, backend| format!("{line} --backend {}", backend.address))
}

/// A backend that answers every request with its name, on connections that stay open.
fn http_backend(name: &'static str) -> Backend {
    Backend::serving(move |mut stream| {
        for line in BufReader::new(stream.try_clone()?).lines() {
            if line?.is_empty() {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())?;
            }
        }
        Ok(())
    })
}

/// What a client with this address gets for a line.
fn ask_from(client: [u8; 4], to: SocketAddr) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = BufReader::new(TcpStream::from(socket));
    stream.get_mut().write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    answer
}

#[test]
fn a_client_stays_by_its_address_and_commands_find_the_process() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let user = User::running("--listen 127.0.0.1:0 --sticky source", &[&a, &b]);
    let to = user.address();
    let first: Vec<_> = (1..=40).map(|client| ask_from([127, 0, 9, client], to)).collect();
    for backend in ["a hello\n", "b hello\n"] {
        assert!(first.iter().any(|answer| answer == backend), "{first:?}");
    }
    for (client, answer) in (1..=40).zip(&first) {
        assert_eq!(ask_from([127, 0, 9, client], to), *answer);
    }
    let name = format!("app/{}", a.address.to_string().replace(':', "-"));
    assert!(user.run("status").contains(&name[4..]));
    user.run(&format!("drain {name}"));
    // A new client, whatever its address.
    assert_eq!(ask_from([127, 0, 10, 1], to), "b hello\n");
    let folder = user.admin().parent().unwrap().metadata().unwrap().permissions().mode();
    assert_eq!(folder & 0o022, 0, "others cannot write to the folder: {folder:o}");
    let verdict = user.json("reload --json");
    assert_eq!((&verdict["accepted"], &verdict["changes"]), (&true.into(), &Value::Array(Vec::new())), "{verdict}");
}

#[test]
fn localhost_is_every_loopback_address_of_the_machine() {
    let backend = Backend::named("a");
    let user = User::running("--listen localhost:0", &[&backend]);
    let addresses = user.addresses();
    assert!(addresses[0].is_ipv4(), "{addresses:?}");
    for address in addresses {
        assert!(address.ip().is_loopback());
        let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
        stream.get_mut().write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        assert_eq!(answer, "a hello\n");
    }
}

#[test]
fn a_cookie_keeps_a_client_also_over_a_restart() {
    let (a, b) = (http_backend("a"), http_backend("b"));
    let mut user = User::running("--listen 127.0.0.1:0 --sticky cookie", &[&a, &b]);
    let ask = |to: SocketAddr, fields: &str| Talk::new(TcpStream::connect(to).unwrap()).get("/", fields);
    let to = user.address();
    let first = ask(to, "");
    let cookie = first.field("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("SESSILE-app="), "{cookie}");
    assert_ne!(ask(to, "").text(), first.text(), "another client gets the next backend");
    let stays = |to: SocketAddr| {
        for _ in 0..6 {
            assert_eq!(ask(to, &format!("Cookie: {cookie}\r\n")).text(), first.text());
        }
    };
    stays(to);
    user.stop();
    let line = with_backends("--listen 127.0.0.1:0 --sticky cookie", &[&a, &b]);
    user.start(&line);
    stays(user.address());
    // In the folder of the user, or where an earlier process on this machine has made it.
    let printed = user.run(&format!("{line} --print-config"));
    let keys = Path::new(printed.lines().find_map(|line| line.strip_prefix("keys = ")).unwrap().trim_matches('"'));
    assert_eq!(keys.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

/// A client that trusts the authority of `certs dev` alone.
fn tls_client(folder: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("dev-ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn tls_ends_here_with_a_certificate_and_its_key_in_two_files_or_in_one() {
    let backend = http_backend("a");
    let mut user = User::new();
    user.run("certs dev");
    let certs = user.dir.path().join("certs");
    let both = ["dev.pem", "dev-key.pem"].map(|name| fs::read_to_string(certs.join(name)).unwrap()).concat();
    fs::write(certs.join("both.pem"), both).unwrap();
    fs::set_permissions(certs.join("both.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let client = tls_client(&certs);
    for files in ["--tls-cert certs/dev.pem --tls-key certs/dev-key.pem", "--tls-cert certs/both.pem"] {
        user.start(&with_backends(&format!("--listen 127.0.0.1:0 --http {files}"), &[&backend]));
        let mut talk = Talk::new(connect(user.address(), &client, "localhost"));
        assert_eq!((talk.get("/", "").text(), talk.get("/", "").text()), ("a".to_owned(), "a".to_owned()), "{files}");
        drop(talk);
        user.stop();
    }
    let line = with_backends("--listen 127.0.0.1:0 --tls-cert certs/dev.pem", &[&backend]);
    for line in [line.clone(), format!("{line} --print-config")] {
        let refused = user.command(&line).output().unwrap();
        assert_eq!((refused.status.code(), &*refused.stdout), (Some(64), &b""[..]));
        let said = text(&refused);
        assert!(said.starts_with("sessile: --tls-cert (no --tls-key): cert \""), "{said}");
        assert!(said.contains("there is no key in it"), "{said}");
    }
}

#[test]
fn the_printed_file_serves_the_same() {
    let (a, b) = (http_backend("a"), http_backend("b"));
    let mut user = User::new();
    let line = with_backends("--listen 127.0.0.1:0 --sticky cookie", &[&a, &b]);
    let printed = user.run(&format!("{line} --print-config"));
    fs::write(user.dir.path().join("f.toml"), &printed).unwrap();
    assert!(user.run("check -c f.toml").ends_with("f.toml: good\n"));
    let mut seen = Vec::new();
    for line in [&*line, "run -c f.toml"] {
        user.start(line);
        let status = user.json("status --json");
        assert_eq!(user.json("status --json -c f.toml")["digest"], status["digest"]);
        let backends = status["pools"][0]["backends"].as_array().unwrap();
        let names: Vec<_> = backends.iter().map(|backend| backend["name"].clone()).collect();
        seen.push((status["digest"].clone(), status["pools"][0]["name"].clone(), names));
        user.stop();
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].2.len(), 2);
    assert_eq!(user.run(&format!("{line} --print-config")), printed);
}

#[test]
fn an_upgrade_serves_the_same_arguments() {
    let backend = Backend::named("a");
    let mut user = User::running("--listen 127.0.0.1:0", &[&backend]);
    let to = user.address();
    let verdict = user.json("upgrade --json");
    assert_eq!(verdict["accepted"], true, "{verdict}");
    let next = Pid::from_raw(verdict["pid"].as_i64().unwrap() as i32).unwrap();
    assert_eq!((user.address(), ask_from([127, 0, 0, 1], to)), (to, "a hello\n".to_owned()));
    kill_process(next, Signal::KILL).unwrap();
    // The process that was left ends by itself.
    assert!(user.child.take().unwrap().wait().unwrap().success());
}

#[test]
fn an_upgrade_keeps_the_places_that_no_argument_names() {
    if !is_root("an_upgrade_keeps_the_places_that_no_argument_names") {
        return;
    }
    let backend = http_backend("a");
    let mut user = User::running("--listen 127.0.0.1:0 --sticky cookie", &[&backend]);
    let (to, admin) = (user.address(), user.admin());
    let ask = |fields: &str| Talk::new(TcpStream::connect(to).unwrap()).get("/", fields);
    let cookie = ask("").field("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
    // By now another process without a file would choose other places: the folder is another user's.
    std::os::unix::fs::chown(user.dir.path(), Some(NOBODY), None).unwrap();
    let verdict = user.json(&format!("upgrade --json --socket {}", admin.display()));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    let next = Pid::from_raw(verdict["pid"].as_i64().unwrap() as i32).unwrap();
    let status = user.json(&format!("status --json --socket {}", admin.display()));
    assert_eq!(status["pid"], verdict["pid"], "{status}");
    assert_eq!(ask(&format!("Cookie: {cookie}\r\n")).field("set-cookie"), None, "the cookie is still good");
    kill_process(next, Signal::KILL).unwrap();
    assert!(user.child.take().unwrap().wait().unwrap().success());
}

#[test]
fn problems_are_shown_all_at_once_by_their_arguments() {
    let user = User::new();
    let line = "run --listen nowhere --backend 10.0.0.300:80 --backend app --tls-cert none.pem";
    for line in [line.to_owned(), format!("{line} --print-config")] {
        let refused = user.command(&line).output().unwrap();
        assert_eq!((refused.status.code(), &*refused.stdout), (Some(64), &b""[..]));
        let said = text(&refused);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{said}");
        for begins in [
            "sessile: --listen 1: bind \"nowhere\" is not an address",
            "sessile: --tls-cert (no --tls-key): cert \"",
            "sessile: --backend 1: address \"10.0.0.300:80\" is not an address",
            "sessile: --backend 2: address \"app\" has no port",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(begins)), "{begins}\n{said}");
        }
    }
    let refused = run(&["run", "-c", "f.toml", "--listen", ":0", "--backend", "127.0.0.1:1"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(text(&refused).contains("cannot be used with"), "{}", text(&refused));
    let taken = user.dir.path().join("taken");
    fs::write(&taken, "").unwrap();
    let line = format!("run --listen 127.0.0.1:0 --backend 127.0.0.1:1 --socket {}", taken.display());
    let said = text(&user.command(&line).output().unwrap());
    assert!(said.starts_with("sessile: --socket: socket \"") && said.contains("in the way"), "{said}");
    // What is printed may be served by another user, for which the file is not there.
    assert!(user.run(&format!("{line} --print-config")).contains(taken.to_str().unwrap()));
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_its_argument_or_its_place_in_the_file() {
    let backend = Backend::named("a");
    let user = User::new();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let line = with_backends(&format!("--listen 127.0.0.1:0 --listen {taken}"), &[&backend]);
    let refused = user.command(&line).output().unwrap();
    assert_eq!(refused.status.code(), Some(69));
    let expected = format!("{taken}: another program listens there\n");
    assert_eq!(text(&refused), format!("sessile: --listen 2: {expected}"));
    let printed = user.run(&format!("{line} --print-config"));
    fs::write(user.dir.path().join("f.toml"), &printed).unwrap();
    let number = printed.lines().position(|line| line.contains(&format!("\"{taken}\","))).unwrap() + 1;
    let refused = user.command("run -c f.toml").output().unwrap();
    assert_eq!(refused.status.code(), Some(69));
    assert_eq!(text(&refused), format!("sessile: f.toml:{number}:3: listener \"front\": {expected}"));
}

#[test]
fn without_a_folder_for_it_the_admin_socket_is_off_and_a_line_says_so() {
    if !is_root("without_a_folder_for_it_the_admin_socket_is_off_and_a_line_says_so") {
        return;
    }
    let backend = Backend::named("a");
    let user = User::new();
    // The folder where the binary was built may be closed to others.
    let program = user.dir.path().join("program");
    copy_to_run(Path::new(env!("CARGO_BIN_EXE_sessile")), &program);
    fs::set_permissions(user.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let line = with_backends("--listen 127.0.0.1:0", &[&backend]);
    let as_nobody = || {
        let mut command = Command::new(&program);
        command.args(line.split(' ')).current_dir("/").uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
        command.env_remove("XDG_RUNTIME_DIR");
        command
    };
    let printed = text(&as_nobody().arg("--print-config").output().unwrap());
    assert!(printed.contains("\nsocket = \"off\"\n") && printed.contains("--socket PATH"), "{printed}");
    let log = user.dir.path().join("err.log");
    let mut child = as_nobody().stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
    let said =
        eventually("the process to be ready", || fs::read_to_string(&log).ok().filter(|said| said.contains("ready: ")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said.lines().filter(|line| line.contains("no admin socket: ")).count(), 1, "{said}");
}
