//! The thread that owns the connection to the store: batches, probes, reconciliation.
//!
//! A conversation that waits for a reply has its own timer and reports failures to the breaker; for requests without a
//! waiting conversation this task does. Invariants: a value to be learned is written, or waits in [`Pending`], or is
//! counted as lost; while the breaker is open only this task connects, once a second; the breaker closes only when the
//! store has replied within the budget and the pending values were sent to it. A store that can be read but refuses
//! writes stays in use, and its refusal is reported (`refusal.rs`).
//!
//! # Reconciliation
//!
//! Values learned while the store was away wait in `pending`. A new connection writes them first (`dial.rs`); what it
//! could not write comes back with the result of the dial. With a connection, `write_pending` writes the rest in
//! batches, at once and on every tick. An entry is only written over an older one, so a value that another instance has
//! learned meanwhile wins if it is newer; `written` then puts that backend into the stick table here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::access::Access;
use super::batch::{BATCH, BATCH_TIMEOUT, BatchResult, StoreBatch, Write, or_no_answer};
use super::counters::{QueryKind, QueryOutcome};
use super::dial::{DialResult, trial};
use super::link::{FailureKind, Link, LinkError, Put, backend};
use super::pending::{Pending, PendingValue};
use super::refusal::Refusal;
use super::{BreakerState, Reconfigure, StoreOperation, StoreRequest, StoreShared, StoredValue};
use crate::clock;
use crate::events::{self, Event, EventKind};
use crate::remote_text;
use crate::snapshot::Current;
use crate::sticky::table::EntryKind;

/// Exchanges under way at once; beyond that, requests wait in the channel.
const BATCHES_MAX: usize = 16;
/// Interval between attempts to connect to a store that is away, and between probes of an idle connection.
const TICK: Duration = Duration::from_secs(1);

