//! Which backend a connection goes to: the chain range → cookie → stick table → placement → last resort, over the backends'
//! health.
//!
//! Connects nobody and reads no clock. `explain` asks the very function that picks. Invariants: a pick takes no lock,
//! counts no reference and allocates nothing (but for keys longer than [`INLINE`](crate::sticky::key::INLINE)); a
//! backend of weight 0 is never picked; what a reload that is refused built has changed nothing in the backends it
//! shares with the old pool.
//!
//! # Who is left when not all are usable
//!
//! In this order, the first that finds somebody this connection has not tried yet: usable backends · those only
//! ejected for failed connections · with `all_down = "try"`, everybody. At each step a pinned range looks among its
//! own first, and at others only when it is not strict; a strict one never tries backends that are down.

pub mod backend;
mod concurrent;
pub mod drain;
pub mod explain;
mod foresee;
pub mod health;
mod load;
mod placement_key;
pub mod table;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ahash::AHashMap;

pub use self::backend::{Backend, Health, Lease};
pub use self::drain::AdminState;
pub use self::explain::Explanation;
pub use self::foresee::Fate;
pub use self::table::{HotKey, Remember, StickTables};

use self::backend::{PoolShared, lock};
use self::health::{CheckState, EjectionPeer};
use self::load::LoadRules;
use self::placement_key::PlacementKey;
use self::table::PoolTable;
use crate::config::{self, AllDown, KeyPart};
use crate::outcome::{BreakCause, PickReason};
use crate::placement::{Member, Placement};
use crate::sticky::Facts;
use crate::sticky::cookie::CookieRule;
use crate::sticky::range::Ranges;
use crate::sticky::table::EntryKind;

/// Backends that share one balancing rule, as one snapshot sees them.
#[derive(Debug)]
pub struct Pool {
    config: config::Pool,
    backends: Box<[Arc<Backend>]>,
    placement: Placement,
    ranges: Ranges,
    cookie: Option<CookieRule>,
    table: Option<PoolTable>,
    sticks_as: Arc<str>,
    shared: Arc<PoolShared>,
}

/// Where a connection goes, and why there.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'p> {
    /// The backend.
    pub backend: &'p Arc<Backend>,
    /// The step of the chain that chose it.
    pub reason: PickReason,
    /// A key decided: the client will be placed there again.
    pub keyed: bool,
    /// The named range the client is in.
    pub range: Option<&'p Arc<str>>,
    /// The client had settled at another backend, and why it does not get that.
    pub broke: Option<BreakCause>,
    /// What the pool remembers once the connection stands.
    pub remember: Option<Remember>,
}

/// What a connection has to do with backends before it is given one.
#[derive(Clone, Copy)]
pub struct Ties<'a> {
    /// Those that failed it.
    pub tried: &'a [Arc<Backend>],
    /// Whether it holds a connection to one, for which that is never full.
    pub holds: &'a dyn Fn(&Arc<Backend>) -> bool,
}

impl<'a> Ties<'a> {
    /// It holds none.
    pub fn tried(tried: &'a [Arc<Backend>]) -> Self {
        Self { tried, holds: &|_| false }
    }
}

