//! The balancer's own cookie: the verdict on a value that came back, and the `Set-Cookie` of a response.
//!
//! Reads no head, no clock and no file. Invariants: a value is believed only if it was sealed for this pool, for a
//! backend that the pool has, at a possible time; a client with a request at least every nine tenths of `max_idle`
//! never loses it.
//!
//! # Time
//!
//! The wall clocks of instances may differ by 60 s. A value is `Expired` when it was last sent more than `max_idle` and
//! 60 s ago, or first sent more than `max_life` and 60 s ago. A value from the future means that a clock was set back,
//! not that the client was idle: within `max_idle` and 60 s it is believed and, beyond the 60 s, `Due`, so that a value
//! of the present replaces it; further ahead it is `Expired`, too. `Max-Age` is `max_idle`, or the rest of `max_life`
//! where that is shorter: browsers forget the cookie when it expires here. With `lifetime = "session"` there is none, and
//! the value is valid no longer than with it.
//!
//! # The twin
//!
//! A page of another site gets no cookie that is `SameSite=Lax`. With `cross_site_twin` the same value goes out again as
//! `NAME` and `CORS` with `SameSite=None; Secure`, as AWS balancers do with `AWSALBCORS`, and of the two the value that
//! was sealed last counts. It is sealed for `NAME`: neither cookie is worth more than the other.

use std::io::Write;
use std::sync::Arc;

use super::CookieVerdict;
use super::key_ring::KeyRing;
use super::names::{NameId, Names};
use super::seal::{self, Nonce, SealedClaims, VALUE_LENGTH};
use super::tiers;
use crate::config::{self, CookieLifetime, SameSite, Secure};

/// Tolerated difference between clocks, in seconds.
pub const SKEW_S: u64 = 60;
/// A value is sent again after `max_idle` divided by this number.
const REFRESH_PART: u64 = 10;
/// Bytes reserved for `; Max-Age=` and its number.
const MAX_AGE_LENGTH: usize = 30;

/// The cookie of one pool, ready to be read and written.
#[derive(Debug)]
pub struct Insert {
    ring: Arc<KeyRing>,
    names: Arc<Names>,
    pool: NameId,
    /// Every pool of the configuration; `None`: not known.
    pools: Option<Arc<[NameId]>>,
    /// Backends that the pool had and does not have any more.
    former: Box<[NameId]>,
    additional: Box<[u8]>,
    max_idle_s: u64,
    max_life_s: Option<u64>,
    /// Whether `Max-Age` is sent.
    has_max_age: bool,
    /// Beginning of the field's value, `NAME=`.
    head: Box<[u8]>,
    /// Attributes after `Max-Age` for a client without TLS; `with_tls` for one with it.
    in_clear: Box<[u8]>,
    with_tls: Box<[u8]>,
    /// The cookie that carries the value across sites; `None`: there is none.
    twin: Option<Twin>,
}

/// A second cookie with the value of the first, which browsers send with requests from pages of other sites, too.
#[derive(Debug)]
struct Twin {
    name: Box<str>,
    attributes: Box<[u8]>,
    /// Sent to clients without TLS, too: a decoder in front has it.
    in_clear: bool,
}

/// What a `Set-Cookie` of ours gives to a client.
#[derive(Debug, Clone, Copy)]
pub struct Issue<'a> {
    /// Index of the backend in the pool.
    pub backend: usize,
    /// When the client was placed there, in Unix seconds: from [`Insert::open`], or now for a client newly placed.
    pub issued: u64,
    /// Value of the tier behind this one, see [`tiers`]; `None`: there is no such tier.
    pub inner: Option<&'a [u8]>,
}

impl Insert {
    /// The cookie `name` of `pool`, which has these backends.
    pub fn new(name: &str, insert: &config::InsertRules, pool: &str, names: Arc<Names>, ring: Arc<KeyRing>) -> Self {
        Self {
            ring,
            names,
            pool: NameId::of(pool.as_bytes()),
            pools: None,
            former: Box::default(),
            additional: seal::additional_data(name),
            max_idle_s: insert.max_idle.as_secs(),
            max_life_s: insert.max_life.map(|life| life.as_secs()),
            has_max_age: insert.lifetime == CookieLifetime::Idle,
            head: format!("{name}=").into_bytes().into(),
            in_clear: attributes(insert, insert.secure == Secure::On),
            with_tls: attributes(insert, insert.secure != Secure::Off),
            twin: insert.cross_site_twin.then(|| Twin::of(name, insert)),
        }
    }

    /// Sets the names by which all pools of the configuration seal cookies.
    pub(super) fn set_pools(&mut self, pools: &Arc<[NameId]>) {
        self.pools = Some(Arc::clone(pools));
    }

    /// Sets the backends that the pool had and does not have any more.
    pub(super) fn set_former(&mut self, former: impl IntoIterator<Item = NameId>) {
        self.former = former.into_iter().collect();
    }

    /// Name of the twin, which has the value of the cookie; `None`: the cookie has none.
    pub fn twin_name(&self) -> Option<&str> {
        self.twin.as_ref().map(|twin| &*twin.name)
    }

    /// The `Set-Cookie` of the twin that goes with this one of the cookie, as [`write`](Self::write) has written it for
    /// a client with or without TLS; `None`: the cookie has no twin, or the client's browser would drop it.
    pub fn twin_of(&self, line: &str, tls: bool) -> Option<String> {
        let twin = self.twin.as_ref().filter(|twin| tls || twin.in_clear)?;
        let own = line.as_bytes().strip_prefix(&*self.head)?.strip_suffix(self.attributes(tls))?;
        let bytes = [twin.name.as_bytes(), b"=", own, &twin.attributes].concat();
        String::from_utf8(bytes).ok()
    }

