//! Routes about requests: what they lead to, what they may not have, and which of them tie.

use super::{config_of, resolve, shown, warnings};
use crate::config::{RespondBody, Route, RouteGoal, Tls, check};

const BROKEN: &str = r##"
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
pool = "app"
error_page = { 503 = 1, 200 = "/a.html" }

[[listener.route]]
host = ["a.example", "a b"]
path = ["/a", "b", "/c?d"]
method = "get"
header = { Host = "x", "a b" = "y", X-A = "1", x-a = "2", X-B = "\n" }
pool = "app"

[[listener.route]]
host = "b.example"
sni = "b.example"
http2 = false
pool = "app"
redirect = "https"

[[listener.route]]
path = "/a"
redirect = { to = "https://{path}", status = 200 }

[[listener.route]]
path = "/b"
respond = { status = 204, body = "x", body_file = "/y", headers = { Content-Length = "1", X-A = "1", x-a = "2" } }

[[listener.route]]
host = "c.example"
method = ["GET", "HEAD"]
pool = "app"

[[listener.route]]
host = ["d.example", "c.example"]
header = { X-A = "1" }
pool = "app"

[[listener.route]]
host = "c.example"
method = "POST"
pool = "raw"

[[listener]]
name = "raw"
bind = "127.0.0.1:8081"
pool = "raw"

[[listener.route]]
path = "/"
respond = { status = 403 }

[[listener]]
name = "tls"
bind = "127.0.0.1:8443"
tls = "passthrough"
pool = "raw"

[[listener.route]]
sni = "e.example"
redirect = "https"

[[pool]]
name = "app"
http = true
backend = ["10.0.0.1:80", "10.0.0.2:80"]

[[pool]]
name = "raw"
backend = ["10.0.0.3:80", "10.0.0.4:80"]
"##;

