//! [`ClientReport`] as text of at most 80 columns: the client, its candidates, where it goes.
//!
//! Computes nothing. Invariant: the line that begins with `>` is the backend that the client gets; a pool without a key
//! has no such line.

use std::fmt::Write as _;

use crate::cli::table::{Table, note_of_cuts};
use crate::cli::width::{COLUMNS, wrap};
use crate::plan::{ClientReport, ExplainedCandidate, ExplainedEntry, ExplainedLine, Explanation, percent};

/// Indent of lines that go on.
const INDENT: usize = 4;

/// Indent of a reason that stands below its candidate.
const REASON: usize = 7;

/// The report as lines.
pub(super) fn of(report: &ClientReport) -> String {
    let mut head = format!("client {} at listener {}", report.client, report.listener);
    // Writing to a String does not fail.
    if let Some(sni) = &report.sni {
        let _ = write!(head, " for {sni}");
    }
    if let Some(cookie) = &report.cookie {
        let _ = write!(head, " with a cookie that is {cookie}");
    }
    head += match report.store.as_deref() {
        Some("known") => ", by the shared store",
        Some("not_reached") => ", without the shared store, which was not reached",
        _ => "",
    };
    if let Some(route) = report.route {
        let _ = write!(head, ": route #{route}");
    }
    if let Some(answer) = &report.answer {
        let _ = write!(head, " answers {answer}");
        return wrap(&head, COLUMNS, INDENT);
    }
    if let Some(split) = &report.split {
        let _ = write!(head, "{} split {}", if report.route.is_some() { "," } else { ":" }, split.name);
        let shares = split.new_clients.iter().filter(|share| share.share > 0.0);
        let shares: Vec<_> = shares.map(|share| format!("{} {}", share.pool, percent(share.share))).collect();
        match &split.pool {
            Some(_) => {
                head += match &*split.by {
                    "cookie" => ", by the cookie of the split",
                    "stick_table" => ", by the stick table of the pool",
                    _ if report.live => ", by the key of the split",
                    _ => ", by the key of the split, if no stick table has it elsewhere",
                }
            }
            None => {
                let _ = write!(head, ", a new client: gets a pool by weight: {}", shares.join(", "));
                return wrap(&head, COLUMNS, INDENT);
            }
        }
    }
    match (&report.explanation, report.refused.as_deref()) {
        (Some(explanation), _) => {
            let sign = if report.route.is_some() || report.split.is_some() { "," } else { ":" };
            let _ = write!(head, "{sign} pool {}, {}", explanation.pool, explanation.balance);
            wrap(&head, COLUMNS, INDENT) + &of_pool(explanation)
        }
        (None, Some("misdirected")) => {
            wrap(&format!("{head}: is refused: the host of the request has other rules of TLS"), COLUMNS, INDENT)
        }
        (None, _) => wrap(&format!("{head}: no route takes it, and no default pool"), COLUMNS, INDENT),
    }
}

fn of_pool(explanation: &Explanation) -> String {
    let mut key = match (&explanation.key, &explanation.key_hash) {
        (Some(key), Some(hash)) => format!("  key {key} (hash {hash})"),
        _ => "  no key".to_owned(),
    };
    if let Some(range) = &explanation.range {
        let _ = write!(key, ", in range {range}");
    }
    match &explanation.entry {
        Some(ExplainedEntry { backend, told_by, .. }) => {
            let _ =
                write!(key, ", in the stick table at {}", backend.as_deref().unwrap_or("a backend that was removed"));
            if let Some(instance) = told_by {
                let _ = write!(key, ", told by instance {instance} through the store");
            }
        }
        None if explanation.by_load && is_live(explanation) => key += ", not in the stick table",
        None => {}
    }
    let table = candidates(explanation);
    let note = note_of_cuts(&table);
    wrap(&key, COLUMNS, INDENT) + &table + note + &wrap(&end(explanation), COLUMNS, INDENT)
}

