//! `sessile why`: what happened to one client, as text or as JSON.
//!
//! Decides nothing: the process answers. Invariant: the exit code is 1 exactly if nothing is known of the client.

use std::fmt::Write as _;
use std::io::Write;

use super::exit_codes::EXIT_NO;
use super::width::{COLUMNS, wrap};
use super::{CommandError, client, load::RunningProcess, print_json};
use crate::admin::{WhyEnding, WhyEntry, WhyMove, WhyReport};

/// Columns before the text of a section.
const INDENT: usize = 10;

/// Arguments of `sessile why`.
#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// The client: its address, the number of a connection (`id` in the log), the id of a request (`request` in the log,
    /// X-Request-Id), or a cookie, as NAME=VALUE or as its value.
    #[arg(value_name = "ADDRESS|ID|COOKIE")]
    what: String,
    #[command(flatten)]
    running: RunningProcess,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl WhyArgs {
    /// Sends the request and prints the answer.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        if self.what.trim().is_empty() {
            return Err(CommandError::Usage("why: an address, an id or a cookie is needed".to_owned()));
        }
        let path = format!("/why?what={}", client::query_value(&self.what));
        let report: WhyReport = client::request(&self.running.socket()?, "GET", &path)?.json(&[200])?;
        if self.json {
            print_json(out, &report)?;
        } else {
            out.write_all(shown(&report).as_bytes())?;
        }
        Ok(if report.outcome == "not_known" { EXIT_NO } else { 0 })
    }
}

fn shown(report: &WhyReport) -> String {
    let mut text = wrap(&report.answer, COLUMNS, 2);
    let mut sections = Vec::new();
    if let Some(backend) = &report.backend {
        let pool = report.pool.as_deref().unwrap_or_default();
        sections.push(("backend", vec![format!("{backend} of pool {pool}")]));
    }
    let entries: Vec<_> = report.entry.iter().chain(&report.other_entries).map(entry).collect();
    sections.push(("entry", entries));
    sections.push((
        "open",
        report
            .connections
            .iter()
            .map(|open| {
                let backend = open.backend.as_deref().unwrap_or("no backend yet");
                format!(
                    "connection {} at {}: {backend}, {}, for {} s",
                    open.id,
                    open.listener,
                    open.stage,
                    open.age_ms / 1_000
                )
            })
            .collect(),
    ));
    sections.push(("moves", report.moves.iter().map(one_move).collect()));
    sections.push(("ended", report.ended.iter().map(ending).collect()));
    let events =
        report.events.iter().map(|dated| format!("{} {}: {}", dated.time, dated.event.kind.word(), dated.event.text));
    sections.push(("events", events.collect()));
    for (name, lines) in sections {
        for (index, line) in lines.iter().enumerate() {
            let head = if index == 0 { name } else { "" };
            text += &wrap(&format!("{head:<INDENT$}{line}"), COLUMNS, INDENT);
        }
    }
    // Writing to a String does not fail.
    let _ = writeln!(text, "watched   since {}", report.since);
    text
}

fn entry(entry: &WhyEntry) -> String {
    let WhyEntry { pool, backend, kind, age_s, expires_s, told_by } = entry;
    let backend = backend.as_deref().unwrap_or("a backend that has left");
    let told = told_by
        .as_deref()
        .map_or_else(String::new, |instance| format!(", told by instance {instance} through the store"));
    format!("{backend} of pool {pool}, {kind}{told}, seen {} min ago, kept for {} min more", age_s / 60, expires_s / 60)
}

fn one_move(one: &WhyMove) -> String {
    let WhyMove { time, pool, from, to, cause, because, connection } = one;
    let from = from.as_deref().unwrap_or("?");
    format!("{time} {from} -> {to} of pool {pool}, {cause}: {because} [connection {connection}]")
}

