//! Which pool a connection goes to: the most precise route whose conditions all hold, else the default.
//!
//! Does not refuse ties (`config::check` does) and does not know pools, only their indexes. Precision, first to last:
//! exact name, longest `*.` wildcard, routes without names, the default; under the same name, more conditions, then
//! the longer CIDR. A failed condition goes on to the next less precise rule.
//!
//! Invariant: the order of writing never decides between routes that are not tied, and a look-up allocates nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ahash::AHashMap;
use ipnet::IpNet;

use crate::config;
use crate::server_name::NamePattern;

/// The routes of a listener, ready for look-up.
#[derive(Debug)]
pub struct RouteTable {
    exact: AHashMap<Box<str>, Vec<RouteRule>>,
    below: AHashMap<Box<str>, Vec<RouteRule>>,
    unnamed: Vec<RouteRule>,
    default: Option<usize>,
    needs_hello: bool,
}

/// Where a connection goes, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteMatch {
    /// The index of its pool.
    pub pool: usize,
    /// The route that took it, as an index into those the table was made of; `None` = the default.
    pub route: Option<usize>,
}

/// What routes look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteFacts<'a> {
    /// The server name in canonical form (`ServerName::as_str`).
    pub sni: Option<&'a str>,
    /// The protocols offered: a raw, checked ProtocolNameList body (`ClientHello::alpn`).
    pub alpn: &'a [u8],
    /// The client, canonical; `None` where nobody knows it, and then no source condition holds.
    pub source: Option<IpAddr>,
}

/// One name of one route with one of its networks: so the most precise one is the first that holds.
#[derive(Debug, Clone)]
struct RouteRule {
    alpn: Arc<[String]>,
    source: Option<IpNet>,
    found: RouteMatch,
}

impl RouteTable {
    /// Builds the table. `pool_index` turns the names of pools into what [`find`](Self::find) answers.
    pub fn new(routes: &[config::Route], default: Option<&str>, pool_index: impl Fn(&str) -> usize) -> Self {
        let mut table = Self {
            exact: AHashMap::new(),
            below: AHashMap::new(),
            unnamed: Vec::new(),
            default: default.map(&pool_index),
            needs_hello: routes.iter().any(|route| !route.sni.is_empty() || !route.alpn.is_empty()),
        };
        for (index, route) in routes.iter().enumerate() {
            let rules = RouteRule::of(route, RouteMatch { pool: pool_index(&route.pool), route: Some(index) });
            if route.sni.is_empty() {
                table.unnamed.extend_from_slice(&rules);
            }
            for pattern in &route.sni {
                let (map, name) = match pattern {
                    NamePattern::Exact(name) => (&mut table.exact, name),
                    NamePattern::Below(domain) => (&mut table.below, domain),
                };
                map.entry(name.as_str().into()).or_default().extend_from_slice(&rules);
            }
        }
        for rules in table.exact.values_mut().chain(table.below.values_mut()).chain([&mut table.unnamed]) {
            rules.sort_by_key(|rule| std::cmp::Reverse(rule.precision()));
            rules.shrink_to_fit();
        }
        table
    }

    /// The pool for a connection; `None` = no route matches and there is no default.
    pub fn find(&self, facts: &RouteFacts<'_>) -> Option<usize> {
        self.find_route(facts).map(|found| found.pool)
    }

    /// The same, with the route that says so.
    pub fn find_route(&self, facts: &RouteFacts<'_>) -> Option<RouteMatch> {
        facts
            .sni
            .and_then(|name| self.find_by_name(name, facts))
            .or_else(|| first_that_holds(&self.unnamed, facts))
            .or_else(|| self.default.map(|pool| RouteMatch { pool, route: None }))
    }

    /// Whether any route looks at what a hello says.
    pub fn needs_hello(&self) -> bool {
        self.needs_hello
    }

    /// The name itself, then the domains above it, nearest first.
    fn find_by_name(&self, name: &str, facts: &RouteFacts<'_>) -> Option<RouteMatch> {
        if let Some(found) = self.exact.get(name).and_then(|rules| first_that_holds(rules, facts)) {
            return Some(found);
        }
        if self.below.is_empty() {
            return None;
        }
        let domains = std::iter::successors(parent(name), |domain| parent(domain));
        domains.filter_map(|domain| self.below.get(domain)).find_map(|rules| first_that_holds(rules, facts))
    }
}

impl RouteRule {
    /// A route as rules: one a network, or one alone if it has no source condition.
    fn of(route: &config::Route, found: RouteMatch) -> Vec<Self> {
        let alpn: Arc<[String]> = route.alpn.clone().into();
        let rule = |source| Self { alpn: alpn.clone(), source, found };
        if route.source.is_empty() {
            return vec![rule(None)];
        }
        route.source.iter().map(|network| rule(Some(*network))).collect()
    }

    /// How many conditions, then how long a CIDR. Networks of two families never hold for the same source, so it
    /// does not matter that their lengths are compared, too.
    fn precision(&self) -> (usize, Option<u8>) {
        let conditions = usize::from(!self.alpn.is_empty()) + usize::from(self.source.is_some());
        (conditions, self.source.map(|network| network.prefix_len()))
    }

    fn holds(&self, facts: &RouteFacts<'_>) -> bool {
        let source_holds = match (self.source, facts.source) {
            (None, _) => true,
            (Some(network), Some(source)) => network.contains(&source),
            (Some(_), None) => false,
        };
        source_holds && (self.alpn.is_empty() || self.alpn.iter().any(|name| offers(facts.alpn, name.as_bytes())))
    }
}

fn first_that_holds(rules: &[RouteRule], facts: &RouteFacts<'_>) -> Option<RouteMatch> {
    rules.iter().find(|rule| rule.holds(facts)).map(|rule| rule.found)
}

/// The domain a name lies in.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, domain)| domain)
}

/// Whether a ProtocolNameList body holds this name.
fn offers(mut list: &[u8], wanted: &[u8]) -> bool {
    while let Some((length, names)) = list.split_first() {
        let Some((name, rest)) = names.split_at_checked(usize::from(*length)) else { return false };
        if name == wanted {
            return true;
        }
        list = rest;
    }
    false
}

#[cfg(test)]
mod tests;
