//! [`Split`]: which of several pools a request goes to: the one that its client has, else one by weight.
//!
//! Picks no backend, reads no clock and knows no pool: whether one takes new clients is an argument. Requests, `explain`
//! and `plan` ask the same [`Split::choose`] and [`Split::open_weights`].
//!
//! # Rule
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
//! # Evenness
//!
//! New clients take turns: each step goes on by the golden ratio of the whole circle of weights. Of any number of steps in
//! a row every pool gets its share to within a few clients, where a draw at random would miss a share of 1 % of 100,000
//! clients by a tenth of it. Invariant: a new client never gets a pool of weight 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ahash::AHashMap;

use crate::config;
use crate::counters::{Counter, Padded};
use crate::http::cookie;
use crate::http::edit::CookieNames;
use crate::http::head::Request;
use crate::sticky::cookie::{CookieRule, CookieVerdict, Issue, Mode, Nonce};
use crate::sticky::table::TableLookup;

/// Step of the turns: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// One `[[split]]`, ready for requests.
#[derive(Debug)]
pub struct Split {
    name: Arc<str>,
    members: Box<[SplitMember]>,
    /// `None`: the keys of its cookie were not read, and every client is new.
    rule: Option<CookieRule>,
    /// Steps so far, on the circle of weights.
    turn: Arc<AtomicU64>,
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
    /// Requests, by thread and by [`ChosenBy`].
    counts: Arc<[Padded<[Counter; ChosenBy::ALL.len()]>]>,
}

/// What has chosen the pool of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// The split's cookie.
    Cookie,
    /// An earlier request of the same HTTP/2 connection.
    Connection,
    /// The weights: the client is new.
    Weight,
}

impl ChosenBy {
    /// Everything that can choose, in the order of their precedence.
    pub const ALL: [Self; 3] = [Self::Cookie, Self::Connection, Self::Weight];

    /// The word in the log and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Connection => "connection",
            Self::Weight => "weight",
        }
    }
}

/// The pool of a request.
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
        rule: Option<CookieRule>,
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
            rule,
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
            (None, None) => SplitChoice { member: self.next_in_turn(takes_new), by: ChosenBy::Weight },
        }
    }

    /// The pool of the next new client.
    fn next_in_turn(&self, takes_new: impl Fn(usize) -> bool) -> usize {
        let weights = self.open_weights(takes_new);
        let total: u64 = weights.iter().sum();
        let point = self.turn.fetch_add(GOLDEN, Relaxed);
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

    /// Number of requests of the pool at this index, by what has chosen it.
    pub fn counted(&self, member: usize) -> [(ChosenBy, u64); ChosenBy::ALL.len()] {
        let counts = self.members.get(member).map_or(&[][..], |member| &member.counts[..]);
        ChosenBy::ALL.map(|by| (by, counts.iter().map(|of_thread| of_thread.0[by as usize].value()).sum()))
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
