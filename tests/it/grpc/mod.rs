//! gRPC through pools with `http = "h2"`, and the health checks of gRPC: clients and servers of Python's grpcio and of grpc-go.
//!
//! What is expected is what the gRPC specification has (<https://github.com/grpc/grpc/blob/master/doc/>), with sessile in
//! between as without it. Invariant: no call waits longer than its own deadline, and a test without grpcio is skipped.

mod calls;
mod go;
mod health;
mod leaving;
mod placing;
mod site;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::program::{Program, free_address};
use crate::support::skip;

const PYTHON: &str = "/usr/bin/python3";

/// True if Python has grpcio; if not, the test is skipped.
fn has_grpc(test: &str) -> bool {
    let there = Command::new(PYTHON).args(["-c", "import grpc"]).output();
    let found = there.is_ok_and(|answer| answer.status.success());
    if !found {
        skip(test, "Python with grpcio is not installed");
    }
    found
}

/// Python with a script of this folder, without proxies and without files of its own.
fn python(script: &str) -> Command {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/it/grpc/scripts", script].iter().collect();
    let mut command = Command::new(PYTHON);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("GRPC_ENABLE_FORK_SUPPORT", "0").arg(path);
    command
}

/// A gRPC server; killed when dropped.
struct Server {
    program: Program,
    address: SocketAddr,
}

impl Server {
    /// Starts it with this name, serving.
    fn named(name: &str) -> Self {
        Self::start(free_address(), name, None)
    }

    /// Starts it with this name and an age, in milliseconds, at which it ends a connection in order.
    fn aging(name: &str, age_ms: u32) -> Self {
        Self::start_as(free_address(), name, None, |command| {
            command.env("MAX_CONNECTION_AGE_MS", age_ms.to_string());
        })
    }

    /// Starts it with TLS, as `a.test`.
    fn with_tls(name: &str, authority: &Authority) -> Self {
        Self::start(free_address(), name, Some(authority))
    }

    fn start(address: SocketAddr, name: &str, authority: Option<&Authority>) -> Self {
        Self::start_as(address, name, authority, |_| ())
    }

    fn start_as(
        address: SocketAddr,
        name: &str,
        authority: Option<&Authority>,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let mut command = python("server.py");
        command.current_dir(dir.path()).arg(name).arg(address.to_string());
        if let Some(authority) = authority {
            let (certificate, key) = authority.mint("a.test").write(dir.path(), "server");
            command.arg(certificate).arg(key);
        }
        std::fs::write(dir.path().join("health"), "=SERVING\n").expect("the file is written");
        prepare(&mut command);
        Self { program: Program::start(dir, command, address), address }
    }

    /// Changes what its health service says: `SERVICE=STATUS` in each line.
    fn is(&self, statuses: &str) {
        let file = self.program.dir.path().join("health");
        // A check must not find half of it.
        let beside = file.with_extension("new");
        std::fs::write(&beside, statuses).expect("the file is written");
        std::fs::rename(beside, file).expect("the file is replaced");
    }

    /// What it has said of its calls, line by line.
    fn said(&self) -> Vec<Value> {
        self.program.said().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Addresses of servers.
fn addresses(servers: &[Server]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}
