//! A hundred edits in one process: snapshots are built as a reload builds them, and clients pick and settle as
//! connections and requests do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sessile::admission::Admission;
use sessile::clock::{self, now_ms};
use sessile::config::Config;
use sessile::http::Progress;
use sessile::http::head::RequestReader;
use sessile::plan::{Ask, ListedClient, MoveTally, Plan, PoolPlan, Running};
use sessile::pool::request_cookie::ReadCookie;
use sessile::pool::request_key::values_of_key;
use sessile::pool::{PickScene, Pool};
use sessile::server;
use sessile::snapshot::Snapshot;
use sessile::sticky::Facts;
use sessile::sticky::cookie::Mode;
use sessile::sticky::table::KeyHash;

use super::edits::{self, Kind};
use super::{checked, pair};
use crate::support::rng::Rng;

const EDITS: u64 = 100;
const CLIENTS: usize = 300;
/// Shares are not what is held against what happens.
const SAMPLE: u32 = 500;
const KEYS: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210\n";

fn snapshot(config: &Config, previous: Option<&Snapshot>) -> Snapshot {
    let loaded = server::certificates_and_keys(config, previous).expect("every file can be read");
    Snapshot::build(config.clone(), loaded, previous, 1, &Arc::new(Admission::new(1)))
}

/// A client with the cookies it was given, by pool.
struct Visitor<'c> {
    client: &'c ListedClient,
    number: usize,
    jar: HashMap<String, String>,
}

impl Visitor<'_> {
    /// Comes to a pool: where it is served, and the key by which it is remembered.
    fn visit(&mut self, pool: &Pool) -> Option<(String, Option<KeyHash>)> {
        if pool.config().http.is_read() { self.request(pool) } else { self.connect(pool) }
    }

    fn connect(&self, pool: &Pool) -> Option<(String, Option<KeyHash>)> {
        let facts = Facts { source: Some(self.client.source), sni: self.client.sni.as_deref(), ..Facts::default() };
        let pick = pool.pick(&PickScene::new(&facts, &[], now_ms()))?;
        if let Some((table, remember)) = pool.table().zip(pick.remember) {
            table.settle(remember, pick.backend, now_ms());
        }
        Some((pick.backend.name().to_owned(), pick.remember.map(|remember| remember.key)))
    }

    fn request(&mut self, pool: &Pool) -> Option<(String, Option<KeyHash>)> {
        let cookie = self.jar.get(pool.name()).map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{cookie}\r\n");
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)), "{head}");
        let request = reader.request(head.as_bytes());
        let cookie = ReadCookie::new(pool, &request, clock::unix_s(), now_ms());
        let values = values_of_key(pool, &request, None);
        let facts = Facts { source: Some(self.client.source), values: &values, ..Facts::default() };
        let pick = pool.pick(&PickScene { cookie: cookie.backend(), ..PickScene::new(&facts, &[], now_ms()) })?;
        let brought = pool.table().zip(cookie.value).and_then(|(table, value)| table.remember_value(value));
        if let Some((table, remember)) = pool.table().zip(brought.or(pick.remember)) {
            table.settle(remember, pick.backend, now_ms());
        }
        let name = pick.backend.name().to_owned();
        let value = format!("v{}", self.number);
        let index = pool.index_of(&name)?;
        let given = pool.cookie().and_then(|rule| match rule.mode() {
            Mode::Insert(insert) => {
                let sealed = insert.seal(index, clock::unix_s(), clock::unix_s(), Default::default());
                Some(format!("{}={}", rule.name(), String::from_utf8_lossy(&sealed)))
            }
            Mode::Learn => {
                pool.table()?.learn(value.as_bytes(), pick.backend, now_ms());
                Some(format!("{}={value}", rule.name()))
            }
            Mode::Prefix => Some(format!("{}={name}~{value}", rule.name())),
            Mode::Route(_) => Some(format!("{}={value}.{name}", rule.name())),
            // The application has set none.
            Mode::Hash => None,
        });
        if let Some(cookie) = given {
            self.jar.insert(pool.name().to_owned(), cookie);
        }
        Some((name, pick.remember.map(|remember| remember.key)))
    }
}

