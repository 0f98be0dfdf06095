//! How many descriptors the process may open, and what they are for.
//!
//! Pure arithmetic but for the kernel's limit and table. Invariant: connections, pipes and what the process holds itself fit into
//! the limit together, so a full balancer refuses connections before it runs out of descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::snapshot::Snapshot;

/// One descriptor in this many is reserved for what comes and goes beside connections: pipes, admin interface, checks.
const RESERVED: u64 = 20;

/// Descriptors that the process itself holds: standard streams, lock, admin interface, runtime, signals, log.
const HELD: u64 = 16;

/// Descriptors of one worker and its runtime: epoll and eventfd of each, and a timer of each.
const PER_WORKER: u64 = 6;

/// Descriptors for which the kernel's table has room from the start; eight bytes each.
const ROOM: u64 = 1 << 16;

/// Raises the limit of descriptors to the most that this user may have.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Makes the kernel's table of descriptors large before there are threads. The table doubles where it is full, and while
/// it does so every accept, connect and pipe of a process with threads stands still until all cores have passed through
/// the scheduler (`expand_fdtable`): tens of milliseconds, and hundreds under load.
pub(super) fn make_room() {
    make_room_for(ROOM);
}

/// Makes room for so many descriptors, or for as many as the limit allows.
pub(super) fn make_room_for(count: u64) {
    let last = count.min(limit()).saturating_sub(1).try_into().unwrap_or(i32::MAX);
    // Taken and closed: the table never shrinks. A process without the room has it later.
    let _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last);
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

/// The most pipes of one worker: half of the reserved descriptors are for pipes, two each. The runtime beside it may have
/// a quarter as many of its own.
pub(super) fn pipes_max(workers: usize) -> usize {
    let (_, reserved) = limit_and_reserved();
    reserved as usize / 4 / workers.max(1)
}

fn limit_and_reserved() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    (limit, (limit / RESERVED).clamp(64, 8192).min(limit / 4))
}
