//! The status in 80 columns: what an operator looks at first, each pool and backend with its state and since when.
//!
//! Leaves out addresses, bytes and times, which `--wide` has. Invariant: no line is wider than 80 columns, whatever names
//! and numbers there are; a name that was cut shows it.

use super::{badly_ended, hottest, refused_connections};
use crate::admin::StickTableView;
use crate::cli::table::{Table, note_of_cuts};
use crate::cli::width::{COLUMNS, shorten, wrap};
use crate::metrics::status::{
    BackendStatus, ListenerStatus, PoolStatus, RuntimeStatus, StickTableStatus, WorkerStatus,
};

/// Indent of lines that go on.
const INDENT: usize = 4;

/// Longest name in a sentence.
const NAME: usize = 32;

/// The sections below the head.
pub(super) fn sections(status: &crate::metrics::Status, stick_tables: &[StickTableView]) -> Vec<String> {
    let mut sections = vec![
        listeners(&status.listeners),
        pools(&status.pools),
        orders(&status.pools),
        breaks(&status.pools),
        self::stick_tables(stick_tables),
        hottest(stick_tables).render_within(COLUMNS, &["STICK TABLE", "HOTTEST KEY", "BACKEND"]),
        workers(&status.workers, &status.conversations),
    ];
    sections.push(note_of_cuts(&sections.concat()).to_owned());
    sections
}

/// Lines of the head, each broken where it is too wide.
pub(super) fn head(head: &str) -> String {
    head.lines().map(|line| wrap(line, COLUMNS, INDENT)).collect()
}

fn listeners(listeners: &[ListenerStatus]) -> String {
    let mut table = Table::new(["LISTENER", "BIND", "OPEN", "ACCEPTED", "REFUSED", "ENDED BADLY"]);
    for listener in listeners {
        table.row([
            listener.name.clone(),
            listener.bind.join(" "),
            format!("{}{}", count(listener.open), if listener.at_limit { " at the limit" } else { "" }),
            count(listener.totals.accepted),
            count(refused_connections(&listener.totals)),
            count(badly_ended(&listener.totals)),
        ]);
    }
    table.render_within(COLUMNS, &["LISTENER", "BIND"])
}

fn pools(pools: &[PoolStatus]) -> String {
    let mut table = Table::new(["POOL", "BACKEND", "STATE", "SINCE", "OPEN", "TOTAL", "ERRORS"]);
    let mut complaints = String::new();
    for pool in pools {
        for backend in &pool.backends {
            table.row([
                pool.name.clone(),
                backend.name.clone(),
                state(backend),
                since(backend).map(short).unwrap_or_default(),
                load(backend),
                count(backend.totals.connections),
                count(backend.totals.connect_failures),
            ]);
            if !backend.complaint.is_empty() {
                let [pool, name] = [&pool.name, &backend.name].map(|name| shorten(name, NAME));
                let line = format!("{pool}/{name}: {}", backend.complaint);
                complaints += &wrap(&line, COLUMNS, INDENT);
            }
        }
    }
    table.render_within(COLUMNS, &["POOL", "BACKEND"]) + &complaints
}

/// What a command has done to a backend, and its health if that is worse.
pub(in crate::cli) fn state(backend: &BackendStatus) -> String {
    match (backend.state.as_str(), &backend.runtime) {
        (state, None) => state.to_owned(),
        ("up" | "unchecked", Some(runtime)) => format!("{runtime} (runtime)"),
        (state, Some(runtime)) => format!("{state}, {runtime} (runtime)"),
    }
}

/// Seconds since the command, or else since the state last changed.
pub(in crate::cli) fn since(backend: &BackendStatus) -> Option<u64> {
    backend.drain_s.or(backend.since_s)
}

fn load(backend: &BackendStatus) -> String {
    let most = backend.max_connections.map_or(String::new(), |most| format!("/{}", count(most.into())));
    format!("{}{most}{}", count(backend.leases), waiting(backend))
}

/// Clients that wait for a place at the backend, behind those that have one.
pub(in crate::cli) fn waiting(backend: &BackendStatus) -> String {
    if backend.waiting > 0 { format!(" +{}", count(backend.waiting)) } else { String::new() }
}

/// What orders at run time have made of backends, and which backends they have removed.
pub(super) fn orders(pools: &[PoolStatus]) -> String {
    let mut lines = String::new();
    for pool in pools {
        for backend in pool.backends.iter().filter(|backend| !backend.orders.is_empty()) {
            let [pool, name] = [&pool.name, &backend.name].map(|name| shorten(name, NAME));
            let orders = backend.orders.join(", ");
            // A path of a unix socket may be longer than a line.
            let words: Vec<_> = orders.split(' ').map(|word| shorten(word, COLUMNS - INDENT)).collect();
            lines += &wrap(&format!("{pool}/{name} (runtime): {}", words.join(" ")), COLUMNS, INDENT);
        }
        if !pool.removed.is_empty() {
            let names: Vec<_> = pool.removed.iter().map(|name| shorten(name, NAME)).collect();
            let line = format!("removed from pool {} (runtime): {}", shorten(&pool.name, NAME), names.join(", "));
            lines += &wrap(&line, COLUMNS, INDENT);
        }
    }
    lines
}

