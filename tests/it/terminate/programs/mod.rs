//! Clients, backends and decoders that others have written.

mod curl;
mod haproxy;
mod openssl;
mod redis;

use std::process::Command;

use super::Front;

/// A client that knows the authority of the listener, and its name `a.test`.
fn curl(front: &Front) -> Command {
    let mut curl = Command::new("curl");
    let port = front.address().port();
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--cacert"]).arg(front.file("ca.pem"));
    curl.args(["--resolve", &format!("a.test:{port}:127.0.0.1")]);
    curl
}

/// What clients call the listener.
fn base(front: &Front) -> String {
    format!("https://a.test:{}", front.address().port())
}
