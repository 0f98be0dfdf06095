//! [`Plan`]: which clients a new configuration would move, from where to where.
//!
//! Picks with the pools of both configurations: for a sample of their keys, for the clients of a list, and, in a
//! running process, for its known clients and open connections. All backends count as up and without connections.
//! Connects nothing and changes nothing. Invariant: the same two configurations give the same plan, and for a listed
//! client the plan is what then happens, as long as its backends take connections.
//!
//! # What is exact and what is estimated
//!
//! | of | exact | estimated |
//! |---|---|---|
//! | new clients | listed clients | shares of the key space, from a sample |
//! | known clients, two files | listed clients, in the order of the list | shares of the key space, from a sample |
//! | known clients, a running process | how many; whether they stay, unless keys decide | what keys decide |
//! | open connections | where their clients go next, where address and server name decide | where more decides |
//! | clients of a route | which routes lead elsewhere; how many are known, where all of a pool go | their part of a pool, by open connections |
//! | holders of a cookie | that all of them lose it, or keep it | how many they are: only a stick table knows its own |
//!
//! Where load places new keys, nothing foretells where one goes: the clients of the stick table are what is known, and
//! a client that load places stands in the plan at [`BY_LOAD`].
//!
//! A stick table keeps hashes, so a process cannot compute what the bytes of a key decide, nor by which route a client
//! comes.

mod cookies;
mod explained;
mod explanation;
mod forecast;
mod headline;
mod live;
mod pair;
mod question;
mod sample;
mod split;
#[cfg(test)]
mod tests;
mod ways;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::cookies::{CookieKeys, LostCookie, cookie_warnings};
pub use self::explained::{AskedListener, AskedStore, ClientReport, StoreAnswers};
pub use self::explanation::{ExplainedCandidate, ExplainedEntry, ExplainedLine, Explanation, LiveCookie};
pub use self::headline::Headline;
pub use self::live::{Live, MoveTally, Running, Shift};
pub use self::question::{AskedAt, AskedClient, ClientTraits, Question, WrittenTraits, find_down, find_listener};
pub use self::split::{SplitPlan, SplitReport, SplitShare};

pub use self::ways::{RouteMove, RoutedAway};

pub use self::pair::BY_LOAD;
use self::pair::PoolPair;
use self::sample::Sample;
use self::ways::Ways;
use crate::config::{self, Config, diff};
use crate::pool::Pool;
use crate::sticky::Facts;
use crate::tls::Termination;

/// Keys that are sampled in each pool: enough to find a share of 1 % to within 0.1 %.
const SAMPLE: u32 = 100_000;

/// Options of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Clients to look at one by one.
    pub clients: &'a [ListedClient],
    /// Number of keys to sample in each pool.
    pub sample: u32,
    /// The keys of cookies, if they are known.
    pub keys: CookieKeys<'a>,
}

/// What a change of the configuration would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Listeners, pools, backends, TLS, certificates and limits that change, in words.
    pub changes: Vec<String>,
    /// Clients that another route leads to another pool, listener by listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteMove>,
    /// Splits that change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitPlan>,
    /// Changes that take effect later than a reload, and limits that shrink.
    pub warnings: Vec<String>,
    /// Pools of both configurations in the order of the new one, then removed pools.
    pub pools: Vec<PoolPlan>,
    /// All pools that change together, if a running process made the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headline: Option<Headline>,
}

