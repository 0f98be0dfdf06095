//! What is known of a client's TLS, whoever ended it: we, or a decoder in front that tells of it in a PROXY header.
//!
//! Makes no handshake. Invariant: the subject of a certificate is told to backends only if it was verified, here or by
//! a peer that is trusted to say so.

use crate::access_log;
use crate::config;
use crate::connection::ClientInfo;
use crate::proxy_protocol::ssl::Ssl;
use crate::proxy_protocol::{TLV_SSL, tlv};
use crate::tls::{self, Identity, TlsFacts};

/// What is known of a client's TLS.
#[derive(Debug, Default)]
pub struct Secured {
    /// The client used it.
    pub tls: bool,
    /// The protocol that was agreed on.
    pub alpn: Option<Vec<u8>>,
    /// The value of PP2_TYPE_SSL, where TLS ended here.
    pub tlv: Option<Vec<u8>>,
    /// The subject of its certificate, in printable ASCII.
    pub subject: Option<String>,
}

impl Secured {
    /// After a handshake here.
    pub fn here(facts: Option<TlsFacts<'_>>, identity: Option<&Identity>) -> Self {
        Self {
            tls: true,
            alpn: facts.and_then(|facts| facts.alpn.map(<[u8]>::to_vec)),
            tlv: facts.map(|facts| facts.ssl_tlv(identity)),
            subject: identity.map(|identity| identity.subject.clone()),
        }
    }

    /// Behind a decoder: what its header says, or else what the listener says of all its clients.
    pub fn by_decoder(client_info: &ClientInfo, listener: &config::Listener) -> Self {
        let said = tlv(&client_info.tlvs, TLV_SSL).and_then(Ssl::read);
        let name = said.filter(|ssl| ssl.verified).and_then(|ssl| ssl.common_name);
        Self {
            tls: said.map_or(listener.client_tls, |ssl| ssl.tls),
            subject: name.map(tls::of_common_name),
            ..Self::default()
        }
    }
}

/// What the log says of a handshake here.
pub fn told(facts: TlsFacts<'_>, identity: Option<&Identity>) -> access_log::TlsLine {
    let TlsFacts { version, cipher, resumed, .. } = facts;
    access_log::TlsLine { version, cipher, resumed, subject: identity.map(|identity| identity.subject.clone()) }
}
