//! The system calls of the code under test: one method, one call of the trait `Os`.
//!
//! Reads and writes nothing of the far end. Invariant: each call is counted, and a call that the contract of `Os`
//! forbids is noted as a violation.

use std::net::SocketAddr;

use super::super::bytes::Bytes;
use super::super::socket::{Closed, Mask};
use super::{ACCEPTS_MAX, Id, Kernel, Traced};
use crate::config::Address;
use crate::fault::Fault;
use crate::splicer::os::{Io, Side, Token};

/// Reads of one socket in one turn; one that reads on and on starves others.
const READS_MAX: u32 = 20;

impl Kernel {
    /// A socket that begins to connect.
    pub(in super::super) fn connect(&mut self, to: &Address) -> Id {
        let id = self.make(false);
        self.sockets[id as usize].asked_at = Some(self.now);
        self.connecting.push((id, to.clone()));
        id
    }

    /// The code under test closes a socket.
    pub(in super::super) fn close(&mut self, id: Id, how: Closed) {
        let lost = self.lost();
        let socket = &mut self.sockets[id as usize];
        if socket.closed.is_some() {
            return;
        }
        // Closing with unread bytes tells the other end so (RFC 1122 §4.2.2.13).
        let unread = !socket.coming.is_empty() && !socket.gone;
        socket.closed = Some(if unread { Closed::Reset } else { how });
        socket.token = None;
        if socket.closed == Some(Closed::Reset) {
            socket.lose(lost);
        }
        socket.coming = Bytes::default();
        if socket.accepted_at.is_some() {
            self.ended.push(id);
        }
        self.open.retain(|open| *open != id);
        self.connecting.retain(|(connecting, _)| *connecting != id);
    }

    /// Takes up to `most` bytes from a socket.
    pub(in super::super) fn read(&mut self, id: Id, most: usize, passes_urgent: bool, into: impl FnOnce(&[u8])) -> Io {
        let (now, turn, scripted) = (self.now, self.turn, self.scripted);
        self.trace.iter_mut().for_each(|trace| trace.push(Traced::Read(id)));
        let socket = self.call(id);
        let n = most.min(socket.readable(passes_urgent));
        if n > 0 {
            socket.read(n, into);
            socket.moved_at = now;
            let reads = if socket.reads.0 == turn { socket.reads.1 + 1 } else { 1 };
            socket.reads = (turn, reads);
            if reads > READS_MAX {
                self.violations.push(format!("socket {id}: read {reads} times in one turn"));
            }
            return Io::Moved(n);
        }
        // As soon as the end has come, splice(2) says it at an urgent byte, whatever stands behind that.
        if !passes_urgent && socket.end_delivered && socket.urgent_at == Some(0) {
            return Io::End;
        }
        // The end comes before the error: reading never shows a reset that followed it.
        if socket.end_delivered && socket.delivered == 0 {
            socket.end_read.get_or_insert(now);
            return Io::End;
        }
        if let Some(why) = socket.error.take() {
            return Io::Broken(why);
        }
        if socket.gone && socket.delivered == 0 {
            return Io::End;
        }
        if std::mem::replace(&mut socket.refused_read, true) && !scripted {
            self.violations.push(format!("socket {id}: read again though nothing was told"));
        }
        Io::Later
    }

