//! Everything about a table changes under active clients: backends come, go and come back, weights, a hundred reloads,
//! the size of the stick table.
//!
//! Where the stick table has room for all (to half of its places) only clients of a backend that is gone move, and what
//! the balancer counts is what the logs say. Where it has not, it cannot know a client that it has forgotten: such a client
//! goes where placement finds it, and its break is in the logs alone. Then the rows say how many were forgotten, and
//! hold that the balancer counted no break that was none, and that no client went where neither stick table nor
//! placement would send it.

use std::collections::BTreeSet;
use std::time::Instant;

use super::backends::Backends;
use super::clients::{Load, Toll, visit_all};
use super::table::Table;
use super::truth::{Step, Truth, first_second, spread};
use super::{Breaks, Row, Scale, breaks, reload, since};
use crate::support::Sessile;

/// Backends of the first table.
const FIRST: usize = 10;
/// How many are added.
const MORE: [usize; 3] = [1, 3, 10];
/// Bytes of an entry.
const ENTRY: u64 = 16;
const KIB: u64 = 1 << 10;

struct Scene<'a> {
    scale: &'a Scale,
    name: String,
    /// A run with a stick table that has room for every client.
    roomy: bool,
    sessile: Sessile,
    truth: Truth,
    table: Table,
    counted: Breaks,
    changing: bool,
    groups: u32,
    rows: Vec<Row>,
}

/// A run with a stick table that the active clients alone fill to this percentage.
pub fn run(scale: &Scale, fill: u64) -> Vec<Row> {
    let backends = Backends::start(FIRST + MORE[2]);
    let kib = u64::from(scale.clients) * ENTRY * 100 / fill / KIB;
    let table = Table::new(&backends.addresses, FIRST, kib);
    let mut scene = Scene {
        scale,
        name: format!("{fill} % filled"),
        roomy: fill <= 50,
        sessile: Sessile::start(&table.text()),
        truth: Truth::new(&backends.log),
        table,
        counted: Breaks::new(),
        changing: false,
        groups: 0,
        rows: Vec::new(),
    };
    scene.settle();
    for more in MORE {
        scene.grow(more);
    }
    scene.weights();
    scene.reloads();
    scene.sizes(kib);
    scene.rows
}

