//! Listening sockets that go from one process to another by an upgrade: [`ListenSockets::inventory`] and
//! [`ListenSockets::give_up`] where they leave, [`ListenSockets::arrive`] where they arrive.
//!
//! Sends nothing (`upgrade` does). What has arrived is bound as if this process had bound it, so that the first
//! configuration keeps, covers and closes it as a reload does. Invariant: every socket that arrives is accepted on, or is
//! one from systemd and waits for a listener, or is named as one that the process before has to close.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::bound::{Bound, Steering};
use super::{ListenSockets, adoption};
use crate::config::Bind;
use crate::server::upgrade::AddressFacts;
use crate::snapshot::Snapshot;
use crate::socket::unix_file::{FileAccess, UnixFile};
use crate::socket::{self, KeepAlive, Options};
use crate::splicer::Adoption;

/// Listening sockets of one address that came from the process before.
#[derive(Debug)]
pub struct Inherited {
    /// What that process says of the address.
    pub facts: AddressFacts,
    /// Its sockets, in the order of workers.
    pub sockets: Vec<OwnedFd>,
}

/// All sockets of an address, of however many groups they were.
struct Arrived {
    numbers: Vec<u32>,
    owner: (String, usize),
    bind: Bind,
    file: Option<UnixFile>,
    sockets: Vec<OwnedFd>,
}

impl ListenSockets {
    /// Numbers, in the process before, of the addresses that are served on or wait for a listener. The others are
    /// closed.
    pub fn kept_on(&mut self) -> Vec<u32> {
        let mut kept_on = std::mem::take(&mut self.kept_on);
        kept_on.sort_unstable();
        kept_on.dedup();
        kept_on
    }

    /// Every address with its sockets, for the process that follows; sockets from systemd also where no listener has
    /// them. An address with more than `most` sockets comes in several parts.
    pub fn inventory(&self, most: usize) -> Vec<(AddressFacts, Vec<Arc<OwnedFd>>)> {
        let facts = |bound: &Bound| {
            let sockets: Vec<_> = bound.sockets.iter().filter_map(Weak::upgrade).collect();
            let facts = AddressFacts {
                number: bound.number,
                listener: bound.owner.0.clone(),
                index: bound.owner.1,
                bind: bound.bind.to_string(),
                file: bound.file.as_ref().map(UnixFile::identity),
                ..AddressFacts::default()
            };
            (facts, sockets)
        };
        let mut all: Vec<_> = self.bound.iter().map(facts).collect();
        let passed = self.bound.iter().filter(|bound| bound.is_passed());
        let served: Vec<_> = passed.flat_map(|bound| &bound.sockets).filter_map(Weak::upgrade).collect();
        let others: Vec<_> = self.systemd.others(&served).collect();
        // Numbers in the order of the sockets; those of addresses count up from 0.
        let first = u32::MAX - others.len() as u32;
        for ((name, socket), number) in others.into_iter().zip(first..) {
            let bind = Bind::Systemd(name.to_owned()).to_string();
            let facts = AddressFacts { number, bind, ..AddressFacts::default() };
            all.push((facts, vec![Arc::clone(socket)]));
        }
        let part = |facts: &AddressFacts, sockets: &[Arc<OwnedFd>]| {
            (AddressFacts { sockets: sockets.len(), ..facts.clone() }, sockets.to_vec())
        };
        let parts = all.iter().flat_map(|(facts, sockets)| sockets.chunks(most).map(move |own| part(facts, own)));
        parts.collect()
    }

    /// The files of unix sockets with mode and group, which a process that follows may change and then fail.
    pub fn files(&self) -> Vec<(UnixFile, FileAccess)> {
        let files = self.bound.iter().filter_map(|bound| bound.file.as_ref()).filter(|file| file.is_there());
        files.filter_map(|file| Some((file.clone(), file.access().ok()?))).collect()
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

    /// Takes what the process before has given over. Sockets from systemd wait under their names: no client is lost by
    /// that, so the process before lets go of them whatever the configuration says.
    pub(super) fn arrive(&mut self, inherited: Vec<Inherited>) {
        let mut all: Vec<Arrived> = Vec::new();
        for Inherited { facts, sockets } in inherited {
            match facts.bind.parse() {
                Ok(Bind::Systemd(name)) => {
                    sockets.into_iter().for_each(|socket| self.systemd.add(&name, socket));
                    self.kept_on.push(facts.number);
                }
                Ok(bind) => {
                    let Some(arrived) = Arrived::new(bind, facts, sockets) else { continue };
                    match all.iter_mut().find(|known| known.is_part(&arrived)) {
                        Some(known) => known.extend(arrived),
                        None => all.push(arrived),
                    }
                }
                // What a later version may bind is closed by it.
                Err(_) => {}
            }
        }
        for mut bound in all.into_iter().flat_map(|arrived| arrived.bound(self.workers)).collect::<Vec<_>>() {
            self.number(&mut bound);
            self.bound.push(bound);
        }
    }
}

impl Arrived {
    /// `None` if there is no socket, or no client reaches it because its file is gone or another one is in its place.
    fn new(bind: Bind, facts: AddressFacts, sockets: Vec<OwnedFd>) -> Option<Self> {
        let AddressFacts { number, listener, index, file: identity, .. } = facts;
        let file = match &bind {
            Bind::Unix(path) => {
                let there = UnixFile::bound(path).ok()?;
                Some(there).filter(|there| identity.is_none_or(|own| own == there.identity()))
            }
            _ => None,
        };
        let is_reached = file.is_some() || !matches!(bind, Bind::Unix(_));
        let arrived = Self { numbers: vec![number], owner: (listener, index), bind, file, sockets };
        Some(arrived).filter(|arrived| is_reached && !arrived.sockets.is_empty())
    }

    fn is_part(&self, other: &Self) -> bool {
        let address = |of: &Self| of.sockets.first().and_then(socket::local_address);
        self.bind == other.bind && address(self) == address(other)
    }

    fn extend(&mut self, other: Self) {
        self.numbers.extend(other.numbers);
        self.sockets.extend(other.sockets);
    }

    /// Groups with at most one socket for each worker: with fewer workers than before one serves several sockets, so
    /// that no queue is left without a reader. With more workers each of the others gets a socket of its own.
    fn bound(mut self, workers: usize) -> Vec<Bound> {
        let listening = self.sockets.len();
        self.add_sockets(workers);
        let sockets: Vec<_> = self.sockets.into_iter().map(Arc::new).collect();
        let group = |sockets: &[Arc<OwnedFd>]| Bound {
            owner: self.owner.clone(),
            steering: if matches!(self.bind, Bind::Tcp(_)) { Steering::Unknown } else { Steering::ByHash },
            file: self.file.clone(),
            waits: true,
            came: self.numbers.clone(),
            ..Bound::new(self.bind.clone(), sockets.to_vec(), listening.min(sockets.len()))
        };
        sockets.chunks(workers.max(1)).map(group).collect()
    }

    fn add_sockets(&mut self, workers: usize) {
        let Some(address) = self.sockets.first().and_then(socket::local_address) else { return };
        // Their other options follow with those of the sockets that are there.
        let options = Options { backlog: 0, defer_accept_s: 0, keep_alive: KeepAlive::default() };
        while self.sockets.len() < workers {
            match socket::bind_tcp(address, &options) {
                Ok(socket) => self.sockets.push(socket),
                Err(error) => {
                    let count = self.sockets.len();
                    tracing::warn!("{}: only {count} of {workers} workers accept new clients: {error}", self.bind);
                    return;
                }
            }
        }
    }
}
