//! [`BackendWatch`]: ejections, and drains with a deadline that has passed, seen from outside of the path of connections.
//!
//! Ejects and drains nothing. Invariant: an ejection is said once when it begins and once when it is over, also one that
//! follows another at once; a drained backend is said once until a command about it.

use std::collections::BTreeMap;

use super::alarms::AlarmLine;
use crate::config;
use crate::events::{Event, EventKind};
use crate::pool::{Backend, Health, Pool};
use crate::snapshot::Snapshot;

/// What was said of backends that are ejected or drained.
#[derive(Debug, Default)]
pub(super) struct BackendWatch {
    /// By names of pool and backend.
    said: BTreeMap<(String, String), SaidOfBackend>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SaidOfBackend {
    /// End of the ejection; `None`: the backend is not ejected.
    ejected_until_ms: Option<i64>,
    is_drained: bool,
}

impl SaidOfBackend {
    fn now(backend: &Backend, now_ms: u64) -> Self {
        let is_ejected = backend.health(now_ms) == Health::Ejected;
        Self { ejected_until_ms: is_ejected.then(|| backend.ejection().until_ms), is_drained: backend.drained(now_ms) }
    }
}

impl BackendWatch {
    /// Looks at every backend, and returns what has begun or ended since the last look.
    pub(super) fn observe(&mut self, snapshot: &Snapshot, now_ms: u64) -> Vec<AlarmLine> {
        let mut lines = Vec::new();
        let mut said = BTreeMap::new();
        for pool in snapshot.pools.iter() {
            for backend in pool.backends() {
                let now = SaidOfBackend::now(backend, now_ms);
                let is_special = now != SaidOfBackend::default();
                // Most backends are neither, and cost no name.
                if !is_special && self.said.is_empty() {
                    continue;
                }
                let name = (pool.name().to_owned(), backend.name().to_owned());
                let before = self.said.get(&name).copied().unwrap_or_default();
                lines.extend(ejection(pool, backend, before, now, now_ms));
                if now.is_drained && !before.is_drained {
                    let (pool_name, name) = (pool.name(), backend.name());
                    let is_found = |found: &config::Backend| found.absence().is_some() && found.name == name;
                    let way_back = match (backend.is_drained_by_agent(), backend.drain_times()) {
                        (true, _) => "its agent ends the drain".to_owned(),
                        (false, Some(_)) => format!("`sessile ready {pool_name}/{name}` ends the drain"),
                        (false, None) if pool.config().found().any(is_found) => {
                            "its source does not name it any more".to_owned()
                        }
                        (false, None) => {
                            format!("an order removes it, and `sessile ready {pool_name}/{name}` ends that")
                        }
                    };
                    let text = format!("backend {pool_name}/{name} is drained and serves no client; {way_back}");
                    let event = Event::new(EventKind::Drained, &text).of_backend(pool_name, name);
                    lines.push(AlarmLine { is_over: true, event });
                }
                if is_special {
                    said.insert(name, now);
                }
            }
        }
        self.said = said;
        lines
    }
}

fn ejection(
    pool: &Pool,
    backend: &Backend,
    before: SaidOfBackend,
    now: SaidOfBackend,
    now_ms: u64,
) -> Option<AlarmLine> {
    let name = format!("backend {}/{}", pool.name(), backend.name());
    let (kind, text) = match (before.ejected_until_ms, now.ejected_until_ms) {
        (before, Some(until_ms)) if before != Some(until_ms) => {
            let left_ms = u64::try_from(until_ms).unwrap_or_default().saturating_sub(now_ms);
            let seconds = left_ms.div_ceil(1_000);
            (EventKind::Ejected, format!("{name} is ejected for {seconds} s: connections to it have failed in a row"))
        }
        (Some(_), None) => (EventKind::Returned, format!("{name} is not ejected any more")),
        _ => return None,
    };
    let event = Event::new(kind, &text).of_backend(pool.name(), backend.name());
    Some(AlarmLine { is_over: kind == EventKind::Returned, event })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::AdminState;

    fn snapshot() -> Snapshot {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
                    [[pool]]\nname = \"web\"\ndrain_deadline = \"1m\"\ncheck = \"off\"\n\
                    eject = { failures = 1, base = \"10s\" }\n\
                    backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n";
        Snapshot::of_text(text)
    }

    fn kinds(watch: &mut BackendWatch, snapshot: &Snapshot, now_ms: u64) -> Vec<(EventKind, String)> {
        let lines = watch.observe(snapshot, now_ms).into_iter();
        lines.map(|line| (line.event.kind, line.event.backend.unwrap_or_default().into())).collect()
    }

    #[test]
    fn every_ejection_is_said_when_it_begins_and_when_it_is_over() {
        let (snapshot, mut watch) = (snapshot(), BackendWatch::default());
        let pool = &snapshot.pools[0];
        assert_eq!(kinds(&mut watch, &snapshot, 1_000), []);
        let length = pool.connect_failed(&pool.backends()[0], 1_000).unwrap();
        let lines = watch.observe(&snapshot, 1_000);
        let text = "backend web/a is ejected for 10 s: connections to it have failed in a row";
        assert_eq!((lines.len(), &*lines[0].event.text, lines[0].is_over), (1, text, false));
        assert_eq!(kinds(&mut watch, &snapshot, 1_500), [], "it lasts");
        let over_ms = 1_000 + length.as_millis() as u64;
        // Ejected again before a look has seen that it was over.
        pool.connect_failed(&pool.backends()[0], over_ms).unwrap();
        assert_eq!(kinds(&mut watch, &snapshot, over_ms + 1), [(EventKind::Ejected, "a".to_owned())]);
        assert_eq!(kinds(&mut watch, &snapshot, over_ms + 3_600_000), [(EventKind::Returned, "a".to_owned())]);
        assert_eq!(kinds(&mut watch, &snapshot, over_ms + 3_600_500), []);
    }

    #[test]
    fn a_drain_is_said_when_its_deadline_has_passed_and_again_after_a_command() {
        let (snapshot, mut watch) = (snapshot(), BackendWatch::default());
        let pool = &snapshot.pools[0];
        pool.order("b", AdminState::Drain, 1_000);
        assert_eq!(kinds(&mut watch, &snapshot, 2_000), [], "known clients are served");
        assert_eq!(kinds(&mut watch, &snapshot, 61_000), [(EventKind::Drained, "b".to_owned())]);
        assert_eq!(kinds(&mut watch, &snapshot, 99_000), []);
        pool.order("b", AdminState::Ready, 100_000);
        assert_eq!(kinds(&mut watch, &snapshot, 100_500), []);
        pool.order("b", AdminState::Close, 101_000);
        assert_eq!(kinds(&mut watch, &snapshot, 101_500), [(EventKind::Drained, "b".to_owned())]);
    }
}
