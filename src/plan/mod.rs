//! What a new configuration would do to clients: who moves, from where to where.
//!
//! Asks the pools themselves: over a sample of their keys, over clients that somebody has listed, and, in a running
//! process, over everybody it knows and serves. All backends count as up, with nobody at them. Connects nobody and
//! changes nothing. Invariant: the same two configurations give the same plan, and for a listed client it is what then
//! happens, as long as its backends take connections.
//!
//! # What is exact and what is estimated
//!
//! | of | exact | estimated |
//! |---|---|---|
//! | new clients | those listed | shares of the key space, from a sample |
//! | known clients, no process asked | those listed, should they come as listed | the same |
//! | known clients of a process | how many there are; whether they stay or leave where their key does not matter | where they go, and whether, where it does: a stick table keeps hashes |
//! | open connections | where their clients go next, if by address and server name | if by more than that |

mod explanation;
mod forecast;
mod live;
mod pair;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::explanation::{ExplainedCandidate, Explanation};
pub use self::live::{Live, MoveTally, Running, Shift};

use self::pair::{PoolPair, Sampler};
use crate::config::{self, Config, diff};
use crate::pool::{Backend, Pool};
use crate::sticky::Facts;
use crate::tls::Termination;

/// Keys that are asked for in each pool: a share of 1 % is then told to within 0.1 %.
const SAMPLE: u32 = 100_000;

/// What is asked besides.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Clients to look at one by one.
    pub clients: &'a [ListedClient],
    /// How many keys of each pool are asked for.
    pub sample: u32,
}

/// What would happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Listeners, pools, backends, TLS, certificates and limits that change, in words.
    pub changes: Vec<String>,
    /// What takes effect otherwise than one might think, and limits that shrink.
    pub warnings: Vec<String>,
    /// Pools that are in both, as the new file has them, then those that are removed.
    pub pools: Vec<PoolPlan>,
}

/// What would happen to the clients of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolPlan {
    /// Its name.
    pub pool: String,
    /// The new file does not have it.
    pub removed: bool,
    /// Whether its clients have places of their own, by a key or by a cookie.
    pub sticks: bool,
    /// Share of the key space that is placed elsewhere: new clients, and all where nothing is remembered.
    pub new_keys: f64,
    /// Share of the remembered clients that move.
    pub known_keys: f64,
    /// Who moves where, as shares of all, the largest first.
    pub moves: Vec<Move>,
    /// The listed clients, if there is a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
    /// Those of the running process, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// Keys that go from one backend to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Where they are placed now.
    pub from: String,
    /// Where they would be; nowhere: nobody may serve them.
    pub to: Option<String>,
    /// Their share of the new clients.
    pub new_keys: f64,
    /// Their share of the remembered ones.
    pub known_keys: f64,
}

/// Clients of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// How many there are.
    pub clients: usize,
    /// How many move, were they all new.
    pub new: usize,
    /// How many move if each has been there before, in the order of the list; of a running process: as it knows them.
    pub known: usize,
    /// One by one, in the order of the list.
    pub each: Vec<Foreseen>,
}

/// Where one client goes; nowhere: nobody may serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Who it is.
    #[serde(flatten)]
    pub client: ListedClient,
    /// Where it is, or goes now.
    pub from: Option<String>,
    /// Where it goes then.
    pub to: Option<String>,
    /// Where it would go now if nobody knew it.
    pub new_from: Option<String>,
    /// Where it would go then if nobody knew it.
    pub new_to: Option<String>,
}

/// A client of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedClient {
    /// Its address.
    pub source: IpAddr,
    /// The server name it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

impl Plan {
    /// Compares two configurations.
    pub fn new(old: &Config, new: &Config, ask: Ask<'_>) -> Self {
        let pools = diff::common(old, new).map(|(before, after)| PoolPlan::new(before, after, ask).0);
        let removed = removed(old, new).map(PoolPlan::removed);
        Self::told(old, new, pools.chain(removed).collect())
    }

    /// Compares what a process does with another configuration.
    pub fn live(running: &Running<'_>, new: &Config, ask: Ask<'_>) -> Self {
        let old = &*running.snapshot.config;
        let pools = diff::common(old, new).map(|(before, after)| {
            let (plan, sample) = PoolPlan::new(before, after, Ask { clients: &[], ..ask });
            live::asked(plan, &sample, running, new, (after, ask.clients))
        });
        let removed = removed(old, new).map(|pool| live::removed(PoolPlan::removed(pool), running));
        let mut plan = Self::told(old, new, pools.chain(removed).collect());
        plan.warnings.extend(running.unusable());
        plan
    }

