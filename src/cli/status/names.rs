//! [`lines`]: what there is to say of the names of backends.
//!
//! Asks for no name. Invariant: a name with one address, which is taken, has no line.

use crate::metrics::status::{ResolveStatus, Status};

/// Most lines, one for each backend.
const LINES_MAX: usize = 16;
/// Most addresses of an answer that a line has.
const ANSWERS_MAX: usize = 8;

/// Names of backends of which what was found is not taken, or which have several addresses.
pub(super) fn lines(status: &Status) -> String {
    let mut lines = Vec::new();
    for pool in &status.pools {
        for backend in &pool.backends {
            let Some(ResolveStatus { name, answers, complaint, .. }) = &backend.resolve else { continue };
            let backend_name = format!("backend {}/{}: {name}", pool.name, backend.name);
            if !complaint.is_empty() {
                let result = if backend.address == *name { "it is down" } else { "its last address stays" };
                lines.push(format!("{backend_name}: {complaint}; {result}\n"));
            } else if answers.len() > 1 {
                lines.push(format!("{backend_name} is {}, of {}\n", backend.address, several(answers)));
            }
        }
    }
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("and {more} more backends with names: --json has them\n"));
    }
    lines.concat()
}

/// The first addresses of an answer, and the number of the others.
fn several(answers: &[String]) -> String {
    let named = answers.iter().take(ANSWERS_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match answers.len().saturating_sub(ANSWERS_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::status::{BackendStatus, PoolStatus};

    fn backend(name: &str, address: &str, answers: &[&str], complaint: &str) -> BackendStatus {
        let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let of_name =
            ResolveStatus { name: "a.example:80".into(), answers, complaint: complaint.into(), ..Default::default() };
        BackendStatus { name: name.into(), address: address.into(), resolve: Some(of_name), ..BackendStatus::default() }
    }

    fn shown(backends: Vec<BackendStatus>) -> String {
        let pool = PoolStatus { name: "web".into(), backends, ..PoolStatus::default() };
        lines(&Status { pools: vec![pool], ..Status::default() })
    }

    #[test]
    fn a_name_has_a_line_if_it_has_several_addresses_or_a_complaint() {
        let backends = vec![
            BackendStatus { name: "literal".into(), ..BackendStatus::default() },
            backend("one", "10.0.0.1:80", &["10.0.0.1"], ""),
            backend("two", "10.0.0.2:80", &["10.0.0.1", "10.0.0.2"], ""),
            backend("stays", "10.0.0.3:80", &["10.0.0.1"], "SERVFAIL"),
            backend("down", "a.example:80", &[], "it has no address"),
        ];
        assert_eq!(
            shown(backends),
            "backend web/two: a.example:80 is 10.0.0.2:80, of 10.0.0.1, 10.0.0.2\n\
             backend web/stays: a.example:80: SERVFAIL; its last address stays\n\
             backend web/down: a.example:80: it has no address; it is down\n"
        );
    }

    #[test]
    fn many_names_and_addresses_are_counted() {
        let answers: Vec<_> = (1..=10).map(|last| format!("10.0.0.{last}")).collect();
        let answers: Vec<_> = answers.iter().map(String::as_str).collect();
        let all = shown((0..20).map(|number| backend(&number.to_string(), "10.0.0.1:80", &answers, "")).collect());
        assert_eq!(all.lines().count(), LINES_MAX + 1);
        assert!(all.lines().next().is_some_and(|line| line.ends_with("10.0.0.8 and 2 more")), "{all}");
        assert!(all.ends_with("and 4 more backends with names: --json has them\n"), "{all}");
    }
}
