//! redis-server for tests: stopped, frozen, slow, or watched by a sentinel.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::program::{self, Program, find, free_address};

/// A redis-server of one test.
pub struct Redis {
    pub address: SocketAddr,
    pub program: Option<Program>,
    server: PathBuf,
}

impl Redis {
    /// Starts it; `None`: it is not installed, and the test says that it skips.
    pub fn start(test: &str) -> Option<Self> {
        let server = find(test, "redis-server")?;
        find(test, "redis-cli")?;
        let mut redis = Self::at(free_address(), &server);
        redis.run(&[]);
        Some(redis)
    }

    /// One that is not started yet.
    pub fn at(address: SocketAddr, server: &Path) -> Self {
        Self { address, program: None, server: server.to_owned() }
    }

    /// Starts it again, empty, on its old port.
    pub fn run(&mut self, more: &[&str]) {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let mut command = Command::new(&self.server);
        command.args(["--bind", &self.address.ip().to_string(), "--port", &self.address.port().to_string()]);
        command.args(["--protected-mode", "no", "--save", "", "--dir"]).arg(dir.path()).args(more);
        self.program = Some(Program::start(dir, command, self.address));
    }

    pub fn stop(&mut self) {
        self.program = None;
    }

    pub fn program(&self) -> &Program {
        self.program.as_ref().expect("it runs")
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Runs redis-cli; returns what it prints.
    pub fn cli(&self, words: &[&str]) -> String {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        program::output(Command::new("redis-cli").args(["-h", &host, "-p", &port, "--raw"]).args(words))
    }

    /// Each key with its value and its time to live in milliseconds.
    pub fn dump(&self) -> Vec<(String, String, i64)> {
        const ALL: &str = "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
            all[#all + 1] = key .. '|' .. redis.call('GET', key) .. '|' .. redis.call('PTTL', key) end return all";
        let text = self.cli(&["eval", ALL, "0"]);
        let parts = |line: &str| {
            let mut parts = line.split('|').map(str::to_owned);
            let mut next = || parts.next().expect("three parts");
            (next(), next(), next().parse().expect("a number"))
        };
        text.lines().filter(|line| !line.is_empty()).map(parts).collect()
    }
}

/// A sentinel with one primary.
pub fn sentinel(test: &str, primary: &Redis) -> Option<(Program, SocketAddr)> {
    let server = find(test, "redis-server")?;
    let (dir, address) = (tempfile::tempdir().expect("a scratch directory"), free_address());
    let (ip, port) = (primary.address.ip(), primary.address.port());
    let text = format!(
        "bind {}\nport {}\nprotected-mode no\nsentinel monitor main {ip} {port} 1\n\
         sentinel down-after-milliseconds main 400\nsentinel failover-timeout main 3000\n",
        address.ip(),
        address.port()
    );
    let file = dir.path().join("sentinel.conf");
    std::fs::write(&file, text).expect("the file is written");
    let mut command = Command::new(server);
    command.arg(&file).arg("--sentinel");
    Some((Program::start(dir, command, address), address))
}

/// A proxy in front of a server that delays its replies.
pub struct Slow {
    proxy: Backend,
    delay_ms: Arc<AtomicU64>,
}

impl Slow {
    pub fn before(server: SocketAddr) -> Self {
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = Arc::clone(&delay_ms);
        let proxy = Backend::serving(move |client| {
            let store = TcpStream::connect(server)?;
            let (mut from, mut to) = (client.try_clone()?, store.try_clone()?);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let mut bytes = [0; 16 * 1024];
            loop {
                let n = (&store).read(&mut bytes)?;
                std::thread::sleep(Duration::from_millis(delay.load(Relaxed)));
                if n == 0 {
                    return client.shutdown(Shutdown::Both);
                }
                (&client).write_all(&bytes[..n])?;
            }
        });
        Self { proxy, delay_ms }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.proxy.address)
    }

    pub fn delay(&self, ms: u64) {
        self.delay_ms.store(ms, Relaxed);
    }
}