    /// Adds what the certificates and keys become that both configurations name; `now_s` is in seconds since 1970.
    #[must_use]
    pub fn with_files(mut self, old: &Termination, new: &Termination, now_s: u64) -> Self {
        self.changes.extend(new.changes_in_full(old, now_s));
        self.warnings.extend(new.warnings(now_s));
        self
    }

    fn told(old: &Config, new: &Config, pools: Vec<PoolPlan>) -> Self {
        let mut warnings = diff::shrunk(old, new);
        warnings.extend(diff::only_at_start(old, new));
        warnings.extend(diff::only_for_new_listeners(old, new));
        warnings.extend(diff::renamed(old, new));
        Self { changes: diff::changes(old, new), warnings, pools }
    }

    /// The pools of which more than `most` of the clients would move, in words.
    pub fn too_much(&self, most: f64) -> Vec<String> {
        let too_much = self.pools.iter().filter(|pool| pool.moving() > most).map(|pool| {
            let (moves, allowed) = (percent(pool.moving()), percent(most));
            format!("pool {:?}: {moves} of its clients would move, and {allowed} is allowed", pool.pool)
        });
        too_much.collect()
    }
}

/// A share for people.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

impl PoolPlan {
    fn new(before: &config::Pool, after: &config::Pool, ask: Ask<'_>) -> (Self, Sample) {
        let keyed = before.balance.keyed() && after.balance.keyed();
        let sticks = PoolPair::sticks(before, after);
        let sample =
            if sticks && before != after { Sample::take(before, after, keyed, ask.sample) } else { Sample::default() };
        let listed = (!ask.clients.is_empty() && keyed).then(|| Listed::new(before, after, ask.clients));
        let (new_keys, known_keys) = (sample.moving(|shares| shares.new), sample.moving(|shares| shares.known));
        let moves = sample.moves();
        let pool = after.name.clone();
        (Self { pool, removed: false, sticks, new_keys, known_keys, moves, listed, live: None }, sample)
    }

    fn removed(pool: &config::Pool) -> Self {
        Self {
            pool: pool.name.clone(),
            removed: true,
            sticks: pool.balance.keyed() || pool.cookie.is_some(),
            new_keys: 1.0,
            known_keys: 1.0,
            moves: Vec::new(),
            listed: None,
            live: None,
        }
    }

    /// The share of its clients that move: of those that a process knows, if it knows any; else of what would be known.
    pub fn moving(&self) -> f64 {
        match &self.live {
            Some(Live { known, .. }) if known.total > 0 => known.share_moving(),
            Some(Live { open, .. }) if self.removed && open.total == 0 => 0.0,
            _ if self.sticks => self.known_keys,
            _ => 0.0,
        }
    }
}

impl Listed {
    /// Every client comes, in the order of the list; then the configuration changes, and every client comes again.
    fn new(before: &config::Pool, after: &config::Pool, clients: &[ListedClient]) -> Self {
        let pair = PoolPair::new(before, after, clients.len());
        let at: Vec<_> = clients.iter().map(|client| pair.visit(&client.facts())).collect();
        let again = |(client, from): (&ListedClient, Served<'_>)| {
            from.and_then(|from| pair.visit_again(pair.named(from.name()), &client.facts()))
        };
        let then: Vec<_> = clients.iter().zip(at.iter().copied()).map(again).collect();
        Self::of(&pair, clients, (&at, &then))
    }

    /// Of clients that are here now, and there then.
    fn of(pair: &PoolPair, clients: &[ListedClient], (now, then): (&[Served<'_>], &[Served<'_>])) -> Self {
        let foreseen = |(client, (from, to)): (&ListedClient, (&Served<'_>, &Served<'_>))| {
            let place = |pool: &Pool| pair::place_new(pool, &client.facts()).map(|backend| backend.name().to_owned());
            let name = |served: &Served<'_>| served.map(|backend| backend.name().to_owned());
            let (new_from, new_to) = (place(&pair.old), place(&pair.new));
            Foreseen { client: client.clone(), from: name(from), to: name(to), new_from, new_to }
        };
        let each: Vec<_> = clients.iter().zip(now.iter().zip(then)).map(foreseen).collect();
        let count = |moves: fn(&Foreseen) -> bool| each.iter().filter(|client| moves(client)).count();
        Self {
            clients: each.len(),
            new: count(|client| client.new_from != client.new_to),
            known: count(|client| client.from != client.to),
            each,
        }
    }
}

