//! [`Alarms`]: conditions that cost clients something and that no connection's own line in the log shows.
//!
//! Counts nothing itself: it compares the counts of others, tick by tick. Invariant: a condition is named in the log
//! once when it begins and once when it is over, however often it recurs in between, and in the status as long as it
//! lasts.

use std::collections::BTreeMap;
use std::io;

use crate::config::LogOutput;
use crate::events::{Event, EventKind, Subject};

/// A connection limit is left when no connection was refused a permit for this time, in milliseconds.
const LIMIT_QUIET_MS: u64 = 5_000;
/// The same for lines that the access log drops while its output takes too little.
const LOG_QUIET_MS: u64 = 5_000;
/// The same for descriptors, and for lines that the output refuses.
const OTHER_QUIET_MS: u64 = 60_000;
/// A stick table is full for this time after it lost an entry.
const TABLE_QUIET_MS: u64 = 600_000;

/// A condition that lasts while its count grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Episode {
    active: bool,
    /// How often the condition has begun.
    times: u64,
    count: u64,
    count_before: u64,
    seen_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EpisodeChange {
    Began,
    /// Ended, after the count grew by so much.
    Ended(u64),
}

impl Episode {
    /// True while the condition lasts.
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// How often the condition has begun.
    pub(super) fn times(&self) -> u64 {
        self.times
    }

    /// Compares the count with that of the tick before. `lasts`: the condition goes on, although nothing was counted.
    fn observe(&mut self, count: u64, lasts: bool, quiet_ms: u64, now_ms: u64) -> Option<EpisodeChange> {
        let before = std::mem::replace(&mut self.count, count);
        if count > before || (self.active && lasts) {
            self.seen_ms = now_ms;
        }
        match self.active {
            false if count > before => {
                (self.active, self.times, self.count_before) = (true, self.times + 1, before);
                Some(EpisodeChange::Began)
            }
            true if now_ms.saturating_sub(self.seen_ms) >= quiet_ms => {
                self.active = false;
                Some(EpisodeChange::Ended(count.saturating_sub(self.count_before)))
            }
            _ => None,
        }
    }
}

/// A limit on connections at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitFacts {
    /// Permits that it has refused.
    pub(super) refused: u64,
    pub(super) open: usize,
    pub(super) max: usize,
}

/// What the alarms look at in one tick.
pub(super) struct AlarmFacts<'f> {
    pub(super) process: LimitFacts,
    /// Each listener with its name.
    pub(super) listeners: Vec<(&'f str, LimitFacts)>,
    /// How often accepting paused because no descriptor was free.
    pub(super) descriptors: u64,
    /// Connections of sources that were refused at a limit of their own, for each listener that has refused one.
    pub(super) sources: Vec<(&'f str, u64)>,
    /// Each stick table that has lost entries for want of room, with its name and their number.
    pub(super) stick_tables: Vec<(&'f str, u64)>,
    pub(super) log: LogLosses,
}

/// Lines that the access log has lost so far.
#[derive(Debug, Default)]
pub(super) struct LogLosses {
    /// Records dropped because the output took too little.
    pub(super) dropped: u64,
    /// Lines that the output refused.
    pub(super) lost: u64,
    /// Why it refused the last of them.
    pub(super) error: Option<io::Error>,
    /// The output takes too little now.
    pub(super) is_stalled: bool,
    pub(super) output: LogOutput,
}

impl LogLosses {
    /// Why lines were lost, for the status; empty if none was.
    pub(super) fn complaint(&self) -> String {
        match (&self.error, self.dropped) {
            (Some(error), _) => error.to_string(),
            (None, 0) => String::new(),
            (None, _) => self.too_slow(),
        }
    }

    fn too_slow(&self) -> String {
        match &self.output {
            LogOutput::Stdout => "standard output is read too slowly".to_owned(),
            output => format!("{output} takes them too slowly"),
        }
    }
}

/// A line for the log, and an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AlarmLine {
    /// True if the condition has ended.
    pub(super) is_over: bool,
    pub(super) event: Event,
}

/// The conditions and how long they have lasted.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarms {
    process: Episode,
    listeners: BTreeMap<String, Episode>,
    sources: BTreeMap<String, Episode>,
    descriptors: Episode,
    stick_tables: BTreeMap<String, Episode>,
    log_dropped: Episode,
    log_lost: Episode,
}

