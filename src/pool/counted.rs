//! What a pool and its backends have counted: moves of clients by the backend that they had, results of checks, requests.
//!
//! Names no series (`metrics` does). Invariants: a thread writes its own [`PoolCounters`] alone, and they take memory
//! when the pool is first used; a move is counted at the backend that the client had, if the configuration still has it.

use std::sync::atomic::Ordering::Relaxed;

use super::backend::PoolShared;
use super::{Backend, Pool};
use crate::config::{self, OnAdd, OnReturn};
use crate::counters::{Padded, PoolCounters};
use crate::outcome::{BreakCause, ClientMove};
use crate::sticky::cookie::Mode;

/// Stands for all backends that the configuration does not have. No backend can be named so: a name has no parentheses.
const OTHER: &str = "(other)";

impl Backend {
    /// How often checks have found the backend up after it was down or had awaited its first check, and how often they
    /// have found it down.
    pub fn check_changes(&self) -> (u64, u64) {
        (self.figures.rises.load(Relaxed), self.figures.falls.load(Relaxed))
    }
}

impl PoolShared {
    /// Counters of one thread.
    #[inline]
    pub(super) fn counters(&self, counters_index: usize) -> &PoolCounters {
        // As many threads count cookies.
        let begin = || self.cookies.iter().map(|_| Padded::default()).collect();
        &self.counters.get_or_init(begin)[counters_index].0
    }
}

impl Pool {
    /// Counters of one thread for this pool.
    #[inline]
    pub fn counters(&self, counters_index: usize) -> &PoolCounters {
        self.shared.counters(counters_index)
    }

    /// Counters of all threads, to be summed at a scrape; none before the first use.
    pub fn all_counters(&self) -> &[Padded<PoolCounters>] {
        self.shared.counters.get().map_or(&[][..], |counters| &counters[..])
    }

    /// Number of known clients that got another backend for this cause.
    pub fn breaks(&self, cause: BreakCause) -> u64 {
        self.shared.breaks.of(cause)
    }

    /// Counts one known client that got another backend.
    pub fn count_break(&self, moved: &ClientMove) {
        let of_name = |name: &str| self.backends.iter().find(|backend| backend.name() == name);
        let had = moved.from.as_deref().and_then(of_name);
        let of_backend = had.map_or(&self.shared.breaks_from_others, |backend| &backend.figures.left);
        of_backend.count(moved.cause);
        self.shared.breaks.count(moved.cause);
    }

    /// The same numbers by the backend that the client had: each cause that the configuration makes possible, and each
    /// that has been.
    pub fn breaks_from(&self) -> impl Iterator<Item = (&str, BreakCause, u64)> {
        let own = self.backends.iter().zip(&self.config.backends).flat_map(move |(backend, config)| {
            let count = move |cause| (backend.name(), cause, backend.figures.left.of(cause));
            let counts = BreakCause::ALL.into_iter().map(count);
            counts.filter(move |(_, cause, n)| *n > 0 || self.may_send_away(config, *cause))
        });
        let others = BreakCause::ALL.into_iter().map(|cause| (OTHER, cause, self.shared.breaks_from_others.of(cause)));
        own.chain(others.filter(|(_, cause, n)| *n > 0 || *cause == BreakCause::Removed && self.knows_clients()))
    }

    /// True if clients of this backend may have to leave it for this cause.
    fn may_send_away(&self, backend: &config::Backend, cause: BreakCause) -> bool {
        let rules = self.table.as_ref().map(|table| table.rules);
        let may = match cause {
            BreakCause::Down | BreakCause::Drain => true,
            BreakCause::Range => !self.config.ranges.is_empty(),
            BreakCause::Moved => rules.is_some_and(|rules| rules.on_add == OnAdd::Move),
            BreakCause::Returned => rules.is_some_and(|rules| rules.on_return == OnReturn::Return),
            BreakCause::Full => backend.max_connections.is_some(),
            BreakCause::Expired => self.cookie.as_ref().is_some_and(|rule| matches!(rule.mode(), Mode::Insert(_))),
            _ => false,
        };
        may && self.knows_clients()
    }

