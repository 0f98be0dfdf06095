//! An instance that begins when others have long been running: after its first reading it has their set.
//!
//! What others still keep beside the set, because it was named before, is theirs alone: backends that drain until their
//! deadline, and with `vanish = "down"` those that are down.

use super::*;

/// The backends that the source names or the configuration has: name, address and weight.
fn named(snapshot: &Snapshot) -> Vec<(String, String, u16)> {
    let backends = snapshot.pools[0].config().backends.iter();
    let named = backends.filter(|backend| backend.absence().is_none());
    named.map(|backend| (backend.name.clone(), backend.address.to_string(), backend.weight)).collect()
}

/// A world to which everything has happened that can.
fn old(random: &mut Random) -> World {
    let mut world = World::new(random);
    for _ in 0..30 {
        match random.below(10) {
            0..4 => {
                let reading = reading(random, true);
                world.look(Some(&reading));
            }
            4 => world.look(None),
            5 | 6 => world.order(random),
            7 => world.connect(random),
            8 => world.reload(random),
            _ => world.now_ms += random.one_of(&[0, 500, 2_000, 5_000, 20_000]),
        }
        world.model.settle();
    }
    world
}

#[test]
fn an_instance_that_begins_late_has_the_set_and_the_digest_of_the_others_after_one_reading() {
    let (mut alike, mut had_absent) = (0, 0);
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let mut early = old(&mut random);
        let mut late = World::of(early.model.written.clone());
        late.now_ms = 500_000;
        let reading = reading(&mut random, true);
        late.look(Some(&reading));
        let is_taken = matches!(&reading, Reading::Set { .. }) && !named(&late.current.load()).is_empty();
        early.look(Some(&reading));
        let what = format!("seed {seed}: {reading:?}");
        if !is_taken || late.current.load().generation == 1 {
            // A reading that is refused says nothing of the set.
            continue;
        }
        assert_eq!(named(&early.current.load()), named(&late.current.load()), "{what}");
        had_absent += usize::from(early.model.found.values().any(|known| known.absent_ms.is_some()));
        // Connections end, and time passes.
        early.leases.clear();
        early.model.open.clear();
        early.now_ms += DRAIN_DEADLINE_MS + DRAIN_OVER_MS;
        early.look(None);
        let (early, late) = (early.current.load_full(), late.current.load_full());
        assert_eq!(named(&early), named(&late), "{what}");
        let rules = early.pools[0].config().discover.clone().unwrap();
        if rules.vanish != Vanish::Down {
            assert_eq!(early.pools[0].config().backends, late.pools[0].config().backends, "{what}");
        }
        if early.pools[0].config().backends == late.pools[0].config().backends {
            assert_eq!(early.digest, late.digest, "{what}");
            alike += 1;
        }
    }
    assert!(alike > 250 && had_absent > 50, "{alike} sets alike, {had_absent} of them with absent backends before");
}
