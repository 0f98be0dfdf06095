//! nginx as backend: it serves a file from the page cache with sendfile, and takes uploads into files of its own.
//!
//! One process, as the other backends are, with the settings that packages ship: sendfile, tcp_nopush, request bodies
//! read by 16 KiB. Uploads stay in memory where that is possible. Invariant: both ports are open when it counts as
//! started, so that no proxy meets a backend that refuses.

use std::fmt::Write;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Backends, Service};
use crate::Result;
use crate::launch::{Cores, on_cores};
use crate::stage::{Shelf, free_port, scratch};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts it on the cores of the backends.
pub fn start(service: Service, shelf: &Shelf, cores: Cores) -> Result<Backends> {
    let folder = scratch()?;
    let addresses = [free_port()?, free_port()?];
    let (place, file) = (folder.path().display(), shelf.file());
    let [a, b] = addresses;
    let mut text = format!(
        "daemon off;\nmaster_process off;\nworker_rlimit_nofile 4096;\npid {place}/nginx.pid;\n\
         error_log {place}/error.log warn;\nevents {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n\
         sendfile on;\ntcp_nopush on;\nkeepalive_requests 1000000000;\nclient_max_body_size 0;\n"
    );
    temporary(&mut text, folder.path());
    let _ = write!(
        text,
        "server {{\n    listen {a} backlog=4096;\n    listen {b} backlog=4096;\n    \
         location = /file {{ alias {}; }}\n    location / {{ root {place}; dav_methods PUT; }}\n}}\n}}\n",
        file.display()
    );
    let config = folder.path().join("config");
    fs::write(&config, text)?;
    let mut command = on_cores(&[cores.others], &shelf.nginx)?;
    command.args(["-p", ".", "-e", "error.log", "-c"]).arg(&config).current_dir(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn()?;
    let mut backends = Backends { service, addresses, process, folder: Some(folder) };
    let give_up = Instant::now() + PATIENCE;
    while addresses.iter().any(|address| TcpStream::connect(address).is_err()) {
        if Instant::now() > give_up || backends.process.try_wait()?.is_some() {
            let folder = backends.folder.as_ref().map(|folder| folder.path().join("error.log"));
            let said = folder.and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default();
            return Err(format!("nginx does not start as backend\n{said}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(backends)
}

/// Where nginx puts what does not fit its buffers: all of its temporary folders, or it wants those of the system.
pub fn temporary(text: &mut String, folder: &Path) {
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{kind}_temp_path {}/{kind};", folder.display());
    }
}
