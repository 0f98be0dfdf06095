//! [`Split`]: which of several pools a request or a connection goes to: the one that its client has, else one by weight.
//!
//! Picks no backend, reads no clock and knows no pool: whether one takes new clients is an argument. Both halves,
//! `explain` and `plan` ask the same [`Split::choose`], [`Split::choose_by_key`] and [`Split::open_weights`].
//!
//! # Rule of a split with a cookie
//!
//! 1. A valid cookie of the split names the pool, for as long as the split has it: whatever its weight is now, and also
//!    while none of its backends can serve. A split never changes what a client has because of a failure: what follows
//!    (another backend of the pool, a try all the same, 503) is for the pool.
//! 2. Without one, a stream of HTTP/2 goes where the first of its connection went.
//! 3. Else the client is new, and the weights decide among the pools that take new clients, which are all pools with a
//!    weight if none does.
//!
//! The cookie is that of [`sticky::cookie`](crate::sticky::cookie::insert) with the split in the place of the pool, under a
//! name that no pool can have, and the pool in the place of the backend. So instances with the same keys agree, and a value
//! for a pool or for another split is worth nothing here.
//!
//! # Rule of a split with a key
//!
//! 1. A pool that has the client in its stick table keeps it, whatever its weight is now and whether a backend of it can serve; of
//!    several the one that has seen it last.
//! 2. Else the hash of the key decides among the pools that take new clients, in proportion to their weights. A pool without
//!    a stick table cannot tell which clients are new, so it takes all that belong to it.
//! 3. A client without a key takes the place in turn that its number gives it.
//!
//! The hash is [`placement`](crate::placement) with the pools as its members, under a seed of the split's name: so all
//! instances with the same file agree, a change of weights moves no more of those that no table has than the shares
//! change, and what a key gets here says nothing of what it gets inside a pool.
//!
//! # Evenness
//!
//! New clients take turns: each step goes on by the golden ratio of the whole circle of weights. Of any number of steps in
//! a row every pool gets its share to within a few clients, where a draw at random would miss a share of 1 % of 100,000
//! clients by a tenth of it. Invariant: a new client never gets a pool of weight 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ahash::AHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{self, Balance, KeyPart, SplitKey};
use crate::counters::{Counter, Padded};
use crate::http::cookie;
use crate::http::edit::CookieNames;
use crate::http::head::Request;
use crate::placement::{Member, Placement};
use crate::sticky::cookie::{CookieRule, CookieVerdict, Issue, Mode, Nonce};
use crate::sticky::key::{Key, SourceAs};
use crate::sticky::table::TableLookup;
use crate::sticky::{ClientMemory, Facts};

/// Step of the turns: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// One `[[split]]`, ready for requests.
#[derive(Debug)]
pub struct Split {
    name: Arc<str>,
    members: Box<[SplitMember]>,
    /// `None`: it has a key, or the keys of its cookie were not read, and every client is new.
    rule: Option<CookieRule>,
    /// `None`: it has a cookie.
    keyed: Option<KeyRule>,
    of_requests: bool,
    /// Steps so far, on the circle of weights.
    turn: Arc<AtomicU64>,
}

/// What the configuration of a split does not say by itself.
#[derive(Debug)]
pub struct SplitRules {
    /// Its cookie with the keys that seal it; `None`: it has none, or the keys were not read.
    pub cookie: Option<CookieRule>,
    /// True if its pools read HTTP, so that it divides requests; false: connections.
    pub of_requests: bool,
}

/// How a key decides.
#[derive(Debug)]
struct KeyRule {
    key: SplitKey,
    /// The pools as members, by index in the split.
    placement: Placement,
}

/// One pool of a split.
#[derive(Debug)]
pub struct SplitMember {
    /// Name of the pool.
    pub name: Arc<str>,
    /// Index of the pool among those of the configuration.
    pub pool: usize,
    /// Share of the new clients that it gets.
    pub weight: u16,
    /// Requests or connections, by thread and by [`ChosenBy`].
    counts: Arc<[Padded<[Counter; ChosenBy::ALL.len()]>]>,
}

