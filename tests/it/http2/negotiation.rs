//! What is spoken: ALPN where TLS ends here, prior knowledge in the clear, and the way to turn both off.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::client::{Client, negotiate};
use super::frames::PREFACE;
use super::site::Site;
use super::{HTTP, plain, plain_with};
use crate::support::backend::pool;
use crate::support::{PATIENCE, Sessile};
use crate::terminate::Front;
use crate::terminate::client::{Talk, config, connect};

/// What the front chooses of these protocols; an error: it refuses them all.
fn chosen(front: &Front, name: &str, alpn: &[&str]) -> Result<Option<String>, String> {
    negotiate(front, name, alpn).map(|(_, chosen)| chosen).map_err(|error| error.to_string())
}

fn of(name: &str) -> Result<Option<String>, String> {
    Ok(Some(name.to_owned()))
}

#[test]
fn h2_is_chosen_before_http_1_1_and_each_client_without_it_is_served_as_before() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    for offer in [&["h2"][..], &["h2", "http/1.1"], &["http/1.1", "h2"], &["http/1.0", "http/1.1", "h2"]] {
        assert_eq!(chosen(&front, "a.test", offer), of("h2"), "{offer:?}");
    }
    assert_eq!(chosen(&front, "a.test", &["http/1.1"]), of("http/1.1"));
    assert_eq!(chosen(&front, "a.test", &["http/1.0"]), of("http/1.0"));
    assert_eq!(chosen(&front, "a.test", &["h3", "http/1.1"]), of("http/1.1"));
    assert_eq!(chosen(&front, "a.test", &[]), Ok(None));
    let refused = chosen(&front, "a.test", &["h3"]).unwrap_err();
    assert!(refused.to_ascii_lowercase().contains("noapplicationprotocol"), "{refused}");
    for alpn in [&["http/1.1"][..], &[]] {
        let (stream, _) = negotiate(&front, "a.test", alpn).unwrap();
        assert_eq!(Talk::new(stream).get("/", "").status, 200);
    }
    assert_eq!(Client::with(&front).get("/", &[]).status, 200);
}

#[test]
fn http2_false_offers_no_h2_on_a_listener_and_on_a_route() {
    let site = Site::named("x");
    let pools = pool("p", HTTP, &[site.address()]);
    let route = |value: &str| format!("[[listener.route]]\nsni = \"x.a.test\"\npool = \"p\"\n{value}");
    for (keys, own, other) in [
        ("pool = \"p\"\nhttp2 = false\n".to_owned(), false, false),
        (format!("pool = \"p\"\nhttp2 = false\n{}", route("http2 = true\n")), false, true),
        (format!("pool = \"p\"\n{}", route("http2 = false\n")), true, false),
        (format!("pool = \"p\"\nhttp2 = true\n{}", route("")), true, true),
    ] {
        let front = Front::with("", &keys, &pools);
        for (name, speaks) in [("a.test", own), ("x.a.test", other)] {
            let wanted = if speaks { "h2" } else { "http/1.1" };
            assert_eq!(chosen(&front, name, &["h2", "http/1.1"]), of(wanted), "{name}, {keys}");
            assert_eq!(chosen(&front, name, &["h2"]).is_ok(), speaks, "{name}, {keys}");
        }
    }
}

#[test]
fn a_pool_that_does_not_read_http_offers_its_own_protocols_only() {
    let site = Site::named("x");
    let front = Front::start("", "alpn = [\"http/1.1\"]\n", &[site.address()]);
    assert_eq!(chosen(&front, "a.test", &["h2", "http/1.1"]), of("http/1.1"));
    assert!(chosen(&front, "a.test", &["h2"]).is_err());
}

#[test]
fn in_the_clear_both_protocols_have_one_port() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let talk = || {
        let stream = TcpStream::connect(sessile.address("l")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Talk::new(stream)
    };
    for _ in 0..3 {
        assert_eq!(Client::plain(sessile.address("l")).get("/", &[]).status, 200);
        let mut talk = talk();
        assert_eq!(talk.get("/", "").status, 200);
        // Methods that begin as the preface does.
        for method in ["P", "PR", "PRI", "PRIX", "PROPFIND"] {
            talk.send(format!("{method} /of/{method} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            let response = talk.response().unwrap();
            assert!(response.text().contains(&format!("\n{method} /of/{method} HTTP/1.1\r\n")), "{response:?}");
        }
    }
}

#[test]
fn a_preface_may_come_in_pieces_and_with_the_first_request_behind_it() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    for size in [1, 5, 14, 23] {
        let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in PREFACE.chunks(size) {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        stream.write_all(&super::frames::frame(super::frames::SETTINGS, 0, 0, &[])).unwrap();
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        assert_eq!((head[3], head[4]), (super::frames::SETTINGS, 0), "pieces of {size}");
    }
    let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = super::frames::block(&super::frames::get("/"));
    let request = super::frames::frame(super::frames::HEADERS, 5, 1, &request);
    let settings = super::frames::frame(super::frames::SETTINGS, 0, 0, &[]);
    stream.write_all(&[PREFACE, &settings, &request].concat()).unwrap();
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&all).contains("GET / HTTP/1.1") {
        match stream.read(&mut piece).unwrap() {
            0 => panic!("no response: {all:?}"),
            n => all.extend_from_slice(&piece[..n]),
        }
    }
}

#[test]
fn http2_false_refuses_prior_knowledge() {
    let site = Site::named("x");
    let sessile = plain_with("", "http2 = false\n", HTTP, &[site.address()]);
    let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(PREFACE).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 505 ") || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(site.requests(), 0);
    let mut talk = Talk::new(TcpStream::connect(sessile.address("l")).unwrap());
    assert_eq!(talk.get("/", "").status, 200);
}

#[test]
fn a_preface_over_tls_without_alpn_is_no_request() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let mut talk = Talk::new(connect(front.address(), &config(&front.authority), "a.test"));
    talk.send(PREFACE);
    let response = talk.response();
    assert!(response.is_none_or(|response| response.status >= 400));
    assert_eq!(site.requests(), 0);
}

#[test]
fn a_client_that_does_not_send_its_preface_is_closed_after_hello_timeout() {
    let site = Site::named("x");
    let top = "[limits]\nhello_timeout = \"500ms\"\n";
    let ends = |sessile: &Sessile, stream: &mut dyn Read| {
        let began = Instant::now();
        // What comes before the end is the server's preface and a GOAWAY.
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        sessile.line("the connection", |line| line["kind"] == "connection");
    };
    let front = Front::start(top, HTTP, &[site.address()]);
    let (mut silent, chosen) = negotiate(&front, "a.test", &["h2"]).unwrap();
    assert_eq!(chosen.as_deref(), Some("h2"));
    ends(&front.sessile, &mut silent);
    let (mut half, _) = negotiate(&front, "a.test", &["h2"]).unwrap();
    half.write_all(&PREFACE[..20]).unwrap();
    half.flush().unwrap();
    ends(&front.sessile, &mut half);
    let sessile = plain(top, HTTP, &[site.address()]);
    let mut half = TcpStream::connect(sessile.address("l")).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    half.write_all(&PREFACE[..20]).unwrap();
    ends(&sessile, &mut half);
    assert_eq!(site.requests(), 0);
}
