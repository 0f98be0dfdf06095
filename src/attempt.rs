//! [`Attempts`]: what a failed connect means (the same backend again, the next one, or the end), and what its pool
//! learns of it; [`FirstByte`]: what the begin of an established connection means.
//!
//! Opens no socket and reads no clock: time is an argument, in milliseconds. Both halves call this file and only wait
//! for sockets and time themselves. Invariant: no attempt begins after `connect_budget` is spent, and a failure of this
//! process or host is counted against no backend and leads to no other.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config;
use crate::fault::ConnectFailure;
use crate::outcome::{ClientMove, Ended, PickReason};
use crate::pool::{Backend, Lease, Pool, Remember};
use crate::sticky::Facts;

/// Pause before the backend of a known key is tried again.
const RETRY_AFTER_MS: u64 = 200;

/// Timeout of that second attempt where the first timed out. It only has to find a backend that is back, and the client
/// has waited for a whole `connect_timeout` already; together with the pause it stays well below 300 ms.
const RETRY_AFTER_TIMEOUT_MS: u64 = 40;

/// Interval at which a client that waits for its backend looks whether it is back.
const LOOK_AGAIN_MS: u64 = 100;

/// The next step after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// The same backend is tried again at this time.
    SameAt(u64),
    /// The next candidate is picked now.
    Another,
    /// No attempt follows: the connection ends.
    GiveUp(Ended),
}

/// The attempts of one connection, from its first pick until it has a backend.
#[derive(Debug, Default)]
pub struct Attempts {
    timeout_ms: u64,
    /// End of `connect_budget`; `None` before the first pick.
    ends_ms: Option<u64>,
    retries_left: u32,
    after_timeout: bool,
    made: u8,
    tried: Vec<Arc<Backend>>,
    last_failure: Option<ConnectFailure>,
}

/// The backend of an attempt, with what its pool needs to learn of the result.
#[derive(Debug, Clone, Copy)]
pub struct AttemptTarget<'t> {
    /// Pool that picked the backend.
    pub pool: &'t Pool,
    /// Lease that counts the connection at its backend.
    pub lease: &'t Lease,
    /// Step of the chain that chose the backend.
    pub reason: PickReason,
    /// Entry that the stick table gets once the connection stands.
    pub remember: Option<Remember>,
    /// Index of this thread's counters.
    pub counters_index: usize,
}

impl Attempts {
    /// Attempts beyond backends that have failed the client before.
    pub fn beyond(tried: &[Arc<Backend>]) -> Self {
        Self { tried: tried.to_vec(), ..Self::default() }
    }

    /// Notes a pick. The rules of the first pick's pool hold for all attempts of the connection; a backend chosen by a
    /// key (`keyed`) is tried again before the key moves.
    pub fn picked(&mut self, pool: &config::Pool, keyed: bool, now_ms: u64) {
        if self.ends_ms.is_none() {
            self.timeout_ms = pool.connect_timeout.as_millis() as u64;
            self.ends_ms = Some(now_ms + pool.connect_budget.as_millis() as u64);
            self.retries_left = if keyed { pool.sticky_retries } else { 0 };
        }
    }

    /// Begins an attempt and returns its deadline.
    pub fn begin(&mut self, now_ms: u64) -> u64 {
        self.made = self.made.saturating_add(1);
        let timeout_ms = match self.after_timeout {
            true => self.timeout_ms.min(RETRY_AFTER_TIMEOUT_MS),
            false => self.timeout_ms,
        };
        (now_ms + timeout_ms).min(self.ends_ms.unwrap_or(now_ms))
    }

    /// Number of attempts that were begun.
    pub fn made(&self) -> u8 {
        self.made
    }

    /// Backends that failed this connection and are not picked again.
    pub fn tried(&self) -> &[Arc<Backend>] {
        &self.tried
    }

    /// Returns the ending of a connection for which the pool has no backend, or no other one.
    pub fn no_backend(&self, pool: &Pool, now_ms: u64) -> Ended {
        self.last_failure.map_or_else(|| pool.why_nobody(now_ms), ConnectFailure::ended)
    }

