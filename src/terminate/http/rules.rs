//! [`RequestRules`]: what the connection of a request fixes for it, and whether the request belongs there.
//!
//! Places no request. Invariant: a request is served only by the rules of TLS and client certificates that held when its
//! connection was accepted (RFC 9110 §15.5.20).

use crate::config::{ClientCertificate, Tls};
use crate::connection::Entry;
use crate::http::head::Request;
use crate::route::RouteMatch;
use crate::snapshot::RouteTarget;
use crate::terminate::Routed;
use crate::terminate::conversation::Conversation;

/// The rules by which a connection was accepted.
#[derive(Debug, Clone)]
pub struct RequestRules {
    tls: Tls,
    /// The rule about client certificates that held in the handshake.
    certificate: Option<ClientCertificate>,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrouted {
    /// The rules of its connection have changed.
    RulesChanged,
    /// Its host belongs elsewhere.
    OtherHost,
    /// No route takes it.
    NoRoute,
}

impl RequestRules {
    /// The rules of a connection with this route.
    pub fn of(routed: &Routed) -> Self {
        Self { tls: routed.target.tls, certificate: certificate_rule(routed).cloned() }
    }

    /// Routes a request. Its host must have the rules of TLS of its connection, because a browser may use one connection
    /// for all names of a certificate.
    pub fn route(&self, conversation: &Conversation, request: &Request<'_>) -> Result<Routed, Unrouted> {
        let connection = Routed::of(conversation).ok_or(Unrouted::RulesChanged)?;
        let same_rules =
            connection.target.tls == self.tls && certificate_rule(&connection) == self.certificate.as_ref();
        if !same_rules || !connection.reads_http() {
            return Err(Unrouted::RulesChanged);
        }
        let (client_info, listener) = (&conversation.client_info, &connection.listener);
        if client_info.entry != Entry::Routed {
            return Ok(connection);
        }
        let facts = client_info.route_facts();
        let RouteTarget { pool, route, tls, .. } = connection.target;
        let target = |found: RouteMatch| RouteTarget { pool: found.pool, route: found.route, tls, split_by: None };
        let reads_http = |found: RouteMatch| listener.reads_http(&target(found));
        if let Some(host) = request.host().filter(|_| self.tls == Tls::Terminate)
            && !listener.routes.belongs(&listener.config, (RouteMatch { pool, route }, &facts), host, reads_http)
        {
            return Err(Unrouted::OtherHost);
        }
        let found = listener.routes.find_request(request, facts).ok_or(Unrouted::NoRoute)?;
        if !reads_http(found) {
            return Err(Unrouted::OtherHost);
        }
        let target = target(found);
        Ok(Routed { target, ..connection })
    }
}

/// The rule of a route about client certificates.
fn certificate_rule(routed: &Routed) -> Option<&ClientCertificate> {
    routed.listener.config.rules_of(routed.target.route).client_certificate
}
