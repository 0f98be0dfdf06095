//! TLS settings: mode of a listener, certificates of both sides, versions, and TLS to backends.
//!
//! Names files and reads none; `tls` reads them before a configuration is put in force. Invariant: a route that
//! terminates belongs to a listener with a certificate, and a pool that must understand its bytes is never reached by
//! passthrough.

use std::path::PathBuf;

use crate::server_name::ServerName;

/// TLS mode of a listener or route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Bytes are opaque; no ClientHello is read.
    Off,
    /// The ClientHello is read where a rule needs it, and forwarded unchanged.
    Passthrough,
    /// TLS ends here, with a certificate of the listener.
    Terminate,
}

/// Settings of every TLS handshake of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRules {
    /// File with keys that seal session tickets; `None`: random keys, changed every 6 hours.
    pub ticket_keys: Option<PathBuf>,
    /// Oldest TLS version that clients may use.
    pub min_version: TlsVersion,
    /// Allowed key exchanges, in the order offered to backends; at least one.
    pub groups: Vec<KeyExchange>,
}

/// Version of TLS, ordered by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// Key exchange group (RFC 8446 §4.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyExchange {
    /// ML-KEM-768 and X25519 combined, also secure against quantum computers.
    X25519MlKem768,
    /// Curve25519 (RFC 7748).
    X25519,
    /// NIST curve P-256 (RFC 8422).
    Secp256r1,
    /// NIST curve P-384 (RFC 8422).
    Secp384r1,
}

impl KeyExchange {
    /// Every group with its name in IANA's registry of TLS groups, in the default order.
    pub const ALL: [(&'static str, Self); 4] = [
        ("X25519MLKEM768", Self::X25519MlKem768),
        ("x25519", Self::X25519),
        ("secp256r1", Self::Secp256r1),
        ("secp384r1", Self::Secp384r1),
    ];
}

/// One `[[listener.certificate]]`; its subject alternative names say for which names it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// PEM file with the certificate, then its chain.
    pub cert: PathBuf,
    /// PEM file with the private key; the same file by default.
    pub key: PathBuf,
    /// True for the certificate of clients with a name that no other certificate has; exactly one per listener.
    pub default: bool,
}

/// Request for a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// PEM file with the authorities of accepted certificates.
    pub ca: PathBuf,
    /// PEM or DER file with revocation lists of those authorities; `None`: nothing is looked up.
    pub crl: Option<PathBuf>,
    /// True: clients without a certificate are refused; false: they are served without a subject.
    pub required: bool,
}

/// Treatment of `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `Forwarded` (RFC 7239) in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Fields of the client are kept and believed, and the connection's own facts are added.
    Append,
    /// Fields of the client are replaced, because they may be false; others in which proxies describe their client
    /// (`X-Real-IP`, `X-Forwarded-*`, `X-Original-URL`, ...) are removed.
    Replace,
    /// Fields are neither removed nor added.
    Off,
}

/// One `[pool.tls]`: TLS to the backends of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTls {
    /// False: any certificate of a backend is accepted.
    pub verify: bool,
    /// PEM file with authorities; a certificate must be for the name in `sni` or else the backend's address.
    pub ca: Option<PathBuf>,
    /// SHA-256 digests of accepted public keys (SubjectPublicKeyInfo, RFC 7469 §2.4); empty: no pinning.
    pub pins: Vec<[u8; 32]>,
    /// Server name that is sent and verified; `None`: none is sent, the address is verified.
    pub sni: Option<ServerName>,
    /// Certificate for backends that request one; `None`: they get none.
    pub certificate: Option<ShownCertificate>,
}

/// The certificate that backends are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// PEM file with the certificate, then its chain.
    pub cert: PathBuf,
    /// PEM file with the private key; the same file by default.
    pub key: PathBuf,
}