impl Pool {
    /// Builds the pool of a new snapshot. `previous`: the pool of the same name in the old one, whose living backends
    /// are carried over by name. A new address under an old name restarts health and keeps the counters. With checks
    /// on, what a reload adds to a pool takes keys only after its first good check; a new name has none to keep, while a
    /// pool that is new as a whole has nobody else to send them to. `workers` is fixed for the process.
    pub fn new(config: &config::Pool, previous: Option<&Self>, workers: usize) -> Self {
        let shared = previous.map_or_else(|| Arc::new(PoolShared::new(&config.name)), |pool| pool.shared.clone());
        let known: AHashMap<&str, &Arc<Backend>> =
            previous.iter().flat_map(|pool| pool.backends.iter()).map(|backend| (backend.name(), backend)).collect();
        let carry = |wanted: &config::Backend| match known.get(wanted.name.as_str()) {
            Some(living) if *living.address() == wanted.address => Arc::clone(living),
            other => {
                // A known name keeps its keys, at its new address too.
                let awaited = previous.is_some() && other.is_none() && config.check.is_some();
                let standing = if awaited { CheckState::Awaited } else { CheckState::Unchecked };
                Arc::new(Backend::new(shared.clone(), wanted, other.map(|b| b.as_ref()), workers, standing))
            }
        };
        let backends: Box<[_]> = config.backends.iter().map(carry).collect();
        let members: Vec<_> = config.backends.iter().map(member).collect();
        let indexes: AHashMap<&str, usize> =
            config.backends.iter().enumerate().map(|(index, backend)| (backend.name.as_str(), index)).collect();
        Self {
            placement: Placement::new(config.balance, config.hash_seed, &members),
            ranges: Ranges::new(&config.ranges, |name| indexes.get(name).copied()),
            config: config.clone(),
            backends,
            cookie: None,
            table: None,
            sticks_as: config.stick_group.as_deref().map_or_else(|| shared.name.clone(), Arc::from),
            shared,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The same pool with its cookie.
    pub fn with_cookie(self, cookie: Option<CookieRule>) -> Self {
        Self { cookie, ..self }
    }

    /// Its cookie.
    pub fn cookie(&self) -> Option<&CookieRule> {
        self.cookie.as_ref()
    }

    /// Its name, to be kept.
    pub fn shared_name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Whose clients settle together: its group's, or its own.
    pub fn sticks_as(&self) -> &Arc<str> {
        &self.sticks_as
    }

    /// What the file says about it.
    pub fn config(&self) -> &config::Pool {
        &self.config
    }

    /// Its backends, in the order of `config().backends`.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Leases held now on all its backends, removed ones included.
    pub fn leases(&self) -> u64 {
        self.shared.leases.0.load(Relaxed)
    }

    /// Known clients that got another backend for this cause.
    pub fn breaks(&self, cause: BreakCause) -> u64 {
        self.shared.breaks[cause as usize].load(Relaxed)
    }

    /// Counts one more.
    pub fn count_break(&self, cause: BreakCause) {
        self.shared.breaks[cause as usize].fetch_add(1, Relaxed);
    }

    /// Entries of the stick table that were worth keeping and had to give way.
    pub fn evicted_displaced(&self) -> u64 {
        self.shared.evicted_displaced.load(Relaxed)
    }

    /// Whether it has this backend, or had it when that was removed.
    pub fn is_of(&self, backend: &Backend) -> bool {
        backend.is_of(&self.shared)
    }

    /// Equal digests place alike.
    pub fn digest(&self) -> u64 {
        self.placement.digest()
    }

    /// Whether the server name decides about placement.
    pub fn needs_sni(&self) -> bool {
        self.config.balance.keyed() && self.config.key.contains(&KeyPart::Sni)
    }

    /// Chooses a backend. `tried`: those that failed in this connection already.
    pub fn pick(&self, facts: &Facts<'_>, tried: &[Arc<Backend>], now_ms: u64) -> Option<Pick<'_>> {
        self.pick_with(facts, Ties::tried(tried), now_ms)
    }

    #[inline]
    fn pick_with(&self, facts: &Facts<'_>, ties: Ties<'_>, now_ms: u64) -> Option<Pick<'_>> {
        let key = self.key(facts, || self.shared.draws.0.fetch_add(1, Relaxed));
        let choice = match &self.table {
            None => self.choose(&key, ties, now_ms)?,
            Some(_) => self.choose_known(&key, facts, ties, now_ms)?,
        };
        if self.is_full_for(choice.index, ties) {
            return None;
        }
        Some(Pick {
            backend: &self.backends[choice.index],
            reason: choice.reason,
            keyed: key.keyed,
            range: key.range.map(|range| &range.name),
            broke: choice.broke,
            remember: key.table_key.map(|key| Remember { key, kind: choice.kind }),
        })
    }

    /// For a client that nobody knows. Inlined with what it calls: a key's home is found in less than calls take.
    #[inline(always)]
    fn choose(&self, key: &PlacementKey<'_>, ties: Ties<'_>, now_ms: u64) -> Option<Choice> {
        let load_rules = self.load_rules(key, now_ms);
        self.decide(
            key,
            |index| self.backends[index].health(now_ms),
            |index| self.is_out(index, ties),
            load_rules.as_ref(),
        )
    }

    /// Whether this connection cannot have a backend that is usable: it failed, or others may serve instead of it.
    #[inline]
    fn is_out(&self, index: usize, ties: Ties<'_>) -> bool {
        self.overflows(index, ties) || ties.tried.iter().any(|backend| Arc::ptr_eq(backend, &self.backends[index]))
    }

    /// Whether it serves a client that has settled there, or refuses it, as a full one does where the file says so.
    #[inline]
    pub fn can_have(&self, index: usize, ties: Ties<'_>, now_ms: u64) -> bool {
        let backend = &self.backends[index];
        backend.usable(now_ms) && !backend.drained(now_ms) && !self.is_out(index, ties)
    }

    /// Whether it takes this connection of a client that is new to it.
    fn receives(&self, index: usize, ties: Ties<'_>, now_ms: u64) -> bool {
        let usable = self.takes(index, self.backends[index].health(now_ms), Health::Usable);
        usable && self.config.backends[index].weight > 0 && !self.is_out(index, ties)
    }

    /// Chooses for a client whose cookie says where it has settled: there, as long as that backend can serve and its
    /// range allows it; also one of weight 0, which serves those who know it.
    pub fn pick_settled<'p>(
        &'p self,
        settled: Option<usize>,
        facts: &Facts<'_>,
        ties: Ties<'_>,
        now_ms: u64,
    ) -> Option<Pick<'p>> {
        let Some((index, backend)) = settled.and_then(|index| Some((index, self.backends.get(index)?))) else {
            return self.pick_with(facts, ties, now_ms);
        };
        let range = self.range(facts);
        let allowed = self.allows(range, index, |own| self.receives(own, ties, now_ms));
        if allowed && self.can_have(index, ties, now_ms) {
            if self.is_full_for(index, ties) {
                return None;
            }
            let range = range.map(|range| &range.name);
            return Some(Pick { backend, reason: PickReason::Cookie, keyed: true, range, broke: None, remember: None });
        }
        let pick = self.pick_with(facts, ties, now_ms)?;
        let cause = if allowed { self.why_not(index) } else { BreakCause::Range };
        Some(Pick { broke: (!Arc::ptr_eq(pick.backend, backend)).then_some(cause), ..pick })
    }

