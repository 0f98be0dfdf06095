//! [`DemoIdentity`]: the certificates of a stand-in, one for each name that a client asks for.
//!
//! A certificate is made when it is asked for first. Checks no client. Invariant: at most [`NAMES_MAX`] certificates
//! are kept, however many names clients make up.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, ServerConfig};

use crate::cli::certs::authority::Authority;
use crate::config::Address;

const NAMES_MAX: usize = 256;

/// Certificates by name.
struct DemoIdentity {
    authority: Arc<Authority>,
    /// Name for clients that ask for none: the address.
    address: String,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// Settings of a TLS server that has every name. It takes no part in ALPN, so that no client is refused.
pub(super) fn server(authority: &Arc<Authority>, address: &Address) -> Result<ServerConfig, Error> {
    let address = match address {
        Address::Tcp(address) => address.ip().to_string(),
        Address::Unix(_) | Address::Name(_) => "localhost".to_owned(),
    };
    let identity = DemoIdentity { authority: Arc::clone(authority), address, made: Mutex::default() };
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(identity));
    Ok(config)
}

impl ResolvesServerCert for DemoIdentity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or(&self.address);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(name) {
            return Some(Arc::clone(known));
        }
        let certified = Arc::new(self.certify(name)?);
        if made.len() == NAMES_MAX {
            made.clear();
        }
        made.insert(name.to_owned(), Arc::clone(&certified));
        Some(certified)
    }
}

impl DemoIdentity {
    /// Makes a certificate; `None`: the name cannot be in one, and the handshake fails.
    fn certify(&self, name: &str) -> Option<CertifiedKey> {
        let usage = ExtendedKeyUsagePurpose::ServerAuth;
        let signed = self.authority.sign(vec![name.to_owned()], "demo", usage, &PKCS_ECDSA_P256_SHA256);
        let (certificate, key) = signed.ok()?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = aws_lc_rs::sign::any_ecdsa_type(&key).ok()?;
        Some(CertifiedKey::new(vec![certificate.der().clone()], key))
    }
}

impl fmt::Debug for DemoIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DemoIdentity").field("address", &self.address).finish_non_exhaustive()
    }
}