/// Known clients that got another backend, by cause, for each pool that has some.
pub(super) fn breaks(pools: &[PoolStatus]) -> String {
    let mut lines = String::new();
    for pool in pools {
        let all: u64 = pool.breaks.values().sum();
        if all > 0 {
            let causes = pool.breaks.iter().filter(|(_, count)| **count > 0);
            let causes: Vec<_> = causes.map(|(cause, count)| format!("{count} {cause}")).collect();
            let line = format!("known clients of pool {} that moved: {all}: {}", pool.name, causes.join(", "));
            lines += &wrap(&line, COLUMNS, INDENT);
        }
    }
    lines
}

fn stick_tables(stick_tables: &[StickTableView]) -> String {
    let mut table = Table::new(["STICK TABLE", "SIZE", "KNOWN", "DISPLACED", "LEARNED", "LOST EARLY"]);
    for StickTableView { stick_table, .. } in stick_tables {
        let StickTableStatus { name, bytes, known, displaced, learned, .. } = stick_table;
        let lost = count(stick_table.evicted_displaced + stick_table.refused);
        let full = if stick_table.full { " full" } else { "" };
        let lost = format!("{lost}{full}");
        table.row([name.clone(), super::bytes(*bytes), count(*known), count(*displaced), count(*learned), lost]);
    }
    table.render_within(COLUMNS, &["STICK TABLE"])
}

/// Workers and runtimes that have something to complain about.
fn workers(workers: &[WorkerStatus], runtimes: &[RuntimeStatus]) -> String {
    let mut table = Table::new(["WORKER", "CONNECTIONS", "ACCEPT", "PANICS", "STUCK", "RUNTIME STUCK", "LOG DROPPED"]);
    for (index, worker) in workers.iter().enumerate() {
        let runtime_stuck = runtimes.get(index).map_or(0, |runtime| runtime.stuck);
        let paused = worker.accept_paused_now > 0;
        if paused || worker.panics + worker.stuck + runtime_stuck + worker.log_dropped > 0 {
            table.row([
                index.to_string(),
                count(worker.connections),
                if paused { "paused" } else { "open" }.into(),
                count(worker.panics),
                count(worker.stuck),
                count(runtime_stuck),
                count(worker.log_dropped),
            ]);
        }
    }
    table.render()
}

/// A number in at most five characters; from a hundred thousand on with a unit, cut and not rounded up.
pub(in crate::cli) fn count(number: u64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    if number < 100_000 {
        return number.to_string();
    }
    let (mut tenths, mut unit) = (number / 100, 1);
    while tenths >= 10_000 {
        tenths /= 1_000;
        unit += 1;
    }
    match tenths {
        0..1_000 => format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{}{}", tenths / 10, UNITS[unit]),
    }
}