#[test]
fn every_mistake_of_a_route_stands_at_its_place() {
    let found = shown(&check(BROKEN, &resolve).unwrap_err());
    let expected = [
        r##"6:22: listener "web": error_page: 503 1 is not a string"##,
        r##"6:25: listener "web": error_page: unknown key "200""##,
        r##"9:22: listener "web": route #1: host "a b" is not a host name"##,
        r##"10:15: listener "web": route #1: path "b" is not a path"##,
        r##"10:20: listener "web": route #1: path "/c?d" has a query, and paths are compared without it"##,
        r##"11:10: listener "web": route #1: method "get" is not a method: they are compared with case"##,
        r##"12:12: listener "web": route #1: header "Host" has a condition of its own"##,
        r##"12:24: listener "web": route #1: header "a b" is not the name of a header field"##,
        r##"12:54: listener "web": route #1: header "x-a" stands twice: case makes no difference"##,
        r##"12:65: listener "web": route #1: header "X-B" "\n" is not the value of a header field: visible"##,
        r##"17:7: listener "web": route #2: sni decides about connections, and host about their requests"##,
        r##"17:7: listener "web": route #2: sni needs a listener that reads the ClientHello"##,
        r##"18:9: listener "web": route #2: http2 decides about connections, and host about their requests"##,
        r##"20:12: listener "web": route #2: redirect is another goal than pool: a route has one"##,
        r##"24:19: listener "web": route #3: redirect: to "https://{path}" does not begin with a site or a"##,
        r##"24:46: listener "web": route #3: redirect: status 200 is not 301, 302, 303, 307 or 308"##,
        r##"28:51: listener "web": route #4: respond: body_file and body are two contents of one answer"##,
        r##"28:51: listener "web": route #4: respond: body_file cannot be sent: an answer with status 204 h"##,
        r##"28:69: listener "web": route #4: respond: headers "Content-Length" is a header field that sessi"##,
        r##"28:108: listener "web": route #4: respond: headers "x-a" stands twice: case makes no difference"##,
        r##"35:1: listener "web": route #6: ties with route #5 for "c.example": neither is more precise"##,
        r##"40:1: listener "web": route #7: ties with route #6 for "c.example": neither is more precise"##,
        r##"43:8: listener "web": route #7: pool "raw" does not have http = true, and this route sends it s"##,
        r##"50:1: listener "raw": route #1: no connection of this listener is read as HTTP, so no request c"##,
        r##"62:12: listener "tls": route #1: redirect answers requests, and those inside passthrough TLS ca"##,
    ];
    let found: Vec<_> = found.lines().collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

/// A listener with these routes, in front of a pool that reads HTTP.
fn with(keys: &str, routes: &[&str]) -> String {
    let listener = "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:8080\"\n";
    let route = |route: &&str| format!("[[listener.route]]\n{}\n", route.replace("; ", "\n"));
    let pool = "[[pool]]\nname = \"app\"\nhttp = true\nbackend = [\"10.0.0.1:80\"]\n";
    format!("{listener}{keys}\n{}{pool}", routes.iter().map(route).collect::<String>())
}

/// The errors of such a file.
fn errors(routes: &[&str]) -> String {
    check(&with("pool = \"app\"", routes), &resolve).map_or_else(|problems| shown(&problems), |_| String::new())
}

fn routes_of(keys: &str, routes: &[&str]) -> Vec<Route> {
    config_of(&with(keys, routes)).listeners.remove(0).routes
}

#[test]
fn a_redirect_to_https_is_for_ever_and_another_one_is_not() {
    let status = |route: &str| match &routes_of("", &[route])[0].goal {
        RouteGoal::Redirect(redirect) => (redirect.to.to_string(), redirect.status),
        goal => panic!("{goal:?}"),
    };
    let https = "https://{host}{path}{query}".to_owned();
    assert_eq!(status("path = \"/\"; redirect = \"https\""), (https.clone(), 308));
    assert_eq!(status("path = \"/\"; redirect = { to = \"https\", status = 301 }"), (https, 301));
    assert_eq!(status("path = \"/\"; redirect = \"/new{path}\""), ("/new{path}".into(), 302));
}

#[test]
fn a_redirect_that_leads_back_is_warned_of() {
    let tls = "tls = \"terminate\"\ncertificate = \"c.pem\"\npool = \"app\"";
    let found = warnings(&with(tls, &["path = \"/\"; redirect = \"https\""]));
    assert!(found.starts_with("9:12: listener \"web\": route #1: redirect leads back here"), "{found}");
    assert_eq!(warnings(&with(tls, &["path = \"/\"; redirect = \"https://www.a.test{path}\""])), "");
}

#[test]
fn an_answer_has_a_text_or_a_file_and_a_listener_of_answers_needs_no_pool() {
    let routes =
        ["path = \"/a\"; respond = { status = 200, body = \"x\" }", "path = \"/b\"; respond = { status = 403 }"];
    let routes = routes_of("", &routes);
    let body = |route: &Route| match &route.goal {
        RouteGoal::Respond(respond) => (respond.status, respond.body.clone()),
        goal => panic!("{goal:?}"),
    };
    assert_eq!(body(&routes[0]), (200, RespondBody::Text("x".into())));
    assert_eq!(body(&routes[1]), (403, RespondBody::Empty));
    assert!(routes.iter().all(|route| route.pool().is_none() && route.tls == Tls::Off));
    let alone = with("", &["source = \"10.0.0.0/8\"; pool = \"app\"", "path = \"/a\"; respond = { status = 200 }"]);
    assert_eq!(warnings(&alone), "");
}

#[test]
fn two_routes_tie_if_one_request_can_take_both_and_neither_is_more_precise() {
    let ties = |one: &str, other: &str| {
        let [one, other] = [one, other].map(|conditions| format!("{conditions}; pool = \"app\""));
        errors(&[&one, &other]).contains("ties with route #1")
    };
    for (one, other) in [
        ("path = \"/a\"", "path = [\"/b\", \"/a\"]"),
        ("host = \"a.test\"", "host = [\"b.test\", \"A.test\"]"),
        ("method = \"GET\"", "method = [\"POST\", \"GET\"]"),
        ("method = \"GET\"", "header = { X-A = \"1\" }"),
        ("header = { X-A = \"1\" }", "header = { x-a = \"1\" }"),
        ("header = { X-A = \"1\" }", "header = { X-B = \"1\" }"),
        ("path = \"/a\"; source = \"10.0.0.0/8\"", "path = \"/a\"; source = [\"10.0.0.0/8\", \"192.0.2.0/24\"]"),
    ] {
        assert!(ties(one, other), "{one} | {other}");
    }
    for (one, other) in [
        ("path = \"/a\"", "path = \"=/a\""),
        ("path = \"/a\"", "path = \"/a/\""),
        ("path = \"/a\"", "path = \"/a\"; method = \"GET\""),
        ("host = \"a.test\"", "host = \"*.test\""),
        ("method = \"GET\"", "method = [\"POST\", \"PUT\"]"),
        ("header = { X-A = \"1\" }", "header = { x-a = \"2\" }"),
        ("header = { X-A = \"1\" }", "header = { X-A = \"1\", X-B = \"1\" }"),
        ("source = \"10.0.0.0/8\"", "method = \"GET\""),
        ("path = \"/a\"; source = \"10.0.0.0/8\"", "path = \"/a\"; source = \"10.1.0.0/16\""),
    ] {
        assert!(!ties(one, other), "{one} | {other}");
    }
    let found = errors(&[
        "path = \"/a\"; host = \"a.test\"; pool = \"app\"",
        "host = \"a.test\"; path = \"/a\"; pool = \"app\"",
    ]);
    let expected =
        "9:1: listener \"web\": route #2: ties with route #1 for \"a.test\" and path \"/a\": neither is more precise\n";
    assert_eq!(found, expected);
}
