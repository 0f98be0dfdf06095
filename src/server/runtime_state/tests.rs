//! The document by itself: what comes back, what is refused, what time does to it.

use std::sync::Arc;

use super::*;
use crate::admission::Admission;
use crate::pool::{AdminState, Health};
use crate::{config, snapshot};

/// A start of the process: a moment on both clocks.
const NOW_MS: u64 = 50_000;
const UNIX_MS: u64 = 1_700_000_000_000;

/// The next process: its clock begins anew, and 40 s have passed.
const LATER_MS: u64 = 1_000;
const LATER_UNIX_MS: u64 = UNIX_MS + 40_000;

const CHECK: &str = "[pool.check]\nrise = 2\nfall = 1\n";

/// A pool `web` with these backends, at ports from 1 on.
fn snapshot_of(names: &[&str], options: &str) -> Snapshot {
    let backends = names.iter().enumerate().map(|(index, name)| {
        let port = index + 1;
        format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n")
    });
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
         [[pool]]\nname = \"web\"\ndrain_deadline = \"1m\"\nslow_start = \"1m\"\n{options}{}{CHECK}",
        backends.collect::<String>()
    );
    let config = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap().config;
    let loaded = snapshot::LoadedFiles {
        tls: crate::tls::Termination::load(&config, None, crate::clock::now_ms).unwrap().into(),
        ..Default::default()
    };
    Snapshot::build(config, loaded, None, 1, &Arc::new(Admission::new(1)))
}

fn three() -> Snapshot {
    snapshot_of(&["a", "b", "c"], "")
}

fn order(snapshot: &Snapshot, backend: &str, order: AdminState, now_ms: u64) {
    assert!(snapshot.pools[0].order(backend, order, now_ms));
}

fn eject(snapshot: &Snapshot, index: usize, now_ms: u64) {
    let pool = &snapshot.pools[0];
    assert!((0..3).any(|_| pool.connect_failed(&pool.backends()[index], now_ms).is_some()));
}

fn check(snapshot: &Snapshot, index: usize, good: bool, now_ms: u64) {
    let pool = &snapshot.pools[0];
    let rules = pool.config().check.as_ref().unwrap();
    pool.backends()[index].checked(
        if good { Ok(()) } else { Err("no answer") },
        rules,
        pool.config().on_marked_down,
        now_ms,
    );
}

/// The state of one process, put into the next one; what was said.
fn restart(state: &RuntimeState, next: &Snapshot) -> Vec<String> {
    let read = RuntimeState::from_json(&state.to_json()).unwrap();
    assert_eq!(read, *state);
    read.apply(next, LATER_MS, LATER_UNIX_MS)
}

#[test]
fn a_drain_goes_on_as_if_the_process_had_run_on() {
    let (before, next) = (three(), three());
    order(&before, "a", AdminState::Drain, NOW_MS - 10_000);
    order(&before, "c", AdminState::Close, NOW_MS - 10_000);
    let state = RuntimeState::of(&before, NOW_MS, UNIX_MS);
    let said = restart(&state.for_file(), &next);
    let [a, b, c] = [0, 1, 2].map(|index| &next.pools[0].backends()[index]);
    assert!(a.draining() && c.draining() && !b.draining());
    // 10 s before the end of the first process and 40 s since.
    assert_eq!(a.draining_for(LATER_MS), Some(50_000), "since before this process began");
    assert!(!a.drained(LATER_MS + 9_999) && a.drained(LATER_MS + 10_000));
    assert_eq!(c.drained_for(LATER_MS), Some(50_000));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("web/a: draining") && said[0].contains("for 10 s more"), "{said:?}");
    assert!(said[1].contains("web/c: drained") && said[1].contains("sessile ready web/c"), "{said:?}");
}

#[test]
fn a_deadline_that_passed_meanwhile_has_passed() {
    let (before, next) = (three(), three());
    order(&before, "a", AdminState::Drain, NOW_MS - 30_000);
    restart(&RuntimeState::of(&before, NOW_MS, UNIX_MS).for_file(), &next);
    let a = &next.pools[0].backends()[0];
    assert!(a.drained(LATER_MS) && a.runtime_word(LATER_MS) == Some("drained"));
    assert_eq!(a.drained_for(LATER_MS), Some(10_000));
    // A third process knows the same.
    let third = three();
    let state = RuntimeState::of(&next, LATER_MS + 5_000, LATER_UNIX_MS + 5_000).for_file();
    state.apply(&third, 1_000, LATER_UNIX_MS + 5_000);
    assert_eq!(third.pools[0].backends()[0].drained_for(1_000), Some(15_000));
    assert_eq!(third.pools[0].backends()[0].draining_for(1_000), Some(75_000));
}