    /// Gives bytes to a socket.
    pub(in super::super) fn write(&mut self, id: Id, bytes: &[u8]) -> Io {
        let (now, scripted, short_of_memory) = (self.now, self.scripted, self.random.one_in(8) && !self.scripted);
        let socket = self.call(id);
        if socket.end_sent {
            self.violations.push(format!("socket {id}: sent after shutdown"));
            return Io::Broken(Fault::Reset);
        }
        if let Some(why) = socket.error.take() {
            return Io::Broken(why);
        }
        if socket.gone {
            return Io::Broken(Fault::Reset);
        }
        if socket.peer_left && socket.connected {
            socket.reset_coming = Some(Fault::Reset);
            socket.moved_at = now;
            return Io::Moved(bytes.len());
        }
        let mut n = if socket.connected { bytes.len().min(socket.room.saturating_sub(socket.sent.len())) } else { 0 };
        if n > 1 && short_of_memory {
            // What room is there is told at once.
            n /= 2;
        }
        socket.sent.push(&bytes[..n]);
        if n < bytes.len() && socket.connected {
            let full = socket.sent.len() >= socket.room;
            socket.wants_room |= full;
            socket.pending.add(Mask::WRITABLE.when(!full));
        }
        if n > 0 {
            socket.moved_at = now;
            return Io::Moved(n);
        }
        if std::mem::replace(&mut socket.refused_write, true) && !scripted {
            self.violations.push(format!("socket {id}: sent again though no room was told"));
        }
        Io::Later
    }

    /// Finishes sending.
    pub(in super::super) fn shutdown(&mut self, id: Id) {
        let socket = self.call(id);
        // Epoll reports the socket to its watcher then.
        socket.pending.add(Mask::WOKEN);
        if std::mem::replace(&mut socket.end_sent, true) {
            self.violations.push(format!("socket {id}: shut down twice"));
        }
    }

    /// Takes the pending error.
    pub(in super::super) fn take_error(&mut self, id: Id) -> Option<Fault> {
        self.call(id).error.take()
    }

    /// Watches a socket; what is there already is told.
    pub(in super::super) fn watch(&mut self, id: Id, token: Token, process: usize) {
        let now = self.now;
        let connection = (process, token.with_side(Side::Client).to_bits());
        let partner = match token.side() {
            Side::Client => self.clients.insert(connection, id).filter(|_| false),
            _ => self.clients.get(&connection).copied(),
        };
        if let Some(partner) = partner {
            let client = &mut self.sockets[partner as usize];
            client.partner = Some(id);
            client.first_asked_at.get_or_insert(now);
        }
        let socket = self.call(id);
        let twice = socket.token.replace(token).is_some();
        socket.watcher = process;
        socket.partner = partner.or(socket.partner);
        socket.pending = socket.level();
        // To be added is to be told, so each call may be tried anew.
        (socket.refused_read, socket.refused_write) = (false, false);
        socket.wants_room |= socket.connected && !socket.has_room();
        if twice {
            self.violations.push(format!("socket {id}: watched though it is watched already"));
        }
    }

    /// A socket gets one more descriptor, in another process.
    pub(in super::super) fn duplicate(&mut self, id: Id) {
        let socket = self.call(id);
        socket.duplicates += 1;
        if socket.token.is_some() {
            self.violations.push(format!("socket {id}: went to another process though it is watched here"));
        }
    }

    /// A descriptor is closed; the last one closes the socket.
    pub(in super::super) fn drop_descriptor(&mut self, id: Id) {
        match &mut self.sockets[id as usize].duplicates {
            0 => self.close(id, Closed::Cleanly),
            duplicates => *duplicates -= 1,
        }
    }

    /// Ends that.
    pub(in super::super) fn unwatch(&mut self, id: Id) {
        self.call(id).token = None;
    }

    /// Switches keepalive on.
    pub(in super::super) fn keep_alive(&mut self, id: Id) {
        self.call(id).kept_alive = true;
    }

    /// A connection is accepted.
    pub(in super::super) fn accept(&mut self) -> Option<(Id, SocketAddr)> {
        let (id, from) = self.queue.pop_front()?;
        self.sockets[id as usize].accepted_at = Some(self.now);
        let accepts = if self.accepts.0 == self.turn { self.accepts.1 + 1 } else { 1 };
        self.accepts = (self.turn, accepts);
        if accepts > ACCEPTS_MAX {
            self.violations.push(format!("{accepts} connections were accepted in one turn"));
        }
        self.trace.iter_mut().for_each(|trace| trace.push(Traced::Accept));
        Some((id, from))
    }
}
