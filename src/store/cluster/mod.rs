//! [`ClusterTask`]: the store as a Redis or Valkey Cluster. Each key is at one node, that which has its slot.
//!
//! Each node that has slots has a [`StoreTask`] of its own, with a connection, a breaker and pending values: a node that is
//! away costs no more than a store that is away, and the keys of the others go on. This task knows which node has which
//! slot, sends each request to its node's task, and follows MOVED and ASK.
//!
//! The slots are read (CLUSTER SLOTS) from a configured node at the start, and again from any node, once a second at most,
//! while a node is away, a slot has no node, or one has moved. So a replica that takes the place of its primary is found
//! within a second. A node without slots is left, and what waits for it goes to those that have its slots now.
//!
//! Sends no request itself. Invariants: at most [`NODES_MAX`] nodes, and one connection to each; a value to be learned waits
//! at its node, or here while no node has its slot, or is counted as lost; the breaker of the whole is open while no node is
//! reached.

pub(super) mod slots;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ahash::AHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::slots::{NODES_MAX, SlotMap, SlotRedirect};
use super::access::Access;
use super::batch::{BATCH, StoreBatch};
use super::breaker::BreakerState;
use super::counters::{QueryKind, QueryOutcome};
use super::node::{NodeReport, NodeReporter};
use super::pending::{PENDING_MAX, Pending};
use super::place;
use super::shared::{ClusterNode, StoreShared, fails};
use super::task::StoreTask;
use super::{Reconfigure, StoreInbox, StoreRequest};
use crate::config::{StoreAddress, StorePlace};
use crate::snapshot::Current;

/// Interval between two readings of the slots.
const TICK: Duration = Duration::from_secs(1);
/// Nodes that are asked for the slots, one after the other.
const ASKED: usize = 4;
/// A node that is about to get a slot is kept for so long after it was named (ASK), although it may have none yet.
const NAMED: Duration = Duration::from_secs(60);
/// Batches of waiting values that are sent to their nodes at once.
const REPEATED: usize = 64;
/// Keys that are tried for one that a node has.
const PROBES: usize = 4_096;
/// Least number of values that may wait for one node.
const PENDING_LEAST: usize = 1_024;

/// State of the task.
pub(super) struct ClusterTask {
    shared: Arc<StoreShared>,
    current: Arc<Current>,
    access: Option<Arc<Access>>,
    slots: SlotMap,
    nodes: AHashMap<Arc<StoreAddress>, RunningNode>,
    /// The nodes' tasks; each ends with what it has not written.
    tasks: JoinSet<Pending>,
    reports: mpsc::UnboundedReceiver<(Arc<StoreAddress>, NodeReport)>,
    /// For the nodes' tasks.
    reporter: mpsc::UnboundedSender<(Arc<StoreAddress>, NodeReport)>,
    /// The reading of the slots that is under way; at most one.
    reading: JoinSet<(Arc<Access>, Result<SlotMap, String>)>,
    /// Number of readings.
    readings: usize,
    /// A slot has moved since the last one.
    is_outdated: bool,
    /// Values that no node's task could take.
    pending: Pending,
    shown_pending: u64,
    tried: Vec<oneshot::Sender<()>>,
}

/// A node's task, as seen from here. The task ends when this is dropped.
struct RunningNode {
    shared: Arc<StoreShared>,
    batches: mpsc::Sender<StoreBatch>,
    orders: mpsc::UnboundedSender<Reconfigure>,
    /// The node was reached, or could not be.
    is_tried: bool,
    /// When another node has sent requests on to it.
    named: Option<Instant>,
}

impl ClusterTask {
    /// A cluster in place of the server of this task.
    pub(super) fn of(task: &StoreTask) -> Self {
        let (reporter, reports) = mpsc::unbounded_channel();
        Self {
            shared: Arc::clone(&task.shared),
            current: Arc::clone(&task.current),
            access: None,
            slots: SlotMap::default(),
            nodes: AHashMap::default(),
            tasks: JoinSet::new(),
            reports,
            reporter,
            reading: JoinSet::new(),
            readings: 0,
            is_outdated: false,
            pending: Pending::default(),
            shown_pending: 0,
            tried: Vec::new(),
        }
    }

    /// Uses the cluster of `order` until another store is to be used, which is returned, or every sender of
    /// configurations is gone.
    pub(super) async fn run(mut self, inbox: &mut StoreInbox, order: Reconfigure) -> Option<Reconfigure> {
        let next = match self.handle(order) {
            None => self.serve(inbox).await,
            other => other,
        };
        self.end();
        next
    }

