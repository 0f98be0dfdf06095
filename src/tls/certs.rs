//! [`Index`]: the certificates of one listener, loaded, checked, and chosen by the server name of a client; and
//! [`OwnCertificate`], one of them, or the one that the backends of a pool are shown.
//!
//! Choice: certificates of the exact name, else of the wildcard above it (one label, RFC 9525 §6.3), else the default;
//! among several those that the client can verify, ECDSA before Ed25519 before RSA because that is the order of the
//! cost of a signature, and among equals the first in the file; where the client can verify none, the first. Fetches nothing and staples nothing (OCSP).
//!
//! Invariant: an index never changes. Another set of certificates is another index, in another snapshot; handshakes
//! under way go on with theirs.

use std::path::Path;
use std::sync::Arc;

use ahash::AHashMap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureAlgorithm, SignatureScheme};
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::pem::{Files, KeyError, about};
use super::subject;
use super::words::in_words;
use crate::http::date;
use crate::server_name::NamePattern;

/// Seconds in one day of 24 hours.
const DAY_S: i64 = 86_400;

/// A certificate chain and its key, checked to belong together.
#[derive(Debug)]
pub struct OwnCertificate {
    /// The path of the file, as the configuration has it.
    pub file: String,
    /// The names in the certificate, sorted.
    pub names: Vec<NamePattern>,
    /// The first second of validity, in seconds since 1970.
    pub not_before_s: i64,
    /// The last second of validity, in seconds since 1970.
    pub not_after_s: i64,
    /// The first and last second of validity of each certificate behind the first.
    issuers_valid_s: Vec<(i64, i64)>,
    /// What is allowed but makes clients refuse the certificate, in words that follow the file.
    remarks: Vec<String>,
    shown_to: ShownTo,
    key: Arc<CertifiedKey>,
}

/// The other side of the handshakes in which a certificate is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShownTo {
    /// The certificate is one of a listener.
    Clients,
    /// The certificate is that of a pool.
    Backends,
}

impl ShownTo {
    fn word(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Backends => "backends",
        }
    }
}

/// Why the other side refuses a certificate because of the time, now or soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateTrouble {
    /// Its first day is in the future.
    NotYet,
    /// Its last day is in the past.
    Expired,
    /// It expires within seven days.
    Days,
    /// It expires within one day.
    Hours,
}

/// A certificate that expires within this time causes a warning: seven days.
const SOON_S: i64 = 7 * DAY_S;

