//! What clients and backends do, each at a moment of their own.
//!
//! Knows nothing of the worker. Invariant: received bytes are compared at once with the bytes sent, and an end or a
//! reset with what its sender did.

use std::net::{IpAddr, SocketAddr};

use super::kernel::Id;
use super::peer::{NextAction, Peer, Script};
use super::socket::PeerRead;
use super::world::{BULK, ClientGreeting, ConnectScript, World};
use crate::config::Address;
use crate::fault::Fault;

impl World {
    pub(super) fn new_client(&mut self) {
        self.to_come -= 1;
        let sources = if self.scenario.per_source.is_some() { 3 } else { 200 };
        let source = IpAddr::from([10, 0, self.random.below(4) as u8, self.random.below(sources) as u8]);
        let from = SocketAddr::new(source, 40_000);
        let id = self.kernel.borrow_mut().dial(from);
        let prefix = match &self.scenario.greeting {
            ClientGreeting::None => Vec::new(),
            ClientGreeting::Proxy(bytes) | ClientGreeting::Hello(bytes) => bytes.clone(),
        };
        self.new_peer(id, prefix, Some(source));
        if self.to_come == 0 && self.scenario.removes_listener {
            self.listener_removed = true;
            self.newest().worker.remove_listener(0);
        }
    }

    fn new_peer(&mut self, id: Id, prefix: Vec<u8>, source: Option<IpAddr>) {
        let random = &mut self.random;
        let chunk = 1 + random.one_of(&[20, 2_000, 200_000]);
        let total = match random.below(8) {
            0 => 0,
            1 | 2 => random.below(600_000),
            3 => random.below(80_000),
            _ => random.below(300),
        };
        let (chunk, total) = match self.scenario.bulky {
            false => (chunk, total.min(chunk * 200)),
            true => (BULK, random.below(BULK)),
        };
        let script = match self.scenario.hostile.then(|| random.below(16)) {
            Some(0 | 1) => Script::Aborts(random.below(prefix.len() + total + 1)),
            Some(2) => Script::AbortsAfterEnd,
            Some(3) => Script::Vanishes(random.below(prefix.len() + total + 1)),
            Some(4) => Script::Leaves(random.below(prefix.len() + total + 1)),
            Some(5) => Script::Rests(random.below(prefix.len() + total + 1)),
            Some(6) if !prefix.is_empty() => Script::Rests(random.below(prefix.len())),
            Some(7) if !prefix.is_empty() => Script::Quits(random.below(prefix.len())),
            _ => Script::Completes,
        };
        let mut peer = Peer::new(id, source, total, script);
        (peer.prefix, peer.chunk) = (prefix, chunk);
        peer.buffer = if self.scenario.bulky { BULK } else { 1 + random.one_of(&[500, 40_000, 200_000]) };
        if source.is_none() {
            peer.waits = self.random.one_in(3);
            if let ClientGreeting::Hello(hello) = &self.scenario.greeting {
                peer.expected_prefix = hello.clone();
            }
            peer.expects_header = self.scenario.config.pools[0].proxy.is_some();
        }
        let at = id as usize;
        if self.peers.len() <= at {
            self.peers.resize_with(at + 1, || None);
        }
        self.peers[at] = Some(peer);
        self.awake.push(id);
    }

    pub(super) fn answer_connects(&mut self) {
        let mut at = 0;
        while let Some((id, address)) = {
            let kernel = self.kernel.borrow();
            kernel.connecting.get(at).cloned()
        } {
            if self.random.one_in(2) {
                at += 1;
                continue;
            }
            self.kernel.borrow_mut().connecting.remove(at);
            let answer = match self.scenario.backends[backend_index(&address)] {
                ConnectScript::Never => continue,
                ConnectScript::Refuse => Err(Fault::Refused),
                ConnectScript::Unreachable => Err(Fault::Unreachable),
                ConnectScript::Accept => Ok(()),
            };
            self.kernel.borrow_mut().answer(id, answer);
            if answer.is_ok() {
                self.new_peer(id, Vec::new(), None);
            }
        }
    }

    /// One action of a peer; false if there was none to take.
    pub(super) fn act(&mut self, id: Id) -> Result<bool, String> {
        let longest = if self.scenario.hostile { 3_000_000 } else { 300_000 };
        if self.random.one_in(40) {
            let until = self.kernel.borrow().now + self.random.below(longest) as u64;
            if let Some(peer) = self.peer_mut(id) {
                peer.stalled_until = peer.stalled_until.max(until);
            }
            return Ok(true);
        }
        if self.random.one_in(2) { Ok(self.speak(id)) } else { self.hear(id) }
    }

