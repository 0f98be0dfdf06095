//! The PROXY protocol, versions 1 and 2: a [`Header`] announces the client's address, to this process by a proxy in
//! front of it, and to a backend by this process.
//!
//! `read.rs` parses, `write.rs` writes, `ssl.rs` does both for the TLV about TLS. Neither decides which peers are
//! trusted. Only TCP over IPv4 or IPv6 is supported; every other valid header means the same as LOCAL: the address of
//! the peer counts.
//!
//! Invariant: a header written here is read here as the same facts, and addresses that were read are canonical (an
//! IPv4-mapped IPv6 address has become IPv4).

mod read;
pub mod ssl;
mod write;

use std::net::SocketAddr;

pub use read::parse;
pub use write::write;

use crate::remote_text::shown_bytes;

/// The longest header that is read or written, in bytes.
pub const HEADER_MAX: usize = 4096;

/// TLV: the application protocol (ALPN name).
pub const TLV_ALPN: u8 = 0x01;
/// TLV: the host name the client asked for.
pub const TLV_AUTHORITY: u8 = 0x02;
/// TLV: CRC32C of the header with this value zeroed.
pub const TLV_CRC32C: u8 = 0x03;
/// TLV: an opaque id of the connection.
pub const TLV_UNIQUE_ID: u8 = 0x05;
/// TLV: facts about the client's TLS, see [`ssl`].
pub const TLV_SSL: u8 = 0x20;

/// A list of TLVs up to this length is kept whole, in bytes.
const TLVS_WHOLE: usize = 256;
/// The longest v1 line with its CRLF: UNKNOWN with two IPv6 addresses written out.
const V1_MAX: usize = 107;
const V1_SIGNATURE: &[u8] = b"PROXY";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16; // signature, version and command, family and transport, length
const V2_VERSION: u8 = 0x20;
const LOCAL: u8 = 0x0;
const PROXY: u8 = 0x1;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_V4: u8 = 0x11;
const TCP_OVER_V6: u8 = 0x21;

/// The content of a PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// The peer's own address counts: v2 LOCAL, v1 UNKNOWN, and families or transports other than TCP over IP.
    Local,
    /// PROXY: the connection is relayed for a client.
    Proxied {
        /// The address of the client, canonical.
        source: SocketAddr,
        /// The address that the client connected to, canonical.
        destination: SocketAddr,
        /// Raw v2 TLVs (type, length of two bytes, value)*, checked to fit; empty for v1.
        tlvs: Box<[u8]>,
    },
}

/// The facts for a header to a backend; [`write()`] announces those that the configuration of the pool selects.
#[derive(Debug, Clone, Copy, Default)]
pub struct Announce<'a> {
    /// The addresses of the client and of its destination. `None`: the header is LOCAL or UNKNOWN.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The protocols the client offers, as a raw ProtocolNameList body (`ClientHello::alpn`); the first is sent.
    pub alpn: Option<&'a [u8]>,
    /// The server name that the client asked for.
    pub authority: Option<&'a str>,
    /// The connection's id; the protocol allows 128 bytes.
    pub unique_id: Option<&'a [u8]>,
    /// The value of the SSL TLV that an incoming header carried; passed on unchanged.
    pub ssl: Option<&'a [u8]>,
}

/// True if a connection begins with the signature of either version. `None`: too few bytes.
pub fn opens_with_signature(bytes: &[u8]) -> Option<bool> {
    let signature = match bytes.first()? {
        b'P' => V1_SIGNATURE,
        b'\r' => V2_SIGNATURE,
        _ => return Some(false),
    };
    if bytes.len() < signature.len() {
        return if signature.starts_with(bytes) { None } else { Some(false) };
    }
    Some(bytes.starts_with(signature))
}

/// The begin of a connection for the log, as far as a version 1 line could reach: printable ASCII.
pub fn shown(bytes: &[u8]) -> String {
    let line = match bytes.first() {
        Some(b'\r') => bytes,
        _ => bytes.split(|byte| *byte == b'\n').next().unwrap_or_default(),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    shown_bytes(line, V1_MAX)
}

/// The value of the first TLV of this kind.
pub fn tlv(mut tlvs: &[u8], kind: u8) -> Option<&[u8]> {
    while let Some((this, value, rest)) = split_tlv(tlvs) {
        if this == kind {
            return Some(value);
        }
        tlvs = rest;
    }
    None
}

/// TLVs to keep for the life of a connection, and whether any was left out: the first one of each wanted kind. A short
/// list is kept whole.
pub fn kept_tlvs(tlvs: Box<[u8]>, wanted: impl Fn(u8) -> bool) -> (Box<[u8]>, bool) {
    if tlvs.len() <= TLVS_WHOLE {
        return (tlvs, false);
    }
    let (mut kept, mut seen, mut rest) = (Vec::new(), [false; 256], &*tlvs);
    while let Some((kind, _, behind)) = split_tlv(rest) {
        if wanted(kind) && !std::mem::replace(&mut seen[usize::from(kind)], true) {
            kept.extend_from_slice(&rest[..rest.len() - behind.len()]);
        }
        rest = behind;
    }
    (kept.into(), true)
}

/// The kind and value of the first TLV, and the bytes behind it. `None`: no whole TLV is left.
fn split_tlv(tlvs: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = tlvs.split_first_chunk::<3>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}

/// An IPv4-mapped IPv6 address as the IPv4 address it is.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
