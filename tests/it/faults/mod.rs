//! Faults: each case, the one word it ends in, and that the log, the metrics and the admin interface say that word
//! and no other.
//!
//! A case has a listener of its own, named like it, so whatever else happened there would be seen. Invariants: a word
//! that a test expects stands in [`TABLE`] and nowhere else; when a group of cases has played, nothing is left of it.

mod backend;
mod client;
mod config;
mod destination;
mod instance;
mod limits;
pub mod local;
pub mod namespace;
pub mod peer;
mod proxy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;

use serde_json::Value;
use sessile::outcome::Ended;

use crate::support::{Sessile, eventually};

/// Every case and the word it ends in.
const TABLE: &[(&str, &str)] = &[
    // Before a backend is chosen.
    ("client-goes-silent", "silent"),
    ("client-goes-silent-where-that-is-welcome", "done"),
    ("client-drips-its-hello", "hello_timeout"),
    ("client-stops-inside-its-hello", "hello_timeout"),
    ("client-resets-before-its-hello", "client_reset"),
    ("client-resets-inside-its-hello", "client_reset"),
    ("client-closes-before-its-hello", "client_left"),
    ("client-closes-inside-its-hello", "hello_truncated"),
    ("client-sends-no-tls", "not_tls"),
    ("client-sends-no-tls-where-that-is-welcome", "done"),
    ("client-sends-a-malformed-hello", "hello_malformed"),
    ("client-sends-an-endless-hello", "hello_too_long"),
    ("client-sends-a-long-hello", "done"),
    ("client-asks-for-what-is-no-name", "done"),
    ("client-asks-for-what-is-no-name-without-a-default", "no_route"),
    ("client-asks-for-an-unknown-name", "no_route"),
    // Clients with a backend.
    ("client-resets-while-we-connect", "client_reset"),
    ("client-resets-midstream", "client_reset"),
    ("client-resets-in-bulk", "client_reset"),
    ("client-half-closes", "done"),
    ("client-stops-reading", "client_gone"),
    ("client-vanishes", "client_gone"),
    ("client-vanishes-in-silence", "client_gone"),
    // Backends.
    ("backend-refuses", "connect_refused"),
    ("backend-has-no-unix-socket", "connect_refused"),
    ("backend-is-a-blackhole", "connect_timeout"),
    ("backends-use-up-the-budget", "connect_timeout"),
    ("backend-has-no-route", "connect_unreachable"),
    ("backend-has-an-unreachable-route", "connect_unreachable"),
    ("backend-resets-at-once", "backend_reset"),
    ("backend-resets-midstream", "backend_reset"),
    ("backend-resets-in-bulk", "backend_reset"),
    ("backend-closes-first", "done"),
    ("backend-half-closes", "done"),
    ("backend-stops-reading", "backend_gone"),
    ("backend-vanishes", "backend_gone"),
    ("backend-goes", "connect_refused"),
    ("backend-goes-beside-another", "done"),
    ("backend-goes-under-its-connections", "backend_down"),
    ("backends-are-all-down", "no_backend"),
    ("backends-of-a-strict-range-are-down", "no_backend"),
    ("backends-of-a-range-are-down", "done"),
    ("one-of-three-refuses-and-one-is-a-blackhole", "done"),
    ("backend-behind-a-blackhole-route", "done"),
    ("backend-behind-a-prohibit-route", "done"),
    ("backend-behind-an-unreachable-route", "done"),
    ("backend-behind-a-forbidden-socket", "done"),
    // Limits.
    ("nobody-says-anything", "idle_timeout"),
    ("somebody-says-something", "done"),
    ("pool-has-a-limit-of-its-own", "idle_timeout"),
    ("listener-has-a-limit-of-its-own", "idle_timeout"),
    ("pool-has-no-limit-where-its-listener-has-one", "done"),
    ("backend-stalls-after-the-client-closed", "half_close_timeout"),
    ("client-stalls-after-the-backend-closed", "half_close_timeout"),
    ("backend-goes-on-after-the-client-closed", "done"),
    ("connection-grows-old", "lifetime"),
    ("clients-flood-the-process", "done"),
    ("clients-flood-a-listener", "done"),
    ("hellos-fill-their-memory", "hello_memory"),
    ("source-opens-too-many", "source_connections"),
    ("announced-source-opens-too-many", "source_connections"),
    ("source-opens-too-fast", "source_rate"),
    // PROXY headers.
    ("proxy-peer-only-looks", "probe"),
    ("proxy-peer-goes-silent", "probe"),
    ("proxy-peer-says-local-and-nothing-more", "probe"),
    ("proxy-header-is-cut-by-a-close", "proxy_truncated"),
    ("proxy-header-is-cut-by-time", "proxy_truncated"),
    ("proxy-header-drips", "proxy_truncated"),
    ("proxy-header-is-cut-by-a-reset", "client_reset"),
    ("proxy-header-is-none", "proxy_malformed"),
    ("proxy-header-is-too-long", "proxy_too_long"),
    ("proxy-header-has-a-bad-checksum", "proxy_checksum"),
    ("proxy-header-has-a-good-checksum", "done"),
    ("proxy-header-mixes-families", "done"),
    ("proxy-header-says-local", "done"),
    ("proxy-header-and-then-silence", "silent"),
    ("proxy-peer-is-a-stranger", "untrusted"),
    ("proxy-header-from-a-stranger", "proxy_spoofed"),
    ("proxy-header-from-a-stranger-unread", "done"),
    ("stranger-without-a-header", "done"),
    // This process and this machine.
    ("ports-run-out", "no_port"),
    ("ports-of-two-sources", "done"),
    ("source-is-not-ours", "local_error"),
    ("descriptors-run-out-for-the-backend", "no_descriptor"),
    ("descriptors-run-out", "done"),
    ("step-panics", "panicked"),
    ("process-stops", "stopped"),
];

