//! The part of a plan that only the running process can tell: whom it knows, and whom it serves.
//!
//! Stops nobody: the stick table is read while others write it. Invariant: who is said to stay or to move does so; where that
//! needs more than is known, it is counted as depending, and how many of those move is an estimate and called one.

use std::collections::BTreeMap;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use super::forecast::{Fate, forecast};
use super::pair::PoolPair;
use super::{Listed, ListedClient, PoolPlan, Sample};
use crate::config::{self, Config, Fallback, KeyPart, Listener};
use crate::connection::OpenConnection;
use crate::route::{RouteFacts, RouteTable};
use crate::snapshot::Snapshot;
use crate::sticky::Facts;

/// The process that is asked.
#[derive(Debug)]
pub struct Running<'r> {
    /// What is in force.
    pub snapshot: &'r Snapshot,
    /// Every open connection that has a backend.
    pub open: &'r [OpenConnection],
    /// On the process's clock.
    pub now_ms: u64,
}

/// Those of the running process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Clients that the pool remembers.
    pub known: MoveTally,
    /// Open connections. None is cut by the change; what is told is where their clients go next.
    pub open: MoveTally,
}

/// So many, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveTally {
    /// How many there are.
    pub total: u64,
    /// How many certainly stay where they are.
    pub stay: u64,
    /// How many certainly get another backend.
    pub leave: u64,
    /// How many do what their key says, of which too little is known.
    pub depend: u64,
    /// How many of those move, by their share of the key space: an estimate.
    pub depend_leave_about: u64,
    /// Who moves where, those that depend included, the most first.
    pub moves: Vec<Shift>,
}

/// Clients or connections that go from one backend to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// Where they are.
    pub from: String,
    /// Where they go; nowhere, or it is not known.
    pub to: Option<String>,
    /// How many.
    pub count: u64,
    /// Some of them by an estimate.
    pub about: bool,
}

impl MoveTally {
    /// The share that moves, the estimated ones included.
    pub fn share_moving(&self) -> f64 {
        (self.leave + self.depend_leave_about) as f64 / self.total.max(1) as f64
    }
}

/// What becomes of those at one backend.
#[derive(Debug, Default)]
struct Fates {
    stay: u64,
    depend: u64,
    /// Where those go that certainly leave.
    leave: BTreeMap<Goal, u64>,
}

/// A backend, or nowhere; nothing: not known.
type Goal = Option<Option<String>>;

/// Counts by backend, and what is made of that.
#[derive(Debug, Default)]
struct Counted(BTreeMap<String, Fates>);

impl Counted {
    fn add(&mut self, from: &str, fate: Fate, to: Goal) {
        if !self.0.contains_key(from) {
            self.0.insert(from.to_owned(), Fates::default());
        }
        if let Some(fates) = self.0.get_mut(from) {
            match fate {
                Fate::Stays => fates.stay += 1,
                Fate::Depends => fates.depend += 1,
                Fate::Leaves => *fates.leave.entry(to).or_default() += 1,
            }
        }
    }

    /// With estimates, by the sample, of what is not known.
    fn tally(self, sample: &Sample) -> MoveTally {
        let mut tally = MoveTally::default();
        for (from, fates) in self.0 {
            let goes = sample.known_from(&from);
            let mut rows: BTreeMap<Option<String>, (u64, bool)> = BTreeMap::new();
            let unknown = fates.leave.get(&None).copied().unwrap_or(0);
            let elsewhere: BTreeMap<_, _> = goes.iter().filter(|(to, _)| to.as_ref() != Some(&from)).collect();
            for (to, count) in fates.leave.iter().filter_map(|(to, count)| Some((to.clone()?, count))) {
                rows.entry(to).or_default().0 += count;
            }
            for (to, count) in apportion(unknown, elsewhere.iter().map(|(to, weight)| (*to, **weight))) {
                let row = rows.entry(to).or_default();
                *row = (row.0 + count, row.1 || elsewhere.len() > 1);
            }
            // Where nothing was sampled nothing changes.
            let depend = if goes.is_empty() { 0 } else { fates.depend };
            for (to, count) in apportion(depend, goes.iter().map(|(to, weight)| (to, *weight))) {
                if to.as_ref() != Some(&from) && count > 0 {
                    tally.depend_leave_about += count;
                    let row = rows.entry(to).or_default();
                    *row = (row.0 + count, true);
                }
            }
            let leave: u64 = fates.leave.values().sum();
            tally.total += fates.stay + fates.depend + leave;
            tally.stay += fates.stay;
            tally.depend += fates.depend;
            tally.leave += leave;
            let rows = rows.into_iter().filter(|(_, (count, _))| *count > 0);
            tally.moves.extend(rows.map(|(to, (count, about))| Shift { from: from.clone(), to, count, about }));
        }
        tally.moves.sort_by_key(|shift| std::cmp::Reverse(shift.count));
        tally
    }
}

