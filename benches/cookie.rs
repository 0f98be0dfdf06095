//! Cost of the balancer's own cookie: `cargo bench --bench cookie`.
//!
//! Measures no head. Invariant: every case is checked once, before it is timed, to answer what its name says.

use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use sessile::config::{self, CookieLifetime, SameSite, Secure};
use sessile::sticky::cookie::names::Names;
use sessile::sticky::cookie::{CookieVerdict, Insert, Issue, KeyRing, Nonce, Nonces};

const NOW: u64 = 1_800_000_000;
const KEYS: [&str; 3] = [
    "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210",
    "1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c",
    "a81b0c3d5e7f9a2b4c6d8e0f1a2b3c4d5e6f708192a3b4c5d6e7f80912a3b4c5",
];

fn main() {
    divan::main();
}

/// The cookie of a pool of 100 backends, with these keys.
fn insert(keys: &[&str]) -> Insert {
    let config = config::InsertRules {
        keys: "/etc/sessile/cookie.keys".into(),
        makes_keys: false,
        max_idle: Duration::from_secs(86_400),
        max_life: None,
        lifetime: CookieLifetime::Idle,
        domain: None,
        path: "/".to_owned(),
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        partitioned: false,
        cross_site_twin: false,
    };
    let names: Vec<_> = (0..100).map(|n| format!("backend-{n}")).collect();
    let names = Arc::new(Names::new(names.iter().map(String::as_str)));
    let ring = KeyRing::parse(&keys.join("\n")).expect("good keys");
    Insert::new("SESSILE", &config, "web", names, Arc::new(ring))
}

fn nonce() -> Nonce {
    let mut nonce = Nonce::default();
    aws_lc_rs::rand::fill(&mut nonce).expect("random bytes");
    nonce
}

#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let insert = insert(&KEYS);
    let nonce = nonce();
    bencher.bench(|| insert.seal(black_box(7), NOW, NOW, black_box(nonce)));
}

#[divan::bench]
fn nonce_drawn_alone(bencher: Bencher<'_, '_>) {
    bencher.bench(nonce);
}

#[divan::bench]
fn nonce_drawn_in_advance(bencher: Bencher<'_, '_>) {
    let mut nonces = Nonces::new();
    bencher.bench_local(|| nonces.next(aws_lc_rs::rand::fill));
}

#[divan::bench]
fn write_the_whole_set_cookie_with_its_nonce(bencher: Bencher<'_, '_>) {
    let insert = insert(&KEYS);
    let mut out = Vec::with_capacity(1024);
    let mut nonces = Nonces::new();
    bencher.bench_local(|| {
        out.clear();
        let nonce = nonces.next(aws_lc_rs::rand::fill).expect("random bytes");
        let issue = Issue { backend: black_box(7), issued: NOW, inner: None };
        insert.write(&mut out, issue, NOW, true, nonce);
        out.len()
    });
}

#[divan::bench(args = [0, 1, 2])]
fn open_with_key_number(bencher: Bencher<'_, '_>, number: usize) {
    let value = insert(&KEYS[number..]).seal(7, NOW, NOW, nonce());
    let insert = insert(&KEYS);
    assert_eq!(insert.open(&value, NOW).backend(), Some(7));
    bencher.bench(|| insert.open(black_box(&value), NOW));
}

#[divan::bench]
fn refuse_a_changed_value(bencher: Bencher<'_, '_>) {
    let insert = insert(&KEYS);
    let mut value = insert.seal(7, NOW, NOW, nonce());
    value[70] = if value[70] == b'A' { b'B' } else { b'A' };
    assert_eq!(insert.open(&value, NOW), CookieVerdict::Forged);
    bencher.bench(|| insert.open(black_box(&value), NOW));
}

#[divan::bench]
fn refuse_what_no_key_is_named_by(bencher: Bencher<'_, '_>) {
    let insert = insert(&KEYS);
    let value = [b'A'; 76];
    assert_eq!(insert.open(&value, NOW), CookieVerdict::Forged);
    bencher.bench(|| insert.open(black_box(&value), NOW));
}
