//! [`RuntimeState`]: what commands, orders, time and sources have made of the backends of the configuration, as one JSON
//! document.
//!
//! Reads and writes no file (`state_file.rs` does) and knows no channel. Times of the document are those of the wall
//! clock, because the clock of a process means nothing to the next. Invariants: a document of an older or a newer
//! version of this format is read, because unknown fields are skipped and missing ones have a default, and only a format
//! that gives fields another meaning has another number; a clock that was set back makes no drain and no ejection longer
//! than it was meant to be; a part that cannot be read costs no other part (`reading`).
//!
//! A backend is known by its pool and its name. Commands follow the name, as they do at a reload; failed connects and
//! checks follow name and address.

mod fleet_orders;
mod found;
mod named;
mod orders;
mod parts;
mod reading;

use serde::{Deserialize, Serialize};

use self::fleet_orders::RuntimeFleetOrder;
use self::found::RuntimeFound;
use self::named::RuntimeName;
use self::orders::RuntimeOrder;
use crate::config;
use crate::events::{Event, EventKind, EventRing, KeptEvents};
use crate::pool::early_closes::EarlyCloses;
use crate::pool::health::{CheckHistory, CheckState, ClockMs, Ejection};
use crate::pool::{Backend, CheckResults, DrainTimes, Pool};
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreAway};
use crate::tls::TicketSecrets;

/// Number of the format.
const VERSION: u32 = 1;

/// The runtime state of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct RuntimeState {
    version: u32,
    /// When the document was made.
    written_unix_ms: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pools: Vec<RuntimePool>,
    /// Orders about backends that all instances of the fleet follow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fleet_orders: Vec<RuntimeFleetOrder>,
    /// Random keys of session tickets; never in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    tickets: Option<RuntimeTickets>,
    /// The shared store while its circuit breaker is open; never in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<RuntimeStore>,
    /// The events of the process; never in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<KeptEvents>,
    /// Parts of the document that could not be read.
    #[serde(skip)]
    unread: Vec<String>,
}

/// The backends of a pool that are not as the configuration alone would have them, those that its source has named, and
/// where those are that are written with a name, and the orders that stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct RuntimePool {
    name: String,
    backends: Vec<RuntimeBackend>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    found: Vec<RuntimeFound>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    named: Vec<RuntimeName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    orders: Vec<RuntimeOrder>,
}

impl RuntimePool {
    fn is_empty(&self) -> bool {
        self.backends.is_empty() && self.found.is_empty() && self.named.is_empty() && self.orders.is_empty()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct RuntimeBackend {
    name: String,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<RuntimeDrain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ejection: Option<RuntimeEjection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<RuntimeChecks>,
}

/// A drain or a close by command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct RuntimeDrain {
    since_unix_ms: i64,
    /// End of service for known clients.
    deadline_unix_ms: i64,
}

/// Failed connects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct RuntimeEjection {
    /// Begin of the last ejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_unix_ms: Option<i64>,
    /// End of the last ejection.
    until_unix_ms: i64,
    /// Ejections so far that lengthen the next.
    count: u32,
    /// Failed connects in a row.
    failures: u32,
}

/// Results of health checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct RuntimeChecks {
    /// `up`, `down` or `awaited`.
    state: String,
    /// Checks in a row that contradict the state.
    against: u32,
    /// Factor of `rise`, by flaps.
    damping: u32,
    /// Last change of the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_unix_ms: Option<i64>,
    /// Last change from down to up that counts for flaps.
    #[serde(skip_serializing_if = "Option::is_none")]
    rose_unix_ms: Option<i64>,
    /// Begin of a slow start.
    #[serde(skip_serializing_if = "Option::is_none")]
    slow_start_unix_ms: Option<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    complaint: String,
}

/// A shared store to which no request is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct RuntimeStore {
    /// Address, without user and password.
    place: String,
    complaint: String,
}

/// Random keys of session tickets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct RuntimeTickets {
    since_unix_ms: i64,
    /// 64 hexadecimal digits each; the first seals.
    keys: Vec<String>,
}

