//! Pools that go on in the next snapshot, and those that do not.

use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::admission::Admission;
use crate::config::{Address, Backend, BackendOrigin};
use crate::pool::{AdminState, Lease};
use crate::snapshot::{Current, LoadedFiles};
use crate::sticky::cookie::KeyRing;
use crate::sticky::table::EntryKind;

const LISTENER: &str = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"a\"\n";

/// The value of a cookie.
const SESSION: &[u8] = b"0123456789abcdef";

/// A pool with two backends.
fn pool(name: &str, options: &str) -> String {
    format!(
        "[[pool]]\nname = \"{name}\"\n{options}\nbackend = [{{ name = \"x\", address = \"127.0.0.1:2\" }}, \
         {{ name = \"y\", address = \"127.0.0.1:3\" }}]\n"
    )
}

/// Snapshots in force, one after the other.
struct World(Current);

impl World {
    fn new(text: &str) -> Self {
        Self(Current::new(Snapshot::of_text(text)))
    }

    fn pool(&self, name: &str) -> Arc<Pool> {
        Arc::clone(self.0.load().pool(name).unwrap())
    }

    /// Puts the configuration in force with a change, and other files if `loaded` has some.
    fn change(&self, loaded: Option<LoadedFiles>, change: impl FnOnce(&mut Config)) {
        let before = self.0.load_full();
        let mut config = (*before.config).clone();
        change(&mut config);
        let loaded = loaded.unwrap_or_else(|| LoadedFiles::of(&before));
        self.0.swap(Arc::new(Snapshot::build(config, loaded, Some(&before), 1, &Arc::new(Admission::new(9)))));
    }

    /// True if the pool of this name is the same one after a change.
    fn goes_on(&self, name: &str, loaded: Option<LoadedFiles>, change: impl FnOnce(&mut Config)) -> bool {
        let before = self.pool(name);
        self.change(loaded, change);
        self.0.load().pool(name).is_some_and(|now| Arc::ptr_eq(now, &before))
    }
}

/// One more backend in the pool of this name.
fn grow(config: &mut Config, name: &str) {
    let pool = config.pools.iter_mut().find(|pool| pool.name == name).unwrap();
    let found = Backend {
        name: format!("n{}", pool.backends.len()),
        address: Address::Tcp("127.0.0.1:9".parse().unwrap()),
        origin: BackendOrigin::Found { absence: None },
        ..pool.backends[0].clone()
    };
    pool.backends.push(found);
}

#[test]
fn a_pool_goes_on_with_all_that_it_knows_when_another_one_gets_a_backend() {
    let world = World::new(&format!("{LISTENER}{}{}", pool("a", "balance = \"least_connections\""), pool("b", "")));
    let (a, b) = (world.pool("a"), world.pool("b"));
    let _lease = Lease::new(&a.backends()[0]);
    b.table().unwrap().learn_as(EntryKind::Learned, SESSION, &b.backends()[1], 0);
    assert!(a.order("y", AdminState::Drain, 1_000));
    let digest = world.0.load().digest;

    assert!(world.goes_on("a", None, |config| grow(config, "b")));
    let (a, b) = (world.pool("a"), world.pool("b"));
    assert_ne!(world.0.load().digest, digest, "the digest is of all pools");
    assert_eq!((a.leases(), a.backends()[1].draining(), b.backends().len()), (1, true, 3));
    assert_eq!(
        b.table().unwrap().lookup_value(SESSION, 0).index(),
        Some(1),
        "the pool with the change has its entries"
    );
    let of_listener = world.0.load().listeners[0].pools.to_vec();
    assert!(of_listener.iter().zip([&a, &b]).all(|(held, pool)| Arc::ptr_eq(held, pool)), "as the listener has them");

    // The other way round: what has changed before goes on, too.
    assert!(world.goes_on("b", None, |config| grow(config, "a")));
    assert_eq!(world.pool("a").backends().len(), 3);
    assert!(world.pool("a").backends()[1].draining(), "a drain by command stands");
    assert!(world.goes_on("a", None, |_| {}) && world.goes_on("b", None, |_| {}));
}

