//! [`Candidates`]: which of a pool's backends can take one connection.
//!
//! Each method judges one backend, or how near it is to another; `pick.rs` orders them. Invariant: nothing is written,
//! and `max_connections` never keeps a client from a backend to which it already holds a connection.

use std::sync::Arc;

use super::placement_key::pin;
use super::scene::{HealthView, PickScene};
use super::{Health, Pool};
use crate::config::{self, OnFull};
use crate::outcome::BreakCause;
use crate::sticky::range::{Pin, Range};
use crate::sticky::{Had, Left};

/// The backends of a pool, by index, as one connection meets them.
pub(super) struct Candidates<'p, 's, V> {
    pub(super) pool: &'p Pool,
    pub(super) scene: &'s PickScene<'s, V>,
}

impl<V: HealthView> Candidates<'_, '_, V> {
    /// What the backend can do now, as the scene sees it.
    #[inline]
    pub(super) fn health(&self, index: usize) -> Health {
        self.scene.view.health(&self.pool.backends[index], index, self.scene.now_ms)
    }

    /// Number of keys that the stick table remembers at this backend; 0 without one.
    pub(super) fn known_at(&self, index: usize) -> u64 {
        self.scene.view.table(self.pool.table.as_ref()).map_or(0, |table| table.known_at(index))
    }

    /// True if one more connection of this client would exceed `max_connections`.
    #[inline]
    pub(super) fn is_full(&self, index: usize) -> bool {
        is_full(self.pool, index) && !self.scene.holds.is_some_and(|holds| holds(&self.pool.backends[index]))
    }

    /// True if another backend has to serve instead: the connection failed here, or the backend is full and the client
    /// does not wait for it, nor is refused. `belongs`: the client is known there, or its key belongs there.
    #[inline]
    pub(super) fn is_out(&self, index: usize, belongs: bool) -> bool {
        let overflows = match self.pool.config.on_full {
            OnFull::Overflow => self.is_full(index),
            OnFull::Queue(_) => !belongs && self.is_full(index),
            OnFull::Reject => false,
        };
        overflows || self.scene.tried.iter().any(|backend| Arc::ptr_eq(backend, &self.pool.backends[index]))
    }

    /// True if a client known at this backend is answered by it: served, or when it is full refused (`on_full = "reject"`)
    /// or put into its line (`on_full = "queue"`).
    #[inline]
    pub(super) fn serves(&self, index: usize) -> bool {
        let drained = self.pool.backends[index].drained(self.scene.now_ms);
        self.health(index) == Health::Usable && !drained && !self.is_out(index, true)
    }

    /// True if the backend takes new clients, as far as its health counts: at least `least`, and not draining. The last
    /// resort, `least` = [`Health::Down`], uses draining backends too.
    #[inline]
    pub(super) fn takes(&self, index: usize, least: Health) -> bool {
        self.health(index) >= least && (least == Health::Down || !self.pool.backends[index].draining())
    }

    /// True if the backend takes this connection of a client that is new to it.
    pub(super) fn receives(&self, index: usize) -> bool {
        self.takes(index, Health::Usable) && self.pool.config.backends[index].weight > 0 && !self.is_out(index, false)
    }

    /// True if the client's range allows this backend. A pin that is not strict allows every backend as long as no
    /// backend of the pin takes the client.
    pub(super) fn allows(&self, range: Option<&Range>, index: usize) -> bool {
        let own = |pin: &Pin| (0..self.pool.backends.len()).any(|own| pin.allows(own) && self.receives(own));
        pin(range).is_none_or(|pin| pin.allows(index) || !pin.strict && !own(pin))
    }

    /// Decides whether a client known at this backend, by cookie or by stick table, gets it. The error is the reason
    /// why the client has to move.
    pub(super) fn keeps(&self, index: usize, range: Option<&Range>) -> Result<(), BreakCause> {
        match (self.allows(range, index), self.serves(index)) {
            (false, _) => Err(BreakCause::Range),
            (true, false) => match self.pool.why_not(index) {
                // It would have waited.
                BreakCause::Full if self.pool.may_have_lines() => Err(BreakCause::Down),
                cause => Err(cause),
            },
            (true, true) => Ok(()),
        }
    }
}

impl Pool {
    /// The location that a client prefers which leaves a backend: the nearest siblings of that one come first, as
    /// placement has it for a key that cannot go home. Empty: no backend has a preference before others, for example
    /// because a policy brings the client to where its key belongs.
    pub(super) fn near(&self, left: Option<Left>) -> &[String] {
        match left {
            Some(Left { cause: BreakCause::Moved | BreakCause::Returned, .. }) => &[],
            Some(Left { had: Had::Backend(index), .. }) => &self.config.backends[index].location,
            _ => &[],
        }
    }

    /// Number of levels of this location, from the outermost on, that a backend is in as well; of a backup 0, because
    /// backups come after all others.
    pub(super) fn levels_near(&self, index: usize, near: &[String]) -> usize {
        let config::Backend { location, backup, .. } = &self.config.backends[index];
        let levels = location.iter().zip(near).take_while(|(own, near)| own == near).count();
        if *backup { 0 } else { levels }
    }
}

/// True if a backend has as many connections as `max_connections` allows, or others wait for a place there already.
pub(super) fn is_full(pool: &Pool, index: usize) -> bool {
    if matches!(pool.config.on_full, OnFull::Queue(_)) {
        return pool.backends[index].has_line();
    }
    let most = pool.config.backends[index].max_connections;
    most.is_some_and(|most| pool.backends[index].leases() >= u64::from(most))
}
