//! Listening sockets that go from one process to another by an upgrade: [`ListenSockets::inventory`] and
//! [`ListenSockets::give_up`] where they leave, [`ListenSockets::inherit`] where they arrive.
//!
//! Sends nothing (`upgrade` does). Invariant: every socket that arrives is accepted on, or is named as one that the
//! process before has to close.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::{Bound, ListenSockets, SocketGroup, adoption, local_address};
use crate::config::Bind;
use crate::server::upgrade::AddressFacts;
use crate::snapshot::Snapshot;
use crate::socket::unix_file::UnixFile;
use crate::splicer::Adoption;

/// Listening sockets of one address that came from the process before.
#[derive(Debug)]
pub struct Inherited {
    /// What that process says of the address.
    pub facts: AddressFacts,
    /// Its sockets, in the order of workers.
    pub sockets: Vec<OwnedFd>,
}

impl ListenSockets {
    /// Numbers, in the process before, of the addresses that are served on. The others are closed.
    pub fn kept_on(&mut self) -> Vec<u32> {
        self.inherited = Vec::new();
        std::mem::take(&mut self.kept_on)
    }

    /// Every address with its sockets, for the process that follows.
    pub fn inventory(&self) -> Vec<(AddressFacts, Vec<Arc<OwnedFd>>)> {
        let facts = |bound: &Bound| {
            let sockets: Vec<_> = bound.sockets.iter().filter_map(Weak::upgrade).collect();
            let facts = AddressFacts {
                number: bound.number,
                listener: bound.owner.0.clone(),
                index: bound.owner.1,
                bind: bound.bind.to_string(),
                sockets: sockets.len(),
            };
            (facts, sockets)
        };
        self.bound.iter().map(facts).collect()
    }

    /// Lets go of every address: those in `keeps` belong to the process that follows, the others close once their
    /// backlog is served. Returns what each worker has to adopt.
    pub fn give_up(&mut self, keeps: &[u32], snapshot: &Snapshot) -> Vec<Adoption> {
        let (kept, closed): (Vec<_>, Vec<_>) = self.bound.drain(..).partition(|bound| keeps.contains(&bound.number));
        closed.iter().for_each(Bound::unlink);
        let numbers = |bound: &[Bound]| bound.iter().map(|bound| bound.number).collect::<Vec<_>>();
        let (give_up, close) = (numbers(&kept), numbers(&closed));
        let adopt = || Adoption { give_up: give_up.clone(), close: close.clone(), ..adoption(snapshot) };
        (0..self.workers).map(|_| adopt()).collect()
    }

    /// The sockets of an address that the process before has given over; `None`: it has not. A group has as many
    /// sockets as that process had workers: with fewer workers one serves several of them, so that no queue is left
    /// without a reader. With more workers the others get connections from these. Another socket of the address would
    /// get clients at once, and lose them if the upgrade fails.
    pub(super) fn inherit(&mut self, bind: &Bind, owner: &(String, usize)) -> Option<Vec<SocketGroup>> {
        let text = bind.to_string();
        let chosen = matches!(bind, Bind::Tcp(address) if address.port() == 0);
        let is_it = |inherited: &mut Inherited| {
            let AddressFacts { listener, index, bind, .. } = &inherited.facts;
            *bind == text && (!chosen || (listener == &owner.0 && *index == owner.1))
        };
        let file = match bind {
            Bind::Unix(path) => Some(UnixFile::bound(path).ok()?),
            _ => None,
        };
        let found: Vec<_> = self.inherited.extract_if(.., is_it).collect();
        let mut groups = Vec::new();
        for Inherited { facts, sockets } in found {
            let address = sockets.first().and_then(local_address);
            let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
            let group = |sockets: &[Arc<OwnedFd>]| SocketGroup {
                sockets: sockets.to_vec(),
                address,
                pass_by: 0,
                file: file.clone(),
            };
            groups.extend(sockets.chunks(self.workers.max(1)).map(group));
            self.kept_on.push(facts.number);
        }
        (!groups.is_empty()).then_some(groups)
    }
}
