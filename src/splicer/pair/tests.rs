//! What travels of a pair.

use super::*;

fn facts() -> PairFacts {
    PairFacts {
        id: 7,
        listener: "web".into(),
        pool: "app".into(),
        backend: "a".into(),
        address: "192.0.2.1:80".into(),
        client: Some("198.51.100.7:4711".parse().unwrap()),
        sni: Some("www.example.org".into()),
        reason: Some("stick_table".into()),
        attempts: 1,
        connect_us: 250,
        age_us: 3_000_000,
        idle_us: 1_000_000,
        entry: Some(EntryFacts { key: 1 << 63, kind: "placed".into() }),
        idle_limit_ms: 60_000,
        up: WayFacts { bytes: 10, owed: 3, ..WayFacts::default() },
        down: WayFacts { bytes: 20, end_seen: true, end_sent: true, ..WayFacts::default() },
        ..PairFacts::default()
    }
}

/// Another version may be on either side: these words are a promise.
#[test]
fn the_words_of_a_pair_are_as_agreed() {
    let agreed = concat!(
        r#"{"id":7,"listener":"web","pool":"app","backend":"a","address":"192.0.2.1:80","client":"198.51.100.7:4711","#,
        r#""local":false,"sni":"www.example.org","ech":false,"reason":"stick_table","attempts":1,"connect_us":250,"#,
        r#""age_us":3000000,"idle_us":1000000,"tuned":false,"entry":{"key":9223372036854775808,"kind":"placed"},"#,
        r#""idle_limit_ms":60000,"half_close_limit_ms":0,"lifetime_ms":0,"tune_ms":0,"#,
        r#""up":{"bytes":10,"owed":3,"end_seen":false,"end_sent":false},"#,
        r#""down":{"bytes":20,"owed":0,"end_seen":true,"end_sent":true}}"#
    );
    assert_eq!(serde_json::to_string(&facts()).unwrap(), agreed);
    assert_eq!(serde_json::from_str::<PairFacts>(agreed).unwrap(), facts());
}

#[test]
fn what_is_missing_has_its_default_and_what_is_unknown_is_skipped() {
    let read: PairFacts = serde_json::from_str(r#"{"id":3,"pool":"app","colour":"blue","up":{"bytes":9}}"#).unwrap();
    let up = WayFacts { bytes: 9, ..WayFacts::default() };
    assert_eq!(read, PairFacts { id: 3, pool: "app".into(), up, ..PairFacts::default() });
}