#[test]
fn a_wall_clock_that_was_set_back_lengthens_nothing() {
    let (before, next) = (three(), three());
    order(&before, "a", AdminState::Drain, NOW_MS);
    eject(&before, 1, NOW_MS);
    let state = RuntimeState::of(&before, NOW_MS, UNIX_MS).for_file();
    state.apply(&next, LATER_MS, UNIX_MS - 86_400_000);
    let [a, b] = [0, 1].map(|index| &next.pools[0].backends()[index]);
    assert_eq!(a.draining_for(LATER_MS), Some(0));
    assert!(a.drained(LATER_MS + 60_000), "no longer than drain_deadline");
    assert_eq!(b.health(LATER_MS + 299_999), Health::Ejected);
    assert_eq!(b.health(LATER_MS + 300_000), Health::Usable, "no longer than eject.max");
}

#[test]
fn an_ejection_lasts_its_time_and_the_next_one_is_longer() {
    let (before, next) = (three(), three());
    eject(&before, 0, NOW_MS);
    eject(&before, 0, NOW_MS + 10_000);
    eject(&before, 0, NOW_MS + 30_000); // for 40 s, until 30 s after the restart
    let said = restart(&RuntimeState::of(&before, NOW_MS + 40_000, UNIX_MS + 40_000).for_file(), &next);
    assert_eq!(said, ["backend web/a stays ejected for 30 s"]);
    let (pool, a) = (&next.pools[0], &next.pools[0].backends()[0]);
    assert_eq!(a.health(LATER_MS + 29_999), Health::Ejected);
    assert_eq!(a.health(LATER_MS + 30_000), Health::Usable);
    let length = (0..3).find_map(|_| pool.connect_failed(a, LATER_MS + 30_000));
    assert_eq!(length.map(|length| length.as_secs()), Some(80));
}

#[test]
fn ejections_that_were_over_before_are_forgotten_in_time() {
    let (before, next) = (three(), three());
    for times in 0..3 {
        eject(&before, 0, NOW_MS + times * 50_000);
    }
    // Twice eject.max of service before the next process begins, so two of three ejections do not count any more.
    let over_ms = NOW_MS + 140_000 + 600_000;
    RuntimeState::of(&before, over_ms, UNIX_MS).apply(&next, LATER_MS, UNIX_MS);
    let (pool, a) = (&next.pools[0], &next.pools[0].backends()[0]);
    assert_eq!((0..3).find_map(|_| pool.connect_failed(a, LATER_MS)).map(|length| length.as_secs()), Some(20));
}

#[test]
fn failures_in_a_row_go_on() {
    let (before, next) = (three(), three());
    let pool = &before.pools[0];
    assert!((0..2).all(|_| pool.connect_failed(&pool.backends()[0], NOW_MS).is_none()));
    restart(&RuntimeState::of(&before, NOW_MS, UNIX_MS), &next);
    let pool = &next.pools[0];
    assert!(pool.connect_failed(&pool.backends()[0], LATER_MS).is_some(), "the third in a row");
}

#[test]
fn an_ejection_keeps_the_ceilings_of_the_new_configuration() {
    let before = three();
    eject(&before, 0, NOW_MS + 35_000);
    let state = RuntimeState::of(&before, NOW_MS + 40_000, UNIX_MS + 40_000);
    for (names, options) in [(&["a"][..], ""), (&["a", "b", "c"], "eject = \"off\"\n")] {
        let next = snapshot_of(names, options);
        let said = restart(&state, &next);
        assert!(said.iter().any(|line| line.contains("web/a was ejected and gets connections again")), "{said:?}");
        assert!(next.pools[0].backends()[0].usable(LATER_MS), "{names:?} {options}");
    }
}

#[test]
fn a_ready_backend_leaves_nothing() {
    let before = three();
    order(&before, "a", AdminState::Drain, NOW_MS);
    order(&before, "a", AdminState::Ready, NOW_MS + 1);
    assert!(RuntimeState::of(&before, NOW_MS + 2, UNIX_MS).for_file().is_empty());
}

