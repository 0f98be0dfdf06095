//! Reads the keys about TLS: `[tls]`, certificates, client certificates, TLS to backends.
//!
//! Which pools a terminated route may reach is checked in `reach.rs`. Reads no file. Invariant: exactly one certificate
//! of a listener is the default.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Bad;
use crate::config::file::Section;
use crate::config::value;
use crate::config::{
    Address, Backend, Certificate, ClientCertificate, KeyExchange, PoolTls, ShownCertificate, Tls, TlsRules,
    TlsVersion, keys,
};

/// Words of the key `tls` on listeners and routes.
pub(super) const WORDS: [(&str, Tls); 3] =
    [("off", Tls::Off), ("passthrough", Tls::Passthrough), ("terminate", Tls::Terminate)];

/// Reads `[tls]`, the rules for every handshake.
pub(super) fn rules(top: &Section<'_>) -> TlsRules {
    let section = top.child("tls", &keys::TLS);
    let versions = value::word(&[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]);
    let groups = section.values("groups", value::word(&KeyExchange::ALL));
    if section.has("groups") && section.count("groups") == 0 {
        section.error("groups", Bad::new("groups is empty: no handshake could be made"));
    }
    TlsRules {
        ticket_keys: section.read("ticket_keys", value::unless("random", value::file)).unwrap_or(None),
        min_version: section.read("min_version", versions).unwrap_or(TlsVersion::V1_2),
        groups: if groups.is_empty() { KeyExchange::ALL.map(|(_, group)| group).to_vec() } else { groups },
    }
}

/// Reads all `[[listener.certificate]]` of a listener; the first is the default unless another one is.
pub(super) fn certificates(listener: &Section<'_>) -> Vec<Certificate> {
    let sections = listener.children("certificate", &keys::CERTIFICATE);
    let mut certificates: Vec<Certificate> = Vec::new();
    // Thousands are common: the number of the first with each file.
    let mut files = HashMap::new();
    let mut default = None;
    for (index, section) in sections.iter().enumerate() {
        let cert = section.required("cert", value::file).unwrap_or_default();
        let key = key_beside(section, &cert);
        let first = *files.entry(cert.clone()).or_insert(index);
        if first != index && !cert.as_os_str().is_empty() {
            let why = format!("cert \"{}\" is already the file of certificate #{}", cert.display(), first + 1);
            section.error("cert", Bad::new(why));
        }
        if section.read("default", value::boolean).unwrap_or(false)
            && let Some(earlier) = default.replace(index)
        {
            let why = format!("certificate #{} is already the default", earlier + 1);
            section.error("default", Bad::new(why));
        }
        certificates.push(Certificate { cert, key, default: false });
    }
    if let Some(certificate) = certificates.get_mut(default.unwrap_or(0)) {
        certificate.default = true;
    }
    certificates
}

/// Reads `key`, the file with the key of a certificate; the certificate's own where none is written.
fn key_beside(section: &Section<'_>, cert: &Path) -> PathBuf {
    // A key that cannot be read is not replaced: the certificate's file may have none.
    let key = section.read("key", value::file);
    key.unwrap_or_else(|| if section.has("key") { PathBuf::default() } else { cert.to_owned() })
}

/// Reads `client_certificate`; `None`: not written, `Some(None)`: "off".
pub(super) fn client_certificate(
    section: &Section<'_>,
    keys: &'static keys::TableKeys,
) -> Option<Option<ClientCertificate>> {
    if !section.has("client_certificate") {
        return None;
    }
    Some(section.child_unless_off("client_certificate", keys).map(|section| ClientCertificate {
        ca: section.required("ca", value::file).unwrap_or_default(),
        crl: section.read("crl", value::unless("off", value::file)).unwrap_or(None),
        required: section.read("required", value::boolean).unwrap_or(true),
    }))
}

/// Reads `cert` and `key` of `[pool.tls]`; `None`: backends are shown no certificate.
fn shown_certificate(section: &Section<'_>) -> Option<ShownCertificate> {
    if !section.has("cert") && section.read("key", value::file).is_some() {
        let hint = "write cert, the certificate that backends are shown";
        section.error("key", Bad::new("key is the key of no certificate").hint(hint));
    }
    let cert = section.read("cert", value::file)?;
    Some(ShownCertificate { key: key_beside(section, &cert), cert })
}

/// Reads `[pool.tls]`; `None`: not written, or "off".
pub(super) fn of_pool(pool: &Section<'_>, backends: &[Backend]) -> Option<PoolTls> {
    if !pool.has("tls") {
        return None;
    }
    let section = pool.child_unless_off("tls", &keys::POOL_TLS)?;
    let tls = PoolTls {
        verify: section.read("verify", value::boolean).unwrap_or(true),
        ca: section.read("ca", value::file),
        pins: section.values("pin", value::pin),
        sni: section.read("sni", value::server_name),
        certificate: shown_certificate(&section),
    };
    let has_trust = section.has("ca") || section.count("pin") > 0;
    if tls.verify && !has_trust {
        let hint = "write ca (a file of authorities), pin (a public key), or verify = false to accept any certificate";
        section.error_at(section.start, Bad::new("has neither ca nor pin").hint(hint));
    }
    if !tls.verify && has_trust {
        section.error("verify", Bad::new("verify false contradicts ca and pin"));
    }
    let nameless = backends.iter().find(|backend| matches!(backend.address, Address::Unix(_)));
    if let Some(backend) = nameless.filter(|_| section.has("ca") && !section.has("sni")) {
        let why = format!(
            "backend \"{}\" is a unix socket: without an address its certificate can only be verified by name",
            backend.name
        );
        section.error("ca", Bad::new(why).hint("write sni, the name in the certificate"));
    }
    Some(tls)
}
