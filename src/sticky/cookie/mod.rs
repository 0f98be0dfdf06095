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
//! | learn, from a header field | the application | the same | unchanged | read |
//! | prefix ([`named`]) | the application | `backend~` before the value | prefix taken out | prefix written in |
//! | route ([`named`]) | the application | `.backend` behind the value, or `backend.` before it | unchanged | unchanged |
//! | hash | the application | nothing; its value is the key | unchanged | unchanged |
//!
//! The application ends stickiness by expiring its cookie, in every mode but the first; the value of a header field ends
//! with a successful DELETE that brings it. A backend's `Set-Cookie` of the
//! first mode's name is removed; [`tiers`] says what becomes of the value of another balancer.

pub mod insert;
pub mod key_ring;
pub mod named;
pub mod names;
pub mod seal;
pub mod tiers;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub use self::insert::{Insert, Issue};
pub use self::key_ring::{KeyProblem, KeyRing};
pub use self::named::PREFIX_END;
pub use self::seal::{Nonce, Nonces, VALUE_LENGTH};

use self::names::{NameId, Names};
use super::table::{EntryKind, TableLookup};
use super::{Had, Left};
use crate::config::{self, Carrier, CookieMode, KeyPart, RouteRules};
use crate::outcome::BreakCause;

/// Most values of one name that are looked at; browsers send more than one only where paths or domains overlap.
pub const VALUES_MAX: usize = 8;

/// Longest value of an application's cookie that is learned, in bytes: browsers promise to keep 4096 bytes of a cookie
/// (RFC 6265 §6.1), so a longer value is no session of a browser.
pub const LEARNED_MAX: usize = 4096;

/// True for a value of an application's cookie that the stick table and the store take.
pub fn is_learnable(value: &[u8]) -> bool {
    (1..=LEARNED_MAX).contains(&value.len())
}

/// Cookie of one pool: name, mode and backends.
#[derive(Debug)]
pub struct CookieRule {
    name: Box<str>,
    names: Arc<Names>,
    mode: Mode,
    carrier: Carrier,
    /// Key parts that come before the pool's own: the cookie in `hash` mode, else none.
    key: Vec<KeyPart>,
    /// Names of backends that the pool had and does not have any more.
    former: Arc<[Arc<str>]>,
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
    /// A cookie of the application, as `value.backend` or `backend.value`.
    Route(RouteRules),
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
    Expired {
        /// Index of the backend that the client had; `None`: the pool does not have it any more.
        backend: Option<usize>,
    },
    /// The cookie was not sealed by a key of the ring for this name.
    Forged,
    /// The cookie was sealed for another pool of the configuration, with the same keys.
    OtherPool,
    /// The cookie was sealed for a pool that the configuration does not have: it was renamed or removed.
    FormerPool {
        /// Index of the backend in this pool with the name that the client had; `None`: there is none.
        backend: Option<usize>,
    },
    /// The cookie names a backend that the pool had, and does not have any more.
    Removed {
        /// Its index among the former backends of the pool; `None`: its name is not known.
        former: Option<usize>,
    },
    /// The cookie names a backend that the pool is not known to have had.
    Unknown,
}

/// The value of a cookie that counts in a request, and its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadValue<'v> {
    /// What the value is worth.
    pub verdict: CookieVerdict,
    /// The value, without quotes.
    pub value: &'v [u8],
}

impl<'v> ReadValue<'v> {
    /// Value of the tier behind this one, see [`tiers`], in a value of mode `insert`.
    pub fn inner(&self) -> Option<&'v [u8]> {
        tiers::split(self.value).1
    }
}

impl CookieVerdict {
    /// Index of the backend of a valid cookie.
    pub fn backend(self) -> Option<usize> {
        match self {
            Self::Fresh { backend, .. } | Self::Due { backend, .. } => Some(backend),
            Self::Expired { .. }
            | Self::Forged
            | Self::OtherPool
            | Self::FormerPool { .. }
            | Self::Removed { .. }
            | Self::Unknown => None,
        }
    }