    /// Decides what a failed attempt leads to, and applies the failure to the pool: it is counted, the backend may be
    /// ejected, and the key's entry is released if the key moves on.
    pub fn failed(&mut self, failure: ConnectFailure, target: &AttemptTarget<'_>, now_ms: u64) -> NextAttempt {
        let AttemptTarget { pool, lease, reason, remember, counters_index } = *target;
        self.last_failure = Some(failure);
        let next = self.next(failure, lease.usable(now_ms), now_ms);
        if matches!(failure, ConnectFailure::Local(_)) {
            return next;
        }
        lease.counters(counters_index).connect_failures.add(1);
        if !matches!(next, NextAttempt::SameAt(_)) {
            pool.connect_failed(lease.backend(), now_ms);
        }
        if next == NextAttempt::Another {
            self.tried.push(Arc::clone(lease.backend()));
            if let Some((table, remember)) = pool.table().zip(remember) {
                table.release(remember, reason, lease.backend(), now_ms);
            }
        }
        next
    }

    /// True if another connection of the same key has moved it to another backend while this one paused before a retry:
    /// then the key's new backend is picked.
    pub fn key_moved(&mut self, target: &AttemptTarget<'_>, now_ms: u64) -> bool {
        let entry = target.pool.table().zip(target.remember);
        let moved = entry.is_some_and(|(table, key)| table.settled_elsewhere(key, target.lease.backend(), now_ms));
        self.after_timeout &= !moved;
        moved
    }

    /// `usable`: the backend has not been marked down since it was picked.
    fn next(&mut self, failure: ConnectFailure, usable: bool, now_ms: u64) -> NextAttempt {
        if let ConnectFailure::Local(ended) = failure {
            return NextAttempt::GiveUp(ended);
        }
        let retry = self.retries_left > 0 && usable && !self.after_timeout;
        let at_ms = now_ms + if retry { RETRY_AFTER_MS } else { 0 };
        if self.ends_ms.is_none_or(|ends_ms| at_ms >= ends_ms) {
            return NextAttempt::GiveUp(failure.ended());
        }
        self.after_timeout = retry && failure == ConnectFailure::TimedOut;
        if retry {
            self.retries_left -= 1;
            NextAttempt::SameAt(at_ms)
        } else {
            // Only the backend of the key is tried twice, not the candidates after it.
            self.retries_left = 0;
            NextAttempt::Another
        }
    }
}

impl AttemptTarget<'_> {
    /// Applies a successful attempt to the backend and its counters.
    pub fn succeeded(&self, connect_us: u64) {
        let counters = self.lease.counters(self.counters_index);
        counters.connections.add(1);
        counters.connect_time.record_us(connect_us);
        self.lease.pool_counters(self.counters_index).connect_time.record_us(connect_us);
        self.pool.connect_succeeded(self.lease.backend());
    }
}

/// How a backend has ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendEnd {
    /// In order, by FIN.
    Closed,
    /// By RST.
    Reset,
}

/// What both sides have done on an established connection before the backend has sent a byte.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    /// How the backend has ended the connection; `None`: it has not.
    pub backend: Option<BackendEnd>,
    /// True if the client has sent a byte.
    pub client_has_sent: bool,
    /// True if the client has ended its side.
    pub client_has_ended: bool,
    /// What the client is counted with: its address, or its network; `None`: a unix peer.
    pub source: Option<IpAddr>,
}

impl Silence {
    /// True if the backend is at fault: it has ended the connection first, by a reset or without an answer to what the
    /// client has sent. One that closes while nothing was sent may only have waited long enough for it.
    fn is_failure(self) -> bool {
        match self.backend {
            Some(BackendEnd::Closed) => self.client_has_sent && !self.client_has_ended,
            Some(BackendEnd::Reset) => !self.client_has_ended,
            None => false,
        }
    }
}

/// The first byte of a backend on a connection, as far as its pool waits for it (`eject.early_close`). The default waits
/// for none.
#[derive(Debug, Default)]
pub struct FirstByte {
    is_awaited: bool,
}

impl FirstByte {
    /// Of a connection of this pool that was just established.
    pub fn of(pool: &Pool) -> Self {
        Self { is_awaited: pool.counts_early_closes() }
    }

