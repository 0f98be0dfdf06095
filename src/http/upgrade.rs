//! [`Upgrade`] and [`RequestMeta`]: the switch of protocols, and what else a response depends on.
//!
//! Reads the fields of a head; `connection.rs` decides about the connection. Invariant: HTTP and TLS are no protocols to
//! switch to, because inside them requests would pass unseen.

use super::field::{Fields, KnownField};
use super::{Method, Refused, Version};

/// Most elements of Connection and of Upgrade, empty ones included. Clients send one to three.
const ELEMENTS_MAX: usize = 64;

/// The protocol that a client asks to switch to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upgrade {
    /// The WebSocket protocol, requested by GET (RFC 6455 §4.1).
    WebSocket,
    /// Another protocol, neither HTTP nor TLS.
    Other,
}

/// The facts of a request that its response depends on. Kept while the head of the request may be overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestMeta {
    /// The method: no body follows a response to HEAD.
    pub method: Method,
    /// The version in the request line.
    pub version: Version,
    /// True if the client wants to keep its connection.
    pub persists: bool,
    /// The protocol to switch to, if the backend agrees.
    pub upgrade: Option<Upgrade>,
}

/// The protocols in Upgrade that are allowed: neither HTTP nor TLS.
pub(super) fn protocols(fields: Fields<'_>) -> impl Iterator<Item = &[u8]> + Clone {
    fields.tokens(KnownField::Upgrade).filter(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        !["h2c", "h2", "h3", "http", "tls"].iter().any(|barred| name.eq_ignore_ascii_case(barred.as_bytes()))
    })
}

/// Refuses a Connection that names a field which shapes the message, and more elements of Connection or Upgrade than
/// [`ELEMENTS_MAX`]: both are looked through several times.
pub(super) fn check_connection(fields: Fields<'_>) -> Result<(), Refused> {
    let is_long = |known| fields.has(known) && fields.elements(known).nth(ELEMENTS_MAX).is_some();
    if [KnownField::Connection, KnownField::Upgrade].into_iter().any(is_long) {
        return Err(Refused::TooManyOptions);
    }
    match fields.tokens(KnownField::Connection).any(|option| KnownField::of(option).shapes_the_message()) {
        true => Err(Refused::BadConnection),
        false => Ok(()),
    }
}

/// Refuses a 101 that the request did not ask for, or that names no protocol (RFC 9110 §15.2.2).
pub(super) fn check_switch(asked: RequestMeta, version: Version, fields: Fields<'_>) -> Result<(), Refused> {
    let agreed = match asked.upgrade {
        Some(Upgrade::WebSocket) => fields.lists(KnownField::Upgrade, "websocket"),
        Some(Upgrade::Other) => protocols(fields).next().is_some(),
        None => false,
    };
    match agreed && version == Version::Http11 && fields.lists(KnownField::Connection, "upgrade") {
        true => Ok(()),
        false => Err(Refused::BadSwitch),
    }
}
