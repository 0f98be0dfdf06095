//! The sealed cookie from outside: verdicts over time, over keys, over damage, and what goes out.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;

use super::*;

const OLD: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
const NEW: &str = "1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c";
const BACKENDS: [&str; 3] = ["app-1", "app-2", "app-3"];
const NOW: u64 = 1_800_000_000;
const IDLE: u64 = 1000;

/// `max_idle` 1000 s, everything else at its default.
fn config() -> config::InsertRules {
    config::InsertRules {
        keys: "/etc/sessile/cookie.keys".into(),
        makes_keys: false,
        max_idle: Duration::from_secs(IDLE),
        max_life: None,
        lifetime: CookieLifetime::Idle,
        domain: None,
        path: "/".to_owned(),
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        partitioned: false,
        cross_site_twin: false,
    }
}

fn ring(keys: &[&str]) -> Arc<KeyRing> {
    Arc::new(KeyRing::parse(&keys.join("\n")).unwrap())
}

fn cookie(name: &str, config: &config::InsertRules, pool: &str, backends: &[&str], keys: &[&str]) -> Insert {
    Insert::new(name, config, pool, Arc::new(Names::new(backends.iter().copied())), ring(keys))
}

fn instance(keys: &[&str]) -> Insert {
    cookie("SESSILE", &config(), "web", &BACKENDS, keys)
}

fn with_life(life_s: u64) -> Insert {
    let config = config::InsertRules { max_life: Some(Duration::from_secs(life_s)), ..config() };
    cookie("SESSILE", &config, "web", &BACKENDS, &[OLD])
}

/// A small generator (splitmix64): what is random in these tests is the same in every run.
struct TestRandom(u64);

impl TestRandom {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = Nonce::default();
        nonce[..8].copy_from_slice(&self.next().to_be_bytes());
        nonce[8..].copy_from_slice(&self.next().to_be_bytes()[..4]);
        nonce
    }
}

fn written(cookie: &Insert, issued: u64, tls: bool) -> String {
    let mut out = Vec::new();
    cookie.write(&mut out, Issue { backend: 1, issued, inner: None }, NOW, tls, [9; 12]);
    String::from_utf8(out).unwrap()
}

/// `tests/cookie_reference.py` makes the same value.
#[test]
fn a_value_is_what_the_reference_makes_of_the_same_facts() {
    let nonce = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    let value = instance(&[OLD]).seal(1, NOW, NOW + 500, nonce);
    let expected = "AeXSGW4AAQIDBAUGBwgJCgsqZ0mTV1T53ztB-9Zm41fS5E7EawqvaOQQ7XmN9wB5pI15zvYNWh2b";
    assert_eq!(std::str::from_utf8(&value), Ok(expected));
    assert_eq!(instance(&[OLD]).open(&value, NOW + 500), CookieVerdict::Fresh { backend: 1, issued: NOW });
}

#[test]
fn a_value_ages_from_fresh_to_due_to_expired() {
    let here = instance(&[OLD]);
    let value = here.seal(2, NOW, NOW, [1; 12]);
    let fresh = |issued| CookieVerdict::Fresh { backend: 2, issued };
    let due = |issued| CookieVerdict::Due { backend: 2, issued };
    let expired = CookieVerdict::Expired { backend: Some(2) };
    for (passed, verdict) in [
        (0, fresh(NOW)),
        (99, fresh(NOW)),
        (100, due(NOW)),
        (1000, due(NOW)),
        (1060, due(NOW)),
        (1061, expired),
        (1_000_000_000, expired),
        // Clocks that differ, and one that was set back.
        (-60, fresh(NOW - 60)),
        (-61, due(NOW - 61)),
        (-1060, due(NOW - 1060)),
        (-1061, expired),
        (-1_800_000_000, expired),
    ] {
        assert_eq!(here.open(&value, NOW.saturating_add_signed(passed)), verdict, "{passed} s later");
    }
}

#[test]
fn a_clock_that_was_set_back_moves_nobody_and_leaves_no_trace() {
    let here = instance(&[OLD]);
    let ahead = here.seal(1, NOW + 900, NOW + 900, [1; 12]);
    let CookieVerdict::Due { backend, issued } = here.open(&ahead, NOW) else { panic!("it is due") };
    assert_eq!((backend, issued), (1, NOW));
    let healed = here.seal(backend, issued, NOW, [2; 12]);
    assert_eq!(here.open(&healed, NOW), CookieVerdict::Fresh { backend: 1, issued: NOW });
}

