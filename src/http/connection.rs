//! Rules for one hop: whether a connection persists, switches protocols ([`Upgrade`]), or waits with a body.
//!
//! Does not write fields (`edit.rs` does) and does not close anything. Any protocol may be upgraded to
//! but HTTP itself (`h2c`, `h2`, `HTTP/…`) and TLS: inside them, requests would pass unseen.
//!
//! Invariant: Connection cannot remove a field that shapes the message: naming Host, Content-Length or
//! Transfer-Encoding is refused, and naming another [`KnownField`] has no effect.

use super::field::{Fields, KnownField};
use super::framing::contradicts_itself;
use super::head::{Request, Response};
use super::upgrade::{RequestMeta, Upgrade, protocols};
use super::{Framing, Method, Version};

impl Request<'_> {
    /// True if the client wants to keep its connection (RFC 9112 §9.3).
    pub fn persists(&self) -> bool {
        persists(self.version, self.fields)
    }

    /// True if the client waits for 100 before it sends the body (RFC 9110 §10.1.1); never in HTTP/1.0.
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11 && self.fields.lists(KnownField::Expect, "100-continue")
    }

    /// The protocol to switch to. `None` where Upgrade is ignored: without `Connection: upgrade`, in HTTP/1.0
    /// (RFC 9110 §7.8), with a body, or if no allowed protocol is offered.
    pub fn upgrade(&self) -> Option<Upgrade> {
        let is_request = self.fields.has(KnownField::Upgrade)
            && self.version == Version::Http11
            && self.framing.is_empty()
            && self.fields.lists(KnownField::Connection, "upgrade");
        if !is_request {
            return None;
        }
        let web_socket = self.method == Method::Get && self.fields.lists(KnownField::Upgrade, "websocket");
        match web_socket {
            true => Some(Upgrade::WebSocket),
            false => protocols(self.fields).next().map(|_| Upgrade::Other),
        }
    }

    /// The facts of the request that its response depends on.
    pub fn asked(&self) -> RequestMeta {
        RequestMeta { method: self.method, version: self.version, persists: self.persists(), upgrade: self.upgrade() }
    }
}

impl Response<'_> {
    /// True if the backend keeps its connection after the body (RFC 9112 §9.3).
    pub fn persists(&self) -> bool {
        persists(self.version, self.fields)
    }
}

/// True if, by both heads, the client's connection may serve another request after this response. The caller must also
/// have read the whole request. A backend that closes its own connection does not matter here.
pub fn client_stays(asked: &RequestMeta, response: &Response<'_>) -> bool {
    asked.persists && !response.switches() && response.framing != Framing::UntilClose
}

/// True if, by its head, the backend's connection may serve another request after this response. Where the framing
/// fields contradict themselves, bytes may follow that the next request would take for its response.
pub fn backend_stays(response: &Response<'_>) -> bool {
    response.persists()
        && !response.switches()
        && response.framing != Framing::UntilClose
        && !contradicts_itself(response.status, response.fields)
}

/// `close` wins; without it HTTP/1.1 persists, and HTTP/1.0 persists with `keep-alive`.
fn persists(version: Version, fields: Fields<'_>) -> bool {
    match version {
        Version::Http11 => !fields.lists(KnownField::Connection, "close"),
        Version::Http10 => {
            fields.lists(KnownField::Connection, "keep-alive") && !fields.lists(KnownField::Connection, "close")
        }
    }
}
