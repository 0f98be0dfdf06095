//! [`Live`]: the part of a plan that needs the running process, its known clients and its open connections.
//!
//! Blocks no connection: the stick table is read while connections write it. Invariant: a client that is said to stay
//! or to move does so; where that needs more than the process has, the client is counted as depending, and how many of
//! those move is an estimate and marked as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::forecast::{Fate, forecast};
use super::pair::{BY_LOAD, PoolPair};
use super::ways::{NextPool, RouteMove, RoutedAway, Ways};
use super::{Ask, Listed, ListedClient, LostCookie, PoolPlan, Sample};
use crate::config::{self, Config, CookieMode, KeyPart};
use crate::connection::OpenConnection;
use crate::pool::Pool;
use crate::snapshot::Snapshot;
use crate::sticky::Facts;

/// State of the process that makes the plan.
#[derive(Debug)]
pub struct Running<'r> {
    /// The snapshot in force.
    pub snapshot: &'r Snapshot,
    /// Every open connection that has a backend.
    pub open: &'r [OpenConnection],
    /// Now, in milliseconds of the process's clock.
    pub now_ms: u64,
}

/// Clients of the running process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Clients in the pool's stick table.
    pub known: MoveTally,
    /// Open connections. The change cuts no connection; counted is where the client's next connection goes.
    pub open: MoveTally,
}

/// Number of clients or connections, and what becomes of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveTally {
    /// Number of all of them.
    pub total: u64,
    /// Number that certainly stays at its backend.
    pub stay: u64,
    /// Number that certainly gets another backend.
    pub leave: u64,
    /// Number that depends on keys, of which the process has only hashes, or on the route by which their client comes.
    pub depend: u64,
    /// Number in `depend` that stays unless their route leads elsewhere, while no open connection shows which it is.
    #[serde(default)]
    pub by_route: u64,
    /// Estimate of how many in `depend` move: by their share of the key space, and by that of open connections.
    pub depend_leave_about: u64,
    /// Moves from backend to backend, estimates for `depend` included, the most first.
    pub moves: Vec<Shift>,
}

/// Clients or connections that go from one backend to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// Backend where they are now.
    pub from: String,
    /// Backend where they go, or [`BY_LOAD`]; `None`: no backend, or the process cannot compute which.
    pub to: Option<String>,
    /// Number of clients or connections.
    pub count: u64,
    /// True if `count` contains an estimate.
    pub about: bool,
}

impl MoveTally {
    /// Share that moves, 0 to 1, estimates included.
    pub fn share_moving(&self) -> f64 {
        (self.leave + self.depend_leave_about) as f64 / self.total.max(1) as f64
    }
}

/// What becomes of the clients or connections of one backend.
#[derive(Debug, Default)]
struct Fates {
    stay: u64,
    depend: u64,
    /// Number that stays unless its route leads elsewhere.
    by_route: u64,
    /// Number that certainly leaves, by goal.
    leave: BTreeMap<Goal, u64>,
}

/// Where a client goes: `Some(Some(backend))`, `Some(None)` = no backend serves it, `None` = not known.
type Goal = Option<Option<String>>;

/// Counts by the backend where clients are now.
#[derive(Debug, Default)]
struct Counted(BTreeMap<String, Fates>);

impl Counted {
    fn add(&mut self, from: &str, fate: Fate, to: Goal) {
        self.change(from, |fates| match fate {
            Fate::Stays => fates.stay += 1,
            Fate::Depends => fates.depend += 1,
            Fate::Leaves => *fates.leave.entry(to).or_default() += 1,
        });
    }

    /// Adds a client that stays unless its route leads elsewhere.
    fn add_by_route(&mut self, from: &str) {
        self.change(from, |fates| fates.by_route += 1);
    }

    fn change(&mut self, from: &str, change: impl FnOnce(&mut Fates)) {
        if !self.0.contains_key(from) {
            self.0.insert(from.to_owned(), Fates::default());
        }
        if let Some(fates) = self.0.get_mut(from) {
            change(fates);
        }
    }

