//! [`PoolChanges`]: which reloads have changed which pools, so that a move is explained by one that can have caused it;
//! and [`weight_events`]: backends with another weight.
//!
//! Compares configurations; moves no client. Invariant: of each pool at most the last [`CHANGES_MAX`] changes are known,
//! and none without an event in the ring.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::config::{self, Config, diff};
use crate::events::{Event, EventKind};
use crate::outcome::BreakCause;
use crate::pool::Backend;
use crate::pool::health::CheckState;
use crate::snapshot::Snapshot;

/// Most changes that are known of one pool.
const CHANGES_MAX: usize = 16;

/// Most events of weights in one reload; others are in its text alone.
const WEIGHTS_MAX: usize = 10;

/// The changes of all pools by reloads of this process, and what it has begun with.
#[derive(Debug, Default)]
pub(super) struct PoolChanges {
    by_pool: BTreeMap<String, VecDeque<PoolChange>>,
    /// Pools with more changes than are known.
    forgotten: BTreeSet<String>,
    /// `None`: the process has not begun yet.
    begun: Option<BegunWith>,
}

/// The backends with which a process has begun.
#[derive(Debug)]
struct BegunWith {
    /// Number of the event of the start.
    event: u64,
    /// Conditions by pool and backend, each as the kind of the event that begins it; no backend without one.
    conditions: BTreeMap<String, BTreeMap<String, Vec<EventKind>>>,
}

/// What one reload has changed of a pool, as far as it moves clients.
#[derive(Debug, Default)]
struct PoolChange {
    /// Number of the event of the reload.
    event: u64,
    /// Backends that have left.
    removed: Vec<String>,
    /// Backends at another address: what was found of the one before does not count.
    readdressed: Vec<String>,
    /// The pool has no checks any more.
    unchecked: bool,
    /// The pool was not there before: its clients come from pools that are gone.
    is_new: bool,
    ranges: bool,
    /// Placement, but for weights that have an event of their own.
    placement: bool,
}

impl PoolChange {
    /// `has_weights`: weights have events of their own.
    fn between(before: &config::Pool, after: &config::Pool, has_weights: bool) -> Self {
        let now: BTreeMap<_, _> = after.backends.iter().map(|backend| (&backend.name, &backend.address)).collect();
        let (mut removed, mut readdressed) = (Vec::new(), Vec::new());
        for backend in &before.backends {
            match now.get(&backend.name) {
                None => removed.push(backend.name.clone()),
                Some(address) if **address != backend.address => readdressed.push(backend.name.clone()),
                Some(_) => {}
            }
        }
        Self {
            event: 0,
            removed,
            readdressed,
            unchecked: before.check.is_some() && after.check.is_none(),
            is_new: false,
            ranges: before.ranges != after.ranges,
            placement: placed_by(before, !has_weights) != placed_by(after, !has_weights),
        }
    }

    /// True if it may have moved a client, or has made a condition of a backend end.
    fn counts(&self) -> bool {
        let Self { removed, readdressed, unchecked, is_new, ranges, placement, .. } = self;
        !removed.is_empty() || !readdressed.is_empty() || *unchecked || *is_new || *ranges || *placement
    }

    /// True if a client that had the backend `from` may have moved for this cause because of the change.
    fn explains(&self, cause: BreakCause, from: Option<&str>) -> bool {
        let has_left = |name: &str| self.removed.iter().any(|removed| removed == name);
        match cause {
            BreakCause::Removed => self.is_new || from.map_or(!self.removed.is_empty(), has_left),
            BreakCause::Range => self.ranges || self.is_new,
            BreakCause::Moved => self.placement || self.is_new,
            _ => false,
        }
    }

