//! One time with the store: everything is read, everything is told, and then news go both ways until something breaks.
//!
//! Connects once and repeats nothing (`task` does). Invariants: what is told as news and is not written comes to the others
//! with the recap that begins the next session; a store that refuses writes is still read, and is told everything again
//! when it accepts them; news are written at most once in [`GATHER`], so that the stream, which keeps a number of items,
//! goes back as long as it can.

mod orders;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ahash::AHashMap;
use aws_lc_rs::hmac;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use self::orders::SessionOrders;
use super::item::{ENTRIES_MAX, InstanceHello, Item};
use super::receive::FleetInbox;
use super::seen::HELLO_EVERY;
use super::stream::{self, ItemId, StreamItem, in_time};
use super::{FORETELL, FleetOrder, FleetShared, FleetState, host_name, lock, tables};
use crate::clock;
use crate::pool::{Outbox, PoolTable, Told};
use crate::remote_text;
use crate::snapshot::{Current, Snapshot};
use crate::store::Access;
use crate::store::batch::{BATCH_TIMEOUT, or_no_answer};
use crate::store::link::{Link, LinkError};
use crate::store::place;

/// How often it is looked whether a reload has changed a placement.
const TICK: Duration = Duration::from_millis(50);
/// How long the store may wait for the next item before it answers that there is none.
const WAIT: Duration = Duration::from_millis(500);
/// Shortest time from one writing of news to the next.
const GATHER: Duration = Duration::from_millis(5);
/// Shortest time from one answer to instances that ask for every entry to the next.
const ANSWER_EVERY: Duration = Duration::from_secs(10);
/// Items that are appended at once.
const APPEND: usize = 16;
/// Shortest and longest time between two recaps of what was seen since.
const RECAP: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3_600));

/// Why a session has ended.
pub(super) enum FleetSessionEnd {
    /// Another store is to be used, or none.
    Order(FleetOrder),
    /// The process ends.
    NoOrders,
    /// The store, or the connection to it.
    Broken(String),
}

/// What is left of the sessions before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SessionsBefore {
    /// The last item that was read.
    pub(super) after: ItemId,
    /// Since when nothing is told, on the process's clock, in milliseconds; `None`: this instance begins.
    pub(super) away_since_ms: Option<u64>,
}

/// A session with the store.
pub(super) struct FleetSession {
    access: Arc<Access>,
    shared: Arc<FleetShared>,
    current: Arc<Current>,
    outbox: Outbox,
    /// The connection over which items are written.
    link: Link,
    stream: String,
    key: hmac::Key,
    inbox: FleetInbox,
    orders: SessionOrders,
    /// What the other connection reads.
    items: mpsc::Receiver<Result<Vec<StreamItem>, LinkError>>,
    reader: AbortHandle,
    generation: u64,
    /// When this instance tells next that it is there, and when it recaps, on the process's clock, in milliseconds.
    hello_ms: u64,
    recap_ms: u64,
    /// When instances that ask for every entry are answered again, on the same clock.
    answer_ms: u64,
    /// News that wait to be written, in their order.
    news: Vec<Told>,
    /// When news were written last.
    news_at: Instant,
    /// The store refuses writes.
    is_refused: bool,
}

