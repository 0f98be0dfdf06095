//! [`explained`]: a move in words, with the event that is behind it.
//!
//! Guesses nothing: an event is named only if it was in force when the client moved and is about what the client left,
//! or if it is the reload that changed what placed the client. Invariant: where no such event is in the ring, the answer
//! says so.

use crate::admin::WhyMove;
use crate::client_history::NotedMove;
use crate::events::{Event, EventKind};
use crate::http::date::rfc3339;
use crate::outcome::BreakCause;
use crate::server::pool_changes::PoolChanges;

/// An event may be noted a little later than the move that it explains, and its end a little earlier: checks, reloads and
/// connections have clocks of their own.
const NEAR_MS: u64 = 1_000;

/// What is said where the ring may have held the event once.
const LOST: &str = "the event behind it is not in the ring of events any more";

/// What is behind a move.
enum Behind<'e> {
    Event(&'e Event),
    Words(String),
    /// The cause says everything.
    Nothing,
}

/// A move with the event that is behind it. `all`: the ring.
pub(super) fn explained(noted: &NotedMove, all: &[Event], changes: &PoolChanges) -> WhyMove {
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
    let because = match behind(noted, all, changes) {
        Behind::Event(event) => format!("{why} ({}: {})", rfc3339(event.unix_ms), event.text),
        Behind::Words(words) => format!("{why} ({words})"),
        Behind::Nothing => why,
    };
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

fn behind<'e>(noted: &NotedMove, all: &'e [Event], changes: &PoolChanges) -> Behind<'e> {
    use EventKind::{Damped, Down, Drain, DrainForgotten, Drained, Ejected, Ready, Returned, Up};
    let or = |event: Option<&'e Event>, words: &str| match event {
        Some(event) => Behind::Event(event),
        None => Behind::Words(if is_whole(all) { words } else { LOST }.to_owned()),
    };
    match noted.cause {
        BreakCause::Down => {
            let event = in_force(noted, all, changes, &[Down, Ejected, Damped]);
            or(event, "no event had it down then: a connection to it failed")
        }
        BreakCause::Drain => {
            let event = in_force(noted, all, changes, &[Drain, Drained, DrainForgotten]);
            or(event, "it was drained before this process began")
        }
        BreakCause::Returned => {
            let back = [Up, Returned, Ready];
            let event =
                before(noted, all).find(|event| back.contains(&event.kind) && is_of(event, noted, Some(&noted.to)));
            event.map_or(Behind::Nothing, Behind::Event)
        }
        BreakCause::Removed | BreakCause::Range | BreakCause::Moved => by_configuration(noted, all, changes),
        BreakCause::Full | BreakCause::Expired => Behind::Nothing,
    }
}

/// True if the ring has everything since the process, or the first of those that gave their events over, began. A process
/// that follows one which gave none notes that before its start.
fn is_whole(all: &[Event]) -> bool {
    let mut before_start = all.iter().take_while(|event| event.kind != EventKind::Start);
    all.first().is_some_and(|first| first.id == 1) && before_start.all(|event| event.kind != EventKind::Upgrade)
}

/// The change of the configuration before a move that can have caused it: a weight, a reload, or else the start of this
/// process with another configuration than that of the process before.
fn by_configuration<'e>(noted: &NotedMove, all: &'e [Event], changes: &PoolChanges) -> Behind<'e> {
    let is_weight = |event: &&Event| {
        noted.cause == BreakCause::Moved
            && event.kind == EventKind::Weight
            && event.pool.as_deref() == Some(&*noted.pool)
    };
    let weight = before(noted, all).find(is_weight);
    let of_number = |number| all.get(after(all, number).checked_sub(1)?).filter(|event| event.id == number);
    let is_before = |number| of_number(number).is_some_and(|event| event.unix_ms <= noted.unix_ms + NEAR_MS);
    let reload = changes.behind(&noted.pool, noted.cause, noted.from.as_deref(), is_before).and_then(of_number);
    if let Some(event) = weight.into_iter().chain(reload).max_by_key(|event| event.id) {
        return Behind::Event(event);
    }
    let Some(start) = all.iter().rposition(|event| event.kind == EventKind::Start) else {
        return Behind::Words(LOST.to_owned());
    };
    // A process does not know what the reloads of the one before have changed.
    let is_known = is_whole(all) && all[..start].iter().all(|event| !event.kind.is_of_configuration());
    Behind::Words(if is_known && !changes.has_forgotten(&noted.pool) {
        format!("no reload has done that: it is so since this process began, {}", rfc3339(all[start].unix_ms))
    } else {
        "no reload known to this process has done that".to_owned()
    })
}

