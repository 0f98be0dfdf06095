//! Pools without `http` behind TLS that sessile terminates.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::Front;
use super::client::{config, config_of, connect};
use crate::faults::peer::Blackhole;
use crate::support::backend::{Backend, pool};
use crate::support::eventually;

#[test]
fn bytes_go_both_ways_with_either_version() {
    let backend = Backend::named("b");
    let front = Front::start("", "", &[backend.address]);
    for old in [true, false] {
        let mut client = connect(front.address(), &config_of(&front.authority, old), "a.test");
        for word in ["one", "two"] {
            client.write_all(format!("{word}\n").as_bytes()).unwrap();
            let wanted = format!("b {word}\n");
            let mut answer = vec![0; wanted.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), wanted);
        }
        client.conn.send_close_notify();
        client.flush().unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the backend's end comes as close_notify");
    }
    let line = front.sessile.ended("l", "done");
    assert_eq!((&line["pool"], &line["backend"], &line["sni"]), (&"p".into(), &"b0".into(), &"a.test".into()));
    assert_eq!((&line["bytes_up"], &line["bytes_down"]), (&8.into(), &12.into()));
    for (version, cipher) in [("TLSv1.2", "TLS_ECDHE"), ("TLSv1.3", "TLS_AES")] {
        let line = front.sessile.line(version, |line| line["tls"] == version);
        assert!(line["cipher"].as_str().unwrap().starts_with(cipher) && line["resumed"].is_null(), "{line}");
    }
}

#[test]
fn a_client_that_resets_while_its_backend_is_connected_to_is_waited_for_by_nobody() {
    let nowhere = Blackhole::new();
    let times = "connect_timeout = \"15s\"\nconnect_budget = \"15s\"\n";
    for options in ["", "http = true\n"] {
        let front = Front::start("", &(times.to_owned() + options), &[nowhere.address]);
        let mut client = connect(front.address(), &config(&front.authority), "a.test");
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        eventually("the connection to wait for its backend", || {
            let shown = front.sessile.json("/connections");
            (shown["connections"][0]["stage"] == "connect").then_some(())
        });
        rustix::net::sockopt::set_socket_linger(&client.sock, Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        let line = front.sessile.ended("l", "client_reset");
        assert!(line["duration_us"].as_u64() < Some(10_000_000), "{line}");
    }
}

#[test]
fn an_end_passes_while_the_other_direction_goes_on() {
    let backend = Backend::serving(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(format!("{} bytes", all.len()).as_bytes())
    });
    let front = Front::start("", "", &[backend.address]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    client.write_all(&[7; 100_000]).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "100000 bytes");
    front.sessile.ended("l", "done");
}

#[test]
fn a_client_that_leaves_without_a_word_or_talks_nonsense_is_told_apart() {
    let backend = Backend::serving(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(format!("{} bytes", all.len()).as_bytes())
    });
    let front = Front::start("", "", &[backend.address]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    client.write_all(b"seven..").unwrap();
    client.flush().unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "7 bytes", "its end passes as an end");
    front.sessile.ended("l", "client_truncated");

    let backend = Backend::named("b");
    let front = Front::start("", "", &[backend.address]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    // Sent after the handshake, which would fail otherwise.
    client.write_all(b"x\n").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    // A record of application data that does not decrypt.
    client.sock.write_all(&[[0x17, 3, 3, 0, 40].as_slice(), &[7; 40]].concat()).unwrap();
    assert!(client.read(&mut [0; 16]).is_err());
    front.sessile.ended("l", "client_tls");
}

#[test]
fn a_reset_stays_a_reset() {
    let backend = Backend::serving(|mut stream| {
        stream.read_exact(&mut [0])?;
        stream.write_all(b"part")?;
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO))?;
        Ok(())
    });
    let front = Front::start("", "", &[backend.address]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    client.write_all(b"x").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect_err("what was cut must not look complete");
    front.sessile.ended("l", "backend_reset");
}

#[test]
fn much_goes_both_ways_at_once_unchanged() {
    const SIZE: usize = 24 << 20;
    let byte = |at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8;
    let backend = Backend::serving(move |stream| {
        let mut writer = stream.try_clone()?;
        let writing = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..SIZE).map(byte).collect();
            writer.write_all(&bytes).and_then(|()| writer.shutdown(Shutdown::Write))
        });
        let mut all = Vec::new();
        (&stream).read_to_end(&mut all)?;
        assert!(all.len() == SIZE && all.iter().enumerate().all(|(at, b)| *b == byte(at)));
        writing.join().expect("a writer")
    });
    let front = Front::start("", "", &[backend.address]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    let (mut sent, mut got) = (0, Vec::new());
    let mut piece = [0; 65_536];
    while got.len() < SIZE {
        if sent < SIZE {
            let next = (sent + 32_768).min(SIZE);
            let bytes: Vec<u8> = (sent..next).map(byte).collect();
            client.write_all(&bytes).unwrap();
            sent = next;
            if sent == SIZE {
                client.conn.send_close_notify();
                client.flush().unwrap();
            }
        }
        let n = client.read(&mut piece).unwrap();
        assert!(n > 0);
        got.extend_from_slice(&piece[..n]);
    }
    assert!(got.iter().enumerate().all(|(at, b)| *b == byte(at)));
    assert_eq!(client.read(&mut piece).unwrap(), 0);
    let line = front.sessile.ended("l", "done");
    assert_eq!((line["bytes_up"].as_u64(), line["bytes_down"].as_u64()), (Some(SIZE as u64), Some(SIZE as u64)));
}

