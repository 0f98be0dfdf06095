//! Placement as its callers use it: evenness, movement, levels, order. Numbers and tables are tested in their files.

mod golden;

use proptest::prelude::*;

use super::*;

const RING: Balance = Balance::Ring { points: 160 };
const MAGLEV: Balance = Balance::Maglev { table_size: 65537 };
const KEYED: [Balance; 3] = [Balance::Hash, RING, MAGLEV];

/// A member that owns its strings.
#[derive(Debug, Clone)]
struct Owned {
    name: String,
    weight: u16,
    location: Vec<String>,
    backup: bool,
}

impl Owned {
    fn member(&self) -> Member<'_> {
        Member { name: &self.name, weight: self.weight, location: &self.location, backup: self.backup }
    }
}

/// Parses `"dc1/h1/name"` and adds a weight.
fn owned(path: &str, weight: u16) -> Owned {
    let mut location: Vec<String> = path.split('/').map(str::to_owned).collect();
    let name = location.pop().unwrap();
    Owned { name, weight, location, backup: false }
}

fn equal(count: usize) -> Vec<Owned> {
    (0..count).map(|n| owned(&format!("backend-{n}"), 1)).collect()
}

fn build(balance: Balance, seed: u64, pool: &[Owned]) -> Placement {
    let members: Vec<Member<'_>> = pool.iter().map(Owned::member).collect();
    Placement::new(balance, seed, &members)
}

/// Names of the members that keys 0..count go to, with all members usable but `down`.
fn homes<'a>(balance: Balance, pool: &'a [Owned], count: u64, down: &[&str]) -> Vec<&'a str> {
    let placement = build(balance, 7, pool);
    let usable = |index: usize| !down.contains(&pool[index].name.as_str());
    let home = |key: u64| {
        let draw = placement.key_hash(&key.to_be_bytes());
        pool[placement.place(draw, usable, |_| 0).unwrap()].name.as_str()
    };
    (0..count).map(home).collect()
}

fn count(homes: &[&str], name: &str) -> usize {
    homes.iter().filter(|home| **home == name).count()
}

/// Largest share divided by the mean, for keys over members of equal weight.
fn largest_over_mean(balance: Balance, members: usize, keys: u64) -> f64 {
    let pool = equal(members);
    let homes = homes(balance, &pool, keys, &[]);
    let largest = pool.iter().map(|m| count(&homes, &m.name)).max().unwrap();
    largest as f64 * members as f64 / keys as f64
}

/// Five standard deviations of a share of `keys` drawn independently, relative to the share.
fn binomial_slack(members: usize, keys: u64) -> f64 {
    5.0 * (members as f64 / keys as f64).sqrt()
}

const KEYS: u64 = 100_000;

#[test]
fn rendezvous_maglev_and_random_spread_as_independent_draws_do() {
    for members in [3, 10, 100] {
        for balance in [Balance::Hash, MAGLEV, Balance::Random] {
            let found = largest_over_mean(balance, members, KEYS);
            assert!(found < 1.0 + binomial_slack(members, KEYS) + 0.002, "{balance:?} over {members}: {found}");
        }
    }
}

#[test]
fn a_ring_spreads_as_the_root_of_its_points() {
    for members in [3, 10, 100] {
        let found = largest_over_mean(RING, members, KEYS);
        // A share of a ring deviates by about 1/sqrt(points); the largest of 100 by three to four times that.
        let bound = 1.0 + 4.0 / 160_f64.sqrt() + binomial_slack(members, KEYS);
        assert!(found < bound, "ring over {members}: {found}");
    }
}

#[test]
fn turns_are_shared_exactly_and_loads_level_out() {
    for members in [3, 10, 100_usize] {
        let pool = equal(members);
        let placement = build(Balance::RoundRobin, 0, &pool);
        let mut shares = vec![0; members];
        (0..10 * members as u64).for_each(|ticket| shares[placement.place(ticket, |_| true, |_| 0).unwrap()] += 1);
        assert!(shares.iter().all(|share| *share == 10), "{shares:?}");

        for (balance, spread) in [(Balance::LeastConnections, 0), (Balance::TwoChoices, 6)] {
            let placement = build(balance, 0, &pool);
            let mut leases = vec![0_u64; members];
            for draw in 0..50 * members as u64 {
                let draw = placement.key_hash(&draw.to_be_bytes());
                let chosen = placement.place(draw, |_| true, |index| leases[index]).unwrap();
                leases[chosen] += 1;
            }
            let (least, most) = (leases.iter().min().unwrap(), leases.iter().max().unwrap());
            assert!(*most <= 50 + spread && *least + 2 * spread >= 50, "{balance:?}: {least} to {most}");
        }
    }
}