/// What a change of the configuration would do to the clients of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolPlan {
    /// Name of the pool.
    pub pool: String,
    /// True if the new configuration does not have the pool.
    pub removed: bool,
    /// True if a key or a cookie gives each client a backend of its own.
    pub sticks: bool,
    /// True if load places new clients before or after the change: how many go elsewhere is not known, and `new_keys`
    /// is 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_load: bool,
    /// Share of the key space that is placed elsewhere: new clients, and all clients of a pool without a stick table.
    pub new_keys: f64,
    /// Share of the known clients that move.
    pub known_keys: f64,
    /// Moves from backend to backend, as shares of all clients, the largest first.
    pub moves: Vec<Move>,
    /// How many of its clients come to another pool by their routes.
    #[serde(default, skip_serializing_if = "RoutedAway::is_none")]
    pub routed_away: RoutedAway,
    /// The cookie that all its holders lose; `None`: there is none, or they keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_cookie: Option<LostCookie>,
    /// Clients of the list, if there is a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
    /// Clients of the running process, if that made the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// Keys that go from one backend to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Backend where they are placed now.
    pub from: String,
    /// Backend where they would be placed, or [`BY_LOAD`]; `None`: no backend may serve them.
    pub to: Option<String>,
    /// Share of the new clients that make this move.
    pub new_keys: f64,
    /// Share of the known clients that make this move.
    pub known_keys: f64,
}

/// What would happen to the clients of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Number of clients in the list.
    pub clients: usize,
    /// Number that moves if all of them are new.
    pub new: usize,
    /// Number that moves if each is known, from a first connection in the order of the list, or to the running process.
    pub known: usize,
    /// Each client, in the order of the list.
    pub each: Vec<Foreseen>,
}

/// Where one client goes: a backend, or [`BY_LOAD`]; `None`: no backend may serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Client of the list.
    #[serde(flatten)]
    pub client: ListedClient,
    /// Backend where the client is, or goes now.
    pub from: Option<String>,
    /// Backend where the client goes after the change.
    pub to: Option<String>,
    /// Backend where it would go now as a new client.
    pub new_from: Option<String>,
    /// Backend where it would go after the change as a new client.
    pub new_to: Option<String>,
}

/// A client of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedClient {
    /// Address that the client connects from.
    pub source: IpAddr,
    /// Server name (SNI) in the client's hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

impl Plan {
    /// Compares two configurations, without a running process.
    pub fn new(old: &Config, new: &Config, ask: Ask<'_>) -> Self {
        let ways = Ways::new(old, new);
        let plan = |(before, after)| PoolPlan::new(before, after, ask).0.routed(&ways);
        let pools = diff::common_pools(old, new).map(plan);
        let removed = old.pools_without(new).map(PoolPlan::removed);
        let pools = pools.chain(removed).collect();
        Self { routes: ways.moves(), ..Self::compared(old, new, ask.keys, pools) }
    }

    /// Compares the configuration in force in a process with another one.
    pub fn live(running: &Running<'_>, new: &Config, ask: Ask<'_>) -> Self {
        let old = &*running.snapshot.config;
        let ways = Ways::new(old, new);
        let pools = diff::common_pools(old, new).map(|(before, after)| {
            let (plan, sample) = PoolPlan::new(before, after, Ask { clients: &[], ..ask });
            live::with_live(plan, &sample, running, &ways, (after, ask)).routed(&ways)
        });
        let removed = old.pools_without(new).map(|pool| live::removed(PoolPlan::removed(pool), running));
        let mut plan = Self::compared(old, new, ask.keys, pools.chain(removed).collect());
        plan.routes = running.count_routes(ways.moves(), &ways, &plan.pools);
        plan.warnings.extend(running.unusable());
        plan.warnings.extend(running.left_without(new));
        plan.headline = Some(Headline::of(&plan.pools, running, new));
        plan
    }

    /// Adds changes of the certificates and keys that both configurations name; `now_s` is in seconds since 1970.
    #[must_use]
    pub fn with_files(mut self, old: &Termination, new: &Termination, now_s: u64) -> Self {
        self.changes.extend(new.changes_in_full(old, now_s));
        self.warnings.extend(new.warnings(now_s).iter().map(ToString::to_string));
        self
    }

