//! Connections to backends: how many, for which client, in which order, and how a reset gives a place back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::client::{Client, Exchange};
use super::site::Site;
use super::{HTTP, figure, line_of, plain, request_lines};
use crate::support::backend::pool;
use crate::support::{Sessile, eventually};
use crate::terminate::Front;

/// A front whose clients have at most so many connections to one backend.
fn with_limit(limit: usize, site: &Site) -> Sessile {
    plain(&format!("[limits]\nhttp2_backend_connections = {limit}\n"), HTTP, &[site.address()])
}

fn done(exchange: Exchange) {
    assert_eq!(exchange.reply().unwrap().status, 200);
}

#[test]
fn one_client_has_at_most_so_many_connections_to_a_backend_and_the_rest_waits_in_order() {
    let site = Site::named("x");
    let sessile = with_limit(2, &site);
    let client = Client::plain(sessile.address("l"));
    let mut streams: Vec<_> = (0..2).map(|n| client.ask(&format!("/wait/{n}"), &[])).collect();
    site.arrived(2);
    for n in 2..8 {
        streams.push(client.ask(&format!("/wait/{n}"), &[]));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((site.arrivals(), site.connections().len()), (2, 2), "six wait");
    for n in 3..=8 {
        site.door.one();
        site.arrived(n);
        let connections = site.connections();
        let paths: HashSet<_> = connections.iter().flatten().cloned().collect();
        let wanted: HashSet<_> = (0..n).map(|n| format!("/wait/{n}")).collect();
        assert_eq!((paths, connections.len()), (wanted, 2));
    }
    site.door.open();
    streams.into_iter().for_each(done);
    assert_eq!(site.connections().len(), 2);
}

#[test]
fn the_limit_is_six_and_holds_for_each_client_and_each_backend_by_itself() {
    let sites = ["x", "y"].map(Site::named);
    let sessile = plain("", "http = true\nbalance = \"round_robin\"\n", &sites.each_ref().map(Site::address));
    let clients = [(); 2].map(|()| Client::plain(sessile.address("l")));
    // Without a cookie the pool places each stream of a connection where its first one went.
    let streams: Vec<_> =
        clients.iter().flat_map(|client| (0..30).map(|n| client.ask(&format!("/wait/{n}"), &[]))).collect();
    eventually("all that may be there", || (sites.iter().map(Site::arrivals).sum::<usize>() >= 12).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    let open = sites.each_ref().map(Site::open);
    assert!(open.iter().all(|open| [0, 6, 12].contains(open)) && open.iter().sum::<usize>() >= 12, "{open:?}");
    sites.iter().for_each(|site| site.door.open());
    streams.into_iter().for_each(done);
}

#[test]
fn streams_one_after_the_other_have_one_connection() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    for n in 0..50 {
        assert_eq!(client.get(&format!("/{n}"), &[]).status, 200);
        assert_eq!(client.send("POST", "/up", &[], b"body").unwrap().status, 200);
    }
    assert_eq!(site.connections().len(), 1);
    let lines = request_lines(&front.sessile, 100);
    assert_eq!(lines.iter().filter(|line| line["reused"] == true).count(), 99);
}

#[test]
fn no_connection_to_a_backend_is_ever_another_clients() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    std::thread::scope(|scope| {
        for own in 0..8 {
            let front = &front;
            scope.spawn(move || {
                let client = Client::with(front);
                for round in 0..5 {
                    let streams: Vec<_> = (0..10).map(|n| client.ask(&format!("/{own}/{round}/{n}"), &[])).collect();
                    streams.into_iter().for_each(done);
                }
            });
        }
    });
    let connections = site.connections();
    for paths in &connections {
        let owners: HashSet<_> = paths.iter().map(|path| path.split('/').nth(1).unwrap()).collect();
        assert!(owners.len() <= 1, "{paths:?}");
    }
    assert_eq!(site.requests(), 400);
    assert!(connections.len() <= 48, "{}", connections.len());
}

#[test]
fn connections_to_the_backend_end_with_their_client() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    (0..10).map(|n| client.ask(&format!("/{n}"), &[])).collect::<Vec<_>>().into_iter().for_each(done);
    assert!(site.open() > 0);
    client.close().unwrap();
    eventually("the backend to be left", || (site.open() == 0).then_some(()));
    // The same when the client only goes.
    let client = Client::with(&front);
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    drop((waiting, client));
    site.left(1);
    eventually("the backend to be left", || (site.open() == 0).then_some(()));
    eventually("no connection to be held", || {
        (front.sessile.json("/backends")[0]["leases"].as_u64() == Some(0)).then_some(())
    });
}

#[test]
fn a_reset_ends_the_backends_exchange_at_once_and_no_other() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let stays = client.ask("/wait/stays", &[]);
    let goes = client.ask("/wait/goes", &[]);
    site.arrived(2);
    let began = Instant::now();
    goes.reset();
    site.left(1);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let line = line_of(&front.sessile, "/wait/goes");
    assert_eq!((&line["ended"], &line["fault"]), (&"client_reset".into(), &"client".into()), "{line}");
    assert_eq!(client.get("/", &[]).status, 200);
    // Inside of a response.
    let mut endless = client.ask("/endless", &[]).head().unwrap();
    endless.piece().unwrap().unwrap();
    let open = site.open();
    endless.request.send_reset(h2::Reason::CANCEL);
    eventually("the response to end", || (site.open() < open).then_some(()));
    // Inside of a request.
    let mut upload = client.begin(client.request("POST", "/up", &[]), false).unwrap();
    upload.write(&[7; 10_000], false).unwrap();
    eventually("the upload to begin", || site.connections().iter().flatten().any(|path| path == "/up").then_some(()));
    let open = site.open();
    upload.reset();
    eventually("the upload to end", || (site.open() < open).then_some(()));
    site.door.open();
    done(stays);
    assert!(client.ended().is_none());
}