    /// A connection to `backend` could not be established and the backend is to blame. How long it is ejected for
    /// from now on, if it is. Of one that checks have marked down this says nothing new.
    pub fn connect_failed(&self, backend: &Arc<Backend>, now_ms: u64) -> Option<Duration> {
        let eject = self.config.eject.as_ref().filter(|_| backend.standing() != CheckState::Down)?;
        let index = self.backends.iter().position(|known| Arc::ptr_eq(known, backend))?;
        let _one_at_a_time = lock(&self.shared.ejecting);
        backend.connect_failed(eject, now_ms, || self.may_eject(index, now_ms))
    }

    /// A connection to `backend` was established.
    #[inline]
    pub fn connect_succeeded(&self, backend: &Arc<Backend>) {
        backend.connect_succeeded();
    }

    fn may_eject(&self, index: usize, now_ms: u64) -> bool {
        let peer = |index: usize| {
            let config::Backend { weight, backup, .. } = self.config.backends[index];
            let health = self.backends[index].health(now_ms);
            (weight > 0 && health > Health::Down).then_some(EjectionPeer {
                weight,
                backup,
                ejected: health == Health::Ejected,
            })
        };
        // Who is being drained does not serve whoever is turned away.
        let others = (0..self.backends.len()).filter(|other| *other != index && !self.backends[*other].draining());
        let others = others.filter_map(peer);
        peer(index).is_some_and(|candidate| health::may_eject(candidate, others))
    }

