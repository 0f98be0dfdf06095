//! The parts of a request's target by which a client may be known: segments of the path, their parameters, and the query.
//!
//! Bytes stay as they were sent: nothing is decoded, no dots are resolved and no slashes joined, because a backend may
//! read them in its own way. Names are compared byte by byte (RFC 3986 §6.2.2.1 leaves their case alone). Invariant: each
//! value is a piece of the target, and a target costs time by its length alone.

use super::field::split_at_byte;
use super::target::Target;
use super::work::spend;

/// The path of a target; empty for `*`, and for a URI without a path.
pub fn path(target: Target<'_>) -> &[u8] {
    path_and_query(target).0
}

/// The values of this name in the query, in order; without `=`, a name has an empty value.
pub fn query<'a>(target: Target<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let query = path_and_query(target).1;
    query.strip_prefix(b"?").unwrap_or(query).split(|byte| *byte == b'&').filter_map(move |pair| value_of(pair, name))
}

/// The values of this parameter in the segments of a path (`/a;name=value/b`), in order.
pub fn parameters<'a>(path: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pieces = path.split(|byte| *byte == b';').skip(1);
    pieces.filter_map(move |piece| value_of(split_at_byte(piece, b'/').0, name))
}

/// The first segments of a path, as many as there are up to `count`, with the slash before each; empty segments at the
/// end do not count. `None`: the path has none.
pub fn segments(path: &[u8], count: usize) -> Option<&[u8]> {
    spend(path.len());
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let end = slashes.map(|(at, _)| at).nth(count).unwrap_or(path.len());
    let last = path[..end].iter().rposition(|byte| *byte != b'/')?;
    Some(&path[..=last])
}

/// The path of a target, and what follows it from `?` on.
pub fn path_and_query(target: Target<'_>) -> (&[u8], &[u8]) {
    let whole = match target {
        Target::Origin(whole) | Target::Absolute { path: whole, .. } => whole,
        Target::Asterisk => return (b"", b""),
    };
    spend(whole.len());
    whole.split_at(split_at_byte(whole, b'?').0.len())
}

/// The value of `name=value`; `None`: the text has another name.
fn value_of<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    spend(1 + text.len());
    let (known, value) = split_at_byte(text, b'=');
    (known == name.as_bytes()).then(|| value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<&'a str> {
        values.map(|value| std::str::from_utf8(value).unwrap()).collect()
    }

    #[test]
    fn the_first_segments_end_where_the_next_one_begins() {
        for (path, count, expected) in [
            ("/a/b/c", 1, Some("/a")),
            ("/a/b/c", 2, Some("/a/b")),
            ("/a/b/c", 9, Some("/a/b/c")),
            ("/a", 2, Some("/a")),
            ("/a/", 2, Some("/a")),
            ("/a//", 3, Some("/a")),
            ("/a//b", 3, Some("/a//b")),
            ("//a", 1, None),
            ("//a", 2, Some("//a")),
            ("/A/%61", 2, Some("/A/%61")),
            ("/a;v=1/b", 1, Some("/a;v=1")),
            ("/", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(segments(path.as_bytes(), count), expected.map(str::as_bytes), "{path} {count}");
        }
    }

    #[test]
    fn a_value_of_the_query_is_what_stands_behind_its_name() {
        let of = |target: &'static str, name| texts(query(Target::Origin(target.as_bytes()), name));
        assert_eq!(of("/x?a=1&b=2&a=3", "a"), ["1", "3"]);
        assert_eq!(of("/x?a=%41+b=c", "a"), ["%41+b=c"]);
        assert_eq!(of("/x?a&A=1&aa=2&=3", "a"), [""]);
        assert!(of("/a=1;a=2", "a").is_empty());
        assert_eq!(of("/x?y?a=1&a=2", "a"), ["2"], "a question mark in the query is a byte like any other");
        let absolute = Target::Absolute { scheme: b"http", authority: b"a", path: b"?a=1" };
        assert_eq!((texts(query(absolute, "a")), path(absolute)), (vec!["1"], &b""[..]));
        assert_eq!((texts(query(Target::Asterisk, "a")).len(), path(Target::Asterisk)), (0, &b""[..]));
        assert_eq!(path(Target::Origin(b"/x/y?z=/")), b"/x/y");
    }

    #[test]
    fn a_parameter_ends_with_its_segment() {
        let of = |path: &'static str, name| texts(parameters(path.as_bytes(), name));
        assert_eq!(of("/a;s=1/b;t=2;s=3", "s"), ["1", "3"]);
        assert_eq!(of("/a;jsessionid=5A.n1", "jsessionid"), ["5A.n1"]);
        assert_eq!(of("/a;s/b;S=1;=2", "s"), [""]);
        assert_eq!(of("/s=1", "s"), Vec::<&str>::new());
        assert_eq!(of("/a;s=b=c;", "s"), ["b=c"]);
    }
}
