//! [`Decision`]: how a pool picks for one client, step by step.
//!
//! Picks nothing by itself: the choice and the next one come from [`Pool::pick`]. Text and JSON are made elsewhere.
//! Invariant: for equal facts, health and stick table, `pick` is what a connection gets; where only the moment decides,
//! `any` is set, and `next_any` for the next one.

use std::time::Duration;

use super::candidates::Candidates;
use super::health::CheckState;
use super::load::LoadRules;
use super::placement_key::{PlacementKey, key_parts, range_of, source_as, with_key};
use super::scene::{HealthView, PickScene, SupposedView};
use super::{AwaitedPlace, Health, Pick, Pool};
use crate::config::KeyPart;
use crate::placement::Known;
use crate::sticky::Facts;
use crate::sticky::key::SourceAs;
use crate::sticky::table::{KeyHash, TableLookup};

/// How a pool picks for one client.
#[derive(Debug)]
pub struct Decision<'p> {
    /// The key; `None`: the client has none, or the pool asks for none.
    pub key: Option<DecidingKey<'p>>,
    /// True if load places the key when it is new, and the stick table remembers where.
    pub by_load: bool,
    /// Name of the range that holds the client's address.
    pub range: Option<&'p str>,
    /// What the stick table has about the key; `None`: there is no stick table, no key, or the question is not about
    /// the living pool.
    pub entry: Option<TableLookup>,
    /// Hash of the key in the stick table that was looked at.
    pub entry_key: Option<KeyHash>,
    /// How long the client has to wait for its backend, which cannot serve now; 0 = it is refused instead. `None`: the
    /// client does not wait.
    pub waits: Option<Duration>,
    /// The place at a full backend for which the client has to wait; `None`: it need not.
    pub awaited: Option<AwaitedPlace>,
    /// Every backend in the order placement prefers them; those of weight 0 last, without a score.
    pub candidates: Vec<CandidateBackend>,
    /// What a connection gets now.
    pub pick: Option<Pick<'p>>,
    /// What it would get if the backend of `pick` were down, too.
    pub next: Option<Pick<'p>>,
    /// True if load or turns decide, and any of several candidates may get the client.
    pub any: bool,
    /// The same of `next`.
    pub next_any: bool,
}

/// The key that decides about a client, or by which the stick table knows it.
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
    /// Why the backend takes no new client, or not this one; `None` = it may.
    pub excluded: Option<Exclusion>,
}

/// Why a backend does not take a client that is new to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusion {
    /// Weight 0: only clients known there are served.
    NoWeight,
    /// Down by its checks, or supposed to be.
    Down,
    /// Added by a reload, and no check has been good yet.
    Awaited,
    /// Ejected, because connects failed.
    Ejected,
    /// A drain by command: only clients known there are served.
    Draining,
    /// The deadline of the drain has passed, and no client is served.
    Drained,
    /// As many connections as `max_connections` allows.
    Full,
    /// Not among the backends of the client's range.
    OutsideRange,
    /// As many leases as `load_bound` allows.
    OverBound,
    /// The slow start does not admit this key yet.
    SlowStart,
    /// Others that take the client are nearer to the location of the backend that it had.
    Farther,
}

