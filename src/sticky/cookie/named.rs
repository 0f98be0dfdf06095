//! Values of application cookies that name the backend: `backend~value` (prefix) and `value.backend` (route).
//!
//! Changes no value (`http` does), and uses no pool. Invariant: a value costs a bounded number of look-ups, whatever
//! its bytes.

/// Byte between the backend's name and the value in `prefix` mode. No name has it, but cookie values may.
pub const PREFIX_END: u8 = b'~';
/// Longest name of a backend, in bytes.
const NAME_MAX: usize = 64;
/// Most tails of a value that are looked up: names have few dots.
const TAILS_MAX: usize = 8;

/// The backend's name before the first `~`, as HAProxy writes it; `None` without `~`.
pub fn prefix(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(|byte| *byte == PREFIX_END)?;
    Some(&value[..end])
}

/// The backend named behind a `.`, as Tomcat's `jvmRoute` writes it: `None` without a `.`, `Some(None)` if there is a
/// route and `find` has no backend of that name. Names may hold dots, and so may the application's part: of the last
/// eight tails behind a `.` the longest that `find` has counts.
///
/// Reads the cookie only; Tomcat's `;jsessionid=` in the path, for browsers without cookies, is not supported.
pub fn route(value: &[u8], find: impl Fn(&[u8]) -> Option<usize>) -> Option<Option<usize>> {
    let dots = value.iter().enumerate().rev().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    let mut route = None;
    for tail in dots.take(TAILS_MAX).map(|at| &value[at + 1..]).take_while(|tail| tail.len() <= NAME_MAX) {
        route = Some(find(tail).or(route.flatten()));
    }
    // A dot further ahead than any name is long still makes a route, of an unknown backend.
    route.or_else(|| value.contains(&b'.').then_some(None))
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
            assert_eq!(route(value.as_bytes(), find), expected, "{value}");
        }
    }

    #[test]
    fn a_value_of_dots_costs_a_bounded_number_of_looks() {
        let asked = std::cell::Cell::new(0);
        let none = |_: &[u8]| {
            asked.set(asked.get() + 1);
            None
        };
        assert_eq!(route(&[b'.'; 30_000], none), Some(None));
        assert!(asked.get() <= TAILS_MAX);
    }
}
