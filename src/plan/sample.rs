//! [`Sample`]: made-up keys, counted by the backend where they are and the one where a change moves them.
//!
//! Stands for the keys that the process does not know. Invariant: the same two pools give the same sample.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pair::{self, BY_LOAD, PoolPair, Sampler};
use super::{Ask, Move};
use crate::config;
use crate::pool::Backend;

/// Number of keys of a sample that go from one backend to another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shares {
    pub(super) new: u32,
    pub(super) known: u32,
}

/// Keys of a sample, counted by the backend where they are and the one where they go.
#[derive(Debug, Default)]
pub(super) struct Sample {
    size: u32,
    rows: BTreeMap<(String, Option<String>), Shares>,
}

impl Sample {
    /// Takes the sample; `has_key`: both pools have a key.
    pub(super) fn take(before: &config::Pool, after: &config::Pool, has_key: bool, ask: Ask<'_>) -> Self {
        let size = ask.sample;
        let pair = PoolPair::new(before, after, ask.keys, size as usize);
        let (olds, news) = (pair.old.backends(), pair.new.backends());
        let named: Vec<_> = olds.iter().map(|backend| pair.named(backend.name())).collect();
        let sampler = Sampler::new(&pair);
        let placed_by_key = before.balance.keyed() && after.balance.keyed();
        // Indexed by backend now and then; the last index of `then` is no backend.
        let mut counts = vec![Shares::default(); olds.len() * (news.len() + 1)];
        let place = |from: usize, to: Option<usize>| from * (news.len() + 1) + to.unwrap_or(news.len());
        // Without a key only a cookie gives a client a backend of its own.
        let is_known = has_key || pair.by_cookie();
        // All are known before the first comes again: where load places keys, each goes by what the others have left.
        let home = |number| sampler.with_facts(number, |facts| index(olds, pair.visit(facts)?));
        let homes: Vec<_> = (0..size).map(|number| if is_known { home(number) } else { None }).collect();
        for (number, home) in (0..size).zip(homes) {
            sampler.with_facts(number, |facts| {
                if let Some(from) = home {
                    let to = pair.visit_again(named[from], facts).and_then(|to| index(news, to));
                    counts[place(from, to)].known += 1;
                }
                if placed_by_key && let Some(from) = pair::place_new(&pair.old, facts) {
                    let to = pair::place_new(&pair.new, facts).map(|to| to.index);
                    counts[place(from.index, to)].new += 1;
                }
            });
        }
        let mut sample = Self { size, rows: BTreeMap::new() };
        for (at, shares) in counts.into_iter().enumerate().filter(|(_, shares)| shares.new + shares.known > 0) {
            let (from, to) = (olds[at / (news.len() + 1)].name(), news.get(at % (news.len() + 1)));
            // A client that leaves its backend goes where the load is least then.
            let to = to.map(|to| if after.places_by_load() && to.name() != from { BY_LOAD } else { to.name() });
            let row = sample.rows.entry((from.to_owned(), to.map(str::to_owned))).or_default();
            (row.new, row.known) = (row.new + shares.new, row.known + shares.known);
        }
        sample
    }

    pub(super) fn moving(&self, count: fn(&Shares) -> u32) -> f64 {
        let moving = self.rows.iter().filter(|((from, to), _)| to.as_ref() != Some(from));
        self.share(moving.map(|(_, shares)| count(shares)).sum())
    }

    fn share(&self, count: u32) -> f64 {
        f64::from(count) / f64::from(self.size.max(1))
    }

    pub(super) fn moves(&self) -> Vec<Move> {
        let moving = self.rows.iter().filter(|((from, to), _)| to.as_ref() != Some(from));
        let mut moves: Vec<_> = moving
            .map(|((from, to), shares)| Move {
                from: from.clone(),
                to: to.clone(),
                new_keys: self.share(shares.new),
                known_keys: self.share(shares.known),
            })
            .collect();
        let size = |row: &Move| row.new_keys.max(row.known_keys);
        moves.sort_by(|a, b| size(b).total_cmp(&size(a)));
        moves
    }

    /// Number of known keys of `from`, by the backend where they go; of all backends, if `from` had no key.
    pub(super) fn known_from(&self, from: &str) -> BTreeMap<Option<String>, u32> {
        let mut there = BTreeMap::new();
        let mut all = BTreeMap::new();
        for ((at, to), shares) in self.rows.iter().filter(|(_, shares)| shares.known > 0) {
            *all.entry(to.clone()).or_insert(0) += shares.known;
            if at == from {
                *there.entry(to.clone()).or_insert(0) += shares.known;
            }
        }
        if there.is_empty() { all } else { there }
    }
}

fn index(backends: &[Arc<Backend>], backend: &Arc<Backend>) -> Option<usize> {
    backends.iter().position(|known| Arc::ptr_eq(known, backend))
}
