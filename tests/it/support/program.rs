//! Debian programs as real services: each in a scratch directory of its own, killed when dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::{eventually, skip};

/// How long a program may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A running program.
pub struct Program {
    pub dir: TempDir,
    child: Child,
    stop: Signal,
}

impl Program {
    /// Starts a program that serves at `address`, which is waited for. What it says goes to a file in `dir`.
    pub fn start(dir: TempDir, command: Command, address: SocketAddr) -> Self {
        Self::start_until(dir, command, &address.to_string(), |_| TcpStream::connect(address).is_ok())
    }

    /// Starts a program that serves once `is_ready` says so, which gets the folder. What it says goes to a file in `dir`.
    pub fn start_until(dir: TempDir, mut command: Command, place: &str, is_ready: impl Fn(&Path) -> bool) -> Self {
        let log = File::create(dir.path().join("program.log")).expect("a log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut program = Self { dir, child, stop: Signal::KILL };
        eventually(&format!("{command:?} at {place}"), || {
            let ended = program.child.try_wait().expect("the process is ours");
            assert!(ended.is_none(), "{command:?}: {ended:?}\n{}", program.said());
            is_ready(program.dir.path()).then_some(())
        });
        program
    }

    /// For programs that have processes of their own, which end with them when asked so.
    pub fn stopped_by(mut self, signal: Signal) -> Self {
        self.stop = signal;
        self
    }

    /// Number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("the process is there");
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("program.log")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, self.stop);
        }
        let give_up = Instant::now() + STOP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- said by the program in {}\n{}", self.dir.path().display(), self.said());
        }
    }
}

/// Where a program is, also where Debian keeps servers; if nowhere, the test is skipped.
pub fn find(test: &str, program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    let found = folders.iter().map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        skip(test, &format!("{program} is not installed"));
    }
    found
}

/// An address for a program that cannot choose a free port itself: a loopback host of this process alone, and a port
/// outside the range that the kernel chooses from, which is returned once.
pub fn free_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, 64 | high, middle, low), next_port()).into()
}

/// An address of 127.0.0.1 with a port that is free at every local address, outside the range that the kernel chooses
/// from, and returned once. Port 0 would not do: a port that was closed again can be any other socket's a moment later.
pub fn free_local_address() -> SocketAddr {
    let port = std::iter::repeat_with(next_port).find(|port| is_free(*port)).expect("a free port");
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether no socket listens at a port of any local address. The socket that tries it does not listen itself: a process
/// that another test starts at this moment has it open, too, until it runs its program, and would still listen.
fn is_free(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).is_ok()
}

/// A port below those that the kernel chooses from. Each process begins elsewhere.
fn next_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let offset = std::process::id().wrapping_mul(101).wrapping_add(TAKEN.fetch_add(1, Relaxed).into());
    10_000 + (offset % 22_000) as u16
}

/// Number and group of a user of this machine; `None`: there is none of this name.
pub fn user(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut numbers = entry.split(':').skip(1);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Copies a file that is to be run. Another process does: a copy that this one has open for writing would be open in any
/// child that another test starts meanwhile, and could not be run then (ETXTBSY).
pub fn copy_to_run(from: &Path, to: &Path) {
    output(Command::new("cp").arg(from).arg(to));
}

/// Runs a program to its end, which must be a good one; what it printed.
pub fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

/// nginx with these `server` blocks, which listen at `address` among others.
pub fn nginx(nginx: &Path, address: SocketAddr, servers: &str) -> Program {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {path}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\n{temporary}{servers}\n}}\n"
    );
    let file = dir.path().join("nginx.conf");
    fs::write(&file, config).expect("the file is written");
    let mut command = Command::new(nginx);
    command.args(["-e", "stderr", "-p"]).arg(dir.path()).arg("-c").arg(file);
    Program::start(dir, command, address)
}
