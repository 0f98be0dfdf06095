//! TLS to a server that is no backend: whom it believes is all there is to say.
//!
//! Makes no handshake. Invariant: nobody is believed but the authorities of one file.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;

use super::clients::store;
use super::pem::{Files, about};

/// How such a server is spoken to. Equal ones believe the same authorities.
#[derive(Debug, Clone)]
pub struct Believing {
    authorities: Vec<CertificateDer<'static>>,
    /// What to connect with.
    pub config: Arc<ClientConfig>,
}

impl PartialEq for Believing {
    fn eq(&self, other: &Self) -> bool {
        self.authorities == other.authorities
    }
}

impl Believing {
    /// Reads the authorities.
    pub fn load(ca: &Path) -> Result<Self, String> {
        let authorities = Files::default().certificates(ca)?;
        let roots = store(&authorities).map_err(|what| about(ca, &what))?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { authorities, config: Arc::new(config) })
    }
}