impl Alarms {
    /// Whether the process is at its limit of connections.
    pub(super) fn process(&self) -> Episode {
        self.process
    }

    /// Whether a listener is at its limit of connections.
    pub(super) fn listener(&self, name: &str) -> Episode {
        self.listeners.get(name).copied().unwrap_or_default()
    }

    /// Whether a stick table loses entries for want of room.
    pub(super) fn stick_table(&self, name: &str) -> Episode {
        self.stick_tables.get(name).copied().unwrap_or_default()
    }

    /// True while a condition lasts that an alarm has begun with this event; `None`: the event is not of an alarm.
    pub(super) fn lasts(&self, begun: &Event) -> Option<bool> {
        let of = |episodes: &BTreeMap<String, Episode>, name: Option<&str>| {
            name.and_then(|name| episodes.get(name)).copied().unwrap_or_default()
        };
        let about = begun.about();
        let episode = match (begun.kind, about.subject) {
            (EventKind::Limit, Some(Subject::Sources)) => of(&self.sources, about.listener),
            (EventKind::Limit, _) if about.listener.is_some() => of(&self.listeners, about.listener),
            (EventKind::Limit, _) => self.process,
            (EventKind::AcceptPaused, _) => self.descriptors,
            (EventKind::TableFull, _) => of(&self.stick_tables, about.pool),
            (EventKind::LogLost, Some(Subject::RefusedLines)) => self.log_lost,
            (EventKind::LogLost, _) => self.log_dropped,
            _ => return None,
        };
        Some(episode.is_active())
    }

    /// Looks at everything once, and returns what is to be said.
    pub(super) fn observe(&mut self, facts: &AlarmFacts<'_>, now_ms: u64) -> Vec<AlarmLine> {
        let mut lines = Lines(Vec::new());
        lines.limit(&mut self.process, None, facts.process, now_ms);
        self.listeners = kept(&mut self.listeners, &facts.listeners);
        for (name, limit) in &facts.listeners {
            let episode = self.listeners.entry((*name).to_owned()).or_default();
            lines.limit(episode, Some(*name), *limit, now_ms);
        }
        self.sources = kept(&mut self.sources, &facts.sources);
        for (name, refused) in &facts.sources {
            let change = self.sources.entry((*name).to_owned()).or_default();
            lines.add(
                change.observe(*refused, false, LIMIT_QUIET_MS, now_ms),
                [EventKind::Limit, EventKind::LimitLeft],
                |event| event.of_listener(name).of(Subject::Sources),
                || format!("listener {name:?}: a source is at its limit of connections, and further ones are refused"),
                |count| {
                    format!("listener {name:?}: no source is at its limit any more; {count} connections were refused")
                },
            );
        }
        lines.add(
            self.descriptors.observe(facts.descriptors, false, OTHER_QUIET_MS, now_ms),
            [EventKind::AcceptPaused, EventKind::AcceptResumed],
            |event| event,
            || "no descriptor was free: accepting pauses until a connection closes (see LimitNOFILE)".to_owned(),
            |times| format!("descriptors are free again; accepting had paused {times} times"),
        );
        self.stick_tables = kept(&mut self.stick_tables, &facts.stick_tables);
        for (name, lost) in &facts.stick_tables {
            let change = self.stick_tables.entry((*name).to_owned()).or_default();
            lines.add(
                change.observe(*lost, false, TABLE_QUIET_MS, now_ms),
                [EventKind::TableFull, EventKind::TableRoom],
                |event| event.of_pool(name),
                || format!("stick table {name:?} is full and loses entries; a larger stick_table keeps their clients"),
                |count| format!("stick table {name:?} has lost no entry for ten minutes; {count} were lost"),
            );
        }
        self.log(facts, now_ms, &mut lines);
        lines.0
    }