    /// True until the first byte has come, or the connection has failed without it.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Notes that the first byte has come: failures of the backend are forgotten.
    #[inline]
    pub fn came(&mut self, backend: &Arc<Backend>) {
        if std::mem::take(&mut self.is_awaited) {
            backend.connect_succeeded();
        }
    }

    /// Counts the connection as failed if the backend has ended it without a byte; what clients of fewer than
    /// [`SOURCES_MIN`](crate::pool::early_closes::SOURCES_MIN) sources have seen counts for nothing.
    /// `pool`: the pool that has the backend now; it is asked for only then.
    pub fn missed(
        &mut self,
        silence: Silence,
        backend: &Arc<Backend>,
        pool: impl FnOnce() -> Option<Arc<Pool>>,
        now_ms: u64,
    ) {
        if self.is_awaited && silence.is_failure() {
            self.is_awaited = false;
            if let Some(pool) = pool() {
                pool.closed_early(backend, silence.source, now_ms);
            }
        }
    }
}

/// Applies to the pool that a client is served by `backend` from now on: the stick table gets its entry, and a client
/// that was known at another backend is counted by cause. True: it has moved. Of several connections of one client that
/// were picked before the first of them was established, that one moves it: the others find it where they are.
pub fn settle(
    pool: &Pool,
    backend: &Arc<Backend>,
    moved: Option<&ClientMove>,
    remember: Option<Remember>,
    now_ms: u64,
) -> bool {
    let entry = pool.table().zip(remember);
    let was_there = entry.is_some_and(|(table, remember)| table.settle(remember, backend, now_ms));
    // Where a cookie makes clients known, the entry is of the address of several, or the request has taken it from the
    // shared store. An entry that the pick itself has claimed is that of this client.
    let claimed = remember.is_some_and(|remember| remember.instead_of.is_some());
    let moved = moved.filter(|_| !was_there || claimed || pool.sticks_by_cookie());
    moved.into_iter().for_each(|moved| pool.count_break(moved));
    moved.is_some()
}

/// The decision for a client that may be known at a backend which cannot serve now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownWait {
    /// The client does not wait, or no longer: a backend is picked.
    Pick,
    /// The client waits, and this function is called again at this time.
    LookAgainAt(u64),
    /// The pool has `on_down = "reject"`: the connection is refused.
    Refuse,
}

