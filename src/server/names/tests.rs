//! Names of backends from one configuration to the next, and from one answer to the next.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::admission::Admission;
use crate::config::Address;
use crate::discovery::dns::HostAnswer;
use crate::pool::health::CheckState;
use crate::random::Random;
use crate::server::discovery::Before;
use crate::server::runtime_state::RuntimeState;
use crate::snapshot::LoadedFiles;

/// A pool `p` of these backends.
fn config(options: &str, backends: &str) -> Config {
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\n{options}\nbackend = [{backends}]\n"
    );
    let no_names = |name: &str| panic!("{name} was looked up");
    config::check(&text, &no_names).unwrap_or_else(|problems| panic!("{problems:?}")).config
}

const BACKENDS: &str = "{ name = \"a\", address = \"a.example:80\" }, { name = \"b\", address = \"10.0.0.9:80\" }";

/// The same with the addresses of names.
fn at(mut config: Config, address: &str) -> Config {
    put(&mut config, |_, _| Some(address.parse().unwrap()));
    config
}

fn snapshot(config: Config, before: Option<&Snapshot>) -> Snapshot {
    Snapshot::build(config, LoadedFiles::default(), before, 1, &Arc::new(Admission::new(9)))
}

fn address(config: &Config, backend: usize) -> String {
    config.pools[0].backends[backend].address.to_string()
}

fn answer(ips: &[&str]) -> HostReading {
    let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    Ok(HostAnswer { ips, valid_for: Duration::from_secs(1), doubt: None })
}

/// What becomes of a configuration with this answer: the warnings, and the names that were asked for.
fn fill(config: &mut Config, before: Before<'_>, reading: HostReading) -> (String, Vec<String>) {
    let names = NamesToAsk::of(config, before);
    let (warnings, resolved) = names.answered(&[("a.example".to_owned(), reading)].into(), config);
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    (warnings.join("\n"), resolved.iter().map(ToString::to_string).collect())
}

