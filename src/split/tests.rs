//! Many users of one split: their shares are even, and none of them moves.

mod by_key;

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::{SplitPool, check};
use crate::http::Progress;
use crate::http::head::RequestReader;
use crate::sticky::cookie::KeyRing;

const NOW: u64 = 1_800_000_000;
const USERS: usize = 100_000;
const KEYS: [&str; 2] = [
    "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210",
    "ff112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210",
];

/// A split named `web` over these pools.
fn config(to: &[(&str, u16)]) -> config::Split {
    let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\nsplit = \"web\"\n\
        [[split]]\nname = \"web\"\nto = { pool = \"a\" }\ncookie = { cross_site_twin = true, secure = \"on\" }\n\
        [[pool]]\nname = \"a\"\nhttp = true\nbackend = \"127.0.0.1:2\"\n";
    let checked = check(text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    let to = to.iter().map(|(pool, weight)| SplitPool { pool: (*pool).to_owned(), weight: *weight });
    config::Split { to: to.collect(), ..checked.config.splits.into_iter().next().unwrap() }
}

/// The split of an instance with these keys, the first of which seals; `previous`: before a reload.
fn split_with(keys: &[&str], to: &[(&str, u16)], previous: Option<&Split>) -> Split {
    let config = config(to);
    let ring = |_: &Path| KeyRing::parse(&keys.join("\n")).map(Arc::new);
    let rule = CookieRule::new(config.cookie().unwrap(), &sealed_as(&config.name), config.pools(), ring).unwrap();
    let index = |name: &str| to.iter().position(|(pool, _)| *pool == name).unwrap();
    Split::new(&config, SplitRules { cookie: Some(rule), of_requests: true }, index, previous, 1)
}

fn split(to: &[(&str, u16)], previous: Option<&Split>) -> Split {
    split_with(&KEYS[..1], to, previous)
}

/// What the split reads in a request with this Cookie line.
fn read(split: &Split, cookies: &str, now: u64) -> Option<CookieVerdict> {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n");
    let mut reader = RequestReader::new();
    assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)));
    split.read(&reader.request(head.as_bytes()), now)
}

/// The same for a cookie that stands alone, without a head around it.
fn read_alone(split: &Split, cookie: &str, now: u64) -> Option<CookieVerdict> {
    let (_, value) = cookie.split_once('=')?;
    split.rule.as_ref()?.read([value.as_bytes()], now, |_| TableLookup::Unknown).map(|read| read.verdict)
}

/// A user with the cookie of its browser.
#[derive(Default, Clone)]
struct User {
    cookie: String,
    nonce: u128,
}

impl User {
    fn number(number: usize) -> Self {
        Self { nonce: (number as u128) << 32, ..Self::default() }
    }

    /// Makes a request; the name of the pool that it got, and what has chosen that.
    fn visit(&mut self, split: &Split, now: u64) -> (Arc<str>, ChosenBy) {
        let verdict = read_alone(split, &self.cookie, now);
        let choice = split.choose(verdict, None, |_| true);
        self.nonce += 1;
        let mut nonce = Nonce::default();
        nonce.copy_from_slice(&self.nonce.to_be_bytes()[4..]);
        let [own, twin] = split.set_cookies((verdict, choice), (now, true), false, || Some(nonce));
        if let Some(line) = own {
            self.cookie = line.split(';').next().unwrap().to_owned();
            let twin = twin.unwrap();
            assert!(twin.starts_with("SESSILE-webCORS=") && twin.contains("; SameSite=None"), "{twin}");
        }
        (Arc::clone(&split.members()[choice.member].name), choice.by)
    }
}

/// Requires that each pool has its share of so many users, to within 1 % of the share.
fn is_even(got: &[Arc<str>], to: &[(&str, u16)]) {
    let total: u64 = to.iter().map(|(_, weight)| u64::from(*weight)).sum();
    for (pool, weight) in to {
        let has = got.iter().filter(|got| ***got == **pool).count() as f64;
        let share = got.len() as f64 * f64::from(*weight) / total as f64;
        assert!((has - share).abs() <= share * 0.01, "{pool}: {has} instead of {share} of {}", got.len());
    }
}

