//! [`Site`]: sessile in front of servers of gRPC, and the client that calls them.
//!
//! Judges no answer. Invariant: what the client says comes as JSON.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{Server, python};
use crate::support::backend::{listener, pool};
use crate::support::program::output;
use crate::support::{Sessile, eventually};
use crate::terminate::Front;

/// Keys of a pool that speaks HTTP/2 to its backends.
pub const H2: &str = "http = \"h2\"\n";

/// Keys of such a pool that places new clients in turn; a client of gRPC keeps no cookie.
pub const IN_TURN: &str =
    "http = \"h2\"\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";

impl Server {
    /// Calls of this method that have begun.
    pub fn begun(&self, method: &str) -> Vec<Value> {
        self.said().into_iter().filter(|line| line["begun"] == method).collect()
    }

    /// Waits until a call of this method has ended, and says how.
    pub fn ended(&self, method: &str) -> Value {
        eventually(&format!("the end of {method}"), || self.said().into_iter().find(|line| line["ended"] == method))
    }
}

/// sessile with a listener `l` in front of one pool `p`, with TLS at the client or in the clear.
pub struct Site {
    pub sessile: Sessile,
    /// Files of the configuration.
    _dir: TempDir,
    /// File of authorities, as the client wants it.
    pub authorities: String,
}

impl Site {
    /// In the clear, by prior knowledge.
    pub fn plain(options: &str, backends: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let key = "0123456789abcdef5a69788796a5b4c3".repeat(2) + "\n";
        std::fs::write(dir.path().join("cookie.keys"), key).expect("the file is written");
        let text = listener("p", "") + &pool("p", options, backends);
        let text = text.replace("$FILES", dir.path().to_str().expect("a path of words"));
        Self { sessile: Sessile::start(&text), _dir: dir, authorities: "-".to_owned() }
    }

    /// Over TLS, by ALPN.
    pub fn with_tls(options: &str, backends: &[SocketAddr]) -> Self {
        let Front { sessile, dir, .. } = Front::start("", options, backends);
        let authorities = dir.path().join("ca.pem").display().to_string();
        Self { sessile, _dir: dir, authorities }
    }

    /// Both.
    pub fn both(options: &str, backends: &[SocketAddr]) -> [Self; 2] {
        [Self::plain(options, backends), Self::with_tls(options, backends)]
    }

    fn command(&self, what: &str, more: &[&str]) -> Command {
        let mut command = python("client.py");
        command.arg(what).arg(self.sessile.address("l").to_string()).arg(&self.authorities).args(more);
        command
    }

    /// Has the client do this, and returns what it says.
    pub fn asks(&self, what: &str, more: &[&str]) -> Value {
        let text = output(&mut self.command(what, more));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Lines of calls of this method in the access log, once there are so many.
    pub fn log(&self, method: &str, count: usize) -> Vec<Value> {
        let path = format!("/test.Calls/{method}");
        eventually(&format!("{count} lines of {method}"), || {
            let lines: Vec<_> = self.sessile.lines().into_iter().filter(|line| line["path"] == path.as_str()).collect();
            (lines.len() >= count).then_some(lines)
        })
    }
}

/// A client with a stream that goes on; killed when dropped.
pub struct Streaming {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Streaming {
    pub fn start(site: &Site) -> Self {
        let mut command = site.command("stream", &[]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// Makes another call, behind the stream. Returns the answer.
    pub fn next_call(&mut self) -> String {
        // The line that it waits for is the end of its input.
        drop(self.child.stdin.take());
        self.says()["next"].as_str().expect("an answer").to_owned()
    }

    /// What it says next.
    pub fn says(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The name of the server that sends the next message, and the number of the message.
    pub fn message(&mut self) -> (String, u64) {
        let said = self.says();
        let (name, number) =
            said["message"].as_str().and_then(|text| text.split_once(' ')).unwrap_or_else(|| panic!("{said}"));
        (name.to_owned(), number.parse().expect("a number"))
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