impl std::fmt::Debug for RuntimeTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeTickets").field("since_unix_ms", &self.since_unix_ms).finish_non_exhaustive()
    }
}

impl RuntimeState {
    /// The state of the process now. `now_ms` is of the process's clock, `unix_ms` of the wall clock.
    pub(super) fn of(snapshot: &Snapshot, now_ms: u64, unix_ms: u64) -> Self {
        let clocks = Clocks::new(now_ms, unix_ms);
        let pools = snapshot.pools.iter().map(|pool| RuntimePool {
            name: pool.name().to_owned(),
            backends: pool.backends().iter().map(|backend| RuntimeBackend::of(backend, clocks)).collect(),
            found: pool.config().found().map(|backend| RuntimeFound::of(backend, clocks)).collect(),
            named: pool.config().written().filter_map(RuntimeName::of).collect(),
            orders: pool.config().orders.all().map(|(name, order)| RuntimeOrder::of(name, order, clocks)).collect(),
        });
        let pools = pools.map(|mut pool| {
            pool.backends.retain(RuntimeBackend::is_special);
            pool
        });
        Self {
            version: VERSION,
            written_unix_ms: clocks.unix_ms,
            pools: pools.filter(|pool| !pool.is_empty()).collect(),
            fleet_orders: snapshot.orders.all().iter().map(|order| RuntimeFleetOrder::of(order, clocks)).collect(),
            tickets: snapshot.tls.ticket_secrets().map(|secrets| RuntimeTickets::of(&secrets, clocks)),
            store: None,
            events: None,
            unread: Vec::new(),
        }
    }

    /// Puts the state into a snapshot that no client has seen yet. Returns sentences for the log: what was taken over,
    /// and what names no backend any more.
    pub(super) fn apply(&self, snapshot: &Snapshot, now_ms: u64, unix_ms: u64) -> Vec<String> {
        let clocks = Clocks::new(now_ms, unix_ms);
        let (mut lines, mut checked) = (Vec::new(), 0);
        for RuntimePool { name, backends, orders, .. } in &self.pools {
            let pool = snapshot.pool(name);
            lines.extend(orders.iter().map(|order| order.line(name, pool.map(|pool| pool.config()))));
            for before in backends {
                let index = pool.and_then(|pool| pool.index_of(&before.name));
                let Some((pool, index)) = pool.zip(index) else {
                    let backend = &before.name;
                    lines.push(format!("backend {name}/{backend} is gone, and its runtime state with it"));
                    continue;
                };
                lines.extend(before.resume_drain(pool, index, clocks));
                if before.address == pool.backends()[index].address().to_string() {
                    lines.extend(before.resume_ejection(pool, index, now_ms, clocks));
                    checked += usize::from(before.resume_checks(pool, index, clocks));
                }
            }
        }
        snapshot.orders.resume(self.fleet_orders.iter().map(|order| order.booked(clocks)));
        if checked > 0 {
            lines.push(format!("the results of checks of {checked} backends are taken over"));
        }
        let tickets = self.tickets.as_ref().and_then(|tickets| tickets.secrets(clocks));
        if tickets.is_some_and(|tickets| snapshot.tls.resume_tickets(&tickets)) {
            lines.push("the keys of session tickets are taken over".to_owned());
        }
        lines
    }

    /// The same state with that of the shared store.
    pub(super) fn with_store(self, store: &Store) -> Self {
        let away = store.away().map(|StoreAway { place, complaint }| RuntimeStore { place, complaint });
        Self { store: away, ..self }
    }

    /// The same state with the events of the process.
    pub(super) fn with_events(self, events: KeptEvents) -> Self {
        Self { events: Some(events), ..self }
    }

    /// Has a ring go on with the events of the process before, or begin with an event that says that it gave none.
    pub(super) fn resume_events(self, ring: &EventRing, unix_ms: u64) {
        match self.events {
            Some(events) => ring.take_over(events),
            None if ring.all().iter().all(|event| event.kind != EventKind::Upgrade) => {
                let text = "the process before this one keeps no events: what happened before is not known";
                ring.note(unix_ms, Event::new(EventKind::Upgrade, text));
            }
            None => {}
        }
    }

