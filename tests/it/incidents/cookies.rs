//! Keys of cookies that were swapped, a clock that is ahead, and a shared store that is frozen.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sessile::clock;
use sessile::config::{CookieLifetime, InsertRules, SameSite, Secure};
use sessile::sticky::cookie::names::Names;
use sessile::sticky::cookie::{Insert, KeyRing};

use super::without::{lacking, moves, without};
use super::{application, client, event, visit, was_moved, why};
use crate::support::Sessile;
use crate::support::backend::{Backend, listener, pool};
use crate::terminate::client::Response;

const DAY: u64 = 86_400;

fn backend_of(response: &Response) -> String {
    response.field("x-backend").expect("a backend").to_owned()
}

fn write_keys(file: &Path, seed: &str) {
    fs::write(file, format!("{}\n", seed.repeat(2))).unwrap();
}

/// Two applications behind sealed cookies, with the file of their keys.
fn sealed(dir: &Path, backends: &[Backend]) -> String {
    let keys = dir.join("cookie.keys");
    write_keys(&keys, "0123456789abcdef5a69788796a5b4c3");
    let options = format!(
        "http = true\nbalance = \"round_robin\"\ncookie = {{ mode = \"insert\", name = \"STICKY\", keys = \"{}\", \
         max_idle = \"1d\" }}\n",
        keys.display()
    );
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    listener("p", "") + &pool("p", &options, &addresses)
}

