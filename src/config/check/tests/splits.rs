//! Rules for splits.

use super::{check, config_of, resolve, shown, warnings};
use crate::config::{CookieMode, RouteGoal, Secure, SplitPool};

const POOLS: &str = "[[pool]]\nname = \"a\"\nhttp = true\nbackend = \"10.0.0.1:80\"\n\
    [[pool]]\nname = \"b\"\nhttp = \"h2\"\nbackend = \"10.0.0.2:80\"\ncookie = { mode = \"insert\", keys = \"k\" }\n\
    [[pool]]\nname = \"c\"\nbackend = \"10.0.0.3:80\"\n";

fn site(listener: &str, split: &str) -> String {
    format!("[[listener]]\nname = \"l\"\nbind = \"0.0.0.0:80\"\n{listener}\n[[split]]\n{split}\n{POOLS}")
}

#[test]
fn a_split_is_a_goal_of_routes_and_of_listeners() {
    let text = site(
        "split = \"web\"\n[[listener.route]]\npath = \"/api\"\nsplit = \"web\"",
        "name = \"web\"\nto = [{ pool = \"a\", weight = 95 }, { pool = \"b\" }]\ncookie = { secure = \"on\" }",
    );
    assert!(warnings(&text).contains("pool \"c\": no listener names this pool"), "{}", warnings(&text));
    let config = config_of(&text);
    let [split] = &config.splits[..] else { panic!("{:?}", config.splits) };
    let to = |pool: &str, weight| SplitPool { pool: pool.to_owned(), weight };
    assert_eq!((&*split.name, &split.to[..]), ("web", &[to("a", 95), to("b", 1)][..]));
    let cookie = split.cookie().unwrap();
    assert_eq!(cookie.name, "SESSILE-web");
    let CookieMode::Insert(insert) = &cookie.mode else { panic!("{split:?}") };
    // The keys of its pools, so that instances which agree on backends agree on pools.
    assert_eq!((insert.keys.to_str(), insert.makes_keys, insert.secure), (Some("k"), false, Secure::On));
    let listener = &config.listeners[0];
    assert_eq!((listener.split.as_deref(), &listener.routes[0].goal), (Some("web"), &RouteGoal::Split("web".into())));
    assert_eq!(listener.pools(&config.splits).collect::<Vec<_>>(), ["a", "b", "a", "b"]);
    assert!(listener.routes_requests() && !listener.takes_requests_alone());
}

#[test]
fn a_split_without_keys_has_those_that_are_made() {
    let text = site("split = \"web\"", "name = \"web\"\nto = { pool = \"a\" }");
    let config = config_of(&text);
    assert_eq!(
        config.splits[0].cookie().unwrap().made_keys().and_then(|path| path.to_str()),
        Some("/var/lib/sessile/cookie.keys")
    );
}

/// Requires that one problem is found in a file with these keys of its listener and of its split.
fn is_refused(listener: &str, split: &str, problem: &str) {
    let said = shown(&check(&site(listener, split), &resolve).unwrap_err());
    assert!(said.contains(problem), "{problem}\n{said}");
    assert_eq!(said.lines().count(), 1, "{problem}\n{said}");
}

const BY: &str = "split = \"web\"";

fn web(to: &str) -> String {
    format!("name = \"web\"\nto = {to}")
}

#[test]
fn each_mistake_in_a_split_is_named_at_its_place() {
    let by = BY;
    for (listener, split, problem) in [
        (by, web("[]"), "5:1: split \"web\": has no pool in to"),
        (by, "name = \"web\"".into(), "5:1: split \"web\": has no pool in to"),
        (by, web("[{ pool = \"a\", weight = 257 }]"), "7:30: split \"web\": to #1: weight 257 is not "),
        (by, web("{ pool = \"a\", weight = 0 }"), "7:6: split \"web\": every pool has weight 0: no new client"),
        (
            by,
            web("[{ pool = \"a\" }, { pool = \"a\" }]"),
            "7:32: split \"web\": to #2: pool \"a\" is taken by an earlier one, in line 7",
        ),
        (by, web("{ pool = \"z\" }"), "7:15: split \"web\": to #1: pool \"z\" is not the name of a pool"),
        (
            by,
            web("{ pool = \"c\" }"),
            "7:15: split \"web\": to #1: pool \"c\" does not have http = true: a split keeps",
        ),
    ] {
        is_refused(listener, &split, problem);
    }
}

