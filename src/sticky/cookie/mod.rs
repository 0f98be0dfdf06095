//! The cookie that says where a client settled: one pool's `[pool.cookie]`, ready for requests.
//!
//! Finds no cookie in a head and writes no head (that is `http`): it is given values, without the quotes that may stand
//! round them, and answers with verdicts and bytes. Reads no clock (times are Unix seconds), draws no random bytes and
//! opens no file; all three are handed in. Invariant: what a client sends can choose among the pool's backends and do
//! nothing else.
//!
//! | mode | whose cookie | says the backend by | request | response |
//! |---|---|---|---|---|
//! | [`insert`] | ours | a sealed hash of its name | taken out | `Set-Cookie` when new or due |
//! | learn | the application's | the pool's [`table`](super::stick table) | unchanged | read |
//! | prefix ([`named`]) | the application's | `backend~` before the value | prefix taken out | prefix written in |
//! | route ([`named`]) | the application's | `.backend` behind the value | unchanged | unchanged |
//! | hash | the application's | nothing; its value is the key | unchanged | unchanged |
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

/// Values of one name that are looked at; browsers send more than one only where paths or domains overlap.
const VALUES_MAX: usize = 8;

/// One pool's cookie.
#[derive(Debug)]
pub struct CookieRule {
    name: Box<str>,
    names: Arc<Names>,
    mode: Mode,
    /// In `hash` mode the cookie, else empty.
    key: Vec<KeyPart>,
}

/// How the cookie tells the backend.
#[derive(Debug)]
pub enum Mode {
    /// The balancer's own.
    Insert(Insert),
    /// The application's, remembered.
    Learn,
    /// `backend~value`.
    Prefix,
    /// `value.backend`.
    Route,
    /// The value is the key.
    Hash,
}

/// What the cookie of a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieVerdict {
    /// Valid; nothing is to be sent.
    Fresh {
        /// Index of the backend in the pool.
        backend: usize,
        /// When the client was placed there, in Unix seconds; of cookies of the application, which carry no date: now.
        issued: u64,
    },
    /// Valid, and to be sent again: a tenth of its time has passed, or its key is not the first any more.
    Due {
        /// Index of the backend in the pool.
        backend: usize,
        /// When the client was placed there, in Unix seconds; it stays so in what is sent.
        issued: u64,
    },
    /// Too long unused, or too old.
    Expired,
    /// Nobody who holds a key has written it, or not for a cookie of this name.
    Forged,
    /// Of another pool with the same keys.
    OtherPool,
    /// For a backend that the pool does not have (any more).
    Removed,
}

/// What is remembered of the value of an application's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RememberedValue {
    /// Nothing.
    Unknown,
    /// It belongs to this backend, by its index.
    At(usize),
    /// It belongs to a backend that the pool does not have any more.
    Gone,
}

impl CookieVerdict {
    /// The backend of a valid cookie, by its index.
    pub fn backend(self) -> Option<usize> {
        match self {
            Self::Fresh { backend, .. } | Self::Due { backend, .. } => Some(backend),
            Self::Expired | Self::Forged | Self::OtherPool | Self::Removed => None,
        }
    }

    /// The word in logs and metrics.
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
    /// What `cookie` means for `pool`, whose backends have these names in the order of its configuration. `read_ring`
    /// is asked in `insert` mode only.
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

    /// How it tells the backend.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// What placement is keyed by if the request has it, before the pool's own key: the cookie in `hash` mode.
    pub fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// What the values of this cookie, in the order of the head, say: the first valid one counts; if there is none, the
    /// first that says anything. `None`: no word of any backend. `recall` is asked in `learn` mode only: what is
    /// remembered of a value.
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

    /// In `prefix` mode, what is written before every value that this backend sets: its name and `~`.
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