    fn stands(&self, id: Id) -> bool {
        let now = self.kernel.borrow().now;
        self.peer(id).is_none_or(|peer| peer.stalled_until > now || peer.gone || peer.heard_reset)
    }

    pub(super) fn speak(&mut self, id: Id) -> bool {
        if self.stands(id) {
            return false;
        }
        let Some(Some(peer)) = self.peers.get_mut(id as usize) else { return false };
        let mut kernel = self.kernel.borrow_mut();
        match peer.next_action() {
            NextAction::Nothing => return false,
            NextAction::Send(most) => {
                let n = 1 + self.random.below(most);
                peer.say(n, &mut self.bytes);
                let taken = kernel.send(id, &self.bytes, peer.buffer);
                peer.sent += taken;
                if self.random.one_in(64) {
                    kernel.send_urgent(id);
                }
                return taken > 0;
            }
            NextAction::Finish => {
                peer.finished = true;
                kernel.finish(id);
            }
            NextAction::Abort => {
                peer.gone = true;
                kernel.abort(id, Fault::Reset);
            }
            NextAction::Vanish => {
                peer.gone = true;
                kernel.abort(id, Fault::Gone);
            }
            NextAction::Leave => {
                (peer.gone, peer.finished) = (true, kernel.in_flight(id).1 == 0);
                kernel.leave(id);
            }
        }
        true
    }

    pub(super) fn hear(&mut self, id: Id) -> Result<bool, String> {
        if self.stands(id) {
            return Ok(false);
        }
        let most = 1 + self.random.below(if self.scenario.bulky { BULK } else { 100_000 });
        let taken = self.kernel.borrow_mut().take(id, most, &mut self.bytes);
        let Some(Some(peer)) = self.peers.get_mut(id as usize) else { return Ok(false) };
        match taken {
            PeerRead::Nothing => return Ok(false),
            PeerRead::Bytes(_) => {
                peer.hear(&self.bytes)?;
                self.meet(id)?;
            }
            PeerRead::End => {
                if std::mem::replace(&mut peer.heard_end, true) {
                    return Ok(false);
                }
                self.heard_end(id)?;
            }
            PeerRead::Reset => {
                peer.heard_reset = true;
                self.heard_reset(id)?;
            }
        }
        Ok(true)
    }

    /// The sender of received bytes must receive from this peer, and from no other.
    fn meet(&mut self, id: Id) -> Result<(), String> {
        let Some((partner, is_client)) = self.peer(id).and_then(|peer| Some((peer.partner?, peer.is_client()))) else {
            return Ok(());
        };
        let Some(other) = self.peer_mut(partner) else { return Err(format!("peer {id}: bytes of nobody")) };
        if other.is_client() == is_client || other.partner.is_some_and(|back| back != id) {
            return Err(format!("peer {id}: bytes of a stranger, {partner}"));
        }
        other.partner = Some(id);
        Ok(())
    }

    fn heard_end(&mut self, id: Id) -> Result<(), String> {
        let kernel = self.kernel.borrow();
        let established = |partner: &Id| {
            let backend = if self.peer(id).is_some_and(|peer| peer.is_client()) { *partner } else { id };
            kernel.socket(backend).established_at.is_some() && self.peer(*partner).is_some_and(|other| !other.gone)
        };
        let Some(peer) = self.peer(id) else { return Ok(()) };
        let partner = peer.partner.or_else(|| kernel.socket(id).partner.filter(established));
        let Some(other) = partner.and_then(|partner| self.peer(partner)) else { return Ok(()) };
        if !other.finished || peer.heard() != other.said() {
            return Err(format!("peer {id}: an end after {} of {} bytes", peer.heard(), other.total));
        }
        Ok(())
    }

    fn heard_reset(&self, id: Id) -> Result<(), String> {
        let partner = self.peer(id).and_then(|peer| self.peer(peer.partner?));
        match partner {
            Some(other) if !self.scenario.hostile && !other.gone => Err(format!("peer {id}: reset for no reason")),
            _ => Ok(()),
        }
    }
}

/// Backends stand at 192.0.2.N, N from 0.
fn backend_index(address: &Address) -> usize {
    match address {
        Address::Tcp(SocketAddr::V4(v4)) => usize::from(v4.ip().octets()[3]),
        _ => 0,
    }
}
