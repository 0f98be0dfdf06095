//! [`Drains`]: drains by command that stand for long, and may have been forgotten.
//!
//! Drains no backend (`pool::drain` does), and ends no drain: the operator decides. Invariant: a backend that a command
//! has drained is named in the log once in each [`REPEAT`] until a command about it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::events::{Event, EventKind};
use crate::pool::{Backend, Pool};
use crate::snapshot::Snapshot;

/// A drain is named in the log once its deadline has passed by this much, and then once in each [`REPEAT`].
const LONG: Duration = Duration::from_secs(3600);
/// Time between two log lines about the same drain.
const REPEAT: Duration = Duration::from_secs(86_400);

/// What is known about drains by command.
#[derive(Debug, Default)]
pub(super) struct Drains {
    /// When the log next names a backend, `POOL/NAME`, that is drained.
    due_ms: BTreeMap<String, u64>,
}

impl Drains {
    /// Notes that a command was given about a backend.
    pub(super) fn ordered(&mut self, pool: &str, backend: &str) {
        self.due_ms.remove(&format!("{pool}/{backend}"));
    }

    /// Events, for the log too, about drains that stand for long.
    pub(super) fn overdue(&mut self, snapshot: &Snapshot, now_ms: u64) -> Vec<Event> {
        let mut overdue = Vec::new();
        for (pool, backend) in backends(snapshot) {
            let is_forgotten = |for_ms: &u64| *for_ms >= ms(LONG) && backend.drain_times().is_some();
            let Some(for_ms) = backend.drained_for(now_ms).filter(is_forgotten) else {
                continue;
            };
            let name = format!("{}/{}", pool.name(), backend.name());
            if self.due_ms.get(&name).is_none_or(|due_ms| *due_ms <= now_ms) {
                self.due_ms.insert(name.clone(), now_ms + ms(REPEAT));
                let hours = for_ms / ms(LONG);
                let text = format!(
                    "backend {name} was drained by command and has served no client for {hours} h; \
                     `sessile ready {name}` ends the drain"
                );
                overdue.push(Event::new(EventKind::DrainForgotten, &text).of_backend(pool.name(), backend.name()));
            }
        }
        overdue
    }
}

fn backends(snapshot: &Snapshot) -> impl Iterator<Item = (&Pool, &Backend)> {
    snapshot.pools.iter().flat_map(|pool| pool.backends().iter().map(|backend| (&**pool, &**backend)))
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::AdminState;

    fn snapshot() -> Snapshot {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
                    [[pool]]\nname = \"web\"\ndrain_deadline = \"1m\"\n\
                    backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, \
                    { name = \"b\", address = \"127.0.0.1:2\" }, \
                    { name = \"c\", address = \"127.0.0.1:3\", state = \"drain\" }]\n";
        Snapshot::of_text(text)
    }

    #[test]
    fn a_drain_that_stands_for_long_is_named_once_a_day() {
        let (snapshot, mut drains) = (snapshot(), Drains::default());
        snapshot.pools[0].order("a", AdminState::Drain, 1_000);
        let over_ms = 1_000 + 60_000 + ms(LONG);
        assert!(drains.overdue(&snapshot, over_ms - 1).is_empty());
        let said = drains.overdue(&snapshot, over_ms);
        assert!(said.len() == 1 && said[0].text.contains("sessile ready web/a"), "{said:?}");
        assert_eq!((said[0].kind, said[0].backend.as_deref()), (EventKind::DrainForgotten, Some("a")));
        assert!(drains.overdue(&snapshot, over_ms + ms(REPEAT) - 1).is_empty());
        assert_eq!(drains.overdue(&snapshot, over_ms + ms(REPEAT)).len(), 1);
        snapshot.pools[0].order("a", AdminState::Ready, over_ms + 1);
        drains.ordered("web", "a");
        assert!(drains.overdue(&snapshot, over_ms + 3 * ms(REPEAT)).is_empty());
    }
}
