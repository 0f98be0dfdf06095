//! [`EventRing`]: the last [`EVENTS_MAX`] events of the process: backends up and down, drains, reloads, limits, the
//! store.
//!
//! Decides no event: the place that writes the message about it notes the event, so one rule decides both. Nothing is
//! noted for one connection or request. Invariants: a ring holds at most [`EVENTS_MAX`] events, the longest of less than
//! 1 KiB, so at most 10 MB, and as a rule 2 MB; a number of an event is never used twice, over upgrades too; no text has
//! a control character; an event of another process that cannot be read costs no other one.

mod kept;
mod kind;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub use self::kept::KeptEvents;
pub use self::kind::{EventKind, Subject};

use crate::http::date::rfc3339;
use crate::remote_text::one_line;

/// Most events that a ring holds.
pub const EVENTS_MAX: usize = 10_000;

/// How many numbers the next process leaves out: those of events that this one still notes, for its own readers, while
/// it finishes connections.
const HANDOVER_GAP: u64 = 10_000;

/// Most upgrades of which the numbers that were left out are known. Events that older ones left out count as missed.
const LEFT_OUT_MAX: usize = 64;

/// Most bytes of a text; the rest is cut off.
const TEXT_MAX: usize = 500;

/// Most bytes of the name of a pool, a backend or a listener.
const NAME_MAX: usize = 128;

/// The events of this process.
static EVENTS: EventRing = EventRing::new();

/// The ring of this process.
pub fn ring() -> &'static EventRing {
    &EVENTS
}

/// Notes an event of this process, and returns its number. `unix_ms`: now, in milliseconds since 1970.
pub fn note(unix_ms: u64, event: Event) -> u64 {
    EVENTS.note(unix_ms, event)
}

/// Logs the text of an event as a warning about the process, and notes the event.
pub fn warn(unix_ms: u64, event: Event) {
    tracing::warn!("{}", event.text);
    note(unix_ms, event);
}

/// Logs the text of an event as a message about the process, and notes the event.
pub fn info(unix_ms: u64, event: Event) {
    tracing::info!("{}", event.text);
    note(unix_ms, event);
}

/// Something that happened to the process, or to a part of it. A field that another version does not give has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Number of the event; later ones have higher numbers.
    pub id: u64,
    /// When it happened, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What happened.
    pub kind: EventKind,
    /// Pool that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Box<str>>,
    /// Backend of that pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Box<str>>,
    /// Listener that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Box<str>>,
    /// What the event is about beside these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// One sentence for operators.
    pub text: Box<str>,
}

impl Event {
    /// An event about the process as a whole; number and time are given when it is noted.
    pub fn new(kind: EventKind, text: &str) -> Self {
        Self { kind, text: cut(one_line(text), TEXT_MAX), ..Self::default() }
    }

    /// The same event about a pool.
    #[must_use]
    pub fn of_pool(self, pool: &str) -> Self {
        Self { pool: Some(cut(pool.into(), NAME_MAX)), ..self }
    }

    /// The same event about a backend.
    #[must_use]
    pub fn of_backend(self, pool: &str, backend: &str) -> Self {
        Self { backend: Some(cut(backend.into(), NAME_MAX)), ..self.of_pool(pool) }
    }

    /// The same event about a listener.
    #[must_use]
    pub fn of_listener(self, listener: &str) -> Self {
        Self { listener: Some(cut(listener.into(), NAME_MAX)), ..self }
    }

    /// The same event about a subject.
    #[must_use]
    pub fn of(self, subject: Subject) -> Self {
        Self { subject: Some(subject), ..self }
    }

    /// What the event is about.
    pub fn about(&self) -> About<'_> {
        let Self { pool, backend, listener, subject, .. } = self;
        About { pool: pool.as_deref(), backend: backend.as_deref(), listener: listener.as_deref(), subject: *subject }
    }

    /// True if this event has begun a condition that `later` ends.
    pub fn is_ended_by(&self, later: &Self) -> bool {
        let is_counterpart = self.kind.ended_by().contains(&later.kind) && self.about() == later.about();
        is_counterpart || (later.kind == EventKind::Start && self.kind.ends_with_its_process())
    }
}

/// What an event is about: an event ends only the condition that is about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct About<'e> {
    /// Name of the pool.
    pub pool: Option<&'e str>,
    /// Name of the backend.
    pub backend: Option<&'e str>,
    /// Name of the listener.
    pub listener: Option<&'e str>,
    /// What it is beside these.
    pub subject: Option<Subject>,
}

/// An event as operators get it: the time as text, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatedEvent {
    /// When it happened: UTC, RFC 3339, milliseconds.
    pub time: String,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl From<Event> for DatedEvent {
    fn from(event: Event) -> Self {
        Self { time: rfc3339(event.unix_ms), event }
    }
}

