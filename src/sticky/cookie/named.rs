//! Values of application cookies that name the backend: `backend~value` (prefix), and `value.backend` or `backend.value`
//! (route).
//!
//! Changes no value (`http` does), and uses no pool. Invariant: a value costs a bounded number of look-ups, whatever
//! its bytes.

use crate::config::{RouteRules, Separator, Side};

/// Byte between the backend's name and the value in `prefix` mode. No name has it, but cookie values may.
pub const PREFIX_END: u8 = b'~';
/// Longest name of a backend, in bytes.
const NAME_MAX: usize = 64;
/// Most names of a value that are looked up: names have few dots.
const LOOKS_MAX: usize = 8;

/// The backend's name before the first `~`, as HAProxy writes it; `None` without `~`.
pub fn prefix(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(|byte| *byte == PREFIX_END)?;
    Some(&value[..end])
}

/// The backend named behind a separator, as Tomcat's `jvmRoute` writes it, or before one: `None` without a separator,
/// `Some(None)` if there is a route and `find` has no backend of that name. Names may hold `.` and `-`, and so may the
/// application's part: of the last eight tails behind a separator, or the first eight heads before one, the longest that
/// `find` has counts. No name holds `!`: what stands between two of them is one, and of several the first known one
/// counts (WebLogic writes that of the session's second copy behind the first).
pub fn route(value: &[u8], rules: &RouteRules, find: impl Fn(&[u8]) -> Option<usize>) -> Option<Option<usize>> {
    let separator = rules.separator.byte();
    let separates = |(at, byte): (usize, &u8)| (*byte == separator).then_some(at);
    let mut route = None;
    let look = |name: &[u8]| {
        let is_name = name.len() <= NAME_MAX;
        if is_name {
            route = Some(find(name).or(route.flatten()));
        }
        is_name
    };
    match rules.side {
        Side::Suffix => {
            let tails = value.iter().enumerate().rev().filter_map(separates).map(|at| &value[at + 1..]);
            let names = tails.map(|tail| match rules.separator {
                Separator::Mark => tail.split(|byte| *byte == separator).next().unwrap_or_default(),
                Separator::Dot | Separator::Dash => tail,
            });
            names.take(LOOKS_MAX).all(look);
        }
        Side::Prefix => {
            let heads = value.iter().enumerate().filter_map(separates).map(|at| &value[..at]);
            heads.take(LOOKS_MAX).all(look);
        }
    }
    // A separator further away than any name is long still makes a route, of an unknown backend.
    route.or_else(|| value.contains(&separator).then_some(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_before_the_first_tilde() {
        for (value, expected) in
            [("a~x", Some("a")), ("a~x~y", Some("a")), ("a~", Some("a")), ("~x", Some("")), ("x", None), ("", None)]
        {
            assert_eq!(prefix(value.as_bytes()), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn a_route_is_the_longest_tail_that_names_a_backend() {
        let find = |name: &[u8]| [&b"a"[..], b"node.1", b"1"].iter().position(|known| *known == name);
        let far = format!("a.{}", "x".repeat(65));
        for (value, expected) in [
            ("5A0F.a", Some(Some(0))),
            ("5A0F.node.1", Some(Some(1))),
            ("5A.0F.1", Some(Some(2))),
            ("a.b.c.d.e.f.g.h.i.node.1", Some(Some(1))),
            ("5A0F.b", Some(None)),
            ("5A0F.", Some(None)),
            (&far, Some(None)),
            ("5A0F", None),
            ("", None),
        ] {
            assert_eq!(route(value.as_bytes(), &RouteRules::default(), find), expected, "{value}");
        }
    }

    #[test]
    fn a_route_stands_behind_or_before_any_separator() {
        let find = |name: &[u8]| [&b"a"[..], b"node-1", b"1", b"b"].iter().position(|known| *known == name);
        for (separator, side, value, expected) in [
            (Separator::Dot, Side::Prefix, "a.5A0F", Some(Some(0))),
            (Separator::Dot, Side::Prefix, "x.5A0F.a", Some(None)),
            (Separator::Dot, Side::Prefix, "5A0F", None),
            (Separator::Dash, Side::Prefix, "node-1-5A0F", Some(Some(1))),
            (Separator::Dash, Side::Suffix, "5A-0F-node-1", Some(Some(1))),
            (Separator::Dash, Side::Suffix, "5A-0F-1", Some(Some(2))),
            (Separator::Mark, Side::Suffix, "5A0F!b", Some(Some(3))),
            (Separator::Mark, Side::Suffix, "5A0F!b!a", Some(Some(3))),
            (Separator::Mark, Side::Suffix, "5A0F!x!a", Some(Some(0))),
            (Separator::Mark, Side::Suffix, "5A0F!x!NONE", Some(None)),
            (Separator::Mark, Side::Prefix, "node-1!5A!0F", Some(Some(1))),
            (Separator::Mark, Side::Suffix, "5A0F.a", None),
        ] {
            let rules = RouteRules { separator, side, path_parameter: None };
            assert_eq!(route(value.as_bytes(), &rules, find), expected, "{value} {rules:?}");
        }
    }

    #[test]
    fn a_value_of_dots_costs_a_bounded_number_of_looks() {
        let asked = std::cell::Cell::new(0);
        let none = |_: &[u8]| {
            asked.set(asked.get() + 1);
            None
        };
        for (separator, side) in [
            (Separator::Dot, Side::Suffix),
            (Separator::Dot, Side::Prefix),
            (Separator::Mark, Side::Suffix),
            (Separator::Dash, Side::Prefix),
        ] {
            let rules = RouteRules { separator, side, path_parameter: None };
            asked.set(0);
            assert_eq!(route(&[separator.byte(); 30_000], &rules, none), Some(None));
            assert!(asked.get() <= LOOKS_MAX);
        }
    }
}
