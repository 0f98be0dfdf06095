//! Limits of requests, by HTTP/1.1 and HTTP/2: what a client gets, what its backend sees, and what log and metrics say.
//!
//! Invariant: every refusal is counted once under the word that its line of the log has.

mod bodies;
mod connections;
mod heads;
mod rates;
mod slow_bodies;

use serde_json::Value;

use crate::support::Sessile;
use crate::support::backend::{listener, pool};
use crate::terminate::backend::Recorder;

/// Keys of a pool that reads HTTP.
const HTTP: &str = "http = true\n";

/// An instance in the clear before one backend; `top` stands in front of all tables, the others are keys of the listener
/// and of the pool.
fn plain(site: &Recorder, top: &str, of_listener: &str, of_pool: &str) -> Sessile {
    Sessile::start(&(top.to_owned() + &listener("p", of_listener) + &pool("p", HTTP, &[site.address()]) + of_pool))
}

/// The line of a request that a limit of requests has ended in this word, and how often that was counted.
fn limited(sessile: &Sessile, path: &str, word: &str) -> (Value, f64) {
    let line = sessile.line(&format!("{path} to end as {word}"), |line| {
        line["kind"] == "request" && line["path"] == path && line["ended"] == word
    });
    (line, sessile.metric(&format!("sessile_requests_limited_total{{ended=\"{word}\"}}")))
}
