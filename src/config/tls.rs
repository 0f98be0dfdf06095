//! What is said of TLS and HTTP: who terminates, with which certificates, and how backends are spoken to.
//!
//! Names files and reads none: `tls` does, when a configuration is put in force. Invariant: a route that terminates
//! belongs to a listener with a certificate, and a pool that must understand its bytes is never reached by passthrough.

use std::path::PathBuf;

use crate::server_name::ServerName;

use super::{Listener, Pool};

/// What a listener or a route does about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Bytes are opaque.
    Off,
    /// The ClientHello is read where a rule needs it and forwarded unchanged.
    Passthrough,
    /// TLS ends here.
    Terminate,
}

/// What holds for every handshake of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRules {
    /// Keys that seal session tickets, shared by all instances; `None` = random ones that this process changes.
    pub ticket_keys: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Key exchanges that are allowed, in the order in which they are offered to backends; at least one.
    pub groups: Vec<KeyExchange>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// A key exchange (RFC 8446 §4.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyExchange {
    /// ML-KEM-768 and X25519 together: safe against a quantum computer as long as one of them is safe.
    X25519MlKem768,
    /// RFC 7748.
    X25519,
    /// NIST P-256.
    Secp256r1,
    /// NIST P-384.
    Secp384r1,
}

impl KeyExchange {
    /// Every group with its word, which is its name in the registry of TLS groups; the default order.
    pub const ALL: [(&'static str, Self); 4] = [
        ("X25519MLKEM768", Self::X25519MlKem768),
        ("x25519", Self::X25519),
        ("secp256r1", Self::Secp256r1),
        ("secp384r1", Self::Secp384r1),
    ];
}

/// A certificate of a listener. Its names are what its subject alternative names say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// PEM: the certificate, then its chain.
    pub cert: PathBuf,
    /// PEM: its key. The same file where none is written.
    pub key: PathBuf,
    /// For clients that ask for a name no certificate has, or for none; exactly one of a listener's.
    pub default: bool,
}

/// What is asked of clients beside their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM: the authorities whose certificates are accepted.
    pub ca: PathBuf,
    /// Clients without one are refused; otherwise they are served without a subject.
    pub required: bool,
}

/// What becomes of `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239) in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// What the client wrote is kept, and what we saw is added.
    Append,
    /// What the client wrote is dropped: it may be invented.
    Replace,
    /// Nothing is dropped and nothing added.
    Off,
}

/// How the backends of a pool are spoken to when they want TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTls {
    /// Off: whoever answers is believed.
    pub verify: bool,
    /// PEM: authorities whose certificates are accepted, for the name in `sni` or else the backend's address.
    pub ca: Option<PathBuf>,
    /// SHA-256 of SubjectPublicKeyInfo (RFC 7469 §2.4): one of these must be the key of the backend's certificate.
    pub pins: Vec<[u8; 32]>,
    /// The server name that is sent and verified; `None` = none is sent.
    pub sni: Option<ServerName>,
}

impl Listener {
    /// Whether any handshake is made here.
    pub fn terminates(&self) -> bool {
        self.tls == Tls::Terminate || self.routes.iter().any(|route| route.tls == Tls::Terminate)
    }
}

impl Pool {
    /// Whether reaching this pool takes more than moving bytes.
    pub fn is_conversation(&self, tls: Tls) -> bool {
        tls == Tls::Terminate || self.http || self.tls.is_some()
    }
}
