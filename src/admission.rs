//! Limits on connections in total, per listener and per source: [`ListenerState::admit`] gives a [`Permit`] or none.
//!
//! Accepts nothing and closes nothing. Invariant: dropping a `Permit` gives back everything that was counted for it,
//! once; no other code lowers these counts. `held.rs` counts the memory of bytes read ahead, `rates.rs` the requests of
//! clients.

mod held;
mod rates;
mod shards;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, atomic::AtomicU64};

pub use self::held::{HeldBytes, HelloMemory, UNCOUNTED};
pub use self::rates::RequestRates;

use self::shards::Shards;
use crate::counters::{ListenerCounters, Padded};
use crate::outcome::Ended;

/// The state of a listener that survives reloads: its counters, its limit and its open connections.
#[derive(Debug)]
pub struct ListenerState {
    admission: Arc<Admission>,
    /// The name of the listener in the configuration.
    pub name: Arc<str>,
    /// Counters of the listener, one block per worker and one per runtime.
    pub counters: Box<[Padded<ListenerCounters>]>,
    /// Apart from what every worker reads at each accept and each end.
    open: Padded<AtomicUsize>,
    connections_max: AtomicUsize,
    /// Permits refused for the limit of the listener.
    refused: AtomicU64,
}

impl ListenerState {
    /// The state of a listener that was added, without a limit. `workers`: how many blocks of counters it has.
    pub fn new(name: &str, workers: usize, admission: &Arc<Admission>) -> Self {
        Self {
            admission: Arc::clone(admission),
            name: name.into(),
            counters: (0..workers).map(|_| Padded::default()).collect(),
            open: Padded::default(),
            connections_max: AtomicUsize::new(usize::MAX),
            refused: AtomicU64::new(0),
        }
    }

    /// Connections that hold a permit of this listener now.
    pub fn open(&self) -> usize {
        self.open.0.load(Relaxed)
    }

    /// The limit of open connections; `usize::MAX`: no limit of its own.
    pub fn connections_max(&self) -> usize {
        self.connections_max.load(Relaxed)
    }

    /// How often a permit was refused because the listener had as many connections as it may have. The number grows for
    /// as long as clients wait.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Sets the limit of open connections; `None`: no limit of its own.
    pub fn limit(&self, connections_max: Option<usize>) {
        self.connections_max.store(connections_max.unwrap_or(usize::MAX), Relaxed);
    }

    /// Gives a permit to one connection; `None`: a limit is reached, and accepting has to wait.
    pub fn admit(self: &Arc<Self>) -> Option<Permit> {
        let total = &self.admission.open.0;
        if !take(total, self.admission.connections_max.load(Relaxed)) {
            self.admission.refused.fetch_add(1, Relaxed);
            return None;
        }
        if !take(&self.open.0, self.connections_max.load(Relaxed)) {
            total.fetch_sub(1, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        Some(Permit { listener: Arc::clone(self), source: None })
    }
}

impl ListenerState {
    /// Gives a permit to a connection that another process has admitted: it counts, and no limit refuses it.
    pub fn admit_arrived(self: &Arc<Self>, source: Option<IpAddr>) -> Permit {
        self.admission.open.0.fetch_add(1, Relaxed);
        self.open.0.fetch_add(1, Relaxed);
        let limited = self.admission.per_source.load(Relaxed) != 0;
        let source = source.filter(|_| limited).map(source_network);
        if let Some(source) = source {
            self.admission.sources.lock(bits_of(source)).entries.entry(source).or_default().open += 1;
        }
        Permit { listener: Arc::clone(self), source: source.map(Box::new) }
    }
}

/// The limits of the process, and what counts against them.
#[derive(Debug)]
pub struct Admission {
    open: Padded<AtomicUsize>,
    connections_max: AtomicUsize,
    /// Permits refused for the limit of the process.
    refused: AtomicU64,
    /// Packed limits: connections per source in the low half, new connections per second in the high half; 0 is off.
    per_source: AtomicU64,
    sources: Shards<IpAddr, Source>,
    /// What clients may still request.
    request_rates: RequestRates,
    /// Memory of the bytes read ahead, of all connections.
    pub hello_memory: Arc<HelloMemory>,
}

#[derive(Debug, Default)]
struct Source {
    open: u32,
    second: u64,
    begun: u32,
}

impl Admission {
    /// Begins with a limit on connections in total, and none per source.
    pub fn new(connections_max: usize) -> Self {
        Self {
            open: Padded(AtomicUsize::new(0)),
            connections_max: AtomicUsize::new(connections_max),
            refused: AtomicU64::new(0),
            per_source: AtomicU64::new(0),
            sources: Shards::new(),
            request_rates: RequestRates::default(),
            hello_memory: Arc::default(),
        }
    }

    /// Sets the limits; connections beyond a new limit stay open. `None`: no limit per source.
    pub fn limit(&self, connections_max: usize, per_source: Option<u32>, rate_per_source: Option<u32>) {
        self.connections_max.store(connections_max, Relaxed);
        let packed = u64::from(rate_per_source.unwrap_or(0)) << 32 | u64::from(per_source.unwrap_or(0));
        self.per_source.store(packed, Relaxed);
    }

    /// Connections of the process that hold a permit now.
    pub fn open(&self) -> usize {
        self.open.0.load(Relaxed)
    }

    /// True if a connection should hold no more than the two descriptors that it is counted with. A kept conversation
    /// may hold five, and so only two fifths of the limit could be open.
    pub fn crowded(&self) -> bool {
        self.open().saturating_mul(5) > self.connections_max().saturating_mul(2)
    }

    /// The limit on connections in total.
    pub fn connections_max(&self) -> usize {
        self.connections_max.load(Relaxed)
    }

    /// How often a permit was refused because the process had as many connections as it may have.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Client addresses that are counted now; 0 while per-source limits are off.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    fn hold(&self, source: IpAddr, now_s: u64) -> Result<(), Ended> {
        let packed = self.per_source.load(Relaxed);
        let (open_max, rate_max) = (packed as u32, (packed >> 32) as u32);
        let mut shard = self.sources.lock(bits_of(source));
        shard.sweep(usize::MAX, |source| source.open > 0 || source.second == now_s);
        let entry = shard.entries.entry(source).or_default();
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
        let mut shard = self.sources.lock(bits_of(source));
        if let Some(entry) = shard.entries.get_mut(&source) {
            entry.open = entry.open.saturating_sub(1);
            if entry.open == 0 && rate_off {
                shard.entries.remove(&source);
            }
        }
    }
}

/// The right of one connection to be served; given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    listener: Arc<ListenerState>,
    /// The source that was counted, boxed because few connections have one; `None`: limits were off.
    source: Option<Box<IpAddr>>,
}