#[test]
fn handshakes_that_fail_drip_or_stop_end_in_their_named_outcomes() {
    let front = Front::start("[limits]\nhello_timeout = \"1s\"\n", "", &["127.0.0.1:1".parse().unwrap()]);
    // A ClientHello, then silence.
    let (_, hello) = crate::support::authority::hello(&config(&front.authority), "a.test");
    let mut stream = TcpStream::connect(front.address()).unwrap();
    stream.write_all(&hello).unwrap();
    front.sessile.ended("l", "handshake_timeout");
    // A ClientHello, then FIN.
    let stopped = TcpStream::connect(front.address()).unwrap();
    (&stopped).write_all(&hello).unwrap();
    stopped.shutdown(Shutdown::Write).unwrap();
    front.sessile.ended("l", "handshake_cut");
    // A ClientHello, then bytes that are not TLS.
    let mut rude = TcpStream::connect(front.address()).unwrap();
    rude.write_all(&hello).unwrap();
    rude.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    front.sessile.ended("l", "handshake_failed");
    // No ClientHello at all.
    let mut plain = TcpStream::connect(front.address()).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    front.sessile.ended("l", "not_tls");
    drop(stream);
}

/// rustls takes no server name that is no host name, and no hello can be changed under its client.
#[test]
fn a_server_name_that_is_no_host_name_is_refused_by_its_word() {
    let backend = Backend::named("b");
    let front = Front::start("", "", &[backend.address]);
    let (_, hello) = crate::support::authority::hello(&config(&front.authority), "a.test");
    let at = hello.windows(6).position(|bytes| bytes == b"a.test").unwrap();
    let answer = |name: &[u8; 6]| {
        let mut bytes = hello.clone();
        bytes[at..at + 6].copy_from_slice(name);
        let mut stream = TcpStream::connect(front.address()).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut record = [0; 7];
        stream.read_exact(&mut record).unwrap();
        record
    };
    for name in [b"a:test", b"*.test", b"[::12]", b"-.test", b"a.1234"] {
        let text = std::str::from_utf8(name).unwrap();
        assert_eq!(answer(name), [21, 3, 3, 0, 2, 2, 47], "{text}: illegal_parameter");
        let ended = |line: &serde_json::Value| line["sni"] == text && line["ended"] == "bad_server_name";
        front.sessile.line(text, ended);
    }
    for name in [b"::1234", b"b.test"] {
        assert_eq!(answer(name)[0], 22, "the handshake goes on");
    }
}

#[test]
fn a_backend_that_cannot_be_reached_ends_it() {
    let front = Front::start("", "", &["127.0.0.1:1".parse().unwrap()]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    let _ = client.write_all(b"x");
    let _ = client.read(&mut [0]);
    front.sessile.ended("l", "connect_refused");
    eventually("no permit to be held", || (front.sessile.status()["admission"]["open"] == 0).then_some(()));
}

#[test]
fn one_port_passes_one_name_through_and_ends_another() {
    let (inside, behind) = (
        Backend::named("inside"),
        Backend::serving(|mut stream| {
            let mut hello = [0; 5];
            stream.read_exact(&mut hello)?;
            assert_eq!(hello[..2], [22, 3], "the client's own TLS");
            stream.write_all(b"saw TLS")
        }),
    );
    let pools = pool("p", "", &[inside.address]) + &pool("q", "", &[behind.address]);
    let route = "pool = \"p\"\n[[listener.route]]\nsni = \"through.test\"\ntls = \"passthrough\"\npool = \"q\"\n";
    let front = Front::with("", route, &pools);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    client.write_all(b"x\n").unwrap();
    let mut answer = [0; 9];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"inside x\n");
    let (_, hello) = crate::support::authority::hello(&config(&front.authority), "through.test");
    let mut stream = TcpStream::connect(front.address()).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert_eq!(answer, "saw TLS");
}

#[test]
fn conversations_are_listed_and_a_stop_ends_them() {
    let backend = Backend::named("b");
    let mut front = Front::start("stop_deadline = \"0s\"\n", "", &[backend.address]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    client.write_all(b"x\n").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    let listed = front.sessile.json("/connections");
    let connection = &listed["connections"][0];
    assert_eq!(
        (&listed["open"], &connection["stage"], &connection["backend"]),
        (&1.into(), &"relay".into(), &"b0".into())
    );
    assert_eq!(front.sessile.status()["pools"][0]["backends"][0]["leases"], 1);
    front.sessile.signal(rustix::process::Signal::TERM);
    client.read(&mut [0]).expect_err("what was cut must not look complete");
    assert!(front.sessile.wait().success());
    front.sessile.line("stopped", |line| line["ended"] == "stopped");
}
