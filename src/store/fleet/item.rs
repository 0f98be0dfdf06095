//! What instances tell each other, as the bytes of one item of the stream.
//!
//! Sends nothing. Invariants: bytes that no instance with the same secret has written are refused before anything of them
//! is used; an item is at most [`ITEM_MAX`] long, and what is read takes no more memory than its bytes say.
//!
//! # Format, version 1
//!
//! All numbers are little-endian; a name is its length in two bytes and its bytes.
//!
//! | item | bytes |
//! |---|---|
//! | version, kind | 1 · 1 |
//! | number of the instance, new with each start | 8 |
//! | body, by its kind | |
//! | HMAC-SHA-256 of the name of the stream and all of the above, cut to 128 bits | 16 |
//!
//! | kind | body |
//! |---|---|
//! | 1 hello | generation 8 · digest 8 · name of the host · number of stick tables 2 · each: name, digest 8 |
//! | 2 news | stick table's name · `hash_seed` 8 · number of digests 1 · each 8 · number of backends 2 · names · entries |
//! | 3 recap | the same; see [`Precedence`](crate::sticky::table::Precedence) |
//! | 4 ask | nothing |
//! | 5 orders | orders about backends, the same item in the stream and in the hash of all that stand |
//!
//! An entry: hash of the key 8 · number of its backend above 2 · kind 1 (0 displaced, 1 overflowed, 2 and up: placed under
//! the digest of that number, from 0) · minutes since the key was seen 3.
//!
//! An order: its time on the store's clock 8 · number of the instance where it was given 8 · name of its host · the
//! order as JSON, with its length as a name. One that another version gives, and this one does not know, is counted
//! alone.

use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::config::is_name;
use crate::order::BackendOrder;
use crate::pool::{OrderStamp, Told, ToldOrder};
use crate::sticky::table::{KeyHash, SharedEntry, SharedKind};

/// Longest item that is read.
pub(super) const ITEM_MAX: usize = 64 * 1024;
/// Most entries that are written as one item.
pub(super) const ENTRIES_MAX: usize = 256;
/// Most orders that are written as one item: with the longest names they are shorter than [`ITEM_MAX`].
pub(super) const ORDERS_MAX: usize = 32;

const VERSION: u8 = 1;
const HELLO: u8 = 1;
const NEWS: u8 = 2;
const RECAP: u8 = 3;
const ASK: u8 = 4;
const ORDERS: u8 = 5;
const SEAL: usize = 16;
const ENTRY: usize = 14;
const AGE_MAX: u32 = 0xff_ffff;
/// Digests of one item: kinds 2 to 255.
const DIGESTS_MAX: usize = 254;

/// One item of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// The instance is there, with its placements.
    Hello(InstanceHello),
    /// Entries of one stick table; `is_news`: they have come to be so just now.
    Entries { is_news: bool, entries: Vec<Told> },
    /// The instance could not read all that was told: the others are to recap every entry.
    Ask,
    /// Orders about backends; `unknown`: how many more there are, of other versions.
    Orders { orders: Vec<ToldOrder>, unknown: u64 },
}

/// An instance as it tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InstanceHello {
    pub(super) generation: u64,
    pub(super) digest: u64,
    /// Name of its host.
    pub(super) name: String,
    /// Digest of each stick table.
    pub(super) tables: Vec<(Arc<str>, u64)>,
}

/// Why an item is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemRefused {
    /// The item was not written under the secret of this instance.
    Foreign,
    /// The item is of another version, or contradicts the format.
    Unreadable,
}

