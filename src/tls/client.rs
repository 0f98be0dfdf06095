//! [`ServerTrust`]: TLS to a server that is not a backend, such as the shared store.
//!
//! Makes no handshake. Invariant: only the authorities of one file are trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;

use super::clients::store;
use super::pem::{Files, about};
use super::words::in_words;

/// The TLS settings for such a server. Two are equal if they trust the same authorities.
#[derive(Debug, Clone)]
pub struct ServerTrust {
    authorities: Vec<CertificateDer<'static>>,
    /// The configuration for a `ClientConnection`.
    pub config: Arc<ClientConfig>,
}

impl PartialEq for ServerTrust {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities
    }
}

impl ServerTrust {
    /// Reads the authorities from a PEM file.
    pub fn load(ca: &Path) -> Result<Self, String> {
        let authorities = Files::default().certificates(ca)?;
        let roots = store(&authorities).map_err(|what| about(ca, &what))?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| in_words(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { authorities, config: Arc::new(config) })
    }
}