/// The last event that had the backend of a move in one of these conditions when the client left it.
fn in_force<'e>(noted: &NotedMove, all: &'e [Event], changes: &PoolChanges, kinds: &[EventKind]) -> Option<&'e Event> {
    let backend = noted.from.as_deref()?;
    let at = |near_ms: u64| {
        let is_over = |begun: &Event| {
            let later = all[after(all, begun.id)..].iter();
            let mut between = later.filter(|later| later.unix_ms + near_ms < noted.unix_ms);
            !changes.goes_on_here(begun, &noted.pool, backend)
                || between.any(|later| {
                    begun.is_ended_by(later)
                        || later.kind.is_of_configuration()
                            && changes.has_reset(later.id, begun.kind, &noted.pool, backend)
                })
        };
        let has_begun = |event: &&Event| event.unix_ms <= noted.unix_ms + near_ms;
        let of_kind = |event: &&Event| kinds.contains(&event.kind) && is_of(event, noted, Some(backend));
        all.iter().rev().filter(has_begun).filter(of_kind).find(|begun| !is_over(begun))
    };
    // What was in force for certain goes before what may have been.
    [0, NEAR_MS].into_iter().find_map(at)
}

/// Where the events after this number begin.
fn after(all: &[Event], number: u64) -> usize {
    all.partition_point(|event| event.id <= number)
}

/// The events before a move, the last one first.
fn before<'e>(noted: &NotedMove, all: &'e [Event]) -> impl Iterator<Item = &'e Event> {
    let latest_ms = noted.unix_ms + NEAR_MS;
    all.iter().rev().filter(move |event| event.unix_ms <= latest_ms)
}