    fn log(&mut self, facts: &AlarmFacts<'_>, now_ms: u64, lines: &mut Lines) {
        lines.add(
            self.log_dropped.observe(facts.log.dropped, facts.log.is_stalled, LOG_QUIET_MS, now_ms),
            [EventKind::LogLost, EventKind::LogWritten],
            |event| event.of(Subject::DroppedLines),
            || format!("access log: lines are dropped, because {}", facts.log.too_slow()),
            |count| format!("access log: lines are not dropped any more; {count} were"),
        );
        let why = facts.log.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        lines.add(
            self.log_lost.observe(facts.log.lost, false, OTHER_QUIET_MS, now_ms),
            [EventKind::LogLost, EventKind::LogWritten],
            |event| event.of(Subject::RefusedLines),
            || format!("access log: lines are lost, because {} does not take them{why}", facts.log.output),
            |count| format!("access log: lines are not lost any more; {count} were"),
        );
    }
}

/// The conditions of what still has facts, by name.
fn kept<T>(before: &mut BTreeMap<String, Episode>, facts: &[(&str, T)]) -> BTreeMap<String, Episode> {
    facts.iter().filter_map(|(name, _)| before.remove_entry(*name)).collect()
}

struct Lines(Vec<AlarmLine>);

impl Lines {
    fn add(
        &mut self,
        change: Option<EpisodeChange>,
        [begins, ends]: [EventKind; 2],
        about: impl FnOnce(Event) -> Event,
        began: impl FnOnce() -> String,
        ended: impl FnOnce(u64) -> String,
    ) {
        let Some(change) = change else { return };
        let (is_over, event) = match change {
            EpisodeChange::Began => (false, Event::new(begins, &began())),
            EpisodeChange::Ended(count) => (true, Event::new(ends, &ended(count))),
        };
        self.0.push(AlarmLine { is_over, event: about(event) });
    }