    /// The rule at the top of this file. Most keys can go where they belong: that is asked first, and nobody else is
    /// looked at.
    #[inline(always)]
    fn decide(
        &self,
        key: &PlacementKey<'_>,
        health: impl Fn(usize) -> Health,
        tried: impl Fn(usize) -> bool,
        load_rules: Option<&LoadRules<'_>>,
    ) -> Option<Choice> {
        if key.pin().is_none()
            && let Some(index) = self.placement.home(key.draw)
            && self.takes(index, health(index), Health::Usable)
            && load_rules.is_none_or(|load_rules| load_rules.admits(index))
            && !tried(index)
        {
            return Some(Choice {
                index,
                reason: self.reason(index, Health::Usable),
                broke: None,
                kind: EntryKind::Placed,
            });
        }
        self.decide_among(key, health, tried, load_rules)
    }
    /// The same for all others.
    #[inline(never)]
    fn decide_among(
        &self,
        key: &PlacementKey<'_>,
        health: impl Fn(usize) -> Health,
        tried: impl Fn(usize) -> bool,
        load_rules: Option<&LoadRules<'_>>,
    ) -> Option<Choice> {
        if load_rules.is_some()
            && let Some(choice) = self.decide_at(Health::Usable, key, &health, &tried, load_rules)
        {
            return Some(choice);
        }
        for least in [Health::Usable, Health::Ejected, Health::Down] {
            if least == Health::Down && (self.config.all_down == AllDown::Refuse || key.strict()) {
                return None;
            }
            if let Some(choice) = self.decide_at(least, key, &health, &tried, None) {
                return Some(choice);
            }
        }
        None
    }

    /// The same among backends that can do this much.
    fn decide_at(
        &self,
        least: Health,
        key: &PlacementKey<'_>,
        health: impl Fn(usize) -> Health,
        tried: impl Fn(usize) -> bool,
        load_rules: Option<&LoadRules<'_>>,
    ) -> Option<Choice> {
        let admitted = |index| load_rules.is_none_or(|load_rules| load_rules.admits(index));
        let fit = |index| self.takes(index, health(index), least) && admitted(index) && !tried(index);
        // Steering chooses among a pinned range's own: rather than to others, a key goes where there is much to do.
        let index = self.place(key, fit, load_rules.is_some() || key.strict())?;
        let home = if key.keyed { self.home(key) } else { None };
        let missed = home.filter(|home| *home != index);
        let busy = |index| load_rules.is_some_and(|load_rules| !load_rules.below_bound(index)) || self.is_full(index);
        let kind = match missed {
            None => EntryKind::Placed,
            Some(home) if self.takes(home, health(home), Health::Usable) && busy(home) => EntryKind::Overflowed,
            Some(_) => EntryKind::Displaced,
        };
        let broke = missed.map(|home| self.why_not(home));
        Some(Choice { index, reason: self.reason(index, least), broke, kind })
    }

    /// Whether a backend of this health takes clients that are new to it where at least so much is asked.
    #[inline]
    fn takes(&self, index: usize, health: Health, least: Health) -> bool {
        health >= least && (least == Health::Down || !self.backends[index].draining())
    }

    /// Why somebody is placed there.
    #[inline]
    fn reason(&self, index: usize, least: Health) -> PickReason {
        let last_resort = least < Health::Usable || self.config.backends[index].backup;
        if last_resort { PickReason::LastResort } else { PickReason::Placement }
    }

    /// Why a client does not get a backend that it would have got.
    pub fn why_not(&self, index: usize) -> BreakCause {
        match (self.backends[index].draining(), self.is_full(index)) {
            (true, _) => BreakCause::Drain,
            (false, true) => BreakCause::Full,
            (false, false) => BreakCause::Down,
        }
    }

    /// Where the key belongs. An awaited backend has never had it.
    fn home(&self, key: &PlacementKey<'_>) -> Option<usize> {
        self.place(key, |index| self.backends[index].standing() != CheckState::Awaited, key.strict())
    }

    /// The first fit backend among a pinned range's own, then, unless there are to be no `others`, among all.
    #[inline]
    fn place(&self, key: &PlacementKey<'_>, fit: impl Fn(usize) -> bool, no_others: bool) -> Option<usize> {
        let leases = |index: usize| self.backends[index].leases();
        let Some(pin) = key.pin() else { return self.placement.place(key.draw, fit, leases) };
        let own = self.placement.place(key.draw, |index| pin.allows(index) && fit(index), leases);
        own.or_else(|| if no_others { None } else { self.placement.place(key.draw, fit, leases) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    index: usize,
    reason: PickReason,
    broke: Option<BreakCause>,
    /// Why the key is there.
    kind: EntryKind,
}

fn member(backend: &config::Backend) -> Member<'_> {
    Member { name: &backend.name, weight: backend.weight, location: &backend.location, backup: backend.backup }
}
