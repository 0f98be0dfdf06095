//! `body_rate_min` and `body_time_max`: clients that send the bodies of their requests slowly, and backends that read
//! slowly.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{HTTP, limited, plain};
use crate::http2::client::Client;
use crate::http2::site::Site;
use crate::http2_backend::site::Http2Site;
use crate::support::backend::{listener, pool};
use crate::support::{Sessile, eventually};
use crate::terminate::backend::Recorder;
use crate::terminate::client::Talk;

/// A client of HTTP/1.1.
fn talk(sessile: &Sessile) -> Talk<TcpStream> {
    Talk::new(TcpStream::connect(sessile.address("l")).expect("the listener accepts"))
}

#[test]
fn a_body_that_takes_too_long_is_408_however_often_a_byte_of_it_comes() {
    let site = Recorder::named("x");
    let sessile = plain(&site, "", "[listener.limits]\nbody_time_max = \"1s\"\n", "");
    let began = Instant::now();
    let mut slow = talk(&sessile);
    slow.send("POST /http1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\n");
    let mut sending = slow.stream.try_clone().unwrap();
    let drips = std::thread::spawn(move || {
        while std::io::Write::write_all(&mut sending, b"x").is_ok() && began.elapsed() < Duration::from_secs(9) {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(slow.response().expect("a response").status, 408);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    drop(slow.stream.shutdown(std::net::Shutdown::Both));
    drips.join().unwrap();
    let client = Client::plain(sessile.address("l"));
    let mut upload = client.begin(client.request("POST", "/http2", &[]), false).unwrap();
    upload.write(b"some", false).unwrap();
    assert_eq!(upload.reply().unwrap().status, 408);
    for path in ["/http1", "/http2"] {
        let (line, counted) = limited(&sessile, path, "body_slow");
        assert_eq!((&line["status"], &line["fault"], counted), (&408.into(), &"limit".into(), 2.0), "{line}");
    }
    // Whole ones are in time, and the connection of HTTP/2 stays.
    assert_eq!(client.send("POST", "/whole", &[], &[b'x'; 100_000]).unwrap().status, 200);
    assert_eq!(site.answered(), 1);
}

#[test]
fn the_time_in_which_a_backend_does_not_read_is_not_that_of_its_client() {
    // Its windows of HTTP/2 are small.
    let site = Http2Site::new();
    let text =
        listener("p", "[listener.limits]\nbody_time_max = \"2s\"\n") + &pool("p", "http = \"h2\"\n", &[site.address]);
    let sessile = Sessile::start(&text);
    let (body, client) = (vec![b'x'; 1 << 20], Client::plain(sessile.address("l")));
    std::thread::scope(|scope| {
        let http1 = scope.spawn(|| {
            let mut upload = talk(&sessile);
            upload.send(format!("POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", body.len()));
            upload.send(&body);
            upload.response().expect("a response").status
        });
        let http2 = scope.spawn(|| client.send("POST", "/slow", &[], &body).unwrap().status);
        eventually("both requests", || (site.seen().requests.len() == 2).then_some(()));
        std::thread::sleep(Duration::from_millis(4_500));
        site.door.add_permits(4 << 20);
        assert_eq!([http1, http2].map(|upload| upload.join().unwrap()), [200, 200]);
    });
}

#[test]
fn a_client_that_waits_for_100_owes_nothing_until_then() {
    let site = Site::named("x");
    let text = listener("p", "") + &pool("p", HTTP, &[site.address()]) + "[pool.limits]\nbody_time_max = \"500ms\"\n";
    let sessile = Sessile::start(&text);
    let mut waits = talk(&sessile);
    waits.send("POST /wait/x HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    site.arrived(1);
    std::thread::sleep(Duration::from_millis(1_500));
    site.door.open();
    let interim: Vec<_> = (0..2).map(|_| waits.response().expect("a head").status).collect();
    assert_eq!(interim, [103, 100]);
    // From here on it owes the body.
    assert_eq!(waits.response().expect("a response").status, 408);
    assert_eq!(limited(&sessile, "/wait/x", "body_slow").1, 1.0);
}

#[test]
fn a_body_that_comes_slower_than_it_may_is_408_and_one_that_does_not_is_whole() {
    let site = Site::named("x");
    let rate = "[listener.limits]\nbody_rate_min = \"1 KiB/s\"\n";
    let sessile = Sessile::start(&(listener("p", rate) + &pool("p", HTTP, &[site.address()])));
    let client = Client::plain(sessile.address("l"));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let http1 = scope.spawn(|| {
            let mut slow = talk(&sessile);
            slow.send("POST /slow HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..9 {
                std::thread::sleep(Duration::from_millis(1_000));
                slow.send("1\r\nx\r\n");
            }
            slow.response().expect("a response").status
        });
        // Twice as fast as it must be, for longer than one window.
        let mut upload = client.begin(client.request("POST", "/up", &[]), false).unwrap();
        for _ in 0..60 {
            upload.write(&[b'x'; 410], false).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        upload.write(b"", true).unwrap();
        assert_eq!(upload.reply().unwrap().status, 200);
        assert_eq!(http1.join().unwrap(), 408);
    });
    assert!(began.elapsed() >= Duration::from_secs(10));
    assert_eq!(limited(&sessile, "/slow", "body_slow").1, 1.0);
}
