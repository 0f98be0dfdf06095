//! What sharing costs the store: the table of `sessile help fleet`, counted over a day of an imitated clock.
//!
//! Writes to no store: the items of recaps are made and counted as a session makes and counts them. Invariant: what is
//! counted here is what the rules of recaps, the stick table and the format of items do, and no other arithmetic.

use std::time::Duration;

use aws_lc_rs::hmac;

use super::item::{ENTRIES_MAX, Item};
use super::session::{recap_every, recap_min};
use crate::pool::{PoolTable, Remember};
use crate::snapshot::Snapshot;
use crate::sticky::table::{EntryKind, KeyHash};

const CLIENTS: u32 = 1_000;
const MINUTE_MS: u64 = 60_000;
/// How often a client comes.
const COMES_EVERY_MS: u64 = 600_000;

/// A pool that remembers so long, with an outbox that is open.
struct CountedInstance {
    snapshot: Snapshot,
    every: Duration,
    key: hmac::Key,
}

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
struct RecapCost {
    entries: usize,
    items: usize,
    bytes: usize,
}

impl CountedInstance {
    fn new(remember: &str) -> Self {
        let snapshot = Snapshot::of_text(&format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n\
             stick_table = \"256 KiB\"\nremember = \"{remember}\"\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n"
        ));
        snapshot.outbox.open(true);
        let every = recap_every(snapshot.pools[0].table().map(PoolTable::remember));
        Self { snapshot, every, key: hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]) }
    }

    /// All clients come, and stand where placement does not find them. Returns what is told as news.
    fn come(&self, now_ms: u64) -> usize {
        let pool = &self.snapshot.pools[0];
        let table = pool.table().unwrap();
        for client in 0..CLIENTS {
            let key: KeyHash = table.stick_table().secret().key(&client.to_be_bytes());
            table.settle(Remember::new(key, EntryKind::Displaced), &pool.backends()[0], now_ms);
        }
        self.snapshot.outbox.take().len()
    }

    fn recap(&self, now_ms: u64, written: &mut RecapCost) {
        let table = self.snapshot.pools[0].table().unwrap();
        let entries: Vec<_> = table.recap(now_ms, recap_min(self.every), None).collect();
        written.entries += entries.len();
        for entries in entries.chunks(ENTRIES_MAX) {
            let item = Item::Entries { is_news: false, entries: entries.to_vec() };
            written.items += 1;
            written.bytes += item.sealed(1, "sessile:fleet", &self.key).len();
        }
    }

    /// Recaps from one hour to another, the first one excluded, while clients come or not.
    fn hours(&self, from: u64, to: u64, comes: bool) -> RecapCost {
        let (mut written, every_ms) = (RecapCost::default(), self.every.as_millis() as u64);
        for now_ms in (from * 60 + 1..=to * 60).map(|minute| minute * MINUTE_MS) {
            if comes && now_ms % COMES_EVERY_MS == 0 {
                assert_eq!(self.come(now_ms), 0, "a client that stays is no news");
            }
            if now_ms % every_ms == 0 {
                self.recap(now_ms, &mut written);
            }
        }
        written
    }
}

#[test]
fn a_displaced_client_costs_what_the_manual_says_and_nothing_once_it_has_gone() {
    let manual = include_str!("../../cli/help/fleet.md");
    // An item is 43 bytes and 14 for each entry; a thousand entries are four.
    for (remember, recaps_a_day) in [("20m", 288), ("3h", 32), ("24h", 24)] {
        let instance = CountedInstance::new(remember);
        assert_eq!(instance.come(0), CLIENTS as usize, "each once");
        let written = instance.hours(0, 24, true);
        let (entries, items) = (recaps_a_day * CLIENTS as usize, recaps_a_day * 4);
        assert_eq!(written, RecapCost { entries, items, bytes: entries * 14 + items * 43 }, "{remember}");
        let [bytes, items] = [written.bytes as f64 / f64::from(CLIENTS), written.items as f64].map(|day| day / 24.0);
        let row = format!("| `{remember}` | {bytes:.1} | {items:.1} |");
        assert!(manual.lines().any(|line| line == row), "the manual lacks {row}");
        let last = instance.hours(24, 48, false);
        assert!(last.entries <= CLIENTS as usize, "{remember}: {last:?}");
        assert_eq!(instance.hours(48, 72, false), RecapCost::default(), "{remember}");
    }
}
