//! TLS to the backends of a pool.
//!
//! Who is believed: a chain to one of the pool's authorities for the name that is sent, or else for the backend's
//! address; a key whose hash is pinned (RFC 7469 §2.4: SubjectPublicKeyInfo, so that a renewed certificate with the same
//! key stays good); both where both are written; or anybody with `verify = false`. That the other side holds the key
//! of its certificate is proved in every case. Shows no certificate of its own.
//!
//! Invariant: no handshake succeeds with a backend that the pool does not believe, resumed ones included: sessions are
//! kept per pool, and only of handshakes that were verified.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, NamedGroup, SignatureScheme};

use super::clients::store;
use super::pem::{Files, about, sha256};
use crate::config::{Address, PoolTls};

/// Names whose sessions are remembered: each backend without a name of its own is one.
const SESSIONS: usize = 256;

/// How the backends of a pool are spoken to. Equal ones were made of the same words and files.
#[derive(Debug)]
pub struct Upstream {
    origin: Origin,
    name: Option<ServerName<'static>>,
    /// Offers nothing by ALPN.
    plain: Arc<ClientConfig>,
    /// One for each protocol that can be agreed on with clients.
    by_protocol: Vec<Arc<ClientConfig>>,
}

/// Everything that an upstream is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    config: PoolTls,
    protocols: Vec<Vec<u8>>,
    groups: Vec<NamedGroup>,
    authorities: Vec<CertificateDer<'static>>,
}

impl PartialEq for Upstream {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin
    }
}

impl Upstream {
    /// Reads the authorities. `protocols` are those that clients are offered. Where nothing has changed it is the
    /// `previous` one, with its sessions.
    pub(super) fn load(
        config: &PoolTls,
        protocols: Vec<Vec<u8>>,
        previous: Option<&Arc<Self>>,
        files: &mut Files,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn TimeProvider>,
    ) -> Result<Arc<Self>, String> {
        let authorities = config.ca.as_deref().map_or(Ok(Vec::new()), |path| files.certificates(path))?;
        let groups = provider.kx_groups.iter().map(|group| group.name()).collect();
        let origin = Origin { config: config.clone(), protocols, groups, authorities };
        match previous.filter(|previous| previous.origin == origin) {
            Some(previous) => Ok(previous.clone()),
            None => Self::new(origin, provider, clock).map(Arc::new),
        }
    }

    fn new(origin: Origin, provider: &Arc<CryptoProvider>, clock: &Arc<dyn TimeProvider>) -> Result<Self, String> {
        let Origin { config, protocols, .. } = &origin;
        let believed = Believed::new(&origin, provider)?;
        let name = config.sni.as_ref().map(|name| ServerName::try_from(name.as_str().to_owned()));
        let name = name.transpose().map_err(|_| "sni cannot be a name in a certificate".to_owned())?;
        let mut plain = ClientConfig::builder_with_details(provider.clone(), clock.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(believed))
            .with_no_client_auth();
        plain.resumption = Resumption::in_memory_sessions(SESSIONS);
        let offering = |protocol: &Vec<u8>| {
            let mut config = plain.clone();
            config.alpn_protocols = vec![protocol.clone()];
            Arc::new(config)
        };
        let by_protocol = protocols.iter().map(offering).collect();
        Ok(Self { name, by_protocol, plain: Arc::new(plain), origin })
    }

    /// What to connect with. `alpn` is what was agreed on with the client: the backend is offered the same.
    pub fn config(&self, alpn: Option<&[u8]>) -> &Arc<ClientConfig> {
        let offers = |config: &&Arc<ClientConfig>| config.alpn_protocols.first().map(Vec::as_slice) == alpn;
        alpn.and_then(|_| self.by_protocol.iter().find(offers)).unwrap_or(&self.plain)
    }

    /// The name that a backend's certificate must have. An address is verified and never sent (RFC 6066 §3).
    pub fn name(&self, address: &Address) -> ServerName<'static> {
        match (&self.name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp(address)) => ServerName::from(address.ip()),
            // Only where no name is verified.
            (None, Address::Unix(_)) => ServerName::from(IpAddr::from([127, 0, 0, 1])),
        }
    }

    /// A connection to a backend, before its first byte.
    pub fn connect(&self, address: &Address, alpn: Option<&[u8]>) -> Result<ClientConnection, Error> {
        ClientConnection::new(self.config(alpn).clone(), self.name(address))
    }
}

/// Whom a pool believes.
#[derive(Debug)]
struct Believed {
    /// `None` = any chain or none.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Empty = any key.
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Believed {
    fn new(origin: &Origin, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let Origin { config, authorities, .. } = origin;
        let verifier = |path: &Path| {
            let roots = store(authorities).map_err(|what| about(path, &what))?;
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            verifier.build().map_err(|error| about(path, &error.to_string()))
        };
        let chain = config.ca.as_deref().map(verifier).transpose()?;
        Ok(Self { chain, pins: config.pins.clone(), algorithms: provider.signature_verification_algorithms })
    }
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.pins.is_empty() {
            let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
            if !self.pins.contains(&sha256(&key)) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        match &self.chain {
            Some(chain) => chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
