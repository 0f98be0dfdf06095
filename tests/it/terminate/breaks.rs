//! Breaks of clients that cookies know: counted is who gets another backend than before, and nothing else.

use std::sync::Arc;

use sessile::clock;
use sessile::config::{CookieLifetime, InsertRules, SameSite, Secure};
use sessile::sticky::cookie::names::Names;
use sessile::sticky::cookie::{Insert, KeyRing};

use super::backend::Recorder;
use super::client::Talk;
use super::cookie::name_of;
use super::{Front, config};
use crate::support::Sessile;
use crate::support::backend::pool;

const INSERT: &str = "http = true\nbalance = \"round_robin\"\n\
                      cookie = { mode = \"insert\", name = \"STICKY\", keys = \"$FILES/cookie.keys\" }\n";
const DAY: u64 = 86_400;

/// Breaks of a pool, by cause; only those that happened.
fn breaks(sessile: &Sessile, pool: &str) -> Vec<(String, u64)> {
    counts(sessile, pool, "breaks")
}

/// Cookies of a pool, by verdict; only those that came.
fn verdicts(sessile: &Sessile, pool: &str) -> Vec<(String, u64)> {
    counts(sessile, pool, "cookies")
}

fn counts(sessile: &Sessile, pool: &str, what: &str) -> Vec<(String, u64)> {
    let status = sessile.status();
    let pools = status["pools"].as_array().unwrap();
    let counts = pools.iter().find(|known| known["name"] == pool).unwrap()[what].as_object().unwrap();
    let counts = counts.iter().map(|(word, count)| (word.clone(), count.as_u64().unwrap()));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn count(word: &str, count: usize) -> Vec<(String, u64)> {
    if count == 0 { Vec::new() } else { vec![(word.to_owned(), count as u64)] }
}

/// A cookie for a backend of this name, last sent this long ago.
fn sealed(front: &Front, pool: &str, backend: &str, age_s: u64) -> String {
    let rules = InsertRules {
        keys: front.file("cookie.keys"),
        makes_keys: false,
        max_idle: std::time::Duration::from_secs(DAY),
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
    let ring = KeyRing::parse(&std::fs::read_to_string(&rules.keys).unwrap()).unwrap();
    let insert = Insert::new("STICKY", &rules, pool, Arc::new(Names::new([backend])), Arc::new(ring));
    let then = clock::unix_s() - age_s;
    format!("Cookie: STICKY={}\r\n", std::str::from_utf8(&insert.seal(0, then, then, [7; 12])).unwrap())
}

/// Sends six requests with the same cookie; the number that the backend called `x` served.
fn served_by_x(talk: &mut Talk<super::client::Tls>, cookie: &str) -> usize {
    (0..6).filter(|_| name_of(&talk.get("/", cookie).text()) == "x").count()
}

#[test]
fn a_cookie_that_was_made_up_breaks_nothing_and_is_counted_apart() {
    let backends = ["x", "y"].map(Recorder::named);
    let addresses = backends.each_ref().map(Recorder::address);
    let front = Front::start("", INSERT, &addresses);
    let mut talk = Talk::with(&front);
    for made_up in ["x", "", "AeXSGW4AAQIDBAUGBwgJCgsqZ0mTV1T53ztB"] {
        assert_eq!(served_by_x(&mut talk, &format!("Cookie: STICKY={made_up}\r\n")), 3);
    }
    assert_eq!((breaks(&front.sessile, "p"), verdicts(&front.sessile, "p")), (vec![], count("forged", 18)));
    assert_eq!(front.sessile.metric("sessile_cookies_total{pool=\"p\",verdict=\"forged\"}"), 18.0);
    assert!(!front.sessile.metrics().contains("cause=\"forged\""), "no cause that cannot be");
    assert!(!front.sessile.metrics().contains("cause=\"restart\""), "nor this one");
    // Nor does a name of a backend that there never was.
    for (mode, value) in [("route", "31d4.nowhere"), ("prefix", "nowhere~31d4")] {
        let options = INSERT.split("cookie").next().unwrap().to_owned()
            + &format!("cookie = {{ mode = \"{mode}\", name = \"SID\" }}\n");
        let front = Front::start("", &options, &addresses);
        assert_eq!(served_by_x(&mut Talk::with(&front), &format!("Cookie: SID={value}\r\n")), 3, "{mode}");
        assert_eq!((breaks(&front.sessile, "p"), verdicts(&front.sessile, "p")), (vec![], count("unknown", 6)));
    }
}

#[test]
fn an_expired_cookie_is_a_break_exactly_if_its_client_gets_another_backend() {
    let backends = ["x", "y"].map(Recorder::named);
    let front = Front::start("", INSERT, &backends.each_ref().map(Recorder::address));
    let mut talk = Talk::with(&front);
    // The backends are called b0 and b1 in the file.
    let stays = served_by_x(&mut talk, &sealed(&front, "p", "b0", 2 * DAY));
    assert_eq!(stays, 3, "placed in turn");
    assert_eq!(
        (breaks(&front.sessile, "p"), verdicts(&front.sessile, "p")),
        (count("expired", 3), count("expired", 6))
    );
    let lines = || front.requests().into_iter().filter(|line| line["moved"] == "expired").count();
    crate::support::eventually("the lines of those that moved", || (lines() == 3).then_some(()));
    assert!(front.requests().iter().all(|line| line["moved"].is_null() || line["backend"] != "b0"));
}

#[test]
fn clients_of_a_pool_that_was_renamed_are_counted_if_they_move() {
    let backends = ["x", "y"].map(Recorder::named);
    let addresses = backends.each_ref().map(Recorder::address);
    let front = Front::start("", INSERT, &addresses);
    let mut talk = Talk::with(&front);
    assert_eq!(served_by_x(&mut talk, &sealed(&front, "p", "b0", 0)), 6);
    // A neighbour with the same keys is no pool that was renamed.
    let renamed = pool("q", INSERT, &addresses) + &pool("r", INSERT, &addresses);
    let listener = "pool = \"q\"\n[[listener.route]]\nsni = \"r.a.test\"\npool = \"r\"\n";
    let verdict = front.sessile.reload(&config(&front.dir, "", listener, &renamed));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    let mut talk = Talk::with(&front);
    assert_eq!(served_by_x(&mut talk, &sealed(&front, "p", "b0", 0)), 3);
    assert_eq!(breaks(&front.sessile, "q"), count("removed", 3));
    assert_eq!(served_by_x(&mut talk, &sealed(&front, "r", "b0", 0)), 3);
    assert_eq!(breaks(&front.sessile, "q"), count("removed", 3));
    assert_eq!(verdicts(&front.sessile, "q"), [("former_pool".to_owned(), 6), ("other_pool".to_owned(), 6)]);
}

#[test]
fn clients_of_a_backend_that_was_removed_are_counted_by_any_cookie_that_named_it() {
    let backends = ["x", "y"].map(Recorder::named);
    let addresses = backends.each_ref().map(Recorder::address);
    for mode in ["insert", "route", "prefix"] {
        let options = match mode {
            "insert" => INSERT.to_owned(),
            _ => INSERT.replace("\"insert\"", &format!("\"{mode}\"")).replace(", keys = \"$FILES/cookie.keys\"", ""),
        };
        let front = Front::start("", &options, &addresses);
        let cookie = |name: &str| match mode {
            "insert" => sealed(&front, "p", name, 0),
            "route" => format!("Cookie: STICKY=31d4.{name}\r\n"),
            _ => format!("Cookie: STICKY={name}~31d4\r\n"),
        };
        let verdict =
            front.sessile.reload(&config(&front.dir, "", "pool = \"p\"\n", &pool("p", &options, &addresses[..1])));
        assert_eq!(verdict["accepted"], true, "{verdict}");
        let mut talk = Talk::with(&front);
        assert_eq!(served_by_x(&mut talk, &cookie("b0")), 6);
        assert_eq!(breaks(&front.sessile, "p"), [], "{mode}");
        assert_eq!(served_by_x(&mut talk, &cookie("b1")), 6);
        assert_eq!(breaks(&front.sessile, "p"), count("removed", 6), "{mode}");
    }
}
