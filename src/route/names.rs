//! [`KnownNames`]: the names that a listener with `unknown_names = "refuse"` serves.
//!
//! Routes nothing. Invariant: a name is known if a route has it, or if a client of the certificate would accept it.

use ahash::AHashSet;

use super::parent;
use crate::server_name::NamePattern;

/// Names of routes and certificates.
#[derive(Debug, Default)]
pub(super) struct KnownNames {
    exact: AHashSet<Box<str>>,
    /// Domains of routes: every name below is known.
    below: AHashSet<Box<str>>,
    /// Domains of certificates: names one label below are known (RFC 9525 §6.3).
    next_below: AHashSet<Box<str>>,
}

impl KnownNames {
    /// Collects the names of routes and of certificates.
    pub(super) fn new<'n>(
        routes: impl IntoIterator<Item = &'n NamePattern>,
        certificates: impl IntoIterator<Item = &'n NamePattern>,
    ) -> Self {
        let mut known = Self::default();
        let routes = routes.into_iter().map(|name| (name, true));
        for (name, is_of_route) in routes.chain(certificates.into_iter().map(|name| (name, false))) {
            let (names, name) = match name {
                NamePattern::Exact(name) => (&mut known.exact, name),
                NamePattern::Below(domain) if is_of_route => (&mut known.below, domain),
                NamePattern::Below(domain) => (&mut known.next_below, domain),
            };
            names.insert(name.as_str().into());
        }
        known
    }

    /// True for a known name, in canonical form.
    pub(super) fn has(&self, name: &str) -> bool {
        let mut domains = std::iter::successors(parent(name), |domain| parent(domain));
        self.exact.contains(name)
            || parent(name).is_some_and(|domain| self.next_below.contains(domain))
            || !self.below.is_empty() && domains.any(|domain| self.below.contains(domain))
    }
}