    /// Adds it all up, and estimates what is not known: by the sample what keys decide, and by the routes of open
    /// connections what routes decide.
    fn tally(self, sample: &Sample, routed: &RoutedConnections) -> MoveTally {
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
            // Without a sample the pool has not changed, and its clients stay.
            let depend = if goes.is_empty() { 0 } else { fates.depend };
            for (to, count) in apportion(depend, goes.iter().map(|(to, weight)| (to, *weight))) {
                if to.as_ref() != Some(&from) && count > 0 {
                    tally.depend_leave_about += count;
                    let row = rows.entry(to).or_default();
                    *row = (row.0 + count, true);
                }
            }
            for (to, count) in routed.apportion(fates.by_route) {
                tally.depend_leave_about += count;
                let row = rows.entry(to).or_default();
                *row = (row.0 + count, true);
            }
            let leave: u64 = fates.leave.values().sum();
            tally.total += fates.stay + fates.depend + fates.by_route + leave;
            tally.stay += fates.stay;
            tally.depend += fates.depend + fates.by_route;
            tally.by_route += if routed.is_empty() { fates.by_route } else { 0 };
            tally.leave += leave;
            let rows = rows.into_iter().filter(|(_, (count, _))| *count > 0);
            tally.moves.extend(rows.map(|(to, (count, about))| Shift { from: from.clone(), to, count, about }));
        }
        tally.moves.sort_by_key(|shift| std::cmp::Reverse(shift.count));
        tally
    }
}

/// Open connections of a pool by the pool to which their routes lead after the change, as [`MoveTally`] names it.
#[derive(Debug, Default)]
struct RoutedConnections {
    stay: u32,
    away: BTreeMap<Option<String>, u32>,
}

impl RoutedConnections {
    fn count(&mut self, connection: &OpenConnection, ways: &Ways<'_>) {
        let to = match ways.of(connection) {
            NextPool::To(pool) if pool == connection.backend.pool_name() => {
                self.stay += 1;
                return;
            }
            NextPool::To(pool) => Some(other_pool(pool)),
            NextPool::Nowhere => None,
            NextPool::Unknown => return,
        };
        *self.away.entry(to).or_default() += 1;
    }

    fn is_empty(&self) -> bool {
        self.stay == 0 && self.away.is_empty()
    }

    /// The part of so many clients that goes elsewhere by its routes, if clients come as open connections do.
    fn apportion(&self, clients: u64) -> Vec<(Option<String>, u64)> {
        if self.away.is_empty() {
            return Vec::new();
        }
        // No pool has this name, so it stands for those that stay.
        let stay = (&Some(String::new()), self.stay);
        let parts = apportion(clients, self.away.iter().map(|(to, count)| (to, *count)).chain([stay]));
        parts.into_iter().filter(|(to, count)| *count > 0 && to.as_deref() != Some("")).collect()
    }
}

/// Another pool, in the place of a backend.
pub(super) fn other_pool(name: &str) -> String {
    format!("pool {name}")
}

