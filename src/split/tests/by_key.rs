//! Clients of a split with a key: their shares, what a change of weights moves, and what stick tables keep.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::config::{SplitBy, SplitKey};

const CLIENTS: u32 = 100_000;

fn config(to: &[(&str, u16)]) -> config::Split {
    let key = SplitKey { parts: vec![KeyPart::Source], prefix_v4: 32, prefix_v6: 64 };
    config::Split { by: SplitBy::Key(key), ..super::config(to) }
}

/// The split over these pools, as each process builds it from its file.
fn split(to: &[(&str, u16)]) -> Split {
    let index = |name: &str| to.iter().position(|(pool, _)| *pool == name).unwrap();
    Split::new(&config(to), SplitRules { cookie: None, of_requests: false }, index, None, 1)
}

fn client(number: u32) -> Facts<'static> {
    Facts { source: Some(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number))), ..Facts::default() }
}

/// What a client gets that no pool remembers.
fn choose(split: &Split, number: u32) -> SplitChoice {
    split.choose_by_key(&client(number), 7, |_| ClientMemory::New, |_| true)
}

fn pools(split: &Split) -> Vec<Arc<str>> {
    (0..CLIENTS).map(|number| Arc::clone(&split.members()[choose(split, number).member].name)).collect()
}

/// Requires of 100,000 clients that each pool has its share of all, to within 0.4 % of all.
fn is_even(got: &[Arc<str>], to: &[(&str, u16)]) {
    let total: u32 = to.iter().map(|(_, weight)| u32::from(*weight)).sum();
    for (pool, weight) in to {
        let has = got.iter().filter(|got| ***got == **pool).count() as f64 / got.len() as f64;
        let share = f64::from(*weight) / f64::from(total);
        assert!((has - share).abs() <= 0.004, "{pool}: {has:.4} instead of {share:.4}");
    }
}

#[test]
fn each_pool_has_its_share_and_every_instance_agrees() {
    for to in [&[("a", 95), ("b", 4), ("c", 1)][..], &[("a", 1), ("b", 1)], &[("a", 0), ("b", 256)]] {
        let got = pools(&split(to));
        is_even(&got, to);
        assert_eq!(got, pools(&split(to)), "another process, or this one after a restart");
        let reversed: Vec<_> = to.iter().rev().copied().collect();
        assert_eq!(got, pools(&split(&reversed)), "the order in the file says nothing");
    }
    assert_eq!(choose(&split(&[("a", 1)]), 1).by, ChosenBy::Key);
}

#[test]
fn a_change_of_weights_moves_only_the_share_that_changes() {
    for (before, after, moved, to) in [
        (&[("a", 90), ("b", 10)][..], &[("a", 80), ("b", 20)][..], 0.1, "b"),
        (&[("a", 1), ("b", 1), ("c", 1)][..], &[("a", 2), ("b", 1), ("c", 1)][..], 1.0 / 6.0, "a"),
        (&[("a", 1), ("b", 1)][..], &[("a", 1), ("b", 1), ("new", 2)][..], 0.5, "new"),
        (&[("a", 99), ("b", 1)][..], &[("a", 0), ("b", 1)][..], 0.99, "b"),
    ] {
        let (own, new) = (pools(&split(before)), pools(&split(after)));
        let gone: Vec<_> = own.iter().zip(&new).filter(|(own, new)| own != new).collect();
        assert!(gone.iter().all(|(_, new)| ***new == *to), "{before:?} to {after:?}: all that move come to {to}");
        let share = gone.len() as f64 / f64::from(CLIENTS);
        assert!((share - moved).abs() <= 0.004, "{before:?} to {after:?}: {share:.4} instead of {moved:.4}");
        let said = moved_keys(&config(before), &config(after)).unwrap();
        assert!((said - moved).abs() <= 0.01, "a plan says {said}");
    }
    assert_eq!(moved_keys(&config(&[("a", 1)]), &super::config(&[("a", 1)])), None, "a cookie takes over");
}

