//! [`Concerns`]: which events concern a client, and which one is behind a move.
//!
//! Notes no event. Invariant: an event of another pool, backend or listener than the client's is not shown; one that
//! names none of them concerns every client.

use super::FoundClient;
use crate::admin::WhyMove;
use crate::client_history::NotedMove;
use crate::events::{DatedEvent, Event, EventKind};
use crate::http::date::rfc3339;
use crate::outcome::BreakCause;

/// Events of this time back are shown.
const RECENT_MS: u64 = 3_600_000;

/// Most recent events that are shown, and most conditions that go on.
const SHOWN_MAX: usize = 10;

/// An event may be noted a little later than the move that it explains: checks and connections have clocks of their own.
const LATER_MS: u64 = 1_000;

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

    /// Conditions that go on, and the latest events of the last hour, the oldest first.
    pub(super) fn events(&self, all: &[Event], now_unix_ms: u64) -> Vec<DatedEvent> {
        let own: Vec<_> = all.iter().filter(|event| self.include(event)).collect();
        let recent = own.iter().filter(|event| event.unix_ms + RECENT_MS >= now_unix_ms);
        let first_recent = recent.rev().nth(SHOWN_MAX - 1).map_or(0, |event| event.id);
        let going_on: Vec<_> = going_on(&own).iter().map(|event| event.id).collect();
        let is_shown = |event: &&&Event| {
            let is_recent = event.unix_ms + RECENT_MS >= now_unix_ms && event.id >= first_recent;
            is_recent || going_on.contains(&event.id)
        };
        own.iter().filter(is_shown).map(|event| DatedEvent::from((*event).clone())).collect()
    }
}

/// Conditions that an event has begun and no later one has ended, the latest ones.
pub(super) fn going_on<'e>(events: &[&'e Event]) -> Vec<&'e Event> {
    let mut begun: Vec<&Event> = Vec::new();
    for event in events {
        begun.retain(|earlier| !earlier.is_ended_by(event));
        if !event.kind.ended_by().is_empty() {
            if begun.len() >= SHOWN_MAX {
                begun.remove(0);
            }
            begun.push(event);
        }
    }
    begun
}

/// A move with the event that is behind it.
pub(super) fn explained(noted: &NotedMove, all: &[Event]) -> WhyMove {
    let (from, to) = (noted.from.as_deref(), &*noted.to);
    let had = from.unwrap_or("its backend");
    let why = match noted.cause {
        BreakCause::Down => format!("{had} could not serve"),
        BreakCause::Drain => format!("{had} was drained"),
        BreakCause::Removed => format!("{had} has left the pool, or the pool has another name"),
        BreakCause::Range => format!("the range of the client does not allow {had} any more"),
        BreakCause::Moved => "the list of backends has changed, and on_add = \"move\"".to_owned(),
        BreakCause::Returned => format!("{to} is back, and on_return = \"return\""),
        BreakCause::Full => format!("{had} had max_connections"),
        BreakCause::Expired => "its cookie was too old, or dated too far in the future, to count".to_owned(),
    };
    let because = event_behind(noted, all)
        .map_or(why.clone(), |event| format!("{why} ({}: {})", rfc3339(event.unix_ms), event.text));
    WhyMove {
        time: rfc3339(noted.unix_ms),
        pool: noted.pool.to_string(),
        from: from.map(str::to_owned),
        to: to.to_owned(),
        cause: noted.cause.word().to_owned(),
        because,
        connection: noted.connection,
    }
}

/// The last event before a move that has caused it.
fn event_behind<'e>(noted: &NotedMove, all: &'e [Event]) -> Option<&'e Event> {
    let kinds: &[EventKind] = match noted.cause {
        BreakCause::Down => &[EventKind::Down, EventKind::Ejected, EventKind::Damped],
        BreakCause::Drain => &[EventKind::Drain, EventKind::Drained, EventKind::DrainForgotten],
        BreakCause::Removed | BreakCause::Range | BreakCause::Moved => &[EventKind::Reload],
        BreakCause::Returned | BreakCause::Full | BreakCause::Expired => &[],
    };
    let is_of_backend = |event: &Event| {
        event.kind == EventKind::Reload
            || (event.pool.as_deref() == Some(&*noted.pool) && event.backend.as_deref() == noted.from.as_deref())
    };
    let mut earlier = all.iter().rev().filter(|event| event.unix_ms <= noted.unix_ms + LATER_MS);
    earlier.find(|event| kinds.contains(&event.kind) && is_of_backend(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, kind: EventKind, backend: &str) -> Event {
        Event { id, unix_ms: id * 10_000, ..Event::new(kind, &format!("text {id}")).of_backend("web", backend) }
    }

    fn noted(cause: BreakCause) -> NotedMove {
        NotedMove {
            unix_ms: 30_000,
            client: None,
            connection: 7,
            pool: "web".into(),
            from: Some("a".into()),
            to: "b".into(),
            cause,
            cookies: [None, None],
        }
    }

    #[test]
    fn a_move_is_explained_by_the_last_event_about_its_backend_before_it() {
        let all = [
            event(1, EventKind::Down, "a"),
            event(2, EventKind::Drain, "a"),
            event(3, EventKind::Down, "c"),
            event(4, EventKind::Ejected, "a"),
        ];
        let down = explained(&noted(BreakCause::Down), &all);
        assert_eq!(down.because, "a could not serve (1970-01-01T00:00:10.000Z: text 1)", "not what came later");
        assert_eq!((down.from.as_deref(), &*down.to, &*down.cause), (Some("a"), "b", "down"));
        assert!(explained(&noted(BreakCause::Drain), &all).because.ends_with("text 2)"));
        assert_eq!(explained(&noted(BreakCause::Full), &all).because, "a had max_connections");
        let nameless = NotedMove { from: None, ..noted(BreakCause::Removed) };
        assert!(explained(&nameless, &all).because.starts_with("its backend has left the pool"));
    }

    #[test]
    fn what_has_begun_and_not_ended_goes_on() {
        let all = [
            event(1, EventKind::Down, "a"),
            event(2, EventKind::Down, "b"),
            event(3, EventKind::Up, "a"),
            event(4, EventKind::Reload, "a"),
        ];
        let ids: Vec<_> = going_on(&all.iter().collect::<Vec<_>>()).iter().map(|event| event.id).collect();
        assert_eq!(ids, [2]);
    }

    #[test]
    fn events_of_other_pools_and_listeners_are_not_shown_and_old_ones_only_if_they_go_on() {
        let limit = Event::new(EventKind::Limit, "limit");
        let all = [
            event(1, EventKind::Down, "a"),
            event(2, EventKind::Up, "b"),
            Event { id: 500, unix_ms: 5_000_000, ..limit.clone().of_listener("l") },
            Event { id: 501, unix_ms: 5_000_000, ..limit.clone().of_listener("other") },
            Event { id: 502, unix_ms: 5_000_000, ..Event::new(EventKind::Up, "other").of_backend("other", "a") },
            Event { id: 503, unix_ms: 5_000_000, ..limit },
        ];
        let shown = |pools: &[&str], listeners: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let concerns = Concerns { pools: owned(pools), listeners: owned(listeners) };
            concerns.events(&all, 5_000_000).iter().map(|dated| dated.event.id).collect::<Vec<_>>()
        };
        assert_eq!(shown(&["web"], &["l"]), [1, 500, 503], "the first goes on, the second is old");
        assert_eq!(shown(&[], &[]), [1, 500, 501, 502, 503], "of an unknown client everything may be");
    }
}