/// Words that no case provokes, and why.
const NOT_PROVOKED: &[(&str, &str)] = &[
    ("no_memory", "needs a kernel without memory for sockets, which a test must not make; the simulator has it"),
    ("certificate_expired", "needs a clock that goes on for a day; the tests of `tls` have one"),
];

/// The word a case ends in.
fn word_of(case: &str) -> &'static str {
    TABLE.iter().find(|(known, _)| *known == case).unwrap_or_else(|| panic!("{case} is not in the table")).1
}

/// One row of the table with what provokes it.
struct Case<'a> {
    name: &'static str,
    listener: String,
    expected: BTreeMap<&'static str, u64>,
    provoke: Box<dyn FnOnce(&Scene<'_>) + Send + 'a>,
}

/// A case with the keys of its listener but for name and address; one connection, unless it says otherwise.
fn case<'a>(name: &'static str, listener: &str, provoke: impl FnOnce(&Scene<'_>) + Send + 'a) -> Case<'a> {
    let expected = [(word_of(name), 1)].into();
    Case { name, listener: listener.to_owned(), expected, provoke: Box::new(provoke) }
}

impl Case<'_> {
    /// Expects so many connections to end in its word.
    fn times(mut self, count: u64) -> Self {
        self.expected.insert(word_of(self.name), count);
        self
    }

    /// Expects others that end in another word.
    fn besides(mut self, word: &'static str, count: u64) -> Self {
        self.expected.insert(word, count);
        self
    }
}

/// What a case sees while it plays.
struct Scene<'a> {
    case: &'static str,
    sessile: &'a Sessile,
    address: SocketAddr,
}

impl Scene<'_> {
    /// Waits until a connection of this case has ended in its word; its line in the log.
    fn ended(&self) -> Value {
        let (case, word) = (self.case, word_of(self.case));
        self.sessile.line(&format!("{case}: {word}"), |line| line["listener"] == case && line["ended"] == word)
    }

    /// Waits until so many connections are open here, past the accept.
    fn open(&self, count: u64) {
        eventually(&format!("{count} connections of {}", self.case), || {
            (listener_status(&self.sessile.status(), self.case)["open"] == count).then_some(())
        });
    }
}

/// Plays cases side by side before one process; `tables` is the rest of its configuration.
fn run(tables: &str, cases: Vec<Case<'_>>) -> Sessile {
    let sessile = Sessile::start(&with_listeners(tables, &cases));
    play(&sessile, cases);
    sessile
}

/// A configuration with the listeners of all cases.
fn with_listeners(tables: &str, cases: &[Case<'_>]) -> String {
    let listener = |case: &Case<'_>| {
        format!("[[listener]]\nname = \"{}\"\nbind = \"127.0.0.1:0\"\n{}\n", case.name, case.listener)
    };
    cases.iter().map(listener).fold(tables.to_owned() + "\n", |text, listener| text + &listener)
}

/// Plays cases before a process that has their listeners, compares how every connection ended, and looks for leftovers.
fn play(sessile: &Sessile, cases: Vec<Case<'_>>) {
    thread::scope(|scope| {
        for case in cases {
            let Case { name, expected, provoke, .. } = case;
            let act = move || {
                provoke(&Scene { case: name, sessile, address: sessile.address(name) });
                assert_endings(sessile, name, &expected);
            };
            thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, act).expect("a thread");
        }
    });
    nothing_is_left(sessile);
}

/// Compares how every connection of a listener ended with what is expected: in the log, in `/metrics` and in `/status`.
fn assert_endings(sessile: &Sessile, listener: &str, expected: &BTreeMap<&'static str, u64>) {
    let total: u64 = expected.values().sum();
    let lines = eventually(&format!("{total} lines of {listener}, {expected:?}"), || {
        let lines: Vec<_> = sessile.lines().into_iter().filter(|line| line["listener"] == listener).collect();
        (lines.len() as u64 >= total).then_some(lines)
    });
    let mut logged = BTreeMap::new();
    for line in &lines {
        let word = line["ended"].as_str().expect("a word");
        *logged.entry(word).or_insert(0) += 1;
        assert_eq!(line["fault"], fault_of(word), "{line}");
    }
    assert_eq!(logged, *expected, "{listener}: log\n{lines:#?}");
    assert_eq!(counted(sessile, listener), owned(expected), "{listener}: /metrics");
    let status = sessile.status();
    let ended = listener_status(&status, listener)["ended"].as_object().expect("endings");
    let shown: BTreeMap<_, _> = ended.iter().map(|(word, n)| (word.clone(), n.as_u64().expect("a count"))).collect();
    assert_eq!(shown, owned(expected), "{listener}: /status");
}