/// State of the thread, used by it alone.
pub(super) struct StoreTask {
    shared: Arc<StoreShared>,
    current: Arc<Current>,
    requests: mpsc::Receiver<StoreRequest>,
    reconfigure: mpsc::UnboundedReceiver<Reconfigure>,
    access: Option<Arc<Access>>,
    /// The connection in use, and the access that it was made with.
    link: Option<(Link, Arc<Access>)>,
    pending: Pending,
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
            requests,
            reconfigure,
            access: None,
            link: None,
            pending: Pending::default(),
            refusal: Refusal::default(),
            batches: JoinSet::new(),
            dial: JoinSet::new(),
            tried: Vec::new(),
            next_try: Instant::now(),
        }
    }

    /// Runs until every sender of requests is gone.
    pub(super) async fn run(mut self) {
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
                order = self.reconfigure.recv() => match order {
                    Some(order) => self.handle(order),
                    None => return,
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
                count = self.requests.recv_many(&mut batch, BATCH), if has_room => {
                    if count == 0 {
                        return;
                    }
                    self.serve(&mut batch);
                }
                _ = tick.tick() => self.tick(),
                () = sleep_until(self.next_try), if idle => self.dial(),
            }
            self.shared.counters.pending.store(self.pending.len() as u64, Relaxed);
        }
    }

    /// Switches to another store, or to none. The present connection is used until the new one replies.
    fn handle(&mut self, Reconfigure { access, tried }: Reconfigure) {
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
        let pending = std::mem::take(&mut self.pending);
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
            Err(why) => {
                self.link = None;
                self.refusal = Refusal::default();
                self.shared.breaker.open();
                if let Some(why) = self.shared.complain(&why) {
                    fails(&format!("shared store {}: {why}; no request is sent to it until it answers", access.config));
                }
            }
        }
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
        self.link = None;
        self.refusal = Refusal::default();
        self.shared.breaker.open();
        self.shared.counters.opened.fetch_add(1, Relaxed);
        let complaint = self.shared.complain(why);
        if let Some((access, why)) = self.access.as_ref().zip(complaint) {
            fails(&format!("shared store {}: {why}; no request is sent to it until it answers", access.config));
        }
    }

    /// Sends the received requests as one batch, or keeps the writes for later.
    fn serve(&mut self, received: &mut Vec<StoreRequest>) {
        let mut batch = StoreBatch::default();
        // Until the new store replies, keys are made for the one in use.
        let in_use = self.link.as_ref().map(|(_, access)| access).or(self.access.as_ref());
        let Some(access) = in_use.cloned() else { return received.clear() };
        for StoreRequest { pool, value, operation } in received.drain(..) {
            let key = access.key(&pool, &value);
            let kind = operation.kind();
            let (entry, done) = match operation {
                StoreOperation::Find(answer) => {
                    batch.keys.push(key);
                    batch.answers.push(answer);
                    continue;
                }
                StoreOperation::Learn { backend, at_ms, ttl_ms, done } => {
                    (PendingValue { key, at_ms, ttl_ms, backend: Some(backend) }, done)
                }
                StoreOperation::Keep { backend, ttl_ms } => {
                    (PendingValue { key, at_ms: 0, ttl_ms, backend: Some(backend) }, None)
                }
                StoreOperation::Forget { at_ms } => (PendingValue { key, at_ms, ttl_ms: 1, backend: None }, None),
            };
            if self.link.is_some() {
                batch.entries.push(entry);
                batch.writes.push(Write { kind, done, of: Some((pool, value)) });
            } else if kind != QueryKind::Keep {
                self.shared.counters.count(kind, QueryOutcome::Later);
                self.keep_pending(&access, entry);
            }
        }
        self.send(&access, batch);
    }

    /// Sends a batch. False: the store is away, and the values to be learned are kept for later.
    fn send(&mut self, access: &Arc<Access>, batch: StoreBatch) -> bool {
        let (Some((link, _)), BreakerState::Working(since)) = (self.link.clone(), self.shared.breaker.look()) else {
            // The breaker has opened since; a waiting conversation finds its channel closed.
            let learned = batch.entries.into_iter().filter(|entry| entry.at_ms > 0);
            learned.for_each(|entry| self.keep_pending(access, entry));
            return false;
        };
        if !(batch.keys.is_empty() && batch.entries.is_empty()) {
            let access = Arc::clone(access);
            self.batches.spawn_local(async move { (access, batch.run(link, since).await) });
        }
        true
    }

    fn finished(&mut self, access: &Access, finished: BatchResult) {
        let BatchResult { since, took_us, watched, entries, writes, put, broken } = finished;
        self.shared.counters.latency.record_us(took_us);
        if let Some(put) = &put
            && self.shared.breaker.look() == BreakerState::Working(since)
        {
            self.check_refusals(&entries, put);
        }
        let mut put = put.into_iter().flatten();
        for (entry, write) in entries.into_iter().zip(writes) {
            match put.next() {
                Some(Put::Done) => self.written(&entry, &write, None),
                Some(Put::Other(kept)) => self.written(&entry, &write, Some(&kept)),
                Some(Put::Refused(_)) | None => self.unwritten(access, entry, &write),
            }
        }
        let in_time = took_us <= self.shared.budget_us.load(Relaxed);
        match broken {
            Some(broken) if broken.kind == FailureKind::Lost => {
                if self.shared.breaker.look() == BreakerState::Working(since) {
                    self.give_up_link(&broken.why);
                }
            }
            _ if watched => {}
            None if in_time => self.shared.breaker.succeeded(),
            _ => self.shared.failed(since),
        }
    }

    /// Watches for refused writes. A full Redis still accepts DEL and PEXPIRE, so only a SET shows that it accepts
    /// writes.
    fn check_refusals(&mut self, entries: &[PendingValue], put: &[Put]) {
        if entries.iter().zip(put).any(|(entry, put)| entry.backend.is_some() && *put == Put::Done) {
            self.refusal.written();
        }
        if let Some(why) = put.iter().find_map(Put::refusal) {
            self.refused(why);
        }
    }

    fn refused(&mut self, why: &str) {
        if !self.refusal.refused() {
            return;
        }
        let complaint = self.shared.complain(&format!("it refuses writes: {why}"));
        if let Some((access, why)) = self.access.as_ref().zip(complaint) {
            fails(&format!(
                "shared store {}: {why}; it is still read, and writes are tried again every second",
                access.config
            ));
        }
    }

    fn unwritten(&mut self, access: &Access, entry: PendingValue, write: &Write) {
        // A conversation that waited has counted the failure itself.
        if write.done.is_none() && write.of.is_some() {
            self.shared.counters.count(write.kind, QueryOutcome::Failed);
        }
        if write.kind != QueryKind::Keep {
            self.keep_pending(access, entry);
        }
    }

    /// Takes note of a written entry. `kept`: the newer entry that stays instead of it.
    fn written(&self, entry: &PendingValue, write: &Write, kept: Option<&str>) {
        let Some((pool, value)) = &write.of else {
            self.shared.counters.reconciled.fetch_add(1, Relaxed);
            return;
        };
        if write.done.is_none() {
            self.shared.counters.count(write.kind, QueryOutcome::Stored);
        }
        let Some(kept) = kept.and_then(backend).map(StoredValue::read) else { return };
        let name = &*kept.backend;
        if entry.backend.as_deref().is_some_and(|text| *StoredValue::read(text).backend == *name) {
            return;
        }
        let snapshot = self.current.load();
        let known = snapshot.pools.iter().find(|known| known.sticks_as() == pool).and_then(|pool| {
            let backend = pool.backends().iter().find(|backend| backend.name() == name)?;
            Some((pool.table()?, backend))
        });
        if let Some((table, backend)) = known {
            let kind = if kept.is_set { EntryKind::Learned } else { EntryKind::Brought };
            table.learn_as(kind, value, backend, clock::now_ms());
        }
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
            let entries = self.pending.take(BATCH);
            let writes = entries.iter().map(|entry| {
                let kind = if entry.backend.is_some() { QueryKind::Learn } else { QueryKind::Forget };
                Write { kind, done: None, of: None }
            });
            let writes = writes.collect();
            if !self.send(&access, StoreBatch { entries, writes, ..StoreBatch::default() }) {
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

impl StoreShared {
    pub(super) fn set_status<T>(&self, what: impl FnOnce(&mut super::StatusText) -> T) -> T {
        what(&mut self.status_text.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Sets the complaint, which may have words of the store in it, and returns it as it is shown; `None`: it is the
    /// complaint that stands already.
    fn complain(&self, why: &str) -> Option<String> {
        let shown = remote_text::shown(why);
        let before = self.set_status(|status| std::mem::replace(&mut status.complaint, shown.clone()));
        (before != shown).then_some(shown)
    }
}

/// Says that the store is not used, or not for everything.
fn fails(text: &str) {
    events::warn(clock::unix_ms(), Event::new(EventKind::StoreDown, text));
}

/// Says that the store is used again.
fn works(text: &str) {
    events::info(clock::unix_ms(), Event::new(EventKind::StoreUp, text));
}

#[cfg(test)]
mod tests;
