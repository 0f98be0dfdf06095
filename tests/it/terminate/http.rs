//! Requests on client connections that are kept.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::{TLS12, TLS13};

use super::Front;
use super::backend::Recorder;
use super::client::{Talk, config, connect};
use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile, eventually};

const HTTP: &str = "http = true\n";

#[test]
fn requests_follow_each_other_on_one_connection_to_one_backend() {
    let backend = Recorder::named("b");
    let front = Front::start("", HTTP, &[backend.address()]);
    let mut talk = Talk::with(&front);
    for count in 0..5 {
        let response = talk.get(&format!("/{count}"), "X-Forwarded-For: 1.2.3.4\r\nConnection: keep-alive\r\n");
        assert_eq!(response.status, 200);
        let text = response.text();
        assert!(text.starts_with(&format!("b 0 {count} 0\nGET /{count} HTTP/1.1\r\n")), "{text}");
        assert!(text.contains("X-Forwarded-For: 127.0.0.1\r\n") && !text.contains("1.2.3.4"), "{text}");
        assert!(text.contains("X-Forwarded-Proto: https\r\n"), "{text}");
        assert!(text.contains("X-Forwarded-Host: a.test\r\n"), "{text}");
    }
    drop(talk);
    front.sessile.ended("l", "done");
    let requests = front.requests();
    assert_eq!(requests.len(), 5);
    assert_eq!(
        (&requests[4]["status"], &requests[4]["reused"], &requests[4]["path"]),
        (&200.into(), &true.into(), &"/4".into())
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Recorder::named("b");
    let front = Front::start("", HTTP, &[backend.address()]);
    let mut talk = Talk::with(&front);
    let mut many = String::new();
    for count in 0..20 {
        many +=
            &format!("POST /{count} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {count}\r\n\r\n{}", "x".repeat(count));
    }
    talk.send(many);
    for count in 0..20 {
        let text = talk.response().unwrap().text();
        assert!(text.starts_with(&format!("b 0 {count} {count}\nPOST /{count} ")), "{text}");
    }
}

#[test]
fn bodies_of_every_framing_pass_in_both_directions() {
    let chunked = |head: &str| {
        head.starts_with("GET /chunked").then(|| {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-T: 1\r\n\r\n".to_vec()
        })
    };
    let backend = Recorder::answering("b", chunked);
    let front = Front::start("", HTTP, &[backend.address()]);
    let mut talk = Talk::with(&front);
    assert_eq!(talk.get("/chunked", "").text(), "hello world");
    talk.send("POST /up HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["3\r\nabc\r\n", "2;x\r\nde\r\n", "0\r\n\r\n"] {
        std::thread::sleep(std::time::Duration::from_millis(20));
        talk.send(piece);
    }
    let text = talk.response().unwrap().text();
    assert!(text.starts_with("b 0 1 22\n"), "{text}");
    talk.send("HEAD /h HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = talk.response_to("HEAD").unwrap();
    assert_eq!(head.status, 200);
    assert!(head.field("content-length").is_some());
    assert_eq!(talk.get("/after", "").status, 200);
}

#[test]
fn a_body_until_the_end_ends_the_clients_connection_too() {
    let backend = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        let _ = stream.read(&mut piece)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    });
    let front = Front::start("", HTTP, &[backend.address]);
    let mut talk = Talk::with(&front);
    let response = talk.get("/close", "");
    assert_eq!((response.text().as_str(), response.field("connection")), ("until the end", Some("close")));
    front.sessile.ended("l", "done");
}

#[test]
fn expect_continue_passes_and_the_body_follows() {
    let backend = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece)?;
        assert!(String::from_utf8_lossy(&piece[..n]).contains("Expect: 100-continue"));
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")?;
        let mut body = [0; 5];
        stream.read_exact(&mut body)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")?;
        stream.write_all(&body)
    });
    let front = Front::start("", HTTP, &[backend.address]);
    let mut talk = Talk::with(&front);
    talk.send("PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(talk.response().unwrap().status, 103);
    assert_eq!(talk.response().unwrap().status, 100);
    talk.send("hello");
    assert_eq!(talk.response().unwrap().text(), "hello");
}

