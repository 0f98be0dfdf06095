//! `explain --live` of a client whose cookie only the shared store knows: the answer is what its next request gets.

use serde_json::Value;

use super::redis::Redis;
use super::{AMPLE, Visitor, application, stands, store, text};
use crate::support::Sessile;
use crate::support::sessile::run;

const LOGINS: usize = 10;

/// What the process says of a client with this cookie.
fn explained(instance: &Sessile, cookie: &str) -> Value {
    let socket = instance.admin();
    let socket = socket.to_str().unwrap();
    let words = ["explain", "--live", "--socket", socket, "--client", "127.0.0.1", "--cookie", cookie];
    let output = run(&[&words[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = String::from_utf8(run(&words).stdout).unwrap();
    let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let (by, without) = ("by the shared store", "without the shared store, which was not reached");
    let words = [("known", by), ("not_reached", without)];
    assert!(words.iter().all(|(word, text)| (report["store"] == *word) == flat.contains(text)), "{shown}");
    report
}

#[test]
fn a_cookie_that_only_the_store_knows_is_explained_as_it_is_served() {
    let Some(mut redis) = Redis::start("a_cookie_that_only_the_store_knows_is_explained_as_it_is_served") else {
        return;
    };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    instances.iter().for_each(|instance| stands(instance, "working"));
    let users: Vec<_> = (0..LOGINS).map(|_| one.login()).collect();
    for user in &users[..LOGINS / 2] {
        let report = explained(&instances[1], &user.cookie);
        assert_eq!((&report["choice"], &report["reason"]), (&user.home.as_str().into(), &"cookie".into()), "{report}");
        assert_eq!((&report["store"], &report["cookie"]), (&"known".into(), &"fresh".into()), "{report}");
        assert_eq!(other.ask(user), user.home);
        // From here on it is known there, too, and the store is left alone.
        assert_eq!(explained(&instances[1], &user.cookie)["store"], Value::Null);
    }
    assert_eq!(explained(&instances[1], "SID=never-set")["store"], "unknown");

    redis.stop();
    stands(&instances[1], "open");
    let report = explained(&instances[1], &users[LOGINS - 1].cookie);
    assert_eq!((&report["store"], &report["cookie"]), (&"not_reached".into(), &Value::Null), "{report}");
}

#[test]
fn a_client_that_the_store_had_at_a_backend_of_the_past_is_logged_with_its_name() {
    let Some(redis) = Redis::start("a_client_that_the_store_had_at_a_backend_of_the_past_is_logged_with_its_name")
    else {
        return;
    };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let first = Sessile::start(&text);
    stands(&first, "working");
    let mut one = Visitor::to(&first);
    let user = std::iter::repeat_with(|| one.login()).find(|user| user.home == "b0").unwrap();
    // This instance has never had a backend of that name.
    let renamed = text.replace("name = \"b0\"", "name = \"new\"");
    let second = Sessile::start(&renamed);
    stands(&second, "working");
    let report = explained(&second, &user.cookie);
    assert_eq!((&report["from"], &report["moved"]), (&"b0".into(), &"removed".into()), "{report}");
    Visitor::to(&second).ask(&user);
    let line = second.line("the move", |line| line["moved"] == "removed");
    assert_eq!(line["from"], "b0", "{line}");
    assert_eq!(second.metric("sessile_sticky_breaks_total{pool=\"p\",from=\"(other)\",cause=\"removed\"}"), 1.0);
}
