//! `unknown_names = "refuse"`: what clients get that ask for a name which the listener does not have.

use std::process::{Command, Stdio};

use super::Front;
use super::backend::Recorder;
use super::programs::{base, curl};
use crate::reload::accepted;
use crate::support::backend::pool;
use crate::support::has;
use crate::support::program::output;

const LISTENER: &str =
    "pool = \"p\"\nunknown_names = \"refuse\"\n[[listener.route]]\nsni = \"*.route.test\"\npool = \"p\"\n";

/// Output of openssl that asks for a name, or for none.
fn hello(front: &Front, name: Option<&str>) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-ign_eof", "-connect", &front.address().to_string()]);
    match name {
        Some(name) => openssl.args(["-servername", name]),
        None => openssl.arg("-noservername"),
    };
    let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    // A client closes after a failed handshake without reading its input.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), request);
    let said = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

#[test]
fn a_name_that_neither_a_route_nor_a_certificate_has_gets_the_alert_and_all_others_are_served() {
    let test = "a_name_that_neither_a_route_nor_a_certificate_has_gets_the_alert_and_all_others_are_served";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let pools = pool("p", "http = true\n", &[backend.address()]);
    let front = Front::with("", LISTENER, &pools);
    let served = |name: Option<&str>| hello(&front, name).contains("HTTP/1.1 ");
    assert!(hello(&front, Some("a.test")).contains("HTTP/1.1 200 OK"));
    for name in [Some("b.a.test"), Some("A.TEST"), None] {
        assert!(served(name), "{name:?}");
    }
    // The host of the request is one of the certificate, with the same rules of TLS as the name of the route.
    assert!(served(Some("x.y.route.test")));
    for name in ["other.test", "c.b.a.test", "route.test"] {
        let said = hello(&front, Some(name));
        assert!(said.contains("unrecognized name") && !said.contains("HTTP/1.1"), "{said}");
        let line = front.sessile.line("the refusal", |line| line["ended"] == "no_route" && line["sni"] == name);
        assert_eq!(line["alert"], "sent:unrecognized_name", "{line}");
    }
    assert_eq!(backend.answered(), 5);
    let default = LISTENER.replace("refuse", "default");
    let text = super::config(&front.dir, "", &default, &pools);
    let verdict = front.sessile.reload(&text);
    let changes = accepted(&verdict)["changes"].to_string();
    assert!(changes.contains("unknown_names"), "{changes}");
    assert!(hello(&front, Some("other.test")).contains("HTTP/1.1 200 OK"));
}

#[test]
fn a_request_for_an_unknown_host_is_misdirected_by_both_versions_of_http() {
    let test = "a_request_for_an_unknown_host_is_misdirected_by_both_versions_of_http";
    if !has(test, "curl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = Front::with("", LISTENER, &pool("p", "http = true\n", &[backend.address()]));
    for version in ["--http1.1", "--http2"] {
        for (host, status) in [("a.test", "200"), ("b.a.test", "200"), ("x.route.test", "200"), ("other.test", "421")] {
            let url = base(&front) + "/";
            let options = [version, "--output", "/dev/null", "--write-out", "%{http_code}", "--header"];
            let said = output(curl(&front).args(options).args([&format!("Host: {host}"), &url]));
            assert_eq!(said, status, "{version} {host}");
        }
    }
    assert_eq!(backend.answered(), 6);
}
