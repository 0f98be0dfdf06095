//! [`WhyReport`]: what happened to one client, as `/why` and `sessile why` show it.
//!
//! Plain data for JSON: the process fills it in. Invariant: a report says since when the process has watched, so a
//! report without moves is no claim about the time before.

use serde::{Deserialize, Serialize};

use crate::events::DatedEvent;

/// What happened to one client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReport {
    /// What the question was: `address`, `connection`, `request` or `cookie`.
    pub asked: String,
    /// Address of the client; `None`: it is not known.
    pub client: Option<String>,
    /// `moved`, `not_moved` or `not_known`.
    pub outcome: String,
    /// The answer in a few sentences.
    pub answer: String,
    /// Pool of the client; `None`: it is not known.
    pub pool: Option<String>,
    /// Backend of the client now; `None`: it is not known.
    pub backend: Option<String>,
    /// Entry of the client in the stick table of that pool.
    pub entry: Option<WhyEntry>,
    /// Entries of the client in stick tables of other pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_entries: Vec<WhyEntry>,
    /// The cookie, if the question was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<WhyCookie>,
    /// Number of connections that are open now.
    pub open: usize,
    /// Some of these connections.
    pub connections: Vec<WhyConnection>,
    /// Moves between backends, the oldest first.
    pub moves: Vec<WhyMove>,
    /// Endings that the client has noticed, the oldest first.
    pub ended: Vec<WhyEnding>,
    /// Events that may concern the client: what goes on now, and the latest of the last hour.
    pub events: Vec<DatedEvent>,
    /// Since when every move and ending is known: UTC, RFC 3339.
    pub since: String,
}

/// An entry in a stick table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyEntry {
    /// Name of the pool.
    pub pool: String,
    /// Backend that the entry names; `None`: it has left the pool.
    pub backend: Option<String>,
    /// Why the entry names that backend, as one word.
    pub kind: String,
    /// Seconds since the client was last seen, in whole minutes.
    pub age_s: u64,
    /// Seconds until the entry is over if the client does not come again.
    pub expires_s: u64,
    /// Another instance that has told the entry through the store; `None`: it was made here, or is no longer known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_by: Option<String>,
}

/// What a cookie is worth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyCookie {
    /// Pool with a cookie of this kind; of a split's cookie the pool that it names, empty if it names none.
    pub pool: String,
    /// Split with a cookie of this kind; `None`: it is a pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Name of the cookie.
    pub name: String,
    /// The verdict on the value, as one word of the access log; `not_known`: the value names no backend.
    pub verdict: String,
    /// Backend that the value names.
    pub backend: Option<String>,
    /// When the value was sealed: UTC, RFC 3339; `None`: no key in force opens it, or it is the application's.
    pub sealed: Option<String>,
    /// The verdict in words.
    pub meaning: String,
}

/// A move of the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyMove {
    /// When the client got the other backend: UTC, RFC 3339.
    pub time: String,
    /// Name of the pool.
    pub pool: String,
    /// Backend that the client had; `None`: its name is not known any more.
    pub from: Option<String>,
    /// Backend that the client got.
    pub to: String,
    /// Why, as one word of `sticky_breaks_total`.
    pub cause: String,
    /// Why, in words, with the event behind it.
    pub because: String,
    /// Number of the connection.
    pub connection: u64,
}

/// An ending that the client has noticed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyEnding {
    /// When it ended: UTC, RFC 3339; of several alike, the last one.
    pub time: String,
    /// How it ended, as one word of the access log.
    pub ended: String,
    /// The ending in words.
    pub meaning: String,
    /// Party at fault, as one word.
    pub fault: String,
    /// True if a request ended so, and not its connection.
    pub request: bool,
    /// Name of the listener.
    pub listener: String,
    /// Name of the pool; `None`: it was not routed.
    pub pool: Option<String>,
    /// Backend tried last; `None`: none was tried.
    pub backend: Option<String>,
    /// Number of the connection.
    pub connection: u64,
    /// How many such endings in a row this stands for.
    pub count: u64,
}

/// A connection that is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyConnection {
    /// Number of the connection.
    pub id: u64,
    /// Name of the listener.
    pub listener: String,
    /// Name of the pool, once it is routed.
    pub pool: Option<String>,
    /// Name of the backend, once one is picked.
    pub backend: Option<String>,
    /// Why that backend was picked, as one word.
    pub reason: Option<String>,
    /// What the connection is doing.
    pub stage: String,
    /// Age in milliseconds.
    pub age_ms: u64,
}