#[test]
fn an_answer_before_the_end_of_the_body_is_the_last_one_if_its_backend_closes() {
    let backend = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        let _ = stream.read(&mut piece)?;
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!")
    });
    let front = Front::start("", HTTP, &[backend.address]);
    let mut talk = Talk::with(&front);
    talk.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\nbegun");
    let response = talk.response().unwrap();
    assert_eq!((response.status, response.field("connection"), response.text().as_str()), (413, Some("close"), "no!"));
    assert_eq!(talk.end().0, b"");
}

#[test]
fn a_host_with_other_rules_of_tls_is_misdirected() {
    let (one, two) = (Recorder::named("one"), Recorder::named("two"));
    let pools = pool("p", HTTP, &[one.address()]) + &pool("q", HTTP, &[two.address()]);
    let asked = "client_certificate = { ca = \"$FILES/clients.pem\", required = false }\n";
    let route = "[[listener.route]]\nsni = \"x.a.test\"\npool = \"q\"\nclient_certificate = \"off\"\n";
    let front = Front::with("", &format!("pool = \"p\"\n{asked}{route}"), &pools);
    let config = config(&front.authority);
    let mut talk = Talk::new(connect(front.address(), &config, "x.a.test"));
    talk.send("GET / HTTP/1.1\r\nHost: X.a.test:443\r\n\r\n");
    assert!(talk.response().unwrap().text().starts_with("two"));
    talk.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let response = talk.response().unwrap();
    assert_eq!((response.status, response.field("connection")), (421, Some("close")));
    let id = response.field("x-request-id").unwrap().to_owned();
    let line = front.sessile.line("the request", |line| line["request"] == *id);
    assert_eq!((&line["ended"], &line["status"]), (&"misdirected".into(), &421.into()));
    assert_eq!(one.connections(), 0);
}

#[test]
fn a_host_that_is_no_name_reaches_no_route_but_an_address_does() {
    let (one, two) = (Recorder::named("one"), Recorder::named("two"));
    let pools = pool("p", HTTP, &[one.address()]) + &pool("q", HTTP, &[two.address()]);
    let policy = "client_certificate = { ca = \"$FILES/clients.pem\", required = true }\n";
    let routes = format!("pool = \"p\"\n[[listener.route]]\nsni = \"partner.a.test\"\npool = \"q\"\n{policy}");
    let front = Front::with("", &routes, &pools);
    let long = format!("{}.a.test", "x".repeat(64));
    let misdirected = [
        "partner.a.test..",
        "partner.a.test.",
        "partner.a.test",
        ".partner.a.test",
        "partner..a.test",
        "~",
        ".",
        &long,
    ];
    let served =
        ["127.0.0.1", "127.0.0.1:443", "[::1]", "[::1]:8443", "a.test", "a.test.", "other.a.test:443", "x_y.a.test"];
    let ask = |host: &str| {
        let mut talk = Talk::with(&front);
        talk.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        talk.response().unwrap().status
    };
    for (hosts, status) in [(&misdirected[..], 421), (&served[..], 200)] {
        for host in hosts {
            assert_eq!(ask(host), status, "{host}");
        }
    }
    // The form of a request to a proxy, and a request without a host.
    let mut talk = Talk::with(&front);
    talk.send("GET https://partner.a.test../ HTTP/1.1\r\nHost: partner.a.test..\r\n\r\n");
    assert_eq!(talk.response().unwrap().status, 421);
    let mut talk = Talk::with(&front);
    talk.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(talk.response().unwrap().status, 200);
    assert_eq!(two.connections(), 0);
}

#[test]
fn a_long_hello_in_short_records_is_served() {
    let backend = Recorder::named("b");
    let front = Front::start("", HTTP, &[backend.address()]);
    let mut client = front.authority.client(&[&TLS13, &TLS12], &[kx_group::X25519]);
    client.alpn_protocols = (0..280).map(|n| format!("{n:0>220}").into_bytes()).collect();
    client.alpn_protocols.push(b"http/1.1".to_vec());
    for size in [None, Some(64)] {
        client.max_fragment_size = size;
        let mut talk = Talk::new(connect(front.address(), &Arc::new(client.clone()), "a.test"));
        assert_eq!(talk.get("/", "").status, 200, "records of {size:?}");
    }
}

