//! A request's cookie in the shared store: when a value is read from it, and when it is written.
//!
//! `request_cookie.rs` reads the cookie and decides what it is worth. Invariant: a request reads the store at most
//! once, and only for a value that is unknown here or that its backend here cannot serve; each wait ends with the
//! store's budget; without a store, or while its circuit breaker is open, a request costs one atomic load.

use std::future::poll_fn;
use std::sync::Arc;

use super::request_cookie::RequestCookie;
use crate::clock;
use crate::config::Cookie;
use crate::outcome::BreakCause;
use crate::pool::{Backend, PickScene, Pool};
use crate::sticky::cookie::CookieVerdict;
use crate::sticky::table::KeyHash;
use crate::store::BreakerState;
use crate::terminate::runtime::RuntimeContext;
use crate::terminate::timer_fd::StoreWait;

impl RuntimeContext {
    /// Renews a value in the store while it is in use, a few times within the cookie's lifetime.
    pub fn keep_in_store(&self, pool: &Pool, value: &[u8], key: KeyHash, backend: &Backend) {
        let BreakerState::Working(since) = self.store.look() else { return };
        let Some(remember) = pool.config().cookie.as_ref().and_then(Cookie::max_idle) else { return };
        if self.notes.borrow_mut().due(pool.sticks_as(), key, since, remember, clock::now_ms()) {
            self.store.keep(pool, value, backend);
        }
    }
}

impl RequestCookie<'_> {
    /// Reads the value's backend from the store, if the value is unknown here, or if the backend known here cannot
    /// serve it: another instance may have moved the client already.
    pub async fn look_up_in_store(&mut self, context: &RuntimeContext, scene: PickScene<'_>) {
        let BreakerState::Working(_) = context.store.look() else { return };
        let known = self.verdict;
        let now = || PickScene { now_ms: clock::now_ms(), ..scene };
        let can_have = |index: usize| self.pool.can_have(index, &now());
        let stays = known.and_then(CookieVerdict::backend).is_some_and(can_have);
        let Some(value) = self.value.clone().filter(|_| !stays && !self.looked_up) else { return };
        let Some(waiting) = context.store.find(self.pool, &value) else { return };
        self.looked_up = true;
        let mut store_wait = StoreWait::new(waiting);
        let Some(name) = poll_fn(|cx| store_wait.poll(&context.timer_fd, cx)).await else { return };
        let backends = self.pool.backends();
        let found = backends.iter().position(|backend| *backend.name() == *name);
        if known.is_some() {
            let elsewhere = found.filter(|index| self.backend() != Some(*index) && can_have(*index));
            if elsewhere.is_none() {
                // The store names no usable backend either: the pick places the client anew, `update_store` writes it.
                return;
            }
            self.store_left = self.left();
        }
        if let (Some(backend), Some(table)) = (found.and_then(|index| backends.get(index)), self.pool.table()) {
            table.learn(&value, backend, clock::now_ms());
        }
        self.verdict =
            Some(found.map_or(CookieVerdict::Removed, |backend| CookieVerdict::Fresh { backend, issued: self.now }));
    }

    /// The backend known here, and why the client does not get it. Another backend in the store is no cause by itself:
    /// each instance counts the keys that it knew and that get another backend, as it does without a store.
    fn left(&self) -> Option<(Option<usize>, BreakCause)> {
        match self.backend() {
            Some(index) => Some((Some(index), self.pool.why_not(index))),
            None => self.verdict?.left(),
        }
    }

    /// Writes the backend of the request to the store: as a move if it is a new one, else as a renewal.
    pub fn update_store(&self, context: &RuntimeContext, index: usize, backend: &Arc<Backend>) {
        let Some((value, remember)) = self.value.as_deref().zip(self.remember()) else { return };
        match self.verdict {
            Some(verdict) if verdict.backend() != Some(index) => context.store.moved(self.pool, value, backend),
            _ => context.keep_in_store(self.pool, value, remember.key, backend),
        }
    }

    /// Writes a value that the backend has set. Returns the wait for the write, which ends before the client gets the
    /// value; `None`: the store has it already, or is not used.
    pub(super) fn store_learned(
        &self,
        context: &RuntimeContext,
        value: &[u8],
        index: usize,
        backend: &Arc<Backend>,
    ) -> Option<StoreWait> {
        let known =
            self.value.as_deref() == Some(value) && self.verdict.and_then(CookieVerdict::backend) == Some(index);
        if known {
            // The request came with it, and `update_store` has written it.
            return None;
        }
        let store_wait = context.store.learned(self.pool, value, backend).map(StoreWait::new)?;
        let remember = self.pool.table().and_then(|table| table.remember_value(value));
        if let (BreakerState::Working(since), Some(remember)) = (context.store.look(), remember) {
            let lasts = self.pool.config().cookie.as_ref().and_then(Cookie::max_idle).unwrap_or_default();
            context.notes.borrow_mut().due(self.pool.sticks_as(), remember.key, since, lasts, clock::now_ms());
        }
        Some(store_wait)
    }
}
