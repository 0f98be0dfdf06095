//! Instances that start late, and what sharing asks of them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::{CLIENTS, Fleet, Homes, number};
use crate::support::backend::Backend;
use crate::support::eventually;
use crate::support::rng::Rng;

const BY_LOAD: &str = "balance = \"least_connections\"\nkey = \"source\"\n";

#[test]
fn an_instance_that_starts_late_knows_every_client_when_it_is_ready() {
    let test = "an_instance_that_starts_late_knows_every_client_when_it_is_ready";
    let Some(mut fleet) = Fleet::start(test, 2, BY_LOAD) else { return };
    let (mut rng, mut homes) = (Rng(5), Homes::new());
    assert_eq!(fleet.hop(&mut rng, &mut homes, None) + fleet.hop(&mut rng, &mut homes, None), 0);
    fleet.join(3, "");
    assert!(homes.iter().all(|(client, home)| fleet.ask(2, *client) == *home), "without a moment's wait");
    assert_eq!(number(&fleet.instances[2], "taken"), u64::from(CLIENTS));
    // One that joins a fleet with another pool takes what it can use.
    fleet.join(2, "");
    let of_others = homes.values().filter(|home| *home == "b2").count() as u64;
    assert!(number(&fleet.instances[3], "unknown") >= of_others);
    let stays = |(client, home): (&u16, &String)| home == "b2" || fleet.ask(3, *client) == *home;
    assert!(homes.iter().all(stays));
}

#[test]
fn an_instance_that_starts_when_the_stream_has_lost_items_is_told_again() {
    let test = "an_instance_that_starts_when_the_stream_has_lost_items_is_told_again";
    let Some(mut fleet) = Fleet::start(test, 2, BY_LOAD) else { return };
    let (mut rng, mut homes) = (Rng(6), Homes::new());
    assert_eq!(fleet.hop(&mut rng, &mut homes, None), 0);
    // Later items drive out all that was told.
    let fill = "for item = 1, 70000 do redis.call('XADD', KEYS[1], 'MAXLEN', '~', 65536, '*', 'm', item) end";
    fleet.redis.cli(&["EVAL", fill, "1", "sessile:fleet"]);
    fleet.join(3, "");
    eventually("it to know every client", || {
        (number(&fleet.instances[2], "taken") == u64::from(CLIENTS)).then_some(())
    });
    assert!(homes.iter().all(|(client, home)| fleet.ask(2, *client) == *home));
}

#[test]
fn sharing_that_is_added_by_a_reload_begins_with_the_next_start() {
    let test = "sharing_that_is_added_by_a_reload_begins_with_the_next_start";
    let Some(mut fleet) = Fleet::start(test, 1, "") else { return };
    let shared = fleet.config(3, "");
    let alone = shared.replace("share = [\"cookies\", \"displaced\"]\n", "");
    fleet.instances = vec![crate::support::Sessile::start(&alone)];
    let instance = &mut fleet.instances[0];
    assert!(instance.status()["fleet"].is_null());
    assert_eq!(instance.reload(&shared)["accepted"], true);
    eventually("it to be said", || (instance.status()["fleet"]["state"] == "next_start").then_some(()));
    assert_eq!(instance.reload(&alone)["accepted"], true);
    eventually("it to be off again", || instance.status()["fleet"].is_null().then_some(()));
    instance.rewrite(&shared);
    instance.upgrade(None);
    eventually("it to work", || (instance.status()["fleet"]["state"] == "working").then_some(()));
}

/// Entries that a starting instance reads.
const ENTRIES: usize = 100_000;

/// Sends requests of so many users over one connection, and reads their answers.
fn users(front: std::net::SocketAddr, users: std::ops::Range<usize>) {
    let stream = TcpStream::connect(front).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for some in users.collect::<Vec<_>>().chunks(64) {
        let asked = |user| format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-User: {user}\r\n\r\n");
        let text: String = some.iter().map(asked).collect();
        (&stream).write_all(text.as_bytes()).unwrap();
        for _ in some {
            assert!(lines.next().unwrap().unwrap().starts_with("HTTP/1.1 200"));
            while !lines.next().unwrap().unwrap().is_empty() {}
        }
    }
}

#[test]
fn a_hundred_thousand_entries_are_read_at_the_start() {
    let test = "a_hundred_thousand_entries_are_read_at_the_start";
    let options = "balance = \"least_connections\"\nkey = \"header:X-User\"\nhttp = true\n";
    let Some(mut fleet) = Fleet::start(test, 0, options) else { return };
    let serve = |stream: TcpStream| {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        while let Some(line) = lines.next().transpose()? {
            if line.is_empty() {
                (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            }
        }
        Ok(())
    };
    fleet.backends = (0..5).map(|_| Some(Backend::serving(serve))).collect();
    fleet.addresses = fleet.backends.iter().flatten().map(|backend| backend.address).collect();
    fleet.join(3, "");
    let front = fleet.instances[0].address("l");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || users(front, part * ENTRIES / 4..(part + 1) * ENTRIES / 4));
        }
    });
    println!("{ENTRIES} users in {:?}", begun.elapsed());
    let told = || number(&fleet.instances[0], "told") + number(&fleet.instances[0], "overflow");
    eventually("all to be told", || (told() == ENTRIES as u64).then_some(()));
    let lost = number(&fleet.instances[0], "overflow");
    // The stream keeps 65,536 items, however fast clients come.
    let items = number(&fleet.instances[0], "items");
    assert!(items < ENTRIES as u64 / 8, "{items} items");
    let begun = Instant::now();
    fleet.join(3, "");
    let late = &fleet.instances[1];
    let ready = begun.elapsed();
    eventually("all to be read", || (number(late, "taken") + lost >= ENTRIES as u64).then_some(()));
    println!(
        "{} entries were read {:?} after the start, ready after {ready:?}",
        ENTRIES as u64 - lost,
        begun.elapsed()
    );
}