#[test]
fn max_life_ends_even_a_busy_client_and_caps_max_age() {
    let here = with_life(5000);
    let verdict = |issued, seen, now| here.open(&here.seal(0, issued, seen, [3; 12]), now);
    assert_eq!(verdict(NOW, NOW + 5000, NOW + 5060), CookieVerdict::Fresh { backend: 0, issued: NOW });
    assert_eq!(verdict(NOW, NOW + 5060, NOW + 5061), CookieVerdict::Expired { backend: Some(0) });
    for (age, max_age) in [(0, 1000), (4000, 1000), (4700, 300), (5000, 0), (6000, 0)] {
        assert!(written(&here, NOW - age, false).contains(&format!("; Max-Age={max_age};")), "{age}");
    }
    // Off, nothing ends a busy client.
    assert!(instance(&[OLD]).open(&instance(&[OLD]).seal(0, 0, NOW, [3; 12]), NOW).backend().is_some());
}

#[test]
fn a_busy_client_never_loses_it_and_an_idle_one_does() {
    let mut random = TestRandom(1);
    // Two instances with clocks 50 s apart; a client with requests at random, at most nine tenths of max_idle apart.
    let instances = [(instance(&[OLD]), 0), (instance(&[OLD]), 50)];
    let mut value = instances[0].0.seal(1, NOW, NOW, random.nonce());
    let (mut now, mut sent) = (NOW, 0);
    while now < NOW + 300 * IDLE {
        now += 1 + random.below(IDLE * 9 / 10 - 1);
        let (here, ahead) = &instances[random.below(2) as usize];
        match here.open(&value, now + ahead) {
            CookieVerdict::Fresh { backend: 1, .. } => {}
            CookieVerdict::Due { backend: 1, issued } => {
                value = here.seal(1, issued, now + ahead, random.nonce());
                sent += 1;
            }
            other => panic!("{other:?} at {now}"),
        }
    }
    assert!(sent > 300, "{sent}");
    let at_last = instances[0].0.open(&value, now + 50 + IDLE + SKEW_S + 1);
    assert!(matches!(at_last, CookieVerdict::Expired { .. }), "{at_last:?}");
}

#[test]
fn who_sealed_it_and_for_what_decides() {
    let here = instance(&[OLD]);
    let sealed_by = |other: &Insert| here.open(&other.seal(0, NOW, NOW, [4; 12]), NOW);
    let fresh = CookieVerdict::Fresh { backend: 0, issued: NOW };
    assert_eq!(sealed_by(&instance(&[OLD])), fresh);
    assert_eq!(sealed_by(&instance(&[NEW])), CookieVerdict::Forged, "a key that nobody knows here");
    assert_eq!(sealed_by(&cookie("SESSILE", &config(), "api", &BACKENDS, &[OLD])), CookieVerdict::OtherPool);
    assert_eq!(
        sealed_by(&cookie("OTHER", &config(), "web", &BACKENDS, &[OLD])),
        CookieVerdict::Forged,
        "another cookie"
    );
    let reordered = cookie("SESSILE", &config(), "web", &["app-3", "app-2", "app-1"], &[OLD]);
    assert_eq!(
        sealed_by(&reordered),
        CookieVerdict::Fresh { backend: 2, issued: NOW },
        "the name counts, not the place"
    );
    let other_backend = cookie("SESSILE", &config(), "web", &["app-9"], &[OLD]);
    assert_eq!(sealed_by(&other_backend), CookieVerdict::Removed { former: None });
    let out_of_bounds = here.open(&here.seal(7, NOW, NOW, [4; 12]), NOW);
    assert_eq!(out_of_bounds, CookieVerdict::Removed { former: None });
    for (pool, seen) in [("api", NOW - 5000), ("web", NOW - 5000)] {
        let old = cookie("SESSILE", &config(), pool, &["app-9"], &[OLD]).seal(0, seen, seen, [5; 12]);
        let expected = if pool == "api" { CookieVerdict::OtherPool } else { CookieVerdict::Expired { backend: None } };
        assert_eq!(here.open(&old, NOW), expected, "what holds longest is said");
    }
}