impl FleetSession {
    /// Connects, reads what came after `before`, and tells everything.
    pub(super) async fn begin(
        access: &Arc<Access>,
        shared: Arc<FleetShared>,
        current: Arc<Current>,
        before: SessionsBefore,
    ) -> Result<Self, String> {
        let why = |broken: LinkError| broken.why;
        let (stream, key) = (format!("{}fleet", access.config.prefix), access.fleet_key());
        let (link, reading) = (place::dial(access, &stream).await?, place::dial(access, &stream).await?);
        let store_ms = in_time(stream::time_ms(&link)).await.map_err(why)?;
        let snapshot = current.load_full();
        let both = (Arc::clone(&shared), Arc::clone(&current));
        let orders = SessionOrders::new(snapshot.orders.clone(), (&access.config.prefix, &stream), store_ms);
        let mut inbox = FleetInbox::new(both, (stream.clone(), key.clone()), store_ms, tables(&snapshot));
        inbox.takes_entries = shares_entries(access, &snapshot);
        // The clock of another store may be behind.
        let from = if before.after.0 > store_ms { (0, 0) } else { before.after };
        let after = inbox.read_from(from, &reading).await.map_err(why)?;
        let outbox = snapshot.outbox.clone();
        // What is stored from here on is news; what was stored before is in the recap.
        outbox.open(inbox.takes_entries);
        let (items, reader) = read_on(reading, stream.clone(), after);
        let mut session = Self {
            access: Arc::clone(access),
            shared,
            current,
            outbox,
            link,
            stream,
            key,
            inbox,
            orders,
            items,
            reader,
            generation: snapshot.generation,
            hello_ms: 0,
            recap_ms: 0,
            answer_ms: 0,
            news: Vec::new(),
            news_at: Instant::now(),
            is_refused: false,
        };
        session.hello(&snapshot, None).await?;
        session.begin_orders().await?;
        if session.inbox.takes_entries && in_time(stream::is_cut(&session.link, &session.stream)).await.map_err(why)? {
            session.append(&[session.sealed(&Item::Ask)]).await?;
        }
        // A client that has gone home meanwhile stands elsewhere in the tables of others.
        let placed_min = before.away_since_ms.map(|since| 1 + (clock::now_ms().saturating_sub(since) / 60_000) as u32);
        session.recap(&snapshot, None, u32::MAX, placed_min).await?;
        session.plan_recap(&snapshot);
        Ok(session)
    }

