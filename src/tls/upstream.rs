//! [`Upstream`]: TLS to the backends of a pool.
//!
//! A backend is trusted with a chain to one of the pool's authorities for the name that is sent, or else for its
//! address; with a key that has a pinned hash (RFC 7469 §2.4: SubjectPublicKeyInfo, so that a renewed certificate with
//! the same key stays valid); with both, if both are configured; or always, with `verify = false`. In every case the
//! backend proves that it holds the key of its certificate. A backend that requests a certificate is shown that of the
//! pool, if it has one, in connections of clients and in checks alike.
//!
//! Invariant: no handshake, full or resumed, succeeds with a backend that the pool does not trust: sessions are kept
//! per pool and per certificate shown, and only of verified handshakes.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, NamedGroup, SignatureScheme};

use super::certs::OwnCertificate;
use super::clients::store;
use super::pem::{Files, KeyError, about, sha256};
use super::words::in_words;
use crate::config::{Address, PoolTls};

/// The number of server names with cached sessions; a backend without a name of its own counts as one.
const SESSIONS: usize = 256;

/// The TLS settings for the backends of a pool. Two are equal if configuration and files are.
#[derive(Debug)]
pub struct Upstream {
    origin: Origin,
    name: Option<ServerName<'static>>,
    /// The configuration that offers no protocol by ALPN.
    plain: Arc<ClientConfig>,
    /// One configuration for each ALPN protocol that clients can choose.
    by_protocol: Vec<Arc<ClientConfig>>,
}

/// The inputs of an upstream, for comparison at a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    config: PoolTls,
    protocols: Vec<Vec<u8>>,
    groups: Vec<NamedGroup>,
    authorities: Vec<CertificateDer<'static>>,
    /// The chain that backends are shown; empty: none.
    shown: Vec<CertificateDer<'static>>,
}

impl PartialEq for Upstream {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin
    }
}

impl Upstream {
    /// Reads the authorities. `protocols` are offered to clients; `shown` is the certificate for backends that request
    /// one. Returns `previous`, with its sessions, if nothing has changed.
    pub(super) fn load(
        config: &PoolTls,
        protocols: Vec<Vec<u8>>,
        shown: Option<&OwnCertificate>,
        previous: Option<&Arc<Self>>,
        files: &mut Files,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn TimeProvider>,
    ) -> Result<Arc<Self>, KeyError> {
        let authorities = config.ca.as_deref().map_or(Ok(Vec::new()), |path| files.certificates(path));
        let authorities = authorities.map_err(|what| ("ca", what))?;
        let groups = provider.kx_groups.iter().map(|group| group.name()).collect();
        let key = shown.map(|shown| shown.certified_key().clone());
        let shown = key.as_ref().map(|key| key.cert.clone()).unwrap_or_default();
        let origin = Origin { config: config.clone(), protocols, groups, authorities, shown };
        match previous.filter(|previous| previous.origin == origin) {
            Some(previous) => Ok(previous.clone()),
            None => Self::new(origin, key, provider, clock).map(Arc::new),
        }
    }

    fn new(
        origin: Origin,
        key: Option<Arc<CertifiedKey>>,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn TimeProvider>,
    ) -> Result<Self, KeyError> {
        let Origin { config, protocols, .. } = &origin;
        let trust = BackendTrust::new(&origin, provider).map_err(|what| ("ca", what))?;
        let name = config.sni.as_ref().map(|name| ServerName::try_from(name.as_str().to_owned()));
        let name = name.transpose().map_err(|_| ("sni", "cannot be a name in a certificate".to_owned()))?;
        let builder = ClientConfig::builder_with_details(provider.clone(), clock.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| ("verify", format!("cannot be done: {}", in_words(&error))))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust));
        let mut plain = match key {
            Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        plain.resumption = Resumption::in_memory_sessions(SESSIONS);
        let offering = |protocol: &Vec<u8>| {
            let mut config = plain.clone();
            config.alpn_protocols = vec![protocol.clone()];
            Arc::new(config)
        };
        let by_protocol = protocols.iter().map(offering).collect();
        Ok(Self { name, by_protocol, plain: Arc::new(plain), origin })
    }

    /// The configuration for a connection. `alpn` is the protocol of the client's connection; the backend is offered
    /// it.
    pub fn config(&self, alpn: Option<&[u8]>) -> &Arc<ClientConfig> {
        let offers = |config: &&Arc<ClientConfig>| config.alpn_protocols.first().map(Vec::as_slice) == alpn;
        alpn.and_then(|_| self.by_protocol.iter().find(offers)).unwrap_or(&self.plain)
    }

    /// The name that the certificate of a backend must have. An address is verified but never sent (RFC 6066 §3).
    pub fn name(&self, address: &Address) -> ServerName<'static> {
        match (&self.name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp(address)) => ServerName::from(address.ip()),
            // A unix socket has no name; this one is never verified.
            (None, Address::Unix(_) | Address::Name(_)) => ServerName::from(IpAddr::from([127, 0, 0, 1])),
        }
    }

    /// Makes a connection to a backend, before its first byte.
    pub fn connect(&self, address: &Address, alpn: Option<&[u8]>) -> Result<ClientConnection, Error> {
        ClientConnection::new(self.config(alpn).clone(), self.name(address))
    }
}

/// The verifier of backend certificates of a pool.
#[derive(Debug)]
struct BackendTrust {
    /// Verifies the chain. `None`: any chain is accepted.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Pinned hashes of keys. Empty: any key is accepted.
    pins: Vec<[u8; 32]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl BackendTrust {
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

impl ServerCertVerifier for BackendTrust {
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
