//! What a client is recognised by: its [`cookie`], or its [`key`], refined by named [`range`]s of source addresses; and
//! where it settled: the [`table`].
//!
//! Chooses no backend; `pool` does. Invariant: the same facts give the same key bytes on every machine, because the
//! bytes enter placement's wire format.

pub mod cookie;
pub mod key;
pub mod range;
pub mod table;

use std::net::IpAddr;

/// What is known about a connection when a backend is chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The client's address; `None` for PROXY LOCAL and UNKNOWN, which are placed without a key.
    pub source: Option<IpAddr>,
    /// The server name the client asked for, as [`ServerName`](crate::server_name::ServerName) writes it.
    pub sni: Option<&'a str>,
    /// The TLVs of the PROXY v2 header, raw; may be empty.
    pub tlvs: &'a [u8],
    /// Cookies of the request by name, values without quotes; only those that the pool's key asks for need be there.
    pub cookies: &'a [(&'a str, &'a [u8])],
}