    /// True if no condition counts any more that an event of this kind had begun of a backend before.
    fn has_reset(&self, kind: EventKind, backend: &str) -> bool {
        let names = |list: &[String]| list.iter().any(|name| name == backend);
        let is_gone = self.is_new || names(&self.removed);
        match condition_of(kind) {
            // A drain follows the name.
            EventKind::Drain => is_gone,
            EventKind::Ejected => is_gone || names(&self.readdressed),
            _ => is_gone || names(&self.readdressed) || self.unchecked,
        }
    }
}

/// The kind of event that begins the condition.
fn condition_of(kind: EventKind) -> EventKind {
    match kind {
        EventKind::Drained | EventKind::DrainForgotten => EventKind::Drain,
        kind => kind,
    }
}

/// The conditions of a backend now.
fn conditions_of(backend: &Backend, now_ms: u64) -> Vec<EventKind> {
    let is_ejected = backend.ejection().until_ms > i64::try_from(now_ms).unwrap_or(i64::MAX);
    let conditions = [
        (EventKind::Down, backend.standing() == CheckState::Down),
        (EventKind::Damped, backend.damped()),
        (EventKind::Ejected, is_ejected),
        (EventKind::Drain, backend.draining()),
    ];
    conditions.into_iter().filter_map(|(kind, goes_on)| goes_on.then_some(kind)).collect()
}

/// What decides where keys of a pool belong.
fn placed_by(pool: &config::Pool, with_weights: bool) -> impl PartialEq + '_ {
    let backends = pool.backends.iter().map(move |backend| {
        let weight = with_weights.then_some(backend.weight);
        (&backend.name, &backend.location, backend.backup, weight)
    });
    let key = (&pool.key, pool.prefix_v4, pool.prefix_v6, pool.hash_seed);
    let on_add = pool.stick_table.map(|rules| rules.on_add);
    (pool.balance, key, on_add, &pool.ranges, backends.collect::<Vec<_>>())
}

impl PoolChanges {
    /// Notes what the process has begun with. `event`: the number of the event of its start.
    pub(super) fn begin(&mut self, snapshot: &Snapshot, event: u64, now_ms: u64) {
        let of_pool = |backends: &[Arc<Backend>]| -> BTreeMap<_, _> {
            let all = backends.iter().map(|backend| (backend.name().to_owned(), conditions_of(backend, now_ms)));
            all.filter(|(_, conditions)| !conditions.is_empty()).collect()
        };
        let pools = snapshot.pools.iter().map(|pool| (pool.name().to_owned(), of_pool(pool.backends())));
        self.begun = Some(BegunWith { event, conditions: pools.collect() });
    }

    /// False if the event is one of a process before, and this one has not begun with its condition: the backend has
    /// another address, say.
    pub(super) fn goes_on_here(&self, begun: &Event, pool: &str, backend: &str) -> bool {
        let Some(BegunWith { event, conditions }) = &self.begun else { return true };
        let known = || conditions.get(pool)?.get(backend);
        begun.id > *event || known().is_some_and(|known| known.contains(&condition_of(begun.kind)))
    }

    /// Notes what a reload has changed. `event`: the number of its event; `oldest`: that of the first event of the ring;
    /// `weights`: the events of weights.
    pub(super) fn note(&mut self, old: &Config, new: &Config, event: u64, oldest: u64, weights: &[Event]) {
        let before = old.pools_by_name();
        for after in &new.pools {
            let has_weights = || weights.iter().any(|event| event.pool.as_deref() == Some(&*after.name));
            let change = match before.get(after.name.as_str()) {
                Some(before) if *before == after => continue,
                Some(before) => PoolChange::between(before, after, has_weights()),
                None => PoolChange { is_new: true, ..PoolChange::default() },
            };
            if change.counts() {
                let changes = self.by_pool.entry(after.name.clone()).or_default();
                changes.push_back(PoolChange { event, ..change });
                if changes.len() > CHANGES_MAX {
                    changes.pop_front();
                    self.forgotten.insert(after.name.clone());
                }
            }
        }
        self.by_pool.retain(|_, changes| {
            changes.retain(|change| change.event >= oldest);
            !changes.is_empty()
        });
        // The start has left the ring before the last of these changes.
        self.forgotten.retain(|pool| self.by_pool.contains_key(pool));
    }

