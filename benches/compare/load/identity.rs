//! What a run shows and believes: one certificate, minted for it, and configurations of TLS on either side of it.
//!
//! TLS 1.3 with one key exchange, so that every handshake costs the same. Invariant: no contestant shows another
//! certificate than the others.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::Result;

/// The name in certificate and hello.
pub const NAME: &str = "www.example.test";

/// The one cipher suite of terminated scenarios.
const SUITE: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;

/// How a client exchanges keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// X25519, which every contestant supports.
    X25519,
    /// X25519MLKEM768, as browsers prefer it.
    PostQuantum,
}

impl Exchange {
    fn group(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519 => aws_lc_rs::kx_group::X25519,
            Self::PostQuantum => aws_lc_rs::kx_group::X25519MLKEM768,
        }
    }
}

/// A self-signed certificate (ECDSA, P-256) and what else is secret in a run.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    /// Certificate and key as PEM, for contestants that terminate.
    pub bundle: PathBuf,
    /// A key for sealed cookies.
    pub cookie_keys: PathBuf,
}

impl Identity {
    /// Mints one.
    pub fn mint(folder: &Path) -> Result<Self> {
        let minted = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let identity = Self::kept_in(folder);
        fs::write(&identity.certificate, minted.cert.der())?;
        secret(&identity.key, &minted.signing_key.serialize_der())?;
        secret(&identity.bundle, (minted.cert.pem() + &minted.signing_key.serialize_pem()).as_bytes())?;
        let mut key = [0; 32];
        ::aws_lc_rs::rand::fill(&mut key)?;
        secret(&identity.cookie_keys, data_encoding::HEXLOWER.encode(&key).as_bytes())?;
        Ok(identity)
    }

    /// The one that was minted in a folder.
    pub fn kept_in(folder: &Path) -> Self {
        let [certificate, key, bundle, cookie_keys] =
            ["certificate.der", "key.der", "bundle.pem", "cookie.keys"].map(|name| folder.join(name));
        Self { certificate, key, bundle, cookie_keys }
    }

    /// What a server presents.
    pub fn server(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::try_from(fs::read(&self.key)?)?;
        let mut config = ServerConfig::builder_with_provider(provider(Exchange::X25519))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate()?], key)?;
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What a client trusts that verifies everything.
    pub fn client(&self, exchange: Exchange) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()?)?;
        let mut config = ClientConfig::builder_with_provider(provider(exchange))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// What a client trusts that only looks whether it is shown this certificate, with the one cipher suite. To verify
    /// a signature costs nearly as much as what is measured; every contestant is verified when it has started.
    pub fn visitor(&self, exchange: Exchange, resumption: Resumption) -> Result<ClientConfig> {
        let mut provider = Arc::unwrap_or_clone(provider(exchange));
        provider.cipher_suites.retain(|suite| suite.suite() == SUITE);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(self.certificate()?)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = resumption;
        Ok(config)
    }

    fn certificate(&self) -> Result<CertificateDer<'static>> {
        Ok(CertificateDer::from(fs::read(&self.certificate)?))
    }
}

/// Trusts one certificate under any name.
#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        match *end_entity == self.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 was asked for".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn provider(exchange: Exchange) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![exchange.group()], ..aws_lc_rs::default_provider() })
}

/// Writes what only the owner may read.
fn secret(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(std::io::Write::write_all(&mut file, bytes)?)
}