#[test]
fn a_cookie_of_a_pool_that_was_renamed_still_says_where_its_client_was() {
    let sealed = |pool: &str, backend, seen| {
        let sealer = cookie("SESSILE", &config(), pool, &["app-2", "app-9"], &[OLD]);
        sealer.seal(backend, seen, seen, [4; 12])
    };
    let mut here = instance(&[OLD]);
    here.set_pools(&["web", "api"].map(|pool: &str| NameId::of(pool.as_bytes())).into());
    let verdict = |value: [u8; VALUE_LENGTH]| here.open(&value, NOW);
    assert_eq!(verdict(sealed("api", 0, NOW)), CookieVerdict::OtherPool, "a neighbour's client has lost nothing here");
    assert_eq!(verdict(sealed("shop", 0, NOW)), CookieVerdict::FormerPool { backend: Some(1) });
    assert_eq!(verdict(sealed("shop", 1, NOW)), CookieVerdict::FormerPool { backend: None });
    assert_eq!(verdict(sealed("shop", 0, NOW - 5000)), CookieVerdict::Expired { backend: Some(1) });
    assert_eq!(verdict(sealed("web", 0, NOW)), CookieVerdict::Fresh { backend: 1, issued: NOW });
}

/// New key last everywhere, then first, then the old one dropped; instances change one after the other.
#[test]
fn keys_change_under_living_clients_and_none_breaks() {
    let stages: [&[&str]; 4] = [&[OLD], &[OLD, NEW], &[NEW, OLD], &[NEW]];
    for pair in stages.windows(2) {
        for (from, to) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            // The old key is dropped when no living value is sealed with it any more.
            if from[0] == OLD && !to.contains(&OLD) || from == [NEW] && to == [OLD] {
                continue;
            }
            let value = instance(from).seal(1, NOW, NOW, [6; 12]);
            let verdict = instance(to).open(&value, NOW);
            assert_eq!(verdict.backend(), Some(1), "sealed by {from:?}, opened by {to:?}");
            let is_due = matches!(verdict, CookieVerdict::Due { .. });
            assert_eq!(is_due, from[0] != to[0], "sent again exactly if its key is not the first");
        }
    }
    let last_of_old = instance(stages[2]).open(&instance(stages[1]).seal(1, NOW, NOW, [6; 12]), NOW);
    assert_eq!(last_of_old, CookieVerdict::Due { backend: 1, issued: NOW });
    assert_eq!(instance(stages[3]).open(&instance(stages[1]).seal(1, NOW, NOW, [6; 12]), NOW), CookieVerdict::Forged);
}

/// The same count in every build; it takes a second or two.
#[test]
fn of_a_million_cookies_with_flipped_bits_none_is_accepted() {
    let here = instance(&[OLD, NEW]);
    let mut random = TestRandom(2);
    let mut value = [0; VALUE_LENGTH];
    for turn in 0..1_000_000 {
        if turn % 100 == 0 {
            value = here.seal(random.below(3) as usize, NOW, NOW, random.nonce());
        }
        let mut sealed = BASE64URL_NOPAD.decode(&value).unwrap();
        for _ in 0..=random.below(3) {
            let bit = random.below(sealed.len() as u64 * 8) as usize;
            sealed[bit / 8] ^= 1 << (bit % 8);
        }
        let flipped = BASE64URL_NOPAD.encode(&sealed);
        if flipped.as_bytes() != value {
            assert_eq!(here.open(flipped.as_bytes(), NOW), CookieVerdict::Forged, "{flipped}");
        }
    }
}

#[test]
fn no_bit_of_the_text_can_be_flipped_and_no_byte_added_or_lost() {
    let here = instance(&[OLD]);
    let value = here.seal(1, NOW, NOW, [7; 12]);
    for bit in 0..VALUE_LENGTH * 8 {
        let mut flipped = value;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(here.open(&flipped, NOW), CookieVerdict::Forged, "bit {bit}");
    }
    for length in 0..VALUE_LENGTH {
        assert_eq!(here.open(&value[..length], NOW), CookieVerdict::Forged);
    }
    for more in ["=", "A", " ", "\0"] {
        assert_eq!(here.open(&[&value, more.as_bytes()].concat(), NOW), CookieVerdict::Forged);
    }
}