impl Pool {
    /// Explains the pick for a new client; `cookie` is the index of the backend that its cookie names.
    /// The backends at the indexes in `down` are down, all others are up.
    pub fn explain(&self, facts: &Facts<'_>, cookie: Option<usize>, down: &[usize]) -> Decision<'_> {
        self.decide(&PickScene::supposed(facts, cookie, down))
    }

    /// Explains the pick for the client's next connection, with health, stick table, drains and leases as they are now.
    /// The backends at the indexes in `down` are down, too.
    pub fn explain_now(&self, facts: &Facts<'_>, cookie: Option<usize>, down: &[usize], now_ms: u64) -> Decision<'_> {
        let waits = self.waits(cookie, facts, now_ms);
        Decision { waits, ..self.decide(&PickScene::asked(facts, cookie, down, now_ms)) }
    }

    fn decide(&self, scene: &PickScene<'_, SupposedView<'_>>) -> Decision<'_> {
        let (pick, awaited) = match self.pick_or_wait(scene) {
            Ok(pick) => (Some(pick), None),
            Err(awaited) => (None, awaited),
        };
        let next = pick.and_then(|pick| {
            let down = [scene.view.down, &[pick.index]].concat();
            // Tried, too: `all_down = "try"` would pick a backend that is down.
            let tried = std::slice::from_ref(pick.backend);
            self.pick(&PickScene { tried, view: SupposedView { down: &down, ..scene.view }, ..*scene })
        });
        let range = range_of(self, scene.facts);
        let turn = || scene.view.draw(&self.shared.draws.0);
        let key = PlacementKey::new(self, scene.facts, range, turn);
        let table = scene.view.table(self.table.as_ref()).zip(key.table_key);
        let mut candidates = candidates(&Candidates { pool: self, scene }, &key, turn);
        let any = pick.is_some_and(|pick| !pick.keyed && alike(self, &candidates, &pick, None) > 1);
        let next_any = next.is_some_and(|next| !next.keyed && alike(self, &candidates, &next, pick) > 1);
        pick.into_iter().for_each(|pick| mark_farther(self, &mut candidates, &pick));
        let hash = with_key(self, scene.facts, range, |key| self.placement.key_hash(key));
        Decision {
            any,
            next_any,
            by_load: hash.is_some() && self.config.places_by_load(),
            key: hash.map(|hash| DecidingKey {
                hash,
                parts: key_parts(self, scene.facts),
                source_as: source_as(self, key.range),
            }),
            range: key.range.map(|range| &*range.name),
            entry: table.map(|(table, table_key)| table.lookup(table_key, scene.now_ms)),
            entry_key: table.map(|(_, table_key)| table_key),
            waits: None,
            awaited,
            candidates,
            pick,
            next,
        }
    }
}

/// How many candidates may get a client that this pick places, the picked one included; `without`: the pick that is
/// supposed to be down.
fn alike(pool: &Pool, candidates: &[CandidateBackend], pick: &Pick<'_>, without: Option<Pick<'_>>) -> usize {
    let near = pool.near(pick.left);
    let kind = |row: &CandidateBackend| {
        (row.excluded.is_none(), pool.config.backends[row.index].backup, pool.levels_near(row.index, near))
    };
    let chosen = candidates.iter().find(|row| row.index == pick.index).map(kind);
    let others = candidates.iter().filter(|row| without.is_none_or(|without| without.index != row.index));
    others.filter(|row| Some(kind(row)) == chosen).count()
}

/// Notes the candidates that are farther than the picked one from the backend which the client had.
fn mark_farther(pool: &Pool, candidates: &mut [CandidateBackend], pick: &Pick<'_>) {
    let near = pool.near(pick.left);
    let levels = pool.levels_near(pick.index, near);
    let may = |row: &&mut CandidateBackend| row.excluded.is_none() && !pool.config.backends[row.index].backup;
    let farther = candidates.iter_mut().filter(may).filter(|row| pool.levels_near(row.index, near) < levels);
    farther.for_each(|row| row.excluded = Some(Exclusion::Farther));
}

fn candidates(
    of: &Candidates<'_, '_, SupposedView<'_>>,
    key: &PlacementKey<'_>,
    turn: impl FnOnce() -> u64,
) -> Vec<CandidateBackend> {
    let pool = of.pool;
    let leases = |index: usize| pool.backends[index].leases();
    let known = |index: usize| of.known_at(index);
    let known: Known<'_> = if key.by_load() { Some(&known) } else { None };
    let ordered = pool.placement.order(key.in_turn(pool, turn).draw, |_| true, leases, known);
    let weightless = (0..pool.backends.len()).filter(|index| pool.config.backends[*index].weight == 0);
    let scored = ordered.into_iter().map(|found| (found.index, found.score));
    // Without a key, each pick has another chance during a slow start.
    let load = LoadRules::of(of, key).filter(|_| key.keyed || key.by_load());
    let row = |(index, score)| CandidateBackend { index, score, excluded: excluded(of, key, load.as_ref(), index) };
    scored.chain(weightless.map(|index| (index, String::new()))).map(row).collect()
}

/// Why the backend does not take a client with this key that is new to it; `None`: it does.
fn excluded(
    of: &Candidates<'_, '_, SupposedView<'_>>,
    key: &PlacementKey<'_>,
    load: Option<&LoadRules<'_>>,
    index: usize,
) -> Option<Exclusion> {
    let backend = &of.pool.backends[index];
    let primary = !of.pool.config.backends[index].backup;
    match of.health(index) {
        _ if of.pool.config.backends[index].weight == 0 => Some(Exclusion::NoWeight),
        Health::Down if backend.standing() == CheckState::Awaited => Some(Exclusion::Awaited),
        Health::Down => Some(Exclusion::Down),
        _ if !of.allows(key.range, index) => Some(Exclusion::OutsideRange),
        Health::Ejected => Some(Exclusion::Ejected),
        Health::Usable if backend.drained(of.scene.now_ms) => Some(Exclusion::Drained),
        Health::Usable if backend.draining() => Some(Exclusion::Draining),
        Health::Usable if of.is_full(index) => Some(Exclusion::Full),
        Health::Usable => load
            .filter(|load| primary && !load.admits(index))
            .map(|load| if load.below_bound(index) { Exclusion::SlowStart } else { Exclusion::OverBound }),
    }
}