#[test]
fn a_backend_that_is_gone_is_named_and_the_others_go_on() {
    let before = snapshot_of(&["gone", "a"], "");
    order(&before, "gone", AdminState::Drain, NOW_MS);
    order(&before, "a", AdminState::Drain, NOW_MS);
    let mut state = RuntimeState::of(&before, NOW_MS, UNIX_MS);
    state.pools.push(RuntimePool {
        name: "old".into(),
        backends: state.pools[0].backends.clone(),
        found: vec![],
        named: vec![],
        orders: vec![],
    });
    let next = three();
    let said = restart(&state, &next);
    assert!(next.pools[0].backends()[0].draining());
    for name in ["web/gone", "old/gone", "old/a"] {
        assert!(said.iter().any(|line| line.contains(&format!("{name} is gone"))), "{name}: {said:?}");
    }
}

#[test]
fn a_backend_at_another_address_keeps_its_drain_and_nothing_else() {
    let before = three();
    order(&before, "a", AdminState::Drain, NOW_MS);
    eject(&before, 0, NOW_MS + 35_000);
    check(&before, 0, false, NOW_MS);
    let state = RuntimeState::of(&before, NOW_MS, UNIX_MS);
    let next = snapshot_of(&["b", "a"], "");
    restart(&state, &next);
    let a = &next.pools[0].backends()[1];
    assert!(a.draining() && a.usable(LATER_MS) && a.standing() == CheckState::Unchecked);
    let next = three();
    restart(&state, &next);
    let a = &next.pools[0].backends()[0];
    assert!(a.draining() && a.standing() == CheckState::Down);
}

#[test]
fn checks_go_over_an_upgrade_and_are_in_no_file() {
    let (before, next, fresh) = (three(), three(), three());
    for (index, results) in [(0, &[true][..]), (1, &[false]), (2, &[true, false, true, true, false, true, true, true])]
    {
        let times = (0..).step_by(1_000).map(|ms| NOW_MS - 20_000 + ms);
        results.iter().zip(times).for_each(|(good, now_ms)| check(&before, index, *good, now_ms));
    }
    let words = |snapshot: &Snapshot, now_ms| {
        let backends = snapshot.pools[0].backends().iter();
        backends.map(|backend| (backend.state_word(now_ms), backend.complaint())).collect::<Vec<_>>()
    };
    let whole = RuntimeState::of(&before, NOW_MS, UNIX_MS);
    assert!(whole.for_file().is_empty(), "{:?}", whole.for_file());
    let said = restart(&whole, &next);
    assert_eq!(words(&next, LATER_MS), words(&before, NOW_MS));
    assert_eq!(words(&next, LATER_MS).iter().map(|(word, _)| *word).collect::<Vec<_>>(), ["up", "down", "damped"]);
    assert!(said.iter().any(|line| line.contains("checks of 3 backends")), "{said:?}");
    // Counts go on: one good check more, and the damped one is up; the one that is down needs two.
    check(&next, 2, true, LATER_MS);
    check(&next, 1, true, LATER_MS);
    assert_eq!(
        (next.pools[0].backends()[2].standing(), next.pools[0].backends()[1].standing()),
        (CheckState::Up, CheckState::Down)
    );
    restart(&whole.for_file(), &fresh);
    assert!(words(&fresh, LATER_MS).iter().all(|(word, _)| *word == "unchecked"));
}

#[test]
fn a_backend_that_is_up_for_long_has_not_flapped() {
    // Up again ten minutes before the upgrade, which is before the next process began.
    let (before, next) = (three(), three());
    [true, false, true, true].into_iter().for_each(|good| check(&before, 0, good, NOW_MS));
    let upgraded_ms = NOW_MS + 600_000;
    RuntimeState::of(&before, upgraded_ms, UNIX_MS).apply(&next, LATER_MS, UNIX_MS);
    let needed = |snapshot: &Snapshot, now_ms| {
        check(snapshot, 0, false, now_ms);
        (1..).find(|_| {
            check(snapshot, 0, true, now_ms);
            snapshot.pools[0].backends()[0].standing() == CheckState::Up
        })
    };
    assert_eq!(needed(&next, LATER_MS), Some(2), "as in the process before: {:?}", needed(&before, upgraded_ms));
    assert_eq!(needed(&next, LATER_MS + 1), Some(4), "this is a flap");
}