#[test]
fn shares_follow_weights() {
    let pool = [owned("a", 256), owned("b", 128), owned("c", 64), owned("d", 1), owned("e", 0)];
    let ring = Balance::Ring { points: 160 };
    for (balance, slack) in [(Balance::Hash, 0.0), (ring, 0.02), (MAGLEV, 0.001), (Balance::Random, 0.0)] {
        let homes = homes(balance, &pool, KEYS, &[]);
        for member in &pool {
            let wanted = f64::from(member.weight) / 449.0;
            let found = count(&homes, &member.name) as f64 / KEYS as f64;
            let slack = slack + 5.0 * (wanted / KEYS as f64).sqrt();
            assert!((found - wanted).abs() <= slack, "{balance:?}: {} has {found}, not {wanted}", member.name);
        }
    }
}

/// Keys with another home, as (from, to).
fn moves<'a>(balance: Balance, old: &'a [Owned], new: &'a [Owned]) -> Vec<(&'a str, &'a str)> {
    let pairs = homes(balance, old, 50_000, &[]).into_iter().zip(homes(balance, new, 50_000, &[]));
    pairs.filter(|(from, to)| from != to).collect()
}

#[test]
fn adding_moves_keys_to_the_new_member_only_and_removing_from_the_old_only() {
    for members in [3, 10, 100] {
        let (small, large) = (equal(members), equal(members + 1));
        let new = &large[members].name;
        for balance in [Balance::Hash, RING] {
            let added = moves(balance, &small, &large);
            assert!(added.iter().all(|(_, to)| to == new), "{balance:?}: a key moved between old members");
            let fraction = added.len() as f64 / 50_000.0 * (members + 1) as f64;
            assert!((0.6..1.4).contains(&fraction), "{balance:?}: {fraction} of a share moved");
            assert!(moves(balance, &large, &small).iter().all(|(from, _)| from == new));
        }
    }
}

#[test]
fn a_weight_moves_keys_to_or_from_its_member_only() {
    for balance in [Balance::Hash, RING] {
        let light: Vec<Owned> = (1..=6).map(|n| owned(&format!("b{n}"), n)).collect();
        let mut heavy = light.clone();
        heavy[2].weight = 9;
        let up = moves(balance, &light, &heavy);
        assert!(!up.is_empty() && up.iter().all(|(_, to)| *to == "b3"), "{balance:?} up");
        let down = moves(balance, &heavy, &light);
        assert!(!down.is_empty() && down.iter().all(|(from, _)| *from == "b3"), "{balance:?} down");
    }
}

#[test]
fn maglev_moves_little_more_than_it_must() {
    for members in [3, 10, 100] {
        let (small, large) = (equal(members), equal(members + 1));
        let new = &large[members].name;
        let needless = |moves: &[(&str, &str)]| {
            moves.iter().filter(|(from, to)| from != new && to != new).count() as f64 / 50_000.0
        };
        let (added, removed) = (needless(&moves(MAGLEV, &small, &large)), needless(&moves(MAGLEV, &large, &small)));
        println!("maglev, {members} members: {added} moved needlessly by an addition, {removed} by a removal");
        assert!(added < 0.02 && removed < 0.02, "{members}: {added}, {removed}");
    }
}

