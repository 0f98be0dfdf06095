//! A thousand tables, one after the other, under connections that outlive them all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use crate::support::backend::listener;
use crate::support::load_support::{Client, Echo, alone};
use crate::support::{Sessile, eventually};

const RELOADS: usize = 1_000;
const BACKENDS: usize = 500;

/// Reloads before anything is measured, under as many connections as later.
const WARM: usize = 100;

/// Most memory of the events of the reloads, which are kept, in KiB.
const EVENTS_KIB: usize = RELOADS;

/// Reloads over which memory is looked at.
const LOOKS: usize = 40;

/// A ring of many names at few addresses; each number has another table than the one before it.
fn config(number: usize, echoes: &[Echo]) -> String {
    let mut text = listener("p", "") + "[[pool]]\nname = \"p\"\nbalance = \"ring\"\n";
    for index in 0..BACKENDS {
        let address = echoes[index % echoes.len()].address;
        let weight = if index == number % BACKENDS { 2 + number / BACKENDS % 2 } else { 1 };
        let name = if index == 0 { format!("renamed{number}") } else { format!("b{index}") };
        let _ = write!(text, "[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nweight = {weight}\n");
    }
    text + "[pool.check]\nkind = \"off\"\n[log]\nformat = \"json\"\nlevel = \"error\"\n"
}

/// The process under test and the number of its table.
struct Table {
    sessile: Sessile,
    echoes: [Echo; 3],
    number: usize,
    digests: BTreeSet<String>,
}

impl Table {
    /// Loads a table that differs from all tables before.
    fn reload(&mut self) {
        self.number += 1;
        let verdict = self.sessile.reload(&config(self.number, &self.echoes));
        assert_eq!(verdict["accepted"], true, "{verdict}");
        assert!(self.digests.insert(verdict["digest"].to_string()), "reload {} changed nothing", self.number);
        let alive = self.sessile.status()["generations_alive"].as_u64().unwrap();
        assert!(alive <= 2, "{alive} generations alive at reload {}", self.number);
    }

    /// Memory without connections, over some reloads: at least, at most. Old and new tables stand side by side for a
    /// moment, and whether the place of the old one can be given back is chance.
    fn kib(&mut self) -> (usize, usize) {
        eventually("every connection to be gone", || (self.sessile.status()["admission"]["open"] == 0).then_some(()));
        let look = |_| {
            self.reload();
            self.sessile.pss_kib()
        };
        let looks: Vec<_> = (0..LOOKS).map(look).collect();
        (looks.iter().copied().min().unwrap(), looks.iter().copied().max().unwrap())
    }

    fn connect(&self, front: SocketAddr) -> Client {
        let mut client = Client::connect(front);
        assert_eq!(client.ask("hello"), "hello");
        client
    }
}

/// Memory is compared without connections, before and after a thousand of them lived through a thousand reloads; the
/// first look comes after as many came and went under fewer reloads, so that what they cost themselves is in both.
#[test]
fn a_thousand_reloads_leave_at_most_two_generations_and_the_memory_of_one() {
    let _alone = alone();
    let echoes = [Echo::start(), Echo::start(), Echo::start()];
    let sessile = Sessile::spawn(&config(0, &echoes), |command| {
        // The C library's slack comes and goes by chance, by megabytes: it would raise both thresholds with what is
        // freed, and keep what one thread frees from the others.
        let fixed = [("MMAP_THRESHOLD_", "131072"), ("TRIM_THRESHOLD_", "131072"), ("ARENA_MAX", "1")];
        command.envs(fixed.map(|(name, value)| (format!("MALLOC_{name}"), value)));
    });
    sessile.ready();
    let front = sessile.address("l");
    let mut table = Table { sessile, echoes, number: 0, digests: BTreeSet::new() };
    let mut held = Vec::new();
    for _ in 0..WARM {
        table.reload();
        held.extend((0..RELOADS / WARM).map(|_| table.connect(front)));
    }
    drop(held);
    let (least, before) = table.kib();

    let (begun, mut held) = (Instant::now(), Vec::new());
    for _ in 0..RELOADS {
        table.reload();
        held.push(table.connect(front));
    }
    let (took, with_all) = (begun.elapsed(), table.sessile.pss_kib());
    for (number, client) in held.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("still {number}")), format!("still {number}"));
    }
    assert_eq!(table.sessile.status()["admission"]["open"], RELOADS);
    drop(held);
    // What is only scattered comes together again in some more reloads; what has leaked does not.
    let mut after = Vec::new();
    while after.len() < 8 && after.last().is_none_or(|after| *after > before + before / 20 + EVENTS_KIB) {
        after.push(table.kib().0);
    }
    println!("{took:?}; memory {least} to {before} KiB before, {with_all} with all, {after:?} after");
    let most = before + before / 20 + EVENTS_KIB;
    assert!(*after.last().unwrap() <= most, "memory grew from {before} to {after:?} KiB");
    eventually("one generation", || (table.sessile.status()["generations_alive"] == 1).then_some(()));
    assert_eq!(table.sessile.metric("sessile_generation"), (table.number + 1) as f64);
}