#[test]
fn a_slow_start_goes_on() {
    let (before, next) = (three(), three());
    [true, false, true, true].into_iter().for_each(|good| check(&before, 0, good, NOW_MS));
    RuntimeState::of(&before, NOW_MS + 30_000, UNIX_MS).apply(&next, LATER_MS, UNIX_MS);
    let rose_ms = next.pools[0].backends()[0].check_results().rose_ms;
    assert_eq!(rose_ms, Some(LATER_MS as i64 - 30_000));
}

#[test]
fn ticket_keys_go_over_an_upgrade_and_are_in_no_file() {
    let (before, next) = (three(), three());
    let secrets = |snapshot: &Snapshot| snapshot.tls.ticket_secrets().unwrap().secrets;
    let state = RuntimeState::of(&before, NOW_MS, UNIX_MS);
    let digits = data_encoding::HEXLOWER.encode(&secrets(&before)[0]);
    assert!(state.to_json().contains(&digits) && !state.for_file().to_json().contains(&digits));
    assert!(!format!("{state:?}").contains(&digits), "nor in a log");
    assert_ne!(secrets(&before), secrets(&next));
    let said = restart(&state, &next);
    assert_eq!(secrets(&before), secrets(&next));
    assert!(said.iter().any(|line| line.contains("keys of session tickets")), "{said:?}");
    // What is no key is left out, and the next process keeps its own.
    for keys in [vec![], vec!["00".to_owned()], vec!["0".repeat(64); 17]] {
        let other = three();
        let own = secrets(&other);
        let tickets = Some(RuntimeTickets { since_unix_ms: 0, keys });
        RuntimeState { tickets, ..state.clone() }.apply(&other, LATER_MS, LATER_UNIX_MS);
        assert_eq!(secrets(&other), own);
    }
}

#[test]
fn an_open_breaker_of_the_store_goes_over_an_upgrade_and_is_in_no_file() {
    let store = Store::new(Arc::new(crate::snapshot::Current::new(Arc::new(three()))));
    assert_eq!(RuntimeState::of(&three(), NOW_MS, UNIX_MS).with_store(&store).store, None, "there is no store");
    let away = RuntimeStore { place: "redis://10.0.0.1:6379".into(), complaint: "timed out".into() };
    let state = RuntimeState { store: Some(away.clone()), ..RuntimeState::of(&three(), NOW_MS, UNIX_MS) };
    let text = state.to_json();
    assert!(
        text.contains("\"store\": {\n    \"place\": \"redis://10.0.0.1:6379\",\n    \"complaint\": \"timed out\"\n  }")
    );
    assert_eq!(state.for_file().store, None);
    let read = RuntimeState::from_json(&text).unwrap();
    read.resume_store(&store);
    assert_eq!(RuntimeState::default().with_store(&store).store, Some(away), "before it is tried again");
}

/// The first format: a text as the first version wrote it, which every later version reads.
const FIRST: &str = r#"{
  "version": 1,
  "written_unix_ms": 1700000000000,
  "pools": [
    {
      "name": "web",
      "backends": [
        {
          "name": "a",
          "address": "127.0.0.1:1",
          "drain": {
            "since_unix_ms": 1699999990000,
            "deadline_unix_ms": 1700000050000
          },
          "ejection": {
            "until_unix_ms": 1700000005000,
            "count": 1,
            "failures": 0
          },
          "checks": {
            "state": "down",
            "against": 1,
            "damping": 2,
            "rose_unix_ms": 1699999980000,
            "slow_start_unix_ms": 1699999980000,
            "complaint": "answers, held down by flap_damping: 1 of 4 good checks"
          }
        }
      ]
    }
  ],
  "tickets": {
    "since_unix_ms": 1699999950000,
    "keys": [
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    ]
  }
}"#;

#[test]
fn the_first_format_is_read_and_written_as_ever() {
    let read = RuntimeState::from_json(FIRST).unwrap();
    assert_eq!(read.to_json(), FIRST);
    let snapshot = three();
    read.apply(&snapshot, NOW_MS, UNIX_MS);
    let a = &snapshot.pools[0].backends()[0];
    assert_eq!(
        (a.draining_for(NOW_MS), a.drained(NOW_MS + 49_999), a.drained(NOW_MS + 50_000)),
        (Some(10_000), false, true)
    );
    assert_eq!((a.ejection().count, a.ejection().until_ms), (1, NOW_MS as i64 + 5_000));
    assert_eq!((a.standing(), a.check_results().history.damping), (CheckState::Down, 2));
    let mut again = RuntimeState::of(&snapshot, NOW_MS, UNIX_MS);
    let of_a = &mut again.pools[0].backends[0];
    let since = [
        of_a.ejection.as_mut().and_then(|ejection| ejection.since_unix_ms.take()),
        of_a.checks.as_mut().and_then(|checks| checks.since_unix_ms.take()),
    ];
    assert!(since.iter().all(Option::is_some), "the first format does not say since when a state is: {since:?}");
    assert_eq!(again, read, "and comes out of a process as it went in");
}

