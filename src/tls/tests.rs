//! Handshakes in memory: real clients against what a file means, no socket.

mod choice;
mod files;
mod memory;
mod resumption;
mod revoked;
mod upstream;
mod who;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_RSA_SHA256};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};

use super::Termination;
use super::tickets::SteadyClock;
use crate::config;

/// A scratch folder with an authority, and everything minted for one test.
struct Workshop {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Workshop {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let shop = Self { folder: tempfile::tempdir().unwrap(), authority };
        shop.write("ca.pem", &shop.authority.pem());
        shop
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, file: &str, content: &str) {
        std::fs::write(self.path(file), content).unwrap();
        self.set_mode(file, 0o600);
    }

    fn set_mode(&self, file: &str, mode: u32) {
        std::fs::set_permissions(self.path(file), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `FILE.pem` with certificate and key, good for these names.
    fn mint(&self, file: &str, names: &[&str]) {
        self.mint_with(file, names, &KeyPair::generate().unwrap(), |_| {});
    }

    fn mint_rsa(&self, file: &str, names: &[&str]) {
        self.mint_with(file, names, &KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(), |_| {});
    }

    fn mint_with(&self, file: &str, names: &[&str], key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        change(&mut params);
        let certificate = params.signed_by(key, &self.authority).unwrap();
        self.write(&format!("{file}.pem"), &format!("{}{}", certificate.pem(), key.serialize_pem()));
    }

    fn der(&self, file: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(&format!("{file}.pem"))).unwrap()
    }

    /// What a file means in which `@` stands for the folder.
    fn load(&self, text: &str, previous: Option<&Termination>) -> Result<Termination, Vec<String>> {
        self.load_at(text, previous, &Clock::default())
    }

    fn load_at(&self, text: &str, previous: Option<&Termination>, clock: &Clock) -> Result<Termination, Vec<String>> {
        let text = text.replace('@', self.folder.path().to_str().unwrap());
        let checked = config::check(&text, &|_| Err(std::io::Error::other("no names here"))).unwrap();
        let steady = clock.clone();
        let steady: SteadyClock = Arc::new(move || steady.now_s() * 1_000);
        let loaded = Termination::load_with(&checked.config, previous, Arc::new(clock.clone()), &steady);
        loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    /// A client that believes the authority and remembers sessions.
    fn client(&self) -> ClientConfig {
        self.client_with(provider())
    }

    fn client_with(&self, provider: CryptoProvider) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::in_memory_sessions(8);
        client
    }

    /// The same, with a certificate of its own.
    fn client_as(&self, file: &str) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{file}.pem"))).unwrap();
        ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![self.der(file)], key)
            .unwrap()
    }
}

/// A clock that stands unless moved.
#[derive(Debug, Clone)]
struct Clock(Arc<AtomicU64>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UnixTime::now().as_secs())))
    }
}

impl Clock {
    fn now_s(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.now_s())))
    }
}

fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: aws_lc_rs::ALL_KX_GROUPS.to_vec(), ..aws_lc_rs::default_provider() }
}

/// A server for one listener and pool; `more` stands in the listener.
fn site(certificates: &[&str], more: &str) -> String {
    let certificates: Vec<_> = certificates.iter().map(|file| format!("{{ cert = \"@/{file}.pem\" }}")).collect();
    format!(
        "[[listener]]\nname = \"site\"\nbind = \"127.0.0.1:0\"\ntls = \"terminate\"\npool = \"site\"\n\
         certificate = [{}]\n{more}\n[[pool]]\nname = \"site\"\nhttp = true\n\
         backend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n",
        certificates.join(", ")
    )
}

/// The default route of the listener `site`.
fn default_of(termination: &Termination) -> Arc<ServerConfig> {
    termination.server("site", None).unwrap().config()
}

/// Both ends of a connection.
struct Pair {
    server: ServerConnection,
    client: ClientConnection,
}

impl Pair {
    /// A finished handshake, or why there is none: the server's word first.
    fn new(server: &Arc<ServerConfig>, client: &ClientConfig, name: &str) -> Result<Self, rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        Self::of(ServerConnection::new(server.clone()).unwrap(), client)
    }

    fn of(server: ServerConnection, client: ClientConnection) -> Result<Self, rustls::Error> {
        let mut pair = Self { server, client };
        pair.settle()?;
        assert!(!pair.server.is_handshaking() && !pair.client.is_handshaking());
        Ok(pair)
    }

    /// Carries bytes until both are silent.
    fn settle(&mut self) -> Result<(), rustls::Error> {
        while self.client.wants_write() || self.server.wants_write() {
            let mut bytes = Vec::new();
            self.client.write_tls(&mut bytes).unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.server.read_tls(&mut rest).unwrap();
                self.server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            self.server.write_tls(&mut bytes).unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).unwrap();
                self.client.process_new_packets()?;
            }
        }
        Ok(())
    }

    fn shown(&self) -> CertificateDer<'static> {
        self.client.peer_certificates().unwrap()[0].clone()
    }

    fn resumed(&self) -> bool {
        let resumed = self.server.handshake_kind() == Some(HandshakeKind::Resumed);
        assert_eq!(self.client.handshake_kind() == Some(HandshakeKind::Resumed), resumed);
        resumed
    }
}

/// Whether two handshakes in a row, the second elsewhere, make one session.
fn resumes(first: &Arc<ServerConfig>, second: &Arc<ServerConfig>, client: &ClientConfig, name: &str) -> bool {
    let mut client = client.clone();
    client.resumption = Resumption::in_memory_sessions(8);
    assert!(!Pair::new(first, &client, name).unwrap().resumed());
    Pair::new(second, &client, name).unwrap().resumed()
}