#[test]
fn a_member_that_is_down_moves_no_key_of_others() {
    for balance in KEYED {
        let pool = equal(10);
        let (up, down) = (homes(balance, &pool, KEYS, &[]), homes(balance, &pool, KEYS, &["backend-4"]));
        assert!(up.iter().zip(&down).all(|(up, down)| if *up == "backend-4" { down != up } else { down == up }));
        // The keys of the member that went down must spread. On a ring they are 160 stretches of uneven length, about
        // 18 for each of nine: a relative deviation of sqrt(2 / 18) = 1/3, of which three are allowed.
        let taken = |name: &str| count(&down, name) - count(&up, name);
        let most = pool.iter().filter(|m| m.name != "backend-4").map(|m| taken(&m.name)).max().unwrap();
        let share = count(&up, "backend-4") as f64 / 9.0;
        let bound = if balance == RING { 2.0 } else { 1.0 + 5.0 / share.sqrt() };
        assert!((most as f64) < bound * share, "{balance:?}: {most} of {share}");
    }
}

/// Two data centres, three hosts each, two or three processes each.
fn fleet() -> Vec<Owned> {
    let hosts = [("dc1/h1", 2), ("dc1/h2", 2), ("dc1/h3", 3), ("dc2/h1", 2), ("dc2/h2", 2), ("dc2/h3", 3)];
    let process = |(host, count): (&'static str, u32)| {
        (0..count).map(move |n| owned(&format!("{host}/{}-{n}", host.replace('/', "-")), 1))
    };
    hosts.into_iter().flat_map(process).collect()
}

fn host(name: &str) -> &str {
    name.rsplit_once('-').unwrap().0
}

#[test]
fn levels_share_as_their_members_weigh() {
    let fleet = fleet();
    for (balance, slack) in [(Balance::Hash, 0.0), (RING, 0.25), (MAGLEV, 0.001), (Balance::Random, 0.0)] {
        let homes = homes(balance, &fleet, KEYS, &[]);
        for member in &fleet {
            let found = count(&homes, &member.name) as f64 * fleet.len() as f64 / KEYS as f64;
            let slack = slack + binomial_slack(fleet.len(), KEYS);
            assert!((found - 1.0).abs() < slack, "{balance:?}: {} has {found} of its share", member.name);
        }
    }
}

#[test]
fn a_dead_process_hands_its_keys_to_its_siblings() {
    let fleet = fleet();
    for balance in KEYED.into_iter().chain([Balance::Random]) {
        let (up, down) = (homes(balance, &fleet, KEYS, &[]), homes(balance, &fleet, KEYS, &["dc1-h3-1"]));
        let mut orphans = 0;
        for (up, down) in up.iter().zip(&down) {
            if *up == "dc1-h3-1" {
                orphans += 1;
                assert!(down != up && host(down) == host(up), "{balance:?}: {up} to {down}");
            } else if balance != Balance::Random {
                assert_eq!(up, down, "{balance:?}");
            } else {
                assert_eq!(host(up), host(down), "{balance:?}");
            }
        }
        assert!(orphans > 0);
    }
}

#[test]
fn a_dead_host_spreads_over_its_data_centre() {
    let fleet = fleet();
    let dead: Vec<&str> = fleet.iter().map(|m| m.name.as_str()).filter(|name| host(name) == "dc2-h1").collect();
    for (balance, slack) in [(Balance::Hash, 0.06), (RING, 0.5), (MAGLEV, 0.06)] {
        let (up, down) = (homes(balance, &fleet, KEYS, &[]), homes(balance, &fleet, KEYS, &dead));
        let orphans: Vec<&str> =
            up.iter().zip(&down).filter(|(up, _)| host(up) == "dc2-h1").map(|(_, to)| *to).collect();
        assert!(up.iter().zip(&down).all(|(up, down)| host(up) == "dc2-h1" || up == down), "{balance:?}");
        for survivor in fleet.iter().filter(|m| m.name.starts_with("dc2") && host(&m.name) != "dc2-h1") {
            let found = count(&orphans, &survivor.name) as f64 * 5.0 / orphans.len() as f64;
            assert!((found - 1.0).abs() < slack, "{balance:?}: {} took {found} of its share", survivor.name);
        }
    }
}

#[test]
fn turns_stay_even_on_every_level() {
    let fleet = fleet();
    let placement = build(Balance::RoundRobin, 0, &fleet);
    let mut shares = vec![0; fleet.len()];
    (0..fleet.len() as u64 * 12).for_each(|ticket| shares[placement.place(ticket, |_| true, |_| 0).unwrap()] += 1);
    assert!(shares.iter().all(|share| *share == 12), "{shares:?}");
}