#[test]
fn an_order_during_the_build_of_a_snapshot_is_one_of_a_backend_that_moves_by_it() {
    for (before, during) in [(AdminState::Ready, AdminState::Drain), (AdminState::Drain, AdminState::Ready)] {
        let world = World::new(&format!("{LISTENER}{}", pool("a", "")));
        let order = |order, now_ms| world.0.order(|snapshot| snapshot.pool("a").unwrap().order("y", order, now_ms));
        assert!(order(before, 1_000));
        let in_force = world.0.load_full();
        let mut config = (*in_force.config).clone();
        config.pools[0].backends[1].address = Address::Tcp("127.0.0.1:9".parse().unwrap());
        let loaded = LoadedFiles::of(&in_force);
        let next = Snapshot::build(config, loaded, Some(&in_force), 1, &Arc::new(Admission::new(9)));
        assert!(order(during, 2_000));
        let times = in_force.pools[0].backends()[1].drain_times();
        world.0.swap(Arc::new(next));
        let moved = Arc::clone(&world.pool("a").backends()[1]);
        assert!(!Arc::ptr_eq(&moved, &in_force.pools[0].backends()[1]));
        assert_eq!(moved.drain_times(), times);
        assert_eq!(moved.draining(), during == AdminState::Drain);
    }
}

#[test]
fn a_pool_is_built_anew_where_it_would_be_another_one() {
    let text = format!("{LISTENER}{}{}", pool("a", ""), pool("b", ""));
    let of = |name: &'static str, config: &mut Config, change: fn(&mut config::Pool)| {
        change(config.pools.iter_mut().find(|pool| pool.name == name).unwrap());
    };
    let anew = |change: fn(&mut config::Pool)| !World::new(&text).goes_on("a", None, |config| of("a", config, change));
    assert!(anew(|pool| pool.backends[0].weight = 7));
    assert!(anew(|pool| pool.backends[0].address = Address::Tcp("127.0.0.1:8".parse().unwrap())));
    assert!(anew(|pool| pool.hash_seed = 3));
    assert!(anew(|pool| pool.stick_table = None));
    let world = World::new(&text);
    assert!(!world.goes_on("a", None, |config| config.pools[1].name = "c".to_owned()), "a cookie may name pool b");
    assert!(world.0.load().pool("b").is_none());
    let group = format!("{LISTENER}{}{}", pool("a", "stick_group = \"g\""), pool("b", "stick_group = \"g\""));
    assert!(!World::new(&group).goes_on("a", None, |_| {}), "its table may be that of the other one");

    let ring = || {
        let ring = KeyRing::parse(&"0123456789abcdef5a69788796a5b4c3".repeat(2)).unwrap();
        let mut rings = Rings::default();
        rings.add(PathBuf::from("/keys"), Arc::new(ring), None);
        LoadedFiles { rings, ..LoadedFiles::default() }
    };
    let world = World::new(&text);
    assert!(!world.goes_on("a", Some(ring()), |_| {}), "other keys");
    assert!(world.goes_on("a", None, |_| {}), "the same keys");
    assert!(!world.goes_on("a", Some(ring()), |_| {}), "keys that were read again");
    let secret = Some(Secret::new([5; 16]));
    assert!(!world.goes_on("a", Some(LoadedFiles { secret, ..LoadedFiles::of(&world.0.load()) }), |_| {}));
}

#[test]
#[ignore = "a stopwatch, not a test"]
fn what_one_more_backend_costs_among_a_thousand_pools() {
    let backends = |count| {
        let one = |n| format!("{{ name = \"web-{n}\", address = \"10.0.0.{n}:8080\" }}");
        (1..=count).map(one).collect::<Vec<_>>().join(", ")
    };
    for balance in ["hash", "maglev", "least_connections"] {
        let pool = |n| {
            let ten = backends(10);
            format!("[[pool]]\nname = \"p{n}\"\nbalance = \"{balance}\"\nstick_table = \"64 KiB\"\nbackend = [{ten}]\n")
        };
        let pools: String = (0..1_000).map(pool).collect();
        let world = World::new(&(LISTENER.replace("\"a\"", "\"p0\"") + &pools));
        let mut times: Vec<_> = (0..21)
            .map(|turn| {
                let began = Instant::now();
                world.change(None, |config| grow(config, &format!("p{turn}")));
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("{balance}: median {:?}, longest {:?}", times[10], times[20]);
    }
}