impl Permit {
    /// The listener that accepted the connection.
    pub fn listener(&self) -> &Arc<ListenerState> {
        &self.listener
    }

    /// True if descriptors are getting scarce: see [`Admission::crowded`].
    pub fn crowded(&self) -> bool {
        self.listener.admission.crowded()
    }

    /// The memory that bytes read ahead of this connection count for.
    pub fn hello_memory(&self) -> &Arc<HelloMemory> {
        &self.listener.admission.hello_memory
    }

    /// What clients may still request of the process.
    pub fn request_rates(&self) -> &RequestRates {
        &self.listener.admission.request_rates
    }

    /// Counts the connection for its source, once that is known. Costs one atomic load while these limits are off.
    /// Fails with the limit that is reached.
    pub fn hold_source(&mut self, source: IpAddr, now_s: u64) -> Result<(), Ended> {
        let admission = &self.listener.admission;
        if admission.per_source.load(Relaxed) == 0 || self.source.is_some() {
            return Ok(());
        }
        let source = source_network(source);
        admission.hold(source, now_s)?;
        self.source = Some(Box::new(source));
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let admission = &self.listener.admission;
        admission.open.0.fetch_sub(1, Relaxed);
        self.listener.open.0.fetch_sub(1, Relaxed);
        if let Some(source) = &self.source {
            admission.release(**source);
        }
    }
}

/// Returns what a client is counted with: an IPv6 address counts as its /64 network, because one client has all of it.
pub fn source_network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

/// Bits that tell two sources apart.
fn bits_of(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => (u128::from(v6) >> 64) as u64,
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
    use super::shards::{SHARDS, SWEEP_FROM};
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
        assert_eq!((admission.refused(), listener.refused()), (0, 1), "by the limit that is reached");
        drop(first);
        assert!(listener.admit().is_some());
        listener.limit(None);
        let _more: Vec<_> = (0..2).map(|_| listener.admit().unwrap()).collect();
        assert!(listener.admit().is_none());
        assert_eq!((admission.refused(), listener.refused()), (1, 1));
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
    fn what_another_process_has_admitted_counts_and_is_never_refused() {
        let (admission, listener) = admission(1);
        admission.limit(1, Some(1), None);
        let source = "198.51.100.7".parse().unwrap();
        let arrived: Vec<_> = (0..3).map(|_| listener.admit_arrived(Some(source))).collect();
        assert_eq!((admission.open(), listener.open(), admission.sources()), (3, 3, 1));
        assert!(listener.admit().is_none());
        admission.limit(9, Some(3), None);
        assert_eq!(listener.admit().unwrap().hold_source(source, 1), Err(Ended::SourceConnections));
        drop(arrived);
        assert_eq!((admission.open(), listener.open(), admission.sources()), (0, 0, 0));
    }

    /// Number of the block of memory that a processor takes from another at once.
    fn block<T>(at: &T) -> usize {
        std::ptr::from_ref(at).addr() / align_of::<Padded<u8>>()
    }

    #[test]
    fn what_every_connection_writes_stands_apart_from_what_it_reads() {
        let (admission, listener) = admission(1);
        let written = [block(&listener.open), block(&admission.open)];
        let read = [block(&listener.counters), block(&listener.connections_max), block(&admission.per_source)];
        assert!(written.iter().all(|written| !read.contains(written)), "{written:?} {read:?}");
        // The count of references stands before the value.
        assert_eq!(align_of::<ListenerState>(), align_of::<Padded<u8>>());
    }

    #[test]
    fn two_sources_do_not_write_into_one_line() {
        let (admission, _) = admission(1);
        let blocks: std::collections::BTreeSet<_> = admission.sources.0.iter().map(block).collect();
        assert_eq!(blocks.len(), SHARDS);
    }

    #[test]
    fn a_source_without_connections_is_forgotten() {
        let (admission, listener) = admission(usize::MAX);
        admission.limit(usize::MAX, Some(1), Some(5));
        for n in 0..200_000u32 {
            let mut permit = listener.admit().unwrap();
            permit.hold_source(std::net::Ipv4Addr::from(n).into(), u64::from(n / 1000)).unwrap();
        }
        let kept = admission.sources();
        assert!(kept <= SHARDS * (SWEEP_FROM + 100), "{kept}");
        assert_eq!(admission.open(), 0);
    }
}