#[test]
fn one_name_on_two_levels_does_not_tie_their_draws() {
    // With one draw on both levels, a key that chose group `a` would choose `a` again inside it.
    let pool = [owned("a/a/x", 1), owned("a/b/y", 1), owned("b/a/z", 1), owned("b/b/w", 1)];
    for balance in KEYED {
        let homes = homes(balance, &pool, KEYS, &[]);
        for member in &pool {
            let found = count(&homes, &member.name) as f64 * 4.0 / KEYS as f64;
            assert!((0.65..1.35).contains(&found), "{balance:?}: {} has {found} of its share", member.name);
        }
    }
}

#[test]
fn nobody_is_placed_where_nobody_may_be() {
    let mut pool = vec![owned("none", 0), owned("h/none-either", 0)];
    let all =
        KEYED.into_iter().chain([Balance::RoundRobin, Balance::LeastConnections, Balance::TwoChoices, Balance::Random]);
    for balance in all.clone() {
        assert_eq!(build(balance, 0, &[]).place(5, |_| true, |_| 0), None);
        assert_eq!(build(balance, 0, &pool).place(5, |_| true, |_| 0), None);
    }
    pool.push(Owned { backup: true, ..owned("spare", 1) });
    pool.push(owned("h/one", 1));
    for balance in all {
        let placement = build(balance, 0, &pool);
        assert_eq!(placement.place(5, |_| true, |_| 0), Some(3), "{balance:?}");
        assert_eq!(placement.place(5, |index| index != 3, |_| 0), Some(2), "{balance:?}");
        assert_eq!(placement.place(5, |index| index < 2, |_| 0), None, "{balance:?}");
    }
}

#[test]
fn the_digest_feels_all_that_places_and_nothing_else() {
    let pool = [owned("dc/a", 1), owned("dc/b", 2)];
    let base = build(Balance::Hash, 1, &pool).digest();
    assert_eq!(base, build(Balance::Hash, 1, &[pool[1].clone(), pool[0].clone()]).digest());
    let changed = |change: fn(&mut Owned)| {
        let mut pool = pool.clone();
        change(&mut pool[1]);
        build(Balance::Hash, 1, &pool).digest()
    };
    let others = [
        build(Balance::Random, 1, &pool).digest(),
        build(Balance::Ring { points: 160 }, 1, &pool).digest(),
        build(Balance::Ring { points: 161 }, 1, &pool).digest(),
        build(Balance::Hash, 2, &pool).digest(),
        build(Balance::Hash, 1, &pool[..1]).digest(),
        changed(|m| m.name = "c".into()),
        changed(|m| m.weight = 3),
        changed(|m| m.location = vec![]),
        changed(|m| m.location = vec!["d".into(), "c".into()]),
        changed(|m| m.backup = true),
    ];
    let distinct: std::collections::BTreeSet<u64> = others.into_iter().chain([base]).collect();
    assert_eq!(distinct.len(), others.len() + 1);
}

#[test]
fn scores_are_words_for_people() {
    let pool = [owned("dc1/a", 1), owned("dc1/b", 2), owned("c", 3)];
    let score = |balance| build(balance, 0, &pool).order(1 << 60, |_| true, |_| 4, None)[0].score.clone();
    let named = |score: String| score.starts_with("dc1=") || !score.contains(' ');
    for balance in KEYED {
        assert!(named(score(balance)), "{balance:?}: {}", score(balance));
    }
    assert!(score(Balance::LeastConnections).starts_with("leases:4,weight:"));
    let order = build(Balance::LeastConnections, 0, &pool).order(0, |_| true, |_| 4, Some(&|_| 9));
    assert!(order[0].score.starts_with("leases:4,weight:") && order[0].score.ends_with(",known:9"), "{order:?}");
}

fn any_balance() -> impl Strategy<Value = Balance> {
    prop_oneof![
        Just(Balance::Hash),
        (1..20_u32).prop_map(|points| Balance::Ring { points }),
        prop_oneof![Just(7), Just(251)].prop_map(|table_size| Balance::Maglev { table_size }),
        Just(Balance::RoundRobin),
        Just(Balance::LeastConnections),
        Just(Balance::TwoChoices),
        Just(Balance::Random),
    ]
}