fn ending(ending: &WhyEnding) -> String {
    let WhyEnding { time, ended, meaning, request, listener, backend, connection, count, .. } = ending;
    let what = if *request { "request" } else { "connection" };
    let times = if *count > 1 { format!(", {count} times") } else { String::new() };
    let at = backend.as_deref().map_or_else(|| format!("listener {listener}"), |backend| format!("backend {backend}"));
    format!("{time} {what} {ended} at {at}{times}: {meaning} [connection {connection}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::WhyConnection;
    use crate::cli::tests::{answering, parse};
    use crate::events::{Event, EventKind};

    fn report() -> WhyReport {
        let moved = WhyMove {
            time: "2024-02-29T23:59:59.000Z".to_owned(),
            pool: "web".to_owned(),
            from: Some("a".to_owned()),
            to: "b".to_owned(),
            cause: "down".to_owned(),
            because: "a could not serve (backend web/a is down: connect: Connection refused)".to_owned(),
            connection: 7,
        };
        let ended = WhyEnding {
            time: "2024-02-29T23:59:58.000Z".to_owned(),
            ended: "connect_refused".to_owned(),
            meaning: "The last backend tried refused the connection.".to_owned(),
            listener: "l".to_owned(),
            backend: Some("a".to_owned()),
            count: 3,
            connection: 6,
            ..WhyEnding::default()
        };
        let entry = WhyEntry {
            pool: "web".to_owned(),
            backend: Some("b".to_owned()),
            kind: "displaced".to_owned(),
            age_s: 120,
            expires_s: 3_480,
            told_by: None,
        };
        let open =
            WhyConnection { id: 7, listener: "l".to_owned(), stage: "relay".to_owned(), ..WhyConnection::default() };
        WhyReport {
            asked: "address".to_owned(),
            outcome: "moved".to_owned(),
            answer: "Client 192.0.2.1 was moved from a to b at 2024-02-29T23:59:59.000Z, because a could not serve."
                .to_owned(),
            pool: Some("web".to_owned()),
            backend: Some("b".to_owned()),
            entry: Some(entry),
            open: 1,
            connections: vec![open],
            moves: vec![moved],
            ended: vec![ended],
            events: vec![Event::new(EventKind::Down, "backend web/a is down").into()],
            since: "2024-02-29T00:00:00.000Z".to_owned(),
            ..WhyReport::default()
        }
    }

    #[test]
    fn the_answer_comes_first_and_everything_fits_80_columns() {
        let text = shown(&report());
        let expected = "\
Client 192.0.2.1 was moved from a to b at 2024-02-29T23:59:59.000Z, because a
  could not serve.
backend   b of pool web
entry     b of pool web, displaced, seen 2 min ago, kept for 58 min more
open      connection 7 at l: no backend yet, relay, for 0 s
moves     2024-02-29T23:59:59.000Z a -> b of pool web, down: a could not serve
          (backend web/a is down: connect: Connection refused) [connection 7]
ended     2024-02-29T23:59:58.000Z connection connect_refused at backend a, 3
          times: The last backend tried refused the connection. [connection 6]
events    1970-01-01T00:00:00.000Z down: backend web/a is down
watched   since 2024-02-29T00:00:00.000Z
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn the_question_is_sent_whole_and_an_unknown_client_is_another_exit_code() {
        for (outcome, exit) in [("moved", 0), ("not_moved", 0), ("not_known", EXIT_NO)] {
            let folder = tempfile::tempdir().unwrap();
            let report = WhyReport { outcome: outcome.to_owned(), ..report() };
            let (socket, served) = answering(folder.path(), "200 OK", &serde_json::to_string(&report).unwrap());
            let line = format!("sessile why SID=a+b&c --json --socket {}", socket.display());
            let mut out = Vec::new();
            assert_eq!(parse(&line).unwrap().print(&mut out).unwrap(), exit, "{outcome}");
            assert_eq!(serde_json::from_slice::<WhyReport>(&out).unwrap(), report);
            assert!(served.join().unwrap()[0].starts_with("GET /why?what=SID%3Da%2Bb%26c HTTP/1.0"));
        }
    }
}
