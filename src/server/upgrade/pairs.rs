//! Pairs in messages: [`document`] describes a batch that leaves, [`Intake`] makes rows of one that arrives.
//!
//! Sends nothing. Invariant: a pair that arrives is served whatever the new configuration says: a listener, pool or
//! backend that it does not have any more exists for as long as one of its pairs does.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::channel::{ChannelError, Message};
use super::messages::Pairs;
use crate::admission::{Admission, ListenerState};
use crate::clock;
use crate::config::Address;
use crate::pool::{Backend, Lease, departed};
use crate::snapshot::Snapshot;
use crate::splicer::flow::Flow;
use crate::splicer::os::{Connection, Linux};
use crate::splicer::pair::{Arrival, PairFacts};

/// A batch for the wire: document, bytes that the pairs owe, descriptors.
pub(super) fn document(worker: usize, flows: &[Flow<Linux>]) -> (Pairs, Vec<u8>, Vec<BorrowedFd<'_>>) {
    let now = clock::now();
    let pairs = flows.iter().map(|flow| flow.facts(now)).collect();
    let owed = flows.iter().flat_map(|flow| flow.owed()).collect::<Vec<_>>().concat();
    let sockets = flows.iter().filter_map(Flow::sockets).flatten().map(AsFd::as_fd).collect();
    (Pairs { worker, pairs }, owed, sockets)
}

/// Listeners and backends of pairs that arrived before, which their configuration did not have any more.
#[derive(Default)]
pub(super) struct Departed {
    listeners: HashMap<String, Arc<ListenerState>>,
    /// By pool, name and address.
    backends: HashMap<[String; 3], Arc<Backend>>,
}

/// What pairs that arrive belong to: one batch, because a reload may come before the next.
pub(super) struct Intake<'d> {
    snapshot: Arc<Snapshot>,
    admission: Arc<Admission>,
    /// Blocks of counters: one for each worker and each runtime.
    blocks: usize,
    departed: &'d mut Departed,
}

impl<'d> Intake<'d> {
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        admission: Arc<Admission>,
        workers: usize,
        departed: &'d mut Departed,
    ) -> Self {
        Self { snapshot, admission, blocks: 2 * workers, departed }
    }

    /// Makes the rows of a batch; returns them with the number of their worker in the old process. An error leaves the
    /// whole batch to the old process.
    pub(super) fn rows(&mut self, message: Message) -> Result<(usize, Vec<Flow<Linux>>), ChannelError> {
        let Pairs { worker, pairs } = message.read()?;
        let owed = pairs.iter().map(|pair| pair.up.owed.saturating_add(pair.down.owed));
        if message.descriptors.len() != 2 * pairs.len() || owed.fold(0, usize::saturating_add) != message.bytes.len() {
            return Err(ChannelError::Malformed("pairs without their sockets or bytes"));
        }
        let (mut sockets, mut bytes) =
            (message.descriptors.into_iter().map(Connection::from), message.bytes.as_slice());
        let mut next = |length: usize| {
            let (own, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(own.to_vec())
        };
        let mut rows = Vec::with_capacity(pairs.len());
        for facts in pairs {
            let (Some(client), Some(backend)) = (sockets.next(), sockets.next()) else { break };
            let (Some(up), Some(down)) = (next(facts.up.owed), next(facts.down.owed)) else { break };
            let (permit, lease) = (self.listener(&facts.listener).admit_arrived(source(&facts)), self.lease(&facts)?);
            let arrival = Arrival { client, backend, facts, up, down, permit, lease };
            rows.push(Flow::arrived(arrival, clock::now()));
        }
        Ok((worker, rows))
    }

    fn listener(&mut self, name: &str) -> Arc<ListenerState> {
        if let Some(listener) = self.snapshot.listener(name) {
            return Arc::clone(&listener.state);
        }
        let (admission, blocks) = (&self.admission, self.blocks);
        let gone = self.departed.listeners.entry(name.to_owned());
        Arc::clone(gone.or_insert_with(|| Arc::new(ListenerState::new(name, blocks, admission))))
    }

    fn lease(&mut self, facts: &PairFacts) -> Result<Lease, ChannelError> {
        let PairFacts { pool, backend: name, address, .. } = facts;
        let known = self.snapshot.pool(pool);
        let is_it = |backend: &&Arc<Backend>| backend.name() == name && backend.address().to_string() == *address;
        if let Some(backend) = known.and_then(|pool| pool.backends().iter().find(is_it)) {
            return Ok(Lease::new(backend));
        }
        let key = [pool, name, address].map(String::clone);
        if let Some(backend) = self.departed.backends.get(&key) {
            return Ok(Lease::new(backend));
        }
        let address = match address.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(address.parse().map_err(|_| ChannelError::Malformed("an address that is none"))?),
        };
        let backend = departed(known.map(|pool| &**pool), pool, name, address, self.blocks);
        let lease = Lease::new(&backend);
        self.departed.backends.insert(key, backend);
        Ok(lease)
    }
}

/// Address that the pair counts for; none for a connection without a key.
fn source(facts: &PairFacts) -> Option<std::net::IpAddr> {
    facts.client.filter(|_| !facts.local).map(|client| client.ip())
}
