//! [`RouteTable`]: finds the pool of a connection, by the most precise route with all conditions true, else the
//! default; [`requests`] finds that of a request.
//!
//! Does not refuse ties (`config::check` does) and has no pools, only their indexes. Precision, first to last: exact
//! name, longest `*.` wildcard, routes without names, the default; under the same name, more conditions, then the
//! longer CIDR. Where a condition is false, the next less precise rule is looked at. Routes about requests decide for no
//! connection. A listener may refuse the names that neither its routes nor its certificates have (`KnownNames`).
//!
//! Invariant: the order in the file never decides between routes that are not tied, and a look-up allocates nothing.

use std::net::IpAddr;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use ipnet::IpNet;

use self::names::KnownNames;
use self::requests::{RequestFacts, RequestTable, canonical};
use crate::config;
use crate::http::head::Request;
use crate::http::target::Host;
use crate::server_name::{NAME_MAX, NamePattern};

mod names;
pub mod requests;

/// The routes of a listener, ready for look-up.
#[derive(Debug)]
pub struct RouteTable {
    exact: AHashMap<Box<str>, Vec<RouteRule>>,
    below: AHashMap<Box<str>, Vec<RouteRule>>,
    unnamed: Vec<RouteRule>,
    default: Option<RouteMatch>,
    requests: RequestTable,
    /// Names that are served; `None`: any.
    known: Option<KnownNames>,
    needs_hello: bool,
    /// Every protocol that a condition names.
    protocols: AHashSet<Box<[u8]>>,
}

/// A client's list of protocols up to this length is kept whole, in bytes: longer than those of browsers and libraries.
const PROTOCOLS_WHOLE: usize = 256;

/// Where a connection or a request goes, and the route that chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteMatch {
    /// Index of the pool among those the table was made with; `None` = the route leads to a split or answers, or,
    /// without a route, so does the default, or each request has a route of its own.
    pub pool: Option<usize>,
    /// Index of the route among those the table was made of; `None` = the default.
    pub route: Option<usize>,
}

/// The facts of a connection that conditions of routes compare.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteFacts<'a> {
    /// The server name in canonical form (`ServerName::as_str`).
    pub sni: Option<&'a str>,
    /// The protocols offered: a raw, checked ProtocolNameList body (`ClientHello::alpn`).
    pub alpn: &'a [u8],
    /// Address of the client, canonical; `None` = unknown, and then no source condition is true.
    pub source: Option<IpAddr>,
}

/// One name of one route with one of its networks: in a sorted list the first rule that is true is the most precise.
#[derive(Debug, Clone)]
struct RouteRule {
    alpn: Arc<[String]>,
    source: Option<IpNet>,
    found: RouteMatch,
}

impl RouteTable {
    /// Builds the table of a listener. `pool_index` turns the name of a pool into the index that [`find`](Self::find)
    /// returns.
    pub fn of(listener: &config::Listener, pool_index: impl Fn(&str) -> usize) -> Self {
        let mut table = Self::new(&listener.routes, listener.pool.as_deref(), pool_index);
        if listener.takes_requests_alone() || listener.split.is_some() {
            table.default = Some(RouteMatch { pool: None, route: None });
        }
        if listener.split.is_some() {
            table.requests.lead_all_to(RouteMatch { pool: None, route: None });
        }
        table
    }

    /// The same table, for a listener that may refuse the names that it does not know. `certificates`: the names of its
    /// certificates.
    pub fn knowing(self, listener: &config::Listener, certificates: &[NamePattern]) -> Self {
        let known = || KnownNames::new(listener.routes.iter().flat_map(config::Route::hosts), certificates);
        Self { known: listener.refuses_unknown_names.then(known), ..self }
    }