    fn attributes(&self, tls: bool) -> &[u8] {
        if tls { &self.with_tls } else { &self.in_clear }
    }

    /// The keys that open and seal values.
    pub fn ring(&self) -> &Arc<KeyRing> {
        &self.ring
    }

    /// The verdict on a value that came back at `now`, in Unix seconds.
    pub fn open(&self, value: &[u8], now: u64) -> CookieVerdict {
        self.open_dated(value, now).0
    }

    /// When a value was sealed, in Unix seconds; `None`: no key opens it.
    pub fn sealed_at(&self, value: &[u8]) -> Option<u64> {
        let (said, _) = seal::open(&self.ring, &self.additional, tiers::split(value).0)?;
        Some(said.seen.into())
    }

    /// The verdict on a value, and when it was sealed, in Unix seconds; 0 for a value that no key opens.
    pub(super) fn open_dated(&self, value: &[u8], now: u64) -> (CookieVerdict, u64) {
        let (own, _) = tiers::split(value);
        match seal::open(&self.ring, &self.additional, own) {
            Some((said, is_first)) => (self.judge(said, is_first, now), said.seen.into()),
            None => (CookieVerdict::Forged, 0),
        }
    }

    fn judge(&self, said: SealedClaims, is_first: bool, now: u64) -> CookieVerdict {
        let is_own = said.pool == self.pool;
        if !is_own && self.pools.as_ref().is_none_or(|pools| pools.contains(&said.pool)) {
            return CookieVerdict::OtherPool;
        }
        let backend = self.names.by_id(said.backend);
        let (issued, seen) = (u64::from(said.issued), u64::from(said.seen));
        let outlived = self.max_life_s.is_some_and(|life| now > issued + life + SKEW_S);
        if now.abs_diff(seen) > self.max_idle_s + SKEW_S || outlived {
            return CookieVerdict::Expired { backend };
        }
        if !is_own {
            return CookieVerdict::FormerPool { backend };
        }
        let Some(backend) = backend else {
            return CookieVerdict::Removed { former: self.former.iter().position(|name| *name == said.backend) };
        };
        let is_old = now.saturating_sub(seen) * REFRESH_PART >= self.max_idle_s;
        let is_ahead = seen > now + SKEW_S;
        // A value dated by a clock that ran ahead must not outlive `max_life` by that lead.
        let issued = issued.min(now);
        match is_first && !is_old && !is_ahead {
            true => CookieVerdict::Fresh { backend, issued },
            false => CookieVerdict::Due { backend, issued },
        }
    }

    /// Appends the value of a `Set-Cookie` field that keeps the client at its backend; `tls`: the client's side is
    /// encrypted.
    pub fn write(&self, out: &mut Vec<u8>, issue: Issue<'_>, now: u64, tls: bool, nonce: Nonce) {
        let Issue { backend, issued, inner } = issue;
        let attributes = self.attributes(tls);
        let inner_length = inner.map_or(0, |inner| 1 + inner.len());
        out.reserve(self.head.len() + VALUE_LENGTH + inner_length + MAX_AGE_LENGTH + attributes.len());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.seal(backend, issued, now, nonce));
        tiers::append(out, inner);
        if self.has_max_age {
            out.extend_from_slice(b"; Max-Age=");
            let rest = self.max_life_s.map_or(u64::MAX, |life| issued.saturating_add(life).saturating_sub(now));
            write!(out, "{}", rest.min(self.max_idle_s)).expect("memory takes everything");
        }
        out.extend_from_slice(attributes);
    }

    /// The sealed value without name and attributes.
    pub fn seal(&self, backend: usize, issued: u64, now: u64, nonce: Nonce) -> [u8; VALUE_LENGTH] {
        let seconds = |time: u64| u32::try_from(time).unwrap_or(u32::MAX);
        // No backend has id 0; a value with an index out of bounds opens as `Removed`.
        let backend = self.names.id(backend).unwrap_or(NameId(0));
        let said = SealedClaims { pool: self.pool, backend, issued: seconds(issued), seen: seconds(now) };
        seal::seal(&self.ring, &self.additional, &said, nonce)
    }
}

impl Twin {
    fn of(name: &str, insert: &config::InsertRules) -> Self {
        let across = config::InsertRules { same_site: SameSite::None, ..insert.clone() };
        Self {
            name: config::twin_name(name).into(),
            attributes: attributes(&across, true),
            in_clear: insert.secure == Secure::On,
        }
    }
}

/// The attributes that never change (RFC 6265 §4.1, RFC 6265bis §4.1.2.7 `SameSite`, CHIPS `Partitioned`). A browser
/// drops a cookie with `SameSite=None` or `Partitioned` that is not `Secure`, so without TLS these two are left out.
fn attributes(insert: &config::InsertRules, secure: bool) -> Box<[u8]> {
    let mut text = String::new();
    if let Some(domain) = &insert.domain {
        text += &format!("; Domain={domain}");
    }
    text += &format!("; Path={}", insert.path);
    if secure {
        text += "; Secure";
    }
    if insert.http_only {
        text += "; HttpOnly";
    }
    match insert.same_site {
        SameSite::Lax => text += "; SameSite=Lax",
        SameSite::Strict => text += "; SameSite=Strict",
        SameSite::None if secure => text += "; SameSite=None",
        SameSite::None => {}
    }
    if insert.partitioned && secure {
        text += "; Partitioned";
    }
    text.into_bytes().into()
}

#[cfg(test)]
mod tests;