#[test]
fn a_name_gets_an_address_and_an_address_is_left_alone() {
    let mut config = config("", BACKENDS);
    let said = fill(&mut config, Before::Nothing, answer(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!((address(&config, 0), address(&config, 1)), ("10.0.0.1:80".into(), "10.0.0.9:80".into()));
    let named = "backend \"p/a\": a.example:80 is 10.0.0.1:80, of 10.0.0.1, 10.0.0.2".to_owned();
    assert_eq!(said, (String::new(), vec![named]));
}

#[test]
fn a_name_without_an_answer_is_a_warning_and_a_backend_that_is_down() {
    let mut config = config("check = \"tcp\"", BACKENDS);
    let (warning, names) = fill(&mut config, Before::Nothing, Err("SERVFAIL".to_owned()));
    assert!(
        warning.starts_with(
            "pool \"p\": backend \"a\": address \"a.example:80\" cannot be resolved: SERVFAIL; the backend is down (hint: "
        ),
        "{warning}"
    );
    assert_eq!(names, ["backend \"p/a\": a.example:80 has no address that can be taken"]);
    assert!(config.pools[0].backends[0].has_no_address());
    let first = snapshot(config.clone(), None);
    let standings = |snapshot: &Snapshot| snapshot.pools[0].backends().iter().map(|b| b.standing()).collect::<Vec<_>>();
    assert_eq!(standings(&first), [CheckState::Down, CheckState::Unchecked]);
    // Its clients are elsewhere by now, so it awaits a check, as a new one does.
    let second = snapshot(at(config.clone(), "10.0.0.1:80"), Some(&first));
    assert_eq!(standings(&second), [CheckState::Awaited, CheckState::Unchecked]);
    let third = snapshot(at(config, "10.0.0.2:80"), Some(&second));
    assert_eq!(standings(&third), [CheckState::Awaited, CheckState::Unchecked], "also at another address");
    assert_eq!(first.digest, third.digest);
    let check = third.config.pools[0].check.clone().unwrap();
    let on_marked_down = third.config.pools[0].on_marked_down;
    third.pools[0].backends()[0].checked(Ok(()), &check, on_marked_down, 1);
    let fourth = snapshot(at((*third.config).clone(), "10.0.0.3:80"), Some(&third));
    assert_eq!(standings(&fourth), [CheckState::Unchecked, CheckState::Unchecked], "one that was good does not");
}

#[test]
fn a_pool_that_is_only_imagined_takes_a_name_for_up() {
    let config = config("", BACKENDS);
    let pool = crate::pool::Pool::new(&config.pools[0], None, 1);
    assert!(pool.backends()[0].usable(0));
}

#[test]
fn a_reload_moves_no_backend_that_follows_its_name() {
    let in_force = snapshot(at(config("", BACKENDS), "10.0.0.2:80"), None);
    for reading in [answer(&["10.0.0.1"]), Err("SERVFAIL".to_owned())] {
        let mut next = config("", BACKENDS);
        assert_eq!(fill(&mut next, Before::InForce(&in_force), reading), (String::new(), vec![]));
        assert_eq!(next, *in_force.config);
    }
    // Another name, or another port, is asked for.
    for other in [BACKENDS.replace("a.example", "a.example.org"), BACKENDS.replace("a.example:80", "a.example:81")] {
        let mut next = config("", &other);
        let (warning, names) = fill(&mut next, Before::InForce(&in_force), answer(&["10.0.0.1"]));
        assert_eq!(names.len(), 1, "{warning}");
        assert_ne!(address(&next, 0), "10.0.0.2:80");
    }
}

#[test]
fn a_host_that_is_not_answered_is_where_another_backend_has_it() {
    let in_force = snapshot(at(config("", BACKENDS), "10.0.0.2:80"), None);
    let failed = || Err("SERVFAIL".to_owned());
    for next in [
        "{ name = \"a\", address = \"a.example:81\" }".to_owned(),
        "{ name = \"renamed\", address = \"A.example:81\" }".to_owned(),
        format!("{{ name = \"second\", address = \"a.example:81\" }}, {BACKENDS}"),
    ] {
        let mut next = config("", &next);
        let (warning, names) = fill(&mut next, Before::InForce(&in_force), failed());
        assert_eq!((address(&next, 0).as_str(), names.len()), ("10.0.0.2:81", 1));
        let expected = "SERVFAIL; 10.0.0.2:81 is taken, from a backend in force with this host (hint: ";
        assert!(warning.contains(expected), "{warning}");
    }
    // An answer counts more, and another host is down.
    let mut next = config("", &BACKENDS.replace("a.example:80", "a.example:81"));
    fill(&mut next, Before::InForce(&in_force), answer(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(address(&next, 0), "10.0.0.1:81");
    let mut next = config("", &BACKENDS.replace("a.example", "b.example"));
    fill(&mut next, Before::InForce(&in_force), failed());
    assert!(next.pools[0].backends[0].has_no_address());
}

#[test]
fn with_resolve_load_a_reload_asks_and_keeps_what_is_among_the_answers() {
    let load = "resolve = \"load\"";
    let in_force = snapshot(at(config(load, BACKENDS), "10.0.0.2:80"), None);
    assert_eq!(in_force.config.pools[0].followed().count(), 0, "asked for at a load alone");
    assert_eq!(config(load, BACKENDS).pools[0].followed().count(), 1, "until there is an address");
    for (reading, expected, is_warned) in [
        (answer(&["10.0.0.1", "10.0.0.2"]), "10.0.0.2:80", false),
        (answer(&["10.0.0.1", "10.0.0.3"]), "10.0.0.1:80", false),
        (answer(&[]), "10.0.0.2:80", true),
        (Err("SERVFAIL".to_owned()), "10.0.0.2:80", true),
    ] {
        let mut next = config(load, BACKENDS);
        let (warning, _) = fill(&mut next, Before::InForce(&in_force), reading);
        assert_eq!((address(&next, 0).as_str(), warning.contains("10.0.0.2:80 stays")), (expected, is_warned));
    }
}

#[test]
fn the_last_address_is_kept_for_the_next_process() {
    let last = snapshot(at(config("", BACKENDS), "10.0.0.2:80"), None);
    let text = RuntimeState::of(&last, 1_000, 2_000_000).for_file().to_json();
    let kept = |_: &Config| RuntimeState::from_json(&text).ok();
    let before = Before::Process(&kept);
    for (reading, expected) in [
        (Err("SERVFAIL".to_owned()), "10.0.0.2:80"),
        (answer(&["10.0.0.1", "10.0.0.2"]), "10.0.0.2:80"),
        (answer(&["10.0.0.1"]), "10.0.0.1:80"),
        (answer(&["0.0.0.0"]), "10.0.0.2:80"),
    ] {
        let mut next = config("", BACKENDS);
        fill(&mut next, before, reading);
        assert_eq!(address(&next, 0), expected);
    }
    // It is the address of that name, and of no other.
    let mut next = config("", &BACKENDS.replace("a.example", "other.example"));
    fill(&mut next, before, answer(&[]));
    assert!(next.pools[0].backends[0].has_no_address());
    // What is no address is no start's trouble.
    for damage in [("10.0.0.2:80\"", "0.0.0.0:80\""), ("10.0.0.2:80\"", "10.0.0.2:81\""), ("\"10.0.0.2:80\"", "[7]")] {
        let damaged = text.replace(damage.0, damage.1);
        let kept = |_: &Config| RuntimeState::from_json(&damaged).ok();
        let mut next = config("", BACKENDS);
        fill(&mut next, Before::Process(&kept), Err("SERVFAIL".to_owned()));
        assert!(next.pools[0].backends[0].has_no_address(), "{damage:?}");
    }
}

#[test]
fn a_thousand_shuffled_answers_move_no_backend() {
    let mut random = Random::new(1);
    let config = at(config("", BACKENDS), "10.0.0.5:80");
    let mut ips: Vec<IpAddr> = (1..=9).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    for _ in 0..1_000 {
        random.shuffle(&mut ips);
        let reading = Ok(HostAnswer { ips: ips.clone(), valid_for: Duration::from_secs(1), doubt: None });
        let readings: BTreeMap<_, _> = [("a.example", &reading)].into();
        let verdicts = judge(&config, &readings, &|_| false);
        assert!(verdicts.len() == 1 && verdicts[0].address.is_ok() && verdicts[0].moves_to().is_none());
    }
}

#[test]
fn a_name_of_several_backends_moves_them_all_and_each_is_judged_by_its_port() {
    let two = "{ name = \"a\", address = \"A.example:80\" }, { name = \"b\", address = \"a.Example:81\" }";
    let config = at(config("", two), "10.0.0.1:80");
    let reading = answer(&["10.0.0.2"]);
    let own: SocketAddr = "10.0.0.2:81".parse().unwrap();
    let verdicts = judge(&config, &[("a.example", &reading)].into(), &|address| address == own);
    let said: Vec<_> = verdicts.iter().map(|verdict| verdict.address.clone().map(Address::Tcp)).collect();
    assert_eq!(said[0], Ok(Address::Tcp("10.0.0.2:80".parse().unwrap())));
    assert!(said[1].as_ref().is_err_and(|why| why.contains("connections would loop")));
}

#[test]
fn where_an_order_has_given_an_address_a_move_says_that_this_one_stands() {
    let ordered = |address: Option<&str>| {
        let mut config = at(config("", BACKENDS), "10.0.0.1:80");
        let kind = crate::order::OrderKind::Address { address: address.map(Into::into) };
        config.pools[0] = config.pools[0].ordered("a", &kind, &Default::default(), 0).unwrap();
        snapshot(config, None)
    };
    let reading = answer(&["10.0.0.2"]);
    for (order, expected) in [
        (Some("10.0.0.7:80"), "10.0.0.2:80 in place of 10.0.0.1:80, as generation 1; the ordered 10.0.0.7:80 stands"),
        (None, "10.0.0.2:80 in place of 10.0.0.1:80, as generation 1"),
    ] {
        let snapshot = ordered(order);
        let verdicts = judge(&snapshot.config, &[("a.example", &reading)].into(), &|_| false);
        assert_eq!(verdicts[0].moved(&snapshot), Some(format!("backend p/a: a.example:80 is {expected}")));
    }
}
