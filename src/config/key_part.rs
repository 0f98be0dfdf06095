//! [`KeyPart`]: what of a client, a connection or a request names a client.
//!
//! Reads no request. Invariant: a part is what `check` has read, with the name in the case in which requests are compared.

use std::sync::Arc;

/// One part of a placement key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// `"source"`: the client's address, cut to the prefix length.
    Source,
    /// `"sni"`: the server name in lower case.
    Sni,
    /// `"tlv:0xNN"`: the value of this PROXY TLV.
    Tlv(u8),
    /// `"cookie:NAME"`: the value of this application cookie.
    Cookie(Arc<str>),
    /// `"header:NAME"`: the value of this field of the request; the name in lower case (RFC 9110 §5.1).
    Header(Arc<str>),
    /// `"query:NAME"`: the value of this name in the query.
    Query(Arc<str>),
    /// `"path:N"`: the first segments of the path, as many.
    Path(u8),
    /// `"path_parameter:NAME"`: the value of this parameter of a segment, `;NAME=VALUE`.
    PathParameter(Arc<str>),
    /// `"client_certificate"`: the subject of the client's verified certificate. It stays when the certificate is
    /// renewed; a fingerprint is another one each time.
    ClientCertificate,
    /// `"A or B"`: the first of these parts that the client has; at least two, and none of them is a chain.
    FirstOf(Arc<[KeyPart]>),
}

impl KeyPart {
    /// The parts of which the client has to have one: this part, or those of a chain.
    pub fn alternatives(&self) -> &[Self] {
        match self {
            Self::FirstOf(parts) => parts,
            part => std::slice::from_ref(part),
        }
    }

    /// True for a part that only a request has.
    pub fn needs_request(&self) -> bool {
        match self {
            Self::Source | Self::Sni | Self::Tlv(_) => false,
            Self::Cookie(_)
            | Self::Header(_)
            | Self::Query(_)
            | Self::Path(_)
            | Self::PathParameter(_)
            | Self::ClientCertificate => true,
            Self::FirstOf(parts) => parts.iter().any(Self::needs_request),
        }
    }

    /// True if the part, or one of its alternatives, is this one.
    pub fn may_be(&self, part: &Self) -> bool {
        self.alternatives().contains(part)
    }
}
