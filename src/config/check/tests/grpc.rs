//! Tests of the health checks of gRPC: when they use TLS, and which keys they have.

use super::{SITE, SMALL, config_of, resolve, shown, warnings};
use crate::config::{CheckKind, check};

/// `SMALL` with a check.
fn small(keys: &str) -> String {
    SMALL.replacen("name = \"app\"", &format!("name = \"app\"\ncheck = {{ {keys} }}"), 1)
}

fn kind_of(text: &str) -> CheckKind {
    let pools = config_of(text).pools;
    pools.into_iter().find_map(|pool| pool.check.map(|check| check.kind)).unwrap()
}

#[test]
fn a_call_uses_tls_as_the_pool_does_or_where_its_kind_says_so() {
    let grpc = |tls| CheckKind::Grpc { tls, host: None, service: String::new() };
    let with_tls = |kind: &str| {
        SITE.replace("http = true", &format!("http = true\ncheck = \"{kind}\"\ntls = {{ verify = false }}"))
    };
    for (text, tls) in [
        (small("kind = \"grpc\""), false),
        (small("kind = \"grpcs\""), true),
        (with_tls("grpc"), true),
        (with_tls("grpcs"), true),
    ] {
        assert_eq!(kind_of(&text), grpc(tls), "{text}");
    }
}

#[test]
fn a_call_has_a_service_and_an_authority() {
    let text = small("kind = \"grpc\", service = \"shop.Cart\", host = \"cart.example:50051\"");
    let (host, service) = (Some("cart.example:50051".to_owned()), "shop.Cart".to_owned());
    assert_eq!(kind_of(&text), CheckKind::Grpc { tls: false, host, service });
    assert_eq!(warnings(&text), "");
}

#[test]
fn keys_of_other_kinds_have_no_effect_and_are_warned_of() {
    for (keys, expected) in [
        (
            "kind = \"grpc\", path = \"/\"",
            "9:33: pool \"app\": check: path has no effect on a check of kind \"grpc\"\n",
        ),
        ("kind = \"grpc\", sni = \"a\"", "9:32: pool \"app\": check: sni has no effect on a check of kind \"grpc\"\n"),
        ("kind = \"http\", service = \"\"", "check: service has no effect on a check of kind \"http\"\n"),
        ("kind = \"grpcs\", sni = \"a\"", ""),
    ] {
        let warned = warnings(&small(keys));
        assert!(warned.ends_with(expected) && warned.lines().count() == usize::from(!expected.is_empty()), "{warned}");
    }
}

#[test]
fn bad_values_are_errors_with_their_place() {
    let long = "s".repeat(257);
    let found = |keys: &str| shown(&check(&small(keys), &resolve).unwrap_err());
    for (keys, expected) in [
        (
            "kind = \"grpc\", host = \"a<b\"",
            "9:33: pool \"app\": check: host \"a<b\" cannot be the authority of a call",
        ),
        ("kind = \"grpc\", service = \"a\\nb\"", "is not the name of a service: at most 256 bytes, none a control\n"),
        (&format!("kind = \"grpc\", service = \"{long}\""), "is not the name of a service"),
        ("kind = \"grpc\", service = 7", "service 7 is not a string\n"),
        ("kind = \"grcp\"", "(hint: did you mean \"grpc\"?)\n"),
    ] {
        let found = found(keys);
        assert!(found.contains(expected), "{found}");
    }
}
