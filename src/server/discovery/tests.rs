//! Random sequences of readings, commands, orders, reloads and restarts against a model, which knows names, times and
//! rules alone.

mod ordered;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::ordered::Ordered;
use super::*;
use crate::admission::Admission;
use crate::config::{Address, Backend};
use crate::discovery::found::{Found, FoundState};
use crate::placement::{Member, Placement};
use crate::pool::health::CheckState;
use crate::pool::{AdminState, Lease};
use crate::random::Random;
use crate::server::runtime_state::RuntimeState;
use crate::snapshot::Current;

mod late;

const DRAIN_DEADLINE_MS: i64 = 10_000;
const DRAIN_OVER_MS: i64 = 2_000;

/// What the configuration says.
#[derive(Debug, Clone)]
struct Written {
    backends: BTreeMap<String, Known>,
    vanish: &'static str,
    empty: &'static str,
    most: usize,
}

/// A backend as the model knows it.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    port: u16,
    weight: u16,
    /// Since when the source does not name it.
    absent_ms: Option<i64>,
    /// Since when an order has it leave.
    leaves_ms: Option<i64>,
}

impl Known {
    fn at(port: u16) -> Self {
        Self { port, weight: 1, absent_ms: None, leaves_ms: None }
    }
}

impl Written {
    fn random(random: &mut Random) -> Self {
        let mut backends = BTreeMap::new();
        for name in ["s1", "s2", "p1", "p2"].into_iter().filter(|_| random.one_in(3)).collect::<Vec<_>>() {
            let port = 1 + random.below(3) as u16;
            backends.insert(name.to_owned(), Known { weight: 1 + random.below(3) as u16, ..Known::at(port) });
        }
        let vanish = random.one_of(&["drain", "drain", "down", "remove"]);
        Self { backends, vanish, empty: random.one_of(&["keep", "apply"]), most: random.one_of(&[4, 8, 1_024]) }
    }

    fn text(&self) -> String {
        let Self { backends, vanish, empty, most } = self;
        let backends = backends.iter().map(|(name, Known { port, weight, .. })| {
            format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"10.0.0.1:{port}\"\nweight = {weight}\n")
        });
        format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:9\"\npool = \"web\"\n\
             [[pool]]\nname = \"web\"\nstick_table = \"0\"\ndrain_deadline = \"10s\"\n\
             drain_over = \"2s\"\ncheck = \"off\"\n{}[pool.discover]\nkind = \"file\"\npath = \"/nowhere\"\nvanish = \"{vanish}\"\nempty = \"{empty}\"\n\
             max_backends = {most}\n",
            backends.collect::<String>()
        )
    }

    fn config(&self) -> Config {
        let checked = config::check(&self.text(), &|_| Err(std::io::ErrorKind::NotFound.into()));
        checked.unwrap_or_else(|problems| panic!("{problems:?}")).config
    }
}

/// What is to be true of the pool.
struct Model {
    written: Written,
    found: BTreeMap<String, Known>,
    /// What orders have made of backends.
    orders: BTreeMap<String, Ordered>,
    /// Deadlines of drains by command.
    ordered: BTreeMap<String, i64>,
    /// Tells a backend from another one that has had its name, or from itself at another address.
    lives: BTreeMap<String, (u16, u64)>,
    /// The lives to which connections are open.
    open: Vec<(String, u64)>,
    next_life: u64,
}

impl Model {
    /// What file and source name.
    fn plain(&self) -> BTreeMap<String, Known> {
        self.written.backends.clone().into_iter().chain(self.found.clone()).collect()
    }

    /// What is in force.
    fn all(&self) -> BTreeMap<String, Known> {
        let mut all = self.plain();
        for (name, order) in &self.orders {
            match order.in_force(all.get(name)) {
                Some(known) => drop(all.insert(name.clone(), known)),
                None => drop(all.remove(name)),
            }
        }
        all
    }