/// Endings of a listener in `/metrics` above 0; checks their fault labels and the counters of refusals.
fn counted(sessile: &Sessile, listener: &str) -> BTreeMap<String, u64> {
    let page = sessile.metrics();
    let of = |series: &str| -> Vec<(String, u64)> {
        let start = format!("{series}{{listener=\"{listener}\",");
        let rows = page.lines().filter_map(|line| line.strip_prefix(&start)?.rsplit_once("} "));
        let rows = rows.map(|(labels, value)| (labels.to_owned(), value.parse().expect("a count")));
        rows.filter(|(_, value)| *value > 0).collect()
    };
    let mut counted = BTreeMap::new();
    let mut refused = Vec::new();
    for ended in Ended::ALL {
        let (word, fault) = (ended.word(), ended.fault().word());
        let labels = format!("outcome=\"{word}\",fault=\"{fault}\"");
        for (_, count) in of("sessile_connections_ended_total").iter().filter(|(row, _)| *row == labels) {
            counted.insert(word.to_owned(), *count);
            refused.extend(ended.refused().then(|| (format!("reason=\"{word}\""), *count)));
        }
    }
    let mut rows = of("sessile_connections_refused_total");
    rows.sort();
    refused.sort();
    assert_eq!(rows, refused, "{listener}: refusals");
    counted
}

/// Waits until no connection holds a permit or a lease any more.
fn nothing_is_left(sessile: &Sessile) {
    eventually("every permit and lease to be given back", || {
        let status = sessile.status();
        let backends = status["pools"].as_array()?.iter().flat_map(|pool| pool["backends"].as_array().expect("a list"));
        let leases: u64 = backends.map(|backend| backend["leases"].as_u64().expect("a count")).sum();
        let listeners = status["listeners"].as_array()?;
        let open: u64 = listeners.iter().map(|listener| listener["open"].as_u64().expect("a count")).sum();
        (status["admission"]["open"] == 0 && leases == 0 && open == 0).then_some(())
    });
}

fn listener_status<'a>(status: &'a Value, name: &str) -> &'a Value {
    let listeners = status["listeners"].as_array().expect("listeners");
    listeners.iter().find(|listener| listener["name"] == name).expect("a listener of this name")
}

/// The status of a pool's backend.
fn backend_status(sessile: &Sessile, pool: &str, backend: &str) -> Value {
    let status = sessile.json("/backends");
    let backends = status.as_array().expect("a list");
    let known = backends.iter().find(|known| known["pool"] == pool && known["name"] == backend);
    known.expect("a backend of this name").clone()
}

fn fault_of(word: &str) -> &'static str {
    let ended = Ended::ALL.iter().find(|ended| ended.word() == word);
    ended.unwrap_or_else(|| panic!("{word} is no ending")).fault().word()
}

fn owned(expected: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    expected.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

#[test]
fn every_ending_is_in_the_table_or_has_an_excuse() {
    let mut elsewhere = sources_below("tests/it/terminate");
    elsewhere.extend(sources_below("tests/it/http2"));
    elsewhere.extend(sources_below("tests/it/http2_backend"));
    elsewhere.extend(sources_below("tests/it/routes"));
    elsewhere.extend(sources_below("tests/it/limits"));
    elsewhere.extend([include_str!("../stick_table.rs"), include_str!("../queue.rs")].map(str::to_owned));
    for ended in Ended::ALL {
        let word = ended.word();
        let provoked = TABLE.iter().any(|(_, expected)| *expected == word)
            || elsewhere.iter().any(|source| source.contains(&format!("\"{word}\"")));
        let excused = NOT_PROVOKED.iter().any(|(excused, _)| *excused == word);
        assert!(provoked != excused, "{word}: provoked: {provoked}, excused: {excused}");
    }
    for (case, word) in TABLE {
        assert!(Ended::ALL.iter().any(|ended| ended.word() == *word), "{case}: {word} is no ending");
    }
}

/// The texts of all sources in a folder and below.
fn sources_below(folder: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(std::fs::read_to_string(path).expect("a text"));
            }
        }
    }
    found
}

#[test]
fn every_row_of_the_table_is_played_once() {
    let sources = [
        include_str!("backend.rs"),
        include_str!("client.rs"),
        include_str!("destination.rs"),
        include_str!("limits.rs"),
        include_str!("local.rs"),
        include_str!("proxy.rs"),
    ]
    .concat();
    for (case, _) in TABLE {
        assert_eq!(sources.matches(&format!("\"{case}\"")).count(), 1, "{case}");
    }
}
