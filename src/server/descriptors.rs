//! How many descriptors the process may open, and what they are for.
//!
//! Pure arithmetic but for the kernel's limit. Invariant: connections, pipes and what the process holds itself fit into
//! the limit together, so a full balancer refuses connections before it runs out of descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::snapshot::Snapshot;

/// One descriptor in this many is reserved for what comes and goes beside connections: pipes, admin interface, checks.
const RESERVED: u64 = 20;

/// Descriptors that the process itself holds: standard streams, lock, admin interface, runtime, signals, log.
const HELD: u64 = 16;

/// Descriptors of one worker and its runtime: epoll and eventfd of each, and a timer of each.
const PER_WORKER: u64 = 6;

/// Raises the limit of descriptors to the most that this user may have.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// How many descriptors this process may open.
pub(super) fn limit() -> u64 {
    limit_and_reserved().0
}

/// The most connections that may be open: two descriptors each, of those that nothing else needs.
pub(super) fn connections_max(snapshot: &Snapshot, workers: usize) -> usize {
    let (limit, reserved) = limit_and_reserved();
    let addresses: usize = snapshot.listeners.iter().map(|listener| listener.config.bind.len()).sum();
    let held = HELD + workers as u64 * (PER_WORKER + addresses as u64);
    (limit.saturating_sub(held + reserved) / 2).max(1) as usize
}

/// The most pipes of one worker: half of the reserved descriptors are for pipes, two each.
pub(super) fn pipes_max(workers: usize) -> usize {
    let (_, reserved) = limit_and_reserved();
    reserved as usize / 4 / workers.max(1)
}

fn limit_and_reserved() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    (limit, (limit / RESERVED).clamp(64, 8192).min(limit / 4))
}
