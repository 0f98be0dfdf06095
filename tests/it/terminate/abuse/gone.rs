//! Peers that vanish without FIN or reset, as a host does that loses its power.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::namespace;
use crate::faults::peer::connect_from;
use crate::support::PATIENCE;
use crate::support::authority::{Authority, hello};
use crate::support::backend::{Backend, pool};
use crate::terminate::client::{Talk, Tls, config};

/// Address on 127.0.0.1, as all sockets of these tests have.
fn here(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Replies as the path says, and reports the peer's address of a request for `/vanish`.
fn serving(address: SocketAddr, asked: mpsc::Sender<u16>) -> Backend {
    let asked = std::sync::Mutex::new(asked);
    Backend::on(address, move |mut stream| {
        let mut piece = [0; 4096];
        loop {
            let n = stream.read(&mut piece)?;
            match &piece[..n] {
                [] => return Ok(()),
                bytes if bytes.starts_with(b"GET /endless") => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                    while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
                    return Ok(());
                }
                bytes if bytes.starts_with(b"GET /vanish") => {
                    let _ = asked.lock().unwrap().send(stream.peer_addr()?.port());
                }
                bytes if bytes.starts_with(b"GET /fine") => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n")?;
                }
                _ => {}
            }
        }
    })
}

#[test]
fn whoever_goes_without_a_word_is_noticed_within_the_limits() {
    if !namespace::possible("whoever_goes_without_a_word_is_noticed_within_the_limits") {
        return;
    }
    let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a scratch directory"));
    authority.mint("a.test").write(dir.path(), "a");
    let tls = "tls = \"terminate\"\ncertificate = [{ cert = \"$FILES/a.pem\", key = \"$FILES/a.key\" }]\n";
    // Name and pool of each listener, and the outcome of its one connection.
    let listeners = [
        ("kept", "web", tls, "client_gone"),
        ("answered", "web", tls, "client_gone"),
        ("in-its-body", "web", "", "client_gone"),
        ("in-its-handshake", "web", tls, "handshake_timeout"),
        ("relayed", "plain", tls, "client_gone"),
        ("backend", "web", "", "backend_gone"),
    ];
    let mut text = "[limits]\nhello_timeout = \"2s\"\nuser_timeout = \"1s\"\nkeepalive = \"1s\"\n\
                    keepalive_interval = \"1s\"\nkeepalive_count = 2\n"
        .to_owned();
    for (name, pool, tls, _) in listeners {
        text += &format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n{tls}");
    }
    text += &(pool("web", "http = true\n", &[here(9_001)]) + &pool("plain", "", &[here(9_001)]));
    let text = text.replace("$FILES", dir.path().to_str().expect("a path of words"));
    let (sessile, inside) = namespace::start(namespace::FILTER, &text);
    inside.inside(|| {
        let (told, asked) = mpsc::channel();
        let _backend = serving(here(9_001), told);
        let client = config(&authority);
        let secure = |name: &str, port: u16| {
            let stream = connect_from(here(port), sessile.address(name));
            let connection = rustls::ClientConnection::new(client.clone(), "a.test".try_into().expect("a name"));
            Talk::new(Tls::new(connection.expect("a client"), stream))
        };
        let plain = |name: &str, port: u16| Talk::new(connect_from(here(port), sessile.address(name)));
        let mut kept = secure("kept", 20_001);
        assert_eq!(kept.get("/fine", "").status, 200);
        let mut answered = secure("answered", 20_002);
        answered.send("GET /endless HTTP/1.1\r\nHost: a.test\r\n\r\n");
        answered.stream.read_exact(&mut [0; 1 << 16]).expect("bytes without end");
        let mut body = plain("in-its-body", 20_003);
        body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart");
        let handshake: TcpStream = connect_from(here(20_004), sessile.address("in-its-handshake"));
        (&handshake).write_all(&hello(&client, "a.test").1).expect("a connection");
        (&handshake).read_exact(&mut [0; 100]).expect("an answer to the hello");
        let mut relayed = secure("relayed", 20_005);
        relayed.send("GET /fine HTTP/1.1\r\n\r\n");
        assert_eq!(relayed.response().expect("the backend's own").status, 200);
        let mut waiting = plain("backend", 20_006);
        waiting.send("GET /vanish HTTP/1.1\r\nHost: a\r\n\r\n");
        let backend = asked.recv_timeout(PATIENCE).expect("a request");

        let began = Instant::now();
        (20_001..=20_005).chain([backend]).for_each(namespace::swallow);
        thread::scope(|scope| {
            for (name, _, _, ended) in listeners {
                let sessile = &sessile;
                scope.spawn(move || {
                    sessile.ended(name, ended);
                    println!("{name} ended as {ended} after {:?}", began.elapsed());
                    assert!(began.elapsed() < Duration::from_secs(6), "{name}: {:?}", began.elapsed());
                });
            }
        });
        assert_eq!(waiting.response().expect("an answer").status, 502);
    });
}
