//! What a conversation has to do with the shared store: asking whose a value is, saying whose it has become.
//!
//! `request_cookie.rs` decides by the cookie, this decides when the store is asked or told. Invariant: what is asked for, once a
//! request, is known to nobody here, or known at a backend that cannot have it; what is waited for ends with the store's
//! budget; without a store, or while it is away, a request pays one look at a number.

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
    /// Tells the store that a value is in use, if it has not heard of it for a while.
    pub fn keep_in_store(&self, pool: &Pool, value: &[u8], key: KeyHash, backend: &Backend) {
        let BreakerState::Working(since) = self.store.look() else { return };
        let Some(remember) = pool.config().cookie.as_ref().and_then(Cookie::max_idle) else { return };
        if self.notes.borrow_mut().due(pool.sticks_as(), key, since, remember, clock::now() / 1_000) {
            self.store.keep(pool, value, backend);
        }
    }
}

impl RequestCookie<'_> {
    /// Asks the store about a value that nobody here knows, or whose backend, as it is known here, cannot have it: its
    /// client may have moved already, by another instance.
    pub async fn ask_store(&mut self, context: &RuntimeContext, scene: PickScene<'_>) {
        let BreakerState::Working(_) = context.store.look() else { return };
        let known = self.verdict;
        let now = || PickScene { now_ms: clock::now() / 1_000, ..scene };
        let can_have = |index: usize| self.pool.can_have(index, &now());
        let stays = known.and_then(CookieVerdict::backend).is_some_and(can_have);
        let Some(value) = self.value.clone().filter(|_| !stays && !self.asked) else { return };
        let Some(waiting) = context.store.find(self.pool, &value) else { return };
        self.asked = true;
        let mut store_wait = StoreWait::new(waiting);
        let Some(name) = poll_fn(|cx| store_wait.poll(context, cx)).await else { return };
        let backends = self.pool.backends();
        let found = backends.iter().position(|backend| *backend.name() == *name);
        if known.is_some() {
            let elsewhere = found.filter(|index| self.backend() != Some(*index) && can_have(*index));
            if elsewhere.is_none() {
                // Nobody knows better: it is placed anew, and that is told.
                return;
            }
            self.left = self.why_left();
        }
        if let (Some(backend), Some(table)) = (found.and_then(|index| backends.get(index)), self.pool.table()) {
            table.learn(&value, backend, clock::now() / 1_000);
        }
        self.verdict =
            Some(found.map_or(CookieVerdict::Removed, |backend| CookieVerdict::Fresh { backend, issued: self.now }));
    }

    /// Why the client does not get the backend that is known here. That the store names another one is no cause: what
    /// is counted is a known key that gets another backend, by each instance of what it knew itself, just as where
    /// placement alone makes instances agree.
    fn why_left(&self) -> Option<BreakCause> {
        self.backend().map_or_else(|| self.cause(), |index| Some(self.pool.why_not(index)))
    }

    /// The request has its backend: does the store know?
    pub fn tell_store(&self, context: &RuntimeContext, index: usize, backend: &Arc<Backend>) {
        let Some((value, remember)) = self.value.as_deref().zip(self.remember()) else { return };
        match self.verdict {
            Some(verdict) if verdict.backend() != Some(index) => context.store.moved(self.pool, value, backend),
            _ => context.keep_in_store(self.pool, value, remember.key, backend),
        }
    }

    /// The backend has set a value; what is to be waited for before the client hears of it.
    pub(super) fn tell_learned(
        &self,
        context: &RuntimeContext,
        value: &[u8],
        index: usize,
        backend: &Arc<Backend>,
    ) -> Option<StoreWait> {
        let known =
            self.value.as_deref() == Some(value) && self.verdict.and_then(CookieVerdict::backend) == Some(index);
        if known {
            // It was told when it came.
            return None;
        }
        let told = context.store.learned(self.pool, value, backend).map(StoreWait::new)?;
        let remember = self.pool.table().and_then(|table| table.remember_value(value));
        if let (BreakerState::Working(since), Some(remember)) = (context.store.look(), remember) {
            let lasts = self.pool.config().cookie.as_ref().and_then(Cookie::max_idle).unwrap_or_default();
            context.notes.borrow_mut().due(self.pool.sticks_as(), remember.key, since, lasts, clock::now() / 1_000);
        }
        Some(told)
    }
}