    /// Has the shared store begin with an open circuit breaker if it had one.
    pub(super) fn resume_store(&self, store: &Store) {
        if let Some(RuntimeStore { place, complaint }) = self.store.clone() {
            store.resume(StoreAway { place, complaint });
        }
    }

    /// The part that a restart takes over: commands, orders, ejections, what sources have named and the addresses of names.
    /// Checks are made anew, and keys are for no file.
    pub(super) fn for_file(&self) -> Self {
        let mut state = Self { tickets: None, store: None, events: None, ..self.clone() };
        for pool in &mut state.pools {
            pool.backends.iter_mut().for_each(|backend| backend.checks = None);
            pool.backends.retain(RuntimeBackend::is_special);
        }
        state.pools.retain(|pool| !pool.is_empty());
        state
    }

    /// When the document was made, in milliseconds since 1970.
    pub(super) fn written_unix_ms(&self) -> i64 {
        self.written_unix_ms
    }

    /// True if every backend is as the configuration has it.
    pub(super) fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.fleet_orders.is_empty() && self.tickets.is_none()
    }

    /// The document as text.
    pub(super) fn to_json(&self) -> String {
        // Strings and numbers: there is nothing that JSON cannot hold.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl RuntimeBackend {
    fn of(backend: &Backend, clocks: Clocks) -> Self {
        // Of early closes, the next process makes up its own mind.
        let ejection = Ejection { early_closes: EarlyCloses::default(), ..backend.ejection() };
        Self {
            name: backend.name().to_owned(),
            address: backend.address().to_string(),
            drain: backend.drain_times().map(|times| RuntimeDrain {
                since_unix_ms: clocks.unix(times.since_ms),
                deadline_unix_ms: clocks.unix(times.deadline_ms),
            }),
            ejection: (ejection != Ejection::default()).then(|| RuntimeEjection {
                since_unix_ms: Some(clocks.unix(ejection.since_ms)),
                until_unix_ms: clocks.unix(ejection.until_ms),
                count: ejection.count,
                failures: ejection.failures,
            }),
            checks: RuntimeChecks::of(&backend.check_results(), clocks),
        }
    }

    /// True if the backend is not as the configuration alone would have it.
    fn is_special(&self) -> bool {
        self.drain.is_some() || self.ejection.is_some() || self.checks.is_some()
    }

    fn resume_drain(&self, pool: &Pool, index: usize, clocks: Clocks) -> Option<String> {
        let RuntimeDrain { since_unix_ms, deadline_unix_ms } = self.drain.as_ref()?;
        let (since_ms, deadline_ms) = clocks.span(*since_unix_ms, *deadline_unix_ms);
        pool.resume_drain(index, DrainTimes { since_ms, deadline_ms });
        let name = format!("{}/{}", pool.name(), self.name);
        let left_ms = deadline_ms.saturating_sub(clocks.now_ms);
        Some(match left_ms > 0 {
            true => format!(
                "backend {name}: draining, by command (runtime); serves known clients for {} s more",
                left_ms.saturating_add(999) / 1_000
            ),
            false => format!("backend {name}: drained, by command (runtime); `sessile ready {name}` ends the drain"),
        })
    }

    fn resume_ejection(&self, pool: &Pool, index: usize, now_ms: u64, clocks: Clocks) -> Option<String> {
        let RuntimeEjection { since_unix_ms, until_unix_ms, count, failures } = *self.ejection.as_ref()?;
        let until_ms = clocks.process(until_unix_ms);
        let since_ms = since_unix_ms.map_or(clocks.now_ms, |unix_ms| clocks.process(unix_ms).min(clocks.now_ms));
        let before = Ejection { failures, count, since_ms, until_ms, ..Ejection::default() };
        let name = format!("{}/{}", pool.name(), self.name);
        if !pool.resume_ejection(index, before, now_ms) {
            return Some(format!("backend {name} was ejected and gets connections again: its pool allows no ejection"));
        }
        let left_ms = pool.backends()[index].ejection().until_ms.saturating_sub(clocks.now_ms);
        (left_ms > 0).then(|| format!("backend {name} stays ejected for {} s", left_ms.saturating_add(999) / 1_000))
    }

    /// True if checks were taken over.
    fn resume_checks(&self, pool: &Pool, index: usize, clocks: Clocks) -> bool {
        let before = self.checks.as_ref().and_then(|checks| checks.results(clocks));
        before.is_some_and(|before| pool.resume_checks(index, before))
    }
}