    async fn serve(&mut self, inbox: &mut StoreInbox) -> Option<Reconfigure> {
        let mut received = Vec::with_capacity(BATCH);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // In this order: what changes the nodes comes before what uses them.
                biased;
                order = inbox.reconfigure.recv() => {
                    let other = self.handle(order?);
                    if other.is_some() {
                        return other;
                    }
                }
                Some((node, report)) = self.reports.recv() => self.reported(&node, report),
                Some(read) = self.reading.join_next() => match read {
                    Ok((access, read)) => self.read(&access, read),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(pending) => self.keep(pending),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                },
                _ = inbox.requests.recv_many(&mut received, BATCH), if !inbox.requests.is_closed() => {
                    self.receive(&mut received);
                }
                _ = tick.tick() => self.tick(),
            }
            self.shared.counters.show_pending(&mut self.shown_pending, self.pending.len());
        }
    }

    /// Uses this access; returns one that is for another store.
    fn handle(&mut self, order: Reconfigure) -> Option<Reconfigure> {
        let Some(access) = order.access.clone().filter(|_| order.is_cluster()) else { return Some(order) };
        if self.access.as_ref().is_some_and(|known| !known.same_keys(&access)) {
            return Some(order);
        }
        self.shared.budget_us.store(access.config.budget.as_micros() as u64, Relaxed);
        self.shared.set_status(|status| status.place = access.config.to_string());
        for (address, node) in &self.nodes {
            node.use_access(&access, address, &self.slots);
        }
        if self.access.replace(access).is_none() {
            self.shared.set_nodes(Some(Vec::new()));
            self.shared.breaker.open();
            self.tried.push(order.tried);
            self.read_slots();
        } else {
            let _ = order.tried.send(());
        }
        None
    }

    /// Leaves the nodes. What is not written to them is lost with the keys that it was for.
    fn end(mut self) {
        self.nodes.clear();
        self.shared.breaker.off();
        self.shared.set_nodes(None);
        self.shared.set_status(|status| status.complaint.clear());
        let (mut tasks, shared) = (self.tasks, self.shared);
        shared.counters.overflow.fetch_add(self.pending.len() as u64, Relaxed);
        shared.counters.show_pending(&mut self.shown_pending, 0);
        tokio::task::spawn_local(async move {
            while let Some(Ok(pending)) = tasks.join_next().await {
                shared.counters.overflow.fetch_add(pending.len() as u64, Relaxed);
            }
        });
    }

    /// Begins to read the slots: from nodes in turn that are reached, otherwise from those of the configuration and those
    /// that were known last.
    fn read_slots(&mut self) {
        let Some(access) = self.access.clone().filter(|_| self.reading.is_empty()) else { return };
        let StorePlace::Cluster(configured) = &access.config.place else { return };
        let reached = self.nodes.iter().filter(|(_, node)| node.is_reached());
        let mut servers: Vec<_> = reached.map(|(address, _)| (**address).clone()).collect();
        if servers.is_empty() {
            servers.clone_from(configured);
            servers.extend(self.slots.nodes().map(|(address, _)| (**address).clone()));
        }
        let first = self.readings % servers.len().max(1);
        servers.rotate_left(first);
        servers.truncate(ASKED);
        self.readings += 1;
        self.is_outdated = false;
        self.reading.spawn_local(async move {
            let read = place::slots(&access, &servers).await;
            (access, read)
        });
    }

    /// Uses the slots as they were read: starts the tasks of new nodes, and ends those of nodes without slots.
    fn read(&mut self, access: &Access, read: Result<SlotMap, String>) {
        match read {
            Ok(slots) => {
                self.shared.set_status(|status| status.complaint.clear());
                self.slots = slots;
                let with_slots: Vec<_> = self.slots.nodes().map(|(address, _)| Arc::clone(address)).collect();
                let is_named = |node: &RunningNode| node.named.is_some_and(|named| named.elapsed() < NAMED);
                self.nodes.retain(|address, node| with_slots.contains(address) || is_named(node));
                with_slots.iter().for_each(|address| _ = self.node(address));
                self.show_nodes();
                self.repeat();
            }
            Err(why) if !self.nodes.values().any(RunningNode::is_reached) => {
                if let Some(why) = self.shared.complain(&why) {
                    fails(&format!("shared store {}: {why}; no request is sent to it until it answers", access.config));
                }
                self.tried.clear();
            }
            // The nodes that are reached are used as before.
            Err(_) => {}
        }
    }

    /// The task of a node, started if it is new; `None`: there are too many.
    fn node(&mut self, address: &Arc<StoreAddress>) -> Option<&mut RunningNode> {
        if !self.nodes.contains_key(address) {
            let access = self.access.clone().filter(|_| self.nodes.len() < NODES_MAX)?;
            let shared = Arc::new(StoreShared::of_node(&self.shared.counters));
            let reporter = NodeReporter { node: Arc::clone(address), reports: self.reporter.clone() };
            let pending_max = (PENDING_MAX / self.slots.nodes().count().max(1)).max(PENDING_LEAST);
            let (mut task, batches, orders) =
                StoreTask::of_node(Arc::clone(&shared), Arc::clone(&self.current), reporter, pending_max);
            self.tasks.spawn_local(async move {
                task.run().await;
                task.end().await
            });
            let node = RunningNode { shared, batches, orders, is_tried: false, named: None };
            node.use_access(&access, address, &self.slots);
            self.nodes.insert(Arc::clone(address), node);
        }
        self.nodes.get_mut(address)
    }

    /// Takes note of what a node's task reports.
    fn reported(&mut self, from: &Arc<StoreAddress>, report: NodeReport) {
        if let NodeReport::Elsewhere(to, batch) = report {
            return self.redirect(from, &to, batch);
        }
        let Some(node) = self.nodes.get_mut(from) else { return };
        node.is_tried = true;
        if matches!(report, NodeReport::Reached) {
            // A new period: what is in use is written again, because the node may have lost it.
            self.shared.breaker.close();
        }
        if !self.nodes.values().any(RunningNode::is_reached) {
            self.shared.breaker.open();
        }
        if self.nodes.values().all(|node| node.is_tried) {
            self.tried.drain(..).for_each(|tried| _ = tried.send(()));
        }
        self.repeat();
    }

    /// Sends requests to the node that another one has named.
    fn redirect(&mut self, from: &StoreAddress, to: &SlotRedirect, batch: StoreBatch) {
        let named = to.address(from).map(Arc::new);
        self.is_outdated = true;
        if to.is_moved
            && let Some(address) = &named
        {
            self.slots.moved(to.slot, address);
        }
        let node = match &named {
            Some(address) => self.node(address),
            None => None,
        };
        let unsent = match node {
            Some(node) => {
                if !to.is_moved {
                    node.named = Some(Instant::now());
                }
                node.send(StoreBatch { asking: !to.is_moved, ..batch })
            }
            None => Some(batch),
        };
        self.put_off(unsent);
        self.show_nodes();
    }

    /// Receives requests of conversations.
    fn receive(&mut self, received: &mut Vec<StoreRequest>) {
        let Some(access) = &self.access else { return received.clear() };
        let batch = StoreBatch::of(access, received.drain(..));
        self.route(batch);
    }

    /// Sends each request to the node that has its key.
    fn route(&mut self, batch: StoreBatch) {
        for (address, part) in batch.split(|key| self.slots.node(key).cloned()) {
            let unsent = match address.and_then(|address| self.nodes.get(&address)) {
                Some(node) => node.send(part),
                None => Some(part),
            };
            self.put_off(unsent);
        }
    }

    /// Keeps the values to be learned of a batch that no node's task takes now. A conversation that waits finds its channel
    /// closed.
    fn put_off(&mut self, unsent: Option<StoreBatch>) {
        let Some(StoreBatch { entries, writes, .. }) = unsent else { return };
        for (entry, write) in entries.into_iter().zip(writes).filter(|(_, write)| write.kind != QueryKind::Keep) {
            if write.done.is_none() && write.of.is_some() {
                self.shared.counters.count(write.kind, QueryOutcome::Later);
            }
            if self.pending.add(entry) {
                self.shared.counters.overflow.fetch_add(1, Relaxed);
            }
        }
    }

    /// Keeps what the task of a node has not written that has left the cluster.
    fn keep(&mut self, mut pending: Pending) {
        self.put_off(Some(StoreBatch::of_pending(pending.take(usize::MAX))));
        self.repeat();
    }

    /// Sends values that wait here to their nodes.
    fn repeat(&mut self) {
        for _ in 0..self.pending.len().div_ceil(BATCH).min(REPEATED) {
            let entries = self.pending.take(BATCH);
            self.route(StoreBatch::of_pending(entries));
        }
    }

    /// Reads the slots where there is a reason to, and tries again what waits here.
    fn tick(&mut self) {
        if self.is_outdated || !self.slots.is_whole() || self.nodes.values().any(|node| !node.is_reached()) {
            self.read_slots();
        }
        self.repeat();
    }

    /// Shows the nodes to operators.
    fn show_nodes(&self) {
        let slots: AHashMap<_, _> = self.slots.nodes().collect();
        let view = |(address, node): (&Arc<StoreAddress>, &RunningNode)| ClusterNode {
            address: Arc::clone(address),
            slots: slots.get(address).copied().unwrap_or_default(),
            shared: Arc::clone(&node.shared),
        };
        let mut nodes: Vec<_> = self.nodes.iter().map(view).collect();
        nodes.sort_by_cached_key(|node| node.address.to_string());
        self.shared.set_nodes(Some(nodes));
    }
}

impl RunningNode {
    fn is_reached(&self) -> bool {
        matches!(self.shared.breaker.look(), BreakerState::Working(_))
    }

    /// Lets the task use this access to the cluster.
    fn use_access(&self, access: &Access, address: &StoreAddress, slots: &SlotMap) {
        let own = |number: usize| Some(format!("{}{number}", access.probe)).filter(|key| has(slots, key, address));
        let probe = (0..PROBES).find_map(own).map_or_else(|| access.probe.clone(), Into::into);
        let (tried, _) = oneshot::channel();
        let _ = self.orders.send(Reconfigure { access: Some(Arc::new(access.of_node(address, probe))), tried });
    }

    /// Sends a batch; returns it if the task takes none.
    fn send(&self, batch: StoreBatch) -> Option<StoreBatch> {
        self.batches.try_send(batch).err().map(mpsc::error::TrySendError::into_inner)
    }
}

fn has(slots: &SlotMap, key: &str, node: &StoreAddress) -> bool {
    slots.node(key).is_some_and(|found| **found == *node)
}
