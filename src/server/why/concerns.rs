//! [`Concerns`]: which events concern a client, and which conditions go on.
//!
//! Notes no event. Invariants: an event of another pool, backend or listener than the client's is not shown; one that
//! names none of them concerns every client; what has ended is not said to go on, also if no event says that it ended.

use ahash::AHashSet;

use super::FoundClient;
use super::present::Present;
use crate::events::{DatedEvent, Event, EventKind};
use crate::snapshot::Snapshot;

/// Events of this time back are shown.
const RECENT_MS: u64 = 3_600_000;

/// Most recent events that are shown, and most conditions that go on.
const SHOWN_MAX: usize = 10;

/// What events may be about to concern a client; empty: nothing is known of it, and everything may.
pub(super) struct Concerns {
    /// Names of pools and of their stick tables.
    pools: Vec<String>,
    listeners: Vec<String>,
}

impl Concerns {
    /// Those of a client, and of the pool where it is.
    pub(super) fn of(found: &FoundClient, pool: Option<&str>) -> Self {
        let notes = &found.notes;
        let named = pool.map(str::to_owned).into_iter();
        let of_moves = notes.moves.iter().map(|noted| noted.pool.to_string());
        let of_endings = notes.endings.iter().filter_map(|noted| noted.pool.as_deref().map(str::to_owned));
        let of_cookie = found.cookie.iter().map(|cookie| cookie.shown.pool.clone());
        let mut pools: Vec<_> = named.chain(of_moves).chain(of_endings).chain(of_cookie).collect();
        let tables = pools.iter().filter_map(|name| Some(found.snapshot.pool(name)?.sticks_as().to_string()));
        let tables: Vec<_> = tables.collect();
        pools.extend(tables);
        let of_endings = notes.endings.iter().map(|noted| noted.listener.to_string());
        let listeners = found.connections.iter().map(|open| open.listener.clone()).chain(of_endings).collect();
        Self { pools, listeners }
    }

    fn include(&self, event: &Event) -> bool {
        let is_of = |names: &[String], name: Option<&str>| {
            name.is_none_or(|name| names.is_empty() || names.iter().any(|known| known == name))
        };
        is_of(&self.pools, event.pool.as_deref()) && is_of(&self.listeners, event.listener.as_deref())
    }

    /// The events that concern the client.
    pub(super) fn of_client<'e>(&self, all: &'e [Event]) -> Vec<&'e Event> {
        all.iter().filter(|event| self.include(event)).collect()
    }
}

/// Events of conditions that go on, and the latest ones of the last hour, the oldest first.
pub(super) fn shown(own: &[&Event], going_on: &[&Event], now_unix_ms: u64) -> Vec<DatedEvent> {
    let is_recent = |event: &&&Event| event.unix_ms + RECENT_MS >= now_unix_ms;
    let first_recent = own.iter().filter(is_recent).rev().nth(SHOWN_MAX - 1).map_or(0, |event| event.id);
    let is_shown = |event: &&&Event| {
        is_recent(event) && event.id >= first_recent || going_on.iter().any(|begun| begun.id == event.id)
    };
    own.iter().filter(is_shown).map(|event| DatedEvent::from((*event).clone())).collect()
}

