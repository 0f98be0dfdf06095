//! Tests of shorthands: each means what its long form means, and its problems have the place of what is written.

use super::{config_of, resolve, shown, warnings};
use crate::config::{SYSTEM_AUTHORITIES, check, diff};
use crate::pool::Pool;

/// A file with these keys in its listener and its pool.
fn file(listener: &str, pool: &str) -> String {
    format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n{listener}\n[[pool]]\nname = \"p\"\n{pool}\n"
    )
}

const ONE: &str = "backend = [{ name = \"a\", address = \"10.0.0.1:80\" }]";

/// Shorthand and long form, each as a whole file.
fn pairs() -> Vec<(String, String)> {
    let of_pool = |short: &str, long: &str| [short, long].map(|keys| file("", &format!("{ONE}\n{keys}")));
    let http = |short: &str, long: &str| [short, long].map(|keys| file("", &format!("http = true\n{ONE}\n{keys}")));
    let of_listener = |short: &str, long: &str| [short, long].map(|keys| file(keys, ONE));
    let terminating =
        |short: &str, long: &str| [short, long].map(|keys| file(&format!("tls = \"terminate\"\n{keys}"), ONE));
    let with_route = |short: &str, long: &str| {
        let route = |keys: &str| format!("{{ sni = \"a.example\", pool = \"p\", {keys} }}");
        let listener = "tls = \"passthrough\"\ncertificate = [{ cert = \"a.pem\" }]\nroute =";
        [short, long].map(|keys| file(&format!("{listener} {}", route(keys)), ONE))
    };
    let backends = |short: &str, long: &str| [short, long].map(|list| file("", &format!("backend = {list}")));
    let system = format!("tls = {{ ca = \"{SYSTEM_AUTHORITIES}\" }}");
    let pairs = [
        of_pool("check = \"http\"", "[pool.check]\nkind = \"http\""),
        of_pool("check = \"https\"", "check = { kind = \"https\" }"),
        of_pool("check = \"tls\"", "check = { kind = \"tls\" }"),
        of_pool("check = \"grpc\"", "check = { kind = \"grpc\" }"),
        of_pool("check = \"redis\"", "check = { kind = \"redis\" }"),
        of_pool("check = \"postgres\"", "[pool.check]\nkind = \"postgres\""),
        of_pool("check = \"tcp\"", ""),
        of_pool("check = true", ""),
        of_pool("check = false", "check = \"off\""),
        of_pool("eject = true", ""),
        of_pool("eject = false", "eject = \"off\""),
        of_pool("tls = true", &system),
        of_pool("tls = false", ""),
        http("cookie = \"insert\"", "[pool.cookie]\nmode = \"insert\""),
        http("cookie = true", "cookie = { mode = \"insert\" }"),
        http("cookie = false", "cookie = \"off\""),
        of_listener("tls = true\ncertificate = \"a.pem\"", "tls = \"terminate\"\ncertificate = [{ cert = \"a.pem\" }]"),
        of_listener("tls = false", "tls = \"off\""),
        terminating(
            "certificate = [\"a.pem\", { cert = \"b.pem\", key = \"c.pem\" }]",
            "certificate = [{ cert = \"a.pem\" }, { cert = \"b.pem\", key = \"c.pem\" }]",
        ),
        terminating(
            "certificate = \"a.pem\"\nclient_certificate = \"ca.pem\"",
            "certificate = \"a.pem\"\nclient_certificate = { ca = \"ca.pem\" }",
        ),
        with_route("tls = true", "tls = \"terminate\""),
        with_route(
            "tls = true, client_certificate = \"ca.pem\"",
            "tls = \"terminate\", client_certificate.ca = \"ca.pem\"",
        ),
        backends("\"10.0.0.1:80\"", "{ name = \"10.0.0.1-80\", address = \"10.0.0.1:80\" }"),
        backends(
            "[\"10.0.0.1:80\", { name = \"b\", address = \"10.0.0.2:80\" }, \"unix:/run/c.sock\", \"App.example:80\"]",
            "[{ name = \"10.0.0.1-80\", address = \"10.0.0.1:80\" }, { name = \"b\", address = \"10.0.0.2:80\" }, \
             { name = \"unix-run-c.sock\", address = \"unix:/run/c.sock\" }, \
             { name = \"app.example-80\", address = \"App.example:80\" }]",
        ),
    ];
    let mut pairs: Vec<_> = pairs.map(|[short, long]| (short, long)).into();
    let store = |store: &str| {
        store.to_owned() + &file("", &format!("http = true\n{ONE}\ncookie.mode = \"learn\"\ncookie.name = \"SID\""))
    };
    pairs.push((
        store("store = \"redis://10.0.0.9:6379\"\n"),
        store("store = { kind = \"redis\", url = \"redis://10.0.0.9:6379\" }\n"),
    ));
    pairs.push((store("store = false\n"), store("store = \"off\"\n")));
    pairs
}