#[test]
fn each_mistake_about_names_is_named_at_its_place() {
    let by = BY;
    for (listener, split, problem) in [
        (
            "split = \"wen\"",
            web("{ pool = \"a\" }"),
            "4:9: listener \"l\": split \"wen\" is not the name of a split (hint: did you mean \"web\"?)",
        ),
        (
            "split = \"a\"",
            web("{ pool = \"a\" }"),
            "split \"a\" is not the name of a split (hint: it is a pool: write pool = \"a\")",
        ),
        (
            "pool = \"a\"\nsplit = \"web\"",
            web("{ pool = \"a\" }"),
            "5:9: listener \"l\": split is another goal than pool",
        ),
        (
            "tls = \"passthrough\"\nsplit = \"web\"",
            web("{ pool = \"a\" }"),
            "5:9: listener \"l\": split places requests, and those inside",
        ),
        (
            "pool = \"a\"\n[[listener.route]]\npath = \"/\"\nsplit = \"web\"\npool = \"b\"",
            web("{ pool = \"a\" }"),
            "split is another goal than pool: a route has one",
        ),
        (
            "split = \"a\"",
            "name = \"a\"\nto = { pool = \"a\" }".into(),
            "6:8: split \"a\": name \"a\" is also that of a pool (hint: a split needs a name",
        ),
        (
            by,
            web("{ pool = \"b\" }\ncookie = { name = \"SESSILE-b\" }"),
            "split \"web\": to #1: pool \"b\" has a cookie \"SESSILE-b\", as the split itself",
        ),
        (
            by,
            web("{ pool = \"a\" }\ncookie = { same_site = \"none\", secure = \"off\" }"),
            "same_site needs a secure cookie",
        ),
        (
            by,
            web("{ pool = \"a\" }\n[[split]]\nname = \"web\"\nto = { pool = \"a\" }"),
            "name \"web\" is taken by an earlier one, in line 6",
        ),
        (
            by,
            web(
                "{ pool = \"a\" }\n[[split]]\nname = \"x\"\nto = { pool = \"a\" }\ncookie = { name = \"SESSILE-web\" }",
            ),
            "split \"x\": the cookie \"SESSILE-web\" is also that of split \"web\"",
        ),
    ] {
        is_refused(listener, &split, problem);
    }
}

const BYTES: &str = "[[pool]]\nname = \"a\"\nbackend = \"10.0.0.1:80\"\n[[pool]]\nname = \"b\"\nbackend = \"10.0.0.2:80\"\n\
    [[pool]]\nname = \"c\"\nhttp = true\nbackend = \"10.0.0.3:80\"\n";

/// A listener that leads to a split of pools without HTTP.
fn bytes(listener: &str, to: &str, split: &str) -> String {
    format!(
        "[[listener]]\nname = \"l\"\nbind = \"0.0.0.0:80\"\n{listener}\n[[split]]\nname = \"web\"\nto = {to}\n{split}\n{BYTES}"
    )
}

const BOTH: &str = "[{ pool = \"a\", weight = 9 }, { pool = \"b\" }]";

