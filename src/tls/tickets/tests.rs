//! Tickets by themselves: bytes, bindings, keys, time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use proptest::prelude::*;
use rustls::pki_types::UnixTime;

use super::*;

#[derive(Debug)]
struct At(AtomicU64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Relaxed))))
    }
}

/// A clock that never goes back, in milliseconds.
fn steady() -> (Arc<AtomicU64>, SteadyClock) {
    let now_ms = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&now_ms);
    (now_ms, Arc::new(move || clock.load(Relaxed)))
}

fn file(secrets: &[u8]) -> Arc<TicketKeys> {
    Arc::new(TicketKeys::File(secrets.iter().map(|secret| TicketKey::new(&[*secret; 32])).collect()))
}

fn ticketer(keys: &Arc<TicketKeys>, route: u8, now_s: u64) -> Ticketer {
    Ticketer { keys: keys.clone(), binding: Binding::new([route; 32]), clock: Arc::new(At(AtomicU64::new(now_s))) }
}

#[test]
fn a_ticket_opens_where_it_was_given_and_nowhere_else() {
    let keys = file(&[1, 2]);
    let ticket = ticketer(&keys, 1, 1000).encrypt(b"state").unwrap();
    assert_eq!(ticket.len(), NAME_LEN + NONCE_LEN + ISSUED_LEN + 5 + TAG_LEN);
    assert_eq!(ticketer(&keys, 1, 1000).decrypt(&ticket).unwrap(), b"state");
    assert_eq!(ticketer(&file(&[2, 1]), 1, 1000).decrypt(&ticket).unwrap(), b"state", "any key of the ring opens");
    assert_eq!(ticketer(&keys, 2, 1000).decrypt(&ticket), None, "another route");
    assert_eq!(ticketer(&file(&[2]), 1, 1000).decrypt(&ticket), None, "another ring");
}

#[test]
fn random_keys_go_on_in_another_process_for_the_rest_of_their_time() {
    let ((now_ms, clock), (later_ms, later)) = (steady(), steady());
    let (keys, next) = (Arc::new(TicketKeys::random(clock)), Arc::new(TicketKeys::random(later)));
    now_ms.store(TURN_MS - 1_000, Relaxed);
    let ticket = ticketer(&keys, 1, 1000).encrypt(b"state").unwrap();
    assert_eq!(ticketer(&next, 1, 1000).decrypt(&ticket), None);
    let mut secrets = keys.secrets().unwrap();
    secrets.since_ms -= now_ms.load(Relaxed) as i64;
    assert!(next.resume(&secrets));
    assert_eq!(ticketer(&next, 1, 1000).decrypt(&ticket).unwrap(), b"state");
    assert_eq!(ticketer(&keys, 1, 1000).decrypt(&ticketer(&next, 1, 1000).encrypt(b"new").unwrap()).unwrap(), b"new");
    // A second later the key has sealed for as long as it may, though the process is young.
    later_ms.store(1_000, Relaxed);
    let other = ticketer(&next, 1, 1000).encrypt(b"state").unwrap();
    assert_eq!(ticketer(&keys, 1, 1000).decrypt(&other), None, "another key seals");
    assert!(ticketer(&next, 1, 1000).decrypt(&ticket).is_some(), "and the old one opens");
    assert!(!file(&[1]).resume(&secrets), "keys of a file count");
    assert_eq!(file(&[1]).secrets(), None);
}

#[test]
fn a_ticket_opens_in_its_time() {
    let keys = file(&[1]);
    let ticket = ticketer(&keys, 1, 100_000).encrypt(b"state").unwrap();
    let lifetime_s = u64::from(LIFETIME_S);
    for (now_s, opens) in [
        (100_000 - SKEW_S - 1, false),
        (100_000 - SKEW_S, true),
        (100_000 + lifetime_s - 1, true),
        (100_000 + lifetime_s, false),
    ] {
        assert_eq!(ticketer(&keys, 1, now_s).decrypt(&ticket).is_some(), opens, "{now_s}");
    }
}

#[test]
fn random_keys_seal_for_one_turn_and_open_for_two() {
    let (now_ms, clock) = steady();
    let keys = Arc::new(TicketKeys::random(clock));
    let at = |ms: u64| {
        now_ms.store(ms, Relaxed);
        ticketer(&keys, 1, ms / 1_000)
    };
    let first = at(TURN_MS - 1).encrypt(b"first").unwrap();
    let second = at(TURN_MS).encrypt(b"second").unwrap();
    assert_ne!(first[..NAME_LEN], second[..NAME_LEN]);
    assert!(at(2 * TURN_MS - 1).decrypt(&first).is_some());
    assert!(at(2 * TURN_MS).decrypt(&first).is_none());
    assert!(at(2 * TURN_MS).decrypt(&second).is_some());
    let TicketKeys::Random(turning, _) = &*keys else { unreachable!() };
    assert_eq!(turning.read().unwrap().keys.len(), 2);
    // After a long silence nothing of before is left.
    assert!(at(9 * TURN_MS).decrypt(&second).is_none());
    assert_eq!(turning.read().unwrap().keys.len(), 1);
}

#[test]
fn random_keys_turn_also_after_a_wall_clock_that_ran_ahead() {
    let (now_ms, clock) = steady();
    let (year_s, true_s) = (365 * 86_400, 1_000_000);
    let keys = Arc::new(TicketKeys::random(clock));
    let ahead = ticketer(&keys, 1, true_s + year_s).encrypt(b"ahead").unwrap();
    assert!(ticketer(&keys, 1, true_s).decrypt(&ahead).is_none(), "issued in the future");
    let now = ticketer(&keys, 1, true_s).encrypt(b"now").unwrap();
    assert_eq!(ahead[..NAME_LEN], now[..NAME_LEN], "one key so far");
    now_ms.store(TURN_MS, Relaxed);
    let next = ticketer(&keys, 1, true_s + TURN_MS / 1_000).encrypt(b"next").unwrap();
    assert_ne!(now[..NAME_LEN], next[..NAME_LEN]);
    // Nor does a wall clock that jumps turn a key before its time.
    let jumped = ticketer(&keys, 1, true_s + year_s).encrypt(b"jumped").unwrap();
    assert_eq!(next[..NAME_LEN], jumped[..NAME_LEN]);
}

#[test]
fn nothing_secret_is_printed() {
    let keys = file(&[1]);
    assert_eq!(format!("{:?}", ticketer(&keys, 1, 0)), "Ticketer { keys: Keys::File, .. }");
}

proptest! {
    #[test]
    fn one_changed_bit_is_noise(at in any::<prop::sample::Index>(), bit in 0u8..8, state in proptest::collection::vec(any::<u8>(), 0..200)) {
        let ticketer = ticketer(&file(&[1]), 1, 0);
        let mut ticket = ticketer.encrypt(&state).unwrap();
        prop_assert_eq!(ticketer.decrypt(&ticket), Some(state));
        let at = at.index(ticket.len());
        ticket[at] ^= 1 << bit;
        prop_assert_eq!(ticketer.decrypt(&ticket), None);
    }

    #[test]
    fn noise_is_no_ticket(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(ticketer(&file(&[1]), 1, 0).decrypt(&bytes), None);
    }
}