/// Where the client goes, why, and where it goes next.
fn end(explanation: &Explanation) -> String {
    let Explanation { choice, any, in_turn, reason, moved, from, wait_ms, next, next_any, by_load, .. } = explanation;
    let mut text = match wait_ms {
        Some(0) => return "is refused: its backend cannot serve, and on_down = \"reject\"".to_owned(),
        Some(most) => format!("waits for its backend, {most} ms at most; else "),
        None => String::new(),
    };
    if let Some(line) = &explanation.line {
        return text + &in_line(line);
    }
    let then = if *by_load { ", and stays there" } else { "" };
    match (choice, reason, in_turn) {
        (None, Some(reason), None) if *any && *by_load => {
            let _ = write!(text, "goes where the stick table has it; if it is new, to any usable backend ({reason})");
        }
        (None, Some(reason), Some(in_turn)) if *any => {
            let _ = write!(text, "goes to any usable backend ({reason}): {in_turn} is next in turn, not fixed{then}");
        }
        (None, Some(reason), _) if *any => {
            let _ = write!(text, "goes to any usable backend, in turn or at random ({reason})");
        }
        (Some(choice), Some(reason), _) => {
            let _ = write!(text, "goes to {choice} ({reason})");
        }
        _ => text += "is refused: no backend may serve it",
    }
    if let Some(moved) = moved {
        let _ = write!(text, ", moved from {} ({moved})", from.as_deref().unwrap_or("a backend that was removed"));
    }
    let _ = match (choice, next) {
        (Some(choice), None) if *next_any => write!(text, "; if {choice} goes down, to any usable backend"),
        (Some(choice), Some(next)) => write!(text, "; if {choice} goes down, to {next}"),
        (Some(choice), None) => write!(text, "; if {choice} goes down, no backend is left"),
        _ => Ok(()),
    };
    text
}

/// What becomes of a client that has to wait for a place at a full backend.
fn in_line(line: &ExplainedLine) -> String {
    let ExplainedLine { backend, waiting, full, wait_ms } = line;
    let place =
        backend.as_ref().map_or_else(|| "the first place at any backend".to_owned(), |at| format!("a place at {at}"));
    let clients = if *waiting == 1 { "1 client waits".to_owned() } else { format!("{waiting} clients wait") };
    match full {
        true => format!("is refused: {clients} for {place}, which are as many as may"),
        false => format!("waits for {place}, {wait_ms} ms at most; {clients} for it already"),
    }
}

fn is_live(explanation: &Explanation) -> bool {
    explanation.candidates.iter().any(|row| row.state.is_some())
}

/// The load of a candidate, where that decides which of them gets the client.
fn load(explanation: &Explanation, row: &ExplainedCandidate) -> String {
    let leases = row.score.strip_prefix("leases:").and_then(|score| score.split_once(',')).map(|(leases, _)| leases);
    leases.filter(|_| explanation.any).map_or(String::new(), |leases| format!(", leases {leases}"))
}

