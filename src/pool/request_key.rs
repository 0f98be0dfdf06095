//! [`values_of_key`]: what a request has for the parts of its pool's key.
//!
//! Reads a head and changes nothing. Both the terminated half and `explain` read keys here. Invariant: every value is one
//! that the client has sent or proved, bytes as they were sent, and none is empty.

use super::Pool;
use crate::config::KeyPart;
use crate::http::head::Request;
use crate::http::{cookie, parts};
use crate::sticky::cookie::CookieRule;

/// Values of a request by parts of the pool's key; parts that it does not have are left out. `subject`: that of the
/// client's verified certificate.
pub fn values_of_key<'v>(
    pool: &'v Pool,
    request: &Request<'v>,
    subject: Option<&'v str>,
) -> Vec<(&'v KeyPart, &'v [u8])> {
    let by_cookie = pool.cookie().map_or(&[][..], CookieRule::key);
    values_of(pool.config().key.iter().chain(by_cookie), request, subject)
}

/// Values of a request by these parts of keys, or by those of their chains.
pub fn values_of<'v>(
    parts: impl Iterator<Item = &'v KeyPart>,
    request: &Request<'v>,
    subject: Option<&'v str>,
) -> Vec<(&'v KeyPart, &'v [u8])> {
    let parts = parts.flat_map(KeyPart::alternatives);
    parts.filter_map(|part| Some((part, value(part, request, subject)?))).collect()
}

/// The first value of a part that is not empty.
fn value<'v>(part: &KeyPart, request: &Request<'v>, subject: Option<&'v str>) -> Option<&'v [u8]> {
    let is_there = |value: &&[u8]| !value.is_empty();
    match part {
        KeyPart::Cookie(name) => cookie::find(request.fields, name.as_bytes()).map(|pair| pair.value).find(is_there),
        KeyPart::Header(name) => request.fields.named(name).find(is_there),
        KeyPart::Query(name) => parts::query(request.target, name).find(is_there),
        KeyPart::Path(segments) => parts::segments(parts::path(request.target), usize::from(*segments)),
        KeyPart::PathParameter(name) => parts::parameters(parts::path(request.target), name).find(is_there),
        KeyPart::ClientCertificate => subject.map(str::as_bytes).filter(is_there),
        KeyPart::Source | KeyPart::Sni | KeyPart::Tlv(_) | KeyPart::FirstOf(_) => None,
    }
}

#[cfg(test)]
mod tests;
