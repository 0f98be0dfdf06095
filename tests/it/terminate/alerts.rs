//! Clients that get no TLS handshake: what they are sent, and that they can read it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::support::PATIENCE;
use crate::support::Sessile;
use crate::support::authority::hello;
use crate::support::backend::{Backend, listener, pool};
use crate::terminate::Front;
use crate::terminate::client::{config, config_of, connect};

/// Alerts, by their numbers on the wire.
const UNEXPECTED_MESSAGE: u8 = 10;
const RECORD_OVERFLOW: u8 = 22;
const HANDSHAKE_FAILURE: u8 = 40;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const UNRECOGNIZED_NAME: u8 = 112;

/// Bytes that wait unread behind what is refused.
const REST: usize = 1 << 20;

fn open(to: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Everything that comes back until the end, which must not be a reset.
fn answer(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an end without a reset");
    bytes
}

/// Sends bytes and many more behind them, before anything is read; what comes back.
fn answer_to(front: std::net::SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let stream = open(front);
    (&stream).write_all(bytes).expect("a connection");
    (&stream).write_all(&vec![0; REST]).expect("the rest is read and dropped");
    answer(&stream)
}

fn alert(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

fn record(payload: &[u8]) -> Vec<u8> {
    [&[22, 3, 1], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
}

fn client_hello(extensions: &[u8]) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    record(&[&[1], &(body.len() as u32).to_be_bytes()[1..], &body].concat())
}

#[test]
fn what_the_hello_reader_refuses_gets_an_alert_and_a_readable_end() {
    let front = Front::start("", "http = true\n", &["127.0.0.1:1".parse().unwrap()]);
    let alpn = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
    for (bytes, description, ended) in [
        (record(&[2, 0, 0, 0]), UNEXPECTED_MESSAGE, "hello_malformed"),
        (vec![22, 3, 1, 0x40, 0x01], RECORD_OVERFLOW, "hello_malformed"),
        (vec![22, 3, 1, 0, 0], UNEXPECTED_MESSAGE, "hello_malformed"),
        (client_hello(&[0, 16, 0, 1, 0]), DECODE_ERROR, "hello_malformed"),
        (client_hello(&[alpn, alpn].concat()), ILLEGAL_PARAMETER, "hello_malformed"),
        (record(&[1, 0xff, 0xff, 0xff]), DECODE_ERROR, "hello_too_long"),
        (vec![22, 2, 0, 0, 9], PROTOCOL_VERSION, "not_tls"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), UNEXPECTED_MESSAGE, "not_tls"),
    ] {
        assert_eq!(answer_to(front.address(), &bytes), alert(description), "{bytes:x?}");
        front.sessile.ended("l", ended);
        let word = match description {
            UNEXPECTED_MESSAGE => "sent:unexpected_message",
            RECORD_OVERFLOW => "sent:record_overflow",
            ILLEGAL_PARAMETER => "sent:illegal_parameter",
            PROTOCOL_VERSION => "sent:protocol_version",
            _ => "sent:decode_error",
        };
        front.sessile.line(word, |line| line["ended"] == ended && line["alert"] == word);
    }
    // The same, in the smallest pieces.
    let stream = open(front.address());
    for byte in client_hello(&[0, 16, 0, 1, 0]) {
        (&stream).write_all(&[byte]).unwrap();
    }
    assert_eq!(answer(&stream), alert(DECODE_ERROR));
}

#[test]
fn alerts_inside_a_handshake_and_behind_it_are_readable_too() {
    let backend = Backend::named("b");
    let front = Front::start("", "", &[backend.address]);
    // No cipher suite in common, as rustls finds it, and a megabyte that nothing reads.
    let stream = open(front.address());
    let suites = [0, 9, 0, 35]; // RSA with DES, and SRP
    let extensions = [0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29]; // signature algorithms and groups
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 4], &suites, &[1, 0, 0, 16], &extensions].concat();
    let message = [&[1], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    (&stream).write_all(&record(&message)).unwrap();
    (&stream).write_all(&vec![0; REST]).unwrap();
    assert_eq!(answer(&stream), alert(HANDSHAKE_FAILURE));
    front.sessile.ended("l", "handshake_failed");
    // Records that are no TLS, inside the handshake and after it.
    let stream = open(front.address());
    (&stream).write_all(&hello(&config_of(&front.authority, true), "a.test").1).unwrap();
    (&stream).write_all(&vec![0; REST]).unwrap();
    let bytes = answer(&stream);
    assert_eq!(bytes[bytes.len() - 7..bytes.len() - 1], [21, 3, 3, 0, 2, 2], "{bytes:x?}");
    let mut tls = connect(front.address(), &config(&front.authority), "a.test");
    tls.write_all(b"x\n").unwrap();
    tls.read_exact(&mut [0; 4]).unwrap();
    (&tls.sock).write_all(&vec![0; REST]).unwrap();
    assert!(!answer(&tls.sock).is_empty(), "an alert");
    front.sessile.ended("l", "client_tls");
}