impl Item {
    /// The bytes of this item, told by an instance in a stream.
    pub(super) fn sealed(&self, instance: u64, stream: &str, key: &hmac::Key) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Hello(hello) => (HELLO, hello.written()),
            Self::Entries { is_news, entries } => (if *is_news { NEWS } else { RECAP }, written(entries)),
            Self::Ask => (ASK, Vec::new()),
            Self::Orders { orders, .. } => (ORDERS, written_orders(orders)),
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend_from_slice(&instance.to_le_bytes());
        bytes.extend_from_slice(&body);
        let seal = seal(stream, &bytes, key);
        bytes.extend_from_slice(&seal.as_ref()[..SEAL]);
        bytes
    }

    /// Reads an item, and the instance that tells it.
    pub(super) fn opened(bytes: &[u8], stream: &str, key: &hmac::Key) -> Result<(u64, Self), ItemRefused> {
        if bytes.len() > ITEM_MAX {
            return Err(ItemRefused::Unreadable);
        }
        let (said, sealed) = bytes.split_last_chunk::<SEAL>().ok_or(ItemRefused::Foreign)?;
        let is_ours =
            aws_lc_rs::constant_time::verify_slices_are_equal(&seal(stream, said, key).as_ref()[..SEAL], sealed);
        is_ours.map_err(|_| ItemRefused::Foreign)?;
        ItemBytes(said).item().ok_or(ItemRefused::Unreadable)
    }
}

impl InstanceHello {
    fn written(&self) -> Vec<u8> {
        let mut bytes = [self.generation.to_le_bytes(), self.digest.to_le_bytes()].concat();
        put_name(&mut bytes, &self.name);
        // A configuration has far fewer pools, and what does not fit is not told.
        let tables = &self.tables[..self.tables.len().min(usize::from(u16::MAX))];
        bytes.extend_from_slice(&(tables.len() as u16).to_le_bytes());
        for (name, digest) in tables {
            put_name(&mut bytes, name);
            bytes.extend_from_slice(&digest.to_le_bytes());
        }
        bytes
    }
}

fn seal(stream: &str, bytes: &[u8], key: &hmac::Key) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(&(stream.len() as u64).to_le_bytes());
    context.update(stream.as_bytes());
    context.update(bytes);
    context.sign()
}

/// The body of an item with entries, all of one stick table.
fn written(entries: &[Told]) -> Vec<u8> {
    let (mut backends, mut digests, mut rows) = (Vec::<&str>::new(), Vec::<u64>::new(), Vec::new());
    for Told { backend, entry, .. } in entries {
        let number = place_of(&mut backends, &**backend) as u16;
        let kind = match entry.kind {
            SharedKind::Displaced => 0,
            SharedKind::Overflowed => 1,
            SharedKind::Placed(digest) => 2 + place_of(&mut digests, digest).min(DIGESTS_MAX - 1) as u8,
        };
        rows.extend_from_slice(&entry.key.to_bits().to_le_bytes());
        rows.extend_from_slice(&number.to_le_bytes());
        rows.push(kind);
        rows.extend_from_slice(&entry.age_min.min(AGE_MAX).to_le_bytes()[..3]);
    }
    let mut bytes = Vec::with_capacity(rows.len() + 64);
    let (table, hash_seed) = entries.first().map_or(("", 0), |first| (&*first.table, first.hash_seed));
    put_name(&mut bytes, table);
    bytes.extend_from_slice(&hash_seed.to_le_bytes());
    digests.truncate(DIGESTS_MAX);
    bytes.push(digests.len() as u8);
    digests.iter().for_each(|digest| bytes.extend_from_slice(&digest.to_le_bytes()));
    bytes.extend_from_slice(&(backends.len() as u16).to_le_bytes());
    backends.iter().for_each(|name| put_name(&mut bytes, name));
    bytes.extend_from_slice(&rows);
    bytes
}

/// The body of an item with orders.
fn written_orders(orders: &[ToldOrder]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for ToldOrder { order, stamp, host } in orders {
        bytes.extend_from_slice(&stamp.at_ms.to_le_bytes());
        bytes.extend_from_slice(&stamp.instance.to_le_bytes());
        put_name(&mut bytes, host);
        // Strings and numbers: there is nothing that JSON cannot hold.
        put_name(&mut bytes, &serde_json::to_string(order).unwrap_or_default());
    }
    bytes
}

/// Place of a value in a list, where it is added if it is missing.
fn place_of<T: PartialEq>(list: &mut Vec<T>, value: T) -> usize {
    list.iter().position(|known| *known == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    })
}

/// Appends a name. Names of a configuration are far shorter than what would be cut.
fn put_name(bytes: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&name.as_bytes()[..usize::from(length)]);
}

