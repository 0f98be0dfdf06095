//! The thread that speaks to the store: connection, batches, probes, reconciliation.
//!
//! Whoever waits for an answer waits by his own timer and says so to the breaker; what nobody waits for, the keeper does.
//! Invariants: what was to be learned is written, or waits in [`Pending`], or is counted as lost; while the breaker is
//! open the store is tried once a second and by nobody else; it closes only when the store has answered within the budget
//! and been told what was learned meanwhile, whether it takes it or not: one that can be read but not written is asked and
//! told, and complained of (`refusal.rs`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::access::Access;
use super::dialling::{Dialled, trial};
use super::flight::{BATCH, FLIGHT_MAX, Flight, Landed, Write, given_up};
use super::link::{How, Link, LinkError, Put, backend};
use super::pending::{Pending, PendingValue};
use super::refusal::Refusal;
use super::tally::{QueryKind, QueryOutcome};
use super::{BreakerState, Reconfigure, StoreQuery, StoreShared, StoreWish};
use crate::clock;
use crate::snapshot::Current;

/// Exchanges that may be under way; then whoever asks waits in the channel.
const FLIGHTS: usize = 16;
/// How often a store that is away is tried, and one that is not asked anything is asked whether it is there.
const BEAT: Duration = Duration::from_secs(1);

