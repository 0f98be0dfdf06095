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
use crate::outcome::ClientMove;
use crate::pool::{Backend, PickScene, Pool};
use crate::sticky::Left;
use crate::sticky::cookie::CookieVerdict;
use crate::sticky::table::{EntryKind, KeyHash};
use crate::store::{BreakerState, KnownHere, StoreFinding, StoredValue};
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
        let pool = self.pool;
        let can_have = |index: usize| pool.can_have(index, &PickScene { now_ms: clock::now_ms(), ..scene });
        let here = KnownHere::new(pool, self.verdict, can_have);
        let Some((value, stored)) = self.find_in_store(context, here).await else { return };
        // Without a finding the pick places the client anew, and `update_store` writes that.
        let Some(found) = here.judge(&stored, self.now, can_have) else { return };
        let StoreFinding { verdict, backend, left, gone } = found;
        if let (Some(backend), Some(table)) = (backend.and_then(|index| pool.backends().get(index)), pool.table()) {
            let kind = if stored.is_set { EntryKind::Learned } else { EntryKind::Brought };
            table.learn_as(kind, &value, backend, clock::now_ms());
        }
        (self.value, self.verdict) = (Some(value), Some(verdict));
        (self.store_left, self.store_gone) = (left, gone);
    }

    /// The value that counts of those in the store.
    async fn find_in_store(
        &mut self,
        context: &RuntimeContext,
        here: KnownHere<'_>,
    ) -> Option<(Rc<[u8]>, StoredValue)> {
        if self.looked_up {
            return None;
        }
        let values = here.to_find(self.value.as_ref(), &self.unknown);
        let find = |value: &Rc<[u8]>| Some((Rc::clone(value), StoreWait::new(context.store.find(self.pool, value)?)));
        let waits: Vec<_> = values.filter_map(find).collect();
        self.looked_up = !waits.is_empty();
        let mut answers = Vec::with_capacity(waits.len());
        // All were sent at once, and all waits end with the same budget.
        for (value, mut store_wait) in waits {
            let stored = poll_fn(|cx| store_wait.poll(&context.timer_fd, cx)).await;
            answers.extend(stored.map(|stored| (value, stored)));
        }
        here.counts(answers)
    }

    /// The move of the client, which now has the backend at index `got`; `None`: it has not moved. `left`: what the pick
    /// says of the backend that it had, behind the cookie's word.
    pub fn client_move(&self, left: Option<Left>, got: usize) -> Option<ClientMove> {
        let ClientMove { from, cause } = self.pool.client_move(self.left().or(left), got)?;
        Some(ClientMove { from: from.or_else(|| self.store_gone.clone()), cause })
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
