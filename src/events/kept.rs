//! [`KeptEvents`]: what a ring gives to the process that follows, as JSON that another version of this program may read.
//!
//! Notes no event. Invariants: an event that cannot be read is left out and counted, and costs no other one; numbers of
//! the events that were read rise.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Event;

/// Numbers from here on are made up: no ring has noted so many events.
const NUMBER_MAX: u64 = 1 << 60;

/// What a ring gives to the process that follows this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeptEvents {
    pub(super) since_unix_ms: u64,
    pub(super) events: VecDeque<Event>,
    /// Numbers that no event has, as first and last.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    pub(super) left_out: VecDeque<[u64; 2]>,
    /// Events that could not be read.
    #[serde(skip)]
    unread: usize,
}

/// The same as it is written, each event by itself.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenEvents {
    since_unix_ms: u64,
    events: Vec<Value>,
    left_out: Value,
}

impl KeptEvents {
    pub(super) fn of(since_unix_ms: u64, events: VecDeque<Event>, left_out: VecDeque<[u64; 2]>) -> Self {
        Self { since_unix_ms, events, left_out, unread: 0 }
    }

    /// How many events could not be read, and are left out.
    pub fn unread(&self) -> usize {
        self.unread
    }
}

impl<'de> Deserialize<'de> for KeptEvents {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let WrittenEvents { since_unix_ms, events: written, left_out } = WrittenEvents::deserialize(from)?;
        let mut kept = Self { since_unix_ms, ..Self::default() };
        for value in written {
            let last = kept.events.back().map_or(0, |event: &Event| event.id);
            // A list would be read as fields in their order.
            let event: Option<Event> =
                Some(value).filter(Value::is_object).and_then(|it| serde_json::from_value(it).ok());
            match event.filter(|event| event.id > last && event.id < NUMBER_MAX) {
                Some(event) => kept.events.push_back(event),
                None => kept.unread += 1,
            }
        }
        let left_out: VecDeque<[u64; 2]> = serde_json::from_value(left_out).unwrap_or_default();
        kept.left_out = left_out.into_iter().filter(|[from, to]| from <= to && *to < NUMBER_MAX).collect();
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventKind, EventRing};

    fn read(text: &str) -> KeptEvents {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_event_that_cannot_be_read_is_counted_and_costs_no_other_one() {
        let kept = read(
            r#"{"since_unix_ms":5,"events":[
                {"id":1,"unix_ms":6,"kind":"down","pool":"web","backend":"a","text":"first"},
                {"id":2,"unix_ms":"now","kind":"down","text":"a time that is none"},
                7, null, [], {}, {"unix_ms":7,"kind":"up","text":"without a number"},
                {"id":3,"unix_ms":8,"kind":{"down":1},"text":"a kind that is none"},
                {"id":4,"kind":"of the future","pool":"web","since":{"a":1}},
                {"id":4,"unix_ms":9,"kind":"up","text":"a number that is used"},
                {"id":18446744073709551615,"unix_ms":9,"kind":"up","text":"a number that is made up"},
                {"id":9,"unix_ms":10,"kind":"up","text":"last"}]}"#,
        );
        let ids: Vec<_> = kept.events.iter().map(|event| event.id).collect();
        assert_eq!((ids, kept.unread()), (vec![1, 4, 9], 9));
        let later = &kept.events[1];
        assert_eq!(
            (later.kind, later.unix_ms, &*later.text),
            (EventKind::Other, 0, ""),
            "missing fields have defaults"
        );
        let ring = EventRing::new();
        ring.take_over(kept);
        assert_eq!(ring.note(11, Event::new(EventKind::Start, "goes on")), 10_010);
    }

    #[test]
    fn what_an_older_version_gives_and_what_is_no_list_are_told_apart() {
        assert_eq!(read("{}"), KeptEvents::default());
        assert_eq!(read(r#"{"since_unix_ms":1,"events":[],"left_out":"no"}"#).since_unix_ms, 1);
        assert!(serde_json::from_str::<KeptEvents>(r#"{"events":5}"#).is_err(), "the document says so");
    }
}
