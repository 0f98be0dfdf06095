//! The rule from outside: what each mode makes of values.

use std::convert::Infallible;
use std::time::Duration;

use super::*;
use crate::config::{Carrier, CookieLifetime, RouteRules, SameSite, Secure};

const KEY: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
const NOW: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn fresh(backend: usize) -> Option<CookieVerdict> {
    Some(CookieVerdict::Fresh { backend, issued: NOW })
}

fn insert() -> CookieMode {
    CookieMode::Insert(config::InsertRules {
        keys: "/keys".into(),
        makes_keys: false,
        max_idle: HOUR,
        max_life: None,
        lifetime: CookieLifetime::Idle,
        domain: None,
        path: "/".to_owned(),
        secure: Secure::Auto,
        http_only: true,
        same_site: SameSite::Lax,
        partitioned: false,
        cross_site_twin: false,
    })
}

fn rule(mode: CookieMode) -> CookieRule {
    let cookie = config::Cookie { name: "SID".to_owned(), mode };
    let read_ring = |path: &Path| {
        assert_eq!(path, Path::new("/keys"));
        Ok::<_, Infallible>(Arc::new(KeyRing::parse(KEY).unwrap()))
    };
    CookieRule::new(&cookie, "web", ["a", "b"], read_ring).unwrap()
}

fn read(rule: &CookieRule, values: &[&str]) -> Option<CookieVerdict> {
    let values = values.iter().map(|value| value.as_bytes());
    rule.read(values, NOW, |_| TableLookup::Unknown).map(|read| read.verdict)
}

