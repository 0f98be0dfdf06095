//! Tests of `unknown_names`: where it is read, and where it has no effect.

use super::{config_of, warnings};

/// A file whose listener terminates TLS and has these keys and routes.
fn file(keys: &str) -> String {
    let pool = "[[pool]]\nname = \"p\"\nhttp = true\nbackend = [{ name = \"a\", address = \"10.0.0.1:80\" }]\n";
    let listener = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntls = \"terminate\"\ncertificate = \"a.pem\"";
    format!("{listener}\n{keys}\n{pool}")
}

#[test]
fn it_is_off_unless_it_says_refuse() {
    for (key, refuses) in [("", false), ("unknown_names = \"default\"", false), ("unknown_names = \"refuse\"", true)] {
        assert_eq!(config_of(&file(&format!("{key}\npool = \"p\""))).listeners[0].refuses_unknown_names, refuses);
    }
}

#[test]
fn it_has_no_effect_where_every_route_has_names_and_no_pool_is_behind_them() {
    let routed = |conditions: &str| {
        warnings(&file(&format!("unknown_names = \"refuse\"\n[[listener.route]]\n{conditions}\npool = \"p\"")))
    };
    assert!(routed("sni = \"a.test\"").contains("without a pool: names that no route has are refused"));
    for conditions in ["source = \"10.0.0.0/8\"", "path = \"/a\""] {
        assert_eq!(routed(conditions), "", "{conditions}");
    }
}