#[test]
fn a_value_gives_nothing_away() {
    let mut random = TestRandom(3);
    let (pool, backends) = ("storefront", ["database-east", "database-west"]);
    let here = cookie("SESSILE", &config(), pool, &backends, &[OLD]);
    let key_id = BASE64URL_NOPAD.decode(&here.seal(0, NOW, NOW, [0; 12])).unwrap()[..5].to_vec();
    let (mut seen, mut ones) = (std::collections::HashSet::new(), 0u32);
    const VALUES: u32 = 20_000;
    for turn in 0..VALUES {
        // Two backends and one moment only: whatever repeats would show.
        let value = here.seal(turn as usize % 2, NOW, NOW, random.nonce());
        let sealed = BASE64URL_NOPAD.decode(&value).unwrap();
        assert_eq!((value.len(), &sealed[..5]), (VALUE_LENGTH, &key_id[..]));
        for told in [pool, "database", "east", "west", "10.0.0"] {
            let holds = |bytes: &[u8]| bytes.windows(told.len()).any(|part| part == told.as_bytes());
            assert!(!holds(&value) && !holds(&sealed), "{told}");
        }
        assert!(seen.insert(sealed[17..].to_vec()), "the sealed part never repeats");
        ones += sealed[17..].iter().map(|byte| byte.count_ones()).sum::<u32>();
    }
    // Of n random bits n/2 are ones, with a deviation of half the root of n.
    let bits = f64::from(VALUES) * 40.0 * 8.0;
    assert!((f64::from(ones) - bits / 2.0).abs() < 5.0 * bits.sqrt() / 2.0, "{ones} of {bits}");
    assert_eq!(format!("{:?}", here.ring), "KeyRing(1 keys)");
}

/// A repeated nonce, the accident that costs AES-GCM its key, tells equal values from different ones and no more.
#[test]
fn a_repeated_nonce_shows_only_whether_two_values_say_the_same() {
    let here = instance(&[OLD]);
    let sealed =
        |backend, seen| BASE64URL_NOPAD.decode(&here.seal(backend, NOW, seen, [8; 12])).unwrap()[17..].to_vec();
    assert_eq!(sealed(0, NOW), sealed(0, NOW));
    let differ = |one: &[u8], other: &[u8]| one.iter().zip(other).filter(|(one, other)| one != other).count();
    assert!(differ(&sealed(0, NOW), &sealed(0, NOW + 1)) > 30, "one second changes the whole");
}