#[test]
fn a_balancer_in_front_that_only_checks_is_a_probe() {
    let backend = Recorder::named("b");
    let limits = "[limits]\nhello_timeout = \"1s\"\n".to_owned();
    let sessile = Sessile::start(
        &(limits + &listener("p", "trust = [\"127.0.0.0/8\"]\n") + &pool("p", HTTP, &[backend.address()])),
    );
    let checks = || {
        let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
        stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").unwrap();
        stream
    };
    drop(checks());
    let silent = checks();
    let probes = || sessile.lines().iter().filter(|line| line["ended"] == "probe" && line["fault"] == "none").count();
    eventually("both checks", || (probes() == 2).then_some(()));
    drop(silent);
    // A client of the balancer is none.
    let mut client = announced(&sessile, b"\x01\x00\x00\x00\x01");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    sessile.ended("l", "silent");
}

#[test]
fn an_upgrade_becomes_a_relay_and_a_refused_one_ends_the_connection() {
    let backend = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece)?;
        let head = String::from_utf8_lossy(&piece[..n]).into_owned();
        assert!(head.ends_with("\r\n\r\n"), "what follows an Upgrade waits for 101: {head}");
        if head.starts_with("GET /no") {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")?;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)
    });
    let front = Front::start("", HTTP, &[backend.address]);
    let ask = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let mut talk = Talk::with(&front);
    talk.send(format!("GET /ws HTTP/1.1\r\nHost: a.test\r\n{ask}\r\nearly"));
    assert_eq!(talk.response().unwrap().status, 101);
    talk.stream.conn.send_close_notify();
    talk.stream.flush().unwrap();
    assert_eq!(talk.end(), (b"firstearly".to_vec(), true));
    let mut talk = Talk::with(&front);
    let refused = talk.get("/no", ask);
    assert_eq!((refused.status, refused.field("connection")), (404, Some("close")));
    assert_eq!(talk.end().0, b"");
}

#[test]
fn what_backends_do_wrong_is_answered_for_them() {
    let backend = Recorder::answering("b", |head| {
        let path = head.split(' ').nth(1)?;
        Some(match path {
            "/nonsense" => b"what?\r\n\r\n".to_vec(),
            "/twice" => b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
            "/closes" => Vec::new(),
            _ => return None,
        })
    });
    let front = Front::start("", HTTP, &[backend.address()]);
    for (path, ended) in
        [("/nonsense", "response_refused"), ("/twice", "response_refused"), ("/closes", "response_cut")]
    {
        let response = Talk::with(&front).get(path, "");
        assert_eq!((response.status, response.field("connection")), (502, Some("close")), "{path}");
        assert!(response.field("cache-control").is_some_and(|value| value.contains("no-store")));
        front.sessile.ended("l", ended);
    }
}

#[test]
fn nobody_waits_for_ever() {
    let backend = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece)?;
        if piece[..n].starts_with(b"GET /part") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart")?;
        }
        std::thread::sleep(PATIENCE);
        Ok(())
    });
    let limits = "[limits]\nhello_timeout = \"1s\"\nkeepalive_timeout = \"1s\"\nresponse_timeout = \"1s\"\nbody_timeout = \"1s\"\n";
    let front = Front::start(limits, HTTP, &[backend.address]);
    assert_eq!(Talk::with(&front).get("/", "").status, 504);
    front.sessile.ended("l", "response_timeout");

    let mut talk = Talk::with(&front);
    talk.send("GET /part HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(talk.response().is_none());
    front.sessile.ended("l", "body_timeout");

    let mut talk = Talk::with(&front);
    talk.send("GET / HTTP/1.1\r\n");
    assert_eq!(talk.response().unwrap().status, 408);
    front.sessile.ended("l", "request_timeout");

    let mut talk = Talk::with(&front);
    talk.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(talk.response().unwrap().status, 408);

    let mut talk = Talk::with(&front);
    talk.send("");
    assert_eq!(talk.end().0, b"");
}