    fn read(&mut self, reading: &Reading, now_ms: i64) {
        let named = match reading {
            Reading::Set { found, .. } => &found[..],
            Reading::Empty { .. } if self.written.empty == "apply" => &[],
            _ => return,
        };
        let collides = |name: &str| {
            let is_added = |order: &Ordered| order.added.is_some() && order.leaves.is_none();
            self.written.backends.contains_key(name) || self.orders.get(name).is_some_and(is_added)
        };
        let collides = named.iter().any(|found| collides(&found.name));
        let is_own = named.iter().any(|found| found.address.port() == 9);
        if collides || is_own || named.len() > self.written.most {
            return;
        }
        let before = std::mem::take(&mut self.found);
        for Found { name, address, weight, state, .. } in named {
            let weight = if *state == Some(FoundState::Drain) { 0 } else { weight.unwrap_or(1) as u16 };
            self.found.insert(name.to_string(), Known { weight, ..Known::at(address.port()) });
        }
        let mut gone: Vec<_> = before.into_iter().filter(|(name, _)| !self.found.contains_key(name)).collect();
        gone.iter_mut().for_each(|(_, known)| known.absent_ms = known.absent_ms.or(Some(now_ms)));
        // The latest first; of one time, the order of the names.
        gone.sort_by_key(|(_, known)| std::cmp::Reverse(known.absent_ms));
        let room = self.written.most - self.found.len();
        let stays = if self.written.vanish == "remove" { 0 } else { room };
        self.found.extend(gone.into_iter().take(stays));
        self.follow();
    }

    fn pass(&mut self, now_ms: i64) {
        let lives = &self.lives;
        let is_held = |name: &str| {
            let life = lives.get(name).map(|(_, life)| *life);
            self.open.iter().any(|(open, of)| open == name && Some(*of) == life)
        };
        let vanish = self.written.vanish;
        self.found.retain(|name, known| match (known.absent_ms, vanish) {
            (None, _) | (_, "down") => true,
            (_, "remove") => false,
            (Some(since_ms), _) => is_held(name) && now_ms < since_ms + DRAIN_DEADLINE_MS + DRAIN_OVER_MS,
        });
        for (name, order) in &mut self.orders {
            if let Some(leaves) = &mut order.leaves {
                let over =
                    |since_ms: &mut i64| !is_held(name) || now_ms >= *since_ms + DRAIN_DEADLINE_MS + DRAIN_OVER_MS;
                leaves.since_ms.take_if(over);
            }
        }
        self.follow();
    }

    fn reload(&mut self, written: Written) {
        self.found.retain(|name, _| !written.backends.contains_key(name));
        self.written = written;
        self.follow();
    }

    /// After every step: who lives, and which commands stand.
    fn settle(&mut self) {
        let all = self.all();
        self.lives.retain(|name, _| all.contains_key(name));
        for (name, Known { port, .. }) in &all {
            if self.lives.get(name).is_none_or(|(before, _)| before != port) {
                self.next_life += 1;
                self.lives.insert(name.clone(), (*port, self.next_life));
            }
        }
        self.ordered.retain(|name, _| all.contains_key(name));
    }

    fn digest(&self) -> u64 {
        let all = self.all();
        let members = all.iter().map(|(name, Known { weight, .. })| Member {
            name,
            weight: *weight,
            location: &[],
            backup: false,
        });
        Placement::new(config::Balance::Hash, 0, &members.collect::<Vec<_>>()).digest()
    }

    fn check(&self, snapshot: &Snapshot, now_ms: i64, what: &str) {
        let pool = &snapshot.pools[0];
        let all = self.all();
        let is: BTreeSet<_> = pool.backends().iter().map(|backend| backend.name().to_owned()).collect();
        assert_eq!(is, all.keys().cloned().collect::<BTreeSet<_>>(), "{what}");
        for (backend, config) in pool.backends().iter().zip(&pool.config().backends) {
            let (name, known) = (backend.name(), &all[backend.name()]);
            let Known { port, weight, absent_ms, leaves_ms } = known.clone();
            assert_eq!(
                (&*backend.address().to_string(), config.weight),
                (&*format!("10.0.0.1:{port}"), weight),
                "{what}"
            );
            let is_absent = absent_ms.is_some();
            let by_source = absent_ms.filter(|_| self.written.vanish != "down").or(leaves_ms);
            let by_source = by_source.map(|since_ms| since_ms + DRAIN_DEADLINE_MS);
            let deadline_ms = self.ordered.get(name).copied().or(by_source);
            let drains = (deadline_ms.is_some(), deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms));
            let now = u64::try_from(now_ms).unwrap();
            assert_eq!((backend.draining(), backend.drained(now)), drains, "{what}: {name} {known:?}");
            let is_down = is_absent && self.written.vanish == "down";
            assert_eq!(backend.standing() == CheckState::Down, is_down, "{what}: {name} {known:?}");
            assert_eq!(backend.has_left_source(), is_absent || leaves_ms.is_some(), "{what}: {name}");
        }
        assert_eq!(pool.digest(), self.digest(), "{what}");
    }
}

