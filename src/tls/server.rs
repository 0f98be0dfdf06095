//! [`TlsServer`]: the TLS server of one terminated route, ready for handshakes.
//!
//! TLS 1.2 and 1.3 (or 1.3 alone), the key exchanges of the configuration in the order that each client prefers,
//! certificates by name, tickets bound to the route. Stores no sessions: tickets hold them. One ticket a handshake; a
//! client that opens several connections at once requests more (RFC 9149) and gets up to four. No 0-RTT, because its
//! bytes may be replayed, and no data before the client's Finished.
//!
//! Invariant: two routes with different names or different rules for client certificates never resume each other's
//! sessions.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::time_provider::TimeProvider;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConnection, SupportedProtocolVersion, version};

use super::certs::Index;
use super::clients::{self, CertificateExpired, Identity, Policy};
use super::pem::sha256;
use super::revoked::RevocationLists;
use super::tickets::{Binding, TicketKeys, Ticketer};
use super::{HTTP1, HTTP2};
use crate::config::{PoolHttp, TlsVersion};
use crate::proxy_protocol::ssl::{Shown, Ssl};
use crate::server_name::NamePattern;

/// Tickets of one handshake, unless the client requests a number (RFC 9149).
const TICKETS: usize = 1;
/// The most tickets of one handshake that a client can request.
const TICKETS_MAX: usize = 4;

/// The longest common name in bytes that is passed on: RFC 5280 allows a quarter of it, and headers have a limit.
const COMMON_NAME_MAX: usize = 256;

/// The ALPN protocols of listeners in front of pools with `http = true`, the preferred one first: the versions that are
/// read, HTTP/2 where `http2 = true`. Requests to backends are HTTP/1.1.
const HTTP: [&[u8]; 2] = [HTTP1, b"http/1.0"];

/// The settings that all routes of a process share.
pub(super) struct SharedTls {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) keys: Arc<TicketKeys>,
    pub(super) clock: Arc<dyn TimeProvider>,
}

/// The TLS versions from this one up.
pub(super) fn versions(min: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    match min {
        TlsVersion::V1_2 => vec![&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => vec![&version::TLS13],
    }
}

/// The protocols that a listener offers by ALPN in front of a pool; `http2` has a meaning only with `http`.
pub(super) fn alpn(http: bool, http2: bool, own: &[String]) -> Vec<Vec<u8>> {
    if http {
        return http2.then_some(HTTP2).into_iter().chain(HTTP).map(<[u8]>::to_vec).collect();
    }
    own.iter().map(|name| name.clone().into_bytes()).collect()
}

/// The protocols that are offered to the backends of a pool, each by itself.
pub(super) fn alpn_of_backends(http: PoolHttp, own: &[String]) -> Vec<Vec<u8>> {
    match http {
        PoolHttp::Off => alpn(false, false, own),
        PoolHttp::Http1 => vec![HTTP1.into()],
        PoolHttp::Http2 => vec![HTTP2.into()],
    }
}

/// The TLS server of one terminated route.
#[derive(Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    requests_certificate: bool,
    lists: Option<Arc<RevocationLists>>,
}

impl TlsServer {
    /// Builds the server. `names` are the names of the route, in any order.
    pub(super) fn new(
        common: &SharedTls,
        certificates: Arc<Index>,
        policy: &Policy,
        names: &[NamePattern],
        alpn: Vec<Vec<u8>>,
    ) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_details(common.provider.clone(), common.clock.clone())
            .with_protocol_versions(&common.versions)?
            .with_client_cert_verifier(policy.verifier.clone())
            .with_cert_resolver(certificates);
        config.alpn_protocols = alpn;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Ticketer {
            keys: common.keys.clone(),
            binding: binding(names, policy),
            clock: common.clock.clone(),
        });
        config.send_tls13_tickets = TICKETS;
        config.max_tls13_tickets = TICKETS_MAX;
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        // Without it a resumed session of TLS 1.2 could have another client's identity (RFC 7627 §1).
        config.require_ems = policy.requests_certificate;
        let lists = policy.lists.clone();
        Ok(Self { config: Arc::new(config), requests_certificate: policy.requests_certificate, lists })
    }

    /// The configuration for [`ServerConnection::new`].
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The identity of the client, after a full or resumed handshake. `None`: no certificate was requested or shown.
    pub fn identity(&self, connection: &ServerConnection, now_s: u64) -> Result<Option<Identity>, CertificateExpired> {
        if self.requests_certificate { clients::identify(connection, self.lists.as_deref(), now_s) } else { Ok(None) }
    }
}

/// The facts of a finished handshake, for the access log and for backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFacts<'a> {
    /// The version as OpenSSL and HAProxy write it: `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite by its registered name: `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<&'static str>,
    /// The ALPN protocol that both sides agreed on.
    pub alpn: Option<&'a [u8]>,
    /// True if the handshake resumed an earlier session.
    pub resumed: bool,
}

impl<'a> TlsFacts<'a> {
    /// The facts of a connection. `None`: its handshake is not finished.
    pub fn of(connection: &'a ServerConnection) -> Option<Self> {
        let version = match connection.protocol_version()? {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            _ => "unknown",
        };
        Some(Self {
            version,
            cipher: connection.negotiated_cipher_suite().and_then(|suite| registered(suite.suite())),
            alpn: connection.alpn_protocol(),
            resumed: connection.handshake_kind()? == HandshakeKind::Resumed,
        })
    }
}

impl TlsFacts<'_> {
    /// The value of PP2_TYPE_SSL that announces the facts to backends.
    pub fn ssl_tlv(&self, identity: Option<&Identity>) -> Vec<u8> {
        let certificate = match (identity, self.resumed) {
            (None, _) => Shown::No,
            (Some(_), true) => Shown::InSession,
            (Some(_), false) => Shown::Now,
        };
        let common_name = identity.and_then(|identity| identity.common_name.as_deref());
        Ssl {
            tls: true,
            certificate,
            verified: identity.is_some(),
            version: Some(self.version.as_bytes()),
            common_name: common_name.filter(|name| name.len() <= COMMON_NAME_MAX).map(str::as_bytes),
            cipher: self.cipher.map(str::as_bytes),
        }
        .write()
    }
}

/// The registered name of a suite; rustls has other names for those of TLS 1.3.
fn registered(suite: CipherSuite) -> Option<&'static str> {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        other => other.as_str(),
    }
}

/// The binding of tickets to a route. Equal on every instance and after restarts while names, authorities and their
/// revocation lists are the same; certificates may change.
fn binding(names: &[NamePattern], policy: &Policy) -> Binding {
    let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    let mut bytes = policy.hash.to_vec();
    for name in names {
        // No name holds a line break.
        bytes.extend(name.as_bytes());
        bytes.push(b'\n');
    }
    Binding::new(sha256(&bytes))
}
