//! `sessile status`: state of the running process, as tables or as JSON.
//!
//! Shows numbers of the admin interface and computes none. `narrow.rs` has the tables of 80 columns, this file those of
//! `--wide`. Invariant: `--json` prints the response of `/status`; the tables add the hottest keys of `/stick-table`.

mod fleet;
mod names;
pub(super) mod narrow;

use std::fmt::Write as _;
use std::io::Write;

use super::table::Table;
use super::{CommandError, client, load::RunningProcess, print_json};
use crate::admin::StickTableView;
use crate::metrics::{self, status};
use crate::outcome::Ended;
use crate::pool::HotKey;

/// Smallest share of all picks for which a key gets a line: 1 %.
pub(super) const HOT: f64 = 0.01;

/// Arguments of `sessile status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    running: RunningProcess,
    /// Show addresses, bytes, times and every worker too, in lines wider than 80 columns.
    #[arg(long)]
    wide: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print the names of all backends alone, as POOL/NAME, one a line.
    #[arg(long, conflicts_with = "json")]
    names: bool,
    /// Show the instances that share entries of stick tables, and in what they differ from this one.
    #[arg(long, conflicts_with_all = ["names", "wide"])]
    fleet: bool,
}

impl StatusArgs {
    /// Sends the requests and prints the tables or the JSON.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let socket = self.running.socket()?;
        let answer = client::request(&socket, "GET", "/status")?;
        if self.fleet {
            let status: metrics::Status = answer.json(&[200])?;
            match (&status.fleet, self.json) {
                (fleet, true) => print_json(out, fleet)?,
                (Some(fleet), false) => out.write_all(fleet::show(fleet).as_bytes())?,
                (None, false) => writeln!(out, "nothing is shared with other instances: see share in [store]")?,
            }
        } else if self.json {
            print_json(out, &answer.json::<serde_json::Value>(&[200])?)?;
        } else if self.names {
            let status: metrics::Status = answer.json(&[200])?;
            for (pool, backend) in status.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b))) {
                writeln!(out, "{}/{}", pool.name, backend.name)?;
            }
        } else {
            let stick_tables: Vec<StickTableView> = client::request(&socket, "GET", "/stick-table")?.json(&[200])?;
            let status: metrics::Status = answer.json(&[200])?;
            let text = if self.wide { show(&status, &stick_tables) } else { show_narrow(&status, &stick_tables) };
            out.write_all(text.as_bytes())?;
        }
        Ok(0)
    }
}

fn show(status: &metrics::Status, stick_tables: &[StickTableView]) -> String {
    let sections = [
        head(status),
        listeners(&status.listeners),
        pools(&status.pools),
        narrow::orders(&status.pools),
        narrow::breaks(&status.pools),
        self::stick_tables(stick_tables),
        hottest(stick_tables).render(),
        workers(&status.workers, &status.conversations),
    ];
    let shown: Vec<_> = sections.into_iter().filter(|section| !section.is_empty()).collect();
    shown.join("\n")
}