    /// True if this process has changed a pool more often than is known.
    pub(super) fn has_forgotten(&self, pool: &str) -> bool {
        self.forgotten.contains(pool)
    }

    /// The last reload before a move that can have caused it, by the number of its event. `is_before`: whether the event
    /// of a number was before the move.
    pub(super) fn behind(
        &self,
        pool: &str,
        cause: BreakCause,
        from: Option<&str>,
        is_before: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let changes = self.by_pool.get(pool)?.iter().rev();
        changes.filter(|change| change.explains(cause, from)).map(|change| change.event).find(|event| is_before(*event))
    }

    /// True if the event of this number is a reload after which no condition counts that an event of this kind had begun
    /// of a backend before.
    pub(super) fn has_reset(&self, event: u64, kind: EventKind, pool: &str, backend: &str) -> bool {
        let mut changes = self.by_pool.get(pool).into_iter().flatten();
        changes.any(|change| change.event == event && change.has_reset(kind, backend))
    }
}

/// An event for each backend that has another weight than before, with both.
pub(super) fn weight_events(old: &Config, new: &Config) -> Vec<Event> {
    let mut events = Vec::new();
    for (before, after) in diff::common_pools(old, new).filter(|(before, after)| before.backends != after.backends) {
        let weights: BTreeMap<_, _> = before.backends.iter().map(|known| (&known.name, known.weight)).collect();
        let differs = |backend: &&config::Backend| weights.get(&backend.name).is_some_and(|was| *was != backend.weight);
        let changed: Vec<_> = after.backends.iter().filter(differs).collect();
        if events.len() + changed.len() > WEIGHTS_MAX {
            // All of a pool or none, so that the reload is known to be the cause of what has no event.
            continue;
        }
        events.extend(changed.into_iter().map(|backend| {
            let (pool, name, was, is) = (&after.name, &backend.name, weights[&backend.name], backend.weight);
            let text = format!("backend {pool}/{name}: weight {was} -> {is}, by a reload");
            Event::new(EventKind::Weight, &text).of_backend(pool, name)
        }));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Backends with their weights.
    type Weights<'w> = &'w [(&'w str, u16)];

    /// A configuration of these pools: name, keys and backends.
    fn config(pools: &[(&str, &str, Weights<'_>)]) -> Config {
        let mut text = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"{}\"\n", pools[0].0);
        for (pool, keys, backends) in pools {
            text += &format!("[[pool]]\nname = \"{pool}\"\n{keys}\n");
            for (backend, weight) in *backends {
                text +=
                    &format!("[[pool.backend]]\nname = \"{backend}\"\naddress = \"127.0.0.1:1\"\nweight = {weight}\n");
            }
        }
        let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        checked.unwrap_or_else(|problems| panic!("{problems:?}")).config
    }

    const TWO: Weights<'_> = &[("a", 1), ("b", 1)];
    const RANGE: &str = "range = [{ name = \"r\", cidr = \"192.0.2.0/24\", pin = [\"a\"] }]";

    /// The number of the reload behind a move for this cause from `a` of pool `web`, after this reload alone.
    fn behind(old: &Config, new: &Config, cause: BreakCause) -> Option<u64> {
        let mut changes = PoolChanges::default();
        changes.note(old, new, 7, 1, &weight_events(old, new));
        changes.behind("web", cause, Some("a"), |_| true)
    }

    #[test]
    fn a_reload_explains_moves_of_the_pools_that_it_has_changed_and_of_no_other() {
        let of = |web: &[(&str, u16)], mail: &[(&str, u16)]| config(&[("web", "", web), ("mail", "", mail)]);
        let old = of(TWO, TWO);
        let causes = [BreakCause::Removed, BreakCause::Range, BreakCause::Moved];
        let explains = |new: &Config| causes.map(|cause| behind(&old, new, cause).is_some());
        assert_eq!(explains(&of(TWO, &[("a", 1)])), [false; 3], "another pool");
        assert_eq!(explains(&of(&[("b", 1)], TWO)), [true, false, true]);
        assert_eq!(explains(&of(&[("a", 1)], TWO)), [false, false, true], "another backend has left");
        assert_eq!(explains(&of(&[("a", 1), ("b", 1), ("c", 1)], TWO)), [false, false, true]);
        let slow = config(&[("web", "connect_timeout = \"9s\"\nconnect_budget = \"9s\"", TWO), ("mail", "", TWO)]);
        assert_eq!(explains(&slow), [false; 3], "no client moves because of a time");
        assert_eq!(explains(&of(&[("a", 3), ("b", 1)], TWO)), [false; 3], "a weight has an event of its own");
        assert_eq!(
            behind(&config(&[("old", "", TWO)]), &old, BreakCause::Removed),
            Some(7),
            "a pool with another name"
        );
    }

    #[test]
    fn the_last_change_before_a_move_counts_and_what_left_the_ring_is_forgotten() {
        let [one, two, three] = [&[("a", 1)][..], TWO, &[("a", 1), ("b", 1), ("c", 1)]];
        let [one, two, three] = [one, two, three].map(|backends| config(&[("web", "", backends)]));
        let mut changes = PoolChanges::default();
        changes.note(&one, &two, 10, 1, &[]);
        changes.note(&two, &two, 15, 1, &[]);
        changes.note(&two, &three, 20, 1, &[]);
        let behind =
            |changes: &PoolChanges, most: u64| changes.behind("web", BreakCause::Moved, None, |event| event <= most);
        assert_eq!(
            [5, 10, 19, 20, 99].map(|most| behind(&changes, most)),
            [None, Some(10), Some(10), Some(20), Some(20)]
        );
        changes.note(&three, &three, 30, 11, &[]);
        assert_eq!(behind(&changes, 19), None);
        for event in 31..90 {
            let (old, new) = if event % 2 == 0 { (&two, &three) } else { (&three, &two) };
            changes.note(old, new, event, 11, &[]);
        }
        assert_eq!(changes.by_pool["web"].len(), CHANGES_MAX);
        changes.note(&two, &two, 90, 90, &[]);
        assert!(changes.by_pool.is_empty());
    }

    #[test]
    fn a_reload_resets_what_was_found_of_backends_that_it_replaces_or_checks_no_more_and_keeps_drains() {
        use EventKind::{Damped, Down, Drain, DrainForgotten, Drained, Ejected};
        let of = |backends: &[(&str, u16)]| config(&[("web", "", backends)]);
        let old = of(TWO);
        // Whether a kind ends, of each of the backends.
        let resets_from = |old: &Config, new: &Config, kind| {
            let mut changes = PoolChanges::default();
            changes.note(old, new, 7, 1, &[]);
            assert!(!changes.has_reset(6, kind, "web", "a") && !changes.has_reset(7, kind, "mail", "a"));
            ["a", "b"].map(|backend| changes.has_reset(7, kind, "web", backend))
        };
        let mut moved = old.clone();
        moved.pools[0].backends[1].address = config::Address::Unix("/run/b".into());
        let mut unchecked = old.clone();
        unchecked.pools[0].check = None;
        for (kind, by_address, by_check) in [
            (Down, true, true),
            (Damped, true, true),
            (Ejected, true, false),
            (Drain, false, false),
            (Drained, false, false),
            (DrainForgotten, false, false),
        ] {
            let resets = |new: &Config| resets_from(&old, new, kind);
            assert_eq!(resets(&of(&[("a", 1), ("b", 1), ("c", 1)])), [false; 2], "{kind:?}");
            assert_eq!(resets(&of(&[("b", 1)])), [true, false], "{kind:?}");
            assert_eq!(resets(&moved), [false, by_address], "{kind:?}");
            assert_eq!(resets(&unchecked), [by_check; 2], "{kind:?}");
            let renamed = config(&[("mail", "", TWO)]);
            assert_eq!(resets_from(&renamed, &old, kind), [true; 2], "{kind:?}");
        }
    }

    #[test]
    fn a_process_goes_on_with_the_drain_that_it_has_begun_with() {
        let admission = Arc::new(crate::admission::Admission::new(9));
        let config = config(&[("web", "", TWO)]);
        let snapshot = Snapshot::build(config, crate::snapshot::LoadedFiles::default(), None, 1, &admission);
        assert!(snapshot.pools[0].order("a", crate::pool::AdminState::Drain, 1_000));
        let event = |id, kind, backend| Event { id, ..Event::new(kind, "text").of_backend("web", backend) };
        let mut changes = PoolChanges::default();
        let goes_on =
            |changes: &PoolChanges, id, kind, backend| changes.goes_on_here(&event(id, kind, backend), "web", backend);
        assert!(goes_on(&changes, 3, EventKind::Drain, "b"), "nothing is known before the start");
        changes.begin(&snapshot, 5, 2_000);
        for kind in [EventKind::Drain, EventKind::Drained, EventKind::DrainForgotten] {
            assert!(goes_on(&changes, 3, kind, "a") && !goes_on(&changes, 3, kind, "b"), "{kind:?}");
            assert!(goes_on(&changes, 6, kind, "b"), "of this process: {kind:?}");
        }
        assert!(!goes_on(&changes, 3, EventKind::Ejected, "a") && !goes_on(&changes, 3, EventKind::Down, "a"));
    }

    #[test]
    fn a_weight_is_an_event_from_and_to_of_its_backend() {
        let of = |a: u16, b: u16| config(&[("web", "", &[("a", a), ("b", b)]), ("mail", "", TWO)]);
        assert!(weight_events(&of(1, 1), &of(1, 1)).is_empty());
        let events = weight_events(&of(1, 1), &of(3, 0));
        let texts: Vec<_> = events.iter().map(|event| &*event.text).collect();
        assert_eq!(texts, ["backend web/a: weight 1 -> 3, by a reload", "backend web/b: weight 1 -> 0, by a reload"]);
        assert_eq!((events[1].kind, events[1].pool.as_deref()), (EventKind::Weight, Some("web")));
        assert_eq!(events[1].backend.as_deref(), Some("b"));
        let added = config(&[("web", "", &[("a", 1), ("b", 1), ("c", 9)]), ("mail", "", TWO)]);
        assert!(weight_events(&of(1, 1), &added).is_empty(), "a new backend has no weight before");
    }

    #[test]
    fn with_very_many_weights_the_reload_is_the_event() {
        let names: Vec<_> = (0..=WEIGHTS_MAX).map(|index| format!("b{index}")).collect();
        let of = |weight| {
            let backends: Vec<_> = names.iter().map(|name| (name.as_str(), weight)).collect();
            config(&[("web", "", &backends)])
        };
        let (old, new) = (of(1), of(2));
        assert!(weight_events(&old, &new).is_empty());
        assert_eq!(behind(&old, &new, BreakCause::Moved), Some(7));
        // Reloads that change many weights leave room in the ring for what has happened before.
        let of = |weight| {
            let six: Vec<_> = names[..6].iter().map(|name| (name.as_str(), weight)).collect();
            config(&[("web", "", &six), ("mail", "", &six)])
        };
        assert_eq!(weight_events(&of(1), &of(2)).len(), 6);
    }

    #[test]
    fn another_range_explains_a_client_that_it_moved() {
        let [old, new] = ["", RANGE].map(|keys| config(&[("web", keys, TWO)]));
        assert_eq!(behind(&old, &new, BreakCause::Range), Some(7));
    }
}