/// Members with names equal to level names, all weights, up to three levels.
fn any_pool() -> impl Strategy<Value = Vec<Owned>> {
    let level = prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("m3".to_owned())];
    let weight = prop_oneof![Just(0), Just(1), 1..5_u16, 0..=256_u16];
    let member = (weight, prop::collection::vec(level, 0..3), prop::bool::weighted(0.2));
    prop::collection::vec(member, 0..9).prop_map(|members| {
        let name = |(n, (weight, location, backup))| Owned { name: format!("m{n}"), weight, location, backup };
        members.into_iter().enumerate().map(name).collect()
    })
}

proptest! {
    #[test]
    fn the_order_is_repeated_placing(
        balance in any_balance(), pool in any_pool(), seed: u64, draw: u64, down: u16, leases: [u8; 9],
        keys in prop::option::of(any::<[u8; 9]>()),
    ) {
        let placement = build(balance, seed, &pool);
        let usable = |index: usize| (down >> index) & 1 == 0;
        let leases = |index: usize| u64::from(leases[index] % 3);
        let known = keys.map(|keys| move |index: usize| u64::from(keys[index]));
        let known = known.as_ref().map(|known| known as &dyn Fn(usize) -> u64);
        let order: Vec<usize> = placement.order(draw, usable, leases, known).iter().map(|c| c.index).collect();
        let mut repeated = Vec::new();
        let place = |taken: &[usize]| {
            placement.place_evenly(draw, |index| usable(index) && !taken.contains(&index), leases, known)
        };
        while let Some(index) = place(&repeated) {
            repeated.push(index);
        }
        prop_assert_eq!(&order, &repeated);
        let placeable = |index: &usize| pool[*index].weight > 0 && usable(*index);
        prop_assert_eq!(order.len(), (0..pool.len()).filter(placeable).count());
        prop_assert!(order.is_sorted_by_key(|index| pool[*index].backup));
    }

    #[test]
    fn a_lineup_chooses_as_a_look_at_every_member_does(
        balance in any_balance(), pool in any_pool(), seed: u64, draws in prop::collection::vec(any::<u64>(), 1..6),
        steps in prop::collection::vec((0..9_usize, prop::option::weighted(0.7, 0..4_u64)), 0..30),
        keys in prop::option::of(any::<[u8; 9]>()),
    ) {
        let known = keys.map(|keys| move |index: usize| u64::from(keys[index]));
        let known = known.as_ref().map(|known| known as &dyn Fn(usize) -> u64);
        let placement = build(balance, seed, &pool);
        let lineup = placement.lineup();
        prop_assert_eq!(lineup.is_some(), !balance.keyed());
        let Some(lineup) = lineup else { return Ok(()) };
        let mut states = [None; 9];
        for (index, state) in steps {
            states[index] = state;
            lineup.note(index, || state);
            for draw in draws.iter().copied().chain([0, 1, u64::MAX]) {
                let leases = |index: usize| states[index].unwrap_or(0);
                let looked = placement.place_evenly(draw, |index| states[index].is_some(), leases, known);
                let kept = placement.place_in(&lineup, draw, leases, known);
                prop_assert_eq!(kept, looked, "{:?} draws {:x}", balance, draw);
            }
        }
    }

    #[test]
    fn a_key_belongs_to_the_first_of_its_order(balance in any_balance(), pool in any_pool(), seed: u64, draw: u64) {
        let placement = build(balance, seed, &pool);
        let first = placement.order(draw, |_| true, |_| 0, None).first().map(|candidate| candidate.index);
        prop_assert_eq!(placement.home(draw), if balance.keyed() { first } else { None });
    }

    #[test]
    fn the_order_in_the_file_does_not_matter(
        balance in any_balance(), pool in any_pool(), seed: u64, draw: u64, turn in 0..9_usize, down: u16,
    ) {
        let mut other = pool.clone();
        other.reverse();
        if !other.is_empty() {
            other.rotate_left(turn % pool.len());
        }
        let place = |pool: &[Owned]| {
            let usable = |index: usize| (down >> (pool[index].name.as_bytes()[1] - b'0')) & 1 == 0;
            let leases = |index: usize| u64::from(pool[index].weight) % 7;
            build(balance, seed, pool).place(draw, usable, leases).map(|index| pool[index].name.clone())
        };
        prop_assert_eq!(place(&pool), place(&other));
        prop_assert_eq!(build(balance, seed, &pool).digest(), build(balance, seed, &other).digest());
    }

    #[test]
    fn keyed_methods_move_no_key_of_a_usable_member(
        which in 0..3_usize, pool in any_pool(), draw: u64, down in 0..9_usize,
    ) {
        let balance = [Balance::Hash, Balance::Ring { points: 9 }, Balance::Maglev { table_size: 251 }][which];
        let placement = build(balance, 0, &pool);
        let before = placement.place(draw, |_| true, |_| 0);
        let after = placement.place(draw, |index| index != down, |_| 0);
        prop_assert!(before == Some(down) || before == after);
    }

    #[test]
    fn a_member_that_changes_its_mind_does_not_lose_the_others(
        balance in any_balance(), draw: u64, late in 0..12_usize,
    ) {
        // Member 0 is usable until `late` calls were made; member 1 is usable all the time.
        let pool = [owned("h/a", 3), owned("h/b", 1), owned("k/c", 2)];
        let asked = std::cell::Cell::new(0);
        let usable = |index: usize| match index {
            0 => asked.replace(asked.get() + 1) < late,
            1 => true,
            _ => false,
        };
        prop_assert!(build(balance, 0, &pool).place(draw, usable, |_| 0).is_some());
    }
}

