//! What the far end of a socket does: it connects, answers a connect, sends, finishes, resets, closes and reads.
//!
//! Delivers nothing by itself: bytes, an end and a reset wait on the wire until `events` or a call lets them arrive.
//! Invariant: the far end never sees more than the code under test has sent.

use std::net::SocketAddr;

use super::super::socket::{Closed, Mask, PeerRead};
use super::{Id, Kernel};
use crate::fault::Fault;

impl Kernel {
    /// A client connects: its socket waits to be accepted.
    pub fn dial(&mut self, from: SocketAddr) -> Id {
        let id = self.make(true);
        self.queue.push_back((id, from));
        id
    }

    /// Answers a connect.
    pub fn answer(&mut self, id: Id, answer: Result<(), Fault>) {
        let socket = &mut self.sockets[id as usize];
        match answer {
            Ok(()) => {
                socket.connected = true;
                socket.pending.add(Mask::WRITABLE);
            }
            Err(why) => socket.broken(why),
        }
    }

    /// The other end sends; as much is taken as fits into the receive buffer.
    pub fn send(&mut self, id: Id, bytes: &[u8], buffer: usize) -> usize {
        let lost = self.lost();
        let socket = &mut self.sockets[id as usize];
        if socket.gone {
            return bytes.len();
        }
        if socket.closed.is_some() {
            // The socket is closed, so the sender gets a reset.
            if !socket.sent.is_empty() {
                socket.closed = Some(Closed::Reset);
                socket.lose(lost);
            }
            return bytes.len();
        }
        let n = bytes.len().min(buffer.saturating_sub(socket.coming.len()));
        socket.coming.push(&bytes[..n]);
        n
    }

    /// The other end sends an urgent byte, which is not part of the stream. One at a time: a second would make the
    /// first an ordinary byte.
    pub fn send_urgent(&mut self, id: Id) {
        let socket = &mut self.sockets[id as usize];
        if socket.urgent_at.is_none() && !socket.end_coming && !socket.gone {
            socket.urgent_at = Some(socket.coming.len());
        }
    }

    /// The other end finishes.
    pub fn finish(&mut self, id: Id) {
        self.sockets[id as usize].end_coming = true;
    }

    /// The other end resets, or is found to be gone.
    pub fn abort(&mut self, id: Id, why: Fault) {
        let careless = self.random.one_in(2);
        let socket = &mut self.sockets[id as usize];
        // After both ends nothing is left to be reset, once the last byte was acknowledged.
        let over = socket.end_delivered && socket.end_sent && (socket.sent.is_empty() || careless);
        if !socket.gone && !over {
            socket.reset_coming = Some(why);
        }
    }

    /// The other end closes: with bytes unread, that is a reset.
    pub fn leave(&mut self, id: Id) {
        if self.sockets[id as usize].sent.is_empty() {
            self.sockets[id as usize].peer_left = true;
            self.finish(id);
        } else {
            self.abort(id, Fault::Reset);
        }
    }

    /// The other end reads.
    pub fn take(&mut self, id: Id, most: usize, into: &mut Vec<u8>) -> PeerRead {
        into.clear();
        let socket = &mut self.sockets[id as usize];
        if socket.sent.is_empty() {
            return match socket.closed {
                _ if socket.end_sent => PeerRead::End,
                Some(Closed::Cleanly) => PeerRead::End,
                Some(Closed::Reset) => PeerRead::Reset,
                None => PeerRead::Nothing,
            };
        }
        let n = most.min(socket.sent.len());
        into.extend_from_slice(socket.sent.front(n));
        socket.sent.skip(n);
        if socket.wants_room && socket.has_room() {
            socket.wants_room = false;
            socket.pending.add(Mask::WRITABLE);
        }
        PeerRead::Bytes(n)
    }

    /// The far end gives up a socket that was not accepted.
    pub fn let_go(&mut self, id: Id) {
        if let Some(at) = self.queue.iter().position(|(queued, _)| *queued == id) {
            self.queue.remove(at);
            self.open.retain(|open| *open != id);
        }
    }

    /// What the other end did arrives.
    pub fn settle(&mut self, id: Id) {
        self.sockets[id as usize].deliver(true);
    }

    /// Bytes on their way to the code under test or not read by it, and bytes sent and not taken.
    pub fn in_flight(&self, id: Id) -> (usize, usize) {
        (self.socket(id).coming.len(), self.socket(id).sent.len())
    }
}
