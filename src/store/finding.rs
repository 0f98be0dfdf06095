//! [`StoreFinding`]: which values of a cookie the store is asked for, and what its answers mean for the client.
//!
//! Sends nothing and writes no table. Requests and `explain --live` decide by this file alone, so both find the same
//! backend. Invariant: another backend in the store counts only if it can have the client; each instance counts the
//! clients that it knew itself and that get another backend, as it does without a store.

use std::sync::Arc;

use super::StoredValue;
use crate::config::is_name;
use crate::pool::Pool;
use crate::sticky::Left;
use crate::sticky::cookie::CookieVerdict;

/// What the cookie of a request says here, before the store is asked.
#[derive(Debug, Clone, Copy)]
pub struct KnownHere<'p> {
    pool: &'p Pool,
    verdict: Option<CookieVerdict>,
    /// The client has a backend that can have it; only a value that a backend has set counts more.
    stays: bool,
}

/// What the store knows and this instance did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFinding {
    /// Verdict on the cookie with what the store has.
    pub verdict: CookieVerdict,
    /// Index of the backend that the store names; `None`: the pool does not have it.
    pub backend: Option<usize>,
    /// Backend at which the client was known here, if the store names another one.
    pub left: Option<Left>,
    /// Name of the backend that the store names, if the pool does not have it and it is a name.
    pub gone: Option<Arc<str>>,
}

impl<'p> KnownHere<'p> {
    /// A cookie with this verdict; `can_have` is true for a backend that can have the client now.
    pub fn new(pool: &'p Pool, verdict: Option<CookieVerdict>, can_have: impl Fn(usize) -> bool) -> Self {
        let stays = verdict.and_then(CookieVerdict::backend).is_some_and(can_have);
        Self { pool, verdict, stays }
    }

    /// The values to ask for: `value`, which counts here, and those that are `unknown` here.
    pub fn to_find<V>(self, value: Option<V>, unknown: impl IntoIterator<Item = V>) -> impl Iterator<Item = V> {
        value.filter(|_| !self.stays).into_iter().chain(unknown)
    }

    /// The value that counts of those in the store: the first that a backend has set, else the first.
    pub fn counts<V>(self, answers: impl IntoIterator<Item = (V, StoredValue)>) -> Option<(V, StoredValue)> {
        let mut counts: Option<(V, StoredValue)> = None;
        for (value, stored) in answers {
            if counts.as_ref().is_none_or(|(_, known)| stored.is_set && !known.is_set) {
                counts = Some((value, stored));
            }
        }
        counts.filter(|(_, stored)| stored.is_set || !self.stays)
    }

    /// What a value in the store means, at `now_s` seconds since 1970; `None`: nothing that this instance did not know. A
    /// store that names no usable backend either leaves the client to the pick.
    pub fn judge(self, stored: &StoredValue, now_s: u64, can_have: impl Fn(usize) -> bool) -> Option<StoreFinding> {
        let Self { pool, verdict: known, stays } = self;
        let backend = pool.index_of(&stored.backend);
        let here = known.and_then(CookieVerdict::backend);
        let is_news = |index| stays || here != Some(index);
        if known.is_some() && !backend.is_some_and(|index| is_news(index) && can_have(index)) {
            return None;
        }
        let left = match here {
            _ if stays => None,
            Some(index) => Some(Left::backend(index, pool.why_not(index))),
            None => known.and_then(CookieVerdict::left),
        };
        let removed = CookieVerdict::Removed { former: None };
        let verdict = backend.map_or(removed, |backend| CookieVerdict::Fresh { backend, issued: now_s });
        let gone = (backend.is_none() && is_name(&stored.backend)).then(|| Arc::from(&*stored.backend));
        Some(StoreFinding { verdict, backend, left, gone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Address};
    use crate::outcome::BreakCause;

    fn pool() -> Pool {
        let backend = |name: &str| config::Backend::of_test(name, Address::Unix("/run/x".into()));
        Pool::new(&config::Pool::of_test(["a", "b"].map(backend).into()), None, 1)
    }

    fn stored(backend: &str, is_set: bool) -> StoredValue {
        StoredValue { backend: backend.into(), is_set }
    }

    fn fresh(backend: usize) -> Option<CookieVerdict> {
        Some(CookieVerdict::Fresh { backend, issued: 7 })
    }

    #[test]
    fn a_value_that_is_unknown_here_leads_where_the_store_says() {
        let pool = pool();
        let here = KnownHere::new(&pool, None, |_| true);
        assert!(here.to_find(Some("v"), ["w"]).eq(["v", "w"]));
        let found = here.judge(&stored("b", true), 9, |_| true).unwrap();
        assert_eq!((found.verdict, found.backend), (CookieVerdict::Fresh { backend: 1, issued: 9 }, Some(1)));
        assert_eq!((found.left, found.gone), (None, None));
        // One that the pool does not have is named, unless the store has nonsense.
        let found = here.judge(&stored("web9", true), 9, |_| true).unwrap();
        assert_eq!((found.verdict.word(), found.backend, found.gone.as_deref()), ("removed", None, Some("web9")));
        let found = here.judge(&stored("no name\n", true), 9, |_| true).unwrap();
        assert_eq!((found.verdict.word(), found.gone), ("removed", None));
    }

    #[test]
    fn a_client_that_stays_here_follows_only_a_value_that_a_backend_has_set() {
        let pool = pool();
        let here = KnownHere::new(&pool, fresh(0), |_| true);
        assert!(here.to_find(Some("v"), ["w", "x"]).eq(["w", "x"]), "the value that counts is known");
        assert_eq!(here.counts([("w", stored("b", false))]), None);
        let counts = here.counts([("w", stored("a", false)), ("x", stored("b", true)), ("y", stored("a", true))]);
        assert_eq!(counts.unwrap().0, "x");
        assert_eq!(here.judge(&stored("b", true), 9, |_| true).unwrap().left, None);
    }

    #[test]
    fn a_client_whose_backend_cannot_have_it_follows_the_store_and_is_counted_by_what_was_known_here() {
        let pool = pool();
        let up = |index: usize| index == 1;
        let here = KnownHere::new(&pool, fresh(0), up);
        assert!(here.to_find(Some("v"), ["w"]).eq(["v", "w"]));
        let found = here.judge(&stored("b", false), 9, up).unwrap();
        assert_eq!((found.backend, found.left), (Some(1), Some(Left::backend(0, BreakCause::Down))));
        // The store knows no better: the pick places the client.
        for backend in ["a", "gone"] {
            assert_eq!(here.judge(&stored(backend, true), 9, up), None, "{backend}");
        }
        // A backend that left the pool here is what the client had.
        let removed = CookieVerdict::Removed { former: Some(3) };
        let found = KnownHere::new(&pool, Some(removed), up).judge(&stored("b", true), 9, up).unwrap();
        assert_eq!((found.backend, found.left), (Some(1), Some(Left::removed(Some(3)))));
    }
}
