//! Header fields on their way: what a client cannot claim, what a trusted proxy may tell, and what a pool sets and removes.

use super::backend::Recorder;
use super::client::{Talk, config, connect};
use super::programs::{base, curl};
use super::{Front, config as whole_config};
use crate::support::backend::{listener, pool};
use crate::support::program::output;
use crate::support::{Sessile, has};

const HTTP: &str = "http = true\n";
const INSERT: &str = "http = true\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";

/// What a client claims of itself, in many spellings.
const CLAIMS: [&str; 12] = [
    "X-Real-IP: 203.0.113.9",
    "x_forwarded_for: 203.0.113.9",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /admin",
    "X-Forwarded.Proto: http",
    "Forwarded: for=203.0.113.9",
    "True-Client-IP: 203.0.113.9",
    "CF-Connecting-IP: 203.0.113.9",
    "X-Original-URL: /admin",
    "X_Rewrite_Url: /admin",
    "Client-IP: 203.0.113.9",
    "X-Script-Name: /admin",
];

#[test]
fn a_client_cannot_claim_an_address_a_port_or_a_path() {
    let test = "a_client_cannot_claim_an_address_a_port_or_a_path";
    if !has(test, "curl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = Front::start("", HTTP, &[backend.address()]);
    let port = front.address().port();
    for http in ["--http1.1", "--http2"] {
        let claims = CLAIMS.iter().flat_map(|claim| ["-H", claim]);
        let text = output(curl(&front).arg(http).args(claims).arg(base(&front) + "/claims"));
        assert!(!text.contains("203.0.113.9") && !text.contains("admin"), "{http} {text}");
        for line in [
            "X-Forwarded-For: 127.0.0.1".to_owned(),
            "X-Forwarded-Proto: https".to_owned(),
            format!("X-Forwarded-Host: a.test:{port}"),
            format!("X-Forwarded-Port: {port}"),
            format!("Forwarded: for=127.0.0.1;proto=https;host=\"a.test:{port}\""),
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{http} {line}\n{text}");
        }
    }
}

#[test]
fn the_scheme_that_a_trusted_proxy_tells_decides_about_secure() {
    let backend = Recorder::named("b");
    let keys = tempfile::tempdir().unwrap();
    std::fs::write(keys.path().join("cookie.keys"), "0123456789abcdef5a69788796a5b4c3".repeat(2) + "\n").unwrap();
    let insert = INSERT.replace("$FILES", keys.path().to_str().unwrap());
    for (forwarded, told, is_secure) in [
        ("append", "X-Forwarded-Proto: https\r\n", true),
        ("append", "Forwarded: for=192.0.2.1;proto=https\r\n", true),
        ("append", "X-Forwarded-Proto: http\r\n", false),
        ("append", "", false),
        ("replace", "X-Forwarded-Proto: https\r\n", false),
        ("off", "X-Forwarded-Proto: https\r\n", false),
    ] {
        let listener = listener("p", &format!("forwarded = \"{forwarded}\""));
        let sessile = Sessile::start(&(listener + &pool("p", &insert, &[backend.address()])));
        let mut talk = Talk::new(std::net::TcpStream::connect(sessile.address("l")).unwrap());
        let response = talk.get("/", told);
        let cookie = response.field("set-cookie").expect("a cookie");
        assert_eq!(cookie.contains("; Secure"), is_secure, "{forwarded} {told} {cookie}");
        assert_eq!(
            response.text().contains("X-Forwarded-Proto: https"),
            told.contains("https") && forwarded != "replace"
        );
    }
}

#[test]
fn a_pool_sets_and_removes_fields_of_requests_and_responses() {
    let backend = Recorder::answering("b", |head| {
        let fields = "Server: b\r\nx-powered-by: c\r\nSet-Cookie: a=b\r\nStrict-Transport-Security: max-age=0\r\n";
        let sent = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{head}", head.len());
        Some(sent.into_bytes())
    });
    let rules = "request_headers = { set = { X-Real-IP = \"{client_ip}\", Host = \"inner.test\", \
                 X-Origin = \"{scheme}://{host}\", X-Id = \"{request_id}\", X-Forwarded-Host = \"{host}\" }, \
                 remove = [\"X-Debug\", \"X-Forwarded-Port\"] }\n\
                 response_headers = { set = { Strict-Transport-Security = \"max-age=1\", X-For = \"{client_ip}\" }, \
                 remove = [\"Server\", \"X-Powered-By\", \"Set-Cookie\"] }\n";
    let front = Front::start("", &(INSERT.to_owned() + rules), &[backend.address()]);
    let mut talk = Talk::new(connect(front.address(), &config(&front.authority), "a.test"));
    let response = talk.get("/", "X-Real-IP: 203.0.113.9\r\nx_debug: 1\r\nX-Id: theirs\r\n");
    let id = front.sessile.line("the request", |line| line["request"].is_string())["request"].clone();
    let head = response.text();
    for line in [
        "X-Real-IP: 127.0.0.1",
        "Host: inner.test",
        "X-Origin: https://a.test",
        "X-Forwarded-Host: a.test",
        &format!("X-Id: {}", id.as_str().unwrap()),
    ] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}\n{head}");
    }
    assert_eq!(head.to_ascii_lowercase().matches("\r\nhost:").count(), 1, "{head}");
    for gone in ["203.0.113.9", "x_debug", "theirs", "X-Forwarded-Port"] {
        assert!(!head.contains(gone), "{gone}\n{head}");
    }
    assert_eq!((response.field("server"), response.field("x-powered-by")), (None, None));
    let all = response.head.to_ascii_lowercase();
    assert_eq!(all.matches("set-cookie:").count(), 1, "{all}");
    assert!(response.field("set-cookie").unwrap().starts_with("SESSILE-p="), "our own stays");
    assert_eq!(all.matches("strict-transport-security:").count(), 1, "{all}");
    assert_eq!(
        (response.field("strict-transport-security"), response.field("x-for")),
        (Some("max-age=1"), Some("127.0.0.1"))
    );
    assert_eq!(response.field("cache-control"), Some("private"));
}

