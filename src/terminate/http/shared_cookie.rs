//! A request's cookie in the shared store: when a value is read from it, and when it is written.
//!
//! `request_cookie.rs` reads the cookie and decides what it is worth. Invariant: a request reads the store at most
//! once, and only for values that are unknown here or that its backend here cannot serve; each wait ends with the
//! store's budget; without a store, or while its circuit breaker is open, a request costs one atomic load.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use super::request_cookie::RequestCookie;
use crate::clock;
use crate::config::Cookie;
use crate::pool::{Backend, PickScene, Pool};
use crate::sticky::Left;
use crate::sticky::cookie::CookieVerdict;
use crate::sticky::table::{EntryKind, KeyHash};
use crate::store::{BreakerState, StoredValue};
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
    /// serve it: another instance may have moved the client already. Of several values, those unknown here are read
    /// too, unless the one that counts is known to be set by a backend.
    pub async fn look_up_in_store(&mut self, context: &RuntimeContext, scene: PickScene<'_>) {
        let BreakerState::Working(_) = context.store.look() else { return };
        let known = self.verdict;
        let now = || PickScene { now_ms: clock::now_ms(), ..scene };
        let can_have = |index: usize| self.pool.can_have(index, &now());
        let stays = known.and_then(CookieVerdict::backend).is_some_and(can_have);
        let Some((value, stored)) = self.find_in_store(context, stays).await else { return };
        let backends = self.pool.backends();
        let found = backends.iter().position(|backend| *backend.name() == *stored.backend);
        if known.is_some() {
            let is_news = |index| stays || self.backend() != Some(index);
            if !found.is_some_and(|index| is_news(index) && can_have(index)) {
                // The store names no usable backend either: the pick places the client anew, `update_store` writes it.
                return;
            }
            self.store_left = if stays { None } else { self.left_here() };
        }
        if let (Some(backend), Some(table)) = (found.and_then(|index| backends.get(index)), self.pool.table()) {
            let kind = if stored.is_set { EntryKind::Learned } else { EntryKind::Brought };
            table.learn_as(kind, &value, backend, clock::now_ms());
        }
        self.value = Some(value);
        let removed = CookieVerdict::Removed { former: None };
        self.verdict = Some(found.map_or(removed, |backend| CookieVerdict::Fresh { backend, issued: self.now }));
    }

    /// The value that counts of those in the store: the first that a backend has set, else the first. `stays`: the
    /// client has a backend by a value that was only brought, and only a set one counts more.
    async fn find_in_store(&mut self, context: &RuntimeContext, stays: bool) -> Option<(Rc<[u8]>, StoredValue)> {
        if self.looked_up {
            return None;
        }
        let values = self.value.iter().filter(|_| !stays).chain(&self.unknown);
        let find = |value: &Rc<[u8]>| Some((Rc::clone(value), StoreWait::new(context.store.find(self.pool, value)?)));
        let waits: Vec<_> = values.filter_map(find).collect();
        self.looked_up = !waits.is_empty();
        let mut counts: Option<(Rc<[u8]>, StoredValue)> = None;
        // All were sent at once, and all waits end with the same budget.
        for (value, mut store_wait) in waits {
            let Some(stored) = poll_fn(|cx| store_wait.poll(&context.timer_fd, cx)).await else { continue };
            if counts.as_ref().is_none_or(|(_, known)| stored.is_set && !known.is_set) {
                counts = Some((value, stored));
            }
        }
        counts.filter(|(_, stored)| stored.is_set || !stays)
    }

    /// The backend known here, and why the client does not get it. Another backend in the store is no cause by itself:
    /// each instance counts the keys that it knew and that get another backend, as it does without a store.
    fn left_here(&self) -> Option<Left> {
        match self.backend() {
            Some(index) => Some(Left::backend(index, self.pool.why_not(index))),
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
