//! [`Ways`]: the routes of all listeners before and after a change, and [`RouteMove`]: clients that it leads to another
//! pool.
//!
//! Asks the tables that connections are routed by, with facts that each of their rules names; picks no backend. A
//! stick table does not know by which route a client came. Invariant: a client is said to go elsewhere only if the new
//! table leads it elsewhere.

use ahash::{AHashMap, AHashSet};
use serde::{Deserialize, Serialize};

use self::points::{points, words_of};
use crate::config::{Config, Fallback, Listener, Pool, Split, Tls};
use crate::connection::OpenConnection;
use crate::http::head::Request;
use crate::route::{RouteFacts, RouteMatch, RouteTable};
use crate::sticky::Facts;

mod points;

/// Clients that the routes of a change lead to another pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMove {
    /// Name of the listener.
    pub listener: String,
    /// Conditions of the route in words; `default` for clients that no route names, `not_tls` and `silent` for those
    /// of these keys.
    pub route: String,
    /// Pool or split of these clients before the change.
    pub from: String,
    /// Pool or split after the change; `None`: they are refused or answered.
    pub to: Option<String>,
    /// True if `to` is a split.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_split: bool,
    /// True if a route answers them after the change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answered: bool,
    /// How many of them the running process knows; `None`: it cannot tell, because others come to the pool, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<u64>,
    /// How many connections they have open; `None`: no running process was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<u64>,
}

/// How many of the clients of a pool its routes lead elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutedAway {
    /// All clients come as before.
    #[default]
    None,
    /// Clients of some routes come to another pool, or to none.
    Some,
    /// All clients come to other pools, or to none.
    All,
}

impl RoutedAway {
    /// True if all clients come as before.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Where the next connection of a client goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextPool<'c> {
    To(&'c str),
    Nowhere,
    Unknown,
}

/// Routes of all listeners, before and after the change.
pub(super) struct Ways<'c> {
    old: &'c Config,
    new: &'c Config,
    changed: AHashMap<&'c str, Changed<'c>>,
    /// By pool; those that are missing lose no client.
    away: AHashMap<String, Away>,
}

/// Clients of a pool that its routes lead elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Away {
    /// How many of them.
    pub(super) routed: RoutedAway,
    /// Where all of them go: a pool, or `None` for no pool. `None`: to several places, or not all of them go.
    pub(super) to: Option<Option<String>>,
}