#[test]
fn a_pool_may_take_longer_to_answer_than_others() {
    let backend = Backend::serving(|mut stream| {
        let mut piece = [0; 4096];
        while stream.read(&mut piece)? > 0 {
            std::thread::sleep(Duration::from_millis(800));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    });
    for (wider, own, status) in [("300ms", "10s", 200), ("10s", "300ms", 504), ("300ms", "off", 200)] {
        let sessile = Sessile::start(
            &(listener("p", &format!("[listener.limits]\nresponse_timeout = \"{wider}\"\n"))
                + &pool("p", "http = true\n", &[backend.address])
                + &format!("[pool.limits]\nresponse_timeout = \"{own}\"\n")),
        );
        let mut talk = Talk::new(TcpStream::connect(sessile.address("l")).unwrap());
        assert_eq!(talk.get("/", "").status, status, "{wider} {own}");
    }
}

#[test]
fn a_decoder_in_front_says_who_comes_and_how() {
    let backend = Recorder::named("b");
    let sessile = Sessile::start(
        &(listener("p", "trust = [\"127.0.0.0/8\"]\n")
            + &pool("p", "http = true\nbalance = \"hash\"\n", &[backend.address()])),
    );
    // A client that offers TLS 1.3.
    let mut talk = Talk::new(announced(&sessile, b"\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3"));
    let text = talk.get("/", "").text();
    assert!(
        text.contains("X-Forwarded-For: 198.51.100.7\r\n") && text.contains("X-Forwarded-Proto: https\r\n"),
        "{text}"
    );
    assert_eq!(talk.get("/again", "").status, 200);
    let line = sessile.line("a request", |line| line["request"].is_string());
    assert!(line["client"].as_str().unwrap().starts_with("198.51.100.7:"));
}

#[test]
fn a_common_name_that_a_decoder_tells_cannot_pass_for_more() {
    let backend = Recorder::named("b");
    let sessile = Sessile::start(
        &(listener("p", "trust = [\"127.0.0.0/8\"]\n") + &pool("p", "http = true\n", &[backend.address()])),
    );
    // PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS, with `verify` 0.
    let mut talk = Talk::new(announced(&sessile, b"\x07\x00\x00\x00\x00\x22\x00\x0bann,O=Other"));
    let text = talk.get("/", "X-Client-Certificate-Subject: CN=eve\r\n").text();
    assert!(text.contains("X-Client-Certificate-Subject: CN=ann\\,O\\=Other\r\n") && !text.contains("eve"), "{text}");
}

/// A connection of a trusted proxy that has terminated the client's TLS, with this SSL TLV.
fn announced(sessile: &Sessile, ssl: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // v2, PROXY, TCP over IPv4, 12 bytes of addresses and an SSL TLV.
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend((12 + 3 + ssl.len() as u16).to_be_bytes());
    header.extend([198, 51, 100, 7, 192, 0, 2, 1, 0x10, 0, 1, 187]);
    header.extend([0x20, 0, ssl.len() as u8]);
    header.extend(ssl);
    stream.write_all(&header).unwrap();
    stream
}

#[test]
fn certificates_and_tables_change_under_connections_that_live() {
    let (one, two) = (Recorder::named("one"), Recorder::named("two"));
    let front = Front::start("", HTTP, &[one.address()]);
    let mut talk = Talk::with(&front);
    assert!(talk.get("/", "").text().starts_with("one"));
    let other = crate::support::authority::Authority::new();
    other.mint("a.test").write(front.dir.path(), "a");
    let moved = pool("p", HTTP, &[one.address()])
        .replace("\"b0\"", "\"c0\"")
        .replace(&one.address().to_string(), &two.address().to_string());
    let text = super::config(&front.dir, "", "pool = \"p\"\n", &moved);
    let verdict = front.sessile.reload(&text);
    assert_eq!(verdict["accepted"], true, "{verdict}");
    assert!(talk.get("/", "").text().starts_with("two"), "a request on an old connection follows the new table");
    let mut new = Talk::new(connect(front.address(), &config(&other), "a.test"));
    assert_eq!(new.get("/", "").status, 200);
    std::fs::write(front.file("a.key"), "nonsense").unwrap();
    let verdict = front.sessile.reload(&text);
    assert_eq!(verdict["accepted"], false);
    let mut new = Talk::new(connect(front.address(), &config(&other), "a.test"));
    assert_eq!(new.get("/", "").status, 200);
}
