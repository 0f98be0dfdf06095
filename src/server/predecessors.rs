//! A restart without a service manager, seen from the process that starts: [`Predecessors`] are processes with the same
//! admin socket that stop, and [`Server::watch_predecessors`] shows them in the status.
//!
//! Binds nothing (`listen_sockets` does) and ends no process. Invariants: an address in use is bound beside a process
//! only if that process stops and says that it listens there; a process that stops learns that this one serves, or that
//! its start has failed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{Server, lock_of};
use crate::admin::client::exchange;
use crate::admin::moved::{HeldAddresses, moved_sockets};
use crate::config::{Bind, Config};
use crate::metrics::status::{DrainingProcess, ProcessStatus};
use crate::socket;

/// How long a process that stops may take to write its stick tables for this one.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a process that stops may take for any other reply.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time between two looks at processes that stop, and while this one shares addresses with one.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_SHARING: Duration = Duration::from_millis(100);

/// Processes that stop and know of this one. Dropping this reports that the start has failed.
#[derive(Debug, Default)]
pub(super) struct Predecessors(Vec<Predecessor>);

#[derive(Debug)]
struct Predecessor {
    socket: PathBuf,
    listening: Vec<String>,
}

impl Predecessors {
    /// Reports this process to those that stop. Each keeps its listeners open until this one serves, and writes its
    /// stick tables for it.
    pub(super) fn greet(config: &Config) -> Self {
        let moved = config.process.admin.socket.as_deref().map(moved_sockets).unwrap_or_default();
        Self(moved.into_iter().filter_map(|(pid, socket)| Predecessor::greet(pid, socket)).collect())
    }

    /// The addresses on which they still listen.
    pub(super) fn listening(&self) -> Vec<Bind> {
        self.0.iter().flat_map(|process| &process.listening).filter_map(|address| read(address)).collect()
    }

    /// Reports that this process serves new clients.
    pub(super) fn serving(mut self) {
        self.report("/successor/serving");
        self.0.clear();
    }

    fn report(&self, stage: &str) {
        for process in &self.0 {
            // A process that has ended meanwhile needs no report.
            let _ = exchange(&process.socket, "POST", stage, "", PATIENCE);
        }
    }
}

impl Drop for Predecessors {
    fn drop(&mut self) {
        self.report("/successor/failed");
    }
}

impl Predecessor {
    fn greet(pid: u32, socket: PathBuf) -> Option<Self> {
        if is_left_over(&socket) {
            return None;
        }
        let reply = match exchange(&socket, "POST", "/successor/starting", "", WRITE_PATIENCE) {
            Ok(reply) if reply.code == 200 => reply,
            // The socket of another instance that has such a name.
            Ok(_) => return None,
            Err(error) => {
                tracing::warn!("process {pid} stops, and its admin socket {}: {error}", socket.display());
                return None;
            }
        };
        let HeldAddresses { listening } = serde_json::from_str(&reply.body).unwrap_or_default();
        let on = if listening.is_empty() { "no address any more".to_owned() } else { listening.join(", ") };
        tracing::info!("process {pid} stops, and this one starts beside it; it listens on {on}");
        Some(Self { socket, listening })
    }
}

/// True if the process of a moved socket has ended; its file is removed.
fn is_left_over(socket: &Path) -> bool {
    let left = socket::knock(socket).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if left {
        let _ = socket::remove_stale(socket);
    }
    left
}

fn read(address: &str) -> Option<Bind> {
    address.parse().ok().filter(|bind| !matches!(bind, Bind::Systemd(_)))
}

/// The part of a status that is shown of a process that stops.
#[derive(Debug, Deserialize)]
struct Tail {
    version: String,
    #[serde(flatten)]
    process: ProcessStatus,
    admission: TailPermits,
}

#[derive(Debug, Deserialize)]
struct TailPermits {
    open: u64,
}

impl Server {
    /// Looks at the processes that stop beside this one, for ever. New clients are spread over all sockets of an address
    /// again once the others have closed theirs.
    pub(super) async fn watch_predecessors(self: Arc<Self>) {
        let Some(socket) = self.started_with.process.admin.socket.clone() else {
            // What an earlier process has left of its sharing ends here, too.
            return self.listen_sockets.lock().await.share_no_more();
        };
        let mut shares = true;
        loop {
            let path = socket.clone();
            let own = self.admin.path().unwrap_or_default();
            let seen = tokio::task::spawn_blocking(move || look(&path, &own)).await.unwrap_or_default();
            // A process that does not reply in time may still listen, and is shown as it was.
            let listens = |seen: &SeenProcess| seen.reply.as_ref().is_none_or(|(_, listening)| *listening > 0);
            if shares && !seen.iter().any(listens) {
                self.listen_sockets.lock().await.share_no_more();
                shares = false;
            }
            self.show(seen);
            tokio::time::sleep(if shares { LOOK_SHARING } else { LOOK }).await;
        }
    }