/// The thread's own.
pub(super) struct Keeper {
    shared: Arc<StoreShared>,
    current: Arc<Current>,
    asked: mpsc::Receiver<StoreQuery>,
    orders: mpsc::UnboundedReceiver<Reconfigure>,
    access: Option<Arc<Access>>,
    /// The connection in use, and the access that it was made with.
    link: Option<(Link, Arc<Access>)>,
    pending: Pending,
    refusal: Refusal,
    /// Each with the access that its keys are made with.
    flights: JoinSet<(Arc<Access>, Landed)>,
    /// One at most.
    dialling: JoinSet<Dialled>,
    tried: Vec<oneshot::Sender<()>>,
    next_try: Instant,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<StoreShared>,
        current: Arc<Current>,
        asked: mpsc::Receiver<StoreQuery>,
        orders: mpsc::UnboundedReceiver<Reconfigure>,
    ) -> Self {
        Self {
            shared,
            current,
            asked,
            orders,
            access: None,
            link: None,
            pending: Pending::default(),
            refusal: Refusal::default(),
            flights: JoinSet::new(),
            dialling: JoinSet::new(),
            tried: Vec::new(),
            next_try: Instant::now(),
        }
    }

    /// Serves until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let idle = self.access.is_some() && self.link.is_none() && self.dialling.is_empty();
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.handle(order),
                    None => return,
                },
                Some(dialled) = self.dialling.join_next() => match dialled {
                    Ok(dialled) => self.dialled(dialled),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                },
                () = self.shared.tripped.notified() => self.tripped(),
                Some(landed) = self.flights.join_next() => match landed {
                    Ok((access, landed)) => self.landed(&access, landed),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()),
                },
                count = self.asked.recv_many(&mut batch, BATCH), if self.link.is_none() || self.flights.len() < FLIGHTS => {
                    if count == 0 {
                        return;
                    }
                    self.serve(&mut batch);
                }
                _ = beat.tick() => self.beat(),
                () = sleep_until(self.next_try), if idle => self.dial(),
            }
            self.shared.tally.pending.store(self.pending.len() as u64, Relaxed);
        }
    }

    /// Another store, or none. The one in use is used until the new one answers.
    fn handle(&mut self, Reconfigure { access, tried }: Reconfigure) {
        if access == self.access {
            let _ = tried.send(());
            return;
        }
        let same_keys = access.as_ref().zip(self.access.as_ref()).is_some_and(|(new, old)| new.same_keys(old));
        if !same_keys {
            self.shared.tally.overflow.fetch_add(self.pending.clear() as u64, Relaxed);
        }
        self.access = access;
        let Some(access) = &self.access else {
            self.shared.breaker.off();
            self.link = None;
            let _ = tried.send(());
            return;
        };
        self.shared.budget_us.store(access.config.budget.as_micros() as u64, Relaxed);
        self.shared.say(|said| said.place = access.config.to_string());
        if self.shared.breaker.look() == BreakerState::Off {
            self.shared.breaker.open();
        }
        self.tried.push(tried);
        if self.dialling.is_empty() {
            self.dial();
        }
    }

    /// Connects, has the store answer within the budget, and tells it what was learned meanwhile.
    fn dial(&mut self) {
        let Some(access) = self.access.clone() else { return };
        let pending = std::mem::take(&mut self.pending);
        self.next_try = Instant::now() + BEAT;
        self.dialling.spawn_local(Dialled::dial(access, pending));
    }

    fn dialled(&mut self, Dialled { access, link, pending: mut untold, told }: Dialled) {
        self.shared.tally.reconciled.fetch_add(told.written, Relaxed);
        untold.take(usize::MAX).into_iter().for_each(|entry| self.remember(&access, entry));
        if !self.access.as_ref().is_some_and(|in_force| Arc::ptr_eq(in_force, &access)) {
            // Meanwhile somebody has asked for another one.
            self.dial();
            return;
        }
        match link {
            Ok(link) => {
                self.link = Some((link, Arc::clone(&access)));
                self.shared.breaker.close();
                self.shared.say(|said| said.complaint.clear());
                let written = told.written;
                tracing::info!(
                    "shared store {} works; {written} entries learned meanwhile were written",
                    access.config
                );
                self.refusal = Refusal::default();
                match told.refused {
                    Some(why) => self.refused(&why),
                    None => self.tell_pending(FLIGHTS),
                }
            }
            Err(why) => {
                self.link = None;
                self.refusal = Refusal::default();
                self.shared.breaker.open();
                let is_new = self.shared.say(|said| std::mem::replace(&mut said.complaint, why.clone()) != why);
                if is_new {
                    tracing::warn!("shared store {}: {why}; nobody asks it until it answers", access.config);
                }
            }
        }
        for tried in self.tried.drain(..) {
            let _ = tried.send(());
        }
    }

    /// The store was too slow, or said no, once too often.
    fn tripped(&mut self) {
        if self.shared.breaker.look() == BreakerState::Open && self.link.is_some() {
            self.set_aside("five times in a row there was no good answer within the budget");
            self.next_try = Instant::now() + BEAT;
        }
    }

    fn set_aside(&mut self, why: &str) {
        self.link = None;
        self.refusal = Refusal::default();
        self.shared.breaker.open();
        self.shared.tally.opened.fetch_add(1, Relaxed);
        self.shared.say(|said| why.clone_into(&mut said.complaint));
        if let Some(access) = &self.access {
            tracing::warn!("shared store {}: {why}; nobody asks it until it answers", access.config);
        }
    }

    /// Sends what has come, or keeps it for later.
    fn serve(&mut self, batch: &mut Vec<StoreQuery>) {
        let mut flight = Flight::default();
        // Until another store answers, the one in use is meant.
        let in_use = self.link.as_ref().map(|(_, access)| access).or(self.access.as_ref());
        let Some(access) = in_use.cloned() else { return batch.clear() };
        for StoreQuery { pool, value, wish } in batch.drain(..) {
            let key = access.key(&pool, &value);
            let kind = wish.kind();
            let (entry, done) = match wish {
                StoreWish::Find(answer) => {
                    flight.keys.push(key);
                    flight.answers.push(answer);
                    continue;
                }
                StoreWish::Learn { backend, at_ms, ttl_ms, done } => {
                    (PendingValue { key, at_ms, ttl_ms, backend: Some(backend) }, done)
                }
                StoreWish::Keep { backend, ttl_ms } => {
                    (PendingValue { key, at_ms: 0, ttl_ms, backend: Some(backend) }, None)
                }
                StoreWish::Forget { at_ms } => (PendingValue { key, at_ms, ttl_ms: 1, backend: None }, None),
            };
            if self.link.is_some() {
                flight.entries.push(entry);
                flight.writes.push(Write { kind, done, of: Some((pool, value)) });
            } else if kind != QueryKind::Keep {
                self.shared.tally.count(kind, QueryOutcome::Later);
                self.remember(&access, entry);
            }
        }
        self.send(&access, flight);
    }

    /// Whether the store works, as far as is known this moment; if not, what was to be learned is kept for later.
    fn send(&mut self, access: &Arc<Access>, flight: Flight) -> bool {
        let (Some((link, _)), BreakerState::Working(since)) = (self.link.clone(), self.shared.breaker.look()) else {
            // It has opened this moment; whoever waits is told by the channel's end.
            let learned = flight.entries.into_iter().filter(|entry| entry.at_ms > 0);
            learned.for_each(|entry| self.remember(access, entry));
            return false;
        };
        if !(flight.keys.is_empty() && flight.entries.is_empty()) {
            let access = Arc::clone(access);
            self.flights.spawn_local(async move { (access, flight.fly(link, since).await) });
        }
        true
    }

    fn landed(&mut self, access: &Access, landed: Landed) {
        let Landed { since, took_us, watched, entries, writes, put, broken } = landed;
        self.shared.tally.latency.record_us(took_us);
        if let Some(put) = &put
            && self.shared.breaker.look() == BreakerState::Working(since)
        {
            self.weigh(&entries, put);
        }
        let mut put = put.into_iter().flatten();
        for (entry, write) in entries.into_iter().zip(writes) {
            match put.next() {
                Some(Put::Done) => self.written(&entry, &write, None),
                Some(Put::Other(stands)) => self.written(&entry, &write, Some(&stands)),
                Some(Put::Refused(_)) | None => self.unwritten(access, entry, &write),
            }
        }
        let in_time = took_us <= self.shared.budget_us.load(Relaxed);
        match broken {
            Some(broken) if broken.how == How::Lost => {
                if self.shared.breaker.look() == BreakerState::Working(since) {
                    self.set_aside(&broken.why);
                }
            }
            _ if watched => {}
            None if in_time => self.shared.breaker.succeeded(),
            _ => self.shared.failed(since),
        }
    }

    /// Whether the store takes what it is told. One that is full lets values end and be kept: only what needs room tells.
    fn weigh(&mut self, entries: &[PendingValue], put: &[Put]) {
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
        let why = format!("it does not take what is learned: {why}");
        let is_new = self.shared.say(|said| std::mem::replace(&mut said.complaint, why.clone()) != why);
        if let (true, Some(access)) = (is_new, &self.access) {
            tracing::warn!("shared store {}: {why}; it is asked, and told again every second", access.config);
        }
    }

    fn unwritten(&mut self, access: &Access, entry: PendingValue, write: &Write) {
        // What has waited was counted when it came.
        if write.done.is_none() && write.of.is_some() {
            self.shared.tally.count(write.kind, QueryOutcome::Failed);
        }
        if write.kind != QueryKind::Keep {
            self.remember(access, entry);
        }
    }

    /// An entry was written, or somebody else stands there.
    fn written(&self, entry: &PendingValue, write: &Write, stands: Option<&str>) {
        let Some((pool, value)) = &write.of else {
            self.shared.tally.reconciled.fetch_add(1, Relaxed);
            return;
        };
        if write.done.is_none() {
            self.shared.tally.count(write.kind, QueryOutcome::Stored);
        }
        let Some(name) = stands.and_then(backend) else { return };
        if entry.backend.as_deref() == Some(name) {
            return;
        }
        let snapshot = self.current.load();
        let known = snapshot.pools.iter().find(|known| known.sticks_as() == pool).and_then(|pool| {
            let backend = pool.backends().iter().find(|backend| backend.name() == name)?;
            Some((pool.table()?, backend))
        });
        if let Some((table, backend)) = known {
            table.learn(value, backend, clock::now() / 1_000);
        }
    }

    /// Tells what waits, and asks a store that nobody asks anything whether it is there, and one that refuses whether it
    /// still does.
    fn beat(&mut self) {
        if self.refusal.beat() {
            self.shared.say(|said| said.complaint.clear());
            if let Some(access) = &self.access {
                tracing::info!("shared store {} takes again what is learned", access.config);
            }
        }
        self.tell_pending(if self.refusal.stands() { 1 } else { FLIGHTS });
        let (Some((link, access)), BreakerState::Working(since)) = (self.link.clone(), self.shared.breaker.look())
        else {
            return;
        };
        let refuses = self.refusal.stands();
        if self.flights.is_empty() || refuses && self.pending.len() == 0 {
            self.flights.spawn_local(async move {
                let began = clock::now();
                let entries = if refuses { vec![trial(&access)] } else { Vec::new() };
                let asked =
                    async { if refuses { link.put(&entries).await } else { link.ping().await.map(|()| Vec::new()) } };
                let (put, broken) = match given_up(timeout(FLIGHT_MAX, asked).await) {
                    Ok(put) => (Some(put), None),
                    // It says no, but it says it.
                    Err(LinkError { how: How::Refused, .. }) => (None, None),
                    Err(broken) => (None, Some(broken)),
                };
                (access, Landed { entries, put, broken, ..Landed::begun(since, began) })
            });
        }
    }

    /// Tells a store that works what is still to be told, in so many exchanges at most. Conversations open the breaker
    /// whenever they like, a connection or not: what is not sent now waits for the next beat.
    fn tell_pending(&mut self, most: usize) {
        // With another store in sight, what waits is for that one.
        let in_use = self.link.as_ref().map(|(_, access)| Arc::clone(access));
        let Some(access) = in_use.filter(|in_use| self.has_keys_of(in_use)) else { return };
        for _ in 0..most {
            if self.flights.len() >= FLIGHTS || self.pending.len() == 0 {
                return;
            }
            let entries = self.pending.take(BATCH);
            let writes = entries.iter().map(|entry| {
                let kind = if entry.backend.is_some() { QueryKind::Learn } else { QueryKind::Forget };
                Write { kind, done: None, of: None }
            });
            let writes = writes.collect();
            if !self.send(&access, Flight { entries, writes, ..Flight::default() }) {
                return;
            }
        }
    }

    /// Keeps for later what was to be learned; under keys of another store it is of no use.
    fn remember(&mut self, access: &Access, entry: PendingValue) {
        if !self.has_keys_of(access) || self.pending.add(entry) {
            self.shared.tally.overflow.fetch_add(1, Relaxed);
        }
    }

    fn has_keys_of(&self, access: &Access) -> bool {
        self.access.as_ref().is_some_and(|in_force| in_force.same_keys(access))
    }
}

impl StoreShared {
    fn say<T>(&self, what: impl FnOnce(&mut super::Said) -> T) -> T {
        what(&mut self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
