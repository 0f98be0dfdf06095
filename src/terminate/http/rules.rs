//! [`RequestRules`]: what the connection of a request fixes for it, and whether the request belongs there.
//!
//! Places no request. Invariant: a request is served only by the rules of TLS and client certificates that held when its
//! connection was accepted (RFC 9110 §15.5.20).

use crate::config::{ClientCertificate, Tls};
use crate::connection::Entry;
use crate::http::head::Request;
use crate::server_name::ServerName;
use crate::terminate::Routed;
use crate::terminate::conversation::Conversation;

/// The rules by which a connection was accepted.
#[derive(Debug, Clone)]
pub struct RequestRules {
    tls: Tls,
    /// The rule about client certificates that held in the handshake.
    certificate: Option<ClientCertificate>,
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdirected {
    /// The rules of its connection have changed.
    RulesChanged,
    /// Its host belongs elsewhere.
    OtherHost,
}

impl RequestRules {
    /// The rules of a connection with this route.
    pub fn of(routed: &Routed) -> Self {
        Self { tls: routed.target.tls, certificate: certificate_rule(routed).cloned() }
    }

    /// Routes a request. It must belong where its connection belongs, because a browser may use one connection for all
    /// names of a certificate.
    pub fn route(&self, conversation: &Conversation, request: &Request<'_>) -> Result<Routed, Misdirected> {
        let routed = Routed::of(conversation).ok_or(Misdirected::RulesChanged)?;
        let client_info = &conversation.client_info;
        let same_rules = routed.target.tls == self.tls && certificate_rule(&routed) == self.certificate.as_ref();
        if !same_rules || !routed.pool().config().http {
            return Err(Misdirected::RulesChanged);
        }
        if self.tls == Tls::Terminate
            && client_info.entry == Entry::Routed
            && let Some(host) = request.host()
        {
            let name = std::str::from_utf8(host.name).ok();
            let name = name.map(|name| name.strip_suffix('.').unwrap_or(name)).and_then(ServerName::parse);
            // A backend may read another name into what is none, and so the name of a route with other rules.
            if name.is_none() && !host.is_address() {
                return Err(Misdirected::OtherHost);
            }
            let target = client_info.route_by_name(&routed.listener, name.as_ref().map(ServerName::as_str));
            if target != Some(routed.target) {
                return Err(Misdirected::OtherHost);
            }
        }
        Ok(routed)
    }
}

/// The rule of a route about client certificates.
fn certificate_rule(routed: &Routed) -> Option<&ClientCertificate> {
    let config = &routed.listener.config;
    match routed.target.route.and_then(|route| config.routes.get(route)) {
        Some(route) => route.client_certificate.as_ref(),
        None => config.client_certificate.as_ref(),
    }
}