fn is_of(event: &Event, noted: &NotedMove, backend: Option<&str>) -> bool {
    event.pool.as_deref() == Some(&*noted.pool) && event.backend.as_deref() == backend
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::admission::Admission;
    use crate::config::{self, Config};
    use crate::snapshot::{LoadedFiles, Snapshot};

    fn event(id: u64, kind: EventKind, backend: &str) -> Event {
        Event { id, unix_ms: id * 10_000, ..Event::new(kind, &format!("text {id}")).of_backend("web", backend) }
    }

    fn plain(id: u64, kind: EventKind) -> Event {
        Event { id, unix_ms: id * 10_000, ..Event::new(kind, &format!("text {id}")) }
    }

    /// A move from `a` to `b` at 30 s, when the third event was noted.
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

    fn because(cause: BreakCause, all: &[Event]) -> String {
        explained(&noted(cause), all, &PoolChanges::default()).because
    }

    #[test]
    fn a_move_is_explained_by_the_last_event_about_its_backend_before_it() {
        let all = [
            event(1, EventKind::Down, "a"),
            event(2, EventKind::Drain, "a"),
            event(3, EventKind::Down, "c"),
            event(4, EventKind::Ejected, "a"),
        ];
        let down = explained(&noted(BreakCause::Down), &all, &PoolChanges::default());
        assert_eq!(down.because, "a could not serve (1970-01-01T00:00:10.000Z: text 1)", "not what came later");
        assert_eq!((down.from.as_deref(), &*down.to, &*down.cause), (Some("a"), "b", "down"));
        assert!(because(BreakCause::Drain, &all).ends_with("text 2)"));
        assert_eq!(because(BreakCause::Full, &all), "a had max_connections");
        let nameless = NotedMove { from: None, ..noted(BreakCause::Removed) };
        assert!(
            explained(&nameless, &all, &PoolChanges::default()).because.starts_with("its backend has left the pool")
        );
    }

    #[test]
    fn an_event_that_was_over_before_the_move_does_not_explain_it() {
        let start = plain(1, EventKind::Start);
        let over = [start, event(2, EventKind::Down, "a"), Event { unix_ms: 22_000, ..event(3, EventKind::Up, "a") }];
        let failed = "a could not serve (no event had it down then: a connection to it failed)";
        assert_eq!(because(BreakCause::Down, &over), failed);
        let again = [&over[..], &[Event { unix_ms: 25_000, ..event(4, EventKind::Ejected, "a") }]].concat();
        assert!(because(BreakCause::Down, &again).ends_with("text 4)"));
        let mut changes = PoolChanges::default();
        let checked = config(&[("a", 1), ("b", 1)]);
        let mut unchecked = checked.clone();
        unchecked.pools[0].check = None;
        changes.note(&checked, &unchecked, 3, 1, &[]);
        let reset = [&over[..2], &[Event { unix_ms: 22_000, ..plain(3, EventKind::Reload) }]].concat();
        assert_eq!(explained(&noted(BreakCause::Down), &reset, &changes).because, failed, "the checks were turned off");
        assert!(
            because(BreakCause::Down, &reset).ends_with("text 2)"),
            "by a reload of something else it is still down"
        );
        for kind in [EventKind::Drain, EventKind::Drained, EventKind::DrainForgotten] {
            let drained = [over[0].clone(), event(2, kind, "a"), reset[2].clone()];
            let because = explained(&noted(BreakCause::Drain), &drained, &changes).because;
            assert!(because.ends_with("text 2)"), "a drain outlives the checks: {because}");
        }
        let ejected = [event(1, EventKind::Ejected, "a"), event(2, EventKind::Down, "a"), over[2].clone()];
        assert!(because(BreakCause::Down, &ejected).ends_with("text 1)"), "one of two conditions is over");
        let near = [&over[..2], &[Event { unix_ms: 29_500, ..event(3, EventKind::Up, "a") }]].concat();
        assert!(because(BreakCause::Down, &near).ends_with("text 2)"), "it was down when the backend was picked");
        let drained = [
            plain(1, EventKind::Start),
            event(2, EventKind::Drain, "a"),
            Event { unix_ms: 22_000, ..event(3, EventKind::Ready, "a") },
        ];
        assert_eq!(because(BreakCause::Drain, &drained), "a was drained (it was drained before this process began)");
    }

    #[test]
    fn a_ring_that_has_lost_events_says_that_the_event_is_not_in_it() {
        let all = [event(2, EventKind::Up, "c"), event(3, EventKind::Reload, "c")];
        for cause in [BreakCause::Down, BreakCause::Drain, BreakCause::Removed, BreakCause::Range, BreakCause::Moved] {
            let because = because(cause, &all);
            assert!(because.ends_with("(the event behind it is not in the ring of events any more)"), "{because}");
        }
        assert_eq!(
            because(BreakCause::Expired, &all),
            "its cookie was too old, or dated too far in the future, to count"
        );
    }

    #[test]
    fn a_client_that_returned_did_so_when_its_backend_was_back() {
        let all = [event(1, EventKind::Up, "b"), event(2, EventKind::Up, "a"), event(4, EventKind::Up, "b")];
        assert!(
            because(BreakCause::Returned, &all).ends_with("on_return = \"return\" (1970-01-01T00:00:10.000Z: text 1)")
        );
    }

    fn config(backends: &[(&str, u16)]) -> Config {
        let mut text =
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"web\"\n[[pool]]\nname = \"web\"\n".to_owned();
        for (name, weight) in backends {
            text += &format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"127.0.0.1:1\"\nweight = {weight}\n");
        }
        let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        checked.unwrap_or_else(|problems| panic!("{problems:?}")).config
    }

    #[test]
    fn only_a_reload_that_changed_the_pool_explains_a_move_by_configuration() {
        let all = [
            plain(1, EventKind::Start),
            plain(2, EventKind::Reload),
            plain(3, EventKind::Reload),
            plain(4, EventKind::Reload),
        ];
        let (one, two) = (config(&[("b", 1)]), config(&[("a", 1), ("b", 1)]));
        let mut changes = PoolChanges::default();
        changes.note(&two, &one, 2, 1, &[]);
        changes.note(&one, &one, 3, 1, &[]);
        changes.note(&one, &two, 4, 1, &[]);
        let of = |cause, changes: &PoolChanges| explained(&noted(cause), &all, changes).because;
        assert!(
            of(BreakCause::Removed, &changes).ends_with("(1970-01-01T00:00:20.000Z: text 2)"),
            "not the last reload"
        );
        assert!(of(BreakCause::Moved, &changes).ends_with("text 2)"), "not one after the move");
        for cause in [BreakCause::Removed, BreakCause::Range, BreakCause::Moved] {
            let because = of(cause, &PoolChanges::default());
            let words = "(no reload has done that: it is so since this process began, 1970-01-01T00:00:10.000Z)";
            assert!(because.ends_with(words), "{because}");
        }
    }

    #[test]
    fn what_a_process_cannot_know_of_reloads_is_not_said() {
        let unknown = "(no reload known to this process has done that)";
        let upgraded = [plain(1, EventKind::Start), plain(2, EventKind::Reload), plain(3, EventKind::Start)];
        let because = because(BreakCause::Moved, &upgraded);
        assert!(because.ends_with(unknown), "another process has reloaded: {because}");
        let all = [plain(1, EventKind::Start), plain(2, EventKind::Reload)];
        let (one, two) = (config(&[("b", 1)]), config(&[("a", 1), ("b", 1)]));
        let mut changes = PoolChanges::default();
        for number in 100..120 {
            let (old, new) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
            changes.note(old, new, number, 1, &[]);
            let because = explained(&noted(BreakCause::Range), &all, &changes).because;
            assert_eq!(because.ends_with(unknown), number >= 116, "after {number}: {because}");
        }
    }

    #[test]
    fn a_process_with_a_store_knows_that_its_ring_is_whole() {
        let all = [plain(1, EventKind::StoreUp), plain(2, EventKind::Start)];
        let failed = "a could not serve (no event had it down then: a connection to it failed)";
        assert_eq!(because(BreakCause::Down, &all), failed);
        let follows = [plain(1, EventKind::Upgrade), plain(2, EventKind::Start)];
        assert!(because(BreakCause::Down, &follows).contains(LOST), "the process before has given no events");
    }

    #[test]
    fn a_process_goes_on_with_the_conditions_that_it_has_begun_with_and_with_no_other() {
        let all = [
            plain(1, EventKind::Start),
            event(2, EventKind::Down, "a"),
            Event { unix_ms: 29_500, ..plain(3, EventKind::Start) },
        ];
        let of = |snapshot: &Snapshot| {
            let mut changes = PoolChanges::default();
            changes.begin(snapshot, 3, 1_000);
            explained(&noted(BreakCause::Down), &all, &changes).because
        };
        let (config, admission) = (config(&[("a", 1), ("b", 1)]), Arc::new(Admission::new(9)));
        let snapshot = Snapshot::build(config, LoadedFiles::default(), None, 1, &admission);
        let pool = &snapshot.pools[0];
        assert!(of(&snapshot).contains("no event had it down then"), "it has another address now");
        let rules = config::Check { fall: 1, ..pool.config().check.clone().unwrap() };
        pool.backends()[0].checked(Err("no answer"), &rules, pool.config().on_marked_down, 1);
        assert!(of(&snapshot).ends_with("text 2)"), "it was down when this process began");
    }

    #[test]
    fn a_ring_full_of_one_flapping_backend_is_read_in_little_time() {
        let kind = |id| if id % 2 == 0 { EventKind::Down } else { EventKind::Up };
        let all: Vec<_> = (2..10_002).map(|id| Event { unix_ms: 1, ..event(id, kind(id), "a") }).collect();
        // Time that other threads have the core does not count.
        let seconds = || clock_gettime(ClockId::ThreadCPUTime).tv_sec;
        let begun = seconds();
        for _ in 0..40 {
            assert!(because(BreakCause::Down, &all).contains(LOST));
        }
        let taken = seconds() - begun;
        assert!(taken <= 2, "{taken} s");
    }

    #[test]
    fn a_weight_explains_a_key_that_moved() {
        let (old, new) = (config(&[("a", 1), ("b", 1)]), config(&[("a", 1), ("b", 3)]));
        let weights = crate::server::pool_changes::weight_events(&old, &new);
        let weight = Event { id: 2, unix_ms: 20_000, ..weights[0].clone() };
        let all = [plain(1, EventKind::Start), weight, Event { unix_ms: 20_000, ..plain(3, EventKind::Reload) }];
        let mut changes = PoolChanges::default();
        changes.note(&old, &new, 3, 1, &weights);
        let of = |cause, changes: &PoolChanges| explained(&noted(cause), &all, changes).because;
        let because = of(BreakCause::Moved, &changes);
        assert!(
            because.ends_with("(1970-01-01T00:00:20.000Z: backend web/b: weight 1 -> 3, by a reload)"),
            "{because}"
        );
        assert!(of(BreakCause::Range, &changes).contains("no reload has done that"));
        // A reload that also adds a backend says everything.
        changes.note(&old, &config(&[("a", 1), ("b", 3), ("c", 1)]), 3, 1, &weights);
        assert!(of(BreakCause::Moved, &changes).ends_with("text 3)"));
    }
}