    /// True if a client can be known: by a cookie, by the stick table, or by the place of its key.
    fn knows_clients(&self) -> bool {
        self.cookie.is_some() || self.table.is_some() || self.config.balance.keyed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Address;

    fn backends(names: &[&str]) -> Vec<config::Backend> {
        names.iter().map(|name| config::Backend::of_test(name, Address::Unix("/run/x".into()))).collect()
    }

    fn moved(from: Option<&str>, cause: BreakCause) -> ClientMove {
        ClientMove { from: from.map(Into::into), cause }
    }

    /// Every number above 0, as `FROM CAUSE NUMBER`.
    fn counted(pool: &Pool) -> Vec<String> {
        let counted = pool.breaks_from().filter(|(.., count)| *count > 0);
        counted.map(|(from, cause, count)| format!("{from} {} {count}", cause.word())).collect()
    }

    #[test]
    fn a_move_is_counted_at_the_backend_that_the_client_had() {
        let pool = Pool::new(&config::Pool::of_test(backends(&["a", "b"])), None, 1);
        let usual: Vec<_> = pool.breaks_from().map(|(from, cause, _)| (from, cause.word())).collect();
        assert_eq!(usual, [("a", "down"), ("a", "drain"), ("b", "down"), ("b", "drain"), ("(other)", "removed")]);
        for (from, cause) in [
            (Some("a"), BreakCause::Down),
            (Some("a"), BreakCause::Down),
            (Some("b"), BreakCause::Full),
            (Some("gone"), BreakCause::Removed),
            (None, BreakCause::Removed),
        ] {
            pool.count_break(&moved(from, cause));
        }
        assert_eq!(counted(&pool), ["a down 2", "b full 1", "(other) removed 2"]);
        assert_eq!((pool.breaks(BreakCause::Down), pool.breaks(BreakCause::Removed)), (2, 2));

        // At another address it goes on; a name that has gone counts no more.
        let mut config = config::Pool::of_test(backends(&["a"]));
        config.backends[0].address = Address::Unix("/run/y".into());
        let next = Pool::new(&config, Some(&pool), 1);
        next.count_break(&moved(Some("b"), BreakCause::Drain));
        assert_eq!(counted(&next), ["a down 2", "(other) drain 1", "(other) removed 2"]);
    }

    #[test]
    fn a_backend_that_is_named_other_is_told_from_all_others() {
        let pool = Pool::new(&config::Pool::of_test(backends(&["other"])), None, 1);
        pool.count_break(&moved(Some("gone"), BreakCause::Removed));
        pool.count_break(&moved(None, BreakCause::Down));
        pool.count_break(&moved(Some("other"), BreakCause::Down));
        let key = format!("backend = [{{ name = \"{OTHER}\", address = \"127.0.0.1:1\" }}]\n");
        let text =
            format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n{key}");
        let problems = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(problems[0].message.contains("is not a name"), "{problems:?}");
        assert_eq!(counted(&pool), ["other down 1", "(other) down 1", "(other) removed 1"]);
    }

    #[test]
    fn a_pool_that_knows_no_client_counts_no_move_in_advance() {
        let balance = config::Balance::RoundRobin;
        let pool = Pool::new(&config::Pool { balance, ..config::Pool::of_test(backends(&["a"])) }, None, 1);
        assert_eq!(pool.breaks_from().count(), 0);
    }

    #[test]
    fn counters_of_a_pool_take_memory_when_it_is_used() {
        let pool = Pool::new(&config::Pool::of_test(backends(&["a"])), None, 3);
        assert!(pool.all_counters().is_empty());
        pool.counters(2).reused.add(1);
        assert_eq!(pool.all_counters().iter().map(|own| own.0.reused.value()).collect::<Vec<_>>(), [0, 0, 1]);
        let next = Pool::new(&config::Pool::of_test(backends(&["a", "b"])), Some(&pool), 3);
        assert_eq!(next.all_counters().len(), 3, "a reload keeps them");
    }
}
