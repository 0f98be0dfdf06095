//! [`Secured`]: what is known of a client's TLS, whether this process terminated it or a proxy in front of it.
//!
//! Makes no handshake. Invariant: backends get the subject of a certificate only if it was verified, here or by a
//! trusted PROXY peer.

use crate::access_log;
use crate::config;
use crate::connection::ClientInfo;
use crate::proxy_protocol::ssl::Ssl;
use crate::proxy_protocol::{TLV_SSL, tlv};
use crate::tls::{self, HTTP2, Identity, TlsFacts};

/// A client's TLS, as backends may learn of it.
#[derive(Debug, Default)]
pub struct Secured {
    /// True if the client used TLS.
    pub tls: bool,
    /// Protocol agreed on by ALPN in a handshake here.
    pub alpn: Option<Vec<u8>>,
    /// Value of the PP2_TYPE_SSL TLV; `None` if TLS did not end here.
    pub tlv: Option<Vec<u8>>,
    /// Subject of the client's certificate, in printable ASCII; `None`: it showed none.
    pub subject: Option<String>,
}

impl Secured {
    /// Describes a handshake of this process.
    pub fn by_handshake(facts: Option<TlsFacts<'_>>, identity: Option<&Identity>) -> Self {
        Self {
            tls: true,
            alpn: facts.and_then(|facts| facts.alpn.map(<[u8]>::to_vec)),
            tlv: facts.map(|facts| facts.ssl_tlv(identity)),
            subject: identity.map(|identity| identity.subject.clone()),
        }
    }

    /// True if the handshake has agreed on HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        self.alpn.as_deref() == Some(HTTP2)
    }

    /// Describes TLS that a proxy in front terminated: by its PROXY header, or else by `client_tls` of the listener.
    pub fn by_decoder(client_info: &ClientInfo, listener: &config::Listener) -> Self {
        let announced = tlv(&client_info.tlvs, TLV_SSL).and_then(Ssl::read);
        let name = announced.filter(|ssl| ssl.verified).and_then(|ssl| ssl.common_name);
        Self {
            tls: announced.map_or(listener.client_tls, |ssl| ssl.tls),
            subject: name.map(tls::of_common_name),
            ..Self::default()
        }
    }
}

/// The handshake's part of the access log's line.
pub fn tls_line(facts: TlsFacts<'_>, identity: Option<&Identity>) -> access_log::TlsLine {
    let TlsFacts { version, cipher, resumed, .. } = facts;
    access_log::TlsLine { version, cipher, resumed, subject: identity.map(|identity| identity.subject.clone()) }
}