    /// Builds the table of these routes; `default`: the pool of all other connections.
    pub fn new(routes: &[config::Route], default: Option<&str>, pool_index: impl Fn(&str) -> usize) -> Self {
        let mut table = Self {
            exact: AHashMap::new(),
            below: AHashMap::new(),
            unnamed: Vec::new(),
            default: default.map(|pool| RouteMatch { pool: Some(pool_index(pool)), route: None }),
            requests: RequestTable::new(routes, default.map(&pool_index), &pool_index),
            known: None,
            needs_hello: routes.iter().any(|route| !route.sni.is_empty() || !route.alpn.is_empty()),
            protocols: routes.iter().flat_map(|route| &route.alpn).map(|name| name.as_bytes().into()).collect(),
        };
        for (index, route) in routes.iter().enumerate().filter(|(_, route)| !route.is_of_requests()) {
            let found = RouteMatch { pool: route.pool().map(&pool_index), route: Some(index) };
            let rules = RouteRule::of(route, found);
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

    /// Returns the pool of a connection; `None` = no route to a pool matches, and there is no default, or not for this
    /// name.
    pub fn find(&self, facts: &RouteFacts<'_>) -> Option<usize> {
        self.find_route(facts)?.pool
    }

    /// Returns the pool of a connection with the route that chose it.
    pub fn find_route(&self, facts: &RouteFacts<'_>) -> Option<RouteMatch> {
        let by_name = facts.sni.and_then(|name| self.find_by_name(name, facts));
        if by_name.is_none() && self.refuses(facts.sni) {
            return None;
        }
        by_name.or_else(|| first_that_holds(&self.unnamed, facts)).or(self.default)
    }

    /// True if a request for this host belongs on its connection: one to the host would have the same rules of TLS.
    /// `connection`: where the connection goes; `reads_http`: whether requests are read there.
    pub fn belongs(
        &self,
        listener: &config::Listener,
        (connection, facts): (RouteMatch, &RouteFacts<'_>),
        host: Host<'_>,
        reads_http: impl Fn(RouteMatch) -> bool,
    ) -> bool {
        let mut buffer = [0; NAME_MAX];
        let name = canonical(host.name, &mut buffer);
        // A backend may read another name into what is none, and so the name of a route with other rules.
        if name.is_none() && !host.is_address() {
            return false;
        }
        if name == facts.sni {
            return true;
        }
        let rules = |found: RouteMatch| listener.rules_of(found.route);
        let there = self.find_route(&RouteFacts { sni: name, ..*facts });
        there.is_some_and(|there| rules(there) == rules(connection) && reads_http(there))
    }

    /// Returns where a request with these facts goes; `None` = no route matches, and there is no default.
    pub fn find_by_request(&self, facts: &RequestFacts<'_>) -> Option<RouteMatch> {
        self.requests.find(facts)
    }

    /// Returns where a request goes that belongs on its connection; `None` = no route matches, and there is no default.
    pub fn find_request(&self, request: &Request<'_>, connection: RouteFacts<'_>) -> Option<RouteMatch> {
        let mut buffer = [0; NAME_MAX];
        match self.requests.of_all() {
            Some(of_all) => of_all,
            None => self.requests.find(&RequestFacts::of(request, connection, &mut buffer)),
        }
    }

    /// True if no client with this name is served by what is for any name.
    fn refuses(&self, name: Option<&str>) -> bool {
        self.known.as_ref().zip(name).is_some_and(|(known, name)| !known.has(name))
    }

    /// True if a condition of a route needs the ClientHello.
    pub fn needs_hello(&self) -> bool {
        self.needs_hello
    }

    /// The part of a client's list of protocols that is worth keeping for the life of its connection, and whether
    /// anything was left out: the first protocol, which PROXY headers announce, and each that a condition names, once. A
    /// short list is kept whole.
    pub fn kept_protocols(&self, list: Box<[u8]>) -> (Box<[u8]>, bool) {
        if list.len() <= PROTOCOLS_WHOLE {
            return (list, false);
        }
        let (mut kept, mut seen) = (Vec::new(), AHashSet::new());
        for (index, name) in names(&list).enumerate() {
            // A name in a checked list has at most 255 bytes.
            if (index == 0 || self.protocols.contains(name)) && seen.insert(name) {
                kept.push(name.len() as u8);
                kept.extend_from_slice(name);
            }
        }
        (kept.into(), true)
    }

    /// True if no condition names a protocol that no condition of `other` names.
    pub fn protocols_are_of(&self, other: &Self) -> bool {
        self.protocols.is_subset(&other.protocols)
    }

    /// Looks up the name itself, then the domains above it, nearest first.
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
    /// Makes one rule for each network of a route, or one rule if it has no source condition.
    fn of(route: &config::Route, found: RouteMatch) -> Vec<Self> {
        let alpn: Arc<[String]> = route.alpn.clone().into();
        let rule = |source| Self { alpn: alpn.clone(), source, found };
        if route.source.is_empty() {
            return vec![rule(None)];
        }
        route.source.iter().map(|network| rule(Some(*network))).collect()
    }

    /// Returns the number of conditions, then the length of the CIDR. Networks of two families never contain the same
    /// source, so comparing their lengths does no harm.
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

/// Returns the domain above a name.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, domain)| domain)
}

/// True if a ProtocolNameList body (RFC 7301 §3.1) contains this name.
fn offers(list: &[u8], wanted: &[u8]) -> bool {
    names(list).any(|name| name == wanted)
}

/// The names of a ProtocolNameList body, up to one that does not fit.
fn names(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, names) = list.split_first()?;
        let (name, rest) = names.split_at_checked(usize::from(*length))?;
        list = rest;
        Some(name)
    })
}

#[cfg(test)]
mod tests;