/// Cuts `total` into whole parts by weight; to nowhere if there are none.
fn apportion<'t>(
    total: u64,
    weights: impl Iterator<Item = (&'t Option<String>, u32)> + Clone,
) -> Vec<(Option<String>, u64)> {
    let sum: u64 = weights.clone().map(|(_, weight)| u64::from(weight)).sum();
    if sum == 0 {
        return vec![(None, total)];
    }
    let (mut before, mut given) = (0, 0);
    let part = |(to, weight): (&Option<String>, u32)| {
        before += u64::from(weight);
        let until = (u128::from(total) * u128::from(before) + u128::from(sum / 2)) / u128::from(sum);
        let part = until as u64 - given;
        given = until as u64;
        (to.clone(), part)
    };
    weights.map(part).collect()
}

impl Running<'_> {
    /// Backends that take nobody now, or nobody new; the plan counts them as up.
    pub(super) fn unusable(&self) -> Vec<String> {
        let backends = self.snapshot.pools.iter().flat_map(|pool| pool.backends().iter());
        let unusable = backends.filter_map(|backend| {
            let word = backend.runtime_word(self.now_ms);
            let word = word.or_else(|| (!backend.usable(self.now_ms)).then(|| backend.state_word(self.now_ms)))?;
            Some(format!("backend \"{}/{}\" is {word}; here it counts as up", backend.pool_name(), backend.name()))
        });
        unusable.collect()
    }

    fn open_in<'o>(&'o self, pool: &'o str) -> impl Iterator<Item = &'o OpenConnection> {
        self.open.iter().filter(move |open| open.backend.pool_name() == pool)
    }
}

/// Adds to a pool's plan what the process knows.
pub(super) fn asked(
    plan: PoolPlan,
    sample: &Sample,
    running: &Running<'_>,
    new: &Config,
    (after, clients): (&config::Pool, &[ListedClient]),
) -> PoolPlan {
    let Some(pool) = running.snapshot.pool(&plan.pool) else { return plan };
    let pair = PoolPair::living(pool, after, running.now_ms);
    let ways = Ways::new(&running.snapshot.config, new);
    let mut known = Counted::default();
    let ways_stay = ways.stay(pool.name());
    for (at, fate) in forecast(&pair.old, &pair.new, running.now_ms) {
        // Its client may not come to this pool at all.
        let fate = if fate == Fate::Stays && !ways_stay { Fate::Depends } else { fate };
        known.add(pair.old.backends()[at].name(), fate, None);
    }
    let mut open = Counted::default();
    let next = NextPlace { pair: &pair, ways: &ways };
    for connection in running.open_in(pool.name()) {
        let (fate, to) = next.of(connection);
        open.add(connection.backend.name(), fate, to);
    }
    let listed =
        (!clients.is_empty() && keyed(&pair)).then(|| listed(&PoolPair::copied(pool, after, running.now_ms), clients));
    let live = Live { known: known.tally(sample), open: open.tally(sample) };
    PoolPlan { listed, live: Some(live), ..plan }
}

/// The same for a pool that is removed: everybody leaves.
pub(super) fn removed(plan: PoolPlan, running: &Running<'_>) -> PoolPlan {
    let Some(pool) = running.snapshot.pool(&plan.pool) else { return plan };
    let (mut known, mut open) = (Counted::default(), Counted::default());
    for (at, _) in pool.table().into_iter().flat_map(|table| table.entries(running.now_ms)) {
        known.add(pool.backends()[at].name(), Fate::Leaves, None);
    }
    for connection in running.open_in(pool.name()) {
        open.add(connection.backend.name(), Fate::Leaves, None);
    }
    let nobody = Sample::default();
    PoolPlan { live: Some(Live { known: known.tally(&nobody), open: open.tally(&nobody) }), ..plan }
}

fn keyed(pair: &PoolPair) -> bool {
    pair.old.config().balance.keyed() && pair.new.config().balance.keyed()
}

/// Clients of a list, as the process knows them.
fn listed(pair: &PoolPair, clients: &[ListedClient]) -> Listed {
    let now: Vec<_> = clients.iter().map(|client| pair.look(&client.facts())).collect();
    let then: Vec<_> = clients.iter().map(|client| pair.visit_again(None, &client.facts())).collect();
    Listed::of(pair, clients, (&now, &then))
}

/// Where clients of open connections go next.
struct NextPlace<'n> {
    pair: &'n PoolPair,
    ways: &'n Ways<'n>,
}

