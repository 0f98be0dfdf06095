//! What the backends' log says: the home of each client, and each break.
//!
//! Reads no other source. Invariant: a client whose backend differs from that of the visit before is a break, whatever the
//! balancer thinks of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backends::{Arrival, Log};

/// The home of every client so far.
pub struct Truth {
    log: Arc<Log>,
    seen: usize,
    homes: HashMap<u64, Home>,
    key: fn(&Arrival) -> u64,
}

/// Where a client is at home.
#[derive(Debug, Clone, Copy)]
pub struct Home {
    pub backend: u8,
    /// Since when.
    pub since: Instant,
    /// It had another one before.
    pub moved: bool,
}

/// What happened between two looks at the log.
#[derive(Debug, Default)]
pub struct Step {
    /// Clients that changed their backend: from where, to where.
    pub breaks: Vec<(u64, u8, u8)>,
    /// Clients that came for the first time, in their order.
    pub fresh: Vec<Arrival>,
    /// All of them.
    pub arrivals: Vec<Arrival>,
}

impl Truth {
    /// Clients are their addresses.
    pub fn new(log: &Arc<Log>) -> Self {
        Self::keyed(log, |arrival| arrival.source.into())
    }

    /// Clients are what this says.
    pub fn keyed(log: &Arc<Log>, key: fn(&Arrival) -> u64) -> Self {
        Self { log: Arc::clone(log), seen: 0, homes: HashMap::new(), key }
    }

    /// Visits since the last step; does not begin another one.
    pub fn peek(&self) -> Vec<Arrival> {
        self.log.after(self.seen)
    }

    /// Reads on.
    pub fn step(&mut self) -> Step {
        let arrivals = self.log.after(self.seen);
        self.seen += arrivals.len();
        let mut step = Step::default();
        for arrival in &arrivals {
            let key = (self.key)(arrival);
            let home = Home { backend: arrival.home, since: arrival.at, moved: false };
            match self.homes.get_mut(&key) {
                Some(known) if known.backend == home.backend => {}
                Some(known) => {
                    step.breaks.push((key, known.backend, home.backend));
                    *known = Home { moved: true, ..home };
                }
                None => {
                    self.homes.insert(key, home);
                    step.fresh.push(*arrival);
                }
            }
        }
        Step { arrivals, ..step }
    }

    /// Where a client is at home.
    pub fn home(&self, key: u64) -> Option<Home> {
        self.homes.get(&key).copied()
    }

    /// Clients with their home at a backend.
    pub fn at(&self, backend: u8) -> impl Iterator<Item = u32> + Clone + '_ {
        self.homes.iter().filter(move |(_, home)| home.backend == backend).map(|(key, _)| *key as u32)
    }
}

/// The largest over the mean, each backend by its weight, and what chance alone explains: five standard deviations of
/// a fair throw.
pub fn spread(arrivals: &[Arrival], weights: &[u16]) -> (f64, f64) {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut counts = vec![0_u32; weights.len()];
    for arrival in arrivals {
        if let Some(count) = counts.get_mut(usize::from(arrival.home)) {
            *count += 1;
        }
    }
    let shares = counts.iter().zip(weights).filter(|(_, weight)| **weight > 0).map(|(count, weight)| {
        let mean = arrivals.len() as f64 * f64::from(*weight) / total;
        (f64::from(*count) / mean, 1.0 + 5.0 / mean.sqrt())
    });
    shares.fold((0.0, 0.0), |(largest, most), (share, chance)| (share.max(largest), chance.max(most)))
}

/// Visits of the first second.
pub fn first_second(arrivals: &[Arrival], began: Instant) -> &[Arrival] {
    let end = arrivals.partition_point(|arrival| arrival.at < began + Duration::from_secs(1));
    &arrivals[..end]
}
