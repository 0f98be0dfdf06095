//! Orders in a session: all that stand are read from a hash when it begins, and news are written to the hash and to the
//! stream, by which the other instances have them at once.
//!
//! Applies nothing and decides nothing (`pool::OrderBook` does). Invariants: the hash is written before the stream, so
//! an instance that reads of an order older than its own writes the hash after that one was written, and in the end the
//! later order stands there; an order that could not be told waits in the book; a hash that has lost fields is filled
//! again within [`HELLO_EVERY`](super::HELLO_EVERY).

use std::sync::atomic::Ordering::Relaxed;

use aws_lc_rs::hmac;

use super::super::item::{Item, ORDERS_MAX};
use super::super::kept;
use super::super::stream::{self, in_time};
use super::FleetSession;
use crate::clock;
use crate::pool::{OrderBook, OrderKey, TakenOrder, ToldOrder};
use crate::store::link::{Link, LinkError};

/// The orders of a session; their book is that of the process.
pub(super) struct SessionOrders {
    book: OrderBook,
    /// Key of the hash in the store.
    hash: String,
}

impl SessionOrders {
    /// Has the orders of a book told. `prefix`: of every key in the store. `store_ms`: the clock of the store. In a cluster
    /// the hash is at the node of the stream, by the part in braces.
    pub(super) fn new(book: OrderBook, (prefix, stream): (&str, &str), store_ms: u64) -> Self {
        let orders = Self { book, hash: format!("{prefix}orders{{{stream}}}") };
        orders.date(store_ms);
        orders
    }

    fn date(&self, store_ms: u64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        if self.book.is_open() {
            self.book.date(Some(signed(store_ms).saturating_sub(signed(clock::now_ms()))));
        }
    }
}

impl Drop for SessionOrders {
    fn drop(&mut self) {
        // From here on the clock of the store is not known.
        self.book.date(None);
    }
}

impl FleetSession {
    /// Reads all orders that stand in the store, and tells it those that it does not have.
    pub(super) async fn begin_orders(&mut self) -> Result<(), String> {
        if !self.orders.book.is_open() {
            return Ok(());
        }
        self.orders.book.doubt();
        match self.read_orders().await {
            Err(broken) if broken.is_refusal() => self.refused(&broken.why),
            read => read.map_err(|broken| broken.why)?,
        }
        self.tell_orders().await
    }

    /// Tells the orders that wait.
    pub(super) async fn tell_orders(&mut self) -> Result<(), String> {
        let waiting = self.orders.book.waiting();
        for some in waiting.chunks(ORDERS_MAX) {
            if self.is_refused {
                return Ok(());
            }
            let fields: Vec<_> = some.iter().map(|told| self.kept(told)).collect();
            match in_time(kept::write(&self.link, &self.orders.hash, &fields)).await {
                Err(broken) if broken.is_refusal() => self.refused(&broken.why),
                written => written.map_err(|broken| broken.why)?,
            }
            self.append(&[self.sealed(&Item::Orders { orders: some.to_vec(), unknown: 0 })]).await?;
            if !self.is_refused {
                self.orders.book.told(some);
                self.shared.counters.orders_told.fetch_add(some.len() as u64, Relaxed);
            }
        }
        Ok(())
    }

    /// Follows the clock of the store, and tells what it has lost or was not told.
    pub(super) async fn renew_orders(&mut self) -> Result<(), String> {
        if !self.orders.book.is_open() {
            return Ok(());
        }
        let looked = in_time(look(&self.link, &self.orders.hash)).await;
        match looked {
            Ok((store_ms, count)) => {
                self.orders.date(store_ms);
                if count < self.orders.book.told_count() { self.begin_orders().await } else { self.tell_orders().await }
            }
            Err(broken) if broken.is_refusal() => {
                self.refused(&broken.why);
                Ok(())
            }
            Err(broken) => Err(broken.why),
        }
    }

    /// Takes the orders that stand in the store. Those of which the book has forgotten the matter are deleted there.
    async fn read_orders(&mut self) -> Result<(), LinkError> {
        let fields = in_time(kept::read(&self.link, &self.orders.hash)).await?;
        let mut forgotten = Vec::new();
        for (field, value) in fields {
            let Ok((_, Item::Orders { orders, unknown })) = Item::opened(&value, &self.orders.hash, &self.key) else {
                self.shared.counters.refused.fetch_add(1, Relaxed);
                continue;
            };
            let taken: Vec<_> = orders.into_iter().map(|told| self.inbox.take_order(told)).collect();
            if unknown == 0 && taken.contains(&TakenOrder::NoRoom) {
                forgotten.push(field);
            }
        }
        if forgotten.is_empty() {
            return Ok(());
        }
        in_time(kept::delete(&self.link, &self.orders.hash, &forgotten)).await
    }

    /// The field of an order, and what stands there.
    fn kept(&self, told: &ToldOrder) -> (String, Vec<u8>) {
        let item = Item::Orders { orders: vec![told.clone()], unknown: 0 };
        let key: &hmac::Key = &self.key;
        let field = kept::field(&OrderKey::of(&told.order), key);
        (field, item.sealed(self.shared.instance, &self.orders.hash, key))
    }
}

/// The clock of the store, and how many orders stand in the hash, which lives on from now.
async fn look(link: &Link, hash: &str) -> Result<(u64, usize), LinkError> {
    let store_ms = stream::time_ms(link).await?;
    kept::renew(link, hash).await?;
    Ok((store_ms, kept::count(link, hash).await?))
}