#[test]
fn every_mode_reads_its_own_kind_of_value() {
    let former = ["left", "n.1"].map(Arc::from);
    let prefix = rule(CookieMode::Prefix).after(former.clone().into());
    let route = rule(CookieMode::Route(RouteRules::default())).after(former.into());
    let hash = rule(CookieMode::Hash);
    for (rule, value, expected) in [
        (&prefix, "b~31d4", fresh(1)),
        (&prefix, "b~", fresh(1)),
        (&prefix, "left~31d4", Some(CookieVerdict::Removed { former: Some(0) })),
        (&prefix, "never~31d4", Some(CookieVerdict::Unknown)),
        (&prefix, "31d4", None),
        (&route, "31d4.b", fresh(1)),
        (&route, "31d4.left", Some(CookieVerdict::Removed { former: Some(0) })),
        (&route, "31d4.n.1", Some(CookieVerdict::Removed { former: Some(1) })),
        (&route, "31d4.1", Some(CookieVerdict::Unknown)),
        (&route, "31d4.never", Some(CookieVerdict::Unknown)),
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
fn a_valid_value_counts_before_all_that_are_not() {
    let rule = rule(insert());
    let Mode::Insert(insert) = rule.mode() else { panic!("as asked") };
    let sealed = |backend, seen| String::from_utf8(insert.seal(backend, seen, seen, [1; 12]).to_vec()).unwrap();
    let (good, other, old) = (sealed(0, NOW), sealed(1, NOW), sealed(1, NOW - 5000));
    assert_eq!(read(&rule, &[]), None);
    assert_eq!(read(&rule, &["", &old]), Some(CookieVerdict::Forged), "of those that are not, the first");
    assert_eq!(
        read(&rule, &[&old, "x", &good, &other]),
        fresh(1),
        "sealed in the same second, the older is listed first"
    );
    let many: Vec<_> = std::iter::repeat_n("x", VALUES_MAX).chain([good.as_str()]).collect();
    assert_eq!(read(&rule, &many), Some(CookieVerdict::Forged), "a client cannot make us open hundreds");
}

/// A browser keeps the cookie of an earlier path or domain beside the present one, and sends the longer path first.
#[test]
fn of_several_valid_values_the_one_sealed_last_counts() {
    let rule = rule(insert());
    let Mode::Insert(insert) = rule.mode() else { panic!("as asked") };
    let sealed =
        |backend, issued, seen| String::from_utf8(insert.seal(backend, issued, seen, [1; 12]).to_vec()).unwrap();
    let (early, late) = (sealed(0, NOW - 10, NOW - 10), sealed(1, NOW - 50, NOW - 5));
    for values in [[&*early, &late], [&late, &early]] {
        let read = rule.read(values.iter().map(|value| value.as_bytes()), NOW, |_| TableLookup::Unknown).unwrap();
        let verdict = CookieVerdict::Fresh { backend: 1, issued: NOW - 50 };
        assert_eq!(read, ReadValue { verdict, value: late.as_bytes() }, "it was placed earlier and renewed later");
    }
    // A value that is no longer valid does not count, whenever it was sealed.
    let gone = String::from_utf8(insert.seal(7, NOW, NOW, [1; 12]).to_vec()).unwrap();
    assert_eq!(read(&rule, &[&gone, &early]).and_then(CookieVerdict::backend), Some(0));
    assert_eq!(read(&rule, &[&early, &gone]).and_then(CookieVerdict::backend), Some(0));
    // The value of a tier behind comes from the value that counts.
    let behind = sealed(0, NOW, NOW);
    let (early, late) = (format!("{early}.{}", sealed(1, NOW, NOW)), format!("{late}.{behind}"));
    let values = [early.as_bytes(), late.as_bytes()];
    let inner = rule.read(values, NOW, |_| TableLookup::Unknown).unwrap().inner();
    assert_eq!(inner, Some(behind.as_bytes()));
}

#[test]
fn a_key_file_that_cannot_be_read_is_the_callers_to_tell() {
    let read_ring = |_: &Path| Err("no such file");
    let cookie = config::Cookie { name: "SESSILE".to_owned(), mode: insert() };
    assert_eq!(CookieRule::new(&cookie, "web", ["a"], read_ring).unwrap_err(), "no such file");
}

#[test]
fn a_learned_value_means_what_is_remembered_of_it() {
    let rule = rule(CookieMode::Learn { remember: HOUR, carrier: Carrier::Cookie });
    let recall = |value: &[u8]| match value {
        b"of-a" => TableLookup::At(0, EntryKind::Learned),
        b"of-b" => TableLookup::At(1, EntryKind::Learned),
        b"guest" => TableLookup::At(0, EntryKind::Brought),
        b"other-guest" => TableLookup::At(1, EntryKind::Brought),
        b"of-one-that-left" => TableLookup::Gone(Some(2)),
        _ => TableLookup::Unknown,
    };
    let counts = |values: &[&'static str]| rule.read(values.iter().map(|value| value.as_bytes()), NOW, recall);
    let read = |values: &[&'static str]| counts(values).map(|read| read.verdict);
    assert_eq!(read(&["31d4"]), None);
    assert_eq!(read(&["31d4", "of-b", "of-a"]), fresh(1));
    assert_eq!(read(&["of-one-that-left"]), Some(CookieVerdict::Removed { former: Some(2) }));
    assert_eq!(read(&["of-one-that-left", "of-a"]), fresh(0));
    // A value that only clients brought may be shared by many: what a backend has set counts first.
    assert_eq!(read(&["guest", "of-b"]), fresh(1));
    assert_eq!(counts(&["31d4", "guest", "of-b"]).map(|read| read.value), Some(&b"of-b"[..]));
    assert_eq!(read(&["guest", "other-guest"]), fresh(0));
    assert_eq!(read(&["of-one-that-left", "other-guest"]), fresh(1));
}

#[test]
fn every_verdict_has_its_word_and_only_a_known_backend_can_be_lost() {
    use BreakCause::{Expired, Removed};
    let left = |had, cause| Some(Left { had, cause });
    for (verdict, word, backend, left) in [
        (CookieVerdict::Fresh { backend: 1, issued: 0 }, "fresh", Some(1), None),
        (CookieVerdict::Due { backend: 1, issued: 0 }, "due", Some(1), None),
        (CookieVerdict::Expired { backend: Some(1) }, "expired", None, left(Had::Backend(1), Expired)),
        (CookieVerdict::Expired { backend: None }, "expired", None, left(Had::Nameless, Expired)),
        (CookieVerdict::Forged, "forged", None, None),
        (CookieVerdict::OtherPool, "other_pool", None, None),
        (CookieVerdict::FormerPool { backend: Some(1) }, "former_pool", None, left(Had::Backend(1), Removed)),
        (CookieVerdict::Removed { former: None }, "removed", None, left(Had::Nameless, Removed)),
        (CookieVerdict::Removed { former: Some(3) }, "removed", None, left(Had::Former(3), Removed)),
        (CookieVerdict::Unknown, "unknown", None, None),
    ] {
        assert_eq!((verdict.word(), verdict.backend(), verdict.left()), (word, backend, left));
    }
}