/// Conditions that an event has begun and that go on, the latest ones, each once.
pub(super) fn going_on<'e>(events: &[&'e Event], present: &Present, snapshot: &Snapshot) -> Vec<&'e Event> {
    let mut begun = Vec::new();
    // From the last event back: what has happened later, and whether a process has begun since.
    let (mut later, mut is_of_another_process) = (AHashSet::new(), false);
    for event in events.iter().rev() {
        let about = event.about();
        let ends = event.kind.ended_by();
        let is_over = ends.iter().chain([&event.kind]).any(|kind| later.contains(&(*kind, about)))
            || is_of_another_process && event.kind.ends_with_its_process();
        if !ends.is_empty() && !is_over && present.has(event, snapshot) {
            begun.push(*event);
        }
        later.insert((event.kind, about));
        is_of_another_process |= event.kind == EventKind::Start;
        if begun.len() >= SHOWN_MAX {
            break;
        }
    }
    begun.reverse();
    begun
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Subject;
    use crate::pool::AdminState;

    fn event(id: u64, kind: EventKind, backend: &str) -> Event {
        Event { id, unix_ms: id * 10_000, ..Event::new(kind, &format!("text {id}")).of_backend("web", backend) }
    }

    /// A pool `web` with two backends that commands have drained, and a listener `l`.
    fn snapshot() -> Snapshot {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"web\"\n[[pool]]\nname = \"web\"\n\
                    backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n";
        let snapshot = Snapshot::of_text(text);
        ["a", "b"].iter().for_each(|name| assert!(snapshot.pools[0].order(name, AdminState::Drain, 1)));
        snapshot
    }

    fn ids_going_on(all: &[Event], snapshot: &Snapshot) -> Vec<u64> {
        let events: Vec<_> = all.iter().collect();
        going_on(&events, &Present::default(), snapshot).iter().map(|event| event.id).collect()
    }

    #[test]
    fn what_has_begun_and_not_ended_goes_on() {
        let all = [
            event(1, EventKind::Drain, "a"),
            event(2, EventKind::Drain, "b"),
            event(3, EventKind::Ready, "a"),
            event(4, EventKind::Reload, "a"),
        ];
        assert_eq!(ids_going_on(&all, &snapshot()), [2]);
        let again = [&all[..], &[event(5, EventKind::Drain, "a"), event(6, EventKind::Drain, "b")]].concat();
        assert_eq!(ids_going_on(&again, &snapshot()), [5, 6], "each once, by its last event");
        let many: Vec<_> = (0..30).map(|id| event(id, EventKind::DrainForgotten, "gone")).collect();
        assert!(ids_going_on(&many, &snapshot()).is_empty(), "the configuration does not have it any more");
    }

    #[test]
    fn a_new_process_ends_what_only_the_one_before_knew() {
        let of_process = |id, kind| Event { id, ..Event::new(kind, "text").of(Subject::StateFile) };
        let all = [
            of_process(1, EventKind::FileFailed),
            event(3, EventKind::Drain, "a"),
            of_process(4, EventKind::Start),
            of_process(5, EventKind::FileFailed),
        ];
        assert_eq!(ids_going_on(&all[..2], &snapshot()), [1, 3]);
        assert_eq!(ids_going_on(&all[..3], &snapshot()), [3], "a drain goes over an upgrade");
        assert_eq!(ids_going_on(&all, &snapshot()), [3, 5]);
    }

    #[test]
    fn events_of_other_pools_and_listeners_are_not_shown_and_old_ones_only_if_they_go_on() {
        let refused = Event::new(EventKind::FileFailed, "a file");
        let all = [
            event(1, EventKind::Drain, "a"),
            event(2, EventKind::Up, "b"),
            Event { id: 500, unix_ms: 5_000_000, ..refused.clone().of_listener("l") },
            Event { id: 501, unix_ms: 5_000_000, ..refused.clone().of_listener("other") },
            Event { id: 502, unix_ms: 5_000_000, ..Event::new(EventKind::Up, "other").of_backend("other", "a") },
            Event { id: 503, unix_ms: 5_000_000, ..refused },
        ];
        let ids = |pools: &[&str], listeners: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let concerns = Concerns { pools: owned(pools), listeners: owned(listeners) };
            let own = concerns.of_client(&all);
            let going_on = going_on(&own, &Present::default(), &snapshot());
            shown(&own, &going_on, 5_000_000).iter().map(|dated| dated.event.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&["web"], &["l"]), [1, 500, 503], "the first goes on, the second is old");
        assert_eq!(ids(&[], &[]), [1, 500, 501, 502, 503], "of an unknown client everything may be");
    }
}