#[test]
fn fields_of_later_versions_are_skipped_and_missing_ones_have_a_default() {
    let later = FIRST
        .replace("\"version\": 1,", "\"version\": 1, \"weights\": [{\"a\": 3}],")
        .replace("\"count\": 1,", "\"count\": 1, \"cause\": null,")
        .replace("\"state\": \"down\"", "\"state\": \"resting\"");
    let snapshot = three();
    RuntimeState::from_json(&later).unwrap().apply(&snapshot, NOW_MS, UNIX_MS);
    let a = &snapshot.pools[0].backends()[0];
    assert!(a.draining() && a.ejection().count == 1);
    assert_eq!(a.standing(), CheckState::Unchecked, "a word that is not known");
    for little in [
        r#"{"version":1}"#,
        r#"{"version":1,"pools":[{}]}"#,
        r#"{"version":1,"pools":[{"name":"web","backends":[{},{"name":"a"},{"name":"b","drain":{},"ejection":{},"checks":{}}]}]}"#,
    ] {
        let snapshot = three();
        RuntimeState::from_json(little).unwrap().apply(&snapshot, NOW_MS, UNIX_MS);
        assert!(snapshot.pools[0].backends().iter().all(|backend| backend.usable(NOW_MS)), "{little}");
        assert!(!snapshot.pools[0].backends()[0].draining());
    }
}

#[test]
fn another_format_and_what_is_no_state_are_refused_with_a_reason() {
    for (text, why) in [
        ("", "is no runtime state"),
        ("[]", "is no runtime state"),
        ("{}", "has no version"),
        ("{\"version\":2}", "has the format 2; this sessile reads format 1"),
        ("{\"version\":-1}", "is no runtime state"),
        ("{\"version\":4294967297}", "has the format 4294967297"),
    ] {
        let refused = RuntimeState::from_json(text).unwrap_err();
        assert!(refused.contains(why), "{text}: {refused}");
    }
    assert!(
        (1..FIRST.len())
            .filter(|end| FIRST.is_char_boundary(*end))
            .all(|end| RuntimeState::from_json(&FIRST[..end]).is_err())
    );
}

