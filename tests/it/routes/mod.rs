//! Routes of requests, answers without a backend, and pages for errors, by curl over HTTP/1.1 and HTTP/2.
//!
//! Invariant: each test asks in every way in which its listener takes requests, and gets the same in each.

mod answers;
mod pages;
mod reference;
mod requests;
mod split;

use std::net::SocketAddr;
use std::process::Command;

use crate::support::program::output;
use crate::terminate::Front;

/// A way to ask a listener.
pub struct Asking {
    address: SocketAddr,
    scheme: &'static str,
    arguments: Vec<String>,
}

/// What curl got: the version, the status, the lines of the head behind it, and the content.
#[derive(Debug)]
pub struct Got {
    pub version: String,
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Got {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Asking {
    /// HTTP/1.1 and HTTP/2 in the clear.
    pub fn plain(address: SocketAddr) -> [Self; 2] {
        let way = |argument: &str| Self { address, scheme: "http", arguments: vec![argument.to_owned()] };
        [way("--http1.1"), way("--http2-prior-knowledge")]
    }

    /// HTTP/1.1 and HTTP/2 with TLS.
    pub fn secure(front: &Front) -> [Self; 2] {
        let ca = front.file("ca.pem").display().to_string();
        ["--http1.1", "--http2"].map(|version| {
            let arguments = vec![version.to_owned(), "--cacert".to_owned(), ca.clone()];
            Self { address: front.address(), scheme: "https", arguments }
        })
    }

    fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "60",
            "--path-as-is",
            "--globoff",
            "--include",
        ]);
        curl.args(["--connect-to", &format!("::{}", self.address)]).args(&self.arguments);
        curl
    }

    /// Asks for what stands behind the scheme: host and path.
    pub fn get(&self, url: &str) -> Got {
        self.with(&[], url)
    }

    pub fn with(&self, arguments: &[&str], url: &str) -> Got {
        let text = output(self.curl().args(arguments).arg(format!("{}://{url}", self.scheme)));
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{url}: {text}"));
        let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
        let mut words = line.split(' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words.next().and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text}"));
        Got { version, status, head: head.to_owned(), body: body.to_owned() }
    }
}
