//! Stickiness: by what a client is recognised, its [`cookie`] or its [`key`], refined by named [`range`]s of source
//! addresses; and where it settled, the stick [`table`].
//!
//! Chooses no backend; `pool` does. Invariant: equal facts give equal key bytes on every machine, because the bytes
//! enter placement's wire format.

pub mod cookie;
pub mod key;
mod left;
pub mod range;
pub mod table;

use std::net::IpAddr;

pub use self::left::{Had, Left};

/// Facts about a connection or request that a pick can use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Address of the client; `None` for PROXY LOCAL and UNKNOWN, which are placed without a key.
    pub source: Option<IpAddr>,
    /// Server name of the ClientHello, as [`ServerName`](crate::server_name::ServerName) writes it.
    pub sni: Option<&'a str>,
    /// Raw TLVs of the PROXY v2 header; may be empty.
    pub tlvs: &'a [u8],
    /// Cookies of the request by name, values without quotes; at least those that the pool's key names.
    pub cookies: &'a [(&'a str, &'a [u8])],
}