#[test]
fn a_part_that_cannot_be_read_costs_no_other_part_and_is_named_without_its_value() {
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    // What is broken, what is said to be left out, and which of drain, ejection, checks, tickets and events are read.
    let whole = FIRST.replace(
        "\"tickets\": {",
        "\"events\": {\"since_unix_ms\": 1, \"events\": [{\"id\": 1, \"kind\": \"start\"}]},\n  \"tickets\": {",
    );
    for (from, to, left_out, read) in [
        ("", "", None, [true; 5]),
        (
            "\"deadline_unix_ms\": 1700000050000",
            "\"deadline_unix_ms\": \"soon\"",
            Some("the drain of backend \"web/a\""),
            [false, true, true, true, true],
        ),
        ("\"count\": 1", "\"count\": -1", Some("the ejection of backend \"web/a\""), [true, false, true, true, true]),
        (
            "\"against\": 1",
            "\"against\": 1.5",
            Some("the checks of backend \"web/a\""),
            [true, true, false, true, true],
        ),
        ("\"keys\": [", "\"keys\": [7, ", Some("the keys of session tickets"), [true, true, true, false, true]),
        ("\"since_unix_ms\": 1, \"events\": [", "\"events\": [[1, 2], {\"id\": \"x\"}, ", Some("2 events"), [true; 5]),
        (
            "{\"id\": 1, \"kind\": \"start\"}",
            "{\"id\": 1, \"kind\": \"of the future\", \"more\": [1]}",
            None,
            [true; 5],
        ),
        (
            "\"events\": {\"since_unix_ms\": 1, ",
            "\"events\": 7, \"old\": {",
            Some("the events"),
            [true, true, true, true, false],
        ),
        ("\"backends\": [", "\"backends\": [5, {}, ", Some("one of the backends of pool \"web\""), [true; 5]),
        ("\"pools\": [", "\"pools\": [null, ", Some("one of the pools"), [true; 5]),
        ("\"pools\": [", "\"pools\": 3, \"old\": [", Some("the pools"), [false, false, false, true, true]),
        ("\"written_unix_ms\": 1700000000000", "\"written_unix_ms\": []", Some("the time of the document"), [true; 5]),
        (
            "\"address\": \"127.0.0.1:1\"",
            "\"address\": 1",
            Some("the address of backend \"web/a\""),
            [true, false, false, true, true],
        ),
    ] {
        assert!(whole.contains(from), "{from}");
        let state = RuntimeState::from_json(&whole.replacen(from, to, 1)).unwrap_or_else(|why| panic!("{to}: {why}"));
        let said = state.left_out();
        assert_eq!(
            said.as_ref().and_then(|said| said.split_once("left out: ")).map(|(_, what)| what),
            left_out,
            "{to}"
        );
        assert!(said.is_none_or(|said| !said.contains(key)));
        let (snapshot, ring) = (three(), EventRing::new());
        let own = snapshot.tls.ticket_secrets().unwrap().secrets;
        state.apply(&snapshot, NOW_MS, UNIX_MS);
        let a = &snapshot.pools[0].backends()[0];
        let is_read = [
            a.draining(),
            a.ejection().count == 1,
            a.standing() == CheckState::Down,
            snapshot.tls.ticket_secrets().unwrap().secrets != own,
            state.events.is_some(),
        ];
        assert_eq!(is_read, read, "{to}");
        let has_events = state.events.is_some();
        state.resume_events(&ring, UNIX_MS);
        assert_eq!(ring.oldest() == 1 && ring.all()[0].kind != EventKind::Upgrade, has_events, "{to}");
    }
    let many = format!("{{\"version\":1,\"pools\":[{}]}}", ["0"; 12].join(","));
    let said = RuntimeState::from_json(&many).unwrap().left_out().unwrap();
    assert!(said.ends_with(", one of the pools, and 2 more"), "{said}");
}

#[test]
fn no_number_of_a_document_is_too_large() {
    for number in [i64::MIN.to_string(), i64::MAX.to_string(), "0".to_owned()] {
        let text = format!(
            "{{\"version\":1,\"pools\":[{{\"name\":\"web\",\"backends\":[{{\"name\":\"a\",\"address\":\"127.0.0.1:1\",\
             \"drain\":{{\"since_unix_ms\":{number},\"deadline_unix_ms\":{number}}},\
             \"ejection\":{{\"until_unix_ms\":{number},\"count\":4294967295,\"failures\":4294967295}},\
             \"checks\":{{\"state\":\"down\",\"against\":4294967295,\"damping\":4294967295,\
             \"rose_unix_ms\":{number},\"slow_start_unix_ms\":{number}}}}}]}}],\
             \"tickets\":{{\"since_unix_ms\":{number},\"keys\":[\"{}\"]}}}}",
            "0".repeat(64)
        );
        let snapshot = three();
        RuntimeState::from_json(&text).unwrap().apply(&snapshot, NOW_MS, UNIX_MS);
        let a = &snapshot.pools[0].backends()[0];
        assert!(a.draining() && a.drained(NOW_MS + 1), "{number}");
        check(&snapshot, 0, true, NOW_MS + 1);
        check(&snapshot, 0, false, NOW_MS + 2);
        let pool = &snapshot.pools[0];
        let length = (0..3).find_map(|_| pool.connect_failed(a, NOW_MS + 400_000));
        assert!(length.is_none_or(|length| length.as_secs() <= 300), "{number}: {length:?}");
        let _ = RuntimeState::of(&snapshot, NOW_MS + 3, UNIX_MS).to_json();
    }
}

#[test]
fn that_the_process_before_gives_no_events_is_said_once_also_after_an_event_of_this_one() {
    let ring = EventRing::new();
    ring.note(UNIX_MS, Event::new(EventKind::Certificate, "expires soon"));
    for _ in 0..2 {
        RuntimeState::default().resume_events(&ring, UNIX_MS);
    }
    let kinds: Vec<_> = ring.all().iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Certificate, EventKind::Upgrade]);
}
