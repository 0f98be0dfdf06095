//! A configuration of many pools and large stick tables: what nothing uses costs nothing, also when it is looked at.
//!
//! Times are for `cargo bench --bench size`; here memory and series are counted.

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::{Sessile, eventually};

const POOLS: usize = 200;

/// A busy pool `p0`, and others behind routes that no client takes, each with a stick table of 64 MiB.
fn config(backend: &Backend, options: &str) -> String {
    let mut text = format!("{options}{}", listener("p0", ""));
    for n in 1..POOLS {
        text += &format!("[[listener.route]]\nsource = \"10.0.0.{n}\"\npool = \"p{n}\"\n");
    }
    (0..POOLS).for_each(|n| text += &pool(&format!("p{n}"), "stick_table = \"64 MiB\"", &[backend.address]));
    text
}

/// A figure of the process in KiB: `VmSize` is addresses, `VmRSS` memory.
fn kib(sessile: &Sessile, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sessile.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn series_of(page: &str, pool: &str) -> usize {
    let (of_pool, of_table) = (format!("{{pool=\"{pool}\""), format!("{{stick_table=\"{pool}\""));
    page.lines().filter(|line| line.contains(&of_pool) || line.contains(&of_table)).count()
}

#[test]
fn a_stick_table_takes_addresses_for_its_first_key_and_no_memory_for_a_look() {
    let backend = Backend::named("b0");
    let sessile = Sessile::start(&config(&backend, ""));
    let table_kib = 64 << 10;
    let at_start = kib(&sessile, "VmSize");
    assert!(at_start < POOLS as u64 * table_kib / 4, "{at_start} KiB of addresses for empty tables");
    assert!(Client::connect_from([127, 1, 0, 1].into(), sessile.address("l")).ask("x").starts_with("b0 "));
    eventually("the client to be known", || (sessile.json("/stick-table")[0]["known"] == 1).then_some(()));
    // Each thread may take some addresses, too: as many as a table.
    let (after, others) = (kib(&sessile, "VmSize"), 20 * table_kib);
    assert!(after >= at_start + table_kib && after < at_start + others, "{at_start}, then {after}");
    // The first look makes the page itself.
    sessile.metrics();
    let memory = kib(&sessile, "VmRSS");
    for _ in 0..3 {
        assert_eq!(sessile.metric("sessile_stick_table_known{stick_table=\"p0\",age=\"1m\"}"), 1.0);
        assert_eq!(sessile.metric("sessile_stick_table_bytes{stick_table=\"p1\"}"), f64::from(64 << 20));
        let tables = sessile.json("/stick-table");
        assert_eq!((&tables[0]["known"], &tables[0]["known_by_backend"]["b0"]), (&1.into(), &1.into()));
        assert_eq!((&tables[1]["known"], tables.as_array().unwrap().len()), (&0.into(), POOLS));
        sessile.status();
    }
    let looks = kib(&sessile, "VmRSS").saturating_sub(memory);
    assert!(looks < 16 << 10, "{looks} KiB more: a walk of one table alone would take 64 MiB");
    assert!(kib(&sessile, "VmSize") < at_start + others, "no other table was mapped");
}

#[test]
fn a_page_of_busy_pools_shows_those_that_had_a_client_and_a_reload_shows_all_again() {
    let backend = Backend::named("b0");
    let busy = config(&backend, "[metrics]\npools = \"busy\"\n");
    let sessile = Sessile::start(&busy);
    assert_eq!(["p0", "p1"].map(|pool| series_of(&sessile.metrics(), pool)), [0, 0]);
    assert!(sessile.metrics().contains("sessile_connections_accepted_total{listener=\"l\"} 0"));
    Client::connect_from([127, 1, 0, 1].into(), sessile.address("l")).ask("x");
    let page = sessile.metrics();
    assert!(series_of(&page, "p0") > 20 && series_of(&page, "p1") == 0, "{page}");
    assert_eq!(sessile.status()["pools"][0]["busy"], true);
    assert_eq!(sessile.status()["pools"].as_array().unwrap().len(), POOLS, "other views show all");
    let verdict = sessile.reload(&config(&backend, ""));
    assert!(verdict["changes"].to_string().contains("pools changed, takes effect at once"), "{verdict}");
    let page = sessile.metrics();
    assert_eq!(series_of(&page, "p1"), series_of(&page, "p0"), "every pool has the same series");
    assert_eq!(sessile.reload(&busy)["accepted"], true);
    assert!(series_of(&sessile.metrics(), "p0") > 20, "what has been busy stays");
}