    /// Tells and reads until an order comes, or something breaks.
    pub(super) async fn run(&mut self, orders: &mut mpsc::UnboundedReceiver<FleetOrder>) -> FleetSessionEnd {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let news = next_news(self.outbox.clone(), self.news_at + GATHER, !self.news.is_empty());
            let done = tokio::select! {
                order = orders.recv() => match order {
                    None => return FleetSessionEnd::NoOrders,
                    Some(FleetOrder::Foretell(tables, answer)) => self.foretell(tables, answer).await,
                    Some(FleetOrder::Tell) => self.tell_orders().await,
                    Some(FleetOrder::Use(Some(access), tried)) if access == self.access => {
                        let _ = tried.send(());
                        Ok(())
                    }
                    Some(order) => return FleetSessionEnd::Order(order),
                },
                items = self.items.recv() => match items {
                    Some(Ok(items)) => self.take(items).await,
                    Some(Err(broken)) => Err(broken.why),
                    None => Err("the connection has ended".to_owned()),
                },
                told = news => self.write_news(told).await,
                _ = tick.tick() => self.tick().await,
            };
            if let Err(why) = done {
                return FleetSessionEnd::Broken(why);
            }
        }
    }

    /// Ends the session.
    pub(super) fn end(self) -> SessionsBefore {
        SessionsBefore { after: self.inbox.after(), away_since_ms: Some(clock::now_ms()) }
    }

    /// Takes what others tell, after what this instance has to tell: that comes later in the stream.
    async fn take(&mut self, items: Vec<StreamItem>) -> Result<(), String> {
        let own = self.outbox.take();
        self.note_news(own);
        self.inbox.take(items);
        Ok(())
    }

    fn note_news(&mut self, told: Vec<Told>) {
        told.iter().for_each(|told| self.inbox.expect(told));
        self.news.extend(told);
    }

    /// Writes what waits, and these.
    async fn write_news(&mut self, told: Vec<Told>) -> Result<(), String> {
        self.note_news(told);
        let told = std::mem::take(&mut self.news);
        let count = told.len() as u64;
        let mut by_table: AHashMap<Arc<str>, Vec<Told>> = AHashMap::default();
        told.into_iter().for_each(|told| by_table.entry(told.table.clone()).or_default().push(told));
        let mut items = Vec::new();
        for entries in by_table.values() {
            let pieces = entries.chunks(ENTRIES_MAX);
            items.extend(pieces.map(|piece| self.sealed(&Item::Entries { is_news: true, entries: piece.to_vec() })));
        }
        for items in items.chunks(APPEND) {
            self.append(items).await?;
        }
        self.shared.counters.told.fetch_add(count, Relaxed);
        self.news_at = Instant::now();
        Ok(())
    }

    /// Follows a reload, and does what is due.
    async fn tick(&mut self) -> Result<(), String> {
        let (snapshot, now_ms) = (self.current.load_full(), clock::now_ms());
        if snapshot.generation != self.generation {
            self.generation = snapshot.generation;
            let before = std::mem::replace(&mut self.inbox.tables, tables(&snapshot));
            self.hello(&snapshot, None).await?;
            if before != self.inbox.tables {
                // Entries of backends that are new here were of no use before.
                self.inbox.read_from((0, 0), &self.link).await.map_err(|broken| broken.why)?;
                self.recap(&snapshot, None, u32::MAX, None).await?;
            }
        }
        if now_ms >= self.hello_ms {
            self.hello(&snapshot, None).await?;
            let keep = remembers(&snapshot).max().unwrap_or_default() + RECAP.0;
            let expired = stream::expire(&self.link, &self.stream, self.inbox.store_ms(), keep);
            in_time(expired).await.map_err(|broken| broken.why)?;
            self.renew_orders().await?;
        }
        let pools = snapshot.pools.iter().filter_map(|pool| Some((pool.sticks_as(), pool.table()?)));
        self.outbox.take_placed(pools.into_iter().any(|(name, table)| self.differs(name, table)));
        let due = std::mem::take(&mut self.inbox.due);
        if !due.is_empty() {
            self.recap(&snapshot, Some(&due), u32::MAX, None).await?;
        }
        if self.inbox.is_asked && now_ms >= self.answer_ms {
            self.inbox.is_asked = false;
            self.answer_ms = now_ms + ANSWER_EVERY.as_millis() as u64;
            self.recap(&snapshot, None, u32::MAX, None).await?;
        }
        if now_ms >= self.recap_ms {
            let seen_min = recap_min(self.plan_recap(&snapshot));
            self.recap(&snapshot, None, seen_min, None).await?;
        }
        self.tell_orders().await
    }

    /// Plans the next recap; returns the time until then.
    fn plan_recap(&mut self, snapshot: &Snapshot) -> Duration {
        let every = recap_every(remembers(snapshot).min());
        self.recap_ms = clock::now_ms() + every.as_millis() as u64;
        every
    }

    /// Tells that this instance is there. `tables`: its placements, if they are not those in force.
    async fn hello(&mut self, snapshot: &Snapshot, tables: Option<Vec<(Arc<str>, u64)>>) -> Result<(), String> {
        self.hello_ms = clock::now_ms() + HELLO_EVERY.as_millis() as u64;
        let hello = InstanceHello {
            generation: snapshot.generation,
            digest: snapshot.digest,
            name: host_name(),
            tables: tables.unwrap_or_else(|| self.inbox.tables.clone()),
        };
        let was_refused = self.is_refused;
        self.is_refused = false;
        self.append(&[self.sealed(&Item::Hello(hello))]).await?;
        if was_refused && !self.is_refused {
            *lock(&self.shared.status) = (FleetState::Working, String::new());
            self.recap(snapshot, None, u32::MAX, Some(u32::MAX)).await?;
        }
        Ok(())
    }

    /// Tells the placements that will be in force, and answers when others had time to tell what they know.
    async fn foretell(&mut self, tables: Vec<(Arc<str>, u64)>, answer: oneshot::Sender<()>) -> Result<(), String> {
        let snapshot = self.current.load_full();
        self.hello(&snapshot, Some(tables)).await?;
        tokio::task::spawn_local(async move {
            tokio::time::sleep(FORETELL).await;
            let _ = answer.send(());
        });
        Ok(())
    }

    /// Tells all entries of these stick tables, or of all, that were seen in so many minutes and that placement does not
    /// find; with those that it finds where another instance may not, or which were seen in the last `placed_min` minutes.
    async fn recap(
        &mut self,
        snapshot: &Snapshot,
        only: Option<&[Arc<str>]>,
        seen_min: u32,
        placed_min: Option<u32>,
    ) -> Result<(), String> {
        if !self.inbox.takes_entries {
            return Ok(());
        }
        let is_asked = |name: &str| only.is_none_or(|only| only.iter().any(|table| **table == *name));
        let mut items = Vec::new();
        for (name, pools) in snapshot.stick_tables().filter(|(name, _)| is_asked(name)) {
            let Some(table) = pools.first().and_then(|pool| pool.table()) else { continue };
            let placed_min = if self.differs(name, table) { Some(seen_min) } else { placed_min };
            let mut entries = table.recap(clock::now_ms(), seen_min, placed_min);
            loop {
                let piece: Vec<_> = entries.by_ref().take(ENTRIES_MAX).collect();
                if piece.is_empty() {
                    break;
                }
                self.shared.counters.recapped.fetch_add(piece.len() as u64, Relaxed);
                items.push(self.sealed(&Item::Entries { is_news: false, entries: piece }));
                if items.len() >= APPEND {
                    self.append(&std::mem::take(&mut items)).await?;
                }
            }
        }
        self.append(&items).await
    }

    /// Whether another instance places the keys of this stick table otherwise.
    fn differs(&self, name: &str, table: &PoolTable) -> bool {
        let mut seen = lock(&self.shared.seen);
        seen.roll(clock::now_ms());
        let others = seen.instances().filter(|known| known.instance != self.shared.instance);
        let mut theirs = others.flat_map(|known| &known.tables);
        theirs.any(|(other, digest)| **other == *name && *digest != table.digest())
    }

    fn sealed(&self, item: &Item) -> Vec<u8> {
        item.sealed(self.shared.instance, &self.stream, &self.key)
    }

    /// Appends items. A store that refuses them is asked again with the next word that this instance is there.
    async fn append(&mut self, items: &[Vec<u8>]) -> Result<(), String> {
        if self.is_refused {
            self.inbox.expect_none();
        }
        if items.is_empty() || self.is_refused {
            return Ok(());
        }
        match in_time(stream::append(&self.link, &self.stream, items)).await {
            Ok(()) => {
                let counters = &self.shared.counters;
                counters.items.fetch_add(items.len() as u64, Relaxed);
                counters.bytes.fetch_add(items.iter().map(|item| item.len() as u64).sum(), Relaxed);
                Ok(())
            }
            Err(broken) if broken.is_refusal() => {
                self.refused(&broken.why);
                Ok(())
            }
            Err(broken) => Err(broken.why),
        }
    }

    /// Notes that the store refuses writes.
    fn refused(&mut self, why: &str) {
        self.is_refused = true;
        self.inbox.expect_none();
        let why = format!("it refuses writes: {}", remote_text::shown(why));
        *lock(&self.shared.status) = (FleetState::Working, why);
    }
}

