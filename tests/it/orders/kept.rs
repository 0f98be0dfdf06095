//! Orders over a restart, a crash, an upgrade and a reload.

use rustix::process::Signal;

use super::{digest, done, homes, names, ready, set, three};
use crate::discovery::Pods;
use crate::support::Sessile;
use crate::support::backend::{Backend, listener, pool};

/// Four kinds of orders at once.
fn change(sessile: &Sessile, address: std::net::SocketAddr) {
    done(sessile, &format!("add p/b2 {address} --weight 2 --location dc1/h2 --max-connections 50"));
    done(sessile, &format!("address p/b0 {address}"));
    done(sessile, "weight p/b0 3");
    done(sessile, "remove p/b1 --now");
}

#[test]
fn orders_are_there_after_a_stop_a_crash_and_an_upgrade() {
    for table in ["stick_table_file = \"$DIR/kept/table\"\n", ""] {
        let (backends, config) = three("");
        let mut sessile = Sessile::start(&(table.to_owned() + &config));
        change(&sessile, backends[2].address);
        let before = (set(&sessile), digest(&sessile), homes(&sessile, 1..=40));
        assert_eq!(names(&sessile), ["b0", "b2"]);
        for signal in [Some(Signal::TERM), Some(Signal::KILL), None] {
            match signal {
                Some(signal) => {
                    sessile.signal(signal);
                    sessile.wait();
                    sessile.restart();
                    sessile.says("backend p/b2: added, by command (runtime)");
                }
                None => assert_eq!(sessile.upgrade(None)["accepted"], true),
            }
            let after = (set(&sessile), digest(&sessile), homes(&sessile, 1..=40));
            assert_eq!(after, before, "{signal:?}");
            assert_eq!(sessile.status()["pools"][0]["removed"], serde_json::json!(["b1"]));
            let max = &sessile.status()["pools"][0]["backends"][1]["max_connections"];
            assert_eq!(*max, 50, "{signal:?}");
        }
    }
}

#[test]
fn a_fresh_start_forgets_orders() {
    let (backends, config) = three("");
    let mut sessile = Sessile::start(&config);
    let before = set(&sessile);
    change(&sessile, backends[2].address);
    sessile.signal(Signal::TERM);
    sessile.wait();
    sessile.restart_with(&["--fresh"]);
    assert_eq!(set(&sessile), before);
}

#[test]
fn a_reload_ends_the_orders_that_its_file_contradicts_and_no_other() {
    let backends = ["b0", "b1", "b2"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let file = |addresses: &[_], more: &str| listener("p", "") + &pool("p", more, addresses);
    let sessile = Sessile::start(&file(&addresses[..2], ""));
    done(&sessile, &format!("add p/b2 {} --weight 4", addresses[2]));
    done(&sessile, "weight p/b0 3");
    done(&sessile, "remove p/b1 --now");
    let before = set(&sessile);
    // A file that is silent about them.
    let verdict = sessile.reload(&file(&addresses[..2], "drain_over = \"9s\""));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    assert_eq!(set(&sessile), before);
    // One that has another weight, and names what was added.
    let other = file(&addresses, "").replace("name = \"b0\"\n", "name = \"b0\"\nweight = 2\n");
    let verdict = sessile.reload(&other);
    let said: Vec<_> = verdict["changes"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    for words in [
        "backend \"p/b0\": no order any more, the file decides: weight 3 in place of 1",
        "backend \"p/b2\": no order any more, the file decides: added",
    ] {
        assert!(said.contains(&words), "{words}: {said:?}");
    }
    let now = set(&sessile);
    let row = |index: usize| (now[index].0.as_str(), now[index].2, now[index].3.len());
    assert_eq!((now.len(), row(0), row(1)), (2, ("b0", 2, 0), ("b2", 1, 0)), "{now:?}");
    // A file without the removed one ends the removal; the next one has it again.
    let without = listener("p", "")
        + &format!(
            "[[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{{ name = \"b0\", address = \"{}\" }}]\n",
            addresses[0]
        );
    assert_eq!(sessile.reload(&without)["accepted"], true);
    assert_eq!(sessile.reload(&file(&addresses[..2], ""))["accepted"], true);
    assert_eq!(names(&sessile), ["b0", "b1"]);
}

#[test]
fn orders_stand_beside_a_source_of_backends() {
    let backends = ["web-0", "web-1", "extra"].map(Backend::named);
    let at = |index: usize| backends[index].address;
    let pods = Pods::start("", "", &[("web-0", at(0)), ("web-1", at(1))]);
    let sessile = &pods.sessile;
    done(sessile, &format!("add p/extra {}", at(2)));
    done(sessile, "weight p/web-0 5");
    pods.are(&["web-0", "web-1", "extra"]);
    assert_eq!(pods.backend("web-0")["weight"], 5);
    // What the source says otherwise comes on top.
    pods.name(&[("web-0", at(0))]);
    pods.are(&["web-0", "extra"]);
    assert_eq!(pods.backend("web-0")["weight"], 5, "the source says nothing of it");
    // A name that is taken refuses the reading as a whole.
    pods.name(&[("web-0", at(0)), ("extra", at(1))]);
    pods.complains("it names backend \"extra\", which an order has added");
    assert_eq!(pods.backend("extra")["address"], at(2).to_string());
    pods.replace(&format!("web-0 {} 7\nweb-1 {}\n", at(0), at(1)));
    pods.are(&["web-0", "web-1", "extra"]);
    assert_eq!(pods.backend("web-0")["weight"], 7, "the source has another weight");
    done(sessile, "remove p/web-1 --now");
    pods.are(&["web-0", "extra"]);
    pods.replace(&format!("web-0 {} 8\nweb-1 {}\n", at(0), at(1)));
    crate::support::eventually("the new weight", || (pods.backend("web-0")["weight"] == 8).then_some(()));
    pods.are(&["web-0", "extra"]);
    ready(sessile, "p/web-1");
    pods.are(&["web-0", "web-1", "extra"]);
}