    fn compared(old: &Config, new: &Config, keys: CookieKeys<'_>, pools: Vec<PoolPlan>) -> Self {
        let mut warnings = diff::lower_limits(old, new);
        warnings.extend(diff::warnings(old, old, new));
        warnings.extend(cookie_warnings(old, new, keys));
        let (changes, splits) = (diff::changes(old, new), SplitPlan::all(old, new));
        Self { changes, routes: Vec::new(), splits, warnings, pools, headline: None }
    }

    /// Describes each pool and split of which more than `most` of the clients would move.
    pub fn too_much(&self, most: f64) -> Vec<String> {
        let too_much = self.pools.iter().filter(|pool| pool.moving() > most).map(|pool| {
            let (moves, allowed) = (percent(pool.moving()), percent(most));
            match &pool.lost_cookie {
                None => format!("pool {:?}: {moves} of its clients would move, and {allowed} is allowed", pool.pool),
                Some(lost) => {
                    let (pool, holders, why) = (&pool.pool, lost.holders(), &lost.why);
                    format!("pool {pool:?}: {holders} would move, and {allowed} is allowed: {why}")
                }
            }
        });
        too_much.chain(self.splits.iter().flat_map(|split| split.too_much(most))).collect()
    }
}

/// Formats a share as a percentage with one decimal.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

impl PoolPlan {
    fn new(before: &config::Pool, after: &config::Pool, ask: Ask<'_>) -> (Self, Sample) {
        let by_key = |keyed: fn(&config::Pool) -> bool| keyed(before) && keyed(after);
        let (has_key, placed_by_key) = (by_key(config::Pool::has_key), by_key(|pool| pool.balance.keyed()));
        let sticks = PoolPair::sticks(before, after);
        let sample =
            if sticks && before != after { Sample::take(before, after, has_key, ask) } else { Sample::default() };
        // Of clients that load places, no file says where they are.
        let listed =
            (!ask.clients.is_empty() && has_key && before.balance.keyed()).then(|| Listed::new(before, after, ask));
        let lost_cookie = LostCookie::of(before, Some(after), ask.keys);
        let (new_keys, known_keys) = (sample.moving(|shares| shares.new), sample.moving(|shares| shares.known));
        let moves = sample.moves();
        let pool = after.name.clone();
        let plan = Self {
            pool,
            removed: false,
            sticks,
            by_load: has_key && !placed_by_key,
            new_keys,
            known_keys,
            moves,
            routed_away: RoutedAway::None,
            lost_cookie,
            listed,
            live: None,
        };
        (plan, sample)
    }

    fn removed(pool: &config::Pool) -> Self {
        Self {
            pool: pool.name.clone(),
            removed: true,
            sticks: pool.has_key() || pool.cookie.is_some(),
            by_load: false,
            new_keys: 1.0,
            known_keys: 1.0,
            moves: Vec::new(),
            routed_away: RoutedAway::None,
            lost_cookie: LostCookie::of(pool, None, CookieKeys::default()),
            listed: None,
            live: None,
        }
    }

    /// Adds what routes do to the clients of the pool.
    fn routed(mut self, ways: &Ways<'_>) -> Self {
        self.routed_away = ways.away_from(&self.pool).routed;
        if self.all_routed_away() {
            (self.new_keys, self.known_keys) = (1.0, 1.0);
        }
        if !self.routed_away.is_none() {
            self.listed = self.listed.take().map(|listed| listed.routed(ways, &self.pool));
        }
        self
    }

    /// Share of the clients that move: of the process's known clients, if there are some; else of the sample. All of
    /// them if the holders of the cookie lose it: a process does not know how many they are. Clients of some routes are
    /// counted by a process alone, and only where connections are open.
    pub fn moving(&self) -> f64 {
        if self.lost_cookie.is_some() {
            return 1.0;
        }
        match &self.live {
            Some(Live { known, .. }) if known.total > 0 => known.share_moving(),
            Some(Live { open, .. }) if (self.removed || self.all_routed_away()) && open.total == 0 => 0.0,
            _ if self.sticks && self.all_routed_away() => 1.0,
            _ if self.sticks => self.known_keys,
            _ => 0.0,
        }
    }

