//! One imitated socket, the wire to its far end, and the events that epoll would report of it.
//!
//! Invariant: bytes are read in the order in which they were sent, and the end only after them.

use super::bytes::Bytes;
use super::kernel::Id;
use crate::fault::Fault;
use crate::splicer::os::{Event, Micros, Token};

/// What an event tells, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mask(u8);

impl Mask {
    pub(super) const NONE: Self = Self(0);
    pub(super) const READABLE: Self = Self(1);
    pub(super) const WRITABLE: Self = Self(2);
    pub(super) const FINISHED: Self = Self(4);
    pub(super) const FAILED: Self = Self(8);
    pub(super) const URGENT: Self = Self(16);
    /// The watcher was woken without an event that it watches.
    pub(super) const WOKEN: Self = Self(32);
    pub(super) const BROKEN: Self = Self(15);

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) fn when(self, so: bool) -> Self {
        if so { self } else { Self::NONE }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn event(self, token: Token) -> Event {
        Event {
            token,
            readable: self.has(Self::READABLE),
            writable: self.has(Self::WRITABLE),
            finished: self.has(Self::FINISHED),
            failed: self.has(Self::FAILED),
            urgent: self.has(Self::URGENT),
        }
    }
}

/// How the code under test closed a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The end follows what was sent.
    Cleanly,
    /// What was sent may be lost.
    Reset,
}

/// What the far end finds when it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerRead {
    /// So many bytes.
    Bytes(usize),
    /// The end.
    End,
    /// A reset.
    Reset,
    /// Nothing yet.
    Nothing,
}

/// One socket of the code under test, and the wire to its far end.
#[derive(Debug, Default)]
pub struct SimSocket {
    /// Bytes on the wire and in the buffer; the first `delivered` can be read.
    pub(super) coming: Bytes,
    pub(super) delivered: usize,
    /// An urgent byte stood before the byte with this number.
    pub(super) urgent_at: Option<usize>,
    pub(super) end_coming: bool,
    pub(super) end_delivered: bool,
    pub(super) reset_coming: Option<Fault>,
    pub(super) connected: bool,
    /// Reset, or never connected: every call fails or ends.
    pub gone: bool,
    pub(super) error: Option<Fault>,
    /// Bytes sent and not yet taken by the other end.
    pub(super) sent: Bytes,
    pub(super) room: usize,
    /// Room is told when a third is free, not when a byte is.
    pub(super) tells_late: bool,
    pub(super) end_sent: bool,
    pub(super) wants_room: bool,
    /// The other end has closed: what it is sent is answered by a reset.
    pub(super) peer_left: bool,
    pub(super) token: Option<Token>,
    /// The process that watches it.
    pub(super) watcher: usize,
    /// Descriptors besides the first.
    pub(super) duplicates: u32,
    pub(super) pending: Mask,
    pub(super) refused_read: bool,
    pub(super) refused_write: bool,
    pub(super) reads: (u64, u32),
    /// How it was closed.
    pub closed: Option<Closed>,
    /// When it was accepted.
    pub accepted_at: Option<Micros>,
    /// When it began to connect.
    pub asked_at: Option<Micros>,
    /// When it was told to be connected.
    pub established_at: Option<Micros>,
    /// When it last moved a byte.
    pub moved_at: Micros,
    /// Keepalive was switched on.
    pub kept_alive: bool,
    /// When the end was first read.
    pub end_read: Option<Micros>,
    /// The other socket of its connection; of a client, the last.
    pub partner: Option<Id>,
    /// Of a client: when a backend was first asked for it.
    pub first_asked_at: Option<Micros>,
}

impl SimSocket {
    /// All that is so now, as `poll` would say it.
    pub(super) fn level(&self) -> Mask {
        if !self.connected && !self.gone {
            return Mask::NONE;
        }
        let ended = self.end_delivered || self.gone;
        Mask::READABLE
            .when(ended || self.delivered > 0)
            .and(Mask::WRITABLE.when(self.gone || self.end_sent || self.has_room()))
            .and(Mask::FINISHED.when(ended))
            .and(Mask::FAILED.when(self.error.is_some()))
            .and(Mask::URGENT.when(self.urgent_at.is_some_and(|at| at <= self.delivered)))
    }

    pub(super) fn has_room(&self) -> bool {
        if self.tells_late { self.sent.len() * 3 <= self.room * 2 } else { self.sent.len() < self.room }
    }

    /// Whether it would take a byte, and its owner does not wait for an event that says so.
    pub(super) fn is_ready(&self) -> bool {
        let open = self.closed.is_none() && !self.gone && !self.end_sent && !self.peer_left;
        open && self.pending == Mask::NONE && !self.refused_write && self.has_room()
    }

    pub(super) fn undelivered(&self) -> bool {
        self.delivered < self.coming.len() || (self.end_coming && !self.end_delivered) || self.reset_coming.is_some()
    }

    /// What is on the wire arrives; `all` of it, or bytes only.
    pub(super) fn deliver(&mut self, all: bool) {
        if self.delivered < self.coming.len() {
            self.delivered = self.coming.len();
            self.pending.add(Mask::READABLE);
            self.pending.add(Mask::URGENT.when(self.urgent_at.is_some()));
        }
        if all && self.end_coming && !self.end_delivered {
            self.end_delivered = true;
            self.pending.add(Mask::READABLE.and(Mask::FINISHED));
        }
        if all && let Some(why) = self.reset_coming.take() {
            self.broken(why);
        }
    }

    pub(super) fn broken(&mut self, why: Fault) {
        if self.gone {
            return;
        }
        (self.error, self.gone) = (Some(why), true);
        self.sent.truncate(0);
        self.pending.add(Mask::BROKEN);
    }

    /// The token that it is watched with.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// When it last moved a byte or came to the end.
    pub fn active_at(&self) -> Micros {
        self.moved_at.max(self.end_read.unwrap_or_default())
    }

    /// What an event tells: the `whole` state, or what has changed; `None` when that is nothing.
    pub(super) fn tell(&mut self, whole: bool, now: Micros) -> Option<Mask> {
        let level = self.level();
        let changed = std::mem::take(&mut self.pending);
        let told = if whole { level } else { Mask(changed.0 & !Mask::WOKEN.0) };
        // To be looked at while full asks for room.
        self.wants_room |= whole && self.connected && !self.has_room();
        self.refused_read &= !told.has(Mask::READABLE);
        self.refused_write &= !told.has(Mask::WRITABLE);
        if told.has(Mask::WRITABLE) && self.connected && !self.gone {
            self.established_at.get_or_insert(now);
        }
        (told != Mask::NONE).then_some(told)
    }

    /// At most so much of what was sent, and the end after it, does not reach a peer that is reset.
    pub(super) fn lose(&mut self, most: usize) {
        let kept = self.sent.len() - most % (self.sent.len() + 1);
        self.end_sent &= kept == self.sent.len();
        self.sent.truncate(kept);
    }

    /// Bytes that one read may take; an urgent byte before them is passed over, or blocks.
    pub(super) fn readable(&mut self, passes_urgent: bool) -> usize {
        match self.urgent_at {
            Some(0) if passes_urgent && self.delivered > 0 => {
                self.urgent_at = None;
                self.delivered
            }
            Some(at) => self.delivered.min(at),
            None => self.delivered,
        }
    }

    /// Takes bytes out.
    pub(super) fn read(&mut self, n: usize, into: impl FnOnce(&[u8])) {
        into(self.coming.front(n));
        self.coming.skip(n);
        self.delivered -= n;
        if let Some(at) = &mut self.urgent_at {
            *at -= n;
        }
    }
}