    /// The backend that the client had and may not keep by this cookie, and why. `None` for a valid cookie, and for one
    /// that does not show where the client was: a cookie that was made up proves no loss.
    pub fn left(self) -> Option<Left> {
        let had = |backend: Option<usize>| backend.map_or(Had::Nameless, Had::Backend);
        match self {
            Self::Expired { backend } => Some(Left { had: had(backend), cause: BreakCause::Expired }),
            Self::FormerPool { backend } => Some(Left { had: had(backend), cause: BreakCause::Removed }),
            Self::Removed { former } => Some(Left::removed(former)),
            Self::Fresh { .. } | Self::Due { .. } | Self::Forged | Self::OtherPool | Self::Unknown => None,
        }
    }

    /// The date under which a client gets a cookie for this backend now: that of its placement, if it is known there;
    /// `None`: its cookie is good, and another one is not wanted.
    pub fn issue_date(verdict: Option<Self>, backend: usize, now: u64, is_wanted: bool) -> Option<u64> {
        match verdict {
            Some(Self::Fresh { backend: named, issued }) if named == backend => is_wanted.then_some(issued),
            Some(Self::Due { backend: named, issued }) if named == backend => Some(issued),
            _ => Some(now),
        }
    }

    /// The words of all verdicts, by [`number`](Self::number).
    pub const WORDS: [&'static str; 8] =
        ["fresh", "due", "expired", "forged", "other_pool", "former_pool", "removed", "unknown"];

    /// The place of the verdict in [`WORDS`](Self::WORDS).
    pub fn number(self) -> usize {
        match self {
            Self::Fresh { .. } => 0,
            Self::Due { .. } => 1,
            Self::Expired { .. } => 2,
            Self::Forged => 3,
            Self::OtherPool => 4,
            Self::FormerPool { .. } => 5,
            Self::Removed { .. } => 6,
            Self::Unknown => 7,
        }
    }

    /// The verdict as a word in logs and metrics.
    pub fn word(self) -> &'static str {
        Self::WORDS[self.number()]
    }
}

/// The names by which all pools of a configuration seal cookies, once for all of them.
#[derive(Debug, Clone)]
pub struct PoolIds(Arc<[NameId]>);

