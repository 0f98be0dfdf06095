//! Connections that last longer than a cookie's entry: a response that goes on, and a kept connection.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::redis::Redis;
use super::{AMPLE, Visitor, application, stands, store, text};
use crate::support::{PATIENCE, Sessile, eventually};

/// Requests a response that does not end, and reads its head.
fn stream(instance: &Sessile, cookie: &str) -> TcpStream {
    let mut stream = TcpStream::connect(instance.address("l")).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET /events HTTP/1.1\r\nHost: a.test\r\nCookie: {cookie}\r\n\r\n").expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[test]
fn a_client_that_holds_only_a_stream_of_events_is_known_as_long_as_it_is_connected() {
    let test = "a_client_that_holds_only_a_stream_of_events_is_known_as_long_as_it_is_connected";
    let Some(redis) = Redis::start(test) else { return };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses)
        .replace("name = \"SID\"", "name = \"SID\", remember = \"4s\"");
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    instances.iter().for_each(|instance| stands(instance, "working"));
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    let listener = one.login();
    let held = stream(&instances[0], &listener.cookie);
    // Later than the entry's end, while the connection stays open.
    let idle = one.login();
    assert_eq!(redis.dump().len(), 2);
    eventually("the store to forget who is idle", || (redis.dump().len() < 2).then_some(()));
    assert!(redis.dump()[0].1.ends_with(&listener.home));
    other.finds(std::slice::from_ref(&listener));
    drop((held, idle));
}
