//! [`Model`]: the last [`Reading`], with what has happened since the one before it, in units a second.
//!
//! Asks for nothing and draws nothing; times are arguments. Invariants: a rate is of two readings of one process, and of
//! counters that have not fallen; else there is none, never a wrong one. What was known stays while no process responds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::reading::{EVENTS_KEPT, Reading};
use crate::admin::StickTableView;
use crate::cli::status::badly_ended;
use crate::events::DatedEvent;
use crate::metrics::Status;
use crate::metrics::status::{BackendStatus, PoolStatus};

/// What is known of the process. As JSON: what `sessile top --json` prints.
#[derive(Debug, Default, Serialize)]
pub(super) struct Model {
    /// The last response of `/status`.
    pub(super) status: Status,
    /// What happens a second.
    pub(super) rates: Rates,
    /// Stick tables with their hottest keys.
    pub(super) stick_tables: Vec<StickTableView>,
    /// The last events, the oldest first.
    pub(super) events: VecDeque<DatedEvent>,
    /// When the status was read, since the command began.
    #[serde(skip)]
    at: Duration,
    /// Why there is no newer status; `None`: the process responds.
    #[serde(skip)]
    pub(super) away: Option<Away>,
}

/// A process that does not respond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Away {
    /// For how long there has been no response.
    pub(super) time: Duration,
    /// Why the last request failed.
    pub(super) why: String,
}

/// Rates of everything that counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// All connections of the process; its errors are connections that ended badly.
    pub(super) process: Rate,
    /// Pools by name.
    pub(super) pools: BTreeMap<String, PoolRates>,
}

/// Rates of a pool and of its backends.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct PoolRates {
    /// All backends together; errors are requests answered with a status of 5xx, or failed connects where no HTTP is read.
    pub(super) all: Rate,
    /// Known clients that got another backend than theirs.
    pub(super) moved: Option<f64>,
    /// Backends by name; errors are failed connects.
    pub(super) backends: BTreeMap<String, Rate>,
}

/// What happens a second; `None`: there are no two readings that tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    /// New connections.
    pub(super) new: Option<f64>,
    /// HTTP requests; of a backend there are none.
    pub(super) requests: Option<f64>,
    /// Errors, each kind of row has its own.
    pub(super) errors: Option<f64>,
    /// Bytes from clients to backends.
    pub(super) bytes_up: Option<f64>,
    /// Bytes from backends to clients.
    pub(super) bytes_down: Option<f64>,
}

/// What a rate is the growth of.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    new: u64,
    requests: Option<u64>,
    errors: u64,
    bytes_up: u64,
    bytes_down: u64,
}

impl Model {
    /// Takes the next reading.
    pub(super) fn take(&mut self, reading: Reading) {
        let Reading { at, status, hottest, events } = reading;
        // In a container the next process has the same pid.
        let (last, this) = (&self.status, &status);
        let is_same = last.process.pid == this.process.pid && last.uptime_s <= this.uptime_s && self.at < at;
        let before = is_same.then_some(&self.status);
        self.rates = Rates::between(before, &status, at.saturating_sub(self.at));
        self.status = status;
        self.at = at;
        if let Some(hottest) = hottest {
            self.stick_tables = hottest;
        }
        self.events.extend(events);
        let spare = self.events.len().saturating_sub(EVENTS_KEPT as usize);
        self.events.drain(..spare);
        self.away = None;
    }

    /// Notes that the process has not responded. `now`: since the command began.
    pub(super) fn miss(&mut self, now: Duration, why: String) {
        self.away = Some(Away { time: now.saturating_sub(self.at), why });
        self.rates = Rates::default();
    }
}

impl Rates {
    fn between(before: Option<&Status>, now: &Status, time: Duration) -> Self {
        let process = rate(before.map(Counted::of_process), Counted::of_process(now), time);
        let pools = now.pools.iter().enumerate().map(|(index, pool)| {
            let same = before.and_then(|status| found(&status.pools, index, |same| same.name == pool.name));
            (pool.name.clone(), PoolRates::between(same, pool, time))
        });
        Self { process, pools: pools.collect() }
    }

    /// The rates of a pool.
    pub(super) fn of_pool(&self, pool: &PoolStatus) -> Rate {
        self.pools.get(&pool.name).map(|rates| rates.all).unwrap_or_default()
    }