/// Events after a number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// Since when events are kept: UTC, RFC 3339. Another time than before: the numbers began again.
    pub since: String,
    /// Number of the last event of the ring: what to ask for next.
    pub next: u64,
    /// Events after the number that the ring does not hold any more.
    pub missed: u64,
    /// The events, the oldest first.
    pub events: Vec<DatedEvent>,
}

/// The last events, at most [`EVENTS_MAX`].
#[derive(Debug)]
pub struct EventRing {
    held: Mutex<HeldEvents>,
    changed: Notify,
}

#[derive(Debug)]
struct HeldEvents {
    since_unix_ms: u64,
    /// Number of the last event.
    last: u64,
    events: VecDeque<Event>,
    /// Events that came from the process before; they stand first.
    taken_over: usize,
    /// Numbers that no event has, as first and last, in order: an upgrade leaves some out.
    left_out: VecDeque<[u64; 2]>,
}

impl HeldEvents {
    fn push(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
            self.taken_over = self.taken_over.saturating_sub(1);
        }
        self.last += 1;
        self.events.push_back(Event { id: self.last, ..event });
    }

    /// Events after a number that the ring does not hold any more.
    fn missed(&self, after: u64) -> u64 {
        let first = self.events.front().map_or(self.last + 1, |event| event.id);
        let gone = after.saturating_add(1)..first;
        let common = |[from, to]: &[u64; 2]| (to + 1).min(gone.end).saturating_sub((*from).max(gone.start));
        let left_out: u64 = self.left_out.iter().map(common).sum();
        gone.end.saturating_sub(gone.start).saturating_sub(left_out)
    }
}

impl Default for EventRing {
    fn default() -> Self {
        Self::new()
    }
}

impl EventRing {
    /// A ring without events, which takes memory as events come.
    pub const fn new() -> Self {
        let held =
            HeldEvents { since_unix_ms: 0, last: 0, events: VecDeque::new(), taken_over: 0, left_out: VecDeque::new() };
        Self { held: Mutex::new(held), changed: Notify::const_new() }
    }

    /// Adds an event, which gets its time and its number, and returns the number; the oldest one goes if there is no room.
    pub fn note(&self, unix_ms: u64, event: Event) -> u64 {
        let mut held = self.held();
        if held.since_unix_ms == 0 {
            held.since_unix_ms = unix_ms;
        }
        held.push(Event { unix_ms, ..event });
        let number = held.last;
        drop(held);
        self.changed.notify_waiters();
        number
    }

    /// The events after a number that `wanted` lets through.
    pub fn page(&self, after: u64, wanted: impl Fn(&Event) -> bool) -> EventPage {
        let held = self.held();
        let later = held.events.iter().filter(|event| event.id > after && wanted(event));
        EventPage {
            since: rfc3339(held.since_unix_ms),
            next: held.last,
            missed: held.missed(after),
            events: later.cloned().map(DatedEvent::from).collect(),
        }
    }

    /// Number of the oldest event of the ring; 0: it holds none.
    pub fn oldest(&self) -> u64 {
        self.held().events.front().map_or(0, |event| event.id)
    }

    /// The last events, at most `most`, the oldest first.
    pub fn latest(&self, most: usize) -> Vec<DatedEvent> {
        let held = self.held();
        held.events.iter().skip(held.events.len().saturating_sub(most)).cloned().map(DatedEvent::from).collect()
    }

    /// Every event of the ring, the oldest first.
    pub fn all(&self) -> Vec<Event> {
        self.held().events.iter().cloned().collect()
    }

    /// Returns when an event is noted after a number; at once if there is one.
    pub async fn noted_after(&self, after: u64) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that an event between the two is not missed.
            changed.as_mut().enable();
            if self.held().last > after {
                return;
            }
            changed.await;
        }
    }

    /// A copy for the process that follows this one.
    pub fn kept(&self) -> KeptEvents {
        let held = self.held();
        KeptEvents::of(held.since_unix_ms, held.events.clone(), held.left_out.clone())
    }

    /// Puts the events of the process before in front of those of this one, which get new, higher numbers. A second call, with
    /// what happened there meanwhile, replaces the first.
    pub fn take_over(&self, kept: KeptEvents) {
        let KeptEvents { since_unix_ms, events, mut left_out, .. } = kept;
        let Some(last) = events.back().map(|event| event.id) else { return };
        let mut held = self.held();
        let taken_over = held.taken_over;
        let own: Vec<_> = held.events.drain(..).skip(taken_over).collect();
        let begins = events.len().saturating_sub(EVENTS_MAX);
        let events: VecDeque<_> = events.into_iter().skip(begins).collect();
        left_out.push_back([last + 1, last + HANDOVER_GAP]);
        left_out.drain(..left_out.len().saturating_sub(LEFT_OUT_MAX));
        let (last, taken_over) = (last + HANDOVER_GAP, events.len());
        *held = HeldEvents { since_unix_ms, last, events, taken_over, left_out };
        own.into_iter().for_each(|event| held.push(event));
        drop(held);
        self.changed.notify_waiters();
    }

    fn held(&self) -> MutexGuard<'_, HeldEvents> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most so many bytes of a text, with a mark where it was cut.