#[test]
fn a_shorthand_means_what_its_long_form_means() {
    for (short, long) in pairs() {
        assert_ne!(short, long);
        let (of_short, of_long) = (config_of(&short), config_of(&long));
        assert_eq!(of_short, of_long, "{short}");
        assert_eq!(warnings(&short).is_empty(), warnings(&long).is_empty(), "{short}");
    }
}

#[test]
fn a_shorthand_places_as_its_long_form_and_is_no_change_in_a_reload() {
    for (short, long) in pairs() {
        let (short, long) = (config_of(&short), config_of(&long));
        let digest = |config: &crate::config::Config| Pool::new(&config.pools[0], None, 1).digest();
        assert_eq!(digest(&short), digest(&long));
        for change in diff::changes(&short, &long) {
            // A default that is written out is named, and changes nothing.
            assert!(change.ends_with("without effect"), "{change}");
        }
    }
}

#[test]
fn backends_without_names_place_alike_in_any_order() {
    let digest = |list: &str| Pool::new(&config_of(&file("", &format!("backend = {list}"))).pools[0], None, 1).digest();
    let one = digest("[\"10.0.0.1:80\", \"10.0.0.2:80\", \"[2001:db8::1]:80\"]");
    assert_eq!(one, digest("[\"[2001:DB8::0:1]:80\", \"10.0.0.2:80\", \"10.0.0.1:80\"]"));
    assert_ne!(one, digest("[\"10.0.0.1:80\", \"10.0.0.2:80\", \"[2001:db8::2]:80\"]"));
}

#[test]
fn a_reload_names_the_backend_that_a_list_of_addresses_gains_or_loses() {
    let config = |list: &str| config_of(&file("", &format!("backend = {list}")));
    let (before, after) = (config("[\"10.0.0.1:80\", \"10.0.0.2:80\"]"), config("[\"10.0.0.2:80\", \"10.0.0.3:80\"]"));
    let changes = diff::changes(&before, &after);
    assert!(changes.contains(&"backend \"p/10.0.0.3-80\" added".to_owned()), "{changes:?}");
    assert!(changes.contains(&"backend \"p/10.0.0.1-80\" removed".to_owned()), "{changes:?}");
}

#[test]
fn problems_of_a_shorthand_stand_at_its_value() {
    for (listener, pool, expected) in [
        (
            "",
            "backend = [\"10.0.0.1:80\", \"10.0.0.300:80\"]",
            "8:27: pool \"p\": backend \"10.0.0.300-80\": address \"10.0.0.300:80\" is not an address",
        ),
        (
            "",
            "backend = [\"10.0.0.1:80\", \"10.0.0.1:80\"]",
            "8:27: pool \"p\": backend \"10.0.0.1-80\": name \"10.0.0.1-80\" is taken by an earlier one, in line 8",
        ),
        (
            "",
            "backend = \"10.0.0.1:80\"\ncheck = \"htp\"",
            "9:9: pool \"p\": check: kind \"htp\" is not one of \"off\", \"tcp\", \"tls\", \"http\", \"https\", \"grpc\", \"grpcs\", \
             \"redis\", \"mysql\", \"postgres\", \"smtp\" (hint: did you mean \"http\"?)",
        ),
        ("", "http = true\nbackend = \"10.0.0.1:80\"\ncookie = \"learn\"", "10:10: pool \"p\": cookie: has no name"),
        (
            "",
            "backend = \"10.0.0.1:80\"\ncookie = \"insert\"",
            "9:10: pool \"p\": cookie needs a pool that reads requests",
        ),
        ("tls = true", "backend = \"10.0.0.1:80\"", "5:7: listener \"l\": terminates TLS and has no certificate"),
    ] {
        let found = shown(&check(&file(listener, pool), &resolve).unwrap_err());
        assert!(found.starts_with(expected) && found.lines().count() == 1, "{found}");
    }
}

#[test]
fn addresses_that_make_one_name_are_refused_with_the_way_to_name_them() {
    let problems = |backends: &str| shown(&check(&file("", &format!("backend = {backends}")), &resolve).unwrap_err());
    let alike = problems("[\"unix:/run/a/b\", \"unix:/run/a-b\"]");
    assert!(alike.contains("name \"unix-run-a-b\" is taken by an earlier one, in line 8"), "{alike}");
    assert!(alike.contains("write [[pool.backend]] with name and address"), "{alike}");
    let named = "{ name = \"a\", address = \"10.0.0.1:80\" }";
    let named = problems(&format!("[{named}, {named}]"));
    assert!(named.contains("a name of its own)"), "{named}");
}