impl<'a> Ask<'a> {
    /// About these clients, and a sample that tells a share of 1 % to within 0.1 %.
    pub fn about(clients: &'a [ListedClient]) -> Self {
        Self { clients, sample: SAMPLE }
    }
}

impl ListedClient {
    fn facts(&self) -> Facts<'_> {
        Facts { source: Some(self.source), sni: self.sni.as_deref(), ..Facts::default() }
    }
}

/// Who serves a client; nobody may.
type Served<'p> = Option<&'p Arc<Backend>>;

/// How many keys of a sample there are at one backend that another gets.
#[derive(Debug, Clone, Copy, Default)]
struct Shares {
    new: u32,
    known: u32,
}

/// Where the keys of a sample are and go, by both.
#[derive(Debug, Default)]
struct Sample {
    size: u32,
    rows: BTreeMap<(String, Option<String>), Shares>,
}

impl Sample {
    fn take(before: &config::Pool, after: &config::Pool, keyed: bool, size: u32) -> Self {
        let pair = PoolPair::new(before, after, size as usize);
        let (olds, news) = (pair.old.backends(), pair.new.backends());
        let named: Vec<_> = olds.iter().map(|backend| pair.named(backend.name())).collect();
        let sampler = Sampler::new(&pair);
        // By place now and then; the last of those is nowhere.
        let mut counts = vec![Shares::default(); olds.len() * (news.len() + 1)];
        let place = |from: usize, to: Option<usize>| from * (news.len() + 1) + to.unwrap_or(news.len());
        for number in 0..size {
            sampler.with_facts(number, |facts| {
                // Who comes without a key is nobody's, unless a cookie says whose.
                if (keyed || pair.by_cookie())
                    && let Some(from) = pair.visit(facts).and_then(|from| index(olds, from))
                {
                    let to = pair.visit_again(named[from], facts).and_then(|to| index(news, to));
                    counts[place(from, to)].known += 1;
                }
                if keyed && let Some(from) = pair::place_new(&pair.old, facts).and_then(|from| index(olds, from)) {
                    let to = pair::place_new(&pair.new, facts).and_then(|to| index(news, to));
                    counts[place(from, to)].new += 1;
                }
            });
        }
        let name = |backend: &Arc<Backend>| backend.name().to_owned();
        let of = |at: usize| (name(&olds[at / (news.len() + 1)]), news.get(at % (news.len() + 1)).map(name));
        let counted = counts.into_iter().enumerate().filter(|(_, shares)| shares.new + shares.known > 0);
        Self { size, rows: counted.map(|(at, shares)| (of(at), shares)).collect() }
    }

    fn moving(&self, count: fn(&Shares) -> u32) -> f64 {
        let moving = self.rows.iter().filter(|((from, to), _)| to.as_ref() != Some(from));
        self.share(moving.map(|(_, shares)| count(shares)).sum())
    }

    fn share(&self, count: u32) -> f64 {
        f64::from(count) / f64::from(self.size.max(1))
    }

    fn moves(&self) -> Vec<Move> {
        let moving = self.rows.iter().filter(|((from, to), _)| to.as_ref() != Some(from));
        let mut moves: Vec<_> = moving
            .map(|((from, to), shares)| Move {
                from: from.clone(),
                to: to.clone(),
                new_keys: self.share(shares.new),
                known_keys: self.share(shares.known),
            })
            .collect();
        let size = |row: &Move| row.new_keys.max(row.known_keys);
        moves.sort_by(|a, b| size(b).total_cmp(&size(a)));
        moves
    }

    /// How often the known keys that were at `from` are where: of all, if none was there.
    fn known_from(&self, from: &str) -> BTreeMap<Option<String>, u32> {
        let mut there = BTreeMap::new();
        let mut all = BTreeMap::new();
        for ((at, to), shares) in self.rows.iter().filter(|(_, shares)| shares.known > 0) {
            *all.entry(to.clone()).or_insert(0) += shares.known;
            if at == from {
                *there.entry(to.clone()).or_insert(0) += shares.known;
            }
        }
        if there.is_empty() { all } else { there }
    }
}

fn index(backends: &[Arc<Backend>], backend: &Arc<Backend>) -> Option<usize> {
    backends.iter().position(|known| Arc::ptr_eq(known, backend))
}

fn removed<'c>(old: &'c Config, new: &'c Config) -> impl Iterator<Item = &'c config::Pool> {
    old.pools.iter().filter(|pool| new.pools.iter().all(|other| other.name != pool.name))
}
