//! A known client that leaves its backend goes to the nearest siblings of its location.

use proptest::prelude::*;

use super::stick_table::{next, rules, visit, visit_all};
use super::{client, config, mark, pick_for, pin, range};
use crate::config::{Balance, OnAdd, OnReturn};
use crate::outcome::{BreakCause, PickReason};
use crate::pool::*;

const MINUTE: u64 = 60_000;
const NAMES: [&str; 7] = ["v1a", "v1b", "v2a", "v2b", "w1a", "w1b", "spare"];
const METHODS: [Balance; 6] = [
    Balance::Hash,
    Balance::Ring { points: 16 },
    Balance::Maglev { table_size: 251 },
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::Random,
];

/// Two hosts of one place, one of another, and a backup on the first host.
fn located(balance: Balance) -> config::Pool {
    let mut file = config::Pool { balance, ..config(&NAMES) };
    for (backend, place) in file.backends.iter_mut().zip(["v/1", "v/1", "v/2", "v/2", "w/1", "w/1", "v/1"]) {
        backend.location = place.split('/').map(str::to_owned).collect();
    }
    file.backends[6].backup = true;
    file
}

/// Picks for a client with a cookie for this backend.
fn with_cookie<'p>(pool: &'p Pool, low: u32, backend: &str, tried: &[Arc<Backend>]) -> Pick<'p> {
    let cookie = pool.index_of(backend);
    pool.pick(&PickScene { cookie, ..PickScene::new(&client(low), tried, MINUTE) }).unwrap()
}

fn down(pool: &Pool, name: &str) {
    mark(&pool.backends()[pool.index_of(name).unwrap()], false);
}

#[test]
fn a_client_by_cookie_goes_to_its_host_then_to_its_place_then_anywhere_and_backups_are_last() {
    for balance in METHODS {
        let pool = Pool::new(&located(balance), None, 1);
        let goes_to = |wanted: &[&str]| {
            for low in 0..60 {
                let pick = with_cookie(&pool, low, "v1a", &[]);
                assert!(wanted.contains(&pick.backend.name()), "{balance:?}: {} of {wanted:?}", pick.backend.name());
                assert_eq!(pick.cause(), Some(BreakCause::Down));
            }
        };
        down(&pool, "v1a");
        goes_to(&["v1b"]);
        down(&pool, "v1b");
        goes_to(&["v2a", "v2b"]);
        ["v2a", "v2b"].iter().for_each(|name| down(&pool, name));
        goes_to(&["w1a", "w1b"]);
        ["w1a", "w1b"].iter().for_each(|name| down(&pool, name));
        goes_to(&["spare"]);
    }
}

#[test]
fn a_failed_connect_a_drain_and_a_full_backend_lead_to_siblings_too() {
    for balance in METHODS {
        let mut file = located(balance);
        file.backends[4].max_connections = Some(1);
        let pool = Pool::new(&file, None, 1);
        let [tried, full] = [0, 4].map(|index| Arc::clone(&pool.backends()[index]));
        assert!(pool.order("v2a", AdminState::Close, 0));
        let _full = Lease::new(&full);
        for low in 0..40 {
            assert_eq!(with_cookie(&pool, low, "v1a", std::slice::from_ref(&tried)).backend.name(), "v1b");
            let said = |backend| {
                let pick = with_cookie(&pool, low, backend, &[]);
                (pick.backend.name(), pick.cause())
            };
            assert_eq!(said("v2a"), ("v2b", Some(BreakCause::Drain)), "{balance:?}");
            assert_eq!(said("w1a"), ("w1b", Some(BreakCause::Full)), "{balance:?}");
        }
    }
}

#[test]
fn a_key_that_the_table_has_elsewhere_goes_to_siblings_of_where_it_is_and_stays_there() {
    for on_return in [OnReturn::Stay, OnReturn::Return] {
        let rules = config::StickTableRules { on_return, ..rules() };
        let file = config::Pool { stick_table: Some(rules), ..located(Balance::Hash) };
        let mut small = file.clone();
        small.backends.retain(|backend| backend.name.starts_with('w'));
        let old = next(&small, None);
        let before = visit_all(&old, 0);
        let pool = next(&file, Some(&old));
        assert_eq!(visit_all(&pool, MINUTE), before, "known keys stay when the pool grows");
        down(&pool, "w1a");
        for visits in 2..5 {
            for (low, home) in before.iter().enumerate() {
                let pick = visit(&pool, low as u32, visits * MINUTE);
                assert_eq!(pick.backend.name(), "w1b", "{home} {on_return:?}");
                assert_eq!(pick.cause(), (home == "w1a" && visits == 2).then_some(BreakCause::Down), "visit {visits}");
            }
        }
    }
}

