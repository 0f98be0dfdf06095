//! openssl s_client: TLS 1.2 and 1.3, sessions resumed here and on another instance, certificates of clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::backend::{Backend, pool};
use crate::support::{Sessile, eventually, has};
use crate::terminate::Front;
use crate::terminate::backend::Recorder;

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// Output of a client that sends one request: its report of the connection, and the response.
fn ask(front: &Front, sessile: &Sessile, version: &str, options: &[&str]) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-verify_return_error", "-servername", "a.test", "-verify_hostname", "a.test", version]);
    client.args(["-ign_eof", "-connect", &sessile.address("l").to_string(), "-CAfile"]).arg(front.file("ca.pem"));
    client.args(options).current_dir(front.dir.path());
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A client closes after a failed handshake without reading its input.
    let _ = child.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    let said = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
}

#[track_caller]
fn assert_answered(said: &str, session: &str) {
    assert!(said.contains("HTTP/1.1 200 OK") && said.contains(&format!("{session}, TLSv1.")), "{said}");
}

#[test]
fn openssl_resumes_its_session_and_sees_the_certificate() {
    let test = "openssl_resumes_its_session_and_sees_the_certificate";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    for version in VERSIONS {
        assert_answered(&ask(&front, &front.sessile, version, &["-sess_out", "session"]), "New");
        assert_answered(&ask(&front, &front.sessile, version, &["-sess_in", "session"]), "Reused");
    }
    assert_eq!((front.counted("handshakes"), front.counted("resumed")), (4, 2));
}

#[test]
fn a_session_is_taken_up_again_by_every_instance_that_has_the_ticket_keys_and_by_no_other() {
    let test = "a_session_is_taken_up_again_by_every_instance_that_has_the_ticket_keys_and_by_no_other";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    std::fs::write(front.file("other.keys"), "b2".repeat(32) + "\n").unwrap();
    let instance = |keys: &str| {
        let top = format!("[tls]\nticket_keys = \"{keys}\"\n");
        let pools = pool("p", "http = true\n", &[backend.address()]);
        Sessile::start(&crate::terminate::config(&front.dir, &top, "pool = \"p\"\n", &pools))
    };
    let [mut first, second, stranger] = ["$FILES/ticket.keys", "$FILES/ticket.keys", "$FILES/other.keys"].map(instance);
    for version in VERSIONS {
        assert_answered(&ask(&front, &first, version, &["-sess_out", "session"]), "New");
        assert_answered(&ask(&front, &second, version, &["-sess_in", "session", "-sess_out", "next"]), "Reused");
        assert_answered(&ask(&front, &stranger, version, &["-sess_in", "session"]), "New");
        // The session is resumed after a restart of the instance too.
        first.signal(rustix::process::Signal::KILL);
        first.wait();
        first.restart();
        assert_answered(&ask(&front, &first, version, &["-sess_in", "session"]), "Reused");
    }
}

#[test]
fn keys_may_change_in_the_middle() {
    let test = "keys_may_change_in_the_middle";
    if !has(test, "openssl") {
        return;
    }
    let backend = Backend::named("b");
    let front = Front::start("", "", &[backend.address]);
    let mut client = Command::new("openssl");
    client.args(["s_client", "-tls1_3", "-servername", "a.test", "-connect", &front.address().to_string()]);
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut keys, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut said = BufReader::new(said);
    for round in 0..3 {
        // A key update of its own, with a request for one of the peer (RFC 8446 §4.6.3).
        keys.write_all(b"K\n").unwrap();
        await_line(&mut errors, "KEYUPDATE");
        keys.write_all(format!("{round}\n").as_bytes()).unwrap();
        await_line(&mut said, &format!("b {round}"));
    }
    keys.write_all(b"Q\n").unwrap();
    assert!(child.wait().unwrap().success());
    front.sessile.ended("l", "done");
}

/// Reads until this line has come.
fn await_line(lines: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while line.trim_end() != wanted {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "an end before {wanted}");
    }
}

/// A listener with a rule about client certificates.
fn asking(required: bool, options: &str, backend: SocketAddr) -> Front {
    let ask = format!("pool = \"p\"\nclient_certificate = {{ ca = \"$FILES/clients.pem\", required = {required} }}\n");
    Front::with("", &ask, &pool("p", &format!("http = true\n{options}"), &[backend]))
}

const ANN: [&str; 4] = ["-cert", "ann.pem", "-key", "ann.key"];
const EVE: [&str; 4] = ["-cert", "eve.pem", "-key", "eve.key"];