/// What has chosen the pool of a request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// The split's cookie.
    Cookie,
    /// An earlier request of the same HTTP/2 connection.
    Connection,
    /// The stick table of the pool.
    StickTable,
    /// The key of the client, which no stick table has.
    Key,
    /// The weights: the client is new, or has no key.
    Weight,
}

impl ChosenBy {
    /// Everything that can choose, in the order of their precedence.
    pub const ALL: [Self; 5] = [Self::Cookie, Self::Connection, Self::StickTable, Self::Key, Self::Weight];

    /// What this word names; `None`: nothing.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.word() == word)
    }

    /// The word in the log and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Connection => "connection",
            Self::StickTable => "stick_table",
            Self::Key => "key",
            Self::Weight => "weight",
        }
    }
}

/// The pool of a request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitChoice {
    /// Index of the pool in the split.
    pub member: usize,
    /// What has chosen it.
    pub by: ChosenBy,
}

/// Name by which a split seals its cookies: with a space, which no name of a pool has.
pub fn sealed_as(split: &str) -> String {
    format!("split {split}")
}

impl Split {
    /// Builds a split; `pool_index` turns the name of a pool into its index, `blocks` is the number of threads that
    /// count. Turns and counts of `previous` go on.
    pub fn new(
        config: &config::Split,
        rules: SplitRules,
        pool_index: impl Fn(&str) -> usize,
        previous: Option<&Self>,
        blocks: usize,
    ) -> Self {
        let known = |name: &str| previous?.members.iter().find(|member| *member.name == *name);
        let fresh = || (0..blocks).map(|_| Padded::default()).collect();
        let members = config.to.iter().map(|to| SplitMember {
            name: to.pool.as_str().into(),
            pool: pool_index(&to.pool),
            weight: to.weight,
            counts: known(&to.pool).map_or_else(fresh, |known| Arc::clone(&known.counts)),
        });
        Self {
            name: previous.map_or_else(|| config.name.as_str().into(), |previous| Arc::clone(&previous.name)),
            members: members.collect(),
            rule: rules.cookie,
            keyed: config.key().map(|key| KeyRule::new(config, key)),
            of_requests: rules.of_requests,
            turn: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.turn)),
        }
    }

    /// Name of the split.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The pools, in the order of the file.
    pub fn members(&self) -> &[SplitMember] {
        &self.members
    }

    /// True if it divides requests; false: connections, of which it reads none.
    pub fn is_of_requests(&self) -> bool {
        self.of_requests
    }

    /// Parts of its key; empty: it has a cookie.
    pub fn key(&self) -> &[KeyPart] {
        self.keyed.as_ref().map_or(&[], |keyed| &keyed.key.parts)
    }

    /// True if it knows its clients by a key.
    pub fn is_by_key(&self) -> bool {
        self.keyed.is_some()
    }

    /// Its cookie; `None`: it has none to read.
    pub fn cookie(&self) -> Option<&CookieRule> {
        self.rule.as_ref()
    }

    /// Index of the pool of this name in the split.
    pub fn index_of(&self, pool: &str) -> Option<usize> {
        self.members.iter().position(|member| *member.name == *pool)
    }

    /// What the split's cookie says in a request; `now_s` in seconds since 1970. `None`: the request has none.
    pub fn read(&self, request: &Request<'_>, now_s: u64) -> Option<CookieVerdict> {
        let rule = self.rule.as_ref()?;
        let fields = request.fields;
        let values =
            rule.cookie_names().flat_map(move |name| cookie::find(fields, name.as_bytes()).map(|pair| pair.value));
        rule.read(values, now_s, |_| TableLookup::Unknown).map(|read| read.verdict)
    }

    /// The pool of a request. `verdict`: of its cookie; `followed`: the index of the pool to which its connection went.
    /// `takes_new`: whether the pool of an index among those of the configuration takes new clients.
    pub fn choose(
        &self,
        verdict: Option<CookieVerdict>,
        followed: Option<usize>,
        takes_new: impl Fn(usize) -> bool,
    ) -> SplitChoice {
        match (verdict.and_then(CookieVerdict::backend), followed) {
            (Some(member), _) => SplitChoice { member, by: ChosenBy::Cookie },
            (None, Some(member)) => SplitChoice { member, by: ChosenBy::Connection },
            (None, None) => {
                let point = self.turn.fetch_add(GOLDEN, Relaxed);
                SplitChoice { member: self.at(point, takes_new), by: ChosenBy::Weight }
            }
        }
    }

    /// The pool of a client of a split with a key. `number`: of its connection, for a client without a key. `memory`: what
    /// the pool of an index among those of the configuration knows of it; `takes_new`: whether that takes new clients.
    pub fn choose_by_key(
        &self,
        facts: &Facts<'_>,
        number: u64,
        memory: impl Fn(usize) -> ClientMemory,
        takes_new: impl Fn(usize) -> bool,
    ) -> SplitChoice {
        let draw = self.keyed.as_ref().and_then(|keyed| Some((keyed, keyed.draw(facts)?)));
        let Some((KeyRule { placement, .. }, draw)) = draw else {
            let point = number.wrapping_mul(GOLDEN);
            return SplitChoice { member: self.at(point, takes_new), by: ChosenBy::Weight };
        };
        let pool = |member: usize| self.members[member].pool;
        let home = placement.home(draw);
        let seen = |member: usize| match memory(pool(member)) {
            // Dates are minutes: of two with the same, the one where the key belongs.
            ClientMemory::Known { age_min } => Some((age_min, Some(member) != home, member)),
            ClientMemory::None | ClientMemory::New => None,
        };
        if let Some((.., member)) = (0..self.members.len()).filter_map(seen).min() {
            return SplitChoice { member, by: ChosenBy::StickTable };
        }
        let is_open = |member: usize| memory(pool(member)) == ClientMemory::None || takes_new(pool(member));
        let member = placement.place(draw, is_open, |_| 0).or(home).unwrap_or_default();
        SplitChoice { member, by: ChosenBy::Key }
    }

    /// The pool at a point of the circle of weights.
    fn at(&self, point: u64, takes_new: impl Fn(usize) -> bool) -> usize {
        let weights = self.open_weights(takes_new);
        let total: u64 = weights.iter().sum();
        let mut rest = ((u128::from(point) * u128::from(total)) >> 64) as u64;
        for (member, weight) in weights.iter().enumerate() {
            match rest.checked_sub(*weight) {
                Some(left) => rest = left,
                None => return member,
            }
        }
        // Only a split without a weight comes here, which a checked configuration does not have.
        0
    }

    /// The weight of each pool for new clients now: 0 for one that takes none, as long as another one does.
    pub fn open_weights(&self, takes_new: impl Fn(usize) -> bool) -> Vec<u64> {
        let weights = |open: &dyn Fn(usize) -> bool| -> Vec<u64> {
            let weight = |member: &SplitMember| if open(member.pool) { u64::from(member.weight) } else { 0 };
            self.members.iter().map(weight).collect()
        };
        let open = weights(&takes_new);
        if open.iter().any(|weight| *weight > 0) { open } else { weights(&|_| true) }
    }

    /// Counts a request; `counters_index` is that of the calling thread.
    pub fn count(&self, choice: SplitChoice, counters_index: usize) {
        let of_thread = self.members.get(choice.member).and_then(|member| member.counts.get(counters_index));
        of_thread.into_iter().for_each(|of_thread| of_thread.0[choice.by as usize].add(1));
    }

    /// Number of requests or connections of the pool at this index, by everything that can choose in this split.
    pub fn counted(&self, member: usize) -> [(ChosenBy, u64); 3] {
        let counts = self.members.get(member).map_or(&[][..], |member| &member.counts[..]);
        let choosers = match self.keyed {
            None => [ChosenBy::Cookie, ChosenBy::Connection, ChosenBy::Weight],
            Some(_) => [ChosenBy::StickTable, ChosenBy::Key, ChosenBy::Weight],
        };
        choosers.map(|by| (by, counts.iter().map(|of_thread| of_thread.0[by as usize].value()).sum()))
    }

    /// Names of the split's cookie; `None`: it has none to read.
    pub fn cookie_names(&self) -> Option<CookieNames<'_>> {
        let rule = self.rule.as_ref()?;
        Some(CookieNames { name: rule.name().as_bytes(), twin: rule.twin().map(str::as_bytes) })
    }

    /// The `Set-Cookie` lines that a client gets with its response: none if its cookie is fresh, unless `is_wanted`.
    /// `nonce` draws a nonce, `None`: there is none, and no cookie.
    pub fn set_cookies(
        &self,
        (verdict, choice): (Option<CookieVerdict>, SplitChoice),
        (now_s, tls): (u64, bool),
        is_wanted: bool,
        nonce: impl FnOnce() -> Option<Nonce>,
    ) -> [Option<String>; 2] {
        let issued = CookieVerdict::issue_date(verdict, choice.member, now_s, is_wanted);
        let (Some(Mode::Insert(insert)), Some(issued)) = (self.rule.as_ref().map(CookieRule::mode), issued) else {
            return [None, None];
        };
        let Some(nonce) = nonce() else { return [None, None] };
        let mut line = Vec::new();
        insert.write(&mut line, Issue { backend: choice.member, issued, inner: None }, now_s, tls, nonce);
        let own = String::from_utf8(line).ok();
        let twin = own.as_ref().and_then(|own| insert.twin_of(own, tls));
        [own, twin]
    }
}