#[test]
fn a_name_without_a_route_gets_unrecognized_name_where_tls_ends() {
    let backend = Backend::named("b");
    let route = "[[listener.route]]\nsni = \"a.test\"\npool = \"p\"\n";
    let front = Front::with("", route, &pool("p", "", &[backend.address]));
    let mut served = connect(front.address(), &config(&front.authority), "a.test");
    served.write_all(b"x\n").unwrap();
    served.read_exact(&mut [0; 4]).unwrap();
    let stream = open(front.address());
    (&stream).write_all(&hello(&config(&front.authority), "other.test").1).unwrap();
    assert_eq!(answer(&stream), alert(UNRECOGNIZED_NAME));
    let line = front.sessile.ended("l", "no_route");
    assert_eq!((&line["sni"], &line["alert"]), (&"other.test".into(), &"sent:unrecognized_name".into()), "{line}");
}

#[test]
fn where_tls_ends_for_one_name_alerts_are_sent_and_where_it_passes_through_none_are() {
    let backend = Backend::named("b");
    let route = "pool = \"p\"\n[[listener.route]]\nsni = \"through.test\"\ntls = \"passthrough\"\npool = \"p\"\n";
    let mixed = Front::with("", route, &pool("p", "", &[backend.address]));
    assert_eq!(answer_to(mixed.address(), &record(&[2, 0, 0, 0])), alert(UNEXPECTED_MESSAGE));
    let passthrough = Sessile::start(
        &(listener("p", "tls = \"passthrough\"\n[[listener.route]]\nsni = \"a.test\"\npool = \"p\"\n")
            + &pool("p", "", &[backend.address])),
    );
    let stream = open(passthrough.address("l"));
    (&stream).write_all(&record(&[2, 0, 0, 0])).unwrap();
    assert_eq!(answer(&stream), [0; 0]);
    passthrough.ended("l", "hello_malformed");
}

#[test]
fn plain_http_at_a_port_for_https_is_told_so() {
    let front = Front::start("", "http = true\n", &["127.0.0.1:1".parse().unwrap()]);
    for (request, body) in [("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", true), ("HEAD / HTTP/1.1\r\n\r\n", false)] {
        for pieces in [1, request.len()] {
            let stream = open(front.address());
            stream.set_nodelay(true).unwrap();
            for piece in request.as_bytes().chunks(request.len() / pieces) {
                (&stream).write_all(piece).unwrap();
            }
            let answer = String::from_utf8(answer(&stream)).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
            assert_eq!(answer.ends_with("plain HTTP was sent to a port that serves HTTPS\n"), body, "{answer}");
        }
    }
    front.sessile.ended("l", "not_tls");
    // What begins like a method and does not go on like one.
    let stream = open(front.address());
    (&stream).write_all(b"EHLO").unwrap();
    (&stream).write_all(b"\r\n").unwrap();
    assert_eq!(answer(&stream), alert(UNEXPECTED_MESSAGE));
    // A client that leaves before it has said what it speaks.
    let stream = open(front.address());
    (&stream).write_all(b"GE").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(&stream), alert(UNEXPECTED_MESSAGE));
    // Behind TLS is another protocol than HTTP.
    let bytes = Front::start("", "", &["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(answer_to(bytes.address(), b"GET / HTTP/1.1\r\n\r\n"), alert(UNEXPECTED_MESSAGE));
}