/// Decides whether a client waits for its backend (`on_down`). `known` is the index of the backend that a cookie names;
/// `since_ms` keeps when the wait began.
pub fn wait_for_known(
    pool: &Pool,
    known: Option<usize>,
    facts: &Facts<'_>,
    since_ms: &mut Option<u64>,
    now_ms: u64,
) -> KnownWait {
    let Some(most) = pool.waits(known, facts, now_ms) else { return KnownWait::Pick };
    if most.is_zero() {
        return KnownWait::Refuse;
    }
    let ends_ms = *since_ms.get_or_insert(now_ms) + most.as_millis() as u64;
    if now_ms >= ends_ms { KnownWait::Pick } else { KnownWait::LookAgainAt((now_ms + LOOK_AGAIN_MS).min(ends_ms)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Eject;
    use crate::outcome::BreakCause;
    use crate::pool::{PickScene, StickTables};
    use crate::sticky::cookie::CookieRule;
    use crate::sticky::table::Secret;
    use std::time::Duration;

    /// Two backends; one failure ejects.
    fn pool(more: &str) -> Pool {
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n\
             [[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}, \
             {{ name = \"b\", address = \"127.0.0.1:2\" }}]\n{more}\n"
        );
        let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
        let eject = config.pools[0].eject.map(|eject| Eject { failures: 1, ..eject });
        Pool::new(&config::Pool { eject, ..config.pools[0].clone() }, None, 1)
    }

    fn attempts(keyed: bool, now_ms: u64) -> Attempts {
        let mut attempts = Attempts::default();
        let rules = config::Pool {
            connect_timeout: Duration::from_secs(2),
            connect_budget: Duration::from_secs(6),
            sticky_retries: 1,
            ..pool("").config().clone()
        };
        attempts.picked(&rules, keyed, now_ms);
        attempts
    }

    #[test]
    fn a_known_key_is_tried_once_more_where_it_was() {
        let mut attempts = attempts(true, 1_000);
        assert_eq!(attempts.begin(1_000), 3_000);
        assert_eq!(attempts.next(ConnectFailure::Refused, true, 1_000), NextAttempt::SameAt(1_200));
        assert_eq!(attempts.begin(1_200), 3_200);
        assert_eq!(attempts.next(ConnectFailure::Refused, true, 1_200), NextAttempt::Another);
        attempts.begin(1_200);
        assert_eq!(attempts.next(ConnectFailure::Refused, true, 1_200), NextAttempt::Another);
        assert_eq!(attempts.made(), 3);
    }

    #[test]
    fn a_known_key_whose_backend_is_marked_down_moves_at_once_and_so_does_a_new_one() {
        assert_eq!(attempts(true, 0).next(ConnectFailure::Refused, false, 0), NextAttempt::Another);
        assert_eq!(attempts(false, 0).next(ConnectFailure::Refused, true, 0), NextAttempt::Another);
    }

    #[test]
    fn a_black_hole_costs_one_timeout_and_less_than_300_ms() {
        let mut attempts = attempts(true, 0);
        let timed_out = attempts.begin(0);
        let NextAttempt::SameAt(again) = attempts.next(ConnectFailure::TimedOut, true, timed_out) else { panic!() };
        let timed_out = attempts.begin(again);
        assert_eq!(attempts.next(ConnectFailure::TimedOut, true, timed_out), NextAttempt::Another);
        assert_eq!(timed_out, 2_240);
        assert_eq!(attempts.begin(timed_out), 4_240);
    }

    #[test]
    fn the_budget_bounds_all_attempts_and_later_picks_do_not_renew_it() {
        let mut attempts = attempts(false, 0);
        attempts.picked(pool("").config(), true, 4_000);
        assert_eq!(attempts.begin(5_000), 6_000);
        assert_eq!(attempts.next(ConnectFailure::TimedOut, true, 6_000), NextAttempt::GiveUp(Ended::ConnectTimeout));
    }

    #[test]
    fn a_client_that_moves_with_several_connections_at_once_is_counted_once() {
        let pool = StickTables::new(None, &Secret::new([7; 16]), 0).give(pool(""));
        let facts = Facts { source: Some([192, 0, 2, 1].into()), ..Facts::default() };
        let scene = PickScene::new(&facts, &[], 0);
        let home = pool.pick(&scene).unwrap();
        assert!(!settle(&pool, home.backend, None, home.remember, 0));
        let failed = pool.connect_failed(home.backend, 0);
        assert!(failed.is_some(), "ejected");
        let picks: Vec<_> = (0..3).map(|_| pool.pick(&scene).unwrap()).collect();
        let moved = picks.iter().map(|pick| {
            let moved = pool.client_move(pick.left, pick.index);
            assert!(moved.is_some(), "as the entry says until one is established");
            settle(&pool, pick.backend, moved.as_ref(), pick.remember, 0)
        });
        assert_eq!(moved.collect::<Vec<_>>(), [true, false, false]);
        assert_eq!(pool.breaks(BreakCause::Down), 1);
    }

    #[test]
    fn a_backend_fails_that_ends_first_by_a_reset_or_without_an_answer() {
        use BackendEnd::{Closed, Reset};
        for (backend, client_has_sent, client_has_ended, is_failure) in [
            (Some(Closed), true, false, true),
            (Some(Closed), false, false, false),
            (Some(Closed), true, true, false),
            (Some(Reset), false, false, true),
            (Some(Reset), true, true, false),
            (None, true, true, false),
        ] {
            let silence = Silence { backend, client_has_sent, client_has_ended, source: None };
            assert_eq!(silence.is_failure(), is_failure, "{silence:?}");
        }
    }

    #[test]
    fn connections_without_a_byte_eject_and_only_a_byte_ends_their_row() {
        let pool = Arc::new(pool("eject = { failures = 1, early_close = true }"));
        let backend = Arc::clone(&pool.backends()[0]);
        let connection = |(backend_end, client): (Option<BackendEnd>, u8)| {
            pool.connect_succeeded(&backend);
            let mut first_byte = FirstByte::of(&pool);
            let source = Some([192, 0, 2, client].into());
            let silence = Silence { backend: backend_end, client_has_sent: true, client_has_ended: false, source };
            match backend_end {
                None => first_byte.came(&backend),
                Some(_) => first_byte.missed(silence, &backend, || Some(Arc::clone(&pool)), 0),
            }
            assert!(!first_byte.is_awaited());
            backend.usable(0)
        };
        let (closed, reset) = (Some(BackendEnd::Closed), Some(BackendEnd::Reset));
        let row = [(reset, 1), (reset, 2), (None, 3), (closed, 3), (reset, 3), (reset, 4), (reset, 3)];
        assert_eq!(row.map(connection), [true; 7], "of one client or two");
        assert!(!connection((closed, 5)));
        assert!(!FirstByte::of(&self::pool("")).is_awaited());
    }

    #[test]
    fn clients_of_one_address_that_cookies_tell_apart_are_counted_each() {
        let insert = "cookie = { mode = \"route\", name = \"SID\" }\nhttp = true";
        let pool = pool(insert);
        let rule =
            config::Cookie { name: "SID".into(), mode: config::CookieMode::Route(config::RouteRules::default()) };
        let rule = CookieRule::new(&rule, "p", ["a", "b"], |_| Err(())).unwrap();
        let pool = StickTables::new(None, &Secret::new([7; 16]), 0).give(pool.with_cookie(Some(rule)));
        let facts = Facts { source: Some([192, 0, 2, 1].into()), ..Facts::default() };
        assert!(pool.connect_failed(&pool.backends()[0], 0).is_some(), "ejected");
        let picks = [0; 3].map(|named| pool.pick(&PickScene { cookie: Some(named), ..PickScene::new(&facts, &[], 0) }));
        let moved = picks.map(|pick| {
            let pick = pick.unwrap();
            let moved = pool.client_move(pick.left, pick.index);
            settle(&pool, pick.backend, moved.as_ref(), pick.remember, 0)
        });
        assert_eq!((moved, pool.breaks(BreakCause::Down)), ([true; 3], 3));
    }

    #[test]
    fn a_failure_is_counted_and_ejects_and_leads_to_the_next_candidate_unless_it_is_local() {
        let pool = pool("");
        let facts = Facts::default();
        let pick = |tried: &[_]| pool.pick(&PickScene::new(&facts, tried, 0)).map(|pick| Lease::new(pick.backend));
        let lease = pick(&[]).unwrap();
        let (reason, remember) = (PickReason::Placement, None);
        let target = AttemptTarget { pool: &pool, lease: &lease, reason, remember, counters_index: 0 };
        let mut attempts = attempts(false, 0);
        let local = ConnectFailure::Local(Ended::NoPort);
        assert_eq!(attempts.failed(local, &target, 0), NextAttempt::GiveUp(Ended::NoPort));
        assert_eq!((lease.counters(0).connect_failures.value(), lease.usable(0)), (0, true));
        assert_eq!(attempts.failed(ConnectFailure::Unreachable, &target, 0), NextAttempt::Another);
        assert_eq!((lease.counters(0).connect_failures.value(), lease.usable(0)), (1, false));
        let other = pick(attempts.tried()).unwrap();
        assert_ne!(other.name(), lease.name());
        let target = AttemptTarget { lease: &other, ..target };
        assert_eq!(attempts.failed(ConnectFailure::Refused, &target, 0), NextAttempt::Another);
        assert!(pick(attempts.tried()).is_none());
        assert_eq!(attempts.no_backend(&pool, 0), Ended::ConnectRefused);
    }

    #[test]
    fn a_retry_of_the_same_backend_is_counted_and_ejects_nothing() {
        let pool = pool("");
        let lease = Lease::new(&pool.backends()[0]);
        let (reason, remember) = (PickReason::Placement, None);
        let target = AttemptTarget { pool: &pool, lease: &lease, reason, remember, counters_index: 0 };
        assert_eq!(attempts(true, 0).failed(ConnectFailure::Refused, &target, 0), NextAttempt::SameAt(200));
        assert_eq!((lease.counters(0).connect_failures.value(), lease.usable(0)), (1, true));
        target.succeeded(5);
        assert_eq!(lease.counters(0).connections.value(), 1);
    }
}
