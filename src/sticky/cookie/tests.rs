//! The rule from outside: what each mode makes of values, and what a new snapshot keeps.

use std::convert::Infallible;
use std::time::Duration;

use super::*;
use crate::config::{SameSite, Secure};

const KEY: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn fresh(backend: usize) -> Option<Verdict> {
    Some(Verdict::Fresh { backend, issued: NOW })
}

fn insert() -> CookieMode {
    CookieMode::Insert(config::Insert {
        keys: "/keys".into(),
        max_idle: HOUR,
        max_life: None,
        domain: None,
        path: "/".to_owned(),
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        partitioned: false,
    })
}

fn rule_after(previous: Option<&Rule>, mode: CookieMode, backends: &[&str]) -> Rule {
    let cookie = config::Cookie { name: "SID".to_owned(), mode };
    let read_ring = |path: &Path| {
        assert_eq!(path, Path::new("/keys"));
        Ok::<_, Infallible>(Arc::new(KeyRing::parse(KEY).unwrap()))
    };
    Rule::new(&cookie, "web", backends.iter().copied(), previous, [5; 16], read_ring).unwrap()
}

fn rule(mode: CookieMode) -> Rule {
    rule_after(None, mode, &["a", "b"])
}

fn read(rule: &Rule, values: &[&str]) -> Option<Verdict> {
    rule.read(values.iter().map(|value| value.as_bytes()), NOW)
}

#[test]
fn every_mode_reads_its_own_kind_of_value() {
    let prefix = rule(CookieMode::Prefix);
    let route = rule(CookieMode::Route);
    let hash = rule(CookieMode::Hash);
    for (rule, value, expected) in [
        (&prefix, "b~31d4", fresh(1)),
        (&prefix, "b~", fresh(1)),
        (&prefix, "gone~31d4", Some(Verdict::Removed)),
        (&prefix, "31d4", None),
        (&route, "31d4.b", fresh(1)),
        (&route, "31d4.gone", Some(Verdict::Removed)),
        (&route, "31d4", None),
        (&hash, "31d4", None),
    ] {
        assert_eq!(read(rule, &[value]), expected, "{value}");
    }
    assert_eq!(hash.key(), [KeyPart::Cookie("SID".into())]);
    assert!(prefix.key().is_empty());
    assert_eq!((prefix.prefix(1), prefix.prefix(2), route.prefix(1)), (Some("b~"), None, None));
    assert_eq!(prefix.name(), "SID");
}

#[test]
fn the_first_valid_of_several_values_counts() {
    let rule = rule(insert());
    let Mode::Insert(insert) = rule.mode() else { panic!("as asked") };
    let sealed = |backend, seen| String::from_utf8(insert.seal(backend, seen, seen, [1; 12]).to_vec()).unwrap();
    let (good, other, old) = (sealed(0, NOW), sealed(1, NOW), sealed(1, NOW - 5000));
    assert_eq!(read(&rule, &[]), None);
    assert_eq!(read(&rule, &["", &old]), Some(Verdict::Forged), "of those that are not, the first");
    assert_eq!(read(&rule, &[&old, "x", &good, &other]), fresh(0));
    let many: Vec<_> = std::iter::repeat_n("x", VALUES_MAX).chain([good.as_str()]).collect();
    assert_eq!(read(&rule, &many), Some(Verdict::Forged), "a client cannot make us open hundreds");
}

#[test]
fn a_key_file_that_cannot_be_read_is_the_callers_to_tell() {
    let read_ring = |_: &Path| Err("no such file");
    let cookie = config::Cookie { name: "SESSILE".to_owned(), mode: insert() };
    assert_eq!(Rule::new(&cookie, "web", ["a"], None, [0; 16], read_ring).unwrap_err(), "no such file");
}

#[test]
fn a_learned_value_leads_back_until_the_application_ends_it() {
    let rule = rule(CookieMode::Learn { remember: HOUR });
    assert_eq!(read(&rule, &["31d4"]), None);
    rule.placed(b"31d4", 0, NOW);
    assert_eq!(read(&rule, &["31d4"]), fresh(0));
    rule.answered(SetByBackend::Value(b"77ab"), Some(b"31d4"), 1, NOW);
    assert_eq!((read(&rule, &["31d4"]), read(&rule, &["77ab"])), (fresh(0), fresh(1)));
    assert_eq!(read(&rule, &["unknown", "77ab"]), fresh(1));
    rule.answered(SetByBackend::Ended, Some(b"77ab"), 1, NOW);
    assert_eq!(read(&rule, &["77ab"]), None);
    rule.touch(b"31d4", NOW + 3600);
    assert_eq!(rule.read([&b"31d4"[..]], NOW + 7200).and_then(Verdict::backend), Some(0));
    assert_eq!(rule.read([&b"31d4"[..]], NOW + 7201), None);
}

#[test]
fn nothing_is_learned_of_an_empty_value_or_in_another_mode() {
    let learn = rule(CookieMode::Learn { remember: HOUR });
    learn.placed(b"", 0, NOW);
    learn.placed(b"31d4", 7, NOW);
    let Mode::Learn(learned) = learn.mode() else { panic!("as asked") };
    assert!(learned.is_empty());
    let prefix = rule(CookieMode::Prefix);
    prefix.answered(SetByBackend::Value(b"31d4"), None, 0, NOW);
    assert_eq!(read(&prefix, &["31d4"]), None);
}

#[test]
fn a_new_snapshot_keeps_what_was_learned_by_name() {
    let old = rule(CookieMode::Learn { remember: HOUR });
    old.placed(b"of-a", 0, NOW);
    old.placed(b"of-b", 1, NOW);
    let new = rule_after(Some(&old), CookieMode::Learn { remember: 2 * HOUR }, &["c", "b"]);
    assert_eq!(read(&new, &["of-b"]), fresh(1));
    assert_eq!(read(&new, &["of-a"]), Some(Verdict::Removed), "and never leads to a successor in its place");
    assert_eq!(new.read([&b"of-b"[..]], NOW + 7200).and_then(Verdict::backend), Some(1), "for the new time");
    let other_mode = rule_after(Some(&rule(CookieMode::Route)), CookieMode::Learn { remember: HOUR }, &["b"]);
    assert_eq!(read(&other_mode, &["of-b"]), None);
}

#[test]
fn every_verdict_has_its_word() {
    let all = [
        Verdict::Fresh { backend: 0, issued: 0 },
        Verdict::Due { backend: 0, issued: 0 },
        Verdict::Expired,
        Verdict::Forged,
        Verdict::OtherPool,
        Verdict::Removed,
    ];
    let words = ["fresh", "due", "expired", "forged", "other_pool", "removed"];
    assert_eq!(all.map(Verdict::word), words);
    assert_eq!(all.map(|verdict| verdict.backend().is_some()), [true, true, false, false, false, false]);
}