    /// Shows what was seen of processes that stop.
    fn show(&self, seen: Vec<SeenProcess>) {
        let mut restart = lock_of(&self.restart);
        let before = std::mem::take(&mut restart.draining);
        let known = |pid: u32| before.iter().find(|process| process.pid == pid).cloned();
        let shown = |SeenProcess { pid, reply }| reply.map(|(process, _)| process).or_else(|| known(pid));
        restart.draining = seen.into_iter().filter_map(shown).collect();
    }
}

/// A process that stops beside this one.
#[derive(Debug, PartialEq, Eq)]
struct SeenProcess {
    pid: u32,
    /// What is shown of it, and the number of its listening sockets; `None`: no reply in time.
    reply: Option<(DrainingProcess, u64)>,
}

/// The processes that stop beside this one. `own`: where the socket of this process is.
fn look(socket: &Path, own: &Path) -> Vec<SeenProcess> {
    let others = moved_sockets(socket).into_iter().filter(|(_, socket)| socket != own);
    let ask = |(pid, socket): (u32, PathBuf)| {
        let body = match exchange(&socket, "GET", "/status", "", PATIENCE) {
            Ok(reply) => reply.body,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(SeenProcess { pid, reply: None }),
            // The process has ended.
            Err(_) => return None,
        };
        let Tail { version, process, admission } = serde_json::from_str(&body).ok()?;
        let stopping_s = process.stopping_s?;
        let socket = socket.display().to_string();
        let shown = DrainingProcess { pid, version, stopping_s, open: admission.open, socket };
        Some(SeenProcess { pid, reply: Some((shown, process.listening_sockets)) })
    };
    others.filter_map(ask).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn addresses_of_another_process_are_read_and_unknown_ones_left_out() {
        assert_eq!(read("127.0.0.1:80"), Some(Bind::Tcp("127.0.0.1:80".parse().unwrap())));
        assert_eq!(read("[::]:80"), Some(Bind::Tcp("[::]:80".parse().unwrap())));
        assert_eq!(read("unix:/run/a.sock"), Some(Bind::Unix("/run/a.sock".into())));
        assert_eq!(read("systemd:web"), None);
    }

    #[test]
    fn a_process_that_does_not_reply_in_time_still_stops_and_one_that_serves_is_not_seen() {
        let folder = tempfile::tempdir().unwrap();
        let bind = |name: &str| UnixListener::bind(folder.path().join(name)).unwrap();
        let (_silent, serving, stopping) = (bind("admin.1.sock"), bind("admin.2.sock"), bind("admin.3.sock"));
        let reply = |listener: UnixListener, stopping: &str| {
            let body = format!(
                "{{\"version\":\"9\",\"pid\":7,{stopping}\"listening_sockets\":2,\"admission\":{{\"open\":5}}}}"
            );
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).unwrap();
            })
        };
        let replies = [reply(serving, ""), reply(stopping, "\"stopping_s\":12,")];
        let seen = look(&folder.path().join("admin.sock"), Path::new(""));
        replies.into_iter().for_each(|reply| reply.join().unwrap());
        let socket = folder.path().join("admin.3.sock").display().to_string();
        let shown = DrainingProcess { pid: 3, version: "9".into(), stopping_s: 12, open: 5, socket };
        assert_eq!(
            seen,
            [SeenProcess { pid: 1, reply: None }, SeenProcess { pid: 3, reply: Some((shown, 2)) }],
            "the second one does not stop"
        );
    }

    #[test]
    fn a_socket_that_a_killed_process_left_is_removed_and_names_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let moved = folder.path().join("admin.4711.sock");
        drop(UnixListener::bind(&moved).unwrap());
        assert!(Predecessor::greet(4711, moved.clone()).is_none());
        assert!(!moved.exists());
        assert!(look(&folder.path().join("admin.sock"), Path::new("")).is_empty());
    }
}