    /// True if no client comes to the pool any more.
    pub fn all_routed_away(&self) -> bool {
        self.routed_away == RoutedAway::All
    }
}

impl Listed {
    /// Lets every client connect in the order of the list, changes the configuration, and lets every client connect
    /// again.
    fn new(before: &config::Pool, after: &config::Pool, ask: Ask<'_>) -> Self {
        let clients = ask.clients;
        let pair = PoolPair::new(before, after, ask.keys, clients.len());
        let at: Vec<Served<'_>> =
            clients.iter().map(|client| pair.visit(&client.facts()).map(|backend| backend.name())).collect();
        let again = |(client, from): (&ListedClient, Served<'_>)| {
            from.and_then(|from| pair.return_visit(pair.named(from), &client.facts()))
        };
        let then: Vec<_> = clients.iter().zip(at.iter().copied()).map(again).collect();
        Self::of(&pair, clients, (&at, &then))
    }

    /// Compares where the clients are now with where they are then.
    fn of(pair: &PoolPair, clients: &[ListedClient], (now, then): (&[Served<'_>], &[Served<'_>])) -> Self {
        let foreseen = |(client, (from, to)): (&ListedClient, (&Served<'_>, &Served<'_>))| {
            let place =
                |pool: &Pool| pair::place_new(pool, &client.facts()).map(|pick| pair::told(pool, &pick).to_owned());
            let name = |served: &Served<'_>| served.map(str::to_owned);
            let (new_from, new_to) = (place(&pair.old), place(&pair.new));
            Foreseen { client: client.clone(), from: name(from), to: name(to), new_from, new_to }
        };
        Self::counted(clients.iter().zip(now.iter().zip(then)).map(foreseen).collect())
    }

    /// Replaces the backends of clients that their routes lead to another pool.
    fn routed(self, ways: &Ways<'_>, pool: &str) -> Self {
        let elsewhere = |mut client: Foreseen| {
            if let Some(goal) = ways.goal_of(pool, &client.client.facts()) {
                client.to = goal.map(live::other_pool);
                client.new_to.clone_from(&client.to);
            }
            client
        };
        Self::counted(self.each.into_iter().map(elsewhere).collect())
    }

    fn counted(each: Vec<Foreseen>) -> Self {
        let count = |moves: fn(&Foreseen) -> bool| each.iter().filter(|client| moves(client)).count();
        let [new, known] = [count(Foreseen::moves_as_new), count(Foreseen::moves_as_known)];
        Self { clients: each.len(), new, known, each }
    }

    /// Number of clients that the process does not know and load will place.
    pub fn by_load(&self) -> usize {
        self.each.iter().filter(|client| is_by_load(&client.from)).count()
    }
}

impl Foreseen {
    fn moves_as_new(&self) -> bool {
        self.new_from != self.new_to && ![&self.new_from, &self.new_to].into_iter().any(is_by_load)
    }

    fn moves_as_known(&self) -> bool {
        self.from != self.to && !is_by_load(&self.from)
    }
}

fn is_by_load(place: &Option<String>) -> bool {
    place.as_deref() == Some(BY_LOAD)
}

impl<'a> Ask<'a> {
    /// A plan for these clients, with a sample that finds a share of 1 % to within 0.1 %.
    pub fn about(clients: &'a [ListedClient]) -> Self {
        Self { clients, sample: SAMPLE, keys: CookieKeys::default() }
    }
}

impl ListedClient {
    fn facts(&self) -> Facts<'_> {
        Facts { source: Some(self.source), sni: self.sni.as_deref(), ..Facts::default() }
    }
}

/// Backend that serves a client, by name, or [`BY_LOAD`]; `None`: no backend may.
type Served<'p> = Option<&'p str>;
