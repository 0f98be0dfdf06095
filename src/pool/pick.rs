//! [`Pool::pick`]: which backend a connection goes to, and why.
//!
//! One function is the whole chain: range → cookie → stick table → connection → placement → last resort. Passthrough
//! connections, requests, `explain` and `plan` call it; they differ in their [`PickScene`] alone. Connects nothing and
//! reads no clock. Invariant: a pick waits for no lock, counts no reference and allocates nothing (but for keys longer than
//! [`INLINE`](crate::sticky::key::INLINE), and where clients wait for a place); a backend of weight 0 gets only clients that
//! are known there.
//!
//! # Cost
//!
//! A pick without a key takes a step for each doubling of the number of backends, and the same again for each level of
//! locations: `ready.rs` keeps what it needs. It looks at every backend once after health, a drain or the configuration
//! has changed; in a range that is pinned; after a failed attempt; for a client that holds connections in a pool where
//! `max_connections` overflows; where a client leaves a backend of a location; and where no backend is usable. Of the
//! methods with a key, `hash` weighs every backend of each level, `ring` and `maglev` look at one, and at others only
//! for a key that cannot go home. A load bound costs no more than that; a slow start is judged for the backend that was
//! found, and for every one only while that one is on its way up.
//!
//! # Load
//!
//! A pool may have a key and a method that uses none. Then the stick table alone brings a client back: a new key takes
//! its turn as a client without a key does, and its entry is written before the connection is established, so that
//! connections that come together go to one backend. No such key has a home. Among backends that load does not tell
//! apart it goes where the stick table has the fewest.
//!
//! # Siblings
//!
//! A known client that its backend does not serve is placed among those that share the most levels of that backend's
//! location, in each of the groups below; backups are last also there. From its home a key goes there by placement,
//! too.
//!
//! # Full backends
//!
//! With `on_full = "queue"` a client waits for the backend where it is known, by cookie, stick table or connection, or
//! where its key belongs, if that alone makes it known. Any other client is placed among backends that have a place; where
//! no usable one has, it waits for the first place that becomes free.
//!
//! # The last resort
//!
//! When not all backends are usable, the first of these groups that holds a backend which this connection has not tried
//! decides: usable backends · backends ejected for failed connections · with `all_down = "try"`, all backends. In each
//! group the backends of a pinned range come first, and others only when the pin is not strict. A strict pin never uses
//! backends that are down.

use std::sync::Arc;
use std::time::Duration;

use super::candidates::{Candidates, is_full};
use super::load::{LoadRules, has_load_rules};
use super::placement_key::{PlacementKey, range_of, with_key};
use super::scene::{HealthView, PickScene};
use super::table::Remember;
use super::{AwaitedPlace, Backend, Health, Pool};
use crate::config::{AllDown, OnAdd, OnDown, OnReturn};
use crate::outcome::{BreakCause, ClientMove, PickReason};
use crate::placement::Known;
use crate::sticky::table::top_keys::Label;
use crate::sticky::table::{BackendId, EntryKind, TableLookup};
use crate::sticky::{Facts, Had, Left};

/// Backend of a connection, and why the connection goes there.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'p> {
    /// The backend that was picked.
    pub backend: &'p Arc<Backend>,
    /// Index of the backend in [`Pool::backends`].
    pub index: usize,
    /// Step of the chain that chose the backend.
    pub reason: PickReason,
    /// True if a key, an entry, a cookie or an earlier stream of the connection decided: what comes next of the client
    /// gets the same backend. False where load placed a new key.
    pub keyed: bool,
    /// Name of the range that holds the client's address.
    pub range: Option<&'p Arc<str>>,
    /// The backend where the client was known, and why it does not keep that; `None`: it was not known, or keeps it.
    pub left: Option<Left>,
    /// What to write into the stick table once the connection is established.
    pub remember: Option<Remember>,
}

impl Pick<'_> {
    /// Why the client does not keep the backend where it was known; `None`: it was not known, or keeps it.
    pub fn cause(&self) -> Option<BreakCause> {
        self.left.map(|left| left.cause)
    }
}

/// A backend by index, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    index: usize,
    reason: PickReason,
    left: Option<Left>,
    /// What an entry for this key says about why the key is there.
    kind: EntryKind,
    /// Backend that the entry named before this pick has claimed it.
    instead_of: Option<BackendId>,
}