#[test]
fn what_goes_out_is_as_configured() {
    let plain = config();
    let value = String::from_utf8(instance(&[OLD]).seal(1, NOW, NOW, [9; 12]).to_vec()).unwrap();
    let all = config::InsertRules {
        domain: crate::server_name::ServerName::parse("example.org"),
        path: "/shop".to_owned(),
        secure: Secure::On,
        http_only: false,
        same_site: SameSite::None,
        partitioned: true,
        ..config()
    };
    for (config, tls, attributes) in [
        (plain.clone(), true, "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (plain.clone(), false, "; Path=/; HttpOnly; SameSite=Lax"),
        (config::InsertRules { secure: Secure::Off, ..plain.clone() }, true, "; Path=/; HttpOnly; SameSite=Lax"),
        (
            config::InsertRules { secure: Secure::On, ..plain.clone() },
            false,
            "; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
        (config::InsertRules { same_site: SameSite::Strict, ..plain }, false, "; Path=/; HttpOnly; SameSite=Strict"),
        (all.clone(), false, "; Domain=example.org; Path=/shop; Secure; SameSite=None; Partitioned"),
        // What a browser would throw away for want of Secure is left out.
        (config::InsertRules { secure: Secure::Auto, ..all }, false, "; Domain=example.org; Path=/shop"),
    ] {
        let here = cookie("SESSILE", &config, "web", &BACKENDS, &[OLD]);
        assert_eq!(written(&here, NOW, tls), format!("SESSILE={value}; Max-Age=1000{attributes}"));
    }
}

#[test]
fn a_session_cookie_has_no_max_age_and_its_value_ages_all_the_same() {
    let session = config::InsertRules { lifetime: CookieLifetime::Session, ..config() };
    let here = cookie("SESSILE", &session, "web", &BACKENDS, &[OLD]);
    let value = String::from_utf8(here.seal(1, NOW, NOW, [9; 12]).to_vec()).unwrap();
    assert_eq!(written(&here, NOW, true), format!("SESSILE={value}; Path=/; Secure; HttpOnly; SameSite=Lax"));
    assert_eq!(here.open(value.as_bytes(), NOW + IDLE), CookieVerdict::Due { backend: 1, issued: NOW });
    let over = NOW + IDLE + SKEW_S + 1;
    assert_eq!(here.open(value.as_bytes(), over), CookieVerdict::Expired { backend: Some(1) });
}

#[test]
fn a_twin_has_the_value_of_its_cookie_and_goes_across_sites() {
    let twin_of = |config: &config::InsertRules, tls| {
        let here = cookie("SESSILE", config, "web", &BACKENDS, &[OLD]);
        let line = written(&here, NOW, tls);
        let value = String::from_utf8(here.seal(1, NOW, NOW, [9; 12]).to_vec()).unwrap();
        let twin = here.twin_of(&line, tls)?;
        Some(twin.strip_prefix("SESSILECORS=").unwrap().strip_prefix(&value).unwrap().to_owned())
    };
    let plain = config::InsertRules { cross_site_twin: true, ..config() };
    let some = |attributes: &str| Some(attributes.to_owned());
    assert_eq!(twin_of(&plain, true), some("; Max-Age=1000; Path=/; Secure; HttpOnly; SameSite=None"));
    assert_eq!(twin_of(&plain, false), None, "a browser would drop it");
    let on = config::InsertRules { secure: Secure::On, lifetime: CookieLifetime::Session, ..plain };
    assert_eq!(twin_of(&on, false), some("; Path=/; Secure; HttpOnly; SameSite=None"), "a decoder in front has TLS");
    assert_eq!(twin_of(&config(), true), None);
    let all = config::InsertRules { path: "/shop".to_owned(), partitioned: true, same_site: SameSite::Strict, ..on };
    assert_eq!(twin_of(&all, true), some("; Path=/shop; Secure; HttpOnly; SameSite=None; Partitioned"));
}

#[test]
fn the_value_of_a_tier_behind_is_carried_and_changes_no_verdict() {
    let (outer, inner) = (instance(&[OLD]), instance(&[NEW]));
    let (own, behind) = (outer.seal(1, NOW, NOW, [1; 12]), inner.seal(2, NOW, NOW, [2; 12]));
    let mut line = Vec::new();
    outer.write(&mut line, Issue { backend: 1, issued: NOW, inner: Some(&behind) }, NOW, false, [1; 12]);
    let value = line.strip_prefix(b"SESSILE=").unwrap().split(|byte| *byte == b';').next().unwrap();
    assert_eq!(value, [&own[..], b".", &behind].concat());
    assert_eq!(outer.open(value, NOW), CookieVerdict::Fresh { backend: 1, issued: NOW });
    assert_eq!(tiers::split(value), (&own[..], Some(&behind[..])));
    assert_eq!(inner.open(&behind, NOW), CookieVerdict::Fresh { backend: 2, issued: NOW });
    // Neither tier takes the other's value for its own.
    assert_eq!(inner.open(value, NOW), CookieVerdict::Forged);
    assert_eq!(outer.open(&[&own[..], b".no seal"].concat(), NOW), CookieVerdict::Forged);
}

#[test]
fn reading_and_writing_allocate_nothing() {
    let here = instance(&[OLD]);
    let mut out = Vec::with_capacity(1024);
    let value = here.seal(1, NOW, NOW, [9; 12]);
    let used = allocation_counter::measure(|| {
        here.write(&mut out, Issue { backend: 1, issued: NOW, inner: Some(&value) }, NOW, true, [9; 12]);
        assert!(here.open(&value, NOW).backend().is_some());
        assert_eq!(here.open(b"forged", NOW), CookieVerdict::Forged);
    });
    assert_eq!(used.count_total, 0);
}

proptest! {
    #[test]
    fn what_was_sealed_opens(
        backends in 1usize..50,
        chosen: prop::sample::Index,
        keys in 1usize..5,
        seal_with: prop::sample::Index,
        name in "[A-Za-z0-9_-]{1,20}",
        nonce: Nonce,
        issued in 0..u64::from(u32::MAX),
        passed in 0..IDLE,
    ) {
        let names: Vec<_> = (0..backends).map(|n| format!("b{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let keys: Vec<_> = (0..keys).map(|n| format!("{}{n:02x}", &OLD[..62])).collect();
        let mut keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let reader = cookie(&name, &config(), "web", &names, &keys);
        let first = seal_with.index(keys.len());
        keys.rotate_left(first);
        let writer = cookie(&name, &config(), "web", &names, &keys);
        let backend = chosen.index(backends);
        let verdict = reader.open(&writer.seal(backend, issued, issued, nonce), issued + passed);
        let is_fresh = passed < IDLE / 10 && first == 0;
        let expected =
            if is_fresh { CookieVerdict::Fresh { backend, issued } } else { CookieVerdict::Due { backend, issued } };
        prop_assert_eq!(verdict, expected);
    }

    #[test]
    fn nothing_that_a_client_makes_up_is_believed(value: Vec<u8>, text in "[A-Za-z0-9_-]{76}", now: u64) {
        let here = instance(&[OLD]);
        prop_assert_eq!(here.open(&value, now), CookieVerdict::Forged);
        prop_assert_eq!(here.open(text.as_bytes(), now), CookieVerdict::Forged);
    }
}