/// Cuts `total` into whole parts by weight; without weights, all of it goes to no backend.
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
    /// Warnings about backends that take no clients now, or no new ones; the plan counts them as up.
    pub(super) fn unusable(&self) -> Vec<String> {
        let backends = self.snapshot.pools.iter().flat_map(|pool| pool.backends().iter());
        let unusable = backends.filter_map(|backend| {
            let word = backend.runtime_word(self.now_ms);
            let word = word.or_else(|| (!backend.usable(self.now_ms)).then(|| backend.state_word(self.now_ms)))?;
            Some(format!("backend \"{}/{}\" is {word}; the plan counts it as up", backend.pool_name(), backend.name()))
        });
        unusable.collect()
    }

    /// Warnings about pools of which no backend that is left takes new clients now.
    pub(super) fn left_without(&self, new: &Config) -> Vec<String> {
        let is_left_without = |after: &&config::Pool| {
            let Some(pool) = self.snapshot.pool(&after.name).filter(|pool| pool.config() != *after) else {
                return false;
            };
            let takes_clients = |backend: &config::Backend| match pool.index_of(&backend.name) {
                // What checks will say of a new backend is not known.
                None => true,
                Some(index) => {
                    let known = &pool.backends()[index];
                    backend.weight > 0 && known.usable(self.now_ms) && !known.draining()
                }
            };
            !after.backends.iter().any(takes_clients)
        };
        let pools = new.pools.iter().filter(is_left_without);
        pools.map(|pool| format!("pool {:?}: no backend that is left takes new clients now", pool.name)).collect()
    }

    /// Adds to the moves of routes how many connections are open, and, where all clients of a pool go by one route, how
    /// many are known.
    pub(super) fn count_routes(
        &self,
        mut moves: Vec<RouteMove>,
        ways: &Ways<'_>,
        pools: &[PoolPlan],
    ) -> Vec<RouteMove> {
        let mut open = vec![0; moves.len()];
        for moved in self.open.iter().filter_map(|open| ways.move_of(open)) {
            moves.iter().position(|known| known == moved).into_iter().for_each(|at| open[at] += 1);
        }
        let known: Vec<_> = moves
            .iter()
            .map(|moved| {
                let is_alone = moves.iter().filter(|other| other.from == moved.from).count() == 1;
                let plan = pools.iter().find(|plan| plan.pool == moved.from)?;
                let live = plan.live.as_ref().filter(|_| is_alone && plan.all_routed_away())?;
                Some(live.known.total)
            })
            .collect();
        for ((moved, open), known) in moves.iter_mut().zip(open).zip(known) {
            (moved.open, moved.known) = (Some(open), known);
        }
        moves
    }

    fn open_in<'o>(&'o self, pool: &'o str) -> impl Iterator<Item = &'o OpenConnection> {
        self.open.iter().filter(move |open| open.backend.pool_name() == pool)
    }
}