impl Drop for FleetSession {
    fn drop(&mut self) {
        // From here on nothing waits to be told.
        self.outbox.open(false);
        self.reader.abort();
    }
}

/// True if entries of stick tables are to be shared, and their keys are hashed under the secret of this store.
pub(super) fn shares_entries(access: &Access, snapshot: &Snapshot) -> bool {
    access.table_secret().is_some_and(|secret| secret.bytes() == snapshot.secret.bytes())
}

/// The news that come next, once it is time to write them; none of them if others wait already.
async fn next_news(outbox: Outbox, from: Instant, others_wait: bool) -> Vec<Told> {
    sleep_until(from).await;
    if others_wait { outbox.take() } else { std::future::poll_fn(|cx| outbox.poll_take(cx)).await }
}

/// Time between two recaps of what was seen since; `remember`: the shortest time that a stick table remembers.
pub(super) fn recap_every(remember: Option<Duration>) -> Duration {
    remember.map_or(RECAP.1, |remember| (remember / 4).clamp(RECAP.0, RECAP.1))
}

/// A recap has what was seen in so many minutes.
pub(super) fn recap_min(every: Duration) -> u32 {
    1 + every.as_secs().div_ceil(60) as u32
}

/// How long each stick table remembers.
fn remembers(snapshot: &Snapshot) -> impl Iterator<Item = Duration> + '_ {
    snapshot.pools.iter().filter_map(|pool| pool.table().map(PoolTable::remember))
}

/// Reads items after this one, as they come, until the receiver is gone or something breaks.
fn read_on(
    link: Link,
    stream: String,
    mut after: ItemId,
) -> (mpsc::Receiver<Result<Vec<StreamItem>, LinkError>>, AbortHandle) {
    let (send, items) = mpsc::channel(4);
    let task = tokio::task::spawn_local(async move {
        loop {
            let read = timeout(WAIT + BATCH_TIMEOUT, stream::read(&link, &stream, after, Some(WAIT))).await;
            let read = or_no_answer(read);
            let is_broken = read.is_err();
            if let Ok(items) = &read {
                after = items.last().map_or(after, |item| item.id);
                if items.is_empty() {
                    continue;
                }
            }
            if send.send(read).await.is_err() || is_broken {
                return;
            }
        }
    });
    (items, task.abort_handle())
}
