//! What a new configuration would do to clients: who moves, from where to where.
//!
//! Asks the pools themselves, over a sample of their keys with everybody up, and over clients that somebody has
//! listed. Knows no health and no memory of a running process. Invariant: the same two configurations give the same
//! plan, and for a listed client it is what then happens, as long as all backends are up.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use crate::changes;
use crate::config::{self, Config, KeyPart, OnAdd};
use crate::pool::Pool;
use crate::sticky::Facts;

/// Keys that are asked for in each pool: a share of 1 % is then told to within 0.1 %.
pub const SAMPLE: u32 = 100_000;

/// What would happen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Listeners, pools, backends, TLS and limits that change, in words.
    pub changes: Vec<String>,
    /// What takes effect otherwise than one might think.
    pub warnings: Vec<String>,
    /// Pools that are in both, as the new file has them.
    pub pools: Vec<PoolPlan>,
}

/// What would happen to the clients of one pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolPlan {
    /// Its name.
    pub pool: String,
    /// Whether it places by a key at all.
    pub keyed: bool,
    /// Share of the key space that is placed elsewhere: new clients, and all where nothing is remembered.
    pub new_keys: f64,
    /// Share of the remembered clients that move.
    pub known_keys: f64,
    /// Of the listed clients, if there is a list: how many move, were they all new and were they all known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
    /// Who moves where, as shares of the key space, the largest first.
    pub moves: Vec<Move>,
}

/// Clients of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// How many there are.
    pub clients: usize,
    /// How many are placed elsewhere.
    pub new: usize,
    /// How many move if they are remembered.
    pub known: usize,
}

/// Keys that go from one backend to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Move {
    /// Where they are placed now.
    pub from: String,
    /// Where they would be.
    pub to: String,
    /// Their share of the key space.
    pub share: f64,
}

/// A client of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub source: IpAddr,
    /// The server name it asks for.
    pub sni: Option<String>,
}

impl Plan {
    /// Compares two configurations.
    pub fn new(old: &Config, new: &Config, clients: &[Client]) -> Self {
        let mut warnings = changes::only_at_start(old, new);
        warnings.extend(changes::only_for_new_listeners(old, new));
        warnings.extend(changes::renamed(old, new));
        warnings.extend(shrunk(old, new));
        let pools = changes::common(old, new).map(|(before, after)| PoolPlan::new(before, after, clients));
        Self { changes: changes::changes(old, new), warnings, pools: pools.collect() }
    }

    /// The largest share of a pool's clients that move: of the known ones where they are remembered, else of all.
    pub fn largest_move(&self) -> f64 {
        self.pools.iter().map(|pool| pool.known_keys).fold(0.0, f64::max)
    }
}

impl PoolPlan {
    fn new(before: &config::Pool, after: &config::Pool, clients: &[Client]) -> Self {
        let pair = Pair { old: Pool::new(before, None, 1), new: Pool::new(after, None, 1) };
        let keyed = before.balance.keyed() && after.balance.keyed();
        let (mut moves, mut new, mut known) = (BTreeMap::new(), 0, 0);
        for number in 0..if keyed { SAMPLE } else { 0 } {
            let Some((from, to)) = Sampled::new(number, &after.key).with_facts(|facts| pair.homes(facts)) else {
                continue;
            };
            known += u32::from(pair.known_moves(&from, &to));
            if from != to {
                new += 1;
                *moves.entry((from, to)).or_insert(0_u32) += 1;
            }
        }
        let share = |count: u32| f64::from(count) / f64::from(SAMPLE);
        let mut moves: Vec<Move> =
            moves.into_iter().map(|((from, to), count)| Move { from, to, share: share(count) }).collect();
        moves.sort_by(|a, b| b.share.total_cmp(&a.share));
        let listed = (!clients.is_empty() && keyed).then(|| pair.listed(clients));
        Self { pool: after.name.clone(), keyed, new_keys: share(new), known_keys: share(known), listed, moves }
    }
}

/// A pool as it is and as it would be, all backends up and nobody remembered.
struct Pair {
    old: Pool,
    new: Pool,
}

impl Pair {
    fn homes(&self, facts: &Facts<'_>) -> Option<(String, String)> {
        let home = |pool: &Pool| pool.pick(facts, &[], 0).map(|pick| pick.backend.name().to_owned());
        home(&self.old).zip(home(&self.new))
    }

    /// Whether a client that is remembered at `from` moves. It stays while its backend is there, unless the file says
    /// that known keys follow the new table.
    fn known_moves(&self, from: &str, to: &str) -> bool {
        let stays = self.new.config().memory.is_some_and(|memory| memory.on_add == OnAdd::Stay)
            && self.old.config().memory.is_some()
            && self.new.backends().iter().any(|backend| backend.name() == from);
        from != to && !stays
    }

    fn listed(&self, clients: &[Client]) -> Listed {
        let mut listed = Listed { clients: clients.len(), new: 0, known: 0 };
        for client in clients {
            let facts = Facts { source: Some(client.source), sni: client.sni.as_deref(), ..Facts::default() };
            if let Some((from, to)) = self.homes(&facts) {
                listed.new += usize::from(from != to);
                listed.known += usize::from(self.known_moves(&from, &to));
            }
        }
        listed
    }
}

/// One client of the sample: an address and whatever else a key may be made of, all from its number.
struct Sampled {
    source: IpAddr,
    value: String,
    tlvs: Vec<u8>,
    cookies: Vec<String>,
}