/// Adds known clients and open connections to the plan of a pool.
pub(super) fn with_live(
    plan: PoolPlan,
    sample: &Sample,
    running: &Running<'_>,
    ways: &Ways<'_>,
    (after, ask): (&config::Pool, Ask<'_>),
) -> PoolPlan {
    let Some(pool) = running.snapshot.pool(&plan.pool) else { return plan };
    let (clients, keys) = (ask.clients, ask.keys);
    let pair = PoolPair::living(pool, after, keys, running.now_ms);
    let mut known = Counted::default();
    let away = ways.away_from(pool.name());
    let goal: Goal = away.to.map(|to| to.as_deref().map(other_pool));
    for (at, fate) in forecast(&pair.old, &pair.new, running.now_ms) {
        let from = pair.old.backends()[at].name();
        match (away.routed, fate) {
            (RoutedAway::All, _) => known.add(from, Fate::Leaves, goal.clone()),
            (RoutedAway::Some, Fate::Stays) => known.add_by_route(from),
            (RoutedAway::Some | RoutedAway::None, fate) => known.add(from, fate, None),
        }
    }
    let (mut open, mut routed) = (Counted::default(), RoutedConnections::default());
    let next = NextPlace { pair: &pair, ways };
    for connection in running.open_in(pool.name()) {
        let (fate, to) = next.of(connection);
        open.add(connection.backend.name(), fate, to);
        routed.count(connection, ways);
    }
    let listed = (!clients.is_empty() && keyed(&pair))
        .then(|| listed(&PoolPair::copied(pool, after, keys, running.now_ms), clients));
    let live = Live { known: known.tally(sample, &routed), open: open.tally(sample, &routed) };
    let lost_cookie = plan.lost_cookie.map(|lost| with_holders(lost, pool, running.now_ms));
    PoolPlan { listed, live: Some(live), lost_cookie, ..plan }
}

/// Adds the number of holders, if the pool's stick table knows them.
fn with_holders(lost: LostCookie, pool: &Pool, now_ms: u64) -> LostCookie {
    let learns = pool.config().cookie.as_ref().is_some_and(|cookie| matches!(cookie.mode, CookieMode::Learn { .. }));
    let holders = pool.table().filter(|_| learns).map(|table| table.stats(now_ms).learned);
    LostCookie { holders, ..lost }
}

/// Adds known clients and open connections to the plan of a removed pool; all of them leave.
pub(super) fn removed(plan: PoolPlan, running: &Running<'_>) -> PoolPlan {
    let Some(pool) = running.snapshot.pool(&plan.pool) else { return plan };
    let (mut known, mut open) = (Counted::default(), Counted::default());
    for (at, _) in pool.table().into_iter().flat_map(|table| table.entries(running.now_ms)) {
        known.add(pool.backends()[at].name(), Fate::Leaves, None);
    }
    for connection in running.open_in(pool.name()) {
        open.add(connection.backend.name(), Fate::Leaves, None);
    }
    let none = Sample::default();
    let lost_cookie = plan.lost_cookie.map(|lost| with_holders(lost, pool, running.now_ms));
    let routed = RoutedConnections::default();
    let live = Live { known: known.tally(&none, &routed), open: open.tally(&none, &routed) };
    PoolPlan { live: Some(live), lost_cookie, ..plan }
}

fn keyed(pair: &PoolPair) -> bool {
    pair.old.config().has_key() && pair.new.config().has_key()
}

/// Looks at listed clients one by one, with what the process has about them.
fn listed(pair: &PoolPair, clients: &[ListedClient]) -> Listed {
    let now: Vec<_> = clients.iter().map(|client| pair.look(&client.facts())).collect();
    let then: Vec<_> = clients.iter().map(|client| pair.return_visit(None, &client.facts())).collect();
    Listed::of(pair, clients, (&now, &then))
}

/// Decides where the clients of open connections go next.
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
            NextPool::Nowhere => return (Fate::Leaves, Some(None)),
            NextPool::Unknown => return (unknown, None),
            NextPool::To(pool) if pool != here => return (Fate::Leaves, Some(Some(other_pool(pool)))),
            NextPool::To(_) => {}
        }
        let Some(facts) = self.facts(open) else { return (unknown, None) };
        let keyless = facts.source.is_none() && facts.sni.is_none() || !self.pair.new.config().has_key();
        let settled_by_cookie = self.pair.by_cookie() && open.by_cookie;
        if self.pair.by_cookie() && !open.by_cookie {
            // A later connection may have brought the client its cookie.
            return (unknown, None);
        }
        if keyless && !settled_by_cookie {
            // Without a key no client has a backend of its own; only that of a removed one has lost something.
            return (if unknown == Fate::Leaves { unknown } else { Fate::Stays }, None);
        }
        let Some((to, leaves)) = self.pair.back(self.pair.named(from), &facts) else {
            return (Fate::Leaves, Some(None));
        };
        // A connection that has lost its entry writes it again, so its client is known here.
        let forgotten = to == BY_LOAD && !leaves && unknown != Fate::Leaves;
        // A client that would go there without the change is not moved by it.
        let anyway = || to != BY_LOAD && !settled_by_cookie && self.pair.look(&facts) == Some(to);
        if to == from || forgotten || anyway() {
            (Fate::Stays, None)
        } else {
            (Fate::Leaves, Some(Some(to.to_owned())))
        }
    }

    /// Facts that the client's key consists of; `None` = some part is not known of an open connection.
    fn facts<'o>(&self, open: &'o OpenConnection) -> Option<Facts<'o>> {
        let client = &open.client_info;
        if client.local {
            return Some(client.facts());
        }
        let pools = [&self.pair.old, &self.pair.new];
        let by_cookie = pools.iter().flat_map(|pool| pool.cookie().map_or(&[][..], |cookie| cookie.key()));
        let parts = || pools.iter().flat_map(|pool| pool.config().key.iter()).chain(by_cookie.clone());
        let is_known = |part: &KeyPart| match part {
            KeyPart::Source => true,
            KeyPart::Sni => client.sni.is_some(),
            _ => false,
        };
        let placed = pools.iter().any(|pool| pool.config().has_key());
        (!placed || parts().flat_map(KeyPart::alternatives).all(is_known)).then(|| client.facts())
    }
}
