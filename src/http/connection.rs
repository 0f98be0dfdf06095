//! What concerns one hop only: whether a connection persists, becomes something else, or waits with a body.
//!
//! Does not write fields (`edit.rs` does) and does not close anything. Which upgrades are let through: any protocol
//! but HTTP itself (`h2c`, `h2`, `HTTP/…`) and TLS, both of which would go past everything that is decided here.
//!
//! Invariant: Connection cannot take a field away that makes the message what it is: naming Host, Content-Length or
//! Transfer-Encoding is refused, and naming another field that [`KnownField`] has a rule for changes nothing.

use super::field::{Fields, KnownField};
use super::head::{Request, RequestMeta, Response};
use super::{Framing, Method, Refused, Version};

/// What an HTTP connection is asked to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Upgrade {
    /// A WebSocket (RFC 6455 §4.1).
    WebSocket,
    /// Another protocol that is not HTTP.
    Other,
}

impl Request<'_> {
    /// Whether the client wants to keep its connection (RFC 9112 §9.3).
    pub fn persists(&self) -> bool {
        persists(self.version, self.fields)
    }

    /// Whether the client waits for 100 before it sends the body (RFC 9110 §10.1.1). HTTP/1.0 does not know of it.
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11 && self.fields.lists(KnownField::Expect, "100-continue")
    }

    /// What the connection may become. `None` where Upgrade is ignored: without `Connection: upgrade`, in HTTP/1.0
    /// (RFC 9110 §7.8), with a body, or if nothing that may pass is offered.
    pub fn upgrade(&self) -> Option<Upgrade> {
        let asks = self.fields.has(KnownField::Upgrade)
            && self.version == Version::Http11
            && self.framing.is_empty()
            && self.fields.lists(KnownField::Connection, "upgrade");
        if !asks {
            return None;
        }
        let web_socket = self.method == Method::Get && self.fields.lists(KnownField::Upgrade, "websocket");
        match web_socket {
            true => Some(Upgrade::WebSocket),
            false => protocols(self.fields).next().map(|_| Upgrade::Other),
        }
    }

    /// What its response depends on.
    pub fn asked(&self) -> RequestMeta {
        RequestMeta { method: self.method, version: self.version, persists: self.persists(), upgrade: self.upgrade() }
    }
}

impl Response<'_> {
    /// Whether the backend keeps its connection (RFC 9112 §9.3), if the body ends before it.
    pub fn persists(&self) -> bool {
        persists(self.version, self.fields)
    }
}

/// Whether the client's connection may serve another request after this response, as far as the heads say: whoever
/// asks must also have read the whole request, and want to go on. A backend that closes its own is no reason not to.
pub fn client_stays(asked: &RequestMeta, response: &Response<'_>) -> bool {
    asked.persists && !response.switches() && response.framing != Framing::UntilClose
}

/// Whether the backend's connection may serve another request after this response, as far as the heads say.
pub fn backend_stays(response: &Response<'_>) -> bool {
    response.persists() && !response.switches() && response.framing != Framing::UntilClose
}

/// `close` outweighs everything; without it HTTP/1.1 persists, and HTTP/1.0 if it says so.
fn persists(version: Version, fields: Fields<'_>) -> bool {
    match version {
        Version::Http11 => !fields.lists(KnownField::Connection, "close"),
        Version::Http10 => {
            fields.lists(KnownField::Connection, "keep-alive") && !fields.lists(KnownField::Connection, "close")
        }
    }
}

/// The protocols of Upgrade that may pass.
pub(super) fn protocols(fields: Fields<'_>) -> impl Iterator<Item = &[u8]> + Clone {
    fields.tokens(KnownField::Upgrade).filter(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        !["h2c", "h2", "h3", "http", "tls"].iter().any(|barred| name.eq_ignore_ascii_case(barred.as_bytes()))
    })
}

/// Refuses a Connection that names what makes the message.
pub(super) fn check(fields: Fields<'_>) -> Result<(), Refused> {
    match fields.tokens(KnownField::Connection).any(|option| KnownField::of(option).shapes_the_message()) {
        true => Err(Refused::BadConnection),
        false => Ok(()),
    }
}

/// Whether a 101 is one that was asked for and says to what it switches (RFC 9110 §15.2.2).
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