#[test]
fn the_pool_that_remembers_a_client_keeps_it_whatever_the_weights_are() {
    let split = split(&[("a", 0), ("b", 1), ("c", 1)]);
    let known = |ages: [Option<u32>; 3]| {
        let memory = move |pool: usize| match ages[pool] {
            Some(age_min) => ClientMemory::Known { age_min },
            None => ClientMemory::New,
        };
        split.choose_by_key(&client(1), 7, memory, |_| false)
    };
    let of_table = |member| SplitChoice { member, by: ChosenBy::StickTable };
    assert_eq!(known([Some(9), None, None]), of_table(0), "of weight 0, and without a backend that takes new clients");
    assert_eq!(known([Some(9), Some(3), Some(4)]), of_table(1), "where it was seen last");
    let home = choose(&split, 1).member;
    assert_eq!(known([None, Some(3), Some(3)]), of_table(home), "of two in the same minute, where it belongs");
}

#[test]
fn new_clients_avoid_a_pool_that_takes_none_and_no_other_client_moves() {
    let split = split(&[("a", 1), ("b", 1), ("c", 1)]);
    let mut to_others = [0_u32; 3];
    for number in 0..3_000 {
        let home = choose(&split, number).member;
        let without =
            |memory: ClientMemory| split.choose_by_key(&client(number), 7, |_| memory, |pool| pool != 0).member;
        to_others[without(ClientMemory::New)] += 1;
        assert!(home == 0 || without(ClientMemory::New) == home);
        assert_eq!(without(ClientMemory::None), home, "a pool without a stick table may have it already");
        let none = split.choose_by_key(&client(number), 7, |_| ClientMemory::New, |_| false);
        assert_eq!(none.member, home, "no pool takes new clients");
    }
    assert!(to_others[0] == 0 && to_others[1].abs_diff(to_others[2]) < 150, "{to_others:?}");
}

#[test]
fn clients_without_a_key_share_the_pools_by_their_number_and_each_keeps_its_own() {
    let to = [("a", 3), ("b", 1)];
    let split = split(&to);
    let choose = |number| split.choose_by_key(&Facts::default(), number, |_| ClientMemory::None, |_| true);
    assert!((0..100).all(|number| choose(number) == choose(number)));
    let at_a = (0..4_000).filter(|number| choose(*number).member == 0).count();
    assert!(at_a.abs_diff(3_000) <= 3, "{at_a}");
    assert_eq!(choose(1).by, ChosenBy::Weight);
}

#[test]
fn what_a_key_gets_here_says_nothing_of_what_it_gets_inside_a_pool() {
    let split = split(&[("a", 1), ("b", 1)]);
    let member = |name| Member { name, weight: 1, location: &[], backup: false };
    // Backends named as the pools are.
    let pool = Placement::new(Balance::Hash, 0, &[member("a"), member("b")]);
    let of_a = (0..CLIENTS).filter(|number| choose(&split, *number).member == 0);
    let inside = of_a.map(|number| {
        let key = Key::encode(&[KeyPart::Source], SourceAs::prefix(32), &client(number)).unwrap();
        pool.home(pool.key_hash(key.as_bytes())).unwrap()
    });
    let inside: Vec<_> = inside.collect();
    let first = inside.iter().filter(|index| **index == 0).count() as f64 / inside.len() as f64;
    assert!((first - 0.5).abs() < 0.01, "{first}");
}

#[test]
fn choices_are_counted_by_what_can_choose() {
    let split = split(&[("a", 1), ("b", 1)]);
    split.count(SplitChoice { member: 1, by: ChosenBy::Key }, 0);
    split.count(SplitChoice { member: 1, by: ChosenBy::StickTable }, 0);
    assert_eq!(split.counted(1), [(ChosenBy::StickTable, 1), (ChosenBy::Key, 1), (ChosenBy::Weight, 0)]);
}
