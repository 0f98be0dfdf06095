//! Finds routes that tie: two routes of one listener, neither of which is more precise.
//!
//! Precision is, in this order: the name (exact, longer wildcard, shorter wildcard, any), the number of other
//! conditions, the length of the network. So two routes tie exactly if they share a name, have equally many conditions,
//! and share a network or both have none. ALPN values do not make routes different: a client may offer several. Which
//! route wins is decided in `route.rs`.
//!
//! Invariant: with routes that do not tie, the order in the file decides for no client.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ipnet::IpNet;

use super::Bad;
use crate::config::Route;
use crate::config::file::Section;
use crate::server_name::NamePattern;

/// Reports every route that ties with an earlier one.
pub(super) fn check(routes: &[Route], sections: &[Section<'_>]) {
    let mut first: HashMap<Precision<'_>, usize> = HashMap::new();
    for (index, (route, section)) in routes.iter().zip(sections).enumerate() {
        let mut ties = Vec::new();
        for precision in precisions(route) {
            match first.entry(precision) {
                Entry::Vacant(vacant) => {
                    vacant.insert(index);
                }
                Entry::Occupied(earlier) => ties.push((*earlier.get(), precision)),
            }
        }
        // One tie per route is reported: correcting it removes the others, or the next run shows them.
        if let Some((earlier, precision)) = ties.first() {
            section.error_at(section.start, tie(*earlier, precision, route));
        }
    }
}

/// Name, number of other conditions, and network: equal for two routes that tie.
type Precision<'r> = (Option<&'r NamePattern>, usize, Option<IpNet>);

fn precisions(route: &Route) -> impl Iterator<Item = Precision<'_>> {
    let conditions = usize::from(!route.alpn.is_empty()) + usize::from(!route.source.is_empty());
    let names = or_none(route.sni.iter());
    // A route without any condition is an error of its own.
    let names = names.filter(move |name| name.is_some() || conditions > 0);
    names.flat_map(move |name| or_none(route.source.iter().copied()).map(move |network| (name, conditions, network)))
}

fn or_none<T>(items: impl ExactSizeIterator<Item = T>) -> impl Iterator<Item = Option<T>> {
    let none = (items.len() == 0).then_some(None);
    items.map(Some).chain(none)
}

fn tie(earlier: usize, (name, _, network): &Precision<'_>, route: &Route) -> Bad {
    let name = name.map_or("any name".to_owned(), |name| format!("\"{name}\""));
    let network = network.map_or(String::new(), |network| format!(" from \"{network}\""));
    let bad = Bad::new(format!("ties with route #{} for {name}{network}: neither is more precise", earlier + 1));
    if route.alpn.is_empty() {
        bad
    } else {
        bad.hint("a client may offer several ALPN values, so they do not tell routes apart")
    }
}