#[test]
fn two_choices_ask_two_members_for_their_leases_and_the_others_none() {
    let pool = equal(1_000);
    let asked = std::cell::Cell::new(0);
    let leases = |_| asked.replace(asked.get() + 1);
    for balance in [Balance::TwoChoices, Balance::LeastConnections, Balance::RoundRobin, Balance::Random] {
        let placement = build(balance, 0, &pool);
        let lineup = placement.lineup().unwrap();
        (0..1_000).for_each(|index| lineup.note(index, || Some(index as u64 % 3)));
        asked.set(0);
        assert!(placement.place_in(&lineup, 1 << 40, leases, None).is_some());
        assert_eq!(asked.get(), if balance == Balance::TwoChoices { 2 } else { 0 }, "{balance:?}");
    }
}

/// Prints nanoseconds a placement: `cargo test --release --lib placement -- --ignored --nocapture`.
#[test]
#[ignore = "a stopwatch, not a test"]
fn stopwatch() {
    let time = |what: &str, balance: Balance, pool: &[Owned]| {
        let start = std::time::Instant::now();
        let placement = build(balance, 7, pool);
        let built = start.elapsed();
        let (mut draw, mut sum, rounds) = (1_u64, 0, 5_000_000);
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            draw = draw.wrapping_mul(0x5851f42d4c957f2d).wrapping_add(1);
            sum += placement.place(std::hint::black_box(draw), |_| true, |_| 3).unwrap();
        }
        let each = start.elapsed() / rounds;
        println!("{:>6} members {what:>8} {balance:?}: {each:?} a placement, built in {built:?} ({sum})", pool.len());
        let Some(lineup) = placement.lineup() else { return };
        (0..pool.len()).for_each(|index| lineup.note(index, || Some(3)));
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            draw = draw.wrapping_mul(0x5851f42d4c957f2d).wrapping_add(1);
            sum += placement.place_in(&lineup, std::hint::black_box(draw), |_| 3, None).unwrap();
        }
        println!("{:>6} members {what:>8} {balance:?}: {:?} in a lineup ({sum})", pool.len(), start.elapsed() / rounds);
    };
    let every = [Balance::RoundRobin, Balance::LeastConnections, Balance::TwoChoices, Balance::Random];
    for members in [3, 10, 100] {
        KEYED.into_iter().chain(every).for_each(|balance| time("equal", balance, &equal(members)));
    }
    let weighted: Vec<Owned> = (1..=10).map(|n| owned(&format!("w{n}"), n)).collect();
    every.into_iter().for_each(|balance| time("weighted", balance, &weighted));
    KEYED.into_iter().for_each(|balance| time("fleet", balance, &fleet()));
    time("equal", RING, &equal(500));
}