/// ItemBytes that are still to be read; every method is `None` where there are too few.
struct ItemBytes<'b>(&'b [u8]);

impl<'b> ItemBytes<'b> {
    fn item(mut self) -> Option<(u64, Item)> {
        let version = self.number(1)?;
        let (kind, instance) = (self.number(1)? as u8, self.number(8)?);
        if version != u64::from(VERSION) {
            return None;
        }
        let item = match kind {
            HELLO => Item::Hello(self.hello()?),
            NEWS | RECAP => Item::Entries { is_news: kind == NEWS, entries: self.entries()? },
            ASK => Item::Ask,
            ORDERS => self.orders()?,
            _ => return None,
        };
        self.0.is_empty().then_some((instance, item))
    }

    fn hello(&mut self) -> Option<InstanceHello> {
        let (generation, digest) = (self.number(8)?, self.number(8)?);
        let (name, count) = (self.name()?.to_owned(), self.number(2)?);
        let tables = (0..count).map(|_| Some((Arc::from(self.name()?), self.number(8)?))).collect::<Option<_>>()?;
        Some(InstanceHello { generation, digest, name, tables })
    }

    fn entries(&mut self) -> Option<Vec<Told>> {
        let (table, hash_seed): (Arc<str>, _) = (self.name()?.into(), self.number(8)?);
        let count = self.number(1)?;
        let digests = (0..count).map(|_| self.number(8)).collect::<Option<Vec<_>>>()?;
        let count = self.number(2)?;
        let backends = (0..count).map(|_| self.name().map(Arc::<str>::from)).collect::<Option<Vec<_>>>()?;
        let mut entries = Vec::with_capacity(self.0.len() / ENTRY);
        while !self.0.is_empty() {
            let (key, backend) = (KeyHash::from_bits(self.number(8)?), self.number(2)? as usize);
            let kind = match self.number(1)? {
                0 => SharedKind::Displaced,
                1 => SharedKind::Overflowed,
                under => SharedKind::Placed(*digests.get(under as usize - 2)?),
            };
            let entry = SharedEntry { key, kind, age_min: self.number(3)? as u32 };
            entries.push(Told { table: table.clone(), hash_seed, backend: backends.get(backend)?.clone(), entry });
        }
        Some(entries)
    }

    fn orders(&mut self) -> Option<Item> {
        let (mut orders, mut unknown) = (Vec::new(), 0);
        while !self.0.is_empty() {
            let stamp = OrderStamp { at_ms: self.number(8)?, instance: self.number(8)? };
            let (host, text) = (self.name()?.into(), self.name()?);
            match serde_json::from_str::<BackendOrder>(text) {
                Ok(order) if is_name(&order.pool) && is_name(&order.backend) => {
                    orders.push(ToldOrder { order, stamp, host });
                }
                _ => unknown += 1,
            }
        }
        Some(Item::Orders { orders, unknown })
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A little-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn name(&mut self) -> Option<&'b str> {
        let length = self.number(2)? as usize;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::order::{NewBackend, OrderKind};

    fn key(secret: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[secret; 32])
    }

    fn told(key: u64, backend: &str, kind: SharedKind, age_min: u32) -> Told {
        let entry = SharedEntry { key: KeyHash::from_bits(key), kind, age_min };
        Told { table: "web".into(), hash_seed: 3, backend: backend.into(), entry }
    }

    fn entries() -> Item {
        let entries = vec![
            told(1, "a", SharedKind::Displaced, 0),
            told(u64::MAX, "b", SharedKind::Placed(7), 180),
            told(2, "a", SharedKind::Overflowed, AGE_MAX),
            told(3, "a", SharedKind::Placed(9), 1),
        ];
        Item::Entries { is_news: true, entries }
    }

    fn hello() -> Item {
        let tables = vec![("web".into(), 7), ("mail".into(), 8)];
        Item::Hello(InstanceHello { generation: 4, digest: 5, name: "host".into(), tables })
    }

    fn ordered(kind: OrderKind, name: &str) -> ToldOrder {
        let order = BackendOrder { pool: name.into(), backend: name.into(), kind };
        ToldOrder { order, stamp: OrderStamp { at_ms: 5, instance: 6 }, host: name.into() }
    }