#[test]
fn a_reset_gives_the_backends_place_back() {
    let site = Site::named("x");
    let tables = pool("p", "http = true\non_full = \"reject\"\nall_down = \"refuse\"\n", &[site.address()]);
    let tables = tables.replace("address = ", "max_connections = 1\naddress = ");
    let front = Front::with("", "pool = \"p\"\n", &tables);
    let client = Client::with(&front);
    let is_free = || {
        eventually("no connection to be held", || {
            (front.sessile.json("/backends")[0]["leases"].as_u64() == Some(0)).then_some(())
        });
    };
    for round in 1..=5 {
        is_free();
        let holds = client.ask("/wait", &[]);
        site.arrived(round);
        assert_eq!(Client::with(&front).get("/", &[]).status, 503, "the place is taken");
        holds.reset();
        site.left(round);
        eventually("the place to be free", || (Client::with(&front).get("/", &[]).status == 200).then_some(()));
    }
    is_free();
}

#[test]
fn a_stream_that_is_reset_leaves_the_line_of_a_full_backend() {
    let site = Site::named("x");
    let tables = pool("p", "http = true\non_full = \"queue\"\nqueue_timeout = \"60s\"\n", &[site.address()]);
    let front = Front::with("", "pool = \"p\"\n", &tables.replace("address = ", "max_connections = 1\naddress = "));
    let line = |count: u64| {
        let waiting = || front.sessile.status()["pools"][0]["backends"][0]["waiting"].as_u64();
        eventually(&format!("{count} in line"), || (waiting() == Some(count)).then_some(()));
    };
    let clients = [(); 3].map(|()| Client::with(&front));
    let first = clients[0].ask("/wait/first", &[]);
    site.arrived(1);
    let given_up = clients[1].ask("/wait/given-up", &[]);
    line(1);
    let next = clients[2].ask("/wait/next", &[]);
    line(2);
    given_up.reset();
    line(1);
    assert_eq!(line_of(&front.sessile, "/wait/given-up")["ended"], "client_reset");
    first.reset();
    site.arrived(2);
    site.door.open();
    done(next);
    let paths: Vec<_> = site.connections().into_iter().flatten().collect();
    assert_eq!(paths, ["/wait/first", "/wait/next"]);
}

#[test]
fn a_reset_gives_its_place_to_the_next_stream_that_waits() {
    let site = Site::named("x");
    let sessile = with_limit(1, &site);
    let client = Client::plain(sessile.address("l"));
    let first = client.ask("/wait/first", &[]);
    site.arrived(1);
    let given_up = client.ask("/wait/given-up", &[]);
    let next = client.ask("/wait/next", &[]);
    std::thread::sleep(Duration::from_millis(100));
    given_up.reset();
    let line = line_of(&sessile, "/wait/given-up");
    assert_eq!(line["ended"], "client_reset", "{line}");
    first.reset();
    site.arrived(2);
    site.door.open();
    done(next);
    let paths: Vec<_> = site.connections().into_iter().flatten().collect();
    assert_eq!(paths, ["/wait/first", "/wait/next"], "what was given up while it waited never got there");
}

#[test]
fn a_stream_that_waits_too_long_for_a_connection_gets_504() {
    let site = Site::named("x");
    let top = "[limits]\nhttp2_backend_connections = 1\nresponse_timeout = \"1s\"\n";
    let front = Front::start(top, HTTP, &[site.address()]);
    let client = Client::roomy(&front);
    let mut endless = client.ask("/endless", &[]).head().unwrap();
    assert_eq!(endless.head.status(), 200);
    let began = Instant::now();
    let reply = client.get("/waits", &[]);
    assert_eq!(reply.status, 504);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let line = line_of(&front.sessile, "/waits");
    assert_eq!((&line["status"], &line["ended"]), (&504.into(), &"response_timeout".into()), "{line}");
    assert!(endless.piece().unwrap().is_ok(), "the other stream goes on");
}

#[test]
fn a_client_cannot_open_more_streams_than_it_may() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    Client::plain(sessile.address("l")).settled(100);
    let sessile = plain("[limits]\nhttp2_streams = 3\n", HTTP, &[site.address()]);
    let client = Client::plain(sessile.address("l"));
    client.settled(3);
    let three: Vec<_> = (0..3).map(|_| client.ask("/wait", &[])).collect();
    site.arrived(3);
    // A client that does not care.
    let mut frames = super::frames::Frames::open(sessile.address("l"));
    assert!(frames.settings.contains(&(3, 3)), "{:?}", frames.settings);
    for n in 0..3 {
        frames.head(2 * n + 1, &super::frames::get("/wait"), true);
    }
    site.arrived(6);
    let outcome = frames.asks(7, "/one-too-many");
    assert_eq!(outcome, super::frames::Outcome::Reset(7), "REFUSED_STREAM");
    site.door.open();
    for n in 0..3 {
        let _ = (n, frames.until(|frame| frame.kind == super::frames::HEADERS).expect("a response"));
    }
    three.into_iter().for_each(done);
    assert!(!site.connections().iter().flatten().any(|path| path == "/one-too-many"));
    assert!(figure(&sessile, "sessile_http2_local_resets_total") >= 1.0);
}