impl Sampled {
    fn new(number: u32, key: &[KeyPart]) -> Self {
        // An odd factor makes a permutation: every number another address, spread over all of them.
        let source = IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1)));
        let value = format!("client-{number}.example");
        let (mut tlvs, mut cookies) = (Vec::new(), Vec::new());
        for part in key {
            match part {
                KeyPart::Tlv(kind) => {
                    tlvs.extend([*kind, 0, value.len() as u8]);
                    tlvs.extend(value.as_bytes());
                }
                KeyPart::Cookie(name) => cookies.push(name.to_string()),
                KeyPart::Source | KeyPart::Sni => {}
            }
        }
        Self { source, value, tlvs, cookies }
    }

    fn with_facts<T>(&self, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let cookies: Vec<_> = self.cookies.iter().map(|name| (name.as_str(), self.value.as_bytes())).collect();
        ask(&Facts { source: Some(self.source), sni: Some(&self.value), tlvs: &self.tlvs, cookies: &cookies })
    }
}

/// Limits that would be lower: what is above them is not closed, but nothing comes after it.
fn shrunk(old: &Config, new: &Config) -> Vec<String> {
    let (before, after) = (&old.limits, &new.limits);
    let wide = |limit: Option<usize>| limit.unwrap_or(usize::MAX);
    let per_source = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| limit as usize);
    let mut rows = vec![
        ("max_connections".to_owned(), wide(before.max_connections), wide(after.max_connections)),
        (
            "max_connections_per_source".to_owned(),
            per_source(before.max_connections_per_source),
            per_source(after.max_connections_per_source),
        ),
        ("max_handshakes".to_owned(), wide(before.max_handshakes), wide(after.max_handshakes)),
    ];
    for listener in &new.listeners {
        if let Some(was) = old.listeners.iter().find(|was| was.name == listener.name) {
            let name = format!("listener {:?}: max_connections", listener.name);
            rows.push((name, wide(was.max_connections), wide(listener.max_connections)));
        }
    }
    let show = |limit: usize| if limit == usize::MAX { "no limit".to_owned() } else { limit.to_string() };
    let lower = rows.into_iter().filter(|(_, before, after)| after < before);
    lower.map(|(name, before, after)| format!("{name} shrinks: {} to {}", show(before), show(after))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text =
            format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n{text}");
        config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_or_else(|e| panic!("{e:?}")).config
    }

    fn backends(names: &[&str]) -> String {
        let one = |(n, name): (usize, &&str)| format!("{{ name = \"{name}\", address = \"127.0.0.1:{}\" }}", n + 1);
        format!("backend = [{}]\n", names.iter().enumerate().map(one).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn nothing_moves_where_nothing_changes() {
        let same = config(&backends(&["a", "b", "c"]));
        let plan = Plan::new(&same, &same, &[]);
        assert_eq!((plan.largest_move(), plan.pools[0].new_keys, plan.changes.len()), (0.0, 0.0, 0));
    }

    #[test]
    fn one_of_four_takes_a_fourth_from_each_and_only_of_new_clients() {
        let (old, new) = (config(&backends(&["a", "b", "c"])), config(&backends(&["a", "b", "c", "d"])));
        let pool = Plan::new(&old, &new, &[]).pools.remove(0);
        assert!((pool.new_keys - 0.25).abs() < 0.005, "{pool:?}");
        assert_eq!(pool.known_keys, 0.0);
        assert!(pool.moves.len() == 3 && pool.moves.iter().all(|row| row.to == "d"), "{pool:?}");
        let forgetful = |names: &[&str]| config(&("memory = \"0\"\n".to_owned() + &backends(names)));
        let plan = Plan::new(&forgetful(&["a", "b", "c"]), &forgetful(&["a", "b", "c", "d"]), &[]);
        assert!((plan.largest_move() - 0.25).abs() < 0.005);
    }

    #[test]
    fn clients_of_a_removed_backend_move_known_or_not() {
        let (old, new) = (config(&backends(&["a", "b", "c"])), config(&backends(&["a", "b"])));
        let pool = Plan::new(&old, &new, &[]).pools.remove(0);
        assert!((pool.known_keys - 1.0 / 3.0).abs() < 0.005 && pool.known_keys == pool.new_keys, "{pool:?}");
    }

    #[test]
    fn keys_of_every_kind_are_sampled() {
        for (listener, key) in [
            ("tls = \"passthrough\"", "\"sni\""),
            ("tls = \"passthrough\"", "[\"source\", \"sni\"]"),
            ("trust = [\"192.0.2.0/24\"]", "\"tlv:0xE0\""),
        ] {
            let with = |names: &[&str]| {
                let start = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n{listener}\n");
                let text = format!("{start}[[pool]]\nname = \"p\"\nkey = {key}\n{}", backends(names));
                config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()))
                    .unwrap_or_else(|e| panic!("{e:?}"))
                    .config
            };
            let plan = Plan::new(&with(&["a"]), &with(&["a", "b"]), &[]);
            assert!((plan.pools[0].new_keys - 0.5).abs() < 0.005, "{key}: {plan:?}");
        }
    }

    #[test]
    fn smaller_limits_are_told() {
        let with = |limits: &str| config(&format!("{}[limits]\n{limits}\n", backends(&["a"])));
        let plan = Plan::new(&with("max_connections = 100"), &with("max_connections = 50"), &[]);
        assert_eq!(plan.warnings, ["max_connections shrinks: 100 to 50"]);
        assert!(Plan::new(&with("max_connections = 50"), &with("max_connections = 100"), &[]).warnings.is_empty());
    }
}
