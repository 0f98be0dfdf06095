//! Knot DNS with one zone, `example.`, that a test rewrites as it likes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::support::program::{Program, find, free_local_address, output};

/// A running server.
pub struct Knot {
    pub address: SocketAddr,
    program: Program,
    control: PathBuf,
    serial: AtomicU32,
}

impl Knot {
    /// Starts a server with these lines in its zone; `None`: there is no such program, and the test is skipped.
    pub fn start(test: &str, records: &str) -> Option<Self> {
        let (server, control) = (find(test, "knotd")?, find(test, "knotc")?);
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().display().to_string();
        let address = free_local_address();
        let config = format!(
            r#"server:
    rundir: "{path}"
    listen: 127.0.0.1@{port}
    answer-rotation: on
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
control:
    listen: knot.sock
    timeout: 20
database:
    storage: "{path}"
log:
  - target: stderr
    any: info
template:
  - id: default
    storage: "{path}"
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: example
    file: example.zone
"#,
            port = address.port()
        );
        let file = dir.path().join("knot.conf");
        fs::write(&file, config).expect("the file is written");
        fs::write(dir.path().join("example.zone"), zone(1, records)).expect("the file is written");
        let mut command = Command::new(server);
        command.arg("-c").arg(file);
        let program = Program::start(dir, command, address);
        Some(Self { address, program, control, serial: AtomicU32::new(1) })
    }

    /// Puts these lines in the place of all others of the zone.
    pub fn set(&self, records: &str) {
        let serial = self.serial.fetch_add(1, Relaxed) + 1;
        let dir = self.program.dir.path();
        fs::write(dir.join("next.zone"), zone(serial, records)).expect("the file is written");
        fs::rename(dir.join("next.zone"), dir.join("example.zone")).expect("the file is replaced");
        let conf = dir.join("knot.conf");
        output(Command::new(&self.control).arg("-c").arg(conf).args(["-b", "zone-reload", "example"]));
    }
}

fn zone(serial: u32, records: &str) -> String {
    format!("$ORIGIN example.\n$TTL 30\n@ SOA ns admin {serial} 3600 600 86400 7\n@ NS ns\nns A 127.0.0.1\n{records}\n")
}

/// Records of a service with these pods, `web-N` at 10.0.0.(N + 1).
pub fn pods(count: usize) -> String {
    let pod = |index: usize| {
        let (high, low) = ((index + 1) / 250, (index + 1) % 250);
        format!("_http._tcp.web SRV 0 50 8080 web-{index}.web\nweb-{index}.web A 10.0.{high}.{low}\n")
    };
    (0..count).map(pod).collect()
}
