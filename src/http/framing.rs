//! How the body of a message is delimited, by the letter of RFC 9112 §6.
//!
//! Does not look at the body. Requests are read more strictly than the letter where it leaves a choice: equal repeated
//! lengths, which a reader *may* take for one, are refused, and so is a length beside a coding. A response has one
//! reading in these cases and is passed on, because the connection to its backend serves one client only: equal lengths
//! are one, a coding wins over a length, and 1xx, 204 and 304 end with their head, whatever their fields say. Unknown
//! codings are refused also there, though a reader may take such a body for one that ends with the connection.
//!
//! Invariant: the result depends only on the version, the status, the request, and all lines of the two framing
//! fields.

use super::field::{Fields, KnownField, is_token, split_at_byte, trim};
use super::upgrade::RequestMeta;
use super::{Framing, Method, Refused, Version};

/// How the body of a request is delimited.
pub fn of_request(version: Version, fields: Fields<'_>) -> Result<Framing, Refused> {
    match (fields.has(KnownField::TransferEncoding), fields.has(KnownField::ContentLength)) {
        (false, false) => Ok(Framing::None),
        (false, true) => only_length(fields).map(Framing::Length),
        (true, false) => codings(version, fields).map(|()| Framing::Chunked),
        (true, true) => Err(Refused::BothFramings),
    }
}

/// How the body of a response is delimited. The framing fields are checked even if there is no body: a response with
/// two lengths, or a coding that is none, is never passed on.
pub fn of_response(asked: RequestMeta, version: Version, status: u16, fields: Fields<'_>) -> Result<Framing, Refused> {
    let length = equal_lengths(fields)?;
    let chunked = fields.has(KnownField::TransferEncoding);
    if chunked {
        codings(version, fields)?;
    }
    if ends_with_its_head(status) || asked.method == Method::Head {
        return Ok(Framing::None);
    }
    match (chunked, length) {
        // RFC 9112 §6.1: no coding in the response to a client that may not know any.
        (true, _) if asked.version == Version::Http10 => Err(Refused::OldCoding),
        (true, _) => Ok(Framing::Chunked),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::UntilClose),
    }
}

/// True if no body follows a response of this status (RFC 9112 §6.3).
fn ends_with_its_head(status: u16) -> bool {
    forbids_framing(status) || status == 304
}

/// True if a response of this status may not have a framing field (RFC 9110 §8.6, RFC 9112 §6.1).
pub(super) fn forbids_framing(status: u16) -> bool {
    status < 200 || status == 204
}

/// True if the framing fields of a response say more than its framing: a sender that contradicts itself may send bytes
/// that belong to no message.
pub(super) fn contradicts_itself(status: u16, fields: Fields<'_>) -> bool {
    let chunked = fields.has(KnownField::TransferEncoding);
    let announces = |digits: &[u8]| digits.iter().any(|digit| matches!(digit, b'1'..=b'9'));
    match forbids_framing(status) {
        true => chunked || fields.all(KnownField::ContentLength).any(announces),
        false => chunked && fields.has(KnownField::ContentLength),
    }
}

/// The number in the only Content-Length of a request.
fn only_length(fields: Fields<'_>) -> Result<u64, Refused> {
    let mut values = fields.all(KnownField::ContentLength);
    match (values.next(), values.next()) {
        (Some(digits), None) => number(digits),
        _ => Err(Refused::SeveralLengths),
    }
}

/// The number in all elements of all Content-Length fields of a response, which have to be equal; `None`: it has none.
fn equal_lengths(fields: Fields<'_>) -> Result<Option<u64>, Refused> {
    let mut found = None;
    for digits in fields.elements(KnownField::ContentLength) {
        let length = number(digits)?;
        if found.is_some_and(|found| found != length) {
            return Err(Refused::SeveralLengths);
        }
        found = Some(length);
    }
    Ok(found)
}

/// `1*DIGIT`, below 2^63: readers that count with a sign exist.
fn number(digits: &[u8]) -> Result<u64, Refused> {
    if digits.contains(&b',') {
        return Err(Refused::SeveralLengths);
    }
    if digits.is_empty() {
        return Err(Refused::BadLength);
    }
    let length = digits.iter().try_fold(0i64, |length, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    });
    length.map(i64::unsigned_abs).ok_or(Refused::BadLength)
}

/// `chunked` once and last, and nothing else (RFC 9112 §6.1 and §7), in HTTP/1.1. All lines are one list.
fn codings(version: Version, fields: Fields<'_>) -> Result<(), Refused> {
    if version == Version::Http10 {
        return Err(Refused::OldCoding);
    }
    let (mut chunked, mut unknown) = (false, false);
    for coding in fields.all(KnownField::TransferEncoding).flat_map(|value| value.split(|byte| *byte == b',')) {
        let (name, parameters) = split_at_byte(trim(coding), b';');
        let is_chunked = name.eq_ignore_ascii_case(b"chunked");
        // Nothing may follow `chunked`, not even itself; it has no parameters; and an empty element hides something.
        if chunked || !is_token(trim(name)) || is_chunked && parameters.is_some() {
            return Err(Refused::BadCoding);
        }
        chunked = is_chunked;
        unknown |= !is_chunked;
    }
    match (chunked, unknown) {
        (false, _) => Err(Refused::BadCoding),
        (true, true) => Err(Refused::UnknownCoding),
        (true, false) => Ok(()),
    }
}
