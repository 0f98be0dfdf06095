//! HTTP/2 with clients: what is offered, how messages pass, where streams go, and how connections end.
//!
//! The clients are those of others: the crate `h2`, curl, nghttp, h2load, Node, Python and Chromium; what none of them
//! would send comes frame by frame. Invariant: a test that needs a program is skipped without it.

mod abuse;
mod bodies;
pub mod client;
mod early;
mod failures;
mod frames;
mod goaway;
mod long_bodies;
mod malformed;
mod messages;
mod mixed;
mod negotiation;
mod page_load;
mod places;
mod programs;
mod seen;
pub mod site;
mod socket_cases;
mod socket_frames;
mod sticky;
mod stopping;
mod web_socket;
mod windows;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::backend::{listener, pool};
use crate::support::{Sessile, eventually};

/// Keys of a pool that reads HTTP.
const HTTP: &str = "http = true\n";

/// Keys of a pool that places new clients in turn, and keeps them by its own cookie.
const INSERT: &str =
    "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";

/// An instance in the clear, without TLS. `top`: the text in front of all tables.
fn plain(top: &str, options: &str, backends: &[SocketAddr]) -> Sessile {
    plain_with(top, "", options, backends)
}

/// The same, with further keys of the listener.
fn plain_with(top: &str, keys: &str, options: &str, backends: &[SocketAddr]) -> Sessile {
    Sessile::start(&(top.to_owned() + &listener("p", keys) + &pool("p", options, backends)))
}

/// A size that `SESSILE_TEST_` and this word may tell.
fn told(word: &str, otherwise: usize) -> usize {
    std::env::var(format!("SESSILE_TEST_{word}")).map_or(otherwise, |size| size.parse().expect("a number"))
}

/// Lines of requests in the access log, once there are so many.
fn request_lines(sessile: &Sessile, count: usize) -> Vec<Value> {
    eventually(&format!("{count} lines of requests"), || {
        let lines: Vec<_> = sessile.lines().into_iter().filter(|line| line["kind"] == "request").collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// The line of the request for this path.
fn line_of(sessile: &Sessile, path: &str) -> Value {
    sessile.line(&format!("the request for {path}"), |line| line["kind"] == "request" && line["path"] == path)
}

/// The sum of all series of a family, whatever labels they have.
fn figure(sessile: &Sessile, family: &str) -> f64 {
    let page = sessile.metrics();
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(family)?;
        let value = if rest.starts_with('{') { rest.rsplit_once("} ")?.1 } else { rest.strip_prefix(' ')? };
        value.parse::<f64>().ok()
    });
    values.sum()
}
