//! Warns of `balance = "hash"` where it has to weigh very many backends for each new client.
//!
//! Changes nothing: such a pool works. Invariant: what is counted are the backends, or locations, that are weighed
//! together.

use std::collections::{HashMap, HashSet};

use super::Bad;
use crate::config::file::Section;
use crate::config::{Backend, Balance};

/// Most backends that are weighed together without a warning: about a quarter of a microsecond.
const WEIGHED_MAX: usize = 100;

/// Checks one pool.
pub(super) fn check(section: &Section<'_>, balance: Option<Balance>, backends: &[Backend]) {
    let most = most_weighed(backends);
    if balance == Some(Balance::Hash) && most > WEIGHED_MAX {
        let why = format!("balance = \"hash\" weighs {most} backends for each new client; the time grows with them");
        let hint = "\"maglev\" or \"ring\" look at one, or give the backends a location; either places clients anew";
        section.warn("balance", Bad::new(why).hint(hint));
    }
}

/// Size of the largest group of backends and locations that one location has directly below it.
fn most_weighed(backends: &[Backend]) -> usize {
    // What lies directly below a location: its levels (true) and its backends (false), by name.
    let mut below: HashMap<_, HashSet<(bool, &str)>> = HashMap::new();
    for Backend { name, location, backup, .. } in backends.iter().filter(|backend| backend.weight > 0) {
        for (depth, level) in location.iter().enumerate() {
            below.entry((*backup, &location[..depth])).or_default().insert((true, level.as_str()));
        }
        below.entry((*backup, &location[..])).or_default().insert((false, name.as_str()));
    }
    below.values().map(HashSet::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::config::check;

    /// Warnings of backends that are weighed, in a pool of so many, each with the keys that `backend` returns.
    fn warnings(balance: &str, count: usize, backend: fn(usize) -> String) -> Vec<String> {
        let backends: String = (0..count)
            .map(|n| format!("[[pool.backend]]\nname = \"b{n}\"\naddress = \"10.0.0.1:{}\"\n{}\n", 1 + n, backend(n)))
            .collect();
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n{balance}\n{backends}"
        );
        let checked = check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let warnings = checked.unwrap().warnings;
        warnings.iter().map(ToString::to_string).filter(|warning| warning.contains("weighs")).collect()
    }

    #[test]
    fn more_than_a_hundred_backends_that_are_weighed_together_get_a_hint() {
        let found = warnings("", 101, |_| String::new());
        assert!(
            matches!(&found[..], [one] if one.contains("weighs 101 backends") && one.contains("maglev")),
            "{found:?}"
        );
        for (balance, count) in [("", 100), ("balance = \"ring\"", 300), ("balance = \"random\"", 300)] {
            assert_eq!(warnings(balance, count, |_| String::new()), Vec::<String>::new(), "{balance} {count}");
        }
    }

    #[test]
    fn backends_of_other_locations_and_those_without_weight_do_not_count() {
        assert_eq!(warnings("", 400, |n| format!("location = \"dc{}\"", n % 5)), Vec::<String>::new());
        assert_eq!(warnings("", 150, |n| format!("weight = {}", n % 2)), Vec::<String>::new());
        let deep = warnings("", 210, |n| format!("location = \"dc1/rack{}\"", n / 2));
        assert!(matches!(&deep[..], [one] if one.contains("weighs 105 backends")), "{deep:?}");
    }
}