    /// The limit of a listener; `None`: that of the process.
    fn limit(&mut self, episode: &mut Episode, listener: Option<&str>, limit: LimitFacts, now_ms: u64) {
        let LimitFacts { refused, open, max } = limit;
        let name = listener.map_or_else(String::new, |name| format!("listener {name:?}: ")) + "max_connections";
        self.add(
            episode.observe(refused, open >= max, LIMIT_QUIET_MS, now_ms),
            [EventKind::Limit, EventKind::LimitLeft],
            |event| match listener {
                Some(listener) => event.of_listener(listener),
                None => event,
            },
            || format!("{name} is reached, {max} connections: new clients wait in the backlog"),
            |_| format!("{name} is left, {open} of {max} connections"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> AlarmFacts<'static> {
        let limit = LimitFacts { refused: 0, open: 0, max: 10 };
        AlarmFacts {
            process: limit,
            listeners: vec![("web", limit)],
            descriptors: 0,
            sources: vec![],
            stick_tables: vec![("web", 0)],
            log: LogLosses::default(),
        }
    }

    fn texts(lines: Vec<AlarmLine>) -> Vec<(bool, String)> {
        lines.into_iter().map(|line| (line.is_over, line.event.text.into())).collect()
    }

    #[test]
    fn a_limit_is_said_when_it_is_reached_and_when_it_is_left_and_not_in_between() {
        let mut alarms = Alarms::default();
        let mut at = |refused: u64, open: usize, now_ms: u64| {
            let limit = LimitFacts { refused, open, max: 2 };
            let lines = alarms.observe(&AlarmFacts { listeners: vec![("web", limit)], ..facts() }, now_ms);
            (texts(lines), alarms.listener("web").is_active())
        };
        assert_eq!(at(0, 2, 0), (vec![], false), "full, but no client was refused");
        let reached = "listener \"web\": max_connections is reached, 2 connections: new clients wait in the backlog";
        assert_eq!(at(3, 2, 500), (vec![(false, reached.to_owned())], true));
        for (refused, open, now_ms) in [(9, 2, 1_000), (9, 2, 20_000), (9, 1, 20_500), (12, 1, 24_000), (12, 0, 28_900)]
        {
            assert_eq!(at(refused, open, now_ms), (vec![], true), "{now_ms}");
        }
        let left = "listener \"web\": max_connections is left, 1 of 2 connections";
        assert_eq!(at(12, 1, 29_000), (vec![(true, left.to_owned())], false));
        assert_eq!(at(13, 2, 40_000).0.len(), 1, "again");
        assert_eq!(alarms.listener("web").times(), 2);
        assert_eq!(alarms.process(), Episode::default(), "another limit is not touched");
        alarms.observe(&AlarmFacts { listeners: vec![], ..facts() }, 40_500);
        assert_eq!(alarms.listener("web").times(), 0, "a listener that is gone is forgotten");
    }

    #[test]
    fn what_a_slow_output_has_cost_is_said_once_when_it_takes_lines_again() {
        let mut alarms = Alarms::default();
        let mut at = |dropped: u64, is_stalled: bool, now_ms: u64| {
            let output = LogOutput::File("/var/log/a.log".into());
            let log = LogLosses { dropped, is_stalled, output, ..LogLosses::default() };
            texts(alarms.observe(&AlarmFacts { log, ..facts() }, now_ms))
        };
        let begun = "access log: lines are dropped, because /var/log/a.log takes them too slowly".to_owned();
        assert_eq!(at(256, true, 500), [(false, begun)]);
        // No line comes for minutes, and the output still takes none.
        for now_ms in [1_000, 60_000, 300_000] {
            assert!(at(512, true, now_ms).is_empty(), "{now_ms}");
        }
        assert!(at(512, false, 304_000).is_empty());
        let over = "access log: lines are not dropped any more; 512 were".to_owned();
        assert_eq!(at(512, false, 305_000), [(true, over)]);
        assert!(at(512, false, 306_000).is_empty());
    }

    #[test]
    fn a_line_is_an_event_about_its_listener_or_table_and_sources_have_one_per_listener() {
        let mut alarms = Alarms::default();
        let limit = LimitFacts { refused: 0, open: 0, max: 2 };
        let mut at = |refused: u64, sources: u64, now_ms: u64| {
            let listeners = vec![("web", LimitFacts { refused, ..limit })];
            let sources = if sources > 0 { vec![("web", sources)] } else { vec![] };
            let facts =
                AlarmFacts { process: limit, listeners, sources, stick_tables: vec![("web", refused)], ..facts() };
            let lines = alarms.observe(&facts, now_ms);
            lines.into_iter().map(|line| (line.event.kind, line.event.listener, line.event.pool)).collect::<Vec<_>>()
        };
        let web = || Some(Box::from("web"));
        assert!(at(0, 0, 0).is_empty());
        let begun =
            [(EventKind::Limit, web(), None), (EventKind::Limit, web(), None), (EventKind::TableFull, None, web())];
        assert_eq!(at(1, 3, 500), begun);
        assert!(at(1, 9, 1_000).is_empty(), "a limit of sources is said once, however many are refused");
        let ended = [(EventKind::LimitLeft, web(), None), (EventKind::LimitLeft, web(), None)];
        assert_eq!(at(1, 9, 1_000 + LIMIT_QUIET_MS), ended);
    }

    #[test]
    fn the_end_of_one_condition_is_not_the_end_of_another_of_its_kind() {
        let mut alarms = Alarms::default();
        let mut at = |listener: u64, sources: u64, dropped: u64, lost: u64, now_ms: u64| {
            let limit = LimitFacts { refused: listener, open: 0, max: 2 };
            let log = LogLosses { dropped, lost, ..LogLosses::default() };
            let facts = AlarmFacts { listeners: vec![("web", limit)], sources: vec![("web", sources)], log, ..facts() };
            let lines = alarms.observe(&facts, now_ms).into_iter();
            (lines.map(|line| line.event).collect::<Vec<_>>(), alarms.clone())
        };
        let (begun, alarms_then) = at(1, 1, 1, 1, 500);
        assert_eq!(begun.len(), 4, "{begun:?}");
        assert!(begun.iter().all(|event| alarms_then.lasts(event) == Some(true)));
        // The listener and the queue have room again; a source and the output do not.
        let (ended, alarms_then) = at(1, 9, 1, 9, 500 + LIMIT_QUIET_MS);
        assert_eq!(ended.len(), 2, "{ended:?}");
        for begin in &begun {
            let is_over = ended.iter().any(|end| begin.is_ended_by(end));
            assert_eq!(alarms_then.lasts(begin), Some(!is_over), "{begin:?}");
        }
        let going_on: Vec<_> = begun.iter().filter(|event| alarms_then.lasts(event) == Some(true)).collect();
        let subjects: Vec<_> = going_on.iter().map(|event| event.subject).collect();
        assert_eq!(subjects, [Some(Subject::Sources), Some(Subject::RefusedLines)]);
        assert_eq!(alarms_then.lasts(&Event::new(EventKind::Down, "")), None);
        assert!(begun.iter().all(|event| Alarms::default().lasts(event) == Some(false)), "a new process knows none");
    }

    #[test]
    fn a_table_that_has_lost_nothing_is_not_kept_and_one_that_has_is_named_at_once() {
        let mut alarms = Alarms::default();
        let with = |stick_tables| AlarmFacts { stick_tables, ..facts() };
        assert!(alarms.observe(&with(vec![]), 0).is_empty());
        assert!(alarms.stick_tables.is_empty());
        assert_eq!(alarms.observe(&with(vec![("web", 1)]), 500).len(), 1);
        assert!(alarms.stick_table("web").is_active() && !alarms.stick_table("mail").is_active());
        assert!(alarms.observe(&with(vec![("mail", 0)]), 1_000).is_empty());
        assert_eq!(alarms.stick_tables.len(), 1, "a table that is gone is forgotten");
    }

    #[test]
    fn every_other_condition_is_said_once_with_its_reason_and_what_it_has_cost() {
        let mut alarms = Alarms::default();
        let full = || {
            let error = Some(rustix::io::Errno::NOSPC.into());
            AlarmFacts {
                process: LimitFacts { refused: 1, open: 10, max: 10 },
                descriptors: 4,
                stick_tables: vec![("web", 7)],
                log: LogLosses { dropped: 256, lost: 3, error, ..LogLosses::default() },
                ..facts()
            }
        };
        assert!(alarms.observe(&facts(), 0).is_empty());
        let said = texts(alarms.observe(&full(), 500));
        for part in ["max_connections is reached", "no descriptor", "\"web\" is full", "are dropped", "No space left"] {
            assert!(said.iter().any(|(is_over, text)| !is_over && text.contains(part)), "{part}: {said:?}");
        }
        assert_eq!(said.len(), 5, "{said:?}");
        assert!(alarms.stick_table("web").is_active() && alarms.process().is_active());
        let more = AlarmFacts { stick_tables: vec![("web", 9)], ..full() };
        assert!(alarms.observe(&more, 1_000).is_empty());
        let quiet = AlarmFacts {
            process: LimitFacts { refused: 1, open: 0, max: 10 },
            stick_tables: vec![("web", 9)],
            ..full()
        };
        let said = texts(alarms.observe(&quiet, 1_000 + TABLE_QUIET_MS));
        for part in ["is left, 0 of 10", "4 times", "9 were lost", "256 were", "3 were"] {
            assert!(said.iter().any(|(is_over, text)| *is_over && text.contains(part)), "{part}: {said:?}");
        }
        assert!(!alarms.stick_table("web").is_active() && !alarms.process().is_active());
    }
}