#[test]
fn of_100_000_users_each_pool_has_its_share_and_none_moves_through_ten_changes_restart_and_two_instances() {
    let mut weights = [("stable", 95u16), ("canary", 4), ("next", 1)];
    let mut one = split(&weights, None);
    let mut users: Vec<_> = (0..USERS).map(User::number).collect();
    let first: Vec<_> = users.iter_mut().map(|user| user.visit(&one, NOW)).collect();
    assert!(first.iter().all(|(_, by)| *by == ChosenBy::Weight));
    let homes: Vec<_> = first.into_iter().map(|(pool, _)| pool).collect();
    is_even(&homes, &weights);
    let mut late = USERS;
    for change in 0..10u64 {
        weights.rotate_left(1);
        weights.iter_mut().for_each(|(_, weight)| *weight = (*weight * 7 + change as u16) % 257);
        weights[0].1 = weights[0].1.max(1);
        weights[change as usize % 3].1 = 0;
        weights[(change as usize + 1) % 3].1 += 1;
        let now = NOW + change * 600;
        one = match change {
            // A restart remembers nothing but the keys.
            4 => split(&weights, None),
            _ => split(&weights, Some(&one)),
        };
        let two = split_with(&[KEYS[1], KEYS[0]], &weights, None);
        for (number, user) in users.iter_mut().enumerate() {
            // The other instance seals with a key that is not known here, so it only reads.
            let by_two =
                (number % 10 == 0).then(|| read_alone(&two, &user.cookie, now).and_then(CookieVerdict::backend));
            let got = user.visit(&one, now);
            assert_eq!(got, (Arc::clone(&homes[number]), ChosenBy::Cookie), "user {number}, change {change}");
            if let Some(by_two) = by_two {
                assert_eq!(by_two.map(|member| &two.members()[member].name), Some(&got.0), "the other instance");
            }
        }
        // New users come by the new weights.
        let new: Vec<_> = (0..10_000)
            .map(|_| {
                User::number({
                    late += 1;
                    late
                })
                .visit(&one, now)
                .0
            })
            .collect();
        is_even_within(&new, &weights, 10.0);
    }
}

/// Requires that each pool has its share to within so many users, and none without a weight.
fn is_even_within(got: &[Arc<str>], to: &[(&str, u16)], most: f64) {
    let total: u64 = to.iter().map(|(_, weight)| u64::from(*weight)).sum();
    for (pool, weight) in to {
        let has = got.iter().filter(|got| ***got == **pool).count() as f64;
        let share = got.len() as f64 * f64::from(*weight) / total as f64;
        assert!((has - share).abs() <= most && (*weight > 0 || has == 0.0), "{pool}: {has} instead of {share}");
    }
}

#[test]
fn a_cookie_of_a_pool_that_left_or_of_another_split_counts_as_none() {
    let before = split(&[("old", 1)], None);
    let mut user = User::default();
    assert_eq!(&*user.visit(&before, NOW).0, "old");
    let after = split(&[("new", 1)], Some(&before));
    assert_eq!(read(&after, &user.cookie, NOW), Some(CookieVerdict::Removed { former: None }));
    assert_eq!(user.visit(&after, NOW), ("new".into(), ChosenBy::Weight));
    assert_eq!(user.visit(&after, NOW).1, ChosenBy::Cookie, "its new pool has a cookie");
    let stranger = split_with(&KEYS[1..], &[("new", 1)], None);
    assert_eq!(read(&stranger, &user.cookie, NOW), Some(CookieVerdict::Forged));
    // The cookie of a pool with the name of the split, sealed with the same keys, under the same name.
    let config = config(&[("a", 1)]);
    let ring = |_: &Path| KeyRing::parse(KEYS[0]).map(Arc::new);
    let of_pool = CookieRule::new(config.cookie().unwrap(), "web", ["a"], ring).unwrap();
    let Mode::Insert(insert) = of_pool.mode() else { panic!("as asked") };
    let value = String::from_utf8(insert.seal(0, NOW, NOW, [9; 12]).to_vec()).unwrap();
    let verdict = read(&split(&[("a", 1)], None), &format!("SESSILE-web={value}"), NOW);
    assert_eq!(verdict, Some(CookieVerdict::OtherPool));
}

