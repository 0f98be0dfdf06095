//! Reads the cookies of a request, over all its Cookie lines, in place.
//!
//! Lenient as servers are (RFC 6265bis §5.8.3 and what applications make of it): any bytes are a value, a pair without
//! `=` is a value without a name, names repeat, empty pairs are passed over. Nothing is decoded. A `;` ends a pair also
//! inside quotes, as it does in browsers.
//!
//! Invariant: pairs come in the order in which they stand, and their spans do not overlap.

use memchr::{memchr, memchr_iter};

use super::Refused;
use super::field::{Fields, KnownField, Span, split_at_byte, trim, trim_end};
use super::work::spend;

/// Most pairs of a request, empty ones included. Browsers send a few hundred.
const PAIRS_MAX: usize = 2_048;

/// A cookie in a request, as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookiePair<'a> {
    /// The name of the cookie, case-sensitive; empty without `=`.
    pub name: &'a [u8],
    /// The value of the cookie, without surrounding quotes.
    pub value: &'a [u8],
    /// The position of the pair in the buffer of the head.
    pub place: Span,
}

/// The cookies of a request, in the order of its Cookie lines.
pub fn pairs(fields: Fields<'_>) -> impl Iterator<Item = CookiePair<'_>> {
    fields.spans(KnownField::Cookie).flat_map(move |line| Pairs { text: line.of(fields.bytes()), at: line.start() })
}

/// Refuses more pairs than [`PAIRS_MAX`]: a request's cookies are looked through several times.
pub(super) fn check_count(fields: Fields<'_>) -> Result<(), Refused> {
    let pairs = |line: &[u8]| {
        spend(line.len());
        1 + memchr_iter(b';', line).count()
    };
    match fields.all(KnownField::Cookie).map(pairs).sum::<usize>() > PAIRS_MAX {
        true => Err(Refused::TooManyCookies),
        false => Ok(()),
    }
}

/// The cookies of this name, in order. Browsers send the one with the longest path first; other clients may send
/// any number in any order.
pub fn find<'a>(fields: Fields<'a>, name: &[u8]) -> impl Iterator<Item = CookiePair<'a>> {
    pairs(fields).filter(move |pair| pair.name == name)
}

/// The pairs of one line.
struct Pairs<'a> {
    /// The unread rest of the line, and its position in the buffer.
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = CookiePair<'a>;

    fn next(&mut self) -> Option<CookiePair<'a>> {
        // Empty pairs cost one look each.
        let skipped = self.text.iter().take_while(|byte| matches!(byte, b';' | b' ' | b'\t')).count();
        spend(1 + skipped);
        let start = self.at + skipped;
        let (text, rest) = split_at_byte(&self.text[skipped..], b';');
        (self.text, self.at) = (rest.unwrap_or_default(), start + text.len() + 1);
        let pair = trim_end(text);
        (!pair.is_empty()).then(|| CookiePair::read(pair, Span::new(start, start + pair.len())))
    }
}

impl<'a> CookiePair<'a> {
    fn read(pair: &'a [u8], place: Span) -> Self {
        let (name, value) = split(pair);
        Self { name, value: unquote(value), place }
    }
}

/// Name and value of `name=value`, trimmed; a text without `=` is a value without a name (RFC 6265bis §5.7).
pub(super) fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    spend(1 + pair.len());
    match memchr(b'=', pair) {
        Some(at) => (trim(&pair[..at]), trim(&pair[at + 1..])),
        None => (b"", trim(pair)),
    }
}

/// The value without one pair of surrounding quotes.
pub(super) fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}
