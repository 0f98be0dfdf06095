//! Widely used programs as clients, as backends, and as TLS terminators in front of sessile.

mod applications;
mod browser;
mod client_certificates;
mod curl;
mod haproxy;
mod nginx;
mod openssl;
mod other_sites;
mod redis;
mod websockets;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Front;
use crate::support::program::find;
use crate::support::skip;

/// A curl that trusts the listener's authority and resolves `a.test` to it.
pub fn curl(front: &Front) -> Command {
    let mut curl = Command::new("curl");
    let port = front.address().port();
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--cacert"]).arg(front.file("ca.pem"));
    curl.args(["--resolve", &format!("a.test:{port}:127.0.0.1")]);
    curl
}

/// URL of the listener, without a path.
pub fn base(front: &Front) -> String {
    format!("https://a.test:{}", front.address().port())
}

/// Debian's own Python, which has the modules that Debian packages; without these the test is skipped.
pub fn python(test: &str, modules: &str) -> Option<PathBuf> {
    let python = PathBuf::from("/usr/bin/python3");
    let there = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if there.is_ok_and(|answer| answer.status.success()) {
        return Some(python);
    }
    skip(test, &format!("{} with {modules} is not installed", python.display()));
    None
}

fn node(test: &str) -> Option<PathBuf> {
    find(test, "node")
}

/// A command that runs a script of the folder `scripts`.
pub fn run(interpreter: &Path, file: &str) -> Command {
    let mut command = Command::new(interpreter);
    // Python would write compiled modules into the folder.
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(script(file));
    command
}

/// Path of a file in the folder `scripts`.
fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/it/terminate/programs/scripts", name].iter().collect()
}