    fn orders() -> Item {
        let kinds = [OrderKind::Drain, OrderKind::Weight { weight: None }, OrderKind::Remove { now: true }];
        Item::Orders { orders: kinds.map(|kind| ordered(kind, "a")).into(), unknown: 0 }
    }

    #[test]
    fn an_order_of_another_version_is_counted_and_the_others_are_read() {
        let bytes = orders().sealed(1, "s", &key(1));
        let of_later = |text: &[u8]| {
            let at = bytes.windows(5).position(|some| some == b"drain").unwrap();
            let said = [&bytes[..at], text, &bytes[at + 5..bytes.len() - SEAL]].concat();
            [&said, &seal("s", &said, &key(1)).as_ref()[..SEAL]].concat()
        };
        let opened = Item::opened(&of_later(b"paint"), "s", &key(1));
        let Ok((1, Item::Orders { orders, unknown: 1 })) = opened else { panic!("{opened:?}") };
        assert_eq!(orders.len(), 2);
        assert_eq!(Item::opened(&of_later(b"drain"), "s", &key(1)), Ok((1, self::orders())));
    }

    #[test]
    fn as_many_orders_as_are_written_at_once_fit_into_an_item() {
        let name = "n".repeat(64);
        let added = NewBackend {
            location: [&*name; 8].join("/").into(),
            max_connections: Some(u32::MAX),
            ..NewBackend::at(format!("unix:/{}", "p".repeat(107)))
        };
        let orders = vec![ordered(OrderKind::Add(added), &name); ORDERS_MAX];
        let item = Item::Orders { orders, unknown: 0 };
        let bytes = item.sealed(1, "s", &key(1));
        assert_eq!(Item::opened(&bytes, "s", &key(1)), Ok((1, item)));
    }

    #[test]
    fn an_item_is_read_as_it_was_written_and_under_its_secret_and_in_its_stream_alone() {
        for item in [entries(), hello(), Item::Ask, orders()] {
            let bytes = item.sealed(99, "s:fleet", &key(1));
            assert_eq!(Item::opened(&bytes, "s:fleet", &key(1)), Ok((99, item)));
            assert_eq!(Item::opened(&bytes, "s:fleet", &key(2)), Err(ItemRefused::Foreign));
            assert_eq!(Item::opened(&bytes, "t:fleet", &key(1)), Err(ItemRefused::Foreign));
        }
    }

    #[test]
    fn an_entry_takes_fourteen_bytes() {
        let of = |count: u64| (0..count).map(|n| told(n, "a", SharedKind::Displaced, 0)).collect();
        let length = |count| Item::Entries { is_news: false, entries: of(count) }.sealed(1, "s", &key(1)).len();
        assert_eq!(length(ENTRIES_MAX as u64) - length(0), ENTRIES_MAX * ENTRY + "web".len() + 2 + "a".len());
        assert!(length(ENTRIES_MAX as u64) < 4_096);
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let bytes = vec![VERSION; ITEM_MAX + 1];
        assert_eq!(Item::opened(&bytes, "s", &key(1)), Err(ItemRefused::Unreadable));
    }

    proptest! {
        #[test]
        fn bytes_of_others_are_refused(bytes: Vec<u8>, at: usize, by in 1_u8..) {
            prop_assert!(Item::opened(&bytes, "s", &key(1)).is_err());
            let mut sealed = entries().sealed(1, "s", &key(1));
            let at = at % sealed.len();
            sealed[at] ^= by;
            prop_assert_eq!(Item::opened(&sealed, "s", &key(1)), Err(ItemRefused::Foreign));
        }

        #[test]
        fn sealed_nonsense_is_refused_and_holds_nothing_up(body: Vec<u8>, kind in 0_u8..7) {
            let mut bytes = vec![VERSION, kind];
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&body);
            let tag = seal("s", &bytes, &key(1));
            bytes.extend_from_slice(&tag.as_ref()[..SEAL]);
            if let Ok((_, Item::Entries { entries, .. })) = Item::opened(&bytes, "s", &key(1)) {
                prop_assert!(entries.len() * ENTRY <= body.len());
            }
        }
    }
}