impl NextPlace<'_> {
    fn of(&self, open: &OpenConnection) -> (Fate, Goal) {
        let from = open.backend.name();
        let here = self.pair.new.name();
        let unknown = if self.pair.new.index_of(from).is_none() { Fate::Leaves } else { Fate::Depends };
        match self.ways.of(open) {
            LiveRoute::Nowhere => return (Fate::Leaves, Some(None)),
            LiveRoute::Unknown => return (unknown, None),
            LiveRoute::To(pool) if pool != here => return (Fate::Leaves, Some(Some(format!("pool {pool}")))),
            LiveRoute::To(_) => {}
        }
        let Some(facts) = self.facts(open) else { return (unknown, None) };
        let keyless = facts.source.is_none() && facts.sni.is_none() || !self.pair.new.config().balance.keyed();
        let settled_by_cookie = self.pair.by_cookie() && open.by_cookie;
        if self.pair.by_cookie() && !open.by_cookie {
            // It may have been given its cookie since.
            return (unknown, None);
        }
        if keyless && !settled_by_cookie {
            // Nobody's place is anybody's own; only who is at one that is gone has lost something.
            return (if unknown == Fate::Leaves { unknown } else { Fate::Stays }, None);
        }
        let Some(pick) = self.pair.back(self.pair.named(from), &facts) else { return (Fate::Leaves, Some(None)) };
        let to = pick.backend.name().to_owned();
        // Who would go there anyway is not moved by the change.
        let anyway = || !settled_by_cookie && self.pair.look(&facts).is_some_and(|anyway| anyway.name() == to);
        if to == from || anyway() { (Fate::Stays, None) } else { (Fate::Leaves, Some(Some(to))) }
    }

    /// What its key is made of, if all of that is known.
    fn facts<'o>(&self, open: &'o OpenConnection) -> Option<Facts<'o>> {
        if open.local {
            return Some(Facts::default());
        }
        let pools = [&self.pair.old, &self.pair.new];
        let by_cookie = pools.iter().flat_map(|pool| pool.cookie().map_or(&[][..], |cookie| cookie.key()));
        let parts = || pools.iter().flat_map(|pool| pool.config().key.iter()).chain(by_cookie.clone());
        let is_known = |part: &KeyPart| match part {
            KeyPart::Source => true,
            KeyPart::Sni => open.sni.is_some(),
            KeyPart::Tlv(_) | KeyPart::Cookie(_) => false,
        };
        let placed = pools.iter().any(|pool| pool.config().balance.keyed());
        let sni = open.sni.as_ref().map(|name| name.as_str());
        let facts = || Facts { source: open.source, sni, ..Facts::default() };
        (!placed || parts().all(is_known)).then(facts)
    }
}

/// Where listeners send their clients, before and after.
struct Ways<'c> {
    old: &'c Config,
    new: &'c Config,
    routes: AHashMap<&'c str, RouteTable>,
}

enum LiveRoute<'c> {
    To(&'c str),
    Nowhere,
    Unknown,
}

impl<'c> Ways<'c> {
    fn new(old: &'c Config, new: &'c Config) -> Self {
        let index = |name: &str| new.pools.iter().position(|pool| pool.name == name).unwrap_or(usize::MAX);
        let table = |listener: &'c Listener| RouteTable::new(&listener.routes, listener.pool.as_deref(), index);
        let routes = new.listeners.iter().map(|listener| (listener.name.as_str(), table(listener))).collect();
        Self { old, new, routes }
    }

    /// Whether every client that comes to this pool goes on doing so.
    fn stay(&self, pool: &str) -> bool {
        let leads_here = |listener: &&Listener| {
            let fallback = |to: &Fallback| matches!(to, Fallback::Pool(name) if name == pool);
            listener.pool.as_deref() == Some(pool)
                || listener.routes.iter().any(|route| route.pool == pool)
                || fallback(&listener.not_tls)
                || fallback(&listener.silent)
        };
        self.old
            .listeners
            .iter()
            .filter(leads_here)
            .all(|listener| self.after(&listener.name).is_some_and(|after| same_ways(listener, after)))
    }

    fn after(&self, listener: &str) -> Option<&'c Listener> {
        self.new.listeners.iter().find(|after| after.name == listener)
    }

    /// The pool of its client's next connection.
    fn of<'w>(&'w self, open: &'w OpenConnection) -> LiveRoute<'w> {
        let before = self.old.listeners.iter().find(|before| *before.name == *open.listener);
        let Some((before, after)) = before.zip(self.after(&open.listener)) else { return LiveRoute::Nowhere };
        if same_ways(before, after) {
            return LiveRoute::To(open.backend.pool_name());
        }
        let falls_back =
            |listener: &Listener| listener.not_tls != Fallback::Refuse || listener.silent != Fallback::Refuse;
        let names = after.routes.iter().any(|route| !route.sni.is_empty());
        let protocols = after.routes.iter().any(|route| !route.alpn.is_empty());
        let unseen = protocols || names && open.sni.is_none() || falls_back(before) || falls_back(after);
        if unseen || before.proxy != after.proxy || before.tls != after.tls {
            return LiveRoute::Unknown;
        }
        let facts = RouteFacts {
            sni: open.sni.as_ref().map(|name| name.as_str()),
            alpn: &[],
            source: open.source.filter(|_| !open.local),
        };
        let found = self.routes.get(&*open.listener).and_then(|routes| routes.find(&facts));
        found.and_then(|pool| self.new.pools.get(pool)).map_or(LiveRoute::Nowhere, |pool| LiveRoute::To(&pool.name))
    }
}

/// Whether a listener sends everybody where another would.
fn same_ways(one: &Listener, other: &Listener) -> bool {
    (one.tls, &one.proxy, &one.pool, &one.routes, &one.not_tls, &one.silent)
        == (other.tls, &other.proxy, &other.pool, &other.routes, &other.not_tls, &other.silent)
}