impl PoolIds {
    /// Takes the names.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self(names.into_iter().map(|name| NameId::of(name.as_bytes())).collect())
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
            CookieMode::Route(rules) => Mode::Route(rules.clone()),
            CookieMode::Hash => Mode::Hash,
        };
        let key = matches!(mode, Mode::Hash).then(|| KeyPart::Cookie(cookie.name.as_str().into()));
        let (name, key) = (cookie.name.as_str().into(), key.into_iter().collect());
        Ok(Self { name, names, mode, carrier: cookie.carrier(), key, former: Arc::default() })
    }

    /// Adds the names by which all pools of the configuration seal cookies: a cookie of any other pool is one of a pool
    /// that was renamed or removed.
    #[must_use]
    pub fn beside(mut self, pools: &PoolIds) -> Self {
        if let Mode::Insert(insert) = &mut self.mode {
            insert.set_pools(&pools.0);
        }
        self
    }

    /// Adds the names of backends that the pool had and does not have any more.
    #[must_use]
    pub fn after(mut self, former: Arc<[Arc<str>]>) -> Self {
        if let Mode::Insert(insert) = &mut self.mode {
            insert.set_former(former.iter().map(|name| NameId::of(name.as_bytes())));
        }
        Self { former, ..self }
    }

    /// The cookie's name; names of cookies are compared byte by byte. Or that of the header field in its place.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the cookie's twin, see [`insert`]; `None`: it has none.
    pub fn twin(&self) -> Option<&str> {
        match &self.mode {
            Mode::Insert(insert) => insert.twin_name(),
            _ => None,
        }
    }

    /// Where requests have the value.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Name of the header field that takes the place of a cookie; `None`: it is a cookie.
    pub fn header(&self) -> Option<&str> {
        matches!(self.carrier, Carrier::Header { .. }).then_some(&*self.name)
    }

    /// Parameter of the path that has the value, too.
    pub fn path_parameter(&self) -> Option<&str> {
        match &self.mode {
            Mode::Route(rules) => rules.path_parameter.as_deref(),
            _ => None,
        }
    }

    /// Names of the cookies that have the value: that of the cookie, then that of its twin; none for a header field.
    pub fn cookie_names(&self) -> impl Iterator<Item = &str> {
        let own = (self.carrier == Carrier::Cookie).then_some(&*self.name);
        [own, self.twin()].into_iter().flatten()
    }

    /// True for the name of the cookie or of its twin, or of the header field.
    pub fn is_named(&self, name: &str) -> bool {
        self.cookie_names().any(|known| known == name)
            || self.header().is_some_and(|known| known.eq_ignore_ascii_case(name))
    }

    /// The cookie's mode, with what it needs.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Key of placement before the pool's own, if the request has it: the cookie in `hash` mode, else empty.
    pub fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// Which of the values of this cookie, in the order of the head, counts: a valid one before any other, of several
    /// valid ones the one of the highest rank (see `judge`), and of equals the first. In `insert` mode it is the last of
    /// equals: seals count seconds, and of two cookies of one path browsers list the older one first (RFC 6265 §5.4).
    /// `None`: no value names a backend. `recall` looks a value up in the stick table, in `learn` mode only.
    pub fn read<'v>(
        &self,
        values: impl IntoIterator<Item = &'v [u8]>,
        now: u64,
        recall: impl Fn(&[u8]) -> TableLookup,
    ) -> Option<ReadValue<'v>> {
        let last_of_equals = matches!(self.mode, Mode::Insert(_));
        let mut best: Option<(Option<u64>, ReadValue<'v>)> = None;
        for value in values.into_iter().take(VALUES_MAX) {
            let Some((verdict, rank)) = self.judge(value, now, &recall) else { continue };
            let rank = verdict.backend().map(|_| rank);
            let is_better = |known| known < rank || last_of_equals && rank.is_some() && known == rank;
            if best.is_none_or(|(known, _)| is_better(known)) {
                best = Some((rank, ReadValue { verdict, value }));
            }
        }
        best.map(|(_, read)| read)
    }

    /// In `prefix` mode, the text before every value that this backend sets: its name and `~`.
    pub fn prefix(&self, backend: usize) -> Option<&str> {
        matches!(self.mode, Mode::Prefix).then(|| self.names.prefix(backend)).flatten()
    }

    /// The verdict on one value, and its rank among the values of a request: when it was sealed, in `insert` mode; in
    /// `learn` mode 1 for a value that a backend has set, because a value that clients only bring may be one that many
    /// of them share. Browsers send the cookie of the longest path first, so in other modes the order decides.
    fn judge(&self, value: &[u8], now: u64, recall: impl Fn(&[u8]) -> TableLookup) -> Option<(CookieVerdict, u64)> {
        let fresh = |backend| CookieVerdict::Fresh { backend, issued: now };
        let former = |name: &[u8]| self.former.iter().position(|former| former.as_bytes() == name);
        // A name is no proof: only that of a backend which the pool has had says where the client was.
        let gone = |former: Option<usize>| match former {
            Some(_) => CookieVerdict::Removed { former },
            None => CookieVerdict::Unknown,
        };
        match &self.mode {
            Mode::Insert(insert) => Some(insert.open_dated(value, now)),
            Mode::Learn => match recall(value) {
                TableLookup::Unknown => None,
                TableLookup::At(backend, kind) => Some((fresh(backend), u64::from(kind == EntryKind::Learned))),
                TableLookup::Gone(former) => Some((CookieVerdict::Removed { former }, 0)),
            },
            Mode::Prefix => {
                let name = named::prefix(value)?;
                Some((self.names.by_name(name).map_or_else(|| gone(former(name)), fresh), 0))
            }
            Mode::Route(rules) => {
                let found = named::route(value, rules, |name| self.names.by_name(name))?;
                let was_at = || named::route(value, rules, former).flatten();
                Some((found.map_or_else(|| gone(was_at()), fresh), 0))
            }
            Mode::Hash => None,
        }
    }
}
