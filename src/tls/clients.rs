//! Client certificates: the [`Policy`] of a route, and the [`Identity`] of a client.
//!
//! Fetches no revocation lists: they come from a file, if the route has one. Invariant: an [`Identity`] comes only from a
//! certificate that an authority of the route has signed, that is valid now and that no list in force revokes, shown in
//! this handshake or in the one that this session resumes; and its subject is safe in logs and headers.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConnection};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pem::{Files, KeyError, about, sha256};
use super::revoked::RevocationLists;
use super::subject;
use super::words::in_words;
use crate::config::ClientCertificate;

/// The rule of a route for client certificates.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// Verifies the certificates of clients.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// A hash that is equal for policies which accept the same clients; part of the binding of tickets.
    pub(super) hash: [u8; 32],
    /// True if the server requests a certificate.
    pub(super) requests_certificate: bool,
    /// The revocation lists; `None`: nothing is looked up.
    pub(super) lists: Option<Arc<RevocationLists>>,
}

impl Policy {
    /// Reads the authorities and their revocation lists. `None`: no certificate is requested.
    pub(super) fn load(
        config: Option<&ClientCertificate>,
        files: &mut Files,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, KeyError> {
        let Some(config) = config else {
            return Ok(Self {
                verifier: WebPkiClientVerifier::no_client_auth(),
                hash: [0; 32],
                requests_certificate: false,
                lists: None,
            });
        };
        let of_ca = |what: String| ("ca", what);
        let certificates = files.certificates(&config.ca).map_err(of_ca)?;
        let roots = Arc::new(store(&certificates).map_err(|what| of_ca(about(&config.ca, &what)))?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let mut builder = if config.required { builder } else { builder.allow_unauthenticated() };
        let (mut hash, mut lists) = (hash(config.required, &certificates), None);
        if let Some(path) = &config.crl {
            let loaded = RevocationLists::load(path, (&config.ca, &certificates), files);
            let (facts, revoked) = loaded.map_err(|what| ("crl", what))?;
            hash = hash_with(hash, &revoked);
            lists = Some(Arc::new(facts));
            builder = builder.with_crls(revoked).enforce_revocation_expiration();
        }
        let verifier = builder.build().map_err(|error| match (error, &config.crl) {
            (VerifierBuilderError::InvalidCrl(why), Some(path)) => ("crl", about(path, &in_words(&why.into()))),
            (error, _) => of_ca(about(&config.ca, &error.to_string())),
        })?;
        Ok(Self { verifier, hash, requests_certificate: true, lists })
    }
}

/// Builds a store of these authorities.
pub(super) fn store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let wrong = |error| format!("certificate #{} in it is no authority's: {}", index + 1, in_words(&error));
        roots.add(certificate.clone()).map_err(wrong)?;
    }
    Ok(roots)
}

/// The hash of a policy; independent of the order in the file.
fn hash(required: bool, certificates: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut parts: Vec<_> = certificates.iter().map(|certificate| sha256(certificate)).collect();
    parts.sort_unstable();
    let mut bytes = vec![if required { 2 } else { 1 }];
    bytes.extend(parts.concat());
    sha256(&bytes)
}

/// The hash of a policy with these revocation lists, too: other lists are another policy, so that no session goes on of
/// a certificate that has been revoked since.
fn hash_with(policy: [u8; 32], lists: &[CertificateRevocationListDer<'_>]) -> [u8; 32] {
    let mut parts: Vec<_> = lists.iter().map(|list| sha256(list)).collect();
    parts.sort_unstable();
    parts.insert(0, policy);
    sha256(&parts.concat())
}

/// The identity in a verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The subject (RFC 4514), in printable ASCII; other characters are escaped.
    pub subject: String,
    /// The common name of the subject, not escaped: for PROXY headers only.
    pub common_name: Option<String>,
    /// The serial number, in lower-case hexadecimal digits.
    pub serial: String,
}

/// The error of a resumed session: the certificate of the client has expired or cannot be read, or the revocation list of
/// its authority has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateExpired;

/// The identity of the client of a finished handshake. `None`: it showed no certificate.
pub(super) fn identify(
    connection: &ServerConnection,
    lists: Option<&RevocationLists>,
    now_s: u64,
) -> Result<Option<Identity>, CertificateExpired> {
    let Some(leaf) = connection.peer_certificates().and_then(|chain| chain.first()) else { return Ok(None) };
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| CertificateExpired)?;
    // A full handshake has verified this; a resumed one verifies nothing.
    let issuer = certificate.issuer().as_raw();
    if lists.is_some_and(|lists| lists.has_expired(issuer, i64::try_from(now_s).unwrap_or(i64::MAX))) {
        return Err(CertificateExpired);
    }
    if certificate.validity().not_after.timestamp() < i64::try_from(now_s).unwrap_or(i64::MAX) {
        return Err(CertificateExpired);
    }
    Ok(Some(Identity {
        subject: subject::text(certificate.subject()),
        common_name: certificate.subject().iter_common_name().next().and_then(subject::value),
        serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
    }))
}
