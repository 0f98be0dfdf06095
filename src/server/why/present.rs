//! [`Present`]: what the running process knows of a condition that an event has begun.
//!
//! Looks at the state and at no later event: a reload that removes a backend, or turns its checks off, ends a condition
//! without one, and a new process begins without the alarms of the one before. Invariant: a condition of something that
//! the configuration in force does not have does not go on.

use crate::clock;
use crate::events::{About, Event, EventKind, Subject};
use crate::pool::health::CheckState;
use crate::pool::{Backend, Pool};
use crate::server::alarms::Alarms;
use crate::server::{Server, lock_of, state_file};
use crate::snapshot::Snapshot;

/// The state of the process at one moment.
#[derive(Default)]
pub(super) struct Present {
    alarms: Alarms,
    /// The last configuration that was read is not in force.
    reload_refused: bool,
    /// What the shared store does not do; empty: it works, or there is none.
    store_complaint: String,
    /// Entries of stick tables are to be shared, and the store is away.
    fleet_away: bool,
    now_ms: u64,
}

impl Present {
    /// The state of the process now.
    pub(super) fn of(server: &Server) -> Self {
        let (_, store_complaint) = server.store.place_and_complaint();
        Self {
            alarms: lock_of(&server.alarms).clone(),
            reload_refused: !lock_of(&server.reloads).last_accepted,
            store_complaint,
            fleet_away: server.store.fleet().is_away(),
            now_ms: clock::now_ms(),
        }
    }

    /// True if the condition that this event has begun goes on.
    pub(super) fn has(&self, begun: &Event, snapshot: &Snapshot) -> bool {
        let About { pool, backend, listener, subject } = begun.about();
        let is_there = pool.is_none_or(|name| {
            snapshot.pool(name).is_some() || snapshot.stick_tables().any(|(table, _)| table == name)
        });
        if !is_there || listener.is_some_and(|name| snapshot.listener(name).is_none()) {
            return false;
        }
        if let Some((pool, backend)) = pool.zip(backend) {
            let known =
                snapshot.pool(pool).and_then(|pool| Some((pool, pool.backends().get(pool.index_of(backend)?)?)));
            return known.is_some_and(|(pool, backend)| self.has_of_backend(begun.kind, pool, backend));
        }
        match begun.kind {
            EventKind::FileFailed if subject == Some(Subject::StateFile) => state_file::has_place(&snapshot.config),
            EventKind::FileFailed if subject == Some(Subject::StickTableFile) => {
                snapshot.config.process.stick_table_file.is_some()
            }
            EventKind::StoreDown => snapshot.config.store.is_some() && !self.store_complaint.is_empty(),
            EventKind::FleetDown => self.fleet_away,
            EventKind::ReloadRefused => self.reload_refused,
            _ => self.alarms.lasts(begun).unwrap_or(true),
        }
    }

    fn has_of_backend(&self, kind: EventKind, pool: &Pool, backend: &Backend) -> bool {
        let is_checked = pool.config().check.is_some();
        match kind {
            EventKind::Down => is_checked && backend.standing() == CheckState::Down,
            EventKind::Damped => is_checked && backend.damped(),
            EventKind::Ejected => backend.ejection().until_ms > i64::try_from(self.now_ms).unwrap_or(i64::MAX),
            EventKind::Drain | EventKind::DrainForgotten => backend.draining(),
            EventKind::Drained => backend.drained(self.now_ms),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admission::Admission;
    use crate::pool::AdminState;
    use crate::snapshot::LoadedFiles;

    /// A snapshot with these backends and this check, after another one.
    fn snapshot(backends: &[&str], check: &str, before: Option<&Snapshot>) -> Snapshot {
        let backends: String = backends
            .iter()
            .enumerate()
            .map(|(port, name)| format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"127.0.0.1:{}\"\n", port + 1))
            .collect();
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"web\"\n\
             [[pool]]\nname = \"web\"\n{backends}[pool.check]\n{check}\n"
        );
        let checked = crate::config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
        Snapshot::build(config, LoadedFiles::default(), before, 1, &Arc::new(Admission::new(9)))
    }

    fn of(kind: EventKind, backend: &str) -> Event {
        Event::new(kind, "text").of_backend("web", backend)
    }

    const TCP: &str = "kind = \"tcp\"\nfall = 1\nrise = 1";