impl KeyRule {
    fn new(config: &config::Split, key: &SplitKey) -> Self {
        let member = |to| {
            let config::SplitPool { pool, weight }: &config::SplitPool = to;
            Member { name: pool, weight: *weight, location: &[], backup: false }
        };
        let members: Vec<_> = config.to.iter().map(member).collect();
        let seed = xxh3_64(sealed_as(&config.name).as_bytes());
        Self { key: key.clone(), placement: Placement::new(Balance::Hash, seed, &members) }
    }

    /// The draw of a client; `None`: it has no key.
    fn draw(&self, facts: &Facts<'_>) -> Option<u64> {
        let SplitKey { parts, prefix_v4: v4, prefix_v6: v6 } = &self.key;
        Key::with(parts, SourceAs::Prefix { v4: *v4, v6: *v6 }, facts, |key| self.placement.key_hash(key))
    }
}

/// Part of the keys without an entry in a stick table that get another pool of a split after a change; `None`: one of both
/// has no key, or not the same. A sample of keys is asked; its figure is within a percent.
pub fn moved_keys(before: &config::Split, after: &config::Split) -> Option<f64> {
    const SAMPLE: u32 = 50_000;
    let (own, new) = before.key().zip(after.key()).filter(|(own, new)| own == new)?;
    let rules = [KeyRule::new(before, own), KeyRule::new(after, new)];
    let pool = |side: usize, draw: u64| {
        let place = rules[side].placement.home(draw)?;
        [before, after][side].to.get(place).map(|to| &to.pool)
    };
    let moved = (0..SAMPLE).filter(|number| {
        let draw = rules[0].placement.key_hash(&number.to_be_bytes());
        pool(0, draw) != pool(1, draw)
    });
    Some(moved.count() as f64 / f64::from(SAMPLE))
}

