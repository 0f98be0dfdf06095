//! Limits that are reached, descriptors that run out, a full stick table, and a certificate of tomorrow.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use super::without::{moves, without};
use super::{application, client, event, kinds, visit, why};
use crate::faults::local::{leave_descriptors, limit_descriptors};
use crate::support::authority::Authority;
use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::{PATIENCE, Sessile, eventually};
use crate::terminate::client as tls_client;

#[test]
fn a_client_that_waits_at_a_limit_was_not_moved() {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let sessile = Sessile::start(&(listener("p", "max_connections = 2") + &pool("p", "", &addresses)));
    let mut held: Vec<_> = (0..2).map(|_| Client::connect(sessile.address("l"))).collect();
    let homes: Vec<_> = held.iter_mut().map(|client| client.ask("x").replace(" x", "")).collect();
    let home = homes[0].as_str();
    let mut waits = Client::connect_from(client(7), sessile.address("l"));
    let reached = "listener \"l\": max_connections is reached, 2 connections: new clients wait in the backlog";
    assert_eq!(event(&sessile, "limit"), reached);
    let report = why(&sessile, &client(7).to_string());
    assert_eq!((&report["outcome"], &report["open"]), (&"not_known".into(), &0.into()), "{report}");
    let answer = report["answer"].as_str().unwrap();
    assert!(answer.ends_with(&format!("What goes on now: {reached}.")), "{answer}");
    // Of a client that is served it says where it is.
    let report = why(&sessile, "127.0.0.1");
    assert_eq!(
        (&report["outcome"], &report["backend"], &report["open"]),
        (&"not_moved".into(), &home.into(), &2.into())
    );
    assert_eq!(report["connections"][0]["stage"], "relay", "{report}");
    // One client has both connections; the one that waits is not known.
    assert_eq!(moves(&without(&sessile, &format!("p/{home}"), 2)), (1, 1, 2));
    let other = if home == "b0" { "p/b1" } else { "p/b0" };
    assert_eq!(moves(&without(&sessile, other, 2)), (1, 0, 0));
    held.clear();
    assert!(waits.ask("x").ends_with(" x"));
    assert!(event(&sessile, "limit_left").starts_with("listener \"l\": max_connections is left"));
    assert_eq!(kinds(&sessile).iter().filter(|kind| kind.starts_with("limit")).count(), 2, "once each");
    assert!(!why(&sessile, &client(7).to_string())["answer"].as_str().unwrap().contains("goes on now"));
}

/// True if a client is refused, be it with its connect or after it.
pub(super) fn is_refused(source: IpAddr, address: SocketAddr) -> bool {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let connected = socket.connect(&address.into());
    let mut stream = TcpStream::from(socket);
    connected.and_then(|()| stream.read(&mut [0])).map_or(true, |read| read == 0)
}

#[test]
fn a_source_at_its_limit_is_told_so_and_the_event_comes_once() {
    let backend = Backend::named("b0");
    let config = "[limits]\nmax_connections_per_source = 1\n".to_owned()
        + &listener("p", "")
        + &pool("p", "", &[backend.address]);
    let sessile = Sessile::start(&config);
    let mut held = Client::connect_from(client(8), sessile.address("l"));
    assert_eq!(held.ask("x"), "b0 x");
    for _ in 0..20 {
        assert!(is_refused(client(8), sessile.address("l")));
    }
    assert!(event(&sessile, "limit").contains("a source is at its limit of connections"));
    // The text is compared with the JSON, so both are asked for when nothing changes any more.
    eventually("every refusal to be counted", || {
        let report = sessile.json(&format!("/why?what={}", client(8)));
        let ended = report["ended"].as_array()?;
        let counted: u64 = ended.iter().filter_map(|ended| ended["count"].as_u64()).sum();
        (counted == 20).then_some(())
    });
    let report = why(&sessile, &client(8).to_string());
    assert_eq!(report["ended"][0]["ended"], "source_connections", "{report}");
    assert_eq!((&report["outcome"], &report["backend"]), (&"not_moved".into(), &"b0".into()), "{report}");
    assert_eq!(kinds(&sessile).iter().filter(|kind| *kind == "limit").count(), 1);
}

