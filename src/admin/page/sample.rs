//! [`PageSample`]: what the page shows of the process at one moment.
//!
//! Plain data; `trend.rs` fills it. Invariants: the size of a sample does not grow with connections or clients; without
//! leave to name clients it names none.

use axum::body::Bytes;
use serde::Serialize;

use super::super::StickTableView;
use super::super::door::HIDDEN;
use crate::events::DatedEvent;
use crate::metrics::status::BackendStatus;

/// The process at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct PageSample {
    /// When it was taken, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) uptime_s: u64,
    pub(super) generation: u64,
    /// Connections that are open now.
    pub(super) open: u64,
    /// Limit of open connections; `None`: there is none.
    pub(super) max: Option<u64>,
    /// Traffic of all backends; `None` in the first sample.
    pub(super) per_s: Option<Traffic>,
    /// What needs attention beside backends, one sentence each.
    pub(super) warnings: Vec<String>,
    pub(super) listeners: Vec<ListenerSample>,
    pub(super) pools: Vec<PoolSample>,
    /// Backends of all pools, and how many of them serve.
    pub(super) backends: u64,
    pub(super) backends_serving: u64,
    /// Backends for which there was no room.
    pub(super) left_out: u64,
    /// Clients of all pools that got another backend.
    pub(super) moved: u64,
    /// Rows of moves for which there was no room.
    pub(super) moves_left_out: u64,
    pub(super) faults: Vec<FaultSample>,
    /// Rows of faults for which there was no room.
    pub(super) faults_left_out: u64,
    pub(super) tables: Vec<StickTableView>,
    /// Stick tables for which there was no room.
    pub(super) tables_left_out: u64,
    /// True if the keys of the tables are shown.
    pub(super) names_clients: bool,
    /// The last events, the oldest first.
    pub(super) events: Vec<DatedEvent>,
}

/// What came to pass per second, since the sample before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Traffic {
    /// Connections to backends.
    pub(super) connections: f64,
    /// Connects that failed.
    pub(super) failures: f64,
    /// Bytes from clients.
    pub(super) bytes_up: f64,
    /// Bytes to clients.
    pub(super) bytes_down: f64,
}

/// A listener.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ListenerSample {
    pub(super) name: String,
    pub(super) bind: Vec<String>,
    pub(super) open: u64,
    /// Limit of open connections; `None`: no limit of its own.
    pub(super) max: Option<u64>,
    /// Connections accepted per second; `None` in the first sample.
    pub(super) accepted_per_s: Option<f64>,
}

/// A pool.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct PoolSample {
    pub(super) name: String,
    pub(super) balance: String,
    /// Times of connects of about the last minute; `None`: there was none.
    pub(super) connect: Option<TimeBounds>,
    /// Times until the first byte of a response.
    pub(super) first_byte: Option<TimeBounds>,
    /// Requests per second; `None`: no HTTP, or the first sample.
    pub(super) requests_per_s: Option<f64>,
    pub(super) moves: Vec<MoveSample>,
    pub(super) backends: Vec<BackendSample>,
}

/// Times by the upper bounds of their buckets, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct TimeBounds {
    /// Half of the times are not longer.
    pub(super) half_us: u64,
    /// Of a hundred times 99 are not longer.
    pub(super) most_us: u64,
}

/// Clients of a pool that got another backend than the one they had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct MoveSample {
    /// Name of the backend that they had.
    pub(super) from: String,
    pub(super) cause: &'static str,
    pub(super) count: u64,
}

/// A backend.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct BackendSample {
    #[serde(flatten)]
    pub(super) status: BackendStatus,
    /// `None` in the first sample.
    pub(super) per_s: Option<Traffic>,
}

/// Connections or requests that ended badly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FaultSample {
    /// The listener or the pool.
    pub(super) place: String,
    /// How they ended, by the word of the log.
    pub(super) word: String,
    /// The side at fault.
    pub(super) side: &'static str,
    pub(super) count: u64,
}

impl PageSample {
    /// The sample as a server-sent event, for viewers that may see the names of clients or not.
    pub(super) fn event(&self, names_clients: bool) -> Bytes {
        let mut shown = Self { names_clients, ..self.clone() };
        if !names_clients {
            let hottest = shown.tables.iter_mut().flat_map(|table| &mut table.hottest);
            hottest.for_each(|hot| HIDDEN.clone_into(&mut hot.key));
        }
        // JSON has no line end of its own, which would end the field.
        let json = serde_json::to_string(&shown).unwrap_or_default();
        Bytes::from(format!("data: {json}\n\n"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::events::{Event, EventKind};
    use crate::metrics::status::StickTableStatus;
    use crate::pool::HotKey;

    fn sample() -> PageSample {
        let hot = HotKey { key: "10.0.0.1".into(), share: 0.5, share_error: 0.0, backend: Some("a".into()) };
        let table = StickTableView { stick_table: StickTableStatus::default(), hottest: vec![hot] };
        let event = Event::new(EventKind::Down, "one\nline");
        PageSample { tables: vec![table], events: vec![event.into()], ..PageSample::default() }
    }

    fn json(event: &Bytes) -> Value {
        let text = std::str::from_utf8(event).unwrap();
        let data = text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).unwrap();
        assert!(!data.contains('\n'), "one field of one event");
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn keys_of_clients_are_hidden_where_clients_are_not_named() {
        let sample = sample();
        for (names, key) in [(true, "10.0.0.1"), (false, "hidden")] {
            let shown = json(&sample.event(names));
            let hot = &shown["tables"][0]["hottest"][0];
            assert_eq!((&hot["key"], &hot["share"], &hot["backend"]), (&key.into(), &0.5.into(), &"a".into()));
            assert_eq!(shown["names_clients"], names);
            assert_eq!(String::from_utf8_lossy(&sample.event(names)).contains("10.0.0.1"), names);
        }
    }
}
