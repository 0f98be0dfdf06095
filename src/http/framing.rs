//! How the body of a message is delimited, by the letter of RFC 9112 §6.
//!
//! Does not look at the body. Stricter than the letter where it leaves a choice: equal repeated lengths, which a
//! reader *may* take for one, are refused; so is a response with unknown codings, which a reader may take for one that
//! ends with the connection.
//!
//! Invariant: the result depends only on the version, the status, the request, and all lines of the two framing
//! fields.

use super::field::{Fields, KnownField, is_token, split_at_byte, trim};
use super::upgrade::RequestMeta;
use super::{Framing, Method, Refused, Version};

/// How the body of a request is delimited.
pub fn of_request(version: Version, fields: Fields<'_>) -> Result<Framing, Refused> {
    declared(version, fields).map(Option::unwrap_or_default)
}

/// How the body of a response is delimited. The framing fields are checked even if there is no body: a response that
/// declares two framings is never passed on.
pub fn of_response(asked: RequestMeta, version: Version, status: u16, fields: Fields<'_>) -> Result<Framing, Refused> {
    let declared = declared(version, fields)?;
    // RFC 9112 §6.1: no coding in the response to a client that may not know any.
    if declared == Some(Framing::Chunked) && asked.version == Version::Http10 {
        return Err(Refused::OldCoding);
    }
    if status < 200 || status == 204 {
        // RFC 9110 §8.6 and RFC 9112 §6.1 forbid both fields. A length of 0 is common, and it is true.
        let is_empty = declared.is_none_or(Framing::is_empty);
        return if is_empty { Ok(Framing::None) } else { Err(Refused::BodyForbidden) };
    }
    if status == 304 || asked.method == Method::Head {
        return Ok(Framing::None);
    }
    Ok(declared.unwrap_or(Framing::UntilClose))
}

/// The framing that the fields declare; `None`: the head has neither field.
fn declared(version: Version, fields: Fields<'_>) -> Result<Option<Framing>, Refused> {
    match (fields.has(KnownField::TransferEncoding), fields.has(KnownField::ContentLength)) {
        (false, false) => Ok(None),
        (false, true) => length(fields).map(|length| Some(Framing::Length(length))),
        (true, false) if version == Version::Http10 => Err(Refused::OldCoding),
        (true, false) => codings(fields).map(|()| Some(Framing::Chunked)),
        (true, true) => Err(Refused::BothFramings),
    }
}

/// The number in the only Content-Length.
fn length(fields: Fields<'_>) -> Result<u64, Refused> {
    let mut values = fields.all(KnownField::ContentLength);
    match (values.next(), values.next()) {
        (Some(digits), None) => number(digits),
        _ => Err(Refused::SeveralLengths),
    }
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

/// `chunked` once and last, and nothing else (RFC 9112 §6.1 and §7). All lines are one list.
fn codings(fields: Fields<'_>) -> Result<(), Refused> {
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
