//! Memory of a stick table without entries: pages are taken when they are used.
//!
//! A binary of its own, because other tests' allocators and pages would be counted. Invariant: the system's allocator.

use std::time::Duration;

use sessile::sticky::table::{BackendState, EntryKind, EntryValue, IdMap, Minute, Secret, StickTable, Terms};

const GIB: u64 = 1 << 30;

#[test]
fn a_memory_of_a_gibibyte_costs_what_is_used_of_it() {
    let before = resident_bytes();
    let remember = Duration::from_secs(10_800);
    let terms = Terms { remember, remember_values: remember, digest: 1 };
    let table = StickTable::new(GIB, Secret::new([7; 16]), terms).expect("a table");
    assert_eq!(table.bytes(), GIB);
    let id = IdMap::new(table.ids(), ["a"]).id(0).expect("an id");
    let now = Minute::of_ms(0);
    for n in 0..100_u64 {
        let place = EntryValue { id, kind: EntryKind::Placed };
        let _ = table.settle(table.secret().key(&n.to_be_bytes()), place, now, |_| BackendState::Usable);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for a hundred keys");
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4_096
}