    /// The rates of a backend.
    pub(super) fn of_backend(&self, pool: &PoolStatus, backend: &BackendStatus) -> Rate {
        let rates = self.pools.get(&pool.name).and_then(|rates| rates.backends.get(&backend.name));
        rates.copied().unwrap_or_default()
    }

    /// Known clients of all pools that move; `None`: no pool has two readings.
    pub(super) fn moved(&self) -> Option<f64> {
        let rates: Vec<f64> = self.pools.values().filter_map(|pool| pool.moved).collect();
        (!rates.is_empty()).then(|| rates.iter().sum())
    }
}

impl PoolRates {
    fn between(before: Option<&PoolStatus>, now: &PoolStatus, time: Duration) -> Self {
        let of_backend = |(index, backend): (usize, &BackendStatus)| {
            let same = before.and_then(|pool| found(&pool.backends, index, |same| same.name == backend.name));
            (backend.name.clone(), rate(same.map(Counted::of_backend), Counted::of_backend(backend), time))
        };
        let moved = |pool: &PoolStatus| pool.breaks.values().sum::<u64>();
        Self {
            all: rate(before.map(Counted::of_pool), Counted::of_pool(now), time),
            moved: growth(before.map(moved), moved(now), time),
            backends: now.backends.iter().enumerate().map(of_backend).collect(),
        }
    }
}

impl Counted {
    fn of_backend(backend: &BackendStatus) -> Self {
        let totals = &backend.totals;
        Self {
            new: totals.connections,
            requests: None,
            errors: totals.connect_failures,
            bytes_up: totals.bytes_up,
            bytes_down: totals.bytes_down,
        }
    }

    fn of_pool(pool: &PoolStatus) -> Self {
        let all = pool.backends.iter().map(Self::of_backend).fold(Self::default(), Self::plus);
        let Some(requests) = &pool.requests else { return all };
        let counted = || requests.responses.iter().chain(&requests.local_replies);
        let failed: u64 = counted().filter(|(class, _)| *class == "5xx").map(|(_, count)| count).sum();
        Self { requests: Some(counted().map(|(_, count)| count).sum()), errors: failed, ..all }
    }

    fn of_process(status: &Status) -> Self {
        let listeners = || status.listeners.iter().map(|listener| &listener.totals);
        let all = status.pools.iter().map(Self::of_pool).fold(Self::default(), Self::plus);
        Self { new: listeners().map(|totals| totals.accepted).sum(), errors: listeners().map(badly_ended).sum(), ..all }
    }

    fn plus(self, other: Self) -> Self {
        let requests = self.requests.into_iter().chain(other.requests).reduce(|a, b| a + b);
        Self {
            new: self.new + other.new,
            requests,
            errors: self.errors + other.errors,
            bytes_up: self.bytes_up + other.bytes_up,
            bytes_down: self.bytes_down + other.bytes_down,
        }
    }
}

/// The one that is wanted, which is most often at the place where it was.
fn found<T>(list: &[T], index: usize, is_wanted: impl Fn(&T) -> bool) -> Option<&T> {
    list.get(index).filter(|one| is_wanted(one)).or_else(|| list.iter().find(|one| is_wanted(one)))
}

/// All rates of one thing, or none: where one counter has fallen, the others have begun again, too.
fn rate(before: Option<Counted>, now: Counted, time: Duration) -> Rate {
    let Some(before) = before else { return Rate::default() };
    let of = |field: fn(&Counted) -> u64| growth(Some(field(&before)), field(&now), time);
    let all = [
        of(|counted| counted.new),
        of(|counted| counted.errors),
        of(|counted| counted.bytes_up),
        of(|counted| counted.bytes_down),
    ];
    if all.contains(&None) {
        return Rate::default();
    }
    let [new, errors, bytes_up, bytes_down] = all;
    let requests = now.requests.and_then(|requests| growth(before.requests, requests, time));
    Rate { new, requests, errors, bytes_up, bytes_down }
}

/// How much a counter grows a second; `None`: it was not there, or it has begun again.
fn growth(before: Option<u64>, now: u64, time: Duration) -> Option<f64> {
    let grown = now.checked_sub(before?)?;
    (!time.is_zero()).then(|| grown as f64 / time.as_secs_f64())
}
