//! [`Lease`]: the right to use one backend, counted while held.
//!
//! Chooses no backend, and limits nothing but where clients wait for a place (`queue.rs`). Invariant: a lease is given back
//! by `Drop` only, which passes the place on to a client that waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::backend::Backend;

/// The right to use one backend, counted while held.
#[derive(Debug)]
pub struct Lease(Arc<Backend>);

impl Lease {
    /// Takes a lease, which counts until it is dropped.
    pub fn new(backend: &Arc<Backend>) -> Self {
        backend.shared.leases.0.fetch_add(1, Relaxed);
        backend.leases.0.add();
        note(backend);
        Self(Arc::clone(backend))
    }

    /// Takes a lease if the backend has fewer than the configuration in force allows.
    pub(super) fn within_limit(backend: &Arc<Backend>) -> Option<Self> {
        if !backend.leases.0.add_below(backend.places.most()) {
            return None;
        }
        backend.shared.leases.0.fetch_add(1, Relaxed);
        note(backend);
        Some(Self(Arc::clone(backend)))
    }

    /// Backend that the lease counts for.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl std::ops::Deref for Lease {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.shared.leases.0.fetch_sub(1, Relaxed);
        self.0.leases.0.sub();
        note(&self.0);
        self.0.place_is_free();
    }
}

/// Tells a pool that picks by the number of leases that this number has changed.
fn note(backend: &Backend) {
    if let Some(seat) = backend.leases.0.seat()
        && let Some(ready) = &*backend.shared.ready.load()
    {
        ready.note_leases(seat, &backend.leases.0);
    }
}