/// The splits of one listener.
#[derive(Debug, Default)]
pub struct ListenerSplits {
    /// By the index of the route.
    routes: Box<[Option<Arc<Split>>]>,
    default: Option<Arc<Split>>,
}

impl ListenerSplits {
    /// Resolves the names of a listener's splits.
    pub fn new(listener: &config::Listener, splits: &[Arc<Split>]) -> Self {
        let by_name: AHashMap<&str, &Arc<Split>> = splits.iter().map(|split| (&**split.name(), split)).collect();
        let find = |name: Option<&str>| name.and_then(|name| by_name.get(name)).map(|split| Arc::clone(split));
        let has_some = listener.routes.iter().any(|route| route.split().is_some());
        let routes = listener.routes.iter().filter(|_| has_some).map(|route| find(route.split()));
        Self { routes: routes.collect(), default: find(listener.split.as_deref()) }
    }

    /// Parts of the keys of all of them.
    pub fn key_parts(&self) -> impl Iterator<Item = &KeyPart> {
        self.routes.iter().flatten().chain(&self.default).flat_map(|split| split.key())
    }

    /// The split of a route, or of what no route takes (`None`); `None`: that leads elsewhere.
    pub fn of(&self, route: Option<usize>) -> Option<&Arc<Split>> {
        match route {
            Some(route) => self.routes.get(route)?.as_ref(),
            None => self.default.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests;