fn cut(text: Cow<'_, str>, most: usize) -> Box<str> {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn down(backend: &str) -> Event {
        Event::new(EventKind::Down, "backend is down: connection refused").of_backend("web", backend)
    }

    fn ids(page: &EventPage) -> Vec<u64> {
        page.events.iter().map(|dated| dated.event.id).collect()
    }

    #[test]
    fn events_have_numbers_and_times_and_are_read_from_a_number_on() {
        let ring = EventRing::new();
        assert_eq!(ring.page(0, |_| true), EventPage { since: rfc3339(0), ..EventPage::default() });
        for (at, backend) in ["a", "b", "a"].into_iter().enumerate() {
            ring.note(1_709_251_199_999 + at as u64, down(backend));
        }
        let page = ring.page(1, |_| true);
        assert_eq!((ids(&page), page.next, page.missed), (vec![2, 3], 3, 0));
        assert_eq!((&*page.since, &*page.events[0].time), ("2024-02-29T23:59:59.999Z", "2024-03-01T00:00:00.000Z"));
        let of_a = ring.page(0, |event| event.backend.as_deref() == Some("a"));
        assert_eq!((ids(&of_a), of_a.next), (vec![1, 3], 3));
        assert!(ring.page(3, |_| true).events.is_empty());
        assert_eq!((ring.latest(2), ring.latest(9).len()), (ring.page(1, |_| true).events, 3));
    }

    #[test]
    fn a_full_ring_loses_the_oldest_and_says_how_many_were_missed() {
        let ring = EventRing::new();
        for number in 0..EVENTS_MAX + 5 {
            ring.note(number as u64 + 1, down("a"));
        }
        let page = ring.page(2, |_| true);
        assert_eq!((page.events.len(), page.missed, page.next), (EVENTS_MAX, 3, EVENTS_MAX as u64 + 5));
        assert_eq!(ring.page(0, |_| false).missed, 5, "of all kinds");
        assert_eq!(page.events[0].event.id, 6);
        assert_eq!(page.since, rfc3339(1), "since when they are kept is no time of an event");
        assert_eq!(ring.page(5, |_| true).missed, 0);
    }

    #[test]
    fn a_text_is_bounded_and_on_one_line() {
        let long = format!("no\n\u{1b}[2J{}", "ü".repeat(1_000));
        let event = Event::new(EventKind::Down, &long).of_backend(&"p".repeat(1_000), "b").of_listener(&long);
        let [text, pool, listener] =
            [Some(&event.text), event.pool.as_ref(), event.listener.as_ref()].map(Option::unwrap);
        assert!(text.starts_with("no\\n\\u{1b}[2Jü") && text.ends_with('…'), "{text}");
        for (text, most) in [(text, TEXT_MAX), (pool, NAME_MAX), (listener, NAME_MAX)] {
            assert!(text.len() <= most + '…'.len_utf8(), "{}", text.len());
        }
        let bytes = size_of::<Event>() + text.len() + 3 * (NAME_MAX + '…'.len_utf8());
        assert!(bytes < 1_024, "{bytes} bytes are the most of one event");
    }

    #[test]
    fn a_condition_is_ended_by_its_counterpart_for_the_same_backend_alone() {
        let up = |backend: &str| Event::new(EventKind::Up, "backend is up").of_backend("web", backend);
        assert!(down("a").is_ended_by(&up("a")));
        assert!(!down("a").is_ended_by(&up("b")) && !up("a").is_ended_by(&down("a")));
        assert!(!down("a").is_ended_by(&Event::new(EventKind::Up, "")));
    }

    #[test]
    fn conditions_of_one_kind_and_listener_are_told_apart_by_their_subject() {
        let event = |kind| Event::new(kind, "").of_listener("web");
        let of_sources = |kind| event(kind).of(Subject::Sources);
        assert!(event(EventKind::Limit).is_ended_by(&event(EventKind::LimitLeft)));
        assert!(of_sources(EventKind::Limit).is_ended_by(&of_sources(EventKind::LimitLeft)));
        assert!(!event(EventKind::Limit).is_ended_by(&of_sources(EventKind::LimitLeft)));
        assert!(!of_sources(EventKind::Limit).is_ended_by(&event(EventKind::LimitLeft)));
        let json = serde_json::to_value(of_sources(EventKind::Limit)).unwrap();
        assert_eq!(
            (&json["subject"], serde_json::from_value(json.clone()).ok()),
            (&"sources".into(), Some(of_sources(EventKind::Limit)))
        );
        let later: Event = serde_json::from_str(r#"{"id":1,"kind":"limit","subject":"of another version"}"#).unwrap();
        assert_eq!(later.subject, Some(Subject::Other));
    }

    #[test]
    fn a_new_process_ends_the_conditions_that_only_a_process_has() {
        let start = Event::new(EventKind::Start, "ready");
        for kind in EventKind::ALL.iter().filter(|kind| kind.ends_with_its_process()) {
            assert!(!kind.ended_by().is_empty(), "{}", kind.word());
            assert!(Event::new(*kind, "").of_listener("web").is_ended_by(&start), "{}", kind.word());
        }
        assert!(!down("a").is_ended_by(&start), "an upgrade takes over what checks have found");
    }

    #[test]
    fn every_kind_has_its_own_word_in_json_too() {
        let mut words: Vec<_> = EventKind::ALL.iter().map(|kind| kind.word()).collect();
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert_eq!(EventKind::of_word(kind.word()), Some(*kind));
            assert!(kind.meaning().ends_with('.'), "{}", kind.word());
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), EventKind::ALL.len());
        assert_eq!(EventKind::of_word("other"), None);
        assert_eq!(serde_json::from_str::<EventKind>("\"of another version\"").unwrap(), EventKind::Other);
    }

    #[test]
    fn the_next_process_goes_on_with_the_events_and_their_numbers() {
        let (before, after) = (EventRing::new(), EventRing::new());
        before.note(5, down("a"));
        before.note(6, down("b"));
        after.note(7, Event::new(EventKind::Start, "own"));
        let document = serde_json::to_string(&before.kept()).unwrap();
        after.take_over(serde_json::from_str(&document).unwrap());
        let page = after.page(0, |_| true);
        assert_eq!((ids(&page), page.next, &*page.since), (vec![1, 2, 10_003], 10_003, &*rfc3339(5)));
        // What has happened there until the commit comes with a second document.
        before.note(8, down("c"));
        after.take_over(before.kept());
        let page = after.page(0, |_| true);
        let texts: Vec<_> = page.events.iter().map(|dated| (dated.event.id, dated.event.unix_ms)).collect();
        assert_eq!(texts, [(1, 5), (2, 6), (3, 8), (10_004, 7)]);
        // What that process notes while it finishes connections has a number of its own.
        before.note(9, down("d"));
        assert_eq!(ids(&before.page(3, |_| true)), [4]);
        after.take_over(KeptEvents::default());
        assert_eq!(after.page(0, |_| true), page, "a process of an older version gives none");
    }

    #[test]
    fn numbers_that_an_upgrade_leaves_out_are_no_events_that_were_missed() {
        let (first, second, third) = (EventRing::new(), EventRing::new(), EventRing::new());
        first.note(1, down("a"));
        first.note(2, down("b"));
        second.note(3, down("c"));
        second.take_over(first.kept());
        third.note(4, down("d"));
        third.take_over(serde_json::from_str(&serde_json::to_string(&second.kept()).unwrap()).unwrap());
        assert_eq!(ids(&third.page(0, |_| true)), [1, 2, 10_003, 20_004]);
        for number in 0..EVENTS_MAX as u64 - 2 {
            third.note(5 + number, down("e"));
        }
        let page = third.page(0, |_| true);
        assert_eq!((page.missed, page.events[0].event.id), (2, 10_003));
        assert_eq!([1, 2, 5, 10_002].map(|after| third.page(after, |_| true).missed), [1, 0, 0, 0]);
        third.note(99_999, down("f"));
        assert_eq!([0, 1, 5, 10_003, 20_000].map(|after| third.page(after, |_| true).missed), [3, 2, 1, 0, 0]);
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_next_event_and_misses_none() {
        let ring = EventRing::new();
        ring.note(1, down("a"));
        ring.noted_after(0).await;
        let wait = async {
            ring.noted_after(1).await;
            ids(&ring.page(1, |_| true))
        };
        let note = async {
            tokio::task::yield_now().await;
            ring.note(2, down("b"));
        };
        let (seen, ()) =
            tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(wait, note) }).await.unwrap();
        assert_eq!(seen, [2]);
    }
}