/// A listener that routes otherwise after the change.
struct Changed<'c> {
    before: &'c Listener,
    /// `None`: the listener is removed.
    after: Option<&'c Listener>,
    tables: [RouteTable; 2],
    /// Pools before and after, by their indexes in the tables.
    pools: [&'c [Pool]; 2],
    splits: [&'c [Split]; 2],
    /// What moves, with the rules before and after by which it does.
    moves: Vec<(Rules, RouteMove)>,
    /// Pools of clients that stay.
    stay: AHashSet<&'c str>,
}

/// A rule before and a rule after the change; `None`: no route.
type Rules = [Option<usize>; 2];

impl<'c> Ways<'c> {
    pub(super) fn new(old: &'c Config, new: &'c Config) -> Self {
        let changed = old.listeners.iter().filter_map(|before| {
            let after = successor(before, old, new);
            let is_same = after.is_some_and(|after| same_ways(before, after));
            (!is_same).then(|| (before.name.as_str(), Changed::new(before, after, old, new)))
        });
        let mut ways = Self { old, new, changed: changed.collect(), away: AHashMap::new() };
        if !ways.changed.is_empty() {
            ways.away = ways.all_away();
        }
        ways
    }

    /// What becomes of the clients of every pool that loses some.
    fn all_away(&self) -> AHashMap<String, Away> {
        let (before, after) = (self.old.pools_by_name(), self.new.pools_by_name());
        // Another pool with the same stick table knows its clients, so they have not left.
        let knows = |from: &str, to: &str| {
            let (own, other) = (before.get(from), after.get(to));
            own.zip(other).is_some_and(|(own, other)| own.sticks_as() == other.sticks_as())
        };
        let unchanged = self.old.listeners.iter().filter(|listener| !self.changed.contains_key(listener.name.as_str()));
        let mut stay: AHashSet<&str> = unchanged.flat_map(|listener| pools_of(listener, &self.old.splits)).collect();
        // A split gives a part of them back.
        let is_part = |from: &str, to: &str| {
            self.new.splits.iter().any(|split| split.name == to && split.pools().any(|pool| pool == from))
        };
        let mut goals: AHashMap<&str, AHashSet<Option<&str>>> = AHashMap::new();
        for changed in self.changed.values() {
            stay.extend(&changed.stay);
            for (_, RouteMove { from, to, .. }) in &changed.moves {
                if to.as_deref().is_some_and(|to| is_part(from, to)) {
                    stay.insert(from);
                }
                match to.as_deref().filter(|to| knows(from, to)) {
                    Some(_) => stay.insert(from),
                    None => goals.entry(from).or_default().insert(to.as_deref()),
                };
            }
        }
        let away = |(from, goals): (&str, AHashSet<Option<&str>>)| {
            let away = match (stay.contains(from), goals.iter().next().filter(|_| goals.len() == 1)) {
                (true, _) => Away { routed: RoutedAway::Some, to: None },
                (false, to) => Away { routed: RoutedAway::All, to: to.map(|to| to.map(str::to_owned)) },
            };
            (from.to_owned(), away)
        };
        goals.into_iter().map(away).collect()
    }

    /// Clients that go to another pool, listener by listener.
    pub(super) fn moves(&self) -> Vec<RouteMove> {
        let changed = self.old.listeners.iter().filter_map(|listener| self.changed.get(listener.name.as_str()));
        changed.flat_map(|changed| changed.moves.iter().map(|(_, moved)| moved.clone())).collect()
    }

    /// How many clients of this pool its routes lead elsewhere, and where to.
    pub(super) fn away_from(&self, pool: &str) -> Away {
        self.away.get(pool).cloned().unwrap_or_default()
    }

    /// Pool of the next connection of the client of an open one.
    pub(super) fn of<'w>(&'w self, open: &'w OpenConnection) -> NextPool<'w> {
        if !self.old.listeners.iter().any(|before| *before.name == *open.listener) {
            return NextPool::Nowhere;
        }
        let Some(changed) = self.changed.get(&*open.listener) else {
            return NextPool::To(open.backend.pool_name());
        };
        let Some(after) = changed.after else { return NextPool::Nowhere };
        let falls_back =
            |listener: &Listener| listener.not_tls != Fallback::Refuse || listener.silent != Fallback::Refuse;
        if changed.routes_requests() {
            // Each of its requests may go elsewhere.
            return NextPool::Unknown;
        }
        let names = after.routes.iter().any(|route| !route.sni.is_empty());
        let protocols = after.routes.iter().any(|route| !route.alpn.is_empty());
        let before = changed.before;
        let unseen = protocols || names && open.client_info.sni.is_none() || falls_back(before) || falls_back(after);
        if unseen || before.proxy != after.proxy || before.tls != after.tls {
            return NextPool::Unknown;
        }
        let found = changed.tables[1].find(&open.client_info.route_facts());
        found.and_then(|pool| self.new.pools.get(pool)).map_or(NextPool::Nowhere, |pool| NextPool::To(&pool.name))
    }

    /// The move of an open connection's client; `None`: it comes to the same pool, or that is not known.
    pub(super) fn move_of(&self, open: &OpenConnection) -> Option<&RouteMove> {
        let changed = self.changed.get(&*open.listener)?;
        if self.of(open) == NextPool::Unknown {
            return None;
        }
        let rules = changed.rules(&open.client_info.route_facts(), None);
        changed
            .moves
            .iter()
            .find(|(of, moved)| *of == rules && *moved.from == *open.backend.pool_name())
            .map(|it| &it.1)
    }

    /// Where a client of a list goes that every listener leads away from this pool: a pool, or nowhere. `None`: one
    /// leads it here after the change, or none did before.
    pub(super) fn goal_of(&self, pool: &str, facts: &Facts<'_>) -> Option<Option<&'c str>> {
        let facts = RouteFacts { sni: facts.sni, alpn: &[], source: facts.source };
        let mut goal = None;
        for listener in &self.old.listeners {
            let Some(changed) = self.changed.get(listener.name.as_str()) else {
                if pools_of(listener, &self.old.splits).any(|name| name == pool) {
                    return None;
                }
                continue;
            };
            if changed.routes_requests() {
                // A list has no requests.
                return None;
            }
            let [from, to] = changed.pools(&facts, None);
            match (from, to) {
                (Some(from), to) if from == pool && to == Some(pool) => return None,
                (Some(from), to) if from == pool => goal = Some(to),
                _ => {}
            }
        }
        goal
    }
}

impl<'c> Changed<'c> {
    fn new(before: &'c Listener, after: Option<&'c Listener>, old: &'c Config, new: &'c Config) -> Self {
        let table = |listener: &Listener, config: &Config| {
            let places: AHashMap<&str, usize> = config.pools.iter().map(|pool| pool.name.as_str()).zip(0..).collect();
            let index = |name: &str| places.get(name).copied().unwrap_or(usize::MAX);
            // Names that a listener refuses are those that it does not know: no list of them could be counted.
            RouteTable::of(listener, index)
        };
        let none = RouteTable::new(&[], None, |_| usize::MAX);
        let tables = [table(before, old), after.map_or(none, |after| table(after, new))];
        let pools = [&old.pools[..], &new.pools[..]];
        let splits = [&old.splits[..], &new.splits[..]];
        let mut changed = Self { before, after, tables, pools, splits, moves: Vec::new(), stay: AHashSet::new() };
        let mut seen = AHashSet::new();
        for point in points(before, after) {
            let head = if changed.routes_requests() { point.head() } else { None };
            let request = head.as_ref().map(|(bytes, reader)| reader.request(bytes));
            let facts = RouteFacts { sni: point.sni.as_deref(), alpn: &point.alpn, source: point.source };
            let rules = changed.rules(&facts, request.as_ref());
            let [from, to] = changed.pools(&facts, request.as_ref());
            if let Some(from) = from.filter(|_| seen.insert((rules, from, to))) {
                changed.note(Some(rules), changed.words(rules), from, to);
            }
        }
        for (word, fallback) in [("not_tls", pool_of(&before.not_tls)), ("silent", pool_of(&before.silent))] {
            let then = after.map(|after| if word == "silent" { &after.silent } else { &after.not_tls });
            if let Some(from) = fallback {
                changed.note(None, word.to_owned(), from, then.and_then(pool_of));
            }
        }
        changed
    }

    fn note(&mut self, rules: Option<Rules>, route: String, from: &'c str, to: Option<&str>) {
        if to == Some(from) {
            self.stay.insert(from);
            return;
        }
        let (listener, from, to) = (self.before.name.clone(), from.to_owned(), to.map(str::to_owned));
        // No route has such a place: what `not_tls` and `silent` lead elsewhere belongs to no rule.
        let rules = rules.unwrap_or([Some(usize::MAX); 2]);
        let answers = |index: usize| self.after?.routes.get(index).filter(|route| route.answers());
        let answered = to.is_none() && rules[1].and_then(answers).is_some();
        let to_split =
            to.as_ref().is_some_and(|to| self.after.is_some_and(|after| after.splits().any(|name| name == to)));
        self.moves.push((rules, RouteMove { listener, route, from, to, to_split, answered, known: None, open: None }));
    }

    /// True if requests have routes of their own, or answers, or a split divides clients, before or after.
    fn routes_requests(&self) -> bool {
        let routes = |listener: &Listener| listener.routes_requests() || listener.splits().next().is_some();
        [Some(self.before), self.after].into_iter().flatten().any(routes)
    }

    /// Where a client goes before (0) or after (1): its request, where its connection is read as HTTP.
    fn find(&self, side: usize, facts: &RouteFacts<'_>, request: Option<&Request<'_>>) -> Option<RouteMatch> {
        let listener = [Some(self.before), self.after][side]?;
        let found = self.tables[side].find_route(facts)?;
        let of_split = || {
            let name = listener.split_of(found.route)?;
            let split = self.splits[side].iter().find(|split| split.name == name)?;
            self.pools[side].iter().find(|pool| split.pools().any(|name| name == pool.name))
        };
        let pool = found.pool.map_or_else(of_split, |pool| self.pools[side].get(pool));
        let reads_http =
            listener.rules_of(found.route).tls != Tls::Passthrough && pool.is_none_or(|pool| pool.http.is_read());
        match request.filter(|_| reads_http) {
            Some(request) => self.tables[side].find_request(request, *facts),
            None => Some(found),
        }
    }

    fn rules(&self, facts: &RouteFacts<'_>, request: Option<&Request<'_>>) -> Rules {
        [0, 1].map(|side| self.find(side, facts, request).and_then(|found| found.route))
    }

    /// Pools or splits of a client, before and after.
    fn pools(&self, facts: &RouteFacts<'_>, request: Option<&Request<'_>>) -> [Option<&'c str>; 2] {
        let goal = |side: usize| {
            let found = self.find(side, facts, request)?;
            match found.pool {
                Some(pool) => self.pools[side].get(pool).map(|pool| pool.name.as_str()),
                None => [Some(self.before), self.after][side]?.split_of(found.route),
            }
        };
        [0, 1].map(goal)
    }

    /// The conditions of the rule after the change, else of the one before.
    fn words(&self, [before, after]: Rules) -> String {
        let after = after.and_then(|index| self.after?.routes.get(index));
        let route = after.or_else(|| self.before.routes.get(before?));
        route.map_or_else(|| "default".to_owned(), words_of)
    }
}

/// The listener that takes the place of one: with its name, else, where that is gone, with one of its addresses.
fn successor<'c>(before: &Listener, old: &Config, new: &'c Config) -> Option<&'c Listener> {
    let is_new = |after: &&Listener| old.listeners.iter().all(|listener| listener.name != after.name);
    let shares = |after: &&Listener| after.bind.iter().any(|bind| before.bind.contains(bind));
    let by_name = new.listeners.iter().find(|after| after.name == before.name);
    by_name.or_else(|| new.listeners.iter().filter(is_new).find(shares))
}

