//! [`RequestTable`]: finds where a request goes, by the most precise route with all conditions true, else the default.
//!
//! All routes of a listener take part: those about connections with their server names as hosts. Whether the request
//! belongs on its connection is not asked here. Precision, first to last: exact host, longest `*.` wildcard, any host;
//! under one host, the longer path, of equal ones the exact one; under one path, more conditions, then the longer CIDR.
//! Where a condition is false, the next less precise rule is looked at.
//!
//! A host costs one look-up and one for each domain above it, a path one for each of its segments that is as long as the
//! path of some route; rules of one host and one path are looked at one by one. Invariant: the order in the file never
//! decides between routes that are not tied, and a look-up allocates nothing.

use std::cmp::Reverse;

use ahash::AHashMap;
use ipnet::IpNet;

use super::{RouteFacts, RouteMatch, offers, parent};
use crate::config;
use crate::http::field::Fields;
use crate::http::head::Request;
use crate::http::parts;
use crate::http::target::Target;
use crate::server_name::{NAME_MAX, NamePattern, fold};

/// What conditions of routes compare of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The host in canonical form (`ServerName::as_str`); `None`: there is none, or it is an address.
    pub host: Option<&'a str>,
    /// The path as it was sent, without the query.
    pub path: &'a [u8],
    /// The method as it was sent.
    pub method: &'a [u8],
    /// The fields of the head.
    pub fields: Fields<'a>,
    /// Facts of the connection; its server name counts for nothing here.
    pub connection: RouteFacts<'a>,
}

/// Memory for the host of a request in canonical form.
pub type HostBuffer = [u8; NAME_MAX];

impl<'a> RequestFacts<'a> {
    /// The facts of a request; `buffer` is memory for its host. Without Host, the server name of the connection counts.
    pub fn of(request: &Request<'a>, connection: RouteFacts<'a>, buffer: &'a mut HostBuffer) -> Self {
        let host = match request.host() {
            Some(host) => canonical(host.name, buffer),
            None => connection.sni,
        };
        let path = path_and_query(request.target).0;
        Self { host, path, method: request.method_name, fields: request.fields, connection }
    }
}

/// The name of a host in canonical form: lower case, without a trailing dot; `None`: it is no host name.
pub fn canonical<'b>(host: &[u8], buffer: &'b mut HostBuffer) -> Option<&'b str> {
    let name = std::str::from_utf8(host).ok()?;
    fold(name.strip_suffix('.').unwrap_or(name), buffer)
}

/// The path of a target, and what follows it from `?` on. A target without a path has `/`.
pub fn path_and_query(target: Target<'_>) -> (&[u8], &[u8]) {
    let (path, query) = parts::path_and_query(target);
    (if path.is_empty() { b"/" } else { path }, query)
}

/// The routes of a listener for requests, ready for look-up.
#[derive(Debug)]
pub struct RequestTable {
    exact: AHashMap<Box<str>, HostRules>,
    below: AHashMap<Box<str>, HostRules>,
    any: HostRules,
    default: Option<RouteMatch>,
    has_routes: bool,
}

/// The rules of one host.
#[derive(Debug, Default)]
struct HostRules {
    exact: AHashMap<Box<[u8]>, Vec<RequestRule>>,
    prefixes: AHashMap<Box<[u8]>, Vec<RequestRule>>,
    /// Lengths of the prefixes, the longest first.
    lengths: Vec<usize>,
    /// Rules for every path.
    others: Vec<RequestRule>,
}

/// One host and one path of one route, with one of its networks: in a sorted list the first rule that is true is the most
/// precise.
#[derive(Debug, Clone)]
struct RequestRule {
    method: Box<[Box<[u8]>]>,
    header: Box<[ComparedField]>,
    alpn: Box<[Box<[u8]>]>,
    source: Option<IpNet>,
    conditions: usize,
    found: RouteMatch,
}

/// A field that a request must have once, with this value.
#[derive(Debug, Clone)]
struct ComparedField {
    name: Box<str>,
    value: Box<[u8]>,
}

impl RequestTable {
    /// Builds the table; `default`: index of the pool of all other requests.
    pub fn new(routes: &[config::Route], default: Option<usize>, pool_index: impl Fn(&str) -> usize) -> Self {
        let mut table = Self {
            exact: AHashMap::new(),
            below: AHashMap::new(),
            any: HostRules::default(),
            default: default.map(|pool| RouteMatch { pool: Some(pool), route: None }),
            has_routes: !routes.is_empty(),
        };
        for (index, route) in routes.iter().enumerate() {
            let found = RouteMatch { pool: route.pool().map(&pool_index), route: Some(index) };
            let rules = RequestRule::of(route, found);
            if route.hosts().is_empty() {
                table.any.add(&route.request.path, &rules);
            }
            for pattern in route.hosts() {
                let (map, name) = match pattern {
                    NamePattern::Exact(name) => (&mut table.exact, name),
                    NamePattern::Below(domain) => (&mut table.below, domain),
                };
                map.entry(name.as_str().into()).or_default().add(&route.request.path, &rules);
            }
        }
        table.exact.values_mut().chain(table.below.values_mut()).chain([&mut table.any]).for_each(HostRules::sort);
        table
    }