/// Backend of each client, and its key in the stick table.
fn everybody(visitors: &mut [Visitor<'_>], pool: &Pool) -> Vec<(Option<String>, Option<KeyHash>)> {
    visitors.iter_mut().map(|visitor| visitor.visit(pool).map_or((None, None), |(at, key)| (Some(at), key))).collect()
}

fn names(places: &[(Option<String>, Option<KeyHash>)]) -> Vec<Option<&str>> {
    places.iter().map(|(place, _)| place.as_deref()).collect()
}

/// Backends of new clients.
fn strangers(config: &Config, pool: &str, clients: &[ListedClient]) -> Vec<Option<String>> {
    let mut config = config.clone();
    config.pools.iter_mut().for_each(|pool| pool.stick_table = None);
    let snapshot = snapshot(&config, None);
    let pool = snapshot.pool(pool).expect("the pool");
    let place = |client: &ListedClient| {
        let facts = Facts { source: Some(client.source), sni: client.sni.as_deref(), ..Facts::default() };
        Some(pool.pick(&PickScene::new(&facts, &[], now_ms()))?.backend.name().to_owned())
    };
    clients.iter().map(place).collect()
}

/// A forecast that is certain for an entry must hold for every client with its key.
fn check_tally(what: &str, tally: &MoveTally, before: &[(Option<String>, Option<KeyHash>)], after: &[Option<&str>]) {
    let mut place: HashMap<KeyHash, &str> = HashMap::new();
    for (at, key) in before {
        if let (Some(at), Some(key)) = (at, key) {
            place.insert(*key, at);
        }
    }
    let (mut stay, mut leave) = (HashSet::new(), HashSet::new());
    for ((_, key), after) in before.iter().zip(after) {
        if let Some(key) = key {
            if *after == place.get(key).copied() {
                stay.insert(*key)
            } else {
                leave.insert(*key)
            };
        }
    }
    assert_eq!(tally.total, place.len() as u64, "{what}: known clients: {tally:?}");
    assert_eq!(tally.total, tally.stay + tally.leave + tally.depend, "{what}: {tally:?}");
    assert!(tally.stay <= stay.len() as u64, "{what}: {} keys stay: {tally:?}", stay.len());
    assert!(tally.leave <= leave.len() as u64, "{what}: {} keys leave: {tally:?}", leave.len());
    let moves: u64 = tally.moves.iter().map(|row| row.count).sum();
    assert_eq!(moves, tally.leave + tally.depend_leave_about, "{what}: {tally:?}");
}

fn check_pool(seed: u64, plans: (&PoolPlan, &PoolPlan), configs: (&Config, &Config), happened: &Happened<'_>) -> bool {
    let (apart, live) = plans;
    let what = format!("seed {seed}, pool {}", apart.pool);
    let Some(listed) = &apart.listed else { return false };
    let (old, new) = configs;
    let (old_places, new_places) =
        (strangers(old, &apart.pool, happened.clients), strangers(new, &apart.pool, happened.clients));
    let before = names(happened.before);
    for (number, client) in listed.each.iter().enumerate() {
        let who = format!("{what}, client {number} {:?}", client.client);
        assert_eq!(client.from.as_deref(), before[number], "{who}: where it was");
        assert_eq!(client.to.as_deref(), happened.after[number], "{who}: where it went from {:?}", client.from);
        assert_eq!(client.new_from, old_places[number], "{who}: where it would have been as a stranger");
        assert_eq!(client.new_to, new_places[number], "{who}: where it would go as a stranger");
    }
    let moved = before.iter().zip(&happened.after).filter(|(before, after)| before != after).count();
    assert_eq!(listed.known, moved, "{what}: how many move");
    let cookies = |config: &Config| config.pools.iter().any(|pool| pool.name == apart.pool && pool.cookie.is_some());
    if cookies(old) || cookies(new) {
        return true;
    }
    // Asked while it runs, the same clients are known, or not, from its stick table.
    for (number, client) in live.listed.iter().flat_map(|listed| &listed.each).enumerate() {
        let who = format!("{what}, asked while it runs, client {number} {:?}", client.client);
        assert_eq!(client.to.as_deref(), happened.after[number], "{who}: where it went from {:?}", client.from);
    }
    let known = live.live.as_ref().map(|live| &live.known);
    check_tally(&what, known.expect("what it knows"), happened.before, &happened.after);
    true
}

struct Happened<'h> {
    clients: &'h [ListedClient],
    before: &'h [(Option<String>, Option<KeyHash>)],
    after: Vec<Option<&'h str>>,
}

#[test]
fn a_hundred_edits_do_to_every_client_what_the_plan_says() {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let keys = folder.path().join("cookie.keys");
    std::fs::write(&keys, KEYS).expect("a file");
    let (mut pools, mut moved, mut stayed) = (0, 0, 0);
    for seed in 0..EDITS {
        let mut rng = Rng(seed);
        let text = |file: &edits::File| {
            file.text(|slot| format!("192.0.2.1:{}", 1_000 + slot), keys.to_str().expect("a path of words"))
        };
        let ((_, old), (_, new)) = pair(&mut rng, Kind::Any, text);
        let (old, new) = (checked(&old).expect("good"), checked(&new).expect("good"));
        let clients = edits::clients(&mut rng, CLIENTS, true);

        let running = snapshot(&old, None);
        let mut visitors: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(number, client)| Visitor { client, number, jar: HashMap::new() })
            .collect();
        let before: HashMap<_, _> =
            running.pools.iter().map(|pool| (pool.name(), everybody(&mut visitors, pool))).collect();
        let ask = Ask { sample: SAMPLE, ..Ask::about(&clients) };
        let plan = Plan::new(&old, &new, ask);
        let live = Plan::live(&Running { snapshot: &running, open: &[], now_ms: now_ms() }, &new, ask);

        let next = snapshot(&new, Some(&running));
        next.pools.iter().for_each(|pool| {
            if let Some(old) = running.pool(pool.name()) {
                pool.take_over(old, now_ms());
            }
        });
        for (apart, live) in plan.pools.iter().zip(&live.pools).filter(|(apart, _)| !apart.removed) {
            let after = everybody(&mut visitors, next.pool(&apart.pool).expect("the pool"));
            let before = &before[apart.pool.as_str()];
            let happened = Happened { clients: &clients, before, after: names(&after) };
            pools += usize::from(check_pool(seed, (apart, live), (&old, &new), &happened));
            let listed = apart.listed.as_ref().map_or(0, |listed| listed.known);
            moved += listed;
            stayed += CLIENTS - listed;
        }
    }
    assert!(
        pools >= EDITS as usize && moved > 1_000 && stayed > 1_000,
        "{pools} pools, {moved} moved, {stayed} stayed"
    );
}
