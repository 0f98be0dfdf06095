//! The development authority: found again, made, and signing certificates.
//!
//! Decides which files are its own work and may be replaced. Invariant: a certificate or key that another program made
//! is never replaced, and a found authority outlives every certificate that it signs now.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SignatureAlgorithm,
};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

use super::Made;
use super::files::{read, refused, write};
use crate::cli::CommandError;
use crate::clock;

/// Common name of the authority, by which a later run recognizes its own work.
const AUTHORITY: &str = "sessile development authority";
/// Validity of the authority: ten years, because clients are configured to trust it by hand.
const AUTHORITY_DAYS: i64 = 3650;
/// Validity of a certificate: the most that browsers accept.
const CERTIFICATE_DAYS: i64 = 397;
/// An authority with fewer days left is replaced.
const AUTHORITY_DAYS_LEFT: i64 = CERTIFICATE_DAYS + 1;
/// Validity starts this much earlier, because clocks of clients may be behind.
const EARLY_DAYS: i64 = 1;
const DAY_S: i64 = 86_400;

/// Key and name that sign certificates.
pub(in crate::cli) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Certificate of the authority, which completes the chain of those that it signs.
    pem: String,
}

impl Authority {
    /// Loads the authority of an earlier run; `None`: there is none, or it expires before a new certificate would.
    pub(super) fn find(files: &Made) -> Result<Option<Self>, CommandError> {
        let Some(pem) = read(&files.cert)? else {
            return match files.key.exists() {
                true => Err(refused(&files.key, "a key without its certificate: move it away")),
                false => Ok(None),
            };
        };
        let Some(until_s) = with_certificate(&pem, |certificate| {
            let ours = certificate.subject().iter_common_name().any(|name| name.as_str() == Ok(AUTHORITY));
            ours.then(|| certificate.validity().not_after.timestamp())
        }) else {
            return Err(refused(&files.cert, "an authority that this command did not make"));
        };
        if until_s < now_s() + AUTHORITY_DAYS_LEFT * DAY_S {
            return Ok(None);
        }
        let key = read(&files.key)?.and_then(|key| KeyPair::from_pem(&key).ok());
        let key = key.ok_or_else(|| refused(&files.key, "the authority's key is not there, or not a key"))?;
        let is_its_key = |certificate: &X509Certificate<'_>| {
            (certificate.public_key().raw == key.subject_public_key_info()).then_some(())
        };
        if with_certificate(&pem, is_its_key).is_none() {
            return Err(refused(&files.key, "it is not the key of the authority beside it"));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| internal(&error))?;
        Ok(Some(Self { issuer, pem }))
    }

    /// Makes a new authority and writes its files.
    pub(super) fn make(files: &Made) -> Result<Self, CommandError> {
        let made = Self::unsaved()?;
        write(files, &made.pem, made.issuer.key())?;
        Ok(made)
    }

    /// Makes a new authority that ends with this process.
    pub(in crate::cli) fn unsaved() -> Result<Self, CommandError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_DAYS);
        let key = KeyPair::generate().map_err(|error| internal(&error))?;
        let certificate = params.self_signed(&key).map_err(|error| internal(&error))?;
        Ok(Self { issuer: Issuer::new(params, key), pem: certificate.pem() })
    }

    /// Certificate of the authority.
    #[cfg(test)]
    pub(in crate::cli) fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes a key, signs a certificate for the names in `files`, and writes both; that of a server with its chain.
    pub(super) fn issue(
        &self,
        files: &Made,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        algorithm: &'static SignatureAlgorithm,
    ) -> Result<(), CommandError> {
        let chain = if usage == ExtendedKeyUsagePurpose::ServerAuth { &*self.pem } else { "" };
        let (certificate, key) = self.sign(files.names.clone(), common_name, usage, algorithm)?;
        write(files, &(certificate.pem() + chain), &key)
    }

    /// Makes a key, and signs a certificate for these names.
    pub(in crate::cli) fn sign(
        &self,
        names: Vec<String>,
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        algorithm: &'static SignatureAlgorithm,
    ) -> Result<(Certificate, KeyPair), CommandError> {
        let mut params = CertificateParams::new(names).map_err(|error| internal(&error))?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.insert_extended_key_usage(usage);
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, CERTIFICATE_DAYS);
        let key = KeyPair::generate_for(algorithm).map_err(|error| internal(&error))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| internal(&error))?;
        Ok((certificate, key))
    }
}

/// Checks that existing files are certificates of the authority, so that they may be replaced.
pub(super) fn may_be_replaced(files: &Made) -> Result<(), CommandError> {
    let ours = |certificate: &X509Certificate<'_>| {
        certificate.issuer().iter_common_name().any(|name| name.as_str() == Ok(AUTHORITY)).then_some(())
    };
    match read(&files.cert)? {
        Some(pem) if with_certificate(&pem, ours).is_none() => {
            Err(refused(&files.cert, "a certificate that this command did not make"))
        }
        None if files.key.exists() => Err(refused(&files.key, "a key without its certificate: move it away")),
        _ => Ok(()),
    }
}

fn with_certificate<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
    let (_, section) = parse_x509_pem(pem.as_bytes()).ok()?;
    look(&section.parse_x509().ok()?)
}

fn now_s() -> i64 {
    clock::unix_s().cast_signed()
}

fn set_validity(params: &mut CertificateParams, days: i64) {
    let at = |days: i64| ASN1Time::from_timestamp(now_s() + days * DAY_S).map(|time| time.to_datetime());
    if let (Ok(from), Ok(until)) = (at(-EARLY_DAYS), at(days)) {
        (params.not_before, params.not_after) = (from, until);
    }
}

fn internal(error: &rcgen::Error) -> CommandError {
    CommandError::Internal(format!("minting failed: {error}"))
}
