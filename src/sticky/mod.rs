//! Stickiness: by what a client is recognised, its [`cookie`] or its [`key`], refined by named [`range`]s of source
//! addresses; and where it settled, the stick [`table`].
//!
//! Chooses no backend; `pool` does. Invariant: equal facts give equal key bytes on every machine, because the bytes
//! enter placement's wire format.

mod client_memory;
pub mod cookie;
pub mod key;
mod left;
pub mod range;
pub mod table;

use std::net::IpAddr;

pub use self::client_memory::ClientMemory;
pub use self::left::{Had, Left};

use crate::config::KeyPart;

/// Facts about a connection or request that a pick can use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Address of the client; `None` for PROXY LOCAL and UNKNOWN, which are placed without a key.
    pub source: Option<IpAddr>,
    /// Server name of the ClientHello, as [`ServerName`](crate::server_name::ServerName) writes it.
    pub sni: Option<&'a str>,
    /// Raw TLVs of the PROXY v2 header; may be empty.
    pub tlvs: &'a [u8],
    /// Values of the request by part of a key, cookies without quotes; at least those that the pool's key names. An
    /// empty value is none.
    pub values: &'a [(&'a KeyPart, &'a [u8])],
}

impl<'a> Facts<'a> {
    /// Value of the request for a part of a key; `None`: it has none, or the part is not one of requests.
    pub fn value(&self, part: &KeyPart) -> Option<&'a [u8]> {
        self.values.iter().find(|(known, value)| *known == part && !value.is_empty()).map(|(_, value)| *value)
    }
}
