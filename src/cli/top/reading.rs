//! [`Asker`]: asks the running process for what `sessile top` shows, one [`Reading`] at a time.
//!
//! Computes no rate and draws nothing. Invariants: the hottest keys, which take the process longer, are asked for at most
//! once in [`TABLES_EVERY`]; an event is read once, also over an upgrade; after another process has taken the socket its
//! events are read from their beginning.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::admin::StickTableView;
use crate::cli::{CommandError, client};
use crate::events::{DatedEvent, EventPage};
use crate::metrics::Status;

/// Most events that are read at the first look, and kept.
pub(super) const EVENTS_KEPT: u64 = 1_000;

/// Least time between two looks at the hottest keys.
const TABLES_EVERY: Duration = Duration::from_secs(5);

/// How long a part of a response may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the process has said of itself at one moment.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// When it was said, since the command began.
    pub(super) at: Duration,
    /// Counters and states of everything.
    pub(super) status: Status,
    /// Stick tables with their hottest keys; `None`: those of the reading before still stand.
    pub(super) hottest: Option<Vec<StickTableView>>,
    /// Events since the reading before, the oldest first.
    pub(super) events: Vec<DatedEvent>,
}

/// Where the events of a process have been read to.
#[derive(Debug, Clone)]
struct EventPlace {
    since: String,
    last: u64,
}

/// Asks one process, and the ones that take its socket after it.
#[derive(Debug)]
pub(super) struct Asker {
    socket: PathBuf,
    begun: Instant,
    asked_tables: Option<Instant>,
    events: Option<EventPlace>,
}

impl Asker {
    /// An asker that has not asked yet.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket, begun: Instant::now(), asked_tables: None, events: None }
    }

    /// Time since the command began.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Asks for everything that is due.
    pub(super) fn ask(&mut self) -> Result<Reading, CommandError> {
        let status = self.get("/status")?;
        let at = self.now();
        let is_due = self.asked_tables.is_none_or(|asked| asked.elapsed() >= TABLES_EVERY);
        let hottest = if is_due { Some(self.get("/stick-table")?) } else { None };
        if is_due {
            self.asked_tables = Some(Instant::now());
        }
        Ok(Reading { at, status, hottest, events: self.new_events()? })
    }

    fn new_events(&mut self) -> Result<Vec<DatedEvent>, CommandError> {
        let mut page = None;
        if let Some(EventPlace { since, last }) = &self.events {
            // Events of another process have numbers of its own.
            page = Some(self.page(*last)?).filter(|page| page.since == *since);
        }
        let page = match page {
            Some(page) => page,
            None => self.last_events()?,
        };
        self.events = Some(EventPlace { since: page.since, last: page.next });
        Ok(page.events)
    }

    /// The last events of the process. The first request learns the number of the last one.
    fn last_events(&self) -> Result<EventPage, CommandError> {
        let last = self.page(u64::MAX)?.next;
        self.page(last.saturating_sub(EVENTS_KEPT))
    }

    fn page(&self, after: u64) -> Result<EventPage, CommandError> {
        self.get(&format!("/events?after={after}"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandError> {
        client::request_within(&self.socket, "GET", path, "", PATIENCE)?.json(&[200])
    }
}
