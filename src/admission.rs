//! The right to be served: limits on connections in total, per listener and per source.
//!
//! Accepts nothing and closes nothing. Invariant: whatever was counted is given back by dropping a `Permit`, once; no
//! decrement is written by hand anywhere else.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, atomic::AtomicU64};

use ahash::AHashMap;

use crate::counters::{ListenerCounters, Padded};
use crate::outcome::Ended;

/// Locks for per-source counts; two sources rarely meet on one.
const SHARDS: usize = 64;

/// A shard that has grown to this size is swept of sources without connections before it grows further.
const SWEEP_FROM: usize = 256;

/// What a listener keeps across reloads.
#[derive(Debug)]
pub struct ListenerState {
    admission: Arc<Admission>,
    /// Its name.
    pub name: Arc<str>,
    /// What each worker counts for it.
    pub counters: Box<[Padded<ListenerCounters>]>,
    open: AtomicUsize,
    connections_max: AtomicUsize,
}

impl ListenerState {
    /// A new listener's.
    pub fn new(name: &str, workers: usize, admission: &Arc<Admission>) -> Self {
        Self {
            admission: Arc::clone(admission),
            name: name.into(),
            counters: (0..workers).map(|_| Padded::default()).collect(),
            open: AtomicUsize::new(0),
            connections_max: AtomicUsize::new(usize::MAX),
        }
    }

    /// Connections it holds.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Sets its limit.
    pub fn limit(&self, connections_max: Option<usize>) {
        self.connections_max.store(connections_max.unwrap_or(usize::MAX), Relaxed);
    }

    /// Takes a place for one connection; `None` when a limit is reached and accepting has to wait.
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        let total = &self.admission.open.0;
        if !take(total, self.admission.connections_max.load(Relaxed)) {
            return None;
        }
        if !take(&self.open, self.connections_max.load(Relaxed)) {
            total.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit { listener: Arc::clone(self), source: None })
    }
}

/// The process's limits and what counts against them.
#[derive(Debug)]
pub struct Admission {
    open: Padded<AtomicUsize>,
    connections_max: AtomicUsize,
    /// Connections per source in the low half, new ones a second in the high half; 0 = off.
    per_source: AtomicU64,
    sources: Box<[Mutex<Shard>]>,
}

#[derive(Debug, Default)]
struct Shard {
    sources: AHashMap<IpAddr, Source>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Source {
    open: u32,
    second: u64,
    begun: u32,
}

impl Admission {
    /// With a limit on connections in total.
    pub fn new(connections_max: usize) -> Self {
        Self {
            open: Padded(AtomicUsize::new(0)),
            connections_max: AtomicUsize::new(connections_max),
            per_source: AtomicU64::new(0),
            sources: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Sets the limits; what is open stays.
    pub fn limit(&self, connections_max: usize, per_source: Option<u32>, rate_per_source: Option<u32>) {
        self.connections_max.store(connections_max, Relaxed);
        let packed = u64::from(rate_per_source.unwrap_or(0)) << 32 | u64::from(per_source.unwrap_or(0));
        self.per_source.store(packed, Relaxed);
    }

    /// Connections in total.
    pub fn open(&self) -> usize {
        self.open.0.load(Relaxed)
    }

    /// Whether so many are open that none should hold more than the two descriptors it is counted with: with five each,
    /// no more than two fifths of the limit fit.
    pub fn crowded(&self) -> bool {
        self.open().saturating_mul(5) > self.connections_max().saturating_mul(2)
    }

    /// The limit on them.
    pub fn connections_max(&self) -> usize {
        self.connections_max.load(Relaxed)
    }

    /// Sources that are counted now.
    pub fn sources(&self) -> usize {
        let count = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).sources.len();
        self.sources.iter().map(count).sum()
    }

    fn shard(&self, source: &IpAddr) -> std::sync::MutexGuard<'_, Shard> {
        let hash = match source {
            IpAddr::V4(v4) => u64::from(u32::from(*v4)),
            IpAddr::V6(v6) => (u128::from(*v6) >> 64) as u64,
        };
        let index = (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % SHARDS;
        // A panic elsewhere leaves counts that are at worst one too high.
        self.sources[index].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn hold(&self, source: IpAddr, now_s: u64) -> Result<(), Ended> {
        let packed = self.per_source.load(Relaxed);
        let (open_max, rate_max) = (packed as u32, (packed >> 32) as u32);
        let mut shard = self.shard(&source);
        shard.sweep(now_s);
        let entry = shard.sources.entry(source).or_default();
        if entry.second != now_s {
            (entry.second, entry.begun) = (now_s, 0);
        }
        if open_max > 0 && entry.open >= open_max {
            return Err(Ended::SourceConnections);
        }
        if rate_max > 0 && entry.begun >= rate_max {
            return Err(Ended::SourceRate);
        }
        entry.open += 1;
        entry.begun += 1;
        Ok(())
    }

    fn release(&self, source: IpAddr) {
        let rate_off = self.per_source.load(Relaxed) >> 32 == 0;
        let mut shard = self.shard(&source);
        if let Some(entry) = shard.sources.get_mut(&source) {
            entry.open = entry.open.saturating_sub(1);
            if entry.open == 0 && rate_off {
                shard.sources.remove(&source);
            }
        }
    }
}

impl Shard {
    /// Forgets sources that hold nothing and began nothing this second.
    fn sweep(&mut self, now_s: u64) {
        if self.sources.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.sources.retain(|_, source| source.open > 0 || source.second == now_s);
            self.sources.shrink_to_fit();
            self.sweep_at = self.sources.len() * 2;
        }
    }
}

/// The right of one connection to be served.
#[derive(Debug)]
pub struct Permit {
    listener: Arc<ListenerState>,
    /// Boxed, because hardly any connection has one.
    source: Option<Box<IpAddr>>,
}

impl Permit {
    /// The listener it came in on.
    pub fn listener(&self) -> &Arc<ListenerState> {
        &self.listener
    }