#[test]
fn an_idle_cookie_is_renewed_and_one_that_is_over_is_worth_nothing() {
    let split = split(&[("a", 1), ("b", 1)], None);
    let mut user = User::default();
    let (home, _) = user.visit(&split, NOW);
    let first = user.cookie.clone();
    user.visit(&split, NOW + 60);
    assert_eq!(user.cookie, first, "a fresh cookie is not sent again");
    for hours in (0..100).step_by(20) {
        assert_eq!(user.visit(&split, NOW + hours * 3600), (Arc::clone(&home), ChosenBy::Cookie));
    }
    assert_ne!(user.cookie, first);
    assert_eq!(user.visit(&split, NOW + 200 * 3600).1, ChosenBy::Weight);
}

#[test]
fn new_clients_avoid_pools_that_take_none_and_known_ones_do_not() {
    let split = split(&[("a", 1), ("b", 1), ("c", 0)], None);
    let only = |open: usize| move |pool: usize| pool == open;
    for open in [0, 1] {
        let choices: Vec<_> = (0..50).map(|_| split.choose(None, None, only(open))).collect();
        assert!(choices.iter().all(|choice| *choice == SplitChoice { member: open, by: ChosenBy::Weight }));
    }
    // One without a weight is no refuge: the weights decide as if all took clients.
    assert_eq!(split.open_weights(only(2)), [1, 1, 0]);
    assert_eq!(split.open_weights(|_| false), [1, 1, 0]);
    let known = Some(CookieVerdict::Fresh { backend: 2, issued: NOW });
    assert_eq!(split.choose(known, Some(0), |_| false), SplitChoice { member: 2, by: ChosenBy::Cookie });
    assert_eq!(split.choose(None, Some(1), |_| false), SplitChoice { member: 1, by: ChosenBy::Connection });
}

#[test]
fn requests_are_counted_by_pool_and_by_what_has_chosen_it_also_over_a_reload() {
    let before = split(&[("a", 1), ("b", 0)], None);
    before.count(SplitChoice { member: 0, by: ChosenBy::Weight }, 0);
    before.count(SplitChoice { member: 1, by: ChosenBy::Cookie }, 0);
    let after = split(&[("b", 1), ("a", 1)], Some(&before));
    after.count(SplitChoice { member: 0, by: ChosenBy::Cookie }, 0);
    let of = |member: usize| after.counted(member).map(|(_, count)| count);
    assert_eq!((of(0), of(1)), ([2, 0, 0], [0, 0, 1]));
}

proptest! {
    /// Any number of new clients in a row, at any weights.
    #[test]
    fn every_run_of_turns_is_even(
        weights in prop::collection::vec(0u16..=256, 1..6),
        start in any::<u64>(),
        turns in 1usize..3000,
    ) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let names: Vec<_> = (0..weights.len()).map(|number| format!("p{number}")).collect();
        let to: Vec<_> = names.iter().map(String::as_str).zip(weights).collect();
        let split = split(&to, None);
        split.turn.store(start, Relaxed);
        let name = |choice: SplitChoice| Arc::clone(&split.members()[choice.member].name);
        let got: Vec<_> = (0..turns).map(|_| name(split.choose(None, None, |_| true))).collect();
        is_even_within(&got, &to, 8.0);
    }
}
