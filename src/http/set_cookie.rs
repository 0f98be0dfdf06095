//! [`SetCookie`]: a cookie that a response sets, with its name, its value and its lifetime.
//!
//! Does not judge Domain, Path or anything else about which requests a cookie goes with; the client does. Read as
//! browsers read it (RFC 6265bis §5.7), except that control characters cannot occur: a head with them is refused.
//!
//! Invariant: a cookie ends exactly if a browser that obeys the line would drop it at once.

use super::cookie::{split, unquote};
use super::date::read_cookie_date;
use super::field::{Fields, KnownField, split_at_byte, trim};

/// A cookie in a response, as a Set-Cookie line sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetCookie<'a> {
    /// The name of the cookie, case-sensitive; empty without `=`.
    pub name: &'a [u8],
    /// The value of the cookie, without surrounding quotes.
    pub value: &'a [u8],
    /// The lifetime by Max-Age or Expires.
    pub lifetime: Lifetime,
}

/// How long a cookie is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Neither attribute: the browser keeps the cookie while it runs.
    Session,
    /// Max-Age: seconds from now; zero or less ends the cookie at once. Wins over Expires.
    Seconds(i64),
    /// Expires: the cookie ends at this second since 1970.
    Until(i64),
}

impl SetCookie<'_> {
    /// True if the line removes the cookie instead of setting it.
    pub fn ends(&self, now_unix_s: u64) -> bool {
        match self.lifetime {
            Lifetime::Session => false,
            Lifetime::Seconds(seconds) => seconds <= 0,
            Lifetime::Until(unix_s) => i64::try_from(now_unix_s).is_ok_and(|now| unix_s <= now),
        }
    }
}

/// What a response does to the cookie of this name, in the order of its lines.
pub fn set_cookies<'a>(fields: Fields<'a>, name: &'a [u8]) -> impl Iterator<Item = SetCookie<'a>> {
    fields.all(KnownField::SetCookie).filter(move |line| sets(line, name)).map(read)
}

/// True if a browser sends the cookie that this line sets, or ends, under this name.
pub fn sets(line: &[u8], name: &[u8]) -> bool {
    sent_as(split_at_byte(line, b';').0).0 == name
}

/// Name and value as requests bring them: a cookie without a name is sent as its value alone, which may be `NAME=value`
/// (RFC 6265bis §5.8.3).
fn sent_as(pair: &[u8]) -> (&[u8], &[u8]) {
    match split(pair) {
        (b"", value) => split(value),
        named => named,
    }
}

fn read(line: &[u8]) -> SetCookie<'_> {
    let (pair, attributes) = split_at_byte(line, b';');
    let (name, value) = sent_as(pair);
    SetCookie { name, value: unquote(value), lifetime: lifetime(attributes.unwrap_or_default()) }
}

/// The last attribute of a name counts; an unreadable one is ignored.
fn lifetime(attributes: &[u8]) -> Lifetime {
    let (mut seconds, mut until) = (None, None);
    for attribute in attributes.split(|byte| *byte == b';') {
        let (name, value) = split_at_byte(attribute, b'=');
        let (name, value) = (trim(name), trim(value.unwrap_or_default()));
        if name.eq_ignore_ascii_case(b"max-age") {
            seconds = read_seconds(value).or(seconds);
        } else if name.eq_ignore_ascii_case(b"expires") {
            until = read_cookie_date(value).or(until);
        }
    }
    match (seconds, until) {
        (Some(seconds), _) => Lifetime::Seconds(seconds),
        (None, Some(until)) => Lifetime::Until(until),
        (None, None) => Lifetime::Session,
    }
}

/// Reads an optional `-` and digits; a number beyond `i64` saturates.
fn read_seconds(value: &[u8]) -> Option<i64> {
    let (sign, digits) = match value {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds =
        digits.iter().fold(0i64, |seconds, digit| seconds.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(sign * seconds)
}
