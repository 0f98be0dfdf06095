//! `request_rate`: 429 with Retry-After, by source and by key, for both versions together.

use super::{HTTP, limited, plain};
use crate::http2::client::Client;
use crate::routes::{Asking, Got};
use crate::support::backend::{listener, pool};
use crate::support::{Sessile, has};
use crate::terminate::backend::Recorder;

/// The seconds after which a client that is refused may ask again.
fn wait_of(got: &Got) -> u64 {
    assert_eq!((got.status, got.field("cache-control")), (429, Some("no-store")), "{}", got.head);
    got.field("retry-after").expect("a time").parse().expect("a number of seconds")
}

#[test]
fn a_source_has_its_burst_by_both_versions_together_and_others_have_their_own() {
    if !has("a_source_has_its_burst_by_both_versions_together_and_others_have_their_own", "curl") {
        return;
    }
    let site = Recorder::named("x");
    let limits = "[listener.limits]\nrequest_rate = \"6/h\"\nrequest_burst = 3\n";
    let sessile = plain(&site, "", limits, "");
    let [http1, http2] = Asking::plain(sessile.address("l"));
    assert_eq!([http1.get("a.test/").status, http2.get("a.test/").status, http1.get("a.test/").status], [200; 3]);
    for (asking, path) in [(&http1, "/first"), (&http2, "/second")] {
        let wait = wait_of(&asking.get(&format!("a.test{path}")));
        assert!((590..=600).contains(&wait), "{wait}");
    }
    assert_eq!(site.answered(), 3, "no backend hears of what is refused");
    let (line, count) = limited(&sessile, "/second", "request_rate");
    assert_eq!((&line["status"], &line["fault"], count), (&429.into(), &"limit".into(), 2.0), "{line}");
    let others = |asking: &Asking| asking.with(&["--interface", "127.0.0.2"], "a.test/").status;
    assert_eq!([others(&http1), others(&http2), others(&http2), others(&http1)], [200, 200, 200, 429]);
}

#[test]
fn a_key_has_a_rate_of_its_own_and_a_request_without_it_counts_by_its_source() {
    let site = Recorder::named("x");
    let limits =
        "[pool.limits]\nrequest_rate = \"1/h\"\nrequest_burst = 2\nrequest_key = \"header:X-User or cookie:id\"\n";
    let sessile = plain(&site, "", "", limits);
    let client = Client::plain(sessile.address("l"));
    let asked: [(&[(&str, &str)], usize); 5] = [
        (&[("x-user", "ann")], 2),
        (&[("x-user", "bob"), ("cookie", "id=ann")], 2),
        (&[("cookie", "a=b; id=ann")], 2),
        (&[], 2),
        (&[("cookie", "other=ann")], 0),
    ];
    for (fields, left) in asked {
        for _ in 0..left {
            assert_eq!(client.get("/", fields).status, 200, "{fields:?}");
        }
        let refused = client.get("/", fields);
        assert_eq!((refused.status, refused.field("retry-after").is_some()), (429, true), "{fields:?}");
    }
    assert!(client.ended().is_none(), "the connection stays");
    assert_eq!(site.answered(), 8);
}

#[test]
fn the_nearest_rate_counts_alone_also_for_answers_of_routes_and_a_reload_keeps_the_counts() {
    let site = Recorder::named("x");
    let own = |name: &str, limit: &str| {
        pool(name, HTTP, &[site.address()]) + &format!("[pool.limits]\nrequest_rate = {limit}\n")
    };
    let route = |name: &str| format!("[[listener.route]]\npath = \"/{name}\"\npool = \"{name}\"\n");
    let answered = "[[listener.route]]\npath = \"/answered\"\nrespond = { status = 200, body = \"here\" }\n";
    let text = listener(
        "all",
        &format!("[listener.limits]\nrequest_rate = \"2/h\"\n{}{}{answered}", route("one"), route("any")),
    ) + &own("one", "\"1/h\"")
        + &own("any", "\"off\"")
        + &pool("all", HTTP, &[site.address()]);
    let sessile = Sessile::start(&text);
    let client = Client::plain(sessile.address("l"));
    let ask = |path: &str| client.get(path, &[]).status;
    assert_eq!([ask("/one"), ask("/one"), ask("/any"), ask("/any"), ask("/any")], [200, 429, 200, 200, 200]);
    assert_eq!([ask("/"), ask("/answered"), ask("/answered"), ask("/")], [200, 200, 429, 429]);
    sessile.reload(&text.replace("\"2/h\"", "\"3/h\""));
    assert_eq!(ask("/one"), 429);
}