impl Scene<'_> {
    fn front(&self) -> std::net::SocketAddr {
        self.sessile.address("l")
    }

    /// Every client so far.
    fn everybody(&self) -> std::ops::Range<u32> {
        self.scale.sources().start..self.scale.fresh_sources(self.groups).start
    }

    fn visit(&self, sources: impl Iterator<Item = u32> + Clone) -> Toll {
        visit_all(self.front(), sources, self.scale.parallel)
    }

    /// A row of everything since the last one.
    fn row(&mut self, what: &str, tolls: &[Toll], cause: Option<&str>) -> (Row, Step) {
        let step = self.truth.step();
        let now = breaks(&self.sessile);
        let lost: u64 = tolls.iter().map(|toll| toll.lost + toll.cut).sum();
        let mut row = Row::new(format!("{}: {what}", self.name), step.arrivals.len() as u64);
        row.counted = since(&self.counted, now.clone());
        row.by_logs = step.breaks.len() as u64;
        row.must(lost == 0, || format!("{lost} visits were cut"));
        self.counted = now;
        if self.roomy {
            row.exactly(cause);
        } else {
            self.forgetful(&mut row, &step, cause);
        }
        (row, step)
    }

    /// The stick table had no room for some.
    fn forgetful(&self, row: &mut Row, step: &Step, cause: Option<&str>) {
        let counted: u64 = row.counted.values().sum();
        let by_logs = row.by_logs;
        row.must(counted <= by_logs, || "more counted than there were".into());
        row.must(row.counted.keys().all(|known| Some(known.as_str()) == cause), || "another cause".into());
        row.note = format!("{} forgotten", by_logs.saturating_sub(counted));
        // While reloads follow each other no observer can see which table was in force.
        if !self.changing {
            let placement = self.table.placement();
            let astray = step.breaks.iter().filter(|(key, _, to)| placement(*key) != *to).count();
            row.must(astray == 0, || format!("{astray} went where placement would not have them"));
        }
    }

    /// New clients right after a change: whether they spread from the first second on.
    fn newcomers(&mut self, began: Instant) -> (Toll, (f64, f64)) {
        let sources = self.scale.fresh_sources(self.groups);
        self.groups += 1;
        let toll = self.visit(sources.clone());
        let arrivals: Vec<_> = self.truth.peek().into_iter().filter(|one| sources.contains(&one.source)).collect();
        (toll, spread(first_second(&arrivals, began), &self.table.weights))
    }

    fn change(&mut self, table: Table) -> Instant {
        self.table = table;
        reload(&self.sessile, &self.table.text());
        Instant::now()
    }

    fn settle(&mut self) {
        let tolls = [0, 1].map(|_| self.visit(self.scale.sources()));
        let (mut row, step) = self.row("10 backends, everybody twice", &tolls, None);
        row.spreads(spread(&step.fresh, &self.table.weights));
        self.rows.push(row);
    }

    /// So many are added, removed, returned; then they go again.
    fn grow(&mut self, more: usize) {
        let (few, many) = (self.table.with(FIRST), self.table.with(FIRST + more));
        for (what, table, cause) in [
            ("added", &many, None),
            ("removed", &few, Some("removed")),
            ("returned", &many, None),
            ("removed again", &few, Some("removed")),
        ] {
            let leaving: BTreeSet<u32> = (FIRST..FIRST + more).flat_map(|index| self.truth.at(index as u8)).collect();
            let began = self.change(table.clone());
            let (newcomers, spreads) = self.newcomers(began);
            let visits = match what {
                // The other backends are not asked: their clients have not changed.
                "removed again" => self.visit(leaving.iter().copied()),
                _ => self.visit(self.everybody()),
            };
            let (mut row, step) = self.row(&format!("{more} {what}"), &[newcomers, visits], cause);
            row.spreads(spreads);
            if cause.is_some() {
                let torn: BTreeSet<u32> = step.breaks.iter().map(|(key, ..)| *key as u32).collect();
                row.must(leaving.is_subset(&torn), || "some stayed where nobody is".into());
            }
            self.rows.push(row);
        }
    }

    fn weights(&mut self) {
        let weights = (0..FIRST as u16).map(|index| 1 + index % 4).collect();
        let began = self.change(Table { weights, ..self.table.clone() });
        let (newcomers, spreads) = self.newcomers(began);
        let visits = self.visit(self.everybody());
        let (mut row, _) = self.row("weights 1 to 4", &[newcomers, visits], None);
        row.spreads(spreads);
        self.rows.push(row);
    }

    /// Every one of them changes the placement.
    fn reloads(&mut self) {
        let load = Load::start(self.front(), self.everybody(), self.scale.parallel);
        load.go_on(1);
        for number in 1..=self.scale.reloads {
            let mut table = self.table.with(FIRST);
            table.weights[number as usize % FIRST] += (number % 2) as u16;
            self.change(table);
            load.go_on(20);
        }
        let toll = load.stop();
        self.change(self.table.with(FIRST));
        let visits = self.visit(self.everybody());
        let what = format!("{} reloads under load", self.scale.reloads);
        self.changing = true;
        let (row, _) = self.row(&what, &[toll, visits], None);
        self.changing = false;
        self.rows.push(row);
    }

    fn sizes(&mut self, kib: u64) {
        for (what, size) in [("stick table × 2", kib * 2), ("stick table back", kib)] {
            let load = Load::start(self.front(), self.everybody(), self.scale.parallel);
            load.go_on(100);
            self.change(Table { kib: size, ..self.table.clone() });
            load.go_on(100);
            let toll = load.stop();
            let visits = self.visit(self.everybody());
            let (mut row, _) = self.row(&format!("{what} under load"), &[toll, visits], None);
            let known = self.sessile.status()["memories"][0]["known"].as_u64().unwrap_or(0);
            let percent = known * ENTRY * 100 / (size * KIB);
            row.note = format!("{known} known, {percent} % filled; {}", row.note);
            self.rows.push(row);
        }
    }
}
