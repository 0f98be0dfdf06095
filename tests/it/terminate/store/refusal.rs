//! A store that replies with errors: it is full, a key has another type, it is a replica.

use std::io::{Read, Write};

use super::redis::{Redis, Slow};
use super::{AMPLE, User, Visitor, application, count, nobody_was_refused, seen, stands, store, text};
use crate::support::backend::Backend;
use crate::support::program::free_address;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

fn logins(visitor: &mut Visitor, count: usize) -> Vec<User> {
    (0..count).map(|_| visitor.login()).collect()
}

/// Waits until status shows this complaint about the store.
fn complains(instance: &Sessile, of: &str) {
    let told = || seen(instance)["complaint"].as_str().is_some_and(|why| why.contains(of)).then_some(());
    eventually(&format!("a complaint of {of}"), told);
}

/// Waits until status shows no complaint and no pending write.
fn is_well(instance: &Sessile) {
    eventually("the complaint to end", || {
        let seen = seen(instance);
        (seen["state"] == "working" && seen["complaint"].is_null() && seen["pending"] == 0).then_some(())
    });
}

#[test]
fn a_full_store_is_still_asked_and_is_told_when_it_has_room() {
    let Some(redis) = Redis::start("a_full_store_is_still_asked_and_is_told_when_it_has_room") else { return };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    instances.iter().for_each(|instance| stands(instance, "working"));
    let before = logins(&mut one, 20);
    redis.cli(&["config", "set", "maxmemory-policy", "noeviction"]);
    redis.cli(&["config", "set", "maxmemory", "1"]);
    // More values than one pipeline holds.
    let meanwhile = logins(&mut one, 150);
    one.finds(&meanwhile);
    other.finds(&before);
    complains(&instances[0], "refuses writes: OOM");
    eventually("it all to wait", || (seen(&instances[0])["pending"] == 150).then_some(()));
    assert_eq!((count(&instances[1], "find", "known"), count(&instances[0], "learn", "failed")), (20, 150));
    // An ended value takes no memory.
    other.get("/logout", &before[0].cookie);
    eventually("it to be forgotten", || (redis.dump().len() == 19).then_some(()));
    for instance in &instances {
        assert_eq!((seen(instance)["state"].as_str(), seen(instance)["opened"].as_u64()), (Some("working"), Some(0)));
    }

    redis.cli(&["config", "set", "maxmemory", "0"]);
    eventually("the store to know", || (redis.dump().len() == 19 + meanwhile.len()).then_some(()));
    is_well(&instances[0]);
    other.finds(&meanwhile);
    assert_eq!(seen(&instances[0])["reconciled"], 150);
    instances[0].says("refuses writes");
    let said = instances[0].said();
    assert_eq!(said.matches("refuses writes").count(), 1, "{said}");
    for instance in &instances {
        assert_eq!(seen(instance)["opened"], 0);
        nobody_was_refused(instance);
    }
}

#[test]
fn a_key_that_is_refused_keeps_no_other_from_being_told() {
    let Some(redis) = Redis::start("a_key_that_is_refused_keeps_no_other_from_being_told") else { return };
    let (application, slow) = (application(), Slow::before(redis.address));
    let instance = Sessile::start(&text(&store(&slow.url(), "50ms"), &application.addresses));
    let mut visitor = Visitor::to(&instance);
    stands(&instance, "working");
    let user = visitor.login();
    let key = eventually("the store to know", || redis.dump().pop()).0;
    slow.delay(200);
    (0..10).for_each(|n| drop(visitor.get("/", &format!("SID=slow-{n}"))));
    stands(&instance, "open");
    redis.cli(&["del", &key]);
    redis.cli(&["rpush", &key, "somebody else's"]);
    visitor.get("/logout", &user.cookie);
    let meanwhile = logins(&mut visitor, 20);
    slow.delay(0);
    complains(&instance, "WRONGTYPE");
    eventually("all others to be told", || (seen(&instance)["reconciled"] == 20).then_some(()));
    stands(&instance, "working");
    visitor.finds(&meanwhile);
    redis.cli(&["del", &key]);
    is_well(&instance);
    assert_eq!(seen(&instance)["reconciled"], 21);
    nobody_was_refused(&instance);
}

#[test]
fn a_store_that_has_become_a_replica_is_left_alone_until_it_is_none() {
    let Some(redis) = Redis::start("a_store_that_has_become_a_replica_is_left_alone_until_it_is_none") else { return };
    let application = application();
    let instance = Sessile::start(&text(&store(&redis.url(), AMPLE), &application.addresses));
    let mut visitor = Visitor::to(&instance);
    stands(&instance, "working");
    let before = logins(&mut visitor, 5);
    let nowhere = free_address();
    redis.cli(&["replicaof", &nowhere.ip().to_string(), &nowhere.port().to_string()]);
    let meanwhile = logins(&mut visitor, 20);
    stands(&instance, "open");
    complains(&instance, "READONLY");
    visitor.finds(&meanwhile);
    redis.cli(&["replicaof", "no", "one"]);
    is_well(&instance);
    eventually("the store to know", || (redis.dump().len() == before.len() + meanwhile.len()).then_some(()));
    nobody_was_refused(&instance);
}

#[test]
fn what_a_store_says_forges_no_line_and_fills_no_status() {
    let forged = "\n2026-11-29T08:00:00Z ERROR sessile: all is lost\u{1b}[2J";
    let reply = format!("-OOM{forged}{}\r\n", "x".repeat(100_000));
    let liar = Backend::serving(move |mut stream| {
        let mut piece = [0; 8192];
        loop {
            let count = stream.read(&mut piece)?;
            let text = String::from_utf8_lossy(&piece[..count]);
            let commands = ["EVAL", "MGET", "PING"].map(|name| text.matches(&format!("\r\n{name}\r\n")).count());
            stream.write_all(reply.repeat(commands.iter().sum()).as_bytes())?;
            if count == 0 {
                return Ok(());
            }
        }
    });
    let application = application();
    let log = "[log]\nformat = \"text\"\n";
    let url = format!("redis://{}", liar.address);
    let instance = Sessile::start(&(log.to_owned() + &text(&store(&url, AMPLE), &application.addresses)));
    complains(&instance, "all is lost");
    let complaint = seen(&instance)["complaint"].as_str().unwrap().to_owned();
    assert!(complaint.contains("\\n2026") && complaint.contains("\\u{1b}[2J"), "{complaint}");
    assert!(!complaint.contains(char::is_control) && complaint.chars().count() < 1_000, "{complaint}");
    instance.says("all is lost");
    let said = instance.said();
    let about: Vec<_> = said.lines().filter(|line| line.contains("all is lost")).collect();
    assert!(about.len() == 1 && about[0].contains("shared store redis://") && about[0].len() < 2_000, "{said}");
    let output = run(&["status", "--socket", instance.admin().to_str().unwrap()]);
    assert!(!output.stdout.contains(&0x1b), "no terminal is told anything");
}
