//! A certificate authority for one test, and TLS clients that trust it alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, RevokedCertParams,
};
use rustls::crypto::{SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate for one name.
pub struct Minted {
    pub der: CertificateDer<'static>,
    pub pem: String,
    key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    /// The certificate that clients trust, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a name and everything one level below it.
    pub fn mint(&self, name: &str) -> Minted {
        self.mint_with(name, |_| {})
    }

    /// The same, good only in a future that no test sees.
    pub fn mint_of_tomorrow(&self, name: &str) -> Minted {
        self.mint_with(name, |params| {
            params.not_before = rcgen::date_time_ymd(3000, 1, 1);
            params.not_after = rcgen::date_time_ymd(3001, 1, 1);
        })
    }

    fn mint_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Minted {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned(), format!("*.{name}")]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Minted { der: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_pem() }
    }

    /// A revocation list of these certificates as PEM, good until a year begins.
    pub fn revocation_list(&self, revoked: &[&Minted], until: i32) -> String {
        let begin = rcgen::date_time_ymd(2020, 1, 1);
        let revoked_certs = revoked.iter().map(|minted| {
            let (_, certificate) = X509Certificate::from_der(&minted.der).expect("a certificate");
            RevokedCertParams {
                serial_number: certificate.raw_serial().to_vec().into(),
                revocation_time: begin,
                reason_code: None,
                invalidity_date: None,
            }
        });
        let params = CertificateRevocationListParams {
            this_update: begin,
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).and_then(|list| list.pem()).expect("a list")
    }

    /// A client of these versions and key exchange groups that trusts this authority.
    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        groups: &[&'static dyn SupportedKxGroup],
    ) -> ClientConfig {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups.to_vec();
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("the provider has these versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        config
    }
}

impl Minted {
    /// Writes certificate and key; their files.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&certificate, &self.pem).expect("the file is written");
        fs::write(&key, &self.key).expect("the file is written");
        (certificate, key)
    }
}

/// A client that is about to ask for `name`, and its hello.
pub fn hello(config: &Arc<ClientConfig>, name: &str) -> (ClientConnection, Vec<u8>) {
    let name = name.to_owned().try_into().expect("a host name");
    let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("memory");
    (connection, bytes)
}
