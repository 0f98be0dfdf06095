//! A real redis-server and instances of sessile, for benches of what a shared store costs.
//!
//! Measures nothing. Invariant: every process ends with its value here, and all listen on loopback or on sockets in a
//! scratch folder alone.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A process, killed when dropped.
pub struct Program(Child);

impl Program {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("the program starts"))
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A redis-server on a unix socket.
pub struct Redis {
    dir: TempDir,
    /// The process; `None`: it was stopped.
    pub server: Option<Program>,
}

impl Redis {
    /// Starts it; `None`: it is not installed.
    pub fn start() -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("redis-server is not installed: nothing is measured");
            return None;
        }
        let mut redis = Self { dir: scratch(), server: None };
        redis.run();
        Some(redis)
    }

    /// Starts it, empty.
    pub fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--dir"]).arg(self.dir.path());
        self.server = Some(Program::start(command.arg("--unixsocket").arg(self.socket())));
        eventually("redis-server", || UnixStream::connect(self.socket()).ok());
    }

    /// Path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        let id = self.server.as_ref().and_then(|server| Pid::from_raw(server.id() as i32));
        id.into_iter().for_each(|id| kill_process(id, signal).expect("the process is there"));
    }
}

/// A running sessile with one worker.
pub struct Instance {
    pub program: Program,
    /// Address of its only listener.
    pub address: SocketAddr,
    dir: TempDir,
}

impl Instance {
    /// Starts it with this configuration, which says nothing of workers and the admin socket.
    pub fn start(text: &str) -> Self {
        let dir = scratch();
        let (file, socket) = (dir.path().join("sessile.toml"), dir.path().join("admin.sock"));
        let head = format!("workers = 1\n[admin]\nsocket = \"{}\"\n[log]\nconnections = false\n", socket.display());
        std::fs::write(&file, head + text).expect("the file is written");
        let program = Program::start(Command::new(env!("CARGO_BIN_EXE_sessile")).args(["run", "--config"]).arg(&file));
        let mut instance = Self { program, address: ([0, 0, 0, 0], 0).into(), dir };
        let bound = || instance.json("/status")?["listeners"][0]["bind"][0].as_str()?.parse().ok();
        instance.address = eventually("an instance", bound);
        instance
    }

    /// What it says at a path of its admin socket.
    pub fn json(&self, path: &str) -> Option<serde_json::Value> {
        let mut stream = UnixStream::connect(self.dir.path().join("admin.sock")).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }
}

/// A scratch folder.
pub fn scratch() -> TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

/// Waits until a look finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        match look() {
            Some(found) => return found,
            None => assert!(Instant::now() < give_up, "waited in vain for {what}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A quantile of some figures, which are sorted.
pub fn quantile(figures: &mut [f64], at: f64) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[((figures.len() - 1) as f64 * at).round() as usize]
}

/// Tables of the backends at these addresses, for the end of a pool.
pub fn backend_tables(backends: &[SocketAddr]) -> String {
    let table = |(number, address)| format!("[[pool.backend]]\nname = \"b{number}\"\naddress = \"{address}\"\n");
    backends.iter().enumerate().map(table).collect()
}
