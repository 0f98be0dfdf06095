//! The cookie that names a client's backend: one pool's `[pool.cookie]`, ready for requests.
//!
//! Finds no cookie in a head and writes no head (`http` does): it is given values, without the quotes around them, and
//! returns verdicts and bytes. Reads no clock (times are Unix seconds), draws no random bytes and opens no file; all
//! three are arguments. Invariant: a value that a client sends can choose among the pool's backends and do nothing
//! else.
//!
//! | mode | cookie of | backend named by | request | response |
//! |---|---|---|---|---|
//! | [`insert`] | the balancer | a sealed hash of its name | taken out | `Set-Cookie` when new or due |
//! | learn | the application | the pool's stick [`table`](super::table) | unchanged | read |
//! | prefix ([`named`]) | the application | `backend~` before the value | prefix taken out | prefix written in |
//! | route ([`named`]) | the application | `.backend` behind the value | unchanged | unchanged |
//! | hash | the application | nothing; its value is the key | unchanged | unchanged |
//!
//! The application ends stickiness by expiring its cookie, in every mode but the first.

pub mod insert;
pub mod key_ring;
pub mod named;
pub mod names;
pub mod seal;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use self::insert::Insert;
pub use self::key_ring::{KeyProblem, KeyRing};
pub use self::named::PREFIX_END;
pub use self::seal::{Nonce, Nonces, VALUE_LENGTH};

use self::names::Names;
use crate::config::{self, CookieMode, KeyPart};

/// Most values of one name that are looked at; browsers send more than one only where paths or domains overlap.
const VALUES_MAX: usize = 8;

/// Cookie of one pool: name, mode and backends.
#[derive(Debug)]
pub struct CookieRule {
    name: Box<str>,
    names: Arc<Names>,
    mode: Mode,
    /// Key parts that come before the pool's own: the cookie in `hash` mode, else none.
    key: Vec<KeyPart>,
}

/// Modes of a cookie, by how it names the backend.
#[derive(Debug)]
pub enum Mode {
    /// The balancer's own cookie, sealed.
    Insert(Insert),
    /// A cookie of the application, looked up in the stick table.
    Learn,
    /// A cookie of the application, as `backend~value`.
    Prefix,
    /// A cookie of the application, as `value.backend`.
    Route,
    /// A cookie of the application that is the key of placement.
    Hash,
}

/// Verdict on the cookie of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieVerdict {
    /// The cookie is valid, and no new one is sent.
    Fresh {
        /// Index of the backend in the pool.
        backend: usize,
        /// When the client was placed there, in Unix seconds; now for a cookie of the application, which carries no
        /// date.
        issued: u64,
    },
    /// The cookie is valid and is sent again: a tenth of its time has passed, or its key is not the first any more.
    Due {
        /// Index of the backend in the pool.
        backend: usize,
        /// When the client was placed there, in Unix seconds; the new cookie keeps this date.
        issued: u64,
    },
    /// The cookie was unused for too long, or is too old.
    Expired,
    /// The cookie was not sealed by a key of the ring for this name.
    Forged,
    /// The cookie was sealed for another pool with the same keys.
    OtherPool,
    /// The cookie names a backend that the pool does not have, or not any more.
    Removed,
}

/// Entry of the stick table for the value of an application's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RememberedValue {
    /// The stick table does not have the value.
    Unknown,
    /// The value belongs to the backend at this index.
    At(usize),
    /// The value belongs to a backend that has left the pool.
    Gone,
}

impl CookieVerdict {
    /// Index of the backend of a valid cookie.
    pub fn backend(self) -> Option<usize> {
        match self {
            Self::Fresh { backend, .. } | Self::Due { backend, .. } => Some(backend),
            Self::Expired | Self::Forged | Self::OtherPool | Self::Removed => None,
        }
    }

    /// The verdict as a word in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fresh { .. } => "fresh",
            Self::Due { .. } => "due",
            Self::Expired => "expired",
            Self::Forged => "forged",
            Self::OtherPool => "other_pool",
            Self::Removed => "removed",
        }
    }
}

impl CookieRule {
    /// The rule of `pool`, with its backends in the order of the configuration. `read_ring` is called in `insert` mode
    /// only.
    pub fn new<'n, E>(
        cookie: &config::Cookie,
        pool: &str,
        backends: impl IntoIterator<Item = &'n str>,
        read_ring: impl FnOnce(&Path) -> Result<Arc<KeyRing>, E>,
    ) -> Result<Self, E> {
        let names = Arc::new(Names::new(backends));
        let mode = match &cookie.mode {
            CookieMode::Insert(insert) => {
                let ring = read_ring(&insert.keys)?;
                Mode::Insert(Insert::new(&cookie.name, insert, pool, Arc::clone(&names), ring))
            }
            CookieMode::Learn { .. } => Mode::Learn,
            CookieMode::Prefix => Mode::Prefix,
            CookieMode::Route => Mode::Route,
            CookieMode::Hash => Mode::Hash,
        };
        let key = matches!(mode, Mode::Hash).then(|| KeyPart::Cookie(cookie.name.as_str().into()));
        Ok(Self { name: cookie.name.as_str().into(), names, mode, key: key.into_iter().collect() })
    }

    /// The cookie's name; names are compared byte by byte.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cookie's mode, with what it needs.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Key of placement before the pool's own, if the request has it: the cookie in `hash` mode, else empty.
    pub fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// The verdict on the values of this cookie, in the order of the head: the first valid one, or else the first with
    /// any verdict. `None`: no value names a backend. `recall` looks a value up in the stick table, in `learn` mode
    /// only.
    pub fn read<'v>(
        &self,
        values: impl IntoIterator<Item = &'v [u8]>,
        now: u64,
        recall: impl Fn(&[u8]) -> RememberedValue,
    ) -> Option<CookieVerdict> {
        let mut first = None;
        for verdict in values.into_iter().take(VALUES_MAX).filter_map(|value| self.verdict(value, now, &recall)) {
            if verdict.backend().is_some() {
                return Some(verdict);
            }
            first = first.or(Some(verdict));
        }
        first
    }

    /// In `prefix` mode, the text before every value that this backend sets: its name and `~`.
    pub fn prefix(&self, backend: usize) -> Option<&str> {
        matches!(self.mode, Mode::Prefix).then(|| self.names.prefix(backend)).flatten()
    }

    fn verdict(&self, value: &[u8], now: u64, recall: impl Fn(&[u8]) -> RememberedValue) -> Option<CookieVerdict> {
        let known = |backend: Option<usize>| match backend {
            Some(backend) => CookieVerdict::Fresh { backend, issued: now },
            None => CookieVerdict::Removed,
        };
        match &self.mode {
            Mode::Insert(insert) => Some(insert.open(value, now)),
            Mode::Learn => match recall(value) {
                RememberedValue::Unknown => None,
                RememberedValue::At(backend) => Some(known(Some(backend))),
                RememberedValue::Gone => Some(known(None)),
            },
            Mode::Prefix => Some(known(self.names.by_name(named::prefix(value)?))),
            Mode::Route => Some(known(named::route(value, |name| self.names.by_name(name))?)),
            Mode::Hash => None,
        }
    }
}
