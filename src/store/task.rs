//! [`StoreTask`]: the connection to one server, the store or a node of it: batches, probes, reconciliation.
//!
//! A conversation that waits for a reply has its own timer and reports failures to the breaker; for requests without a
//! waiting conversation this task does. Invariants: a value to be learned is written, or waits in [`Pending`], or is
//! counted as lost; while the breaker is open only this task connects, once a second; the breaker closes only when the
//! store has replied within the budget and the pending values were sent to it. A store that can be read but refuses
//! writes stays in use, and its refusal is reported (`refusal.rs`). The task of a node gets its requests from that of the
//! cluster, counts failures itself, and gives back what another node has.
//!
//! # Reconciliation
//!
//! Values learned while the store was away wait in `pending`. A new connection writes them first (`dial.rs`); what it
//! could not write comes back with the result of the dial. With a connection, `write_pending` writes the rest in
//! batches, at once and on every tick. An entry is only written over an older one, so a value that another instance has
//! learned meanwhile wins if it is newer; `written` (`results.rs`) then puts that backend into the stick table here.

mod results;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::access::Access;
use super::batch::{BATCH, BATCH_TIMEOUT, BatchResult, StoreBatch, or_no_answer};
use super::counters::{QueryKind, QueryOutcome};
use super::dial::{DialResult, trial};
use super::link::{FailureKind, Link, LinkError};
use super::node::{NodeReport, NodeReporter};
use super::pending::{Pending, PendingValue};
use super::refusal::Refusal;
use super::shared::{StoreShared, fails, works};
use super::{BreakerState, Reconfigure, StoreInbox, StoreRequest};
use crate::clock;
use crate::snapshot::Current;

/// Exchanges under way at once; beyond that, requests wait in the channel.
const BATCHES_MAX: usize = 16;
/// Interval between attempts to connect to a store that is away, and between probes of an idle connection.
const TICK: Duration = Duration::from_secs(1);

/// Capacity of the channel to a node's task, in batches.
const NODE_ROOM: usize = 256;

/// State of the task, used by its thread alone.
pub(super) struct StoreTask {
    pub(super) shared: Arc<StoreShared>,
    pub(super) current: Arc<Current>,
    pub(super) inbox: StoreInbox,
    /// Requests that the cluster's task has for this node.
    routed: mpsc::Receiver<StoreBatch>,
    /// To the cluster's task; `None`: the server is the whole store.
    reporter: Option<NodeReporter>,
    access: Option<Arc<Access>>,
    /// The connection in use, and the access that it was made with.
    link: Option<(Link, Arc<Access>)>,
    pending: Pending,
    /// Number of pending entries that the counters have.
    shown_pending: u64,
    refusal: Refusal,
    /// Exchanges under way, each with the access that its keys were made with.
    batches: JoinSet<(Arc<Access>, BatchResult)>,
    /// The attempt to connect that is under way; at most one.
    dial: JoinSet<DialResult>,
    tried: Vec<oneshot::Sender<()>>,
    next_try: Instant,
}

impl StoreTask {
    pub(super) fn new(
        shared: Arc<StoreShared>,
        current: Arc<Current>,
        requests: mpsc::Receiver<StoreRequest>,
        reconfigure: mpsc::UnboundedReceiver<Reconfigure>,
    ) -> Self {
        Self {
            shared,
            current,
            inbox: StoreInbox { requests, reconfigure },
            routed: mpsc::channel(1).1,
            reporter: None,
            access: None,
            link: None,
            pending: Pending::default(),
            shown_pending: 0,
            refusal: Refusal::default(),
            batches: JoinSet::new(),
            dial: JoinSet::new(),
            tried: Vec::new(),
            next_try: Instant::now(),
        }
    }