fn reading(random: &mut Random, is_named: bool) -> Reading {
    const VALID: Duration = Duration::ZERO;
    match random.below(12) {
        0 => Reading::Empty { valid_for: VALID },
        1 => Reading::Failed { why: "it does not answer".to_owned() },
        _ => {
            let mut found = Vec::new();
            for number in 1..=random.one_of(&[6, 6, 6, 12]) {
                // "p" may be a name of the file, which is refused as long as it is one.
                let name = if is_named && number <= 2 { format!("p{number}") } else { format!("q{number}") };
                if random.one_in(3) {
                    continue;
                }
                let port = if random.one_in(60) { 9 } else { 1 + random.below(3) as u16 };
                let address = if port == 9 { "127.0.0.1:9".to_owned() } else { format!("10.0.0.1:{port}") };
                found.push(Found {
                    weight: Some(random.below(4) as u32),
                    state: random.one_in(6).then_some(FoundState::Drain),
                    ..Found::new(name, address.parse().unwrap())
                });
            }
            // The order of an answer means nothing.
            random.shuffle(&mut found);
            match found.is_empty() {
                true => Reading::Empty { valid_for: VALID },
                false => Reading::Set { found, valid_for: VALID },
            }
        }
    }
}

/// The pool and its model.
struct World {
    model: Model,
    current: Current,
    leases: Vec<Lease>,
    now_ms: i64,
}

impl World {
    fn new(random: &mut Random) -> Self {
        Self::of(Written::random(random))
    }

    fn of(written: Written) -> Self {
        let admission = Arc::new(Admission::new(9));
        let snapshot = Snapshot::build(written.config(), LoadedFiles::default(), None, 1, &admission);
        let mut model = Model {
            written,
            found: BTreeMap::new(),
            orders: BTreeMap::new(),
            ordered: BTreeMap::new(),
            lives: BTreeMap::new(),
            open: Vec::new(),
            next_life: 0,
        };
        model.settle();
        Self { model, current: Current::new(snapshot), leases: Vec::new(), now_ms: 1_000 }
    }

    fn put_in_force(&self, config: Config) {
        let before = self.current.load_full();
        let (loaded, admission) = (LoadedFiles::of(&before), Arc::new(Admission::new(9)));
        self.current.swap(Arc::new(Snapshot::build(config, loaded, Some(&before), 1, &admission)));
    }

    /// As the process does with each reading, and `None` as it does at intervals.
    fn look(&mut self, reading: Option<&Reading>) {
        let before = self.current.load_full();
        let pool = before.pools[0].config();
        let rules = pool.discover.as_ref().unwrap();
        let own = own_addresses(&before.config, &[]);
        let is_own = |address| reaches(&own, address);
        let next = match reading.map(|reading| reconcile(pool, rules, reading, &is_own, self.now_ms)) {
            Some(Ok(found)) => Some(pool.with_found(found)),
            Some(Err(_)) => None,
            None => Some(pool.clone()),
        };
        let is_taken = next.is_some();
        if let Some(config) = next.and_then(|next| with_pool(&before, &next, self.now_ms)) {
            self.put_in_force(config);
        }
        reading.into_iter().for_each(|reading| self.model.read(reading, self.now_ms));
        if is_taken {
            self.model.pass(self.now_ms);
        }
    }

    fn order(&mut self, random: &mut Random) {
        let names: Vec<_> = self.model.all().into_keys().collect();
        if names.is_empty() {
            return;
        }
        let name = &names[random.below(names.len())];
        let order = random.one_of(&[AdminState::Drain, AdminState::Ready, AdminState::Close, AdminState::Ready]);
        assert!(self.current.load().pools[0].order(name, order, u64::try_from(self.now_ms).unwrap()));
        match order {
            AdminState::Drain => drop(self.model.ordered.insert(name.clone(), self.now_ms + DRAIN_DEADLINE_MS)),
            AdminState::Close => drop(self.model.ordered.insert(name.clone(), self.now_ms)),
            AdminState::Ready => drop(self.model.ordered.remove(name)),
        }
    }