#[test]
fn rules_hold_for_streams_of_http2_and_change_with_a_reload() {
    let test = "rules_hold_for_streams_of_http2_and_change_with_a_reload";
    if !has(test, "curl") {
        return;
    }
    let backend = Recorder::named("b");
    let rules = |value: &str| format!("{HTTP}response_headers = {{ set = {{ X-Rule = \"{value}\" }} }}\n");
    let front = Front::start("", &rules("one"), &[backend.address()]);
    let asked = |http: &str| output(curl(&front).args([http, "--head"]).arg(base(&front)));
    for http in ["--http1.1", "--http2"] {
        assert!(asked(http).to_ascii_lowercase().contains("x-rule: one"), "{http}");
    }
    let next = whole_config(&front.dir, "", "pool = \"p\"\n", &pool("p", &rules("two"), &[backend.address()]));
    let changes = front.sessile.reload(&next)["changes"].to_string();
    assert!(changes.contains("response_headers.set.X-Rule changed, takes effect at once"), "{changes}");
    assert!(asked("--http2").to_ascii_lowercase().contains("x-rule: two"));
}

#[test]
fn a_request_has_one_id_at_its_backend_its_client_and_in_the_log() {
    let backend = Recorder::answering("b", |head| {
        let gone = head.starts_with("GET /gone");
        let sent = format!("HTTP/1.1 200 OK\r\nx-request-id: theirs\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        Some(if gone { Vec::new() } else { sent.into_bytes() })
    });
    for (forwarded, sent, is_taken) in
        [("append", "7f3a-9", true), ("append", "a b", false), ("append", "", false), ("replace", "7f3a-9", false)]
    {
        let listener = listener("p", &format!("forwarded = \"{forwarded}\"\nrequest_id = \"X-Request-ID\""));
        let sessile = Sessile::start(&(listener + &pool("p", HTTP, &[backend.address()])));
        let mut talk = Talk::new(std::net::TcpStream::connect(sessile.address("l")).unwrap());
        for (path, status) in [("/", 200), ("/gone", 502)] {
            let response = talk.get(path, &format!("x-request-id: {sent}\r\n"));
            assert_eq!(response.status, status);
            let line = sessile.line(path, |line| line["path"] == path);
            let own = line["request"].as_str().unwrap();
            let id = if is_taken { sent } else { own };
            assert_eq!(line["request_id"].as_str(), is_taken.then_some(sent), "{line}");
            let all = response.head.to_ascii_lowercase();
            assert_eq!(all.matches("x-request-id:").count(), 1, "{all}");
            assert_eq!(response.field("x-request-id"), Some(id), "{forwarded} {sent} {path}");
            if status == 200 {
                let head = response.text();
                assert_eq!(head.matches(&format!("\r\nX-Request-ID: {id}\r\n")).count(), 1, "{head}");
                assert_eq!(head.to_ascii_lowercase().matches("x-request-id").count(), 1, "{head}");
            }
        }
    }
}