/// A cookie for a backend of this name that was sealed by a clock so far ahead of ours.
fn cookie_ahead(dir: &Path, backend: &str, ahead_s: u64) -> String {
    let rules = InsertRules {
        keys: dir.join("cookie.keys"),
        makes_keys: false,
        max_idle: Duration::from_secs(DAY),
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
    let ring = KeyRing::parse(&fs::read_to_string(&rules.keys).unwrap()).unwrap();
    let insert = Insert::new("STICKY", &rules, "p", Arc::new(Names::new([backend])), Arc::new(ring));
    let then = clock::unix_s() + ahead_s;
    format!("STICKY={}", std::str::from_utf8(&insert.seal(0, then, then, [7; 12])).unwrap())
}

#[test]
fn a_cookie_of_keys_that_were_swapped_is_worth_nothing_and_says_so() {
    let (dir, backends) = (tempfile::tempdir().unwrap(), ["b0", "b1"].map(application));
    let config = sealed(dir.path(), &backends);
    let sessile = Sessile::start(&config);
    let first = visit(&sessile, 1).get("/", "");
    let cookie = first.field("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
    let report = why(&sessile, &cookie);
    assert_eq!((&report["outcome"], &report["backend"]), (&"not_moved".into(), &backend_of(&first).into()), "{report}");
    assert_eq!(report["cookie"]["verdict"], "fresh");
    assert!(
        report["answer"].as_str().unwrap().contains("The cookie STICKY of pool p is fresh: it is valid"),
        "{report}"
    );

    write_keys(&dir.path().join("cookie.keys"), "fedcba98765432105a69788796a5b4c3");
    assert_eq!(sessile.reload(&config)["accepted"], true);
    assert!(event(&sessile, "reload").contains("cookie.keys"));
    let report = why(&sessile, &cookie);
    assert_eq!((&report["outcome"], &report["backend"]), (&"not_known".into(), &serde_json::Value::Null), "{report}");
    assert_eq!(report["cookie"]["verdict"], "forged");
    let answer = report["answer"].as_str().unwrap();
    assert!(answer.contains("is forged: no key in force opens it: it was sealed with other keys"), "{answer}");
    assert!(!answer.contains(cookie.split_once('=').unwrap().1), "a secret is not repeated: {answer}");
    let events = report["events"].as_array().unwrap();
    let reload = |event: &&serde_json::Value| {
        event["kind"] == "reload" && event["text"].as_str().unwrap().contains("cookie.keys")
    };
    assert!(events.iter().any(|event| reload(&event)), "{report}");
    // The cookies that count are held by browsers alone: only the share that a backend has of them is known.
    let plan = without(&sessile, "p/b1", 0);
    let share = plan["pools"][0]["known_keys"].as_f64().unwrap();
    assert!(moves(&plan) == (0, 0, 0) && (0.45..0.55).contains(&share), "{plan}");
}

#[test]
fn a_client_with_a_cookie_of_a_clock_that_is_ahead_was_moved_because_of_that() {
    let (dir, backends) = (tempfile::tempdir().unwrap(), ["b0", "b1"].map(application));
    let sessile = Sessile::start(&sealed(dir.path(), &backends));
    // A little ahead it is believed.
    let little = cookie_ahead(dir.path(), "b0", 600);
    let mut talk = visit(&sessile, 2);
    for _ in 0..4 {
        assert_eq!(backend_of(&talk.get("/", &format!("Cookie: {little}\r\n"))), "b0");
    }
    let report = why(&sessile, &little);
    assert_eq!((&report["outcome"], &report["cookie"]["verdict"]), (&"not_moved".into(), &"due".into()), "{report}");
    assert!(report["answer"].as_str().unwrap().contains("with a clock that is ahead"), "{report}");

    let far = cookie_ahead(dir.path(), "b0", 2 * DAY);
    let moved = (0..4).map(|_| talk.get("/", &format!("Cookie: {far}\r\n"))).find(|it| backend_of(it) == "b1");
    let moved = moved.expect("placed in turn");
    for what in [far.clone(), client(2).to_string()] {
        let answer = was_moved(&why(&sessile, &what), "b0", "b1", "expired");
        assert!(answer.contains("its cookie was too old, or dated too far in the future"), "{answer}");
    }
    let report = why(&sessile, &far);
    assert_eq!((&report["cookie"]["verdict"], &report["cookie"]["backend"]), (&"expired".into(), &"b0".into()));
    assert!(
        report["answer"].as_str().unwrap().contains("dated too far in the future to count; it was sealed by"),
        "{report}"
    );
    assert!(report["cookie"]["sealed"].is_string(), "{report}");
    // The cookie that the client has now leads to the same move.
    let new = moved.field("set-cookie").expect("a new cookie").split(';').next().unwrap().to_owned();
    let report = why(&sessile, &new);
    was_moved(&report, "b0", "b1", "expired");
    assert_eq!((&report["backend"], &report["cookie"]["verdict"]), (&"b1".into(), &"fresh".into()), "{report}");
    // Its connection is open at b1.
    assert_eq!(moves(&without(&sessile, "p/b1", 1)), (0, 0, 1));
    assert_eq!(moves(&without(&sessile, "p/b0", 1)), (0, 0, 0));
}

#[test]
fn a_session_stays_while_the_store_is_frozen_and_the_answer_names_the_store() {
    // Accepts connections and never answers.
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let backends = ["b0", "b1"].map(application);
    let store = format!("[store]\nkind = \"redis\"\nurl = \"redis://{}\"\n", frozen.local_addr().unwrap());
    let options = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    let addresses = backends.each_ref().map(|backend| backend.address);
    let config = store + &listener("p", "") + &pool("p", options, &addresses);
    let sessile = Sessile::start(&config);
    let down = event(&sessile, "store_down");
    assert!(down.starts_with("shared store redis://") && down.contains("no request is sent to it"), "{down}");
    let mut talk = visit(&sessile, 5);
    let home = backend_of(&talk.get("/login", ""));
    let session = format!("SID=session-of-{home}");
    for _ in 0..4 {
        assert_eq!(backend_of(&talk.get("/", &format!("Cookie: {session}\r\n"))), home);
    }
    let report = why(&sessile, &session);
    assert_eq!((&report["outcome"], &report["backend"]), (&"not_moved".into(), &home.clone().into()), "{report}");
    assert_eq!(
        (&report["entry"]["backend"], &report["entry"]["kind"]),
        (&home.as_str().into(), &"learned".into()),
        "{report}"
    );
    assert!(report["answer"].as_str().unwrap().contains(&format!("What goes on now: {down}")), "{report}");

    let (other, address) = if home == "b0" { ("b1", addresses[0]) } else { ("b0", addresses[1]) };
    assert_eq!(moves(&without(&sessile, &format!("p/{other}"), 1)), (1, 0, 0));
    let plan = without(&sessile, &format!("p/{home}"), 1);
    assert_eq!(moves(&plan), (1, 1, 1), "{plan}");
    assert_eq!(sessile.reload(&lacking(&config, &home, address))["accepted"], true);
    assert_eq!(backend_of(&talk.get("/", &format!("Cookie: {session}\r\n"))), other);
    was_moved(&why(&sessile, &session), &home, other, "removed");
}