/// The states of checked backends and their words.
const STATES: [(CheckState, &str); 3] =
    [(CheckState::Up, "up"), (CheckState::Down, "down"), (CheckState::Awaited, "awaited")];

impl RuntimeChecks {
    /// `None`: the backend was not checked yet.
    fn of(results: &CheckResults, clocks: Clocks) -> Option<Self> {
        let CheckResults { history, complaint, rose_ms } = results;
        let (_, word) = STATES.into_iter().find(|(state, _)| *state == history.standing)?;
        Some(Self {
            state: word.to_owned(),
            against: history.against,
            damping: history.damping,
            since_unix_ms: history.since_ms.map(|since_ms| clocks.unix(since_ms)),
            rose_unix_ms: history.rose_ms.map(|rose_ms| clocks.unix(rose_ms)),
            slow_start_unix_ms: rose_ms.map(|rose_ms| clocks.unix(rose_ms)),
            complaint: complaint.clone(),
        })
    }

    /// `None`: the state is a word that is not known here, and the next check finds the state.
    fn results(&self, clocks: Clocks) -> Option<CheckResults> {
        let (standing, _) = STATES.into_iter().find(|(_, word)| *word == self.state)?;
        let past = |unix_ms: Option<i64>| unix_ms.map(|unix_ms| clocks.process(unix_ms).min(clocks.now_ms));
        let history = CheckHistory {
            standing,
            against: self.against,
            damping: self.damping,
            rose_ms: past(self.rose_unix_ms),
            since_ms: past(self.since_unix_ms),
        };
        Some(CheckResults { history, complaint: self.complaint.clone(), rose_ms: past(self.slow_start_unix_ms) })
    }
}

impl RuntimeTickets {
    fn of(secrets: &TicketSecrets, clocks: Clocks) -> Self {
        let keys = secrets.secrets.iter().map(|secret| data_encoding::HEXLOWER.encode(secret));
        Self { since_unix_ms: clocks.unix(secrets.since_ms), keys: keys.collect() }
    }

    /// `None`: a key is no key.
    fn secrets(&self, clocks: Clocks) -> Option<TicketSecrets> {
        let secrets: Option<Vec<[u8; 32]>> = self.keys.iter().map(|key| config::hex32(key)).collect();
        Some(TicketSecrets { since_ms: clocks.process(self.since_unix_ms), secrets: secrets? })
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy)]
struct Clocks {
    now_ms: ClockMs,
    unix_ms: i64,
}

impl Clocks {
    fn new(now_ms: u64, unix_ms: u64) -> Self {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Self { now_ms: signed(now_ms), unix_ms: signed(unix_ms) }
    }

    /// A time of the process's clock, on the wall clock.
    fn unix(self, at_ms: ClockMs) -> i64 {
        at_ms.saturating_sub(self.now_ms).saturating_add(self.unix_ms)
    }

    /// A time of the wall clock, on the process's clock.
    fn process(self, unix_ms: i64) -> ClockMs {
        unix_ms.saturating_sub(self.unix_ms).saturating_add(self.now_ms)
    }

    /// The begin and the deadline of something that has begun, on the process's clock. A wall clock that was set back moves
    /// neither into the future.
    fn span(self, since_unix_ms: i64, deadline_unix_ms: i64) -> (ClockMs, ClockMs) {
        let length_ms = deadline_unix_ms.saturating_sub(since_unix_ms).max(0);
        let latest_ms = self.now_ms.saturating_add(length_ms);
        (self.process(since_unix_ms).min(self.now_ms), self.process(deadline_unix_ms).min(latest_ms))
    }
}

#[cfg(test)]
mod tests;
