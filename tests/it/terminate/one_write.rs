//! What leaves together: the ticket of a handshake with the first response, and the end with the last record.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::ClientConnection;

use super::Front;
use super::backend::Recorder;
use super::client::config_of;
use crate::support::PATIENCE;

/// A client after its part of the handshake, which has not sent its last flight yet.
fn shaken(front: &Front) -> (ClientConnection, TcpStream) {
    let name = "a.test".try_into().unwrap();
    let mut tls = ClientConnection::new(config_of(&front.authority, false), name).unwrap();
    let mut stream = TcpStream::connect(front.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while tls.wants_write() {
        tls.write_tls(&mut stream).unwrap();
    }
    while tls.is_handshaking() {
        assert!(tls.read_tls(&mut stream).unwrap() > 0);
        tls.process_new_packets().unwrap();
    }
    (tls, stream)
}

fn send(tls: &mut ClientConnection, stream: &mut TcpStream) {
    while tls.wants_write() {
        tls.write_tls(stream).unwrap();
    }
}

#[test]
fn ticket_response_and_end_come_in_one_piece() {
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    let (mut tls, mut stream) = shaken(&front);
    tls.writer().write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").unwrap();
    send(&mut tls, &mut stream);
    // All that was written at once is there at once.
    let mut piece = vec![0; 64 * 1024];
    let count = stream.read(&mut piece).unwrap();
    let mut unread = &piece[..count];
    while !unread.is_empty() {
        tls.read_tls(&mut unread).unwrap();
        tls.process_new_packets().unwrap();
    }
    let mut text = String::new();
    tls.reader().read_to_string(&mut text).expect("the end was announced");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("GET / HTTP/1.1"), "{text}");
    assert_eq!(tls.tls13_tickets_received(), 1);
    assert_eq!(stream.read(&mut piece).unwrap(), 0, "nothing is behind the end");
}

#[test]
fn a_client_that_sends_no_request_gets_its_ticket_all_the_same() {
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    let (mut tls, mut stream) = shaken(&front);
    send(&mut tls, &mut stream);
    while tls.tls13_tickets_received() == 0 {
        assert!(tls.read_tls(&mut stream).unwrap() > 0);
        tls.process_new_packets().unwrap();
    }
}