    /// A connection begins, or one ends.
    fn connect(&mut self, random: &mut Random) {
        let snapshot = self.current.load_full();
        let backends = snapshot.pools[0].backends();
        if self.leases.is_empty() || random.one_in(2) {
            if let Some(backend) = backends.get(random.below(backends.len().max(1))) {
                self.leases.push(Lease::new(backend));
                self.model.open.push((backend.name().to_owned(), self.model.lives[backend.name()].1));
            }
        } else {
            let index = random.below(self.leases.len());
            drop(self.leases.swap_remove(index));
            self.model.open.swap_remove(index);
        }
    }

    fn reload(&mut self, random: &mut Random) {
        let written = Written::random(random);
        let mut config = written.config();
        let problems = fill(&mut config, Before::InForce(&self.current.load()));
        assert!(problems.is_empty());
        self.put_in_force(config);
        self.model.reload(written);
    }
}

#[test]
fn a_thousand_sequences_of_readings_orders_reloads_and_restarts_come_to_what_the_model_says() {
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let mut world = World::new(&mut random);
        let is_named = random.one_in(3);
        for step in 0..30 {
            match random.below(14) {
                0..4 => {
                    let reading = reading(&mut random, is_named);
                    world.look(Some(&reading));
                }
                4 => world.look(None),
                5 | 6 => world.order(&mut random),
                7 => world.connect(&mut random),
                8 => world.reload(&mut random),
                9..12 => world.change(&mut random),
                12 if random.one_in(3) => world.restart(),
                _ => world.now_ms += random.one_of(&[0, 500, 2_000, 5_000, 20_000]),
            }
            world.model.settle();
            world.model.check(&world.current.load(), world.now_ms, &format!("seed {seed}, step {step}"));
        }
    }
}

/// A backend with everything that a file may say of it.
fn limited(found: Found) -> Found {
    Found { max_connections: Some(7), backup: true, ..found }
}

#[test]
fn what_is_in_the_state_file_is_what_was_found_and_absences_keep_their_times() {
    let mut random = Random::new(7);
    let mut world = World::new(&mut random);
    world.put_in_force(Written { backends: BTreeMap::new(), vanish: "drain", empty: "keep", most: 9 }.config());
    let set = |names: &[&str]| Reading::Set {
        found: names.iter().map(|name| limited(Found::new(*name, "10.0.0.1:1".parse().unwrap()))).collect(),
        valid_for: Duration::ZERO,
    };
    world.look(Some(&set(&["a", "b"])));
    world.leases.push(Lease::new(&world.current.load().pools[0].backends()[0]));
    world.look(Some(&set(&["b"])));
    let snapshot = world.current.load_full();
    let found: Vec<Backend> = snapshot.pools[0].config().found().cloned().collect();
    assert_eq!(found[0].absence().map(|absence| absence.deadline_ms), Some(1_000 + DRAIN_DEADLINE_MS));
    let unix_ms = 1_800_000_000_000;
    let kept = RuntimeState::of(&snapshot, 1_000, unix_ms).for_file().to_json();
    let next = RuntimeState::from_json(&kept).unwrap();
    // The clock of the next process begins elsewhere, and three seconds have passed.
    let again = next.found("web", 50_000, unix_ms + 3_000);
    let absence = again[0].absence().unwrap();
    assert_eq!((absence.since_ms, absence.deadline_ms), (47_000, 47_000 + DRAIN_DEADLINE_MS));
    assert_eq!((&again[1], &found[1].address), (&found[1], &Address::Tcp("10.0.0.1:1".parse().unwrap())));
    assert_eq!((again[1].max_connections, again[1].backup), (Some(7), true));
    for (damage, left) in [("10.0.0.1:1", 0), ("\"name\": \"a\"", 1), ("\"weight\": 1", 2)] {
        let damaged = kept.replace(damage, if damage == "10.0.0.1:1" { "0.0.0.0:0" } else { "\"x\": 0" });
        let state = RuntimeState::from_json(&damaged).unwrap();
        assert_eq!(state.found("web", 50_000, unix_ms).len(), left, "{damage}");
    }
}
