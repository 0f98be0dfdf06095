//! A pool as it is and as it would be, and clients that visit first the one, then the other.
//!
//! Decides nothing: both pools pick as they do for connections. All backends are up and nobody else is there.
//! Invariant: whoever visits both is somebody whom the pools know; who visits neither is a stranger to both.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::{self, CookieMode, KeyPart};
use crate::pool::{Memories, Pick, Pool};
use crate::snapshot::Rings;
use crate::sticky::Facts;
use crate::sticky::memory::Secret;

/// A memory has room for so many bytes a client: fewer than one in ten of its places is taken, so nobody is lost.
const ROOM: u64 = 256;

/// Both pools, with one memory.
pub(super) struct Pair {
    pub(super) old: Pool,
    pub(super) new: Pool,
    /// A client brings a cookie of the old pool to the new one, which understands it.
    cookie: bool,
    now_ms: u64,
}

impl Pair {
    /// Nobody is known yet, and there is room for so many.
    pub(super) fn new(before: &config::Pool, after: &config::Pool, clients: usize) -> Self {
        let roomy = |pool: &config::Pool| {
            let memory = pool.memory.map(|memory| config::Memory { bytes: ROOM * (clients as u64).max(64), ..memory });
            config::Pool { memory, ..pool.clone() }
        };
        Self::over(&roomy(before), &roomy(after), None, 0)
    }

    /// Those are known whom a living pool knows now. To be looked at only: nobody may visit.
    pub(super) fn living(pool: &Pool, after: &config::Pool, now_ms: u64) -> Self {
        Self::over(pool.config(), after, Some(pool), now_ms)
    }

    /// The same with a copy of that memory: whoever visits is known here alone.
    pub(super) fn copied(pool: &Pool, after: &config::Pool, now_ms: u64) -> Self {
        // Another size is another table, which takes over what stands in the old one.
        let memory = pool.config().memory.map(|memory| config::Memory { bytes: memory.bytes + ROOM, ..memory });
        Self::over(&config::Pool { memory, ..pool.config().clone() }, after, Some(pool), now_ms)
    }

    fn over(before: &config::Pool, after: &config::Pool, living: Option<&Pool>, now_ms: u64) -> Self {
        let secret = Secret::new([0; 16]);
        // Of backends nobody is connected to, all are up. The files that cookies are sealed with are not needed.
        let imagined = |config: &config::Pool, memory: Option<&Pool>| {
            let cookie = Rings::default().rule(config);
            Memories::new(memory, &secret, now_ms).give(Pool::new(config, None, 1).with_cookie(cookie))
        };
        let old = imagined(before, living);
        let new = imagined(after, Some(&old));
        let cookie = alike(before.cookie.as_ref(), after.cookie.as_ref())
            && (old.memory().is_some() && new.memory().is_some() || !learns(before));
        Self { old, new, cookie, now_ms }
    }

    /// Whether anybody has a place of its own: by its key, or by a cookie.
    pub(super) fn sticks(before: &config::Pool, after: &config::Pool) -> bool {
        let cookie = |pool: &config::Pool| pool.cookie.is_some();
        before.balance.keyed() && after.balance.keyed() || cookie(before) && cookie(after)
    }

    /// Where a client is served that comes to the old pool, which knows it from now on.
    pub(super) fn visit(&self, facts: &Facts<'_>) -> Option<String> {
        self.settle(&self.old, self.old.pick(facts, &[], self.now_ms))
    }

    /// Where one that was served at `from` is served by the new pool.
    pub(super) fn visit_again(&self, from: &str, facts: &Facts<'_>) -> Option<String> {
        self.settle(&self.new, self.back(from, facts))
    }

    /// Where a client is served that comes to the new pool and brings no cookie.
    pub(super) fn visit_new(&self, facts: &Facts<'_>) -> Option<String> {
        self.settle(&self.new, self.new.pick(facts, &[], self.now_ms))
    }

    /// Where a client would be served by the old pool.
    pub(super) fn look(&self, facts: &Facts<'_>) -> Option<String> {
        self.old.pick(facts, &[], self.now_ms).map(|pick| pick.backend.name().to_owned())
    }

    /// Whom the new pool picks for a client that was served at `from`.
    pub(super) fn back(&self, from: &str, facts: &Facts<'_>) -> Option<Pick> {
        let named = if self.cookie { self.new.index_of(from) } else { None };
        self.new.pick_settled(named, facts, &[], self.now_ms)
    }

    /// Where a client is served that nobody knows, by the old pool and by the new.
    pub(super) fn strangers_place(&self, facts: &Facts<'_>) -> (Option<String>, Option<String>) {
        let place = |pool: &Pool| pool.place_unknown(facts).map(|backend| backend.name().to_owned());
        (place(&self.old), place(&self.new))
    }

    fn settle(&self, pool: &Pool, pick: Option<Pick>) -> Option<String> {
        let pick = pick?;
        if let Some(remember) = pick.remember {
            pool.settle(remember, &pick.backend, self.now_ms);
        }
        Some(pick.backend.name().to_owned())
    }

    /// Whether the balancer or the application gives clients a cookie that both pools understand.
    pub(super) fn by_cookie(&self) -> bool {
        self.cookie
    }
}

fn learns(pool: &config::Pool) -> bool {
    pool.cookie.as_ref().is_some_and(|cookie| matches!(cookie.mode, CookieMode::Learn { .. }))
}

/// Whether a cookie that one sends names a backend to the other.
fn alike(old: Option<&config::Cookie>, new: Option<&config::Cookie>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let mode = match (&old.mode, &new.mode) {
        (CookieMode::Insert(old), CookieMode::Insert(new)) => old.keys == new.keys,
        (CookieMode::Learn { .. }, CookieMode::Learn { .. })
        | (CookieMode::Prefix, CookieMode::Prefix)
        | (CookieMode::Route, CookieMode::Route) => true,
        _ => false,
    };
    mode && old.name == new.name
}

/// One client of the sample: an address and whatever else a key may be made of, all from its number.
pub(super) struct Sampled {
    source: IpAddr,
    value: String,
    tlvs: Vec<u8>,
    cookies: Vec<String>,
}

impl Sampled {
    /// With everything that the keys of both pools ask for.
    pub(super) fn new(number: u32, pair: &Pair) -> Self {
        // An odd factor makes a permutation: every number another address, spread over all of them.
        let source = IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1)));
        let value = format!("client-{number}.example");
        let mut sampled = Self { source, value, tlvs: Vec::new(), cookies: Vec::new() };
        let mut known: Vec<&KeyPart> = Vec::new();
        for pool in [&pair.old, &pair.new] {
            for part in pool.config().key.iter().chain(pool.cookie().map_or(&[][..], |cookie| cookie.key())) {
                if !known.contains(&part) {
                    known.push(part);
                    sampled.add(part);
                }
            }
        }
        sampled
    }

    fn add(&mut self, part: &KeyPart) {
        match part {
            KeyPart::Tlv(kind) => {
                self.tlvs.extend([*kind, 0, self.value.len() as u8]);
                self.tlvs.extend(self.value.as_bytes());
            }
            KeyPart::Cookie(name) => self.cookies.push(name.to_string()),
            KeyPart::Source | KeyPart::Sni => {}
        }
    }

    pub(super) fn with_facts<T>(&self, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let cookies: Vec<_> = self.cookies.iter().map(|name| (name.as_str(), self.value.as_bytes())).collect();
        ask(&Facts { source: Some(self.source), sni: Some(&self.value), tlvs: &self.tlvs, cookies: &cookies })
    }
}