impl OwnCertificate {
    /// Reads the two files and checks that they belong together. `Err` holds the problems of both.
    pub(super) fn load(
        (cert_file, key_file): (&Path, &Path),
        shown_to: ShownTo,
        files: &mut Files,
        provider: &CryptoProvider,
    ) -> Result<Self, Vec<KeyError>> {
        let wrong = |what: String| vec![("cert", about(cert_file, &what))];
        let key_name = if key_file == cert_file { "cert" } else { "key" };
        let key = files.key(key_file).and_then(|key| {
            let loaded = provider.key_provider.load_private_key(key);
            loaded.map_err(|_| about(key_file, "its key is of a kind or size that is not supported"))
        });
        let (chain, key) = match (files.certificates(cert_file), key.map_err(|what| (key_name, what))) {
            (Ok(chain), Ok(key)) => (chain, key),
            (Ok(_), Err(of_key)) => return Err(vec![of_key]),
            (Err(what), Err(of_key)) if key_name == "key" => return Err(vec![("cert", what), of_key]),
            (Err(what), _) => return Err(vec![("cert", what)]),
        };
        let parsed = parse(&chain).map_err(wrong)?;
        let leaf = &parsed[0];
        if leaf.version() != X509Version::V3 && shown_to == ShownTo::Clients {
            let version = leaf.version().0 + 1;
            let why =
                format!("it is an X.509 certificate of version {version}, which holds no names: clients refuse it");
            return Err(wrong(format!("{why}; make one of version 3 with subjectAltName")));
        }
        check_chain(&parsed).map_err(wrong)?;
        let mut valid_s = parsed.iter().map(|one| {
            let validity = one.validity();
            (validity.not_before.timestamp(), validity.not_after.timestamp())
        });
        let (not_before_s, not_after_s) = valid_s.next().unwrap_or_default();
        let issuers_valid_s = valid_s.collect();
        let remarks = if shown_to == ShownTo::Clients { remarks(&parsed) } else { Vec::new() };
        let names = names(leaf);
        drop(parsed);
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(wrong(format!("the key in \"{}\" is not this certificate's", key_file.display())));
            }
            Err(error) => return Err(wrong(format!("it cannot be used: {}", in_words(&error)))),
        }
        let (file, key) = (cert_file.display().to_string(), Arc::new(key));
        Ok(Self { file, names, not_before_s, not_after_s, issuers_valid_s, remarks, shown_to, key })
    }

    /// What makes the other side refuse the certificate now or soon, in words that follow the file. `now_s` is in seconds
    /// since 1970.
    pub(super) fn warnings(&self, now_s: i64) -> Vec<String> {
        let of_time = self.troubles(now_s).into_iter().map(|(_, words)| words);
        of_time.chain(self.remarks.iter().map(|remark| format!(": {remark}"))).collect()
    }

    /// Which certificates of the file are refused because of the time, now or soon, in words that follow the file.
    pub(super) fn troubles(&self, now_s: i64) -> Vec<(CertificateTrouble, String)> {
        let own = (self.not_before_s, self.not_after_s);
        let refuse = format!("{} will refuse it", self.shown_to.word());
        let all = std::iter::once(&own).chain(&self.issuers_valid_s).enumerate();
        let troubles = all.filter_map(|(index, (from_s, until_s))| {
            let of = if index == 0 { String::new() } else { format!(": certificate #{} in it", index + 1) };
            let (trouble, what) = match until_s - now_s {
                _ if *from_s > now_s => (CertificateTrouble::NotYet, format!("is not good yet: {refuse}")),
                left_s if left_s < 0 => (CertificateTrouble::Expired, format!("has expired: {refuse}")),
                left_s if left_s < SOON_S => {
                    let soon = if left_s < DAY_S { CertificateTrouble::Hours } else { CertificateTrouble::Days };
                    (soon, format!("expires in {} hours", left_s / 3600))
                }
                _ => return None,
            };
            Some((trouble, format!("{of} {what}")))
        });
        troubles.collect()
    }

    /// The last second in which the certificate and its issuers are all valid, in seconds since 1970.
    pub(super) fn end_s(&self) -> i64 {
        self.issuers_valid_s.iter().fold(self.not_after_s, |end, (_, issuer)| end.min(*issuer))
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

    /// The chain and its key, for a handshake.
    pub(super) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// True if the other side gets the same chain.
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
    pub fn new(certificates: &[Arc<OwnCertificate>], default: usize) -> Self {
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
        let serves = |other: &&&Arc<OwnCertificate>| Arc::ptr_eq(other, default) || other.names == default.names;
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

/// What clients are known to refuse: an issuer that is missing, and issuers of version 1.
fn remarks(chain: &[X509Certificate<'_>]) -> Vec<String> {
    let is_self_signed = |one: &X509Certificate<'_>| one.issuer().as_raw() == one.subject().as_raw();
    let mut remarks = Vec::new();
    if let [leaf] = chain
        && !is_self_signed(leaf)
    {
        remarks.push(format!(
            "its chain is not complete: without the certificate of its issuer {}, clients refuse it unless they have \
             that certificate themselves; add it to the file, behind the first",
            subject::text(leaf.issuer())
        ));
    }
    for (index, one) in chain.iter().enumerate().skip(1) {
        if one.version() != X509Version::V3 && !is_self_signed(one) {
            let number = index + 1;
            remarks.push(format!("certificate #{number} in it is of X.509 version 1: clients accept no such issuer"));
        }
    }
    remarks
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