impl Pool {
    /// Chooses a backend that can serve the client now; `None`: there is none, or the client has to wait.
    #[inline]
    pub fn pick<V: HealthView>(&self, scene: &PickScene<'_, V>) -> Option<Pick<'_>> {
        self.pick_or_wait(scene).ok()
    }

    /// Chooses a backend. The error is the place for which the client has to wait (`on_full = "queue"`); `None`: no backend
    /// may serve the client, or its backend is full and `on_full = "reject"`.
    #[inline]
    pub fn pick_or_wait<V: HealthView>(&self, scene: &PickScene<'_, V>) -> Result<Pick<'_>, Option<AwaitedPlace>> {
        let candidates = Candidates { pool: self, scene };

        // Range: a pin may forbid the backend that a cookie or the stick table names.
        let range = range_of(self, scene.facts);
        let pick = |choice: Choice, keyed, remember| {
            let Choice { index, reason, left, .. } = choice;
            let backend = &self.backends[index];
            // Full, and not passed over before: `on_full` is "reject" or "queue".
            let refused = candidates.is_full(index);
            let range = range.map(|range| &range.name);
            match refused {
                false => Ok(Pick { backend, index, reason, keyed, range, left, remember }),
                true => Err(self.config.on_full.queue().map(|_| AwaitedPlace::At(index))),
            }
        };

        // Cookie: its backend may have weight 0, and nothing is written into the stick table.
        let named = scene.cookie.filter(|index| *index < self.backends.len());
        let left = match named.map(|index| (index, candidates.keeps(index, range))) {
            Some((index, Ok(()))) => return pick(Choice::new(index, PickReason::Cookie), true, None),
            Some((index, Err(cause))) => Some(Left::backend(index, cause)),
            None => None,
        };

        // Stick table: a known key stays where it is, unless the backend cannot serve or a policy moves the key.
        let key = PlacementKey::new(self, scene.facts, range, || scene.view.draw(&self.shared.draws.0));
        let table = scene.view.table(self.table.as_ref()).zip(key.table_key);
        let entry = table.map(|(table, table_key)| table.lookup(table_key, scene.now_ms));
        if let Some((table, table_key)) = table.filter(|_| scene.tried.is_empty() && scene.view.is_noted()) {
            let label = || with_key(self, scene.facts, range, Label::of).unwrap_or_default();
            table.observe(table_key, scene.now_ms, label);
        }
        let stays = match entry {
            Some(TableLookup::At(index, kind)) => {
                candidates.stays(index, kind, &key).map_err(|cause| Some(Left::backend(index, cause)))
            }
            Some(TableLookup::Gone(former)) => Err(Some(Left::removed(former))),
            Some(TableLookup::Unknown) | None => Err(None),
        };

        // Connection, then placement and last resort. What the client has left is judged by the entry; without a stick
        // table, by where the key belongs.
        let choice = match stays {
            Ok(choice) => choice,
            Err(had) => {
                match (candidates.follow(&key).map_or_else(|| candidates.place(&key, left.or(had)), Ok)?, entry) {
                    // A client is not known by its key where a cookie makes clients known.
                    (placed, None) if self.sticks_by_cookie() => Choice { left: None, ..placed },
                    (placed, None) => placed,
                    (placed, Some(_)) => candidates.claim(&key, Choice { left: had, ..placed }),
                }
            }
        };

        // The cookie's word about where the client was known goes before the entry's.
        let left = left.or(choice.left).and_then(|left| left.by_getting(choice.index));
        let Choice { kind, instead_of, .. } = choice;
        let remember = key.table_key.map(|key| Remember { key, kind, instead_of });
        let stays = matches!(choice.reason, PickReason::StickTable | PickReason::Connection);
        pick(Choice { left, ..choice }, key.keyed || stays, remember)
    }

    /// How long a known client has to wait for its backend, which cannot serve now; 0 = it is refused instead. `None`:
    /// the client need not wait, or the pool has no such rule.
    pub fn waits(&self, cookie: Option<usize>, facts: &Facts<'_>, now_ms: u64) -> Option<Duration> {
        let most = match self.config.when_down {
            OnDown::Rehash => return None,
            OnDown::Wait(most) => most,
            OnDown::Reject => Duration::ZERO,
        };
        let range = range_of(self, facts);
        let index = cookie.or_else(|| {
            let key = PlacementKey::new(self, facts, range, || 0).table_key?;
            self.table.as_ref()?.lookup(key, now_ms).index()
        })?;
        let backend = self.backends.get(index)?;
        // A client that a drain or a range has sent away need not wait.
        let scene = PickScene::new(facts, &[], now_ms);
        let allowed = || Candidates { pool: self, scene: &scene }.allows(range, index);
        (!backend.usable(now_ms) && !backend.drained(now_ms) && allowed()).then_some(most)
    }

    /// True if a client known at this backend is answered by it, whatever its range says.
    pub fn can_have<V: HealthView>(&self, index: usize, scene: &PickScene<'_, V>) -> bool {
        Candidates { pool: self, scene }.serves(index)
    }

    /// True if a client is known by a cookie that names its backend.
    pub fn sticks_by_cookie(&self) -> bool {
        self.cookie.as_ref().is_some_and(|rule| rule.key().is_empty())
    }

    /// The move of a client that now has the backend at index `got`; `None`: it has not moved. `left`: the backend at
    /// which it was known. Whatever says that a client has moved, and from where, says what this function decides.
    pub fn client_move(&self, left: Option<Left>, got: usize) -> Option<ClientMove> {
        let Left { had, cause } = left?.by_getting(got)?;
        let from = match had {
            Had::Backend(index) => self.backends.get(index).map(|backend| backend.name_shared()),
            Had::Former(index) => self.former.get(index).cloned(),
            Had::Nameless => None,
        };
        Some(ClientMove { from, cause })
    }

    /// Why a client does not get a backend that it would have got.
    pub fn why_not(&self, index: usize) -> BreakCause {
        match (self.backends[index].draining(), is_full(self, index)) {
            (true, _) => BreakCause::Drain,
            (false, true) => BreakCause::Full,
            (false, false) => BreakCause::Down,
        }
    }

    /// Why a key with this kind of entry at this backend moves to the backend where it belongs, as soon as that takes
    /// it; `None` = it stays. A backend of weight 0 keeps every key that it has.
    pub fn follows(&self, index: usize, kind: EntryKind) -> Option<BreakCause> {
        let rules = self.table.as_ref().filter(|_| self.config.balance.keyed())?.rules;
        let cause = match kind {
            EntryKind::Outgrown if rules.on_add == OnAdd::Move => BreakCause::Moved,
            EntryKind::Displaced if rules.on_return == OnReturn::Return => BreakCause::Returned,
            _ => return None,
        };
        (self.config.backends[index].weight > 0).then_some(cause)
    }
}

impl Choice {
    fn new(index: usize, reason: PickReason) -> Self {
        Self { index, reason, left: None, kind: EntryKind::Placed, instead_of: None }
    }
}

impl<V: HealthView> Candidates<'_, '_, V> {
    /// Keeps a known key at its backend. The error is the reason why the key has to move.
    fn stays(&self, index: usize, kind: EntryKind, key: &PlacementKey<'_>) -> Result<Choice, BreakCause> {
        self.keeps(index, key.range)?;
        // Where placement would put the key is computed only where a policy needs it.
        let follows = self.pool.follows(index, kind);
        let outgrown = key.keyed && kind == EntryKind::Outgrown;
        let home = if follows.is_some() || outgrown { self.home(key) } else { None };
        let takes_it = |home: usize| {
            let steered = LoadRules::of(self, key).is_some_and(|load| !load.admits(home));
            home != index && self.receives(home) && !steered
        };
        if let Some(cause) = follows.filter(|_| home.is_some_and(takes_it)) {
            return Err(cause);
        }
        let kind = match kind {
            _ if key.by_load() => EntryKind::Overflowed,
            EntryKind::Outgrown if home == Some(index) => EntryKind::Placed,
            // The key would have followed if its home had taken it.
            EntryKind::Outgrown if follows.is_some() => EntryKind::Displaced,
            EntryKind::Outgrown => EntryKind::Overflowed,
            kind => kind,
        };
        Ok(Choice { kind, ..Choice::new(index, PickReason::StickTable) })
    }

    /// Chooses the backend of an earlier stream of the same connection. `None`: there is no such stream, or its backend
    /// does not take another one.
    #[inline(always)]
    fn follow(&self, key: &PlacementKey<'_>) -> Option<Choice> {
        self.scene.beside.and_then(|index| self.choose_beside(index, key))
    }

    #[inline(never)]
    fn choose_beside(&self, index: usize, key: &PlacementKey<'_>) -> Option<Choice> {
        let weight = self.pool.config.backends.get(index)?.weight;
        let passes = self.is_full(index) && self.pool.config.on_full.queue().is_none();
        if weight == 0 || passes || self.keeps(index, key.range).is_err() {
            return None;
        }
        // A key that is not at home stays where the connection has it; no policy brings it back.
        let is_home = key.table_key.is_none() || self.home(key) == Some(index);
        let kind = if is_home { EntryKind::Placed } else { EntryKind::Overflowed };
        Some(Choice { kind, ..Choice::new(index, PickReason::Connection) })
    }

    /// Writes the placement of a new key where load or time influenced it, before the connection is established: the
    /// next connection of this key may find another load. The first of two concurrent connections chooses for both.
    /// Where load alone places keys, that holds for a known key that leaves its backend, too.
    fn claim(&self, key: &PlacementKey<'_>, placed: Choice) -> Choice {
        let moves = key.by_load() || placed.left.is_none() && has_load_rules(self.pool);
        // A full backend refuses the connection, which settles nothing then.
        let due = moves && self.scene.view.is_noted() && !self.is_full(placed.index);
        let table = self.scene.view.table(self.pool.table.as_ref()).filter(|_| due);
        let Some((table, table_key)) = table.zip(key.table_key) else { return placed };
        let keeps = |index| self.keeps(index, key.range).is_ok();
        let remember = Remember::new(table_key, placed.kind);
        match table.claim(remember, placed.index, self.scene.now_ms, keeps) {
            (TableLookup::At(index, kind), _) if index != placed.index && keeps(index) => {
                Choice { kind, ..Choice::new(index, PickReason::StickTable) }
            }
            (_, instead_of) => Choice { instead_of, ..placed },
        }
    }

    /// Places a client that is not known, or leaves its backend (`left`). Most keys can go where they belong, so that
    /// backend is judged first and alone. Inlined with what it calls: a key's home is found in less time than the calls
    /// would take.
    #[inline(always)]
    fn place(&self, key: &PlacementKey<'_>, left: Option<Left>) -> Result<Choice, Option<AwaitedPlace>> {
        let load = LoadRules::of(self, key);
        if self.pool.near(left).is_empty()
            && key.pin().is_none()
            && let Some(home) = self.pool.placement.home(key.draw)
            && self.takes(home, Health::Usable)
            && load.as_ref().is_none_or(|load| load.admits(home))
            && !self.is_out(home, self.belongs(key, load.as_ref()))
        {
            return Ok(Choice::new(home, self.reason(home, Health::Usable)));
        }
        self.place_elsewhere(key, left, load.as_ref())
    }

    /// Places a key that has a pin, no home, or a home that does not take the client, and a client that leaves a
    /// location.
    #[inline(never)]
    fn place_elsewhere(
        &self,
        key: &PlacementKey<'_>,
        left: Option<Left>,
        load: Option<&LoadRules<'_>>,
    ) -> Result<Choice, Option<AwaitedPlace>> {
        let near = self.pool.near(left);
        // Where all are down and tried all the same, a key without a home stays where it is.
        let stays = |index: usize| key.by_load() && left == Some(Left::backend(index, BreakCause::Down));
        let key = &key.in_turn(self.pool, || self.scene.view.draw(&self.pool.shared.draws.0));
        let placed = if key.by_load() { EntryKind::Overflowed } else { EntryKind::Placed };
        // A backup is ready only where no primary is.
        let is_backup = |index: usize| self.pool.config.backends[index].backup;
        let admitted = |index: &usize| load.is_none_or(|load| is_backup(*index) || load.admits(*index));
        if near.is_empty()
            && let Some(index) = self.place_ready(key).filter(admitted)
        {
            return Ok(Choice { kind: placed, ..Choice::new(index, self.reason(index, Health::Usable)) });
        }
        let all_may_try = self.pool.config.all_down == AllDown::Try && !key.strict();
        let last = all_may_try.then_some((Health::Down, None));
        let steered = load.map(|load| (Health::Usable, Some(load)));
        let belongs = self.belongs(key, load);
        let in_group = |(least, load): (Health, Option<&LoadRules<'_>>)| {
            let admits = |index| load.is_none_or(|load: &LoadRules<'_>| load.admits(index));
            let fit = |index| self.takes(index, least) && admits(index) && !self.is_out(index, belongs);
            let known =
                (0..self.pool.backends.len()).find(|index| least == Health::Down && stays(*index) && fit(*index));
            // Load rules choose within a pin: a busy backend of the pin is better than one outside.
            let first = || self.first(key, near, fit, load.is_some() || key.strict());
            Some((known.or_else(first)?, least, load.is_some()))
        };
        let usable = steered.into_iter().chain([(Health::Usable, None)]).find_map(in_group);
        // A place that becomes free is better than a backend that is not usable.
        if let Some(awaited) = usable.is_none().then(|| self.awaited(key)).flatten() {
            return Err(Some(awaited));
        }
        let others = [(Health::Ejected, None)].into_iter().chain(last);
        let (index, least, is_steered) =
            usable.or_else(|| others.into_iter().find_map(in_group)).ok_or(None::<AwaitedPlace>)?;
        let load = load.filter(|_| is_steered);
        // A key that is not at home has a cause, and its entry says which policy may bring it back.
        let missed = if key.keyed { self.home(key).filter(|home| *home != index) } else { None };
        let busy = |home| load.is_some_and(|load| !load.below_bound(home)) || is_full(self.pool, home);
        let kind = match missed {
            None => placed,
            // A client that prefers a location is not waiting for a home elsewhere that would take it.
            Some(home)
                if self.takes(home, Health::Usable)
                    && (busy(home) || !near.is_empty() && !self.is_out(home, belongs)) =>
            {
                EntryKind::Overflowed
            }
            Some(_) => EntryKind::Displaced,
        };
        let left = missed.map(|home| Left::backend(home, self.pool.why_not(home)));
        Ok(Choice { left, kind, ..Choice::new(index, self.reason(index, least)) })
    }

    /// True if the client waits where its key belongs: its key alone makes it known, and no rule places it by load.
    #[inline]
    fn belongs(&self, key: &PlacementKey<'_>, load: Option<&LoadRules<'_>>) -> bool {
        key.keyed && load.is_none() && !self.pool.sticks_by_cookie()
    }

    /// The place for which a client waits that belongs nowhere, where no usable backend has one; `None`: no client waits, or
    /// no backend is full only. Backends of a pin come before others.
    fn awaited(&self, key: &PlacementKey<'_>) -> Option<AwaitedPlace> {
        self.pool.config.on_full.queue()?;
        let weight = |index: usize| self.pool.config.backends[index].weight;
        let would_take = |i: &usize| self.takes(*i, Health::Usable) && weight(*i) > 0 && !self.is_out(*i, true);
        let all = || (0..self.pool.backends.len()).filter(would_take);
        let own: Vec<_> = all().filter(|index| key.pin().is_none_or(|pin| pin.allows(*index))).collect();
        let found = if own.is_empty() && !key.strict() { all().collect() } else { own };
        (!found.is_empty()).then_some(AwaitedPlace::AtAny(found))
    }

    /// Places a client without a key among the backends that are kept as ready. `None`: the pool keeps none, or what
    /// they are differs for this client, or no backend is ready; then every backend is looked at.
    fn place_ready(&self, key: &PlacementKey<'_>) -> Option<usize> {
        let ready = self.pool.ready.as_deref().filter(|_| !key.keyed && self.scene.view.is_living())?;
        let differs =
            key.pin().is_some() || !self.scene.tried.is_empty() || (ready.overflows() && self.scene.holds.is_some());
        let known = |index: usize| self.known_at(index);
        let known: Known<'_> = if key.by_load() { Some(&known) } else { None };
        let placed = if differs { None } else { ready.place(self.pool, key.draw, known, self.scene.now_ms) };
        // Another thread may have changed it since.
        placed.filter(|index| self.takes(*index, Health::Usable) && !self.is_out(*index, false))
    }

    /// Reason of a pick by placement.
    #[inline]
    fn reason(&self, index: usize, least: Health) -> PickReason {
        let last_resort = least < Health::Usable || self.pool.config.backends[index].backup;
        if last_resort { PickReason::LastResort } else { PickReason::Placement }
    }
}
