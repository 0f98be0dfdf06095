//! Some edits through a running process: clients connect from addresses of their own, the file is put in force, and
//! they connect again.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use sessile::plan::{Foreseen, ListedClient, MoveTally, Plan, PoolPlan};

use super::edits::{self, Kind, SLOTS};
use super::pair;
use crate::support::Sessile;
use crate::support::backend::Backend;
use crate::support::load_support;
use crate::support::rng::Rng;
use crate::support::sessile::run;

const EDITS: u64 = 10;
const CLIENTS: usize = 150;
/// One in so many keeps its connection open.
const OPEN: usize = 3;

/// Where a client is served, by the name of the backend in this pool; the connection is kept if it is wanted.
fn visit(
    client: &ListedClient,
    front: SocketAddr,
    pool: &edits::Pool,
    keep: &mut Vec<load_support::Client>,
    kept: bool,
) -> Option<String> {
    let mut connection = load_support::Client::connect_from(client.source, front);
    let answer = connection.try_ask("who").ok()?;
    let slot: usize = answer.strip_prefix('s')?.split(' ').next()?.parse().ok()?;
    if kept {
        keep.push(connection);
    }
    let served = pool.backends.iter().find(|backend| backend.slot == slot).expect("a backend of this pool");
    Some(served.name.clone())
}

fn plan(arguments: &[&str]) -> Plan {
    let output = run(&[&["plan", "--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a plan")
}

fn check_each(what: &str, each: &[Foreseen], before: &[Option<String>], after: &[Option<String>]) {
    for (number, client) in each.iter().enumerate() {
        let who = format!("{what}, client {number} {}", client.client.source);
        assert_eq!(client.from, before[number], "{who}: where it was");
        assert_eq!(client.to, after[number], "{who}: where it went from {:?}", client.from);
    }
    assert_eq!(each.len(), after.len(), "{what}");
}

/// Open connections are told one by one.
fn check_open(what: &str, open: &MoveTally, before: &[Option<String>], after: &[Option<String>]) {
    let (mut total, mut stay, mut moves) = (0, 0, BTreeMap::new());
    for (from, to) in before.iter().zip(after).step_by(OPEN) {
        let Some(from) = from else { continue };
        total += 1;
        if Some(from) == to.as_ref() {
            stay += 1;
        } else {
            *moves.entry((from.clone(), to.clone())).or_insert(0) += 1;
        }
    }
    let told = open.moves.iter().map(|row| ((row.from.clone(), row.to.clone()), row.count)).collect();
    assert_eq!((open.total, open.stay, open.depend), (total, stay, 0), "{what}: {open:?}");
    assert_eq!(moves, told, "{what}: who moves where");
}

struct Scene {
    sessile: Sessile,
    _backends: Vec<Backend>,
    clients: Vec<ListedClient>,
    old: edits::File,
    new: edits::File,
    texts: (String, String),
}

impl Scene {
    fn new(seed: u64) -> Self {
        let backends: Vec<_> = (0..SLOTS).map(|slot| Backend::named(&format!("s{slot}"))).collect();
        let mut rng = Rng(seed);
        let text = |file: &edits::File| file.text(|slot| backends[slot].address.to_string(), "");
        let ((old, before), (new, after)) = pair(&mut rng, Kind::Plain, text);
        let clients = edits::clients(&mut rng, CLIENTS, false);
        Self { sessile: Sessile::start(&before), _backends: backends, clients, old, new, texts: (before, after) }
    }

    /// Backend of each client, by pool.
    fn everybody(
        &self,
        file: &edits::File,
        open: &mut Vec<load_support::Client>,
        keep: bool,
    ) -> BTreeMap<String, Vec<Option<String>>> {
        let of_pool = |pool: &edits::Pool| {
            let front = self.sessile.address(&format!("l-{}", pool.name));
            let mut one =
                |(number, client): (usize, &ListedClient)| visit(client, front, pool, open, keep && number % OPEN == 0);
            (pool.name.clone(), self.clients.iter().enumerate().map(&mut one).collect())
        };
        file.pools.iter().map(of_pool).collect()
    }

    /// Writes a file beside that of the process.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.sessile.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path of words").to_owned()
    }
}

fn check_pool(
    what: &str,
    (apart, live): (&PoolPlan, &PoolPlan),
    scene: &Scene,
    before: &[Option<String>],
    after: &[Option<String>],
) {
    if let (Some(apart), Some(live)) = (&apart.listed, &live.listed) {
        check_each(&format!("{what}, by two files"), &apart.each, before, after);
        let moved = before.iter().zip(after).filter(|(before, after)| before != after).count();
        assert_eq!((apart.known, live.known), (moved, moved), "{what}: how many move");
        let told: Vec<_> = live.each.iter().map(|client| &client.to).collect();
        assert_eq!(told, after.iter().collect::<Vec<_>>(), "{what}, by the process: where everybody went");
    }
    let known = live.live.as_ref().expect("what the process knows");
    assert_eq!(known.known.total, known.known.stay + known.known.leave + known.known.depend, "{what}");
    let find =
        |file: &edits::File| file.pools.iter().find(|pool| pool.name == apart.pool).map(edits::Pool::keys_cross_pins);
    if find(&scene.old) == Some(false) && find(&scene.new) == Some(false) {
        check_open(&format!("{what}, open connections"), &known.open, before, after);
    }
}

#[test]
fn a_running_process_does_to_every_client_what_it_was_planned_to_do() {
    for seed in 1_000..1_000 + EDITS {
        let scene = Scene::new(seed);
        let mut open = Vec::new();
        let before = scene.everybody(&scene.old, &mut open, true);
        let list: String = scene.clients.iter().map(|client| format!("{}\n", client.source)).collect();
        let list = scene.write("clients", &list);
        let (old, new) = (scene.write("old.toml", &scene.texts.0), scene.write("new.toml", &scene.texts.1));
        let apart = plan(&["--clients", &list, &old, &new]);
        let socket = scene.sessile.admin();
        let live = plan(&["--clients", &list, "--live", "--socket", socket.to_str().expect("words"), &new]);
        assert_eq!(scene.sessile.status()["generation"], 1, "seed {seed}: a plan changes nothing");

        let verdict = scene.sessile.reload(&scene.texts.1);
        assert_eq!(verdict["accepted"], true, "seed {seed}: {verdict}");
        let after = scene.everybody(&scene.new, &mut open, false);
        for (apart, live) in apart.pools.iter().zip(&live.pools) {
            let what = format!("seed {seed}, pool {}", apart.pool);
            let before = &before[&apart.pool];
            match after.get(&apart.pool) {
                Some(after) => check_pool(&what, (apart, live), &scene, before, after),
                None => {
                    let all = live.live.as_ref().map(|live| (live.open.total, live.open.leave));
                    let count = before.iter().step_by(OPEN).flatten().count() as u64;
                    assert!(apart.removed && all == Some((count, count)), "{what}: {live:?}");
                }
            }
        }
    }
}
