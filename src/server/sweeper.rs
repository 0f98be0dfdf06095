//! [`Sweeper`]: takes the sweeps of all stick tables in turn.
//!
//! Removes nothing itself (`sticky::table::sweep` does). Invariants: a step reads at most [`PAGES`] pages, however many
//! tables there are and whatever their size; tables without an entry that is over are looked at once in a minute.

use std::sync::Arc;

use crate::pool::Pool;
use crate::snapshot::Snapshot;

/// Most pages of 4 KiB that one step reads: about a millisecond. Two steps in a second sweep a table of the default size
/// that is full, and one of 4 GiB in nine minutes.
const PAGES: usize = 1_024;

/// Where the next step begins.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    /// Number of the table.
    next: usize,
    /// The minute in which no table had anything left to sweep.
    done: Option<u64>,
}

impl Sweeper {
    /// Sweeps tables in turn, from the one at which the last step stopped. Returns how many pages it read.
    pub(super) fn step(&mut self, snapshot: &Snapshot, now_ms: u64) -> usize {
        let minute = now_ms / 60_000;
        if self.done == Some(minute) {
            return 0;
        }
        let tables = snapshot.stick_tables().len();
        let first = self.next.checked_rem(tables).unwrap_or(0);
        let mut left = PAGES;
        let in_turn =
            snapshot.stick_tables().enumerate().skip(first).chain(snapshot.stick_tables().enumerate().take(first));
        for (number, (_, pools)) in in_turn {
            left -= sweep(pools, now_ms, left);
            if left == 0 {
                self.next = number;
                break;
            }
        }
        if left == PAGES {
            self.done = Some(minute);
        }
        PAGES - left
    }
}

fn sweep(pools: &[Arc<Pool>], now_ms: u64, pages: usize) -> usize {
    let mut tables = pools.iter().filter_map(|pool| pool.table());
    tables.next().map_or(0, |table| table.sweep(tables, now_ms, pages))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sticky::table::{BackendState, EntryKind, EntryValue, IdMap, Minute};

    const HOUR_MS: u64 = 3_600_000;

    /// Pools with tables of 16 MiB and one without, and keys in each table, seen at the start of the clock.
    fn snapshot(pools: usize, keys: u64) -> Snapshot {
        let mut text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"none\"\n\
                        [[pool]]\nname = \"none\"\nstick_table = \"0\"\n\
                        backend = { name = \"a\", address = \"127.0.0.1:1\" }\n"
            .to_owned();
        for n in 0..pools {
            text += &format!(
                "[[pool]]\nname = \"p{n}\"\nstick_table = \"16 MiB\"\nremember = \"1h\"\n\
                 backend = {{ name = \"a\", address = \"127.0.0.1:1\" }}\n"
            );
        }
        let snapshot = Snapshot::of_text(&text);
        for (_, pools) in snapshot.stick_tables() {
            let table = pools[0].table().unwrap().stick_table();
            let id = IdMap::new(table.ids(), ["a"]).id(0).unwrap();
            for n in 0..keys {
                let (key, place) =
                    (table.secret().key(&n.to_be_bytes()), EntryValue { id, kind: EntryKind::Displaced });
                let _ = table.settle(key, place, Minute::START, |_| BackendState::Usable);
            }
        }
        snapshot
    }

    fn known(snapshot: &Snapshot) -> Vec<u64> {
        let tables = snapshot.pools.iter().filter_map(|pool| pool.table());
        tables.map(|table| table.by_backend().map(|(_, count)| count).sum()).collect()
    }

    #[test]
    fn every_table_has_its_turn_and_no_step_reads_more_than_it_may() {
        let (snapshot, mut sweeper) = (snapshot(3, 3_000), Sweeper::default());
        assert_eq!(sweeper.step(&snapshot, HOUR_MS), 0, "nothing is over");
        let over_ms = 2 * HOUR_MS;
        let steps: Vec<_> =
            std::iter::repeat_with(|| sweeper.step(&snapshot, over_ms)).take_while(|read| *read > 0).collect();
        assert!(steps.iter().all(|read| *read <= PAGES) && steps.len() >= 3, "{steps:?}");
        assert_eq!(known(&snapshot), [0, 0, 0]);
        assert!(
            steps.iter().sum::<usize>() <= 3 * 3_000,
            "a page for each key at most, of 4,096 in a table: {steps:?}"
        );
    }

    #[test]
    fn an_entry_goes_when_its_time_is_over_and_not_before() {
        let (snapshot, mut sweeper) = (snapshot(1, 100), Sweeper::default());
        let remember = Duration::from_secs(3_600).as_millis() as u64;
        sweeper.step(&snapshot, remember);
        assert_eq!(known(&snapshot), [100]);
        sweeper.step(&snapshot, remember + 60_000);
        assert_eq!(known(&snapshot), [0]);
    }

    #[test]
    fn a_configuration_without_tables_has_nothing_to_sweep() {
        assert_eq!(Sweeper { next: 7, done: None }.step(&snapshot(0, 0), HOUR_MS), 0);
    }
}