/// One line for each candidate; why the client does not go there stands behind it, or below where it is too long.
fn candidates(explanation: &Explanation) -> String {
    let is_live = is_live(explanation);
    let mut table = Table::new(["", "BACKEND", "ADDRESS", "WEIGHT", if is_live { "STATE" } else { "SCORE" }]);
    for (place, row) in explanation.candidates.iter().enumerate() {
        let mark = if explanation.choice.as_ref() == Some(&row.backend) { '>' } else { ' ' };
        table.row([
            format!("{mark} {:>3}", place + 1),
            row.backend.clone(),
            row.address.clone(),
            row.weight.to_string(),
            row.state.as_ref().map_or_else(|| row.score.clone(), |state| format!("{state}{}", load(explanation, row))),
        ]);
    }
    let table = table.render_within(COLUMNS, &["BACKEND", "ADDRESS", "SCORE"]);
    let width = table.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let reasons = explanation.candidates.iter().map(|row| row.why_not.as_deref());
    let mut text = String::new();
    for (line, reason) in table.lines().zip([Some("WHY NOT")].into_iter().chain(reasons)) {
        text += &match reason {
            None => format!("{line}\n"),
            Some(reason) if width + 2 + reason.chars().count() <= COLUMNS => format!("{line:width$}  {reason}\n"),
            Some(reason) => format!("{line}\n{}", wrap(&format!("{:REASON$}{reason}", ""), COLUMNS, REASON)),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(backend: &str, state: Option<&str>, why_not: Option<&str>) -> ExplainedCandidate {
        ExplainedCandidate {
            backend: backend.into(),
            address: "10.0.0.1:8080".into(),
            score: "0123456789abcdef".into(),
            weight: 1,
            backup: false,
            state: state.map(str::to_owned),
            usable: why_not.is_none(),
            why_not: why_not.map(str::to_owned),
        }
    }

    fn report() -> ClientReport {
        let explanation = Explanation {
            pool: "web".into(),
            balance: "hash".into(),
            key: Some("source 192.0.2.7/32".into()),
            key_hash: Some("0123456789abcdef".into()),
            by_load: false,
            range: None,
            entry: Some(ExplainedEntry { backend: Some("b".into()), told_by: None, key: None }),
            candidates: vec![
                candidate("a", Some("down"), Some("down: connection refused")),
                candidate("c", Some("up"), None),
                candidate("b", Some("up, draining"), Some("draining: only known clients")),
            ],
            choice: Some("c".into()),
            any: false,
            in_turn: None,
            reason: Some("placement".into()),
            moved: Some("drain".into()),
            from: Some("b".into()),
            wait_ms: None,
            line: None,
            next: Some("d".into()),
            next_any: false,
        };
        ClientReport {
            client: "192.0.2.7".parse().unwrap(),
            listener: "front".into(),
            live: true,
            sni: Some("www.example.org".into()),
            route: None,
            answer: None,
            split: None,
            cookie: None,
            store: None,
            refused: None,
            explanation: Some(explanation),
        }
    }

    #[test]
    fn a_report_says_where_a_client_goes_from_where_and_why_not_elsewhere() {
        assert_eq!(
            of(&report()),
            "client 192.0.2.7 at listener front for www.example.org: pool web, hash\n  \
             key source 192.0.2.7/32 (hash 0123456789abcdef), in the stick table at b\n       \
             BACKEND  ADDRESS        WEIGHT  STATE         WHY NOT\n    \
             1  a        10.0.0.1:8080       1  down          down: connection refused\n>   \
             2  c        10.0.0.1:8080       1  up\n    \
             3  b        10.0.0.1:8080       1  up, draining\n       \
             draining: only known clients\n\
             goes to c (placement), moved from b (drain); if c goes down, to d\n"
        );
    }

    #[test]
    fn a_client_without_a_key_waits_its_turn_and_one_whose_backend_is_down_waits_for_it() {
        let with = |change: fn(&mut Explanation)| {
            let mut report = report();
            change(report.explanation.as_mut().unwrap());
            of(&report).lines().last().unwrap().to_owned()
        };
        let keyless = with(|said| {
            (said.choice, said.any, said.in_turn, said.next) = (None, true, Some("c".into()), None);
            (said.moved, said.from) = (None, None);
        });
        assert_eq!(keyless, "goes to any usable backend (placement): c is next in turn, not fixed");
        let waiting = with(|said| (said.wait_ms, said.moved) = (Some(3_000), None));
        assert_eq!(waiting, "    down, to d", "the end of a sentence of two lines");
        assert!(with(|said| said.wait_ms = Some(0)).starts_with("is refused: its backend cannot serve"));
        let refused = with(|said| {
            (said.choice, said.reason, said.moved, said.next) = (None, None, None, None);
        });
        assert_eq!(refused, "is refused: no backend may serve it");
    }

    #[test]
    fn a_client_of_a_full_backend_is_told_its_line() {
        let with = |line: ExplainedLine| {
            let mut report = report();
            let said = report.explanation.as_mut().unwrap();
            (said.choice, said.reason, said.moved, said.next, said.line) = (None, None, None, None, Some(line));
            of(&report).lines().last().unwrap().to_owned()
        };
        let line = |backend: Option<&str>, waiting, full| {
            with(ExplainedLine { backend: backend.map(str::to_owned), waiting, full, wait_ms: 5_000 })
        };
        assert_eq!(line(Some("b"), 1, false), "waits for a place at b, 5000 ms at most; 1 client waits for it already");
        assert_eq!(line(Some("b"), 9, true), "is refused: 9 clients wait for a place at b, which are as many as may");
        assert_eq!(line(None, 0, false), "    already", "the end of a sentence of two lines");
    }

    #[test]
    fn a_client_that_load_places_is_shown_the_load_and_that_it_stays() {
        let mut report = report();
        let said = report.explanation.as_mut().unwrap();
        (said.by_load, said.any, said.entry, said.choice, said.next) = (true, true, None, None, None);
        (said.in_turn, said.moved, said.from) = (Some("c".into()), None, None);
        said.candidates[1].score = "leases:3,weight:1".into();
        let live = of(&report);
        assert!(live.contains("(hash 0123456789abcdef), not in the stick table\n"), "{live}");
        assert!(live.contains("1  up, leases 3\n"), "{live}");
        assert!(
            live.ends_with(
                "goes to any usable backend (placement): c is next in turn, not fixed, and stays\n    there\n"
            )
        );
        let said = report.explanation.as_mut().unwrap();
        said.in_turn = None;
        said.candidates.iter_mut().for_each(|row| row.state = None);
        let offline = of(&report);
        assert!(
            offline
                .ends_with("goes where the stick table has it; if it is new, to any usable backend\n    (placement)\n"),
            "{offline}"
        );
        let said = report.explanation.as_mut().unwrap();
        (said.any, said.choice, said.next_any) = (false, Some("c".into()), true);
        assert!(of(&report).ends_with("goes to c (placement); if c goes down, to any usable backend\n"));
    }

    #[test]
    fn long_names_are_cut_and_no_line_is_wider_than_80() {
        let mut report = report();
        let long = |end: &str| format!("{}-{end}", "a-very-long-name-of-sixty-four-bytes".repeat(2));
        report.listener = long("listener");
        report.sni = Some(format!("{}.example.org", "label.".repeat(20)));
        report.cookie = Some("former_pool".into());
        let said = report.explanation.as_mut().unwrap();
        (said.pool, said.choice, said.next, said.from) = (long("p"), Some(long("1")), Some(long("2")), Some(long("3")));
        said.range = Some(long("range"));
        said.candidates = (1..4).map(|n| candidate(&long(&n.to_string()), Some("unchecked, draining"), None)).collect();
        said.candidates[1].address = format!("unix:/{}.sock", "run/".repeat(20));
        said.candidates[2].why_not = Some(format!("not among the backends of range {}", long("range")));
        let text = of(&report);
        let words: Vec<&str> = text.split_whitespace().collect();
        for line in text.lines().filter(|line| line.chars().count() > COLUMNS) {
            assert_eq!(line.split_whitespace().count(), 1, "only a word that is wider than a line is: {line}");
        }
        let rows: Vec<_> = text.lines().filter(|line| line.contains("unchecked")).collect();
        assert!(
            rows.len() == 3 && rows.iter().all(|row| row.chars().count() <= COLUMNS && row.contains('…')),
            "{text}"
        );
        assert!(words.contains(&long("1").as_str()), "the sentence has the whole name: {text}");
        assert!(text.contains("--json has all names whole"), "{text}");
        assert!(rows[0].starts_with(">   1  a-very") && rows[0].contains("-1  "), "{text}");
    }
}
