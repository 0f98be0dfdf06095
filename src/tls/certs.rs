//! [`Index`]: the certificates of one listener, loaded, checked, and chosen by the server name of a client.
//!
//! Choice: certificates of the exact name, else of the wildcard above it (one label, RFC 9525 §6.3), else the default;
//! among several those that the client can verify, ECDSA before Ed25519 before RSA because that is the order of the
//! cost of a signature, and among equals the first in the file; where the client can verify none, the first. Fetches nothing and staples nothing (OCSP).
//!
//! Invariant: an index never changes. Another set of certificates is another index, in another snapshot; handshakes
//! under way go on with theirs.

use std::sync::Arc;

use ahash::AHashMap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureAlgorithm, SignatureScheme};
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pem::{Files, about};
use crate::config;
use crate::http::date;
use crate::server_name::NamePattern;

/// Seconds in one day of 24 hours.
const DAY_S: i64 = 86_400;

/// A certificate chain and its key, checked to belong together.
#[derive(Debug)]
pub struct ServerCertificate {
    /// The path of the file, as the configuration has it.
    pub file: String,
    /// The names in the certificate, sorted.
    pub names: Vec<NamePattern>,
    /// The first second of validity, in seconds since 1970.
    pub not_before_s: i64,
    /// The last second of validity, in seconds since 1970.
    pub not_after_s: i64,
    key: Arc<CertifiedKey>,
}

impl ServerCertificate {
    /// Reads the two files and checks that they belong together.
    pub(super) fn load(
        config: &config::Certificate,
        files: &mut Files,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let wrong = |what: String| about(&config.cert, &what);
        let chain = files.certificates(&config.cert)?;
        let key = files.key(&config.key)?;
        let parsed = parse(&chain).map_err(wrong)?;
        check_chain(&parsed).map_err(wrong)?;
        let leaf = &parsed[0];
        let (not_before_s, not_after_s) =
            (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
        let names = names(leaf);
        drop(parsed);
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|_| about(&config.key, "its key is of a kind or size that is not supported"))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(wrong(format!("the key in \"{}\" is not this certificate's", config.key.display())));
            }
            Err(error) => return Err(wrong(format!("it cannot be used: {error}"))),
        }
        Ok(Self { file: config.cert.display().to_string(), names, not_before_s, not_after_s, key: Arc::new(key) })
    }

    /// One line for operators: the names, the last day and the days left.
    pub(super) fn summary(&self, now_s: u64) -> String {
        let names: Vec<_> = self.names.iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
        let (year, month, day) = date::date_of(self.not_after_s.div_euclid(DAY_S));
        let left = self.not_after_s.saturating_sub(i64::try_from(now_s).unwrap_or(i64::MAX)).div_euclid(DAY_S);
        let left = if left < 0 { "expired".to_owned() } else { format!("{left} days left") };
        format!("{names}; until {year:04}-{month:02}-{day:02}, {left}")
    }

    /// True if clients get the same chain.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }

    /// The order in which certificates are tried: lower first.
    fn rank(&self) -> u8 {
        match self.key.key.algorithm() {
            SignatureAlgorithm::ECDSA => 0,
            SignatureAlgorithm::ED25519 => 1,
            _ => 2,
        }
    }
}

/// The certificates of a listener, indexed by server name.
#[derive(Debug)]
pub struct Index {
    exact: AHashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// Wildcard certificates, by the domain behind `*.`.
    below: AHashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
}

impl Index {
    /// Builds the index. `default` is the position of the default in `certificates`, which is not empty.
    pub fn new(certificates: &[Arc<ServerCertificate>], default: usize) -> Self {
        let mut ranked: Vec<_> = certificates.iter().collect();
        // Stable: what was written first stays first among equals.
        ranked.sort_by_key(|certificate| certificate.rank());
        let mut index = Self { exact: AHashMap::new(), below: AHashMap::new(), default: Vec::new() };
        for certificate in &ranked {
            for name in &certificate.names {
                let (map, name) = match name {
                    NamePattern::Exact(name) => (&mut index.exact, name),
                    NamePattern::Below(domain) => (&mut index.below, domain),
                };
                map.entry(name.as_str().into()).or_default().push(certificate.key.clone());
            }
        }
        // Certificates of the same names with another algorithm serve clients that cannot verify the default.
        let default = &certificates[default];
        let serves = |other: &&&Arc<ServerCertificate>| Arc::ptr_eq(other, default) || other.names == default.names;
        index.default = ranked.iter().filter(serves).map(|certificate| certificate.key.clone()).collect();
        index
    }

    /// The certificate for a client; the first of the name if the client can verify none of them, because then the
    /// handshake itself finds that nothing is common, and says so (handshake_failure). `None`: there is no certificate.
    pub fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // Names in a hello may be written in any case, and end in a dot; names in the index are lower and do not.
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let exact = name.as_deref().and_then(|name| self.exact.get(name));
        let below = name.as_deref().and_then(|name| self.below.get(name.split_once('.')?.1));
        let default = if exact.is_none() && below.is_none() { Some(&self.default) } else { None };
        let of_name = || exact.into_iter().chain(below).chain(default).flatten();
        of_name().find(fits).or_else(|| of_name().next())
    }
}

impl ResolvesServerCert for Index {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

fn parse<'a>(chain: &'a [CertificateDer<'_>]) -> Result<Vec<X509Certificate<'a>>, String> {
    let parse = |(index, der): (usize, &'a CertificateDer<'_>)| match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(format!("certificate #{} in it is malformed", index + 1)),
    };
    chain.iter().enumerate().map(parse).collect()
}

/// Checks that each certificate is signed by the next: the order that RFC 8446 §4.4.2 requires. Finds mixed-up files.
fn check_chain(chain: &[X509Certificate<'_>]) -> Result<(), String> {
    for (index, pair) in chain.windows(2).enumerate() {
        let not_signed = || format!("certificate #{} in it did not sign #{}", index + 2, index + 1);
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            return Err(not_signed());
        }
        match pair[0].verify_signature(Some(pair[1].public_key())) {
            // An algorithm that is not known here may be known to clients.
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => {}
            Err(_) => return Err(not_signed()),
        }
    }
    Ok(())
}

/// The DNS names among the subject alternative names (RFC 9525 §6.1: nothing else counts). SNI never holds an address.
fn names(leaf: &X509Certificate<'_>) -> Vec<NamePattern> {
    let extension = leaf.subject_alternative_name().ok().flatten();
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let mut names: Vec<_> = names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => NamePattern::parse(name),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