#[test]
fn a_split_with_a_key_leads_to_pools_of_any_kind() {
    for (listener, key) in [
        (BY, "key = \"source\"\nprefix_v4 = 24"),
        ("split = \"web\"\ntls = \"passthrough\"", "key = [\"source\", \"sni\"]"),
        ("route = { sni = \"a.test\", split = \"web\" }\ntls = \"passthrough\"", "key = \"sni or source\""),
    ] {
        let config = config_of(&bytes(listener, BOTH, key));
        let key = config.splits[0].key().unwrap();
        assert_eq!((key.prefix_v4, key.prefix_v6), (if key.parts.len() == 1 && listener == BY { 24 } else { 32 }, 64));
        assert_eq!((config.splits[0].cookie(), config.listeners[0].routes_requests()), (None, false));
    }
    let text = bytes(BY, "{ pool = \"c\" }", "key = \"header:X-User or source\"\ncookie = { name = \"x\" }");
    assert!(warnings(&text).contains("split \"web\": cookie has no effect with a key"), "{}", warnings(&text));
    let text = bytes(BY, "{ pool = \"c\" }", "key = \"none\"\nprefix_v4 = 24");
    assert!(warnings(&text).contains("split \"web\": prefix_v4 has no effect without a key"), "{}", warnings(&text));
    assert!(config_of(&text).splits[0].cookie().is_some());
}

#[test]
fn each_mistake_in_a_key_of_a_split_is_named_at_its_place() {
    let source = "key = \"source\"";
    let group = "stick_group = \"g\"\nbackend = ";
    for (listener, to, key, problem) in [
        (BY, BOTH, "key = []", "8:7: split \"web\": key is empty"),
        (BY, BOTH, "key = [\"source\", \"none\"]", "split \"web\": key names \"none\" together"),
        (
            BY,
            BOTH,
            "key = \"sni\"",
            "split \"web\": key \"sni\" is never known: every listener that reaches this split",
        ),
        (
            BY,
            "[{ pool = \"a\" }, { pool = \"c\" }]",
            source,
            "7:32: split \"web\": to #2: pool \"c\" has http = true, and pool \"a\" false (hint: all pools of a split",
        ),
        (
            BY,
            "{ pool = \"a\" }",
            "key = \"header:X\"",
            "split \"web\": to #1: pool \"a\" does not have http = true, and the key of the split is of requests",
        ),
        (
            "split = \"web\"\ntls = \"passthrough\"",
            "{ pool = \"c\" }",
            source,
            "pool \"c\" of split \"web\" has http = true, and requests",
        ),
        (
            "pool = \"c\"\nroute = { path = \"/a\", split = \"web\" }",
            "{ pool = \"a\" }",
            source,
            "pool \"a\" of split \"web\" does not have http = true, and this route sends it single requests",
        ),
    ] {
        let said = shown(&check(&bytes(listener, to, key), &resolve).unwrap_err());
        assert!(said.contains(problem), "{problem}\n{said}");
    }
    let shared = bytes(BY, BOTH, source).replace("backend = ", group);
    let said = shown(&check(&shared, &resolve).unwrap_err());
    assert!(said.contains("to #2: pool \"b\" shares its stick table with pool \"a\", which then cannot"), "{said}");
    let differs = bytes("split = \"web\"", BOTH, source).replacen("backend = ", "alpn = \"x\"\nbackend = ", 1);
    let said = shown(&check(&differs, &resolve).unwrap_err());
    assert!(said.contains("to #2: pool \"b\" has another alpn than pool \"a\""), "{said}");
}

#[test]
fn a_split_that_nothing_names_and_a_cookie_that_browsers_drop_are_warned_of() {
    let text = site("pool = \"a\"", "name = \"web\"\nto = { pool = \"b\" }");
    assert!(warnings(&text).contains("6:8: split \"web\": no listener names this split"), "{}", warnings(&text));
    let text = site(
        "split = \"web\"",
        "name = \"web\"\nto = [{ pool = \"a\" }, { pool = \"b\" }]\ncookie = { same_site = \"none\" }",
    );
    let warned = warnings(&text);
    let why =
        "4:9: listener \"l\": split \"web\" has a cookie with same_site \"none\", which browsers accept only with TLS";
    assert_eq!(warned.matches(why).count(), 1, "{warned}");
}