#[test]
fn a_certificate_that_is_required_is_verified_and_its_subject_told() {
    let test = "a_certificate_that_is_required_is_verified_and_its_subject_told";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = asking(true, "", backend.address());
    for (count, version) in VERSIONS.into_iter().enumerate() {
        let said = ask(&front, &front.sessile, version, &[&ANN[..], &["-sess_out", "session"]].concat());
        assert_answered(&said, "New");
        assert!(said.contains("X-Client-Certificate-Subject: CN=ann"), "{said}");
        // A resumed session carries the subject of the certificate.
        let said = ask(&front, &front.sessile, version, &[&ANN[..], &["-sess_in", "session"]].concat());
        assert_answered(&said, "Reused");
        assert!(said.contains("X-Client-Certificate-Subject: CN=ann"), "{said}");
        let told = |line: &serde_json::Value| line["subject"] == "CN=ann" && line["status"] == 200;
        eventually("the subject in the log", || {
            (front.requests().into_iter().filter(told).count() == 2 * (count + 1)).then_some(())
        });
        for options in [&[][..], &EVE] {
            let said = ask(&front, &front.sessile, version, options);
            assert!(!said.contains("HTTP/1.1"), "{said}");
            assert!(said.contains("alert"), "{said}");
        }
    }
    assert_eq!(backend.answered(), 4, "nobody else was served");
    front.sessile.ended("l", "handshake_failed");
}

#[test]
fn a_certificate_that_is_optional_is_verified_where_there_is_one() {
    let test = "a_certificate_that_is_optional_is_verified_where_there_is_one";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = asking(false, "", backend.address());
    for version in VERSIONS {
        let said = ask(&front, &front.sessile, version, &ANN);
        assert!(said.contains("HTTP/1.1 200 OK") && said.contains("X-Client-Certificate-Subject: CN=ann"), "{said}");
        let said = ask(&front, &front.sessile, version, &[]);
        assert!(said.contains("HTTP/1.1 200 OK") && !said.contains("X-Client-Certificate-Subject"), "{said}");
        let said = ask(&front, &front.sessile, version, &EVE);
        assert!(!said.contains("HTTP/1.1"), "{said}");
    }
    assert_eq!(backend.answered(), 4);
}

#[test]
fn a_backend_that_wants_a_proxy_header_finds_the_clients_tls_and_certificate_in_it() {
    let test = "a_backend_that_wants_a_proxy_header_finds_the_clients_tls_and_certificate_in_it";
    if !has(test, "openssl") {
        return;
    }
    let headers: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let record = Arc::clone(&headers);
    let backend = Backend::serving(move |stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut fixed = [0; 16];
        reader.read_exact(&mut fixed)?;
        assert_eq!(fixed[..14], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "version 2, PROXY, TCP over IPv4");
        let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
        reader.read_exact(&mut rest)?;
        record.lock().unwrap().push(rest);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 && !line.ends_with("\r\n\r\n") {}
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let options = "send_proxy = \"v2\"\nsend_proxy_tlvs = [\"ssl\", \"authority\"]\n";
    let front = asking(false, options, backend.address);
    for (version, word) in VERSIONS.into_iter().zip([&b"TLSv1.2"[..], b"TLSv1.3"]) {
        for certificate in [&ANN[..], &[]] {
            assert_answered(&ask(&front, &front.sessile, version, certificate), "New");
            let header = headers.lock().unwrap().pop().expect("a connection");
            let tlvs = split(&header[12..]);
            assert_eq!(value(&tlvs, 0x02), Some(&b"a.test"[..]), "PP2_TYPE_AUTHORITY");
            let ssl = value(&tlvs, 0x20).expect("PP2_TYPE_SSL");
            let shown = !certificate.is_empty();
            // PP2_CLIENT_SSL, PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS.
            assert_eq!(ssl[0], if shown { 0x07 } else { 0x01 });
            assert_eq!(ssl[1..5] == [0; 4], shown, "verified");
            let inside = split(&ssl[5..]);
            assert_eq!(value(&inside, 0x21), Some(word), "PP2_SUBTYPE_SSL_VERSION");
            assert_eq!(value(&inside, 0x22), shown.then_some(&b"ann"[..]), "PP2_SUBTYPE_SSL_CN");
        }
    }
}

/// TLVs of a PROXY header, as kind and value.
fn split(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.push((*kind, value.to_vec()));
        bytes = rest;
    }
    found
}

fn value(tlvs: &[(u8, Vec<u8>)], kind: u8) -> Option<&[u8]> {
    tlvs.iter().find(|(known, _)| *known == kind).map(|(_, value)| &value[..])
}