    /// The task of a node of a cluster, in which at most `pending_max` values wait, with the ways to send it requests and to
    /// use another access or to end it.
    pub(super) fn of_node(
        shared: Arc<StoreShared>,
        current: Arc<Current>,
        reporter: NodeReporter,
        pending_max: usize,
    ) -> (Self, mpsc::Sender<StoreBatch>, mpsc::UnboundedSender<Reconfigure>) {
        let (batches, routed) = mpsc::channel(NODE_ROOM);
        let (orders, reconfigure) = mpsc::unbounded_channel();
        let (_, requests) = mpsc::channel(1);
        let pending = Pending::of(pending_max);
        let task = Self::new(shared, current, requests, reconfigure);
        (Self { routed, reporter: Some(reporter), pending, ..task }, batches, orders)
    }

    /// Runs until a cluster is to be used, which is returned, or every sender of configurations is gone.
    pub(super) async fn run(&mut self) -> Option<Reconfigure> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = self.access.is_some() && self.link.is_none() && self.dial.is_empty();
            // Without a connection requests are received too: writes wait in `pending`, reads get no reply.
            let has_room = self.link.is_none() || self.batches.len() < BATCHES_MAX;
            tokio::select! {
                // In this order: what changes the connection comes before what uses it.
                biased;
                order = self.inbox.reconfigure.recv() => match order {
                    Some(order) if order.is_cluster() => {
                        self.put_away();
                        return Some(order);
                    }
                    Some(order) => self.handle(order),
                    None => return None,
                },
                Some(dialled) = self.dial.join_next() => match dialled {
                    Ok(dialled) => self.dialled(dialled),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                },
                () = self.shared.breaker_opened.notified() => self.breaker_opened(),
                Some(finished) = self.batches.join_next() => match finished {
                    Ok((access, finished)) => self.finished(&access, finished),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                },
                _ = self.inbox.requests.recv_many(&mut batch, BATCH), if has_room && !self.inbox.requests.is_closed() => {
                    self.serve(&mut batch);
                }
                Some(routed) = self.routed.recv(), if has_room => self.take(routed),
                _ = tick.tick() => self.tick(),
                () = sleep_until(self.next_try), if idle => self.dial(),
            }
            self.shared.counters.show_pending(&mut self.shown_pending, self.pending.len());
        }
    }

    /// Gives up the server, for a cluster that is used instead.
    fn put_away(&mut self) {
        (self.link, self.access, self.refusal) = (None, None, Refusal::default());
        let lost = self.pending.clear() as u64;
        self.batches = JoinSet::new();
        let (mut dial, shared) = (std::mem::take(&mut self.dial), Arc::clone(&self.shared));
        shared.counters.overflow.fetch_add(lost, Relaxed);
        shared.counters.show_pending(&mut self.shown_pending, 0);
        tokio::task::spawn_local(async move {
            while let Some(Ok(DialResult { pending, .. })) = dial.join_next().await {
                shared.counters.overflow.fetch_add(pending.len() as u64, Relaxed);
            }
        });
    }

    /// Ends the task of a node that has left the cluster: awaits what is under way, and returns what is not written.
    pub(super) async fn end(mut self) -> Pending {
        self.shared.breaker.off();
        self.link = None;
        while let Some(Ok(DialResult { mut pending, .. })) = self.dial.join_next().await {
            pending.take(usize::MAX).into_iter().for_each(|entry| _ = self.pending.add(entry));
        }
        while let Some(Ok((access, finished))) = self.batches.join_next().await {
            self.finished(&access, finished);
        }
        while let Ok(batch) = self.routed.try_recv() {
            self.take(batch);
        }
        self.shared.counters.show_pending(&mut self.shown_pending, 0);
        self.pending
    }

    /// Switches to another store, or to none. The present connection is used until the new one replies.
    pub(super) fn handle(&mut self, Reconfigure { access, tried }: Reconfigure) {
        if access == self.access {
            let _ = tried.send(());
            return;
        }
        let same_keys = access.as_ref().zip(self.access.as_ref()).is_some_and(|(new, old)| new.same_keys(old));
        if !same_keys {
            self.shared.counters.overflow.fetch_add(self.pending.clear() as u64, Relaxed);
        }
        self.access = access;
        let Some(access) = &self.access else {
            self.shared.breaker.off();
            self.link = None;
            let _ = tried.send(());
            return;
        };
        self.shared.budget_us.store(access.config.budget.as_micros() as u64, Relaxed);
        self.shared.set_status(|status| status.place = access.config.to_string());
        if self.shared.breaker.look() == BreakerState::Off {
            self.shared.breaker.open();
        }
        self.tried.push(tried);
        if self.dial.is_empty() {
            self.dial();
        }
    }

    /// Starts to connect; the pending values go along and are written first.
    fn dial(&mut self) {
        let Some(access) = self.access.clone() else { return };
        let pending = self.pending.take_all();
        self.next_try = Instant::now() + TICK;
        self.dial.spawn_local(DialResult::dial(access, pending));
    }

    /// Handles the result of a dial: puts the connection to use, or opens the breaker and reports the reason once.
    fn dialled(&mut self, DialResult { access, link, pending: mut unwritten, reconciled }: DialResult) {
        self.shared.counters.reconciled.fetch_add(reconciled.written, Relaxed);
        // Values learned during the dial are younger, so those that come back give way where there is no room.
        unwritten.take(usize::MAX).into_iter().for_each(|entry| self.keep_pending(&access, entry));
        if !self.access.as_ref().is_some_and(|in_force| Arc::ptr_eq(in_force, &access)) {
            // The configuration has changed during the dial: connect to the store that it names now.
            self.dial();
            return;
        }
        let is_reached = link.is_ok();
        match link {
            Ok(link) => {
                self.link = Some((link, Arc::clone(&access)));
                self.shared.breaker.close();
                self.shared.set_status(|status| status.complaint.clear());
                let written = reconciled.written;
                works(&format!(
                    "shared store {} works; {written} entries learned meanwhile were written",
                    access.config
                ));
                self.refusal = Refusal::default();
                match reconciled.refused {
                    Some(why) => self.refused(&why),
                    None => self.write_pending(BATCHES_MAX),
                }
            }
            Err(why) => self.is_away(&why),
        }
        self.report(if is_reached { NodeReport::Reached } else { NodeReport::Away });
        for tried in self.tried.drain(..) {
            let _ = tried.send(());
        }
    }

    /// Closes the connection after the breaker was opened by late or failed requests.
    fn breaker_opened(&mut self) {
        if self.shared.breaker.look() == BreakerState::Open && self.link.is_some() {
            self.give_up_link("five times in a row there was no usable reply within the budget");
            self.next_try = Instant::now() + TICK;
        }
    }

    fn give_up_link(&mut self, why: &str) {
        self.shared.counters.opened.fetch_add(1, Relaxed);
        self.is_away(why);
        self.report(NodeReport::Away);
    }

    /// Opens the breaker, and says why, once.
    fn is_away(&mut self, why: &str) {
        self.link = None;
        self.refusal = Refusal::default();
        self.shared.breaker.open();
        let complaint = self.shared.complain(why);
        if let Some((access, why)) = self.access.as_ref().zip(complaint) {
            fails(&format!("shared store {}: {why}; no request is sent to it until it answers", access.config));
        }
    }

    fn report(&self, report: NodeReport) {
        if let Some(reporter) = &self.reporter {
            reporter.send(report);
        }
    }

    /// Sends the received requests as one batch, or keeps the writes for later.
    fn serve(&mut self, received: &mut Vec<StoreRequest>) {
        // Until the new store replies, keys are made for the one in use.
        let in_use = self.link.as_ref().map(|(_, access)| access).or(self.access.as_ref());
        let Some(access) = in_use.cloned() else { return received.clear() };
        self.take(StoreBatch::of(&access, received.drain(..)));
    }

    /// Sends a batch, or keeps its writes for later; the conversations that wait find their channels closed.
    fn take(&mut self, batch: StoreBatch) {
        let in_use = self.link.as_ref().map(|(_, access)| access).or(self.access.as_ref());
        let Some(access) = in_use.cloned() else { return };
        if self.link.is_some() {
            self.send(&access, batch);
            return;
        }
        for (entry, write) in batch.entries.into_iter().zip(batch.writes) {
            if write.kind != QueryKind::Keep {
                // A conversation that waits counts it, and what has waited before was counted then.
                if write.done.is_none() && write.of.is_some() {
                    self.shared.counters.count(write.kind, QueryOutcome::Later);
                }
                self.keep_pending(&access, entry);
            }
        }
    }

    /// Sends a batch. False: the store is away, and the values to be learned are kept for later.
    fn send(&mut self, access: &Arc<Access>, batch: StoreBatch) -> bool {
        let (Some((link, _)), BreakerState::Working(since)) = (self.link.clone(), self.shared.breaker.look()) else {
            // The breaker has opened since; a waiting conversation finds its channel closed.
            let learned = batch.entries.into_iter().filter(|entry| entry.at_ms > 0);
            learned.for_each(|entry| self.keep_pending(access, entry));
            return false;
        };
        if !batch.is_empty() {
            let access = Arc::clone(access);
            let node = self.reporter.is_some().then(|| Arc::clone(&self.shared));
            self.batches.spawn_local(async move { (access, batch.run(link, since, node).await) });
        }
        true
    }

    /// Writes pending values; probes an idle connection with PING, and a store that refuses writes with a trial entry.
    fn tick(&mut self) {
        if self.refusal.tick() {
            self.shared.set_status(|status| status.complaint.clear());
            if let Some(access) = &self.access {
                works(&format!("shared store {} accepts writes again", access.config));
            }
        }
        self.write_pending(if self.refusal.is_active() { 1 } else { BATCHES_MAX });
        let (Some((link, access)), BreakerState::Working(since)) = (self.link.clone(), self.shared.breaker.look())
        else {
            return;
        };
        let refuses = self.refusal.is_active();
        if self.batches.is_empty() || refuses && self.pending.len() == 0 {
            self.batches.spawn_local(async move {
                let began = clock::now();
                let entries = if refuses { vec![trial(&access)] } else { Vec::new() };
                let requests =
                    async { if refuses { link.put(&entries).await } else { link.ping().await.map(|()| Vec::new()) } };
                let (put, broken) = match or_no_answer(timeout(BATCH_TIMEOUT, requests).await) {
                    Ok(put) => (Some(put), None),
                    // A refused PING is a reply: the store is there.
                    Err(LinkError { kind: FailureKind::Refused, .. }) => (None, None),
                    Err(broken) => (None, Some(broken)),
                };
                (access, BatchResult { entries, put, broken, ..BatchResult::begun(since, began) })
            });
        }
    }

    /// Writes pending values over the connection, in at most so many batches. Conversations may open the breaker at any
    /// moment; values that are not sent now wait for the next tick.
    fn write_pending(&mut self, most: usize) {
        // With another store configured, the pending values are for that one.
        let in_use = self.link.as_ref().map(|(_, access)| Arc::clone(access));
        let Some(access) = in_use.filter(|in_use| self.has_keys_of(in_use)) else { return };
        for _ in 0..most {
            if self.batches.len() >= BATCHES_MAX || self.pending.len() == 0 {
                return;
            }
            let batch = StoreBatch::of_pending(self.pending.take(BATCH));
            if !self.send(&access, batch) {
                return;
            }
        }
    }

    /// Keeps a value for later. Under the keys of another store it would be of no use, and is counted as lost.
    fn keep_pending(&mut self, access: &Access, entry: PendingValue) {
        if !self.has_keys_of(access) || self.pending.add(entry) {
            self.shared.counters.overflow.fetch_add(1, Relaxed);
        }
    }

    fn has_keys_of(&self, access: &Access) -> bool {
        self.access.as_ref().is_some_and(|in_force| in_force.same_keys(access))
    }
}

#[cfg(test)]
mod tests;
