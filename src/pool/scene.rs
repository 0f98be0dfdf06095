//! [`PickScene`]: everything that a pick looks at besides the pool.
//!
//! Both halves pick with the scene of a connection. `explain` and `plan` pick with a supposed one: health is what they
//! name, and nothing is read from or written to what connections share; `explain --live` reads all that a connection
//! reads, and writes nothing either. Invariant: a scene decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::backend::{Backend, Health};
use super::table::PoolTable;
use crate::sticky::Facts;

/// Returns true for a backend to which a client holds a connection.
pub type Holds<'a> = &'a dyn Fn(&Arc<Backend>) -> bool;

/// What a pick looks at besides the pool.
#[derive(Clone, Copy)]
pub struct PickScene<'a, V = LiveView> {
    /// What identifies the client.
    pub facts: &'a Facts<'a>,
    /// Index of the backend that a valid cookie of the request names.
    pub cookie: Option<usize>,
    /// Index of the backend where an earlier stream of the same HTTP/2 connection was placed; `None`: there is none, or
    /// this stream does not follow it.
    pub beside: Option<usize>,
    /// Backends that this connection could not reach.
    pub tried: &'a [Arc<Backend>],
    /// Where this client holds connections; those backends are never full for it. `None`: nowhere.
    pub holds: Option<Holds<'a>>,
    /// Now, in milliseconds of the process's clock.
    pub now_ms: u64,
    /// Where health, the stick table and the count of keyless picks come from.
    pub view: V,
}

/// Where a pick takes health, the stick table and the count of keyless picks from.
pub trait HealthView: Copy {
    /// What the backend at `index` can do now.
    fn health(&self, backend: &Backend, index: usize, now_ms: u64) -> Health;

    /// Next number for a keyless pick.
    fn draw(&self, draws: &AtomicU64) -> u64;

    /// The pool's stick table, if the pick reads and writes it.
    fn table<'p>(&self, table: Option<&'p PoolTable>) -> Option<&'p PoolTable>;

    /// True if health is that of the living backends, so that what a pool keeps of it between picks holds.
    fn is_living(&self) -> bool;

    /// True if a connection picks: the stick table counts the pick, and load rules write where it leads.
    fn is_noted(&self) -> bool;
}

/// The pool as connections meet it.
#[derive(Debug, Clone, Copy)]
pub struct LiveView;

/// The pool as a question about a client supposes it; a pick leaves no trace.
#[derive(Debug, Clone, Copy)]
pub struct SupposedView<'a> {
    /// Indexes of backends that are down, whatever else is so.
    pub down: &'a [usize],
    /// True: all others are as they are now, and the stick table is read. False: all others are up, and there is no
    /// stick table.
    pub living: bool,
}

impl<'a> PickScene<'a> {
    /// Scene of a connection without a cookie or earlier streams, of a client that holds no connection to a backend.
    #[inline]
    pub fn new(facts: &'a Facts<'a>, tried: &'a [Arc<Backend>], now_ms: u64) -> Self {
        Self { facts, cookie: None, beside: None, tried, holds: None, now_ms, view: LiveView }
    }
}

impl<'a> PickScene<'a, SupposedView<'a>> {
    /// Scene of a client that no stick table knows, while the backends in `down` are down and all others are up.
    pub fn supposed(facts: &'a Facts<'a>, cookie: Option<usize>, down: &'a [usize]) -> Self {
        let view = SupposedView { down, living: false };
        Self { facts, cookie, beside: None, tried: &[], holds: None, now_ms: 0, view }
    }

    /// Scene of the client's next connection, if the backends in `down` were down, too.
    pub fn asked(facts: &'a Facts<'a>, cookie: Option<usize>, down: &'a [usize], now_ms: u64) -> Self {
        Self { now_ms, view: SupposedView { down, living: true }, ..Self::supposed(facts, cookie, down) }
    }
}

impl HealthView for LiveView {
    #[inline(always)]
    fn health(&self, backend: &Backend, _index: usize, now_ms: u64) -> Health {
        backend.health(now_ms)
    }

    #[inline(always)]
    fn draw(&self, draws: &AtomicU64) -> u64 {
        draws.fetch_add(1, Relaxed)
    }

    #[inline(always)]
    fn table<'p>(&self, table: Option<&'p PoolTable>) -> Option<&'p PoolTable> {
        table
    }

    #[inline(always)]
    fn is_living(&self) -> bool {
        true
    }

    #[inline(always)]
    fn is_noted(&self) -> bool {
        true
    }
}

impl HealthView for SupposedView<'_> {
    fn health(&self, backend: &Backend, index: usize, now_ms: u64) -> Health {
        match (self.down.contains(&index), self.living) {
            (true, _) => Health::Down,
            (false, true) => backend.health(now_ms),
            (false, false) => Health::Usable,
        }
    }

    /// Reads the count without advancing it.
    fn draw(&self, draws: &AtomicU64) -> u64 {
        draws.load(Relaxed)
    }

    fn table<'p>(&self, table: Option<&'p PoolTable>) -> Option<&'p PoolTable> {
        table.filter(|_| self.living)
    }

    fn is_living(&self) -> bool {
        self.living && self.down.is_empty()
    }

    fn is_noted(&self) -> bool {
        false
    }
}
