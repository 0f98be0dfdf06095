//! TLS: certificates minted for a run, and clients that make one full handshake and one request per connection.
//!
//! TLS 1.3 with X25519 alone and no resumption, so that every connection costs the same and the hello is small.
//! Invariant: an exchange is complete only with the whole answer and the server's close_notify.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::http::{Answer, ONCE};
use super::{Load, Session, connect};
use crate::Result;

/// The name in certificate and hello.
pub const NAME: &str = "www.example.test";

/// A self-signed certificate in two files.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    /// Mints one.
    pub fn mint(folder: &Path) -> Result<Self> {
        let minted = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let identity = Self::kept_in(folder);
        std::fs::write(&identity.certificate, minted.cert.der())?;
        std::fs::write(&identity.key, minted.signing_key.serialize_der())?;
        Ok(identity)
    }

    /// The one that was minted in a folder.
    pub fn kept_in(folder: &Path) -> Self {
        Self { certificate: folder.join("certificate.der"), key: folder.join("key.der") }
    }

    /// What a server presents.
    pub fn server(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::try_from(std::fs::read(&self.key)?)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate()?], key)?;
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What a client trusts.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()?)?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn certificate(&self) -> Result<CertificateDer<'static>> {
        Ok(CertificateDer::from(std::fs::read(&self.certificate)?))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() })
}

/// One connection.
pub struct Tls {
    socket: TcpStream,
    session: ClientConnection,
    answer: Answer,
}

/// So many clients, each with one exchange a connection.
pub fn load(
    target: SocketAddr,
    clients: usize,
    identity: &Identity,
) -> Result<Load<Tls, impl FnMut() -> io::Result<Tls>>> {
    let config = identity.client()?;
    let name = ServerName::try_from(NAME)?;
    let open = move || {
        let session = ClientConnection::new(Arc::clone(&config), name.clone()).map_err(io::Error::other)?;
        let mut tls = Tls { socket: connect(target, None)?, session, answer: Answer::default() };
        tls.session.writer().write_all(ONCE)?; // kept until the handshake allows it
        Ok(tls)
    };
    Ok(Load::new(clients, open)?)
}

impl Session for Tls {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn step(&mut self) -> io::Result<()> {
        let mut bytes = [0; 512];
        loop {
            while self.session.wants_write() {
                self.session.write_tls(&mut self.socket)?;
            }
            match self.session.reader().read(&mut bytes) {
                Ok(0) if self.answer.is_complete() => return Ok(()),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.answer.take(&bytes[..n])?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.session.read_tls(&mut self.socket)?;
                    self.session.process_new_packets().map_err(io::Error::other)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn again(&mut self) -> bool {
        false
    }

    fn unsent(&self) -> bool {
        self.session.wants_write()
    }

    fn backend(&self) -> usize {
        self.answer.backend()
    }
}
