//! The sentences of an answer: whether a client was moved, why, and what is known if it was not.
//!
//! Looks nothing up. Invariant: "moved" is said exactly if a move was noted; a client that is not known is never said to
//! have stayed.

use crate::admin::WhyReport;
use crate::events::{Event, EventKind};

/// Fills in outcome and answer from the rest of the report; `subject` begins a sentence. `going_on`: conditions of now;
/// `certificates`: those that clients refuse now or soon, each as a sentence without its end.
pub(super) fn give(report: &mut WhyReport, subject: &str, going_on: &[&Event], certificates: &[String]) {
    let mut sentences = Vec::new();
    let outcome = match (report.moves.last(), report.backend.as_deref(), report.ended.last()) {
        (Some(last), ..) => {
            let from = last.from.as_deref().map_or_else(String::new, |from| format!(" from {from}"));
            sentences
                .push(format!("{subject} was moved{from} to {} at {}, because {}.", last.to, last.time, last.because));
            "moved"
        }
        (None, Some(backend), _) => {
            let pool = report.pool.as_deref().unwrap_or_default();
            sentences.push(format!(
                "{subject} was not moved since {}: its backend is {backend} of pool {pool}.",
                report.since
            ));
            let entry = report.entry.as_ref().filter(|entry| entry.backend.as_deref() == Some(backend));
            sentences.extend(
                entry
                    .and_then(|entry| entry.told_by.as_deref())
                    .map(|instance| format!("Its entry was told by instance {instance} through the store.")),
            );
            "not_moved"
        }
        (None, None, Some(ended)) => {
            sentences.push(format!("{subject} was not moved since {}, and has no backend now.", report.since));
            sentences.push(format!("Its last connection ended as {} at {}.", ended.ended, ended.time));
            "not_moved"
        }
        (None, None, None) => {
            sentences.push(format!(
                "{subject} is not known: no move and no bad ending was noted since {}, and there is no entry and no open \
                 connection.",
                report.since
            ));
            "not_known"
        }
    };
    sentences.extend(report.cookie.as_ref().map(|cookie| {
        let of_split = cookie.split.is_some().then_some(&*cookie.pool).filter(|pool| !pool.is_empty());
        let named =
            cookie.backend.as_deref().or(of_split).map_or_else(String::new, |name| format!(" (it names {name})"));
        let of = match &cookie.split {
            Some(split) => format!("split {split}"),
            None => format!("pool {}", cookie.pool),
        };
        format!("The cookie {} of {of} is {}: {}{named}.", cookie.name, cookie.verdict, cookie.meaning)
    }));
    if report.moves.is_empty() {
        sentences.extend(conditions(going_on, certificates));
    }
    report.outcome = outcome.to_owned();
    report.answer = sentences.join(" ");
}

/// What goes on now and may be what the client notices.
fn conditions(going_on: &[&Event], certificates: &[String]) -> Option<String> {
    use EventKind::{AcceptPaused, Damped, Down, Drained, Ejected, Limit, StoreDown, TableFull};
    let serious = [AcceptPaused, Damped, Down, Drained, Ejected, Limit, StoreDown, TableFull];
    let begun = going_on.iter().filter(|event| serious.contains(&event.kind)).map(|event| &*event.text);
    let texts: Vec<_> = begun.chain(certificates.iter().map(String::as_str)).collect();
    (!texts.is_empty()).then(|| format!("What goes on now: {}.", texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{WhyEnding, WhyEntry, WhyMove};

    /// The answer while these go on: a limit that is reached, and a reload that was refused.
    fn answered(mut report: WhyReport) -> (String, String) {
        report.since = "SINCE".to_owned();
        let limit = Event::new(EventKind::Limit, "max_connections is reached");
        let refused = Event::new(EventKind::ReloadRefused, "no client notices it");
        give(&mut report, "Client 192.0.2.1", &[&limit, &refused], &["certificate \"x\" has expired".to_owned()]);
        (report.outcome, report.answer)
    }

    #[test]
    fn a_move_is_told_with_its_cause_and_without_what_goes_on() {
        let moved = WhyMove {
            time: "THEN".to_owned(),
            from: Some("a".to_owned()),
            to: "b".to_owned(),
            because: "a could not serve".to_owned(),
            ..WhyMove::default()
        };
        let (outcome, answer) = answered(WhyReport { moves: vec![moved], ..WhyReport::default() });
        assert_eq!(outcome, "moved");
        assert_eq!(answer, "Client 192.0.2.1 was moved from a to b at THEN, because a could not serve.");
    }

    #[test]
    fn a_client_that_stayed_is_told_from_one_that_is_not_known() {
        let known = WhyReport { backend: Some("a".to_owned()), pool: Some("web".to_owned()), ..WhyReport::default() };
        let (outcome, answer) = answered(known.clone());
        assert_eq!(outcome, "not_moved");
        let goes_on = "What goes on now: max_connections is reached; certificate \"x\" has expired.";
        assert_eq!(
            answer,
            format!("Client 192.0.2.1 was not moved since SINCE: its backend is a of pool web. {goes_on}")
        );
        let (backend, told_by) = (Some("a".to_owned()), Some("host/1f".to_owned()));
        let entry = WhyEntry { backend, told_by, ..WhyEntry::default() };
        let told = WhyReport { entry: Some(entry), ..known };
        let (_, answer) = answered(told);
        let by = "its backend is a of pool web. Its entry was told by instance host/1f through the store.";
        assert!(answer.contains(by), "{answer}");
        let (outcome, answer) = answered(WhyReport::default());
        assert_eq!(outcome, "not_known");
        assert!(answer.starts_with("Client 192.0.2.1 is not known: no move"), "{answer}");
        assert!(answer.ends_with(goes_on), "{answer}");
        let ended = WhyEnding { ended: "source_rate".to_owned(), time: "THEN".to_owned(), ..WhyEnding::default() };
        let (outcome, answer) = answered(WhyReport { ended: vec![ended], ..WhyReport::default() });
        assert_eq!(outcome, "not_moved");
        assert!(answer.contains("was not moved since SINCE, and has no backend now. Its last"), "{answer}");
        assert!(answer.contains("ended as source_rate at THEN."), "{answer}");
    }
}