#[test]
fn a_client_that_found_no_descriptor_was_not_moved() {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let sessile = Sessile::start(&("workers = 1\n".to_owned() + &listener("p", "") + &pool("p", "", &addresses)));
    let address = sessile.address("l");
    let mut living = Client::connect(address);
    assert!(living.ask("x").ends_with(" x"));
    leave_descriptors(&sessile, 1);
    // One descriptor serves to accept, and not to connect as well; one that is given back meanwhile serves another client.
    let mut served = Vec::new();
    let turned_away = (10..40).find(|number| {
        let mut client = Client::connect_from(client(*number), address);
        let is_served = client.try_ask("x").is_ok();
        served.push(client);
        !is_served
    });
    let turned_away = client(turned_away.expect("one is turned away")).to_string();
    // The admin socket needs one for the question.
    limit_descriptors(&sessile, 20_000);
    assert!(event(&sessile, "accept_paused").starts_with("no descriptor was free: accepting pauses"));
    let report = why(&sessile, &turned_away);
    assert_eq!(report["outcome"], "not_moved", "{report}");
    assert_eq!((&report["ended"][0]["ended"], &report["ended"][0]["fault"]), (&"no_descriptor".into(), &"us".into()));
    let answer = report["answer"].as_str().unwrap();
    assert!(
        answer.contains("ended as no_descriptor") && answer.contains("What goes on now: no descriptor"),
        "{answer}"
    );
    // All but the client that was turned away are known, each with one connection: removing a backend moves its own.
    let open = served.len() as u64;
    let [one, two] = ["p/b0", "p/b1"].map(|name| moves(&without(&sessile, name, open)));
    assert_eq!((one.0, two.0, one.1 + two.1, one.2 + two.2), (open, open, open, open));
    assert_eq!((one.1, two.1), (one.2, two.2));
}

#[test]
fn a_client_that_a_full_stick_table_has_forgotten_is_told_so() {
    let backends = ["b0", "b1"].map(application);
    let addresses = backends.each_ref().map(|backend| backend.address);
    // Placement never sends a learned value anywhere, so each entry is worth keeping; 1 KiB holds 64.
    let options = "http = true\nstick_table = \"1 KiB\"\ncookie = { mode = \"learn\", name = \"SID\" }";
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", options, &addresses)));
    let mut talk = visit(&sessile, 1);
    let (mut count, mut home) = (0, String::new());
    eventually("entries to be lost", || {
        for _ in 0..200 {
            count += 1;
            let response = talk.get("/", &format!("Cookie: SID=value-{count}\r\n"));
            home = response.field("x-backend").expect("a backend").to_owned();
        }
        (sessile.json("/stick-table")[0]["full"] == true).then_some(())
    });
    let full = event(&sessile, "table_full");
    assert!(full.starts_with("stick table \"p\" is full and loses entries"), "{full}");
    let lost =
        (1..=count).map(|number| why(&sessile, &format!("SID=value-{number}"))).find(|it| it["outcome"] == "not_known");
    let report = lost.expect("one was forgotten");
    assert_eq!((&report["cookie"]["verdict"], &report["entry"]), (&"not_known".into(), &serde_json::Value::Null));
    let answer = report["answer"].as_str().unwrap();
    assert!(answer.contains("the stick table has no entry for it") && answer.contains(&full), "{answer}");
    // The address places every value of this client; what the table has forgotten is not known any more.
    let plan = without(&sessile, &format!("p/{home}"), 1);
    let (known, known_move, open_move) = moves(&plan);
    assert!((32..=64).contains(&known) && (known_move, open_move) == (known, 1), "{plan}");
    let other = if home == "b0" { "p/b1" } else { "p/b0" };
    assert_eq!(moves(&without(&sessile, other, 1)), (known, 0, 0));
}

#[test]
fn a_client_that_refuses_a_certificate_of_tomorrow_was_not_moved() {
    let (authority, dir, backends) = (Authority::new(), tempfile::tempdir().unwrap(), ["b0", "b1"].map(Backend::named));
    let addresses = backends.each_ref().map(|backend| backend.address);
    authority.mint_of_tomorrow("a.test").write(dir.path(), "a");
    let certificate = dir.path().join("a.pem");
    let tls = format!(
        "tls = \"terminate\"\n[[listener.certificate]]\ncert = \"{}\"\nkey = \"{}\"\n",
        certificate.display(),
        dir.path().join("a.key").display()
    );
    let sessile = Sessile::start(&(listener("p", &tls) + &pool("p", "", &addresses)));
    let text = event(&sessile, "certificate");
    assert_eq!(text, format!("certificate \"{}\" is not good yet: clients will refuse it", certificate.display()));
    let mut tls = tls_client::connect(sessile.address("l"), &tls_client::config(&authority), "a.test");
    let refused = tls.write_all(b"x\n").and_then(|()| tls.flush()).unwrap_err().to_string();
    assert!(refused.contains("certificate not valid yet"), "{refused}");
    eventually("the ending", || {
        let report = sessile.json("/why?what=127.0.0.1");
        (report["ended"][0]["ended"] == "handshake_failed").then_some(())
    });
    let report = why(&sessile, "127.0.0.1");
    assert_eq!(report["outcome"], "not_moved", "{report}");
    let answer = report["answer"].as_str().unwrap();
    assert!(answer.contains("ended as handshake_failed") && answer.contains(&text), "{answer}");
    drop(tls);
    // A client that refuses the certificate never becomes known.
    assert_eq!(moves(&without(&sessile, "p/b1", 0)), (0, 0, 0));
}