    /// Whether descriptors are getting scarce: see [`Admission::crowded`].
    pub fn crowded(&self) -> bool {
        self.listener.admission.crowded()
    }

    /// Counts the connection for its source, once that is known; an IPv6 source is its /64, which is what one client
    /// is given. Costs one load when these limits are off.
    pub fn hold_source(&mut self, source: IpAddr, now_s: u64) -> Result<(), Ended> {
        let admission = &self.listener.admission;
        if admission.per_source.load(Relaxed) == 0 || self.source.is_some() {
            return Ok(());
        }
        let source = match source {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
            v4 => v4,
        };
        admission.hold(source, now_s)?;
        self.source = Some(Box::new(source));
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.listener.admission;
        admission.open.0.fetch_sub(1, Relaxed);
        self.listener.open.fetch_sub(1, Relaxed);
        if let Some(source) = &self.source {
            admission.release(**source);
        }
    }
}

/// Adds one unless the limit is reached.
fn take(count: &AtomicUsize, max: usize) -> bool {
    if count.fetch_add(1, Relaxed) < max {
        return true;
    }
    count.fetch_sub(1, Relaxed);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max: usize) -> (Arc<Admission>, Arc<ListenerState>) {
        let admission = Arc::new(Admission::new(max));
        let listener = Arc::new(ListenerState::new("l", 1, &admission));
        (admission, listener)
    }

    #[test]
    fn permits_are_given_up_to_the_limits_and_come_back_when_dropped() {
        let (admission, listener) = admission(3);
        listener.limit(Some(2));
        let first = listener.admit().unwrap();
        let _second = listener.admit().unwrap();
        assert!(listener.admit().is_none());
        assert_eq!((admission.open(), listener.open()), (2, 2));
        drop(first);
        assert!(listener.admit().is_some());
        listener.limit(None);
        let _more: Vec<_> = (0..2).map(|_| listener.admit().unwrap()).collect();
        assert!(listener.admit().is_none());
    }

    #[test]
    fn a_source_is_held_to_its_connections_and_its_rate() {
        let (admission, listener) = admission(100);
        admission.limit(100, Some(2), Some(3));
        let hold = |now_s| {
            let mut permit = listener.admit().unwrap();
            permit.hold_source("2001:db8::1".parse().unwrap(), now_s).map(|()| permit)
        };
        let first = hold(1).unwrap();
        let second = hold(1).unwrap();
        assert_eq!(hold(1).unwrap_err(), Ended::SourceConnections);
        drop((first, second));
        let _third = hold(1).unwrap();
        assert_eq!(hold(1).unwrap_err(), Ended::SourceRate);
        assert!(hold(2).is_ok());
    }

    #[test]
    fn a_source_without_connections_is_forgotten() {
        let (admission, listener) = admission(usize::MAX);
        admission.limit(usize::MAX, Some(1), Some(5));
        for n in 0..200_000u32 {
            let mut permit = listener.admit().unwrap();
            permit.hold_source(std::net::Ipv4Addr::from(n).into(), u64::from(n / 1000)).unwrap();
        }
        let kept: usize = admission.sources.iter().map(|shard| shard.lock().unwrap().sources.len()).sum();
        assert!(kept <= SHARDS * (SWEEP_FROM + 100), "{kept}");
        assert_eq!(admission.open(), 0);
    }
}