/// True if two listeners route every connection alike.
fn same_ways(one: &Listener, other: &Listener) -> bool {
    (one.tls, &one.proxy, &one.pool, &one.split, &one.routes, &one.not_tls, &one.silent)
        == (other.tls, &other.proxy, &other.pool, &other.split, &other.routes, &other.not_tls, &other.silent)
}

fn pool_of(fallback: &Fallback) -> Option<&str> {
    match fallback {
        Fallback::Pool(name) => Some(name),
        Fallback::Refuse => None,
    }
}

/// Every pool that a listener leads to.
fn pools_of<'l>(listener: &'l Listener, splits: &'l [Split]) -> impl Iterator<Item = &'l str> {
    let fallbacks = [&listener.not_tls, &listener.silent].into_iter().filter_map(pool_of);
    listener.pools(splits).chain(fallbacks)
}

impl std::fmt::Display for RouteMove {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { listener, route, from, to, to_split, answered, known, open } = self;
        let what = if *to_split { "split" } else { "pool" };
        write!(f, "clients of route \"{route}\" of listener {listener:?}")?;
        match (known, open) {
            (Some(known), Some(open)) => write!(f, " ({known} known, {open} open connections)")?,
            (Some(known), None) => write!(f, " ({known} known)")?,
            (None, Some(open)) => write!(f, " ({open} open connections; how many are known is not)")?,
            (None, None) => {}
        }
        match to {
            Some(to) => write!(f, " go to {what} {to:?} instead of {from:?}"),
            None if *answered => write!(f, " no longer come to pool {from:?}: the route answers them"),
            None => write!(f, " no longer come to pool {from:?}: they are refused"),
        }
    }
}

#[cfg(test)]
mod tests;