    /// Leads all requests that no route takes here, in place of a pool.
    pub(super) fn lead_all_to(&mut self, default: RouteMatch) {
        self.default = Some(default);
    }

    /// Where every request goes, if no route tells them apart.
    pub fn of_all(&self) -> Option<Option<RouteMatch>> {
        (!self.has_routes).then_some(self.default)
    }

    /// Returns where a request goes; `None` = no route matches, and there is no default.
    pub fn find(&self, facts: &RequestFacts<'_>) -> Option<RouteMatch> {
        facts.host.and_then(|host| self.find_by_host(host, facts)).or_else(|| self.any.find(facts)).or(self.default)
    }

    /// Looks up the host itself, then the domains above it, nearest first.
    fn find_by_host(&self, host: &str, facts: &RequestFacts<'_>) -> Option<RouteMatch> {
        if let Some(found) = self.exact.get(host).and_then(|rules| rules.find(facts)) {
            return Some(found);
        }
        if self.below.is_empty() {
            return None;
        }
        let domains = std::iter::successors(parent(host), |domain| parent(domain));
        domains.filter_map(|domain| self.below.get(domain)).find_map(|rules| rules.find(facts))
    }
}

impl HostRules {
    fn add(&mut self, paths: &[config::PathPattern], rules: &[RequestRule]) {
        if paths.is_empty() {
            self.others.extend_from_slice(rules);
        }
        for pattern in paths {
            let map = if pattern.is_exact { &mut self.exact } else { &mut self.prefixes };
            map.entry(pattern.path.as_bytes().into()).or_default().extend_from_slice(rules);
        }
    }

    fn sort(&mut self) {
        for rules in self.exact.values_mut().chain(self.prefixes.values_mut()).chain([&mut self.others]) {
            rules.sort_by_key(|rule| Reverse(rule.precision()));
            rules.shrink_to_fit();
        }
        self.lengths = self.prefixes.keys().map(|path| path.len()).collect();
        self.lengths.sort_unstable_by_key(|length| Reverse(*length));
        self.lengths.dedup();
    }

    fn find(&self, facts: &RequestFacts<'_>) -> Option<RouteMatch> {
        let path = facts.path;
        let exact = || self.exact.get(path).and_then(|rules| first_that_holds(rules, facts));
        if let Some(found) = (!self.exact.is_empty()).then(exact).flatten() {
            return Some(found);
        }
        // The part of the path up to this length ends at the end of a segment.
        let is_segment = |length: usize| length == path.len() || path[length] == b'/' || path[length - 1] == b'/';
        let lengths = self.lengths.iter().filter(|length| **length <= path.len() && is_segment(**length));
        let mut rules = lengths.filter_map(|length| self.prefixes.get(&path[..*length]));
        rules.find_map(|rules| first_that_holds(rules, facts)).or_else(|| first_that_holds(&self.others, facts))
    }
}

impl RequestRule {
    /// Makes one rule for each network of a route, or one rule if it has no source condition.
    fn of(route: &config::Route, found: RouteMatch) -> Vec<Self> {
        let bytes = |text: &String| text.as_bytes().into();
        let header = route
            .request
            .header
            .iter()
            .map(|(name, value)| ComparedField { name: name.as_str().into(), value: bytes(value) });
        let rule = Self {
            method: route.request.method.iter().map(bytes).collect(),
            header: header.collect(),
            alpn: route.alpn.iter().map(bytes).collect(),
            source: None,
            conditions: route.conditions(),
            found,
        };
        if route.source.is_empty() {
            return vec![rule];
        }
        route.source.iter().map(|network| Self { source: Some(*network), ..rule.clone() }).collect()
    }

    /// Returns the number of conditions, then the length of the CIDR.
    fn precision(&self) -> (usize, Option<u8>) {
        (self.conditions, self.source.map(|network| network.prefix_len()))
    }

    fn holds(&self, facts: &RequestFacts<'_>) -> bool {
        let source = facts.connection.source;
        self.source.is_none_or(|network| source.is_some_and(|source| network.contains(&source)))
            && (self.method.is_empty() || self.method.iter().any(|method| **method == *facts.method))
            && (self.alpn.is_empty() || self.alpn.iter().any(|name| offers(facts.connection.alpn, name)))
            && self.header.iter().all(|field| field.is_once_in(facts.fields))
    }
}

fn first_that_holds(rules: &[RequestRule], facts: &RequestFacts<'_>) -> Option<RouteMatch> {
    rules.iter().find(|rule| rule.holds(facts)).map(|rule| rule.found)
}

impl ComparedField {
    /// True if the only field of the name has the value: of two, applications may take either.
    fn is_once_in(&self, fields: Fields<'_>) -> bool {
        let mut named = fields.named(&self.name);
        named.next() == Some(&*self.value) && named.next().is_none()
    }
}

#[cfg(test)]
mod tests;
