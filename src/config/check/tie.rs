//! Finds routes that tie: two routes of one listener, neither of which is more precise.
//!
//! Precision is, in this order: the name (exact, longer wildcard, shorter wildcard, any), the path (longer; of equal ones
//! the exact one), the number of other conditions, the length of the network. So two routes tie exactly if they share a
//! name and a path, have equally many conditions, share a network or both have none, and one request can fulfil both. The
//! server names of a route about connections are the hosts of their requests. ALPN values do not make routes different: a
//! client may offer several. Which route wins is decided in `route.rs`.
//!
//! Invariant: with routes that do not tie, the order in the file decides for no client.

use std::collections::HashMap;

use ipnet::IpNet;

use super::Bad;
use crate::config::file::Section;
use crate::config::{PathPattern, RequestConditions, Route};
use crate::server_name::NamePattern;

/// Reports every route that ties with an earlier one.
pub(super) fn check(routes: &[Route], sections: &[Section<'_>]) {
    let mut known: HashMap<Precision<'_>, Vec<usize>> = HashMap::new();
    for (index, (route, section)) in routes.iter().zip(sections).enumerate() {
        let mut ties = Vec::new();
        for precision in precisions(route) {
            let alike = known.entry(precision).or_default();
            let meets = |earlier: &&usize| **earlier == index || can_meet(&routes[**earlier].request, &route.request);
            ties.extend(alike.iter().find(meets).map(|earlier| (*earlier, precision)));
            alike.push(index);
        }
        // One tie per route is reported: correcting it removes the others, or the next run shows them.
        if let Some((earlier, precision)) = ties.first() {
            section.error_at(section.start, tie(*earlier, precision, route));
        }
    }
}

/// Name, path, number of other conditions, and network: equal for two routes that tie.
type Precision<'r> = (Option<&'r NamePattern>, Option<&'r PathPattern>, usize, Option<IpNet>);

fn precisions(route: &Route) -> impl Iterator<Item = Precision<'_>> {
    let conditions = route.conditions();
    let names = or_none(route.hosts().iter());
    // A route without any condition is an error of its own.
    let paths = move || {
        or_none(route.request.path.iter())
            .filter(move |path| path.is_some() || conditions > 0 || !route.hosts().is_empty())
    };
    let pairs = names.flat_map(move |name| paths().map(move |path| (name, path)));
    pairs.flat_map(move |(name, path)| {
        or_none(route.source.iter().copied()).map(move |network| (name, path, conditions, network))
    })
}

fn or_none<T>(items: impl ExactSizeIterator<Item = T>) -> impl Iterator<Item = Option<T>> {
    let none = (items.len() == 0).then_some(None);
    items.map(Some).chain(none)
}

/// True if one request can fulfil the methods and fields of both.
fn can_meet(one: &RequestConditions, other: &RequestConditions) -> bool {
    let methods = one.method.is_empty()
        || other.method.is_empty()
        || one.method.iter().any(|method| other.method.contains(method));
    // A field that must be there once has one value.
    let contradicts = |(name, value): &(String, String)| {
        other.header.iter().any(|(other_name, other_value)| name == other_name && value != other_value)
    };
    methods && !one.header.iter().any(contradicts)
}

fn tie(earlier: usize, (name, path, _, network): &Precision<'_>, route: &Route) -> Bad {
    let name = name.map_or("any name".to_owned(), |name| format!("\"{name}\""));
    let path = path.map_or(String::new(), |path| format!(" and path \"{path}\""));
    let network = network.map_or(String::new(), |network| format!(" from \"{network}\""));
    let bad = Bad::new(format!("ties with route #{} for {name}{path}{network}: neither is more precise", earlier + 1));
    if route.alpn.is_empty() {
        bad
    } else {
        bad.hint("a client may offer several ALPN values, so they do not tell routes apart")
    }
}
