//! Tests of `http2`, its limits, and the ALPN conditions that it allows.

use super::{SITE, SMALL, config_of, resolve, shown, warnings};
use crate::config::{PoolHttp, check};

/// `SITE` with a line in the listener and one in its last route.
fn site(listener: &str, route: &str) -> String {
    let own = SITE.replacen("tls = \"terminate\"", &format!("tls = \"terminate\"\n{listener}"), 1);
    own.replace("sni = \"inner.example\"", &format!("sni = \"inner.example\"\n{route}"))
}

#[test]
fn a_route_has_its_own_word_or_that_of_its_listener() {
    for (listener, route, expected) in [
        ("", "", (true, true)),
        ("http2 = false", "", (false, false)),
        ("http2 = false", "http2 = true", (false, true)),
        ("", "http2 = false", (true, false)),
    ] {
        let text = site(listener, route);
        let found = &config_of(&text).listeners[0];
        assert_eq!((found.http2, found.routes[2].http2), expected, "{listener} {route}");
        assert_eq!(warnings(&text), "");
    }
}

#[test]
fn http2_has_no_effect_where_no_http_is_read() {
    let plain = SMALL.replace("pool = \"app\"", "pool = \"app\"\nhttp2 = true");
    let expected = "6:9: listener \"web\": http2 has no effect because no pool it names has http = true\n";
    assert_eq!(warnings(&plain), expected);
    assert_eq!(warnings(&plain.replace("name = \"app\"", "name = \"app\"\nhttp = true")), "", "plain HTTP");
    let raw = SITE.replace("tls = \"passthrough\"", "tls = \"passthrough\"\nhttp2 = true");
    let expected = "route #1: http2 has no effect because its pool does not have http = true\n";
    assert!(warnings(&raw).ends_with(expected) && warnings(&raw).lines().count() == 1, "{}", warnings(&raw));
    let own = site("http2 = true", "http2 = true").replacen("pool = \"site\"", "pool = \"raw\"", 1);
    let own = own.replace("\"open.example\"", "\"open.example\"\nhttp2 = false");
    let expected = "http2 has no effect because each route to a pool with http = true has a word of its own\n";
    assert!(warnings(&own).ends_with(expected) && warnings(&own).lines().count() == 1, "{}", warnings(&own));
}

#[test]
fn a_route_may_ask_for_h2_where_http2_is_on() {
    let asks = |listener: &str, route: &str| check(&site(listener, &format!("alpn = \"h2\"\n{route}")), &resolve);
    assert!(asks("", "").is_ok());
    assert!(asks("http2 = false", "http2 = true").is_ok());
    for (listener, route) in [("http2 = false", ""), ("", "http2 = false")] {
        let found = shown(&asks(listener, route).unwrap_err());
        let expected = "alpn \"h2\" is not offered by pool \"site\", which offers only \"http/1.1\", \"http/1.0\" (hint: \
                        write http2 = true here, or delete the condition)\n";
        assert!(found.ends_with(expected) && found.lines().count() == 1, "{found}");
    }
    let found = shown(&check(&site("", "alpn = \"h3\""), &resolve).unwrap_err());
    assert!(found.ends_with("which offers only \"h2\", \"http/1.1\", \"http/1.0\"\n"), "{found}");
}

#[test]
fn limits_of_http2_have_bounds() {
    let limits = |lines: &str| check(&format!("[limits]\n{lines}\n{SMALL}"), &resolve);
    let read = |lines: &str| {
        let limits = limits(lines).unwrap().config.limits;
        (limits.http2_streams, limits.http2_backend_connections)
    };
    assert_eq!(read(""), (100, 6));
    assert_eq!(read("http2_streams = 1000\nhttp2_backend_connections = 1"), (1000, 1));
    for (line, expected) in [
        ("http2_streams = 0", "http2_streams 0 is not between 1 and 1000"),
        ("http2_streams = 1001", "http2_streams 1001 is not between 1 and 1000"),
        ("http2_streams = \"off\"", "http2_streams \"off\" is not a whole number"),
        ("http2_backend_connections = 0", "http2_backend_connections 0 is not between 1 and 100"),
        ("http2_backend_connections = 101", "http2_backend_connections 101 is not between 1 and 100"),
    ] {
        let found = shown(&limits(line).unwrap_err());
        assert!(found.contains(expected), "{line}: {found}");
    }
}

#[test]
fn a_pool_may_have_backends_of_http2() {
    let pool =
        |value: &str| check(&SMALL.replace("name = \"app\"", &format!("name = \"app\"\nhttp = {value}")), &resolve);
    for (value, expected) in [("false", PoolHttp::Off), ("true", PoolHttp::Http1), ("\"h2\"", PoolHttp::Http2)] {
        let config = pool(value).unwrap().config;
        assert_eq!((config.pools[0].http, config.pools[0].http.word()), (expected, value));
    }
    for value in ["\"h1\"", "\"http2\"", "2", "[\"h2\"]"] {
        let found = shown(&pool(value).unwrap_err());
        assert!(found.contains("is not one of true, false, \"h2\"") && found.lines().count() == 1, "{found}");
    }
    let raw = SITE.replace("http = true", "http = \"h2\"").replace("tls = \"terminate\"", "tls = \"passthrough\"");
    let found = shown(&check(&raw, &resolve).unwrap_err());
    assert!(found.contains("has http = \"h2\", and requests inside passthrough TLS cannot be read"), "{found}");
}