/// A time in at most six characters, or seven from a thousand days on: `12s`, `59m`, `3h12m`, `40d5h`.
pub(in crate::cli) fn short(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::status::{BackendTotals, ListenerTotals};
    use crate::metrics::{Status, status};
    use crate::pool::HotKey;

    #[test]
    fn numbers_and_times_are_short() {
        for (number, text) in [
            (99_999, "99999"),
            (100_000, "100k"),
            (999_999, "999k"),
            (1_999_999, "1.9M"),
            (99_999_999, "99.9M"),
            (999_999_999, "999M"),
            (1_000_000_000, "1.0G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(number), text);
        }
        for (seconds, text) in [(59, "59s"), (3_599, "59m"), (86_399, "23h59m"), (86_400, "1d0h")] {
            assert_eq!(short(seconds), text);
        }
    }

    fn backend(name: &str, state: &str) -> BackendStatus {
        BackendStatus { name: name.into(), state: state.into(), since_s: Some(11_520), ..BackendStatus::default() }
    }

    fn shown(status: &Status, stick_tables: &[StickTableView]) -> String {
        sections(status, stick_tables).into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn pools_and_backends_show_state_since_load_errors_and_breaks() {
        let totals = BackendTotals { connections: 900, connect_failures: 17, ..BackendTotals::default() };
        let down = BackendStatus { complaint: "connection refused".into(), totals, ..backend("b", "down") };
        let drained = BackendStatus { runtime: Some("drained".into()), drain_s: Some(75), ..backend("c", "up") };
        let orders = vec!["added".into(), "weight 5 in place of 1".into()];
        let up = BackendStatus { leases: 4, max_connections: Some(10), orders, ..backend("a", "up") };
        let breaks = [("down", 12), ("drain", 3), ("full", 0)].map(|(cause, count)| (cause.to_owned(), count));
        let pool = PoolStatus {
            name: "web".into(),
            breaks: breaks.into(),
            backends: vec![up, down, drained],
            ..PoolStatus::default()
        };
        let removed = vec!["x".into(), "y".into()];
        let quiet = PoolStatus { name: "api".into(), removed, ..PoolStatus::default() };
        let status = Status { pools: vec![pool, quiet], ..Status::default() };
        assert_eq!(
            shown(&status, &[]),
            "POOL  BACKEND  STATE              SINCE  OPEN  TOTAL  ERRORS\n\
             web   a        up                 3h12m  4/10      0       0\n\
             web   b        down               3h12m     0    900      17\n\
             web   c        drained (runtime)     1m     0      0       0\n\
             web/b: connection refused\n\
             \nweb/a (runtime): added, weight 5 in place of 1\n\
             removed from pool api (runtime): x, y\n\
             \nknown clients of pool web that moved: 15: 12 down, 3 drain\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_80_whatever_names_and_numbers_there_are() {
        let long = |end: &str| format!("{}{end}", "n".repeat(60));
        let most = u64::MAX / 4;
        let totals = BackendTotals { connections: most, connect_failures: most, ..BackendTotals::default() };
        let worst = BackendStatus {
            runtime: Some("draining".into()),
            drain_s: Some(86_400 * 999),
            leases: most,
            max_connections: Some(u32::MAX),
            complaint: "response refused: ".repeat(9),
            orders: vec!["added".into(), format!("address unix:/{} in place of [::1]:80", "x".repeat(102))],
            totals,
            ..backend(&long("b"), "awaited")
        };
        let causes = crate::outcome::BreakCause::ALL.map(|cause| (cause.word().to_owned(), most / 8));
        let pool = PoolStatus {
            name: long("p"),
            breaks: causes.into(),
            backends: vec![worst.clone(), BackendStatus { name: long("c"), ..worst }],
            removed: vec![long("r"); 5],
            ..PoolStatus::default()
        };
        let ended = [("no_route".to_owned(), most), ("backend_reset".to_owned(), most)].into();
        let listener = ListenerStatus {
            name: long("l"),
            bind: vec!["[2001:db8:1111:2222:3333:4444:5555:6666]:65535".into(); 3],
            open: most,
            at_limit: true,
            totals: ListenerTotals { accepted: most, ended, ..ListenerTotals::default() },
            ..ListenerStatus::default()
        };
        let worker = WorkerStatus { accept_paused_now: 1, panics: most, stuck: most / 2, ..WorkerStatus::default() };
        let status = Status {
            listeners: vec![listener],
            pools: vec![pool],
            workers: vec![worker],
            conversations: vec![RuntimeStatus { stuck: most / 4, ..RuntimeStatus::default() }],
            ..Status::default()
        };
        let stick_table = status::StickTableStatus {
            name: long("t"),
            bytes: most,
            known: most,
            displaced: most,
            learned: most,
            evicted_displaced: most,
            full: true,
            hottest_sampled: true,
            ..Default::default()
        };
        let hot = HotKey { key: "2001:db8::".repeat(9), share: 0.5, share_error: 0.25, backend: Some(long("h")) };
        let view = StickTableView { stick_table, hottest: vec![hot] };
        let text = shown(&status, &[view]);
        let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > COLUMNS).collect();
        assert!(wide.is_empty(), "{}\n\n{text}", wide.join("\n"));
        let cut: Vec<_> = text.lines().filter(|line| line.contains('…')).collect();
        assert!(cut.len() > 5 && cut.iter().any(|line| line.contains("nb  ")), "{text}");
        assert!(text.ends_with("\n… stands for the middle of a long name; --json has all names whole\n"), "{text}");
    }

    #[test]
    fn workers_are_shown_where_something_is_wrong() {
        let well = WorkerStatus { connections: 7, ..WorkerStatus::default() };
        let dropping = WorkerStatus { log_dropped: 5, ..well };
        let status = Status { workers: vec![well, dropping], ..Status::default() };
        let text = shown(&status, &[]);
        assert!(text.starts_with("WORKER  CONNECTIONS") && text.lines().count() == 2, "{text}");
        assert!(text.lines().last().unwrap().trim_start().starts_with("1 "), "{text}");
    }

    #[test]
    fn the_head_is_broken_between_words() {
        let line = "connections 12 of 1000, descriptors 40 of 1024, reloads 3 accepted, 0 refused by the process";
        let text = head(&format!("{line}\nshort\n"));
        assert!(text.lines().count() == 3 && text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }
}
