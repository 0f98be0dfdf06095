//! Tests of the kinds of health checks, and of the keys that only some have.

use super::{SITE, SMALL, config_of, resolve, shown, warnings};
use crate::config::{CheckKind, HttpCheck, check};

fn with(check: &str) -> String {
    SMALL.replace("name = \"app\"", &format!("name = \"app\"\ncheck = {check}"))
}

fn kind_of(check: &str) -> CheckKind {
    config_of(&with(check)).pools[0].check.clone().unwrap().kind
}

fn errors(text: &str) -> String {
    shown(&check(text, &resolve).unwrap_err())
}

#[test]
fn a_check_may_send_and_expect_text_or_bytes() {
    let talk = |tls, send: &[u8], expect: &[u8]| CheckKind::Talk { tls, send: send.to_vec(), expect: expect.to_vec() };
    for (written, expected) in [
        (r#"{ send = "PING\r\n", expect = "+PONG" }"#, talk(false, b"PING\r\n", b"+PONG")),
        (r#"{ kind = "tls", expect = "hex:00ff" }"#, talk(true, b"", b"\x00\xff")),
        (r#"{ kind = "tls" }"#, CheckKind::Tls),
    ] {
        assert_eq!(kind_of(written), expected, "{written}");
    }
}

#[test]
fn a_check_may_speak_the_protocol_of_a_service() {
    for (written, expected) in [
        (r#""redis""#, CheckKind::Redis { primary: false }),
        (r#"{ kind = "redis", role = "primary" }"#, CheckKind::Redis { primary: true }),
        (r#""mysql""#, CheckKind::Mysql { user: "sessile".to_owned() }),
        (r#"{ kind = "postgres", user = "a b" }"#, CheckKind::Postgres { user: "a b".to_owned() }),
        (r#""postgres""#, CheckKind::Postgres { user: "postgres".to_owned() }),
        (r#""smtp""#, CheckKind::Smtp),
    ] {
        assert_eq!(kind_of(written), expected, "{written}");
        assert_eq!(warnings(&with(written)), "");
    }
}

#[test]
fn a_request_may_have_a_method_headers_and_a_body_to_look_into() {
    let written = r#"{ kind = "http", method = "POST", headers = ["X-A:b", "X-C: d e "], expect = "ready" }"#;
    let CheckKind::Http(HttpCheck { method, headers, expect, .. }) = kind_of(written) else { panic!("another kind") };
    assert_eq!(
        (method, &headers[..], &expect[..]),
        ("POST", &["X-A: b".to_owned(), "X-C: d e".to_owned()][..], &b"ready"[..])
    );
}

#[test]
fn what_cannot_be_sent_or_expected_is_refused_where_it_stands() {
    for (written, expected) in [
        (r#"{ send = "PING" }"#, "9:18: pool \"app\": check: send needs expect"),
        (r#"{ expect = "" }"#, "9:20: pool \"app\": check: expect \"\" is not between 1 and 1024 bytes"),
        (r#"{ expect = "hex:0" }"#, "9:20: pool \"app\": check: expect \"hex:0\" is not bytes"),
        (
            r#"{ kind = "http", headers = ["Host: a"] }"#,
            "9:37: pool \"app\": check: headers \"Host: a\" has a key of its",
        ),
        (r#"{ kind = "http", headers = ["a b: c"] }"#, "9:37: pool \"app\": check: headers \"a b: c\" is not a header"),
        (
            r#"{ kind = "http", headers = "a: b\nc: d" }"#,
            "9:36: pool \"app\": check: headers \"a: b\\nc: d\" is not a header",
        ),
        (r#"{ kind = "http", method = "CONNECT" }"#, "9:35: pool \"app\": check: method \"CONNECT\" is not one of "),
        (
            r#"{ kind = "http", method = "HEAD", expect = "a" }"#,
            "9:52: pool \"app\": check: expect looks into the body",
        ),
        (r#"{ kind = "mysql", user = "" }"#, "9:34: pool \"app\": check: user \"\" is not the name of a user"),
        (r#"{ kind = "redis", role = "replica" }"#, "9:34: pool \"app\": check: role \"replica\" is not one of"),
        (r#"{ agent = 70000 }"#, "9:19: pool \"app\": check: agent 70000 is not between 1 and 65535"),
        (r#"{ expect = [1] }"#, "9:20: pool \"app\": check: expect [...] is not a string"),
    ] {
        let found = errors(&with(written));
        assert!(found.starts_with(expected) && found.lines().count() == 1, "{written}\n{found}");
    }
}

#[test]
fn a_key_of_another_kind_is_warned_of() {
    for (written, expected) in [
        (r#"{ kind = "http", send = "a" }"#, "send has no effect on a check of kind \"http\"\n"),
        (r#"{ kind = "smtp", user = "a" }"#, "user has no effect on a check of kind \"smtp\"\n"),
        (r#"{ kind = "redis", sni = "a.example" }"#, "sni has no effect on a check of kind \"redis\"\n"),
        (r#"{ kind = "mysql", role = "primary" }"#, "role has no effect on a check of kind \"mysql\"\n"),
        (r#"{ kind = "tcp", path = "/" }"#, "path has no effect on a check of kind \"tcp\"\n"),
        (r#"{ kind = "off", expect = "a" }"#, "expect has no effect on a check of kind \"off\"\n"),
    ] {
        let found = warnings(&with(written));
        assert!(found.ends_with(expected) && found.lines().count() == 1, "{written}\n{found}");
    }
}

#[test]
fn a_check_that_speaks_in_the_clear_to_a_pool_with_tls_is_warned_of() {
    let pool =
        |check: &str| SITE.replace("http = true", &format!("http = true\ncheck = {check}\ntls = {{ verify = false }}"));
    let found = warnings(&pool(r#"{ expect = "220" }"#));
    assert!(
        found.contains("kind \"tcp\" checks without TLS, but the pool has [pool.tls] (hint: write \"tls\""),
        "{found}"
    );
    for silent in [r#"{ kind = "tcp" }"#, r#"{ kind = "tls", expect = "220" }"#] {
        assert!(!warnings(&pool(silent)).contains("without TLS"), "{silent}");
    }
}