    #[test]
    fn a_backend_that_is_removed_or_not_checked_any_more_is_not_down() {
        let before = snapshot(&["a", "b"], TCP, None);
        let pool = &before.pools[0];
        let rules = pool.config().check.as_ref().unwrap();
        pool.backends()[0].checked(Err("no answer"), rules, pool.config().on_marked_down, 1);
        let has = |kind, snapshot: &Snapshot| Present::default().has(&of(kind, "a"), snapshot);
        assert!(has(EventKind::Down, &before) && !has(EventKind::Damped, &before));
        assert!(
            !Present::default().has(&of(EventKind::Down, "b"), &before),
            "it has come up without an event in the ring"
        );
        assert!(has(EventKind::Down, &snapshot(&["a", "b"], TCP, Some(&before))), "another generation");
        assert!(!has(EventKind::Down, &snapshot(&["b"], TCP, Some(&before))), "it has left");
        assert!(!has(EventKind::Down, &snapshot(&["a", "b"], "kind = \"off\"", Some(&before))), "no check");
    }

    #[test]
    fn a_drain_and_an_ejection_go_on_as_long_as_the_backend_has_them() {
        let snapshot = snapshot(&["a", "b", "c"], TCP, None);
        let pool = &snapshot.pools[0];
        assert!(pool.order("a", AdminState::Drain, 1_000));
        assert!((0..3).any(|_| pool.connect_failed(&pool.backends()[1], 1_000).is_some()));
        let at = |now_ms, kind, backend| Present { now_ms, ..Present::default() }.has(&of(kind, backend), &snapshot);
        assert!(at(2_000, EventKind::Drain, "a") && !at(2_000, EventKind::Drained, "a"));
        assert!(at(2_000, EventKind::Ejected, "b") && !at(1_000_000_000, EventKind::Ejected, "b"));
        assert!(at(1_000_000_000, EventKind::Drained, "a"));
        assert!(pool.order("a", AdminState::Ready, 3_000));
        assert!(!at(4_000, EventKind::Drain, "a") && !at(4_000, EventKind::DrainForgotten, "a"));
    }

    #[test]
    fn a_file_that_the_configuration_does_not_have_any_more_does_not_go_on_failing() {
        let mut snapshot = snapshot(&["a"], TCP, None);
        let has = |snapshot: &Snapshot| {
            [Subject::StateFile, Subject::StickTableFile]
                .map(|subject| Present::default().has(&Event::new(EventKind::FileFailed, "text").of(subject), snapshot))
        };
        let mut place = |table: Option<&str>, socket: Option<&str>| {
            let mut config = (*snapshot.config).clone();
            config.process.stick_table_file = table.map(Into::into);
            config.process.admin.socket = socket.map(Into::into);
            snapshot.config = Arc::new(config);
            has(&snapshot)
        };
        assert_eq!(place(Some("/run/table"), None), [true, true]);
        assert_eq!(place(None, Some("/run/admin.sock")), [true, false], "it stands beside the socket");
        assert_eq!(place(None, None), [false, false]);
    }

    #[test]
    fn what_a_new_process_does_not_know_and_what_the_configuration_does_not_have_is_over() {
        let (snapshot, present) = (snapshot(&["a"], TCP, None), Present::default());
        let event = |kind| Event::new(kind, "text");
        for begun in [
            event(EventKind::Limit),
            event(EventKind::Limit).of_listener("l"),
            event(EventKind::Limit).of_listener("l").of(Subject::Sources),
            event(EventKind::TableFull).of_pool("web"),
            event(EventKind::AcceptPaused),
            event(EventKind::LogLost).of(Subject::DroppedLines),
            event(EventKind::LogLost).of(Subject::RefusedLines),
            event(EventKind::StoreDown),
            event(EventKind::ReloadRefused),
            of(EventKind::Down, "gone"),
            event(EventKind::FileFailed).of_pool("gone"),
        ] {
            assert!(!present.has(&begun, &snapshot), "{begun:?}");
        }
        let complains = Present { store_complaint: "timed out".into(), reload_refused: true, ..Present::default() };
        assert!(complains.has(&event(EventKind::ReloadRefused), &snapshot));
        assert!(!complains.has(&event(EventKind::StoreDown), &snapshot), "the configuration has no store any more");
        assert!(present.has(&event(EventKind::FileFailed).of(Subject::StateFile), &snapshot));
    }
}
