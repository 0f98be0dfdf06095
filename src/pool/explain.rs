//! [`Decision`]: how a pool picks for one client, step by step.
//!
//! Picks nothing by itself: the choice and the next one come from [`Pool::pick`]. Text and JSON are made elsewhere.
//! Invariant: for equal facts and health, `pick` is what a connection gets; where only the moment decides, `any` is
//! set.

use super::placement_key::{PlacementKey, key_parts, range_of, source_as};
use super::scene::{HealthView, PickScene};
use super::{Pick, Pool};
use crate::config::KeyPart;
use crate::sticky::Facts;
use crate::sticky::key::SourceAs;

/// How a pool picks for one client.
#[derive(Debug)]
pub struct Decision<'p> {
    /// The key; `None` when no key decides.
    pub key: Option<DecidingKey<'p>>,
    /// Name of the range that holds the client's address.
    pub range: Option<&'p str>,
    /// Every backend in the order placement prefers them; those of weight 0 last, without a score.
    pub candidates: Vec<CandidateBackend>,
    /// What a connection gets now.
    pub pick: Option<Pick<'p>>,
    /// What it would get if the backend of `pick` were down, too.
    pub next: Option<Pick<'p>>,
    /// True if no key decides and any of several candidates may get the client.
    pub any: bool,
}

/// The key that decides about a client.
#[derive(Debug)]
pub struct DecidingKey<'p> {
    /// Hash of the key's bytes for placement.
    pub hash: u64,
    /// Parts of the key, in order.
    pub parts: &'p [KeyPart],
    /// What the client's address adds to the key.
    pub source_as: SourceAs<'p>,
}

/// One backend as a candidate.
#[derive(Debug)]
pub struct CandidateBackend {
    /// Index of the backend in [`Pool::backends`].
    pub index: usize,
    /// What placement compared, one word per level; empty for weight 0.
    pub score: String,
    /// Why the backend may not serve this client; `None` = it may.
    pub excluded: Option<Exclusion>,
}

/// Why a backend may not serve a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusion {
    /// Weight 0: only clients known there are served.
    NoWeight,
    /// Supposed to be down.
    Down,
    /// Not among the backends of the client's range.
    OutsideRange,
}

impl Pool {
    /// Explains the pick for a new client; `cookie` is the index of the backend that its cookie names.
    /// The backends at the indexes in `down` are down, all others are up.
    pub fn explain(&self, facts: &Facts<'_>, cookie: Option<usize>, down: &[usize]) -> Decision<'_> {
        let scene = PickScene::supposed(facts, cookie, down);
        let pick = self.pick(&scene);
        let next = pick.and_then(|pick| {
            let down = [down, &[pick.index]].concat();
            // Tried, too: `all_down = "try"` would pick a backend that is down.
            let tried = std::slice::from_ref(pick.backend);
            self.pick(&PickScene { tried, ..PickScene::supposed(facts, cookie, &down) })
        });
        let key = PlacementKey::new(self, facts, range_of(self, facts), || scene.view.draw(&self.shared.draws.0));
        let candidates = candidates(self, &key, down);
        let row = |index: usize| {
            let row = candidates.iter().find(|row| row.index == index)?;
            Some((row.excluded.is_none(), self.config.backends[index].backup))
        };
        let chosen = pick.and_then(|pick| row(pick.index));
        let alike = candidates.iter().filter(|other| chosen.is_some() && row(other.index) == chosen).count();
        Decision {
            any: pick.is_some_and(|pick| !pick.keyed) && alike > 1,
            key: key.keyed.then(|| DecidingKey {
                hash: key.draw,
                parts: key_parts(self, facts),
                source_as: source_as(self, key.range),
            }),
            range: key.range.map(|range| &*range.name),
            candidates,
            pick,
            next,
        }
    }
}

fn candidates(pool: &Pool, key: &PlacementKey<'_>, down: &[usize]) -> Vec<CandidateBackend> {
    let leases = |index: usize| pool.backends[index].leases();
    let ordered = pool.placement.order(key.draw, |_| true, leases);
    let weightless = (0..pool.backends.len()).filter(|index| pool.config.backends[*index].weight == 0);
    let scored = ordered.into_iter().map(|found| (found.index, found.score));
    let row = |(index, score): (usize, String)| {
        let excluded = match key.pin() {
            _ if pool.config.backends[index].weight == 0 => Some(Exclusion::NoWeight),
            _ if down.contains(&index) => Some(Exclusion::Down),
            Some(pin) if !pin.allows(index) => Some(Exclusion::OutsideRange),
            _ => None,
        };
        CandidateBackend { index, score, excluded }
    };
    scored.chain(weightless.map(|index| (index, String::new()))).map(row).collect()
}