fn show_narrow(status: &metrics::Status, stick_tables: &[StickTableView]) -> String {
    let sections = std::iter::once(narrow::head(&head(status))).chain(narrow::sections(status, stick_tables));
    sections.filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

fn head(status: &metrics::Status) -> String {
    let mut head = String::new();
    let reloads = &status.reloads;
    let ready = match (status.process.stopping_s, status.ready) {
        (Some(seconds), _) => format!("stopping for {}", duration(seconds * 1_000_000)),
        (None, true) => "ready".to_owned(),
        (None, false) => "not ready".to_owned(),
    };
    // Writing to a String does not fail.
    let _ = writeln!(
        head,
        "sessile {}, {ready}, up {}, generation {}, digest {}",
        status.version,
        duration(status.uptime_s * 1_000_000),
        status.generation,
        status.digest
    );
    let at_limit = if status.admission.at_limit { ", at the limit" } else { "" };
    let _ = write!(head, "connections {} of {}{at_limit}", status.admission.open, status.admission.max);
    if let Some(descriptors) = status.descriptors {
        let _ = write!(head, ", descriptors {} of {}", descriptors.open, descriptors.max);
    }
    let _ = writeln!(head, ", reloads {} accepted, {} refused", reloads.accepted, reloads.refused);
    for status::DrainingProcess { pid, open, stopping_s, socket, .. } in &status.process.draining {
        let time = duration(stopping_s * 1_000_000);
        let _ = writeln!(head, "process {pid} stopping for {time}, connections {open}, --socket {socket}");
    }
    if let Some(store) = &status.store {
        let _ = write!(head, "store {}, {}, {} pending", store.place, store.state, store.pending);
        if !store.nodes.is_empty() {
            let reached = store.nodes.iter().filter(|node| node.state == "working").count();
            let _ = write!(head, ", {reached} of {} nodes reached", store.nodes.len());
        }
        let why = if store.complaint.is_empty() { String::new() } else { format!(": {}", store.complaint) };
        let _ = writeln!(head, "{why}");
    }
    for (pool, source) in status.pools.iter().filter_map(|pool| Some((pool, pool.discover.as_ref()?))) {
        if !source.complaint.is_empty() {
            let (pool, source, why) = (&pool.name, &source.source, &source.complaint);
            let _ = writeln!(head, "pool {pool}: {source}: {why}; the last backends stay");
        }
    }
    head += &names::lines(status);
    head += &status.fleet.as_ref().map_or_else(String::new, fleet::line);
    if status.log_lost + status.log_dropped > 0 {
        let (dropped, lost, why) = (status.log_dropped, status.log_lost, &status.log_complaint);
        let _ = writeln!(head, "access log: {dropped} lines dropped, {lost} lost: {why}");
    }
    if status.messages_lost > 0 {
        let _ = writeln!(head, "messages about the process: {} lost at standard error", status.messages_lost);
    }
    for (what, file) in [("stick-table file", &status.stick_table_file), ("state file", &status.state_file)] {
        if let Some(file) = file.as_ref().filter(|file| !file.complaint.is_empty()) {
            let status::TableFileStatus { path, failures, complaint, .. } = file;
            let _ = writeln!(head, "{what} {path} cannot be written: {complaint} ({failures} times)");
        }
    }
    if !reloads.last_accepted && !reloads.problems.is_empty() {
        let _ = writeln!(head, "the last reload was refused:");
        for problem in &reloads.problems {
            let _ = writeln!(head, "  {problem}");
        }
    }
    head
}

fn listeners(listeners: &[status::ListenerStatus]) -> String {
    let mut table = Table::new(["LISTENER", "BIND", "OPEN", "ACCEPTED", "REFUSED", "ENDED BADLY"]);
    for listener in listeners {
        table.row([
            listener.name.clone(),
            listener.bind.join(" "),
            format!("{}{}", listener.open, if listener.at_limit { " at the limit" } else { "" }),
            listener.totals.accepted.to_string(),
            refused_connections(&listener.totals).to_string(),
            badly_ended(&listener.totals).to_string(),
        ]);
    }
    table.render()
}

/// Connections of a listener that were refused.
fn refused_connections(totals: &status::ListenerTotals) -> u64 {
    ended(totals, Ended::refused)
}

/// Connections of a listener that were neither refused nor ended as they should.
pub(super) fn badly_ended(totals: &status::ListenerTotals) -> u64 {
    ended(totals, |ended| !ended.refused() && !matches!(ended, Ended::Done | Ended::Answered | Ended::Probe))
}

fn ended(totals: &status::ListenerTotals, wanted: fn(Ended) -> bool) -> u64 {
    let words = Ended::ALL.iter().filter(|ended| wanted(**ended)).map(|ended| ended.word());
    words.filter_map(|word| totals.ended.get(word)).sum()
}

fn pools(pools: &[status::PoolStatus]) -> String {
    let mut table = Table::new([
        "POOL",
        "BALANCE",
        "BACKEND",
        "ADDRESS",
        "STATE",
        "SINCE",
        "WEIGHT",
        "LEASES",
        "CONNECTIONS",
        "FAILED",
        "UP",
        "DOWN",
        "CONNECT",
        "COMPLAINT",
    ]);
    for pool in pools {
        for backend in &pool.backends {
            let totals = &backend.totals;
            table.row([
                pool.name.clone(),
                pool.balance.clone(),
                backend.name.clone(),
                backend.address.clone(),
                state(backend),
                backend.since_s.map(|seconds| duration(seconds * 1_000_000)).unwrap_or_default(),
                format!("{}{}", backend.weight, if backend.backup { " backup" } else { "" }),
                format!("{}{}", backend.leases, narrow::waiting(backend)),
                totals.connections.to_string(),
                totals.connect_failures.to_string(),
                bytes(totals.bytes_up),
                bytes(totals.bytes_down),
                totals.connect_us_mean.map(duration).unwrap_or_default(),
                backend.complaint.clone(),
            ]);
        }
    }
    table.render()
}

/// Health of a backend, what a command has done to it, and for how long.
fn state(backend: &status::BackendStatus) -> String {
    let mut words = backend.state.clone();
    if let Some(runtime) = &backend.runtime {
        let since = backend.drain_s.map(|seconds| format!(", {}", duration(seconds * 1_000_000))).unwrap_or_default();
        let by = backend.drained_by.as_ref().map(|instance| format!(", by {instance}")).unwrap_or_default();
        words += &format!(" {runtime} (runtime{since}{by})");
    }
    words
}

fn stick_tables(stick_tables: &[StickTableView]) -> String {
    let mut table = Table::new(["STICK TABLE", "POOLS", "SIZE", "KNOWN", "DISPLACED", "LEARNED", "LOST EARLY"]);
    for StickTableView { stick_table, .. } in stick_tables {
        table.row([
            stick_table.name.clone(),
            stick_table.pools.join(" "),
            bytes(stick_table.bytes),
            stick_table.known.to_string(),
            stick_table.displaced.to_string(),
            stick_table.learned.to_string(),
            format!(
                "{}{}",
                stick_table.evicted_displaced + stick_table.refused,
                if stick_table.full { " full" } else { "" }
            ),
        ]);
    }
    table.render()
}

/// Keys with at least 1 % of all picks, after the error of the estimate.
fn hottest(stick_tables: &[StickTableView]) -> Table<4> {
    let mut table = Table::new(["STICK TABLE", "HOTTEST KEY", "SHARE", "BACKEND"]);
    for StickTableView { stick_table, hottest } in stick_tables {
        for hot in hottest.iter().filter(|hot| hot.share - hot.share_error >= HOT) {
            let backend = hot.backend.clone().unwrap_or_default();
            table.row([stick_table.name.clone(), hot.key.clone(), share(stick_table, hot), backend]);
        }
    }
    table
}

/// The share of a key, with the error of the estimate.
pub(super) fn share(stick_table: &status::StickTableStatus, hot: &HotKey) -> String {
    let error = if hot.share_error > 0.0 { format!(" ± {:.1}", hot.share_error * 100.0) } else { String::new() };
    let sampled = if stick_table.hottest_sampled { ", sampled" } else { "" };
    format!("{:.1} %{error}{sampled}", hot.share * 100.0)
}

/// The threads of passthrough connections, each with the thread of TLS and HTTP beside it.
fn workers(workers: &[status::WorkerStatus], runtimes: &[status::RuntimeStatus]) -> String {
    let columns = ["WORKER", "GENERATION", "CONNECTIONS", "ACCEPT", "PANICS", "STUCK", "RUNTIME STUCK", "LOG DROPPED"];
    let mut table = Table::new(columns);
    for (index, worker) in workers.iter().enumerate() {
        table.row([
            index.to_string(),
            worker.generation.to_string(),
            worker.connections.to_string(),
            if worker.accept_paused_now > 0 { "paused" } else { "open" }.into(),
            worker.panics.to_string(),
            worker.stuck.to_string(),
            runtimes.get(index).map_or(0, |runtime| runtime.stuck).to_string(),
            worker.log_dropped.to_string(),
        ]);
    }
    table.render()
}

/// A size with three digits: `512 B`, `1.5 KiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut scaled = count as f64;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 || scaled >= 100.0 {
        format!("{scaled:.0} {}", UNITS[unit])
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

/// A time with two units at most: `412 µs`, `1.5 ms`, `3 h 12 min`.
pub(super) fn duration(us: u64) -> String {
    let s = us / 1_000_000;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ if s < 60 => format!("{s} s"),
        _ if s < 3_600 => format!("{} min {} s", s / 60, s % 60),
        _ if s < 86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::status::{
        BackendStatus, BackendTotals, ListenerStatus, ListenerTotals, PoolStatus, Reloads, WorkerStatus,
    };

    #[test]
    fn quantities_are_short() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (200 << 20, "200 MiB")] {
            assert_eq!(bytes(count), text);
        }
        for (us, text) in [
            (412, "412 µs"),
            (1_500, "1.5 ms"),
            (59_000_000, "59 s"),
            (61_000_000, "1 min 1 s"),
            (11_520_000_000, "3 h 12 min"),
        ] {
            assert_eq!(duration(us), text);
        }
    }

    #[test]
    fn what_hurts_in_silence_is_in_the_table() {
        let backend = BackendStatus {
            name: "a".into(),
            state: "damped".into(),
            runtime: Some("drained".into()),
            drain_s: Some(11_520),
            drained_by: Some("lb-2/0a1b2c".into()),
            ..BackendStatus::default()
        };
        let mut status = metrics::Status {
            listeners: vec![ListenerStatus { name: "front".into(), open: 2, at_limit: true, ..Default::default() }],
            pools: vec![PoolStatus { backends: vec![backend], ..PoolStatus::default() }],
            log_dropped: 256,
            log_lost: 3,
            log_complaint: "No space left on device".into(),
            messages_lost: 5,
            stick_table_file: Some(status::TableFileStatus {
                path: "/t".into(),
                failures: 4,
                complaint: "Read-only file system".into(),
                ..Default::default()
            }),
            state_file: Some(status::TableFileStatus {
                path: "/t.state".into(),
                failures: 1,
                complaint: "Read-only file system".into(),
                ..Default::default()
            }),
            ..metrics::Status::default()
        };
        status.admission.at_limit = true;
        let stick_table =
            status::StickTableStatus { evicted_displaced: 5, refused: 2, full: true, ..Default::default() };
        let shown = show(&status, &[StickTableView { stick_table, hottest: vec![] }]);
        for part in [
            "connections 0 of 0, at the limit, reloads",
            "2 at the limit",
            "damped drained (runtime, 3 h 12 min, by lb-2/0a1b2c)",
            "7 full",
            "access log: 256 lines dropped, 3 lost: No space left on device\n",
            "messages about the process: 5 lost at standard error\n",
            "stick-table file /t cannot be written: Read-only file system (4 times)\n",
            "state file /t.state cannot be written: Read-only file system (1 times)\n",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn processes_that_stop_are_shown_beside_the_one_that_serves() {
        let mut status = metrics::Status { ready: true, ..metrics::Status::default() };
        let draining = status::DrainingProcess {
            pid: 4711,
            stopping_s: 75,
            open: 3,
            socket: "/run/sessile/admin.4711.sock".into(),
            ..Default::default()
        };
        status.process.draining = vec![draining];
        let shown = show(&status, &[]);
        assert!(shown.contains(", ready, up 0 µs"), "{shown}");
        let line = "process 4711 stopping for 1 min 15 s, connections 3, --socket /run/sessile/admin.4711.sock\n";
        assert!(shown.contains(line), "{shown}");
        status.process.stopping_s = Some(8);
        assert!(show(&status, &[]).contains(", stopping for 8 s, up"));
    }

    #[test]
    fn a_person_sees_what_is_wrong() {
        let ended = [("done", 5), ("no_route", 2), ("backend_reset", 1)].map(|(word, n)| (word.to_owned(), n)).into();
        let totals = ListenerTotals { accepted: 8, ended, ..Default::default() };
        let listener = ListenerStatus {
            name: "front".into(),
            bind: vec!["0.0.0.0:443".into()],
            totals,
            ..ListenerStatus::default()
        };
        let totals = BackendTotals { connections: 6, connect_us_mean: Some(412), ..BackendTotals::default() };
        let backend = BackendStatus {
            name: "a".into(),
            address: "10.0.0.1:80".into(),
            state: "down".into(),
            complaint: "connection refused".into(),
            totals,
            ..BackendStatus::default()
        };
        let pool =
            PoolStatus { name: "web".into(), balance: "hash".into(), backends: vec![backend], ..PoolStatus::default() };
        let status = metrics::Status {
            version: "0.1.0".into(),
            digest: "00ff".into(),
            reloads: Reloads { refused: 1, problems: vec!["s.toml:1:1: no".into()], ..Reloads::default() },
            listeners: vec![listener],
            pools: vec![pool],
            workers: vec![WorkerStatus { accept_paused_now: 1, stuck: 4, ..WorkerStatus::default() }],
            conversations: vec![status::RuntimeStatus { stuck: 71, ..Default::default() }],
            ..metrics::Status::default()
        };
        let hot = |key: &str, share| HotKey { key: key.into(), share, share_error: 0.001, backend: Some("a".into()) };
        let stick_table =
            status::StickTableStatus { name: "web".into(), pools: vec!["web".into()], known: 70, ..Default::default() };
        let stick_tables =
            [StickTableView { stick_table, hottest: vec![hot("10.0.0.1", 0.601), hot("10.0.0.2", 0.002)] }];
        let shown = show(&status, &stick_tables);
        for line in [
            "sessile 0.1.0, not ready, up 0 µs, generation 0, digest 00ff",
            "the last reload was refused:\n  s.toml:1:1: no",
            "front     0.0.0.0:443     0         8        2            1",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        assert!(shown.contains("10.0.0.1  60.1 % ± 0.1  a\n") && !shown.contains("10.0.0.2"), "{shown}");
        let sampled = stick_tables.map(|StickTableView { stick_table, hottest }| {
            let stick_table = status::StickTableStatus { hottest_sampled: true, ..stick_table };
            StickTableView { stick_table, hottest }
        });
        assert!(show(&status, &sampled).contains("60.1 % ± 0.1, sampled  a\n"));
        assert!(shown.contains("STUCK  RUNTIME STUCK") && shown.contains("    4             71  "), "{shown}");
        assert!(shown.contains("down") && shown.contains("connection refused") && shown.contains("paused"), "{shown}");
    }
}