#[test]
fn load_places_among_siblings_and_remembers_it() {
    let file = config::Pool { stick_table: Some(rules()), ..located(Balance::LeastConnections) };
    let pool = next(&file, None);
    let before = visit_all(&pool, 0);
    down(&pool, "v2a");
    // The sibling has the most connections of all.
    let _busy: Vec<_> = (0..50).map(|_| Lease::new(&pool.backends()[3])).collect();
    for (low, home) in before.iter().enumerate().filter(|(_, home)| *home == "v2a") {
        for visits in 1..3 {
            assert_eq!(visit(&pool, low as u32, visits * MINUTE).backend.name(), "v2b", "{home}");
        }
    }
    assert_ne!(visit(&pool, 9_000, MINUTE).backend.name(), "v2b", "a new key goes where the load is least");
}

#[test]
fn a_pin_goes_before_the_location_and_a_policy_too() {
    let mut file = located(Balance::Hash);
    file.ranges = vec![range("all", "10.0.0.0/8", pin(&["v1a", "v2b", "w1a"], false))];
    let pool = Pool::new(&file, None, 1);
    down(&pool, "v1a");
    assert!((0..50).all(|low| with_cookie(&pool, low, "v1a", &[]).backend.name() == "v2b"), "of its place, in the pin");
    down(&pool, "v2b");
    assert!((0..50).all(|low| with_cookie(&pool, low, "v1a", &[]).backend.name() == "w1a"), "the last of the pin");
    down(&pool, "w1a");
    assert!((0..50).all(|low| with_cookie(&pool, low, "v1a", &[]).backend.name() == "v1b"), "none of the pin is left");

    let follow = config::StickTableRules { on_add: OnAdd::Move, ..rules() };
    let file = config::Pool { stick_table: Some(follow), ..located(Balance::Hash) };
    let mut small = file.clone();
    small.backends.truncate(2);
    let old = next(&small, None);
    let before = visit_all(&old, 0);
    let pool = next(&file, Some(&old));
    let bare = next(&config::Pool { stick_table: None, ..file }, None);
    for low in 0..before.len() as u32 {
        let home = pick_for(&bare, &client(low), &[], 0).unwrap();
        assert_eq!(visit(&pool, low, MINUTE).backend.name(), home.backend.name(), "to where it belongs");
    }
}

#[test]
fn without_locations_a_client_that_leaves_is_placed_as_a_new_one() {
    for balance in [Balance::Hash, Balance::Maglev { table_size: 251 }] {
        let pool = Pool::new(&config::Pool { balance, ..config(&NAMES) }, None, 1);
        down(&pool, "v1a");
        for low in 0..100 {
            let placed = pick_for(&pool, &client(low), &[], MINUTE).unwrap();
            assert_eq!(with_cookie(&pool, low, "v1a", &[]).index, placed.index, "{balance:?}");
        }
    }
}

proptest! {
    /// A key whose home fails goes by its entry where placement alone would send it.
    #[test]
    fn from_its_home_a_known_key_goes_where_placement_sends_it(
        balance in prop::sample::select(METHODS[..3].to_vec()), dead: [bool; 7], low in 0_u32..1_000,
    ) {
        let file = located(balance);
        let pool = next(&config::Pool { stick_table: Some(rules()), ..file.clone() }, None);
        let bare = next(&file, None);
        visit(&pool, low, 0);
        for (index, _) in dead.iter().enumerate().filter(|(_, dead)| **dead) {
            [&pool, &bare].into_iter().for_each(|pool| mark(&pool.backends()[index], false));
        }
        let (known, placed) = (pick_for(&pool, &client(low), &[], MINUTE), pick_for(&bare, &client(low), &[], MINUTE));
        prop_assert_eq!(known.map(|pick| pick.index), placed.map(|pick| pick.index));
    }
}

#[test]
fn a_move_to_a_sibling_is_explained() {
    let pool = Pool::new(&located(Balance::LeastConnections), None, 1);
    down(&pool, "v1a");
    let decision = pool.explain_now(&client(1), pool.index_of("v1a"), &[], MINUTE);
    let pick = decision.pick.unwrap();
    assert_eq!((pick.backend.name(), pick.reason, decision.any), ("v1b", PickReason::Placement, false));
    let of = |name: &str| decision.candidates.iter().find(|row| row.index == pool.index_of(name).unwrap()).unwrap();
    assert_eq!((of("v1b").excluded, of("w1a").excluded), (None, Some(explain::Exclusion::Farther)));
    assert!(decision.next_any, "two are left in its place");
    let decision = pool.explain_now(&client(1), pool.index_of("w1a"), &[], MINUTE);
    assert_eq!(decision.pick.unwrap().reason, PickReason::Cookie);
    assert_eq!((decision.next.unwrap().backend.name(), decision.next_any), ("w1b", false));
}
