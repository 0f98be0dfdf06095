//! Writes the PROXY header a backend gets before the client's first byte.
//!
//! Gathers no facts: the caller passes them as [`Announce`]. Invariant: a header is at most [`HEADER_MAX`] bytes and
//! parses; a TLV that would exceed the limit is left out, and the checksum is always kept.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    Announce, HEADER_MAX, LOCAL, PROXY, TCP_OVER_V4, TCP_OVER_V6, TLV_ALPN, TLV_AUTHORITY, TLV_CRC32C, TLV_SSL,
    TLV_UNIQUE_ID, UNSPECIFIED, V2_FIXED, V2_SIGNATURE, V2_VERSION, canonical,
};
use crate::config::{ProxyOut, ProxyTlv, ProxyVersion};

/// Length of a CRC32C TLV in bytes.
const CHECKSUM_TLV: usize = 7;

/// Appends the header to `out`.
pub fn write(out: &mut Vec<u8>, config: &ProxyOut, announce: &Announce<'_>) {
    let endpoints = announce.addresses.map(|(source, destination)| Endpoints::new(source, destination));
    match (config.version, endpoints) {
        (ProxyVersion::V1, None) => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
        (ProxyVersion::V1, Some(endpoints)) => out.extend_from_slice(endpoints.line().as_bytes()),
        // LOCAL has nothing after it: a receiver must discard whatever there is.
        (ProxyVersion::V2, None) => put_fixed(out, LOCAL, UNSPECIFIED),
        (ProxyVersion::V2, Some(endpoints)) => put_proxied(out, &endpoints, &config.tlvs, announce),
    }
}

/// Two addresses of one family, as a header needs them.
struct Endpoints {
    source: SocketAddr,
    destination: SocketAddr,
}

impl Endpoints {
    /// Makes both addresses IPv4 if possible, else both IPv6: a header has one family.
    fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let (source, destination) = (canonical(source), canonical(destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Self { source, destination };
        }
        let widen = |address: SocketAddr| SocketAddr::new(v6(address.ip()).into(), address.port());
        Self { source: widen(source), destination: widen(destination) }
    }

    fn line(&self) -> String {
        let Self { source, destination } = self;
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port())
    }

    fn family_transport(&self) -> u8 {
        if self.source.is_ipv4() { TCP_OVER_V4 } else { TCP_OVER_V6 }
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn put_fixed(out: &mut Vec<u8>, command: u8, family_transport: u8) {
    out.extend_from_slice(V2_SIGNATURE);
    out.extend_from_slice(&[V2_VERSION | command, family_transport, 0, 0]);
}

fn put_proxied(out: &mut Vec<u8>, endpoints: &Endpoints, wanted: &[ProxyTlv], announce: &Announce<'_>) {
    let start = out.len();
    put_fixed(out, PROXY, endpoints.family_transport());
    for address in [endpoints.source, endpoints.destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for address in [endpoints.source, endpoints.destination] {
        out.extend_from_slice(&address.port().to_be_bytes());
    }
    for (word, kind, value) in [
        (ProxyTlv::Alpn, TLV_ALPN, announce.alpn.and_then(first_protocol)),
        (ProxyTlv::Authority, TLV_AUTHORITY, announce.authority.map(str::as_bytes)),
        (ProxyTlv::UniqueId, TLV_UNIQUE_ID, announce.unique_id),
        (ProxyTlv::Ssl, TLV_SSL, announce.ssl),
    ] {
        let Some(value) = value.filter(|_| wanted.contains(&word)) else { continue };
        if out.len() - start + 3 + value.len() + CHECKSUM_TLV <= HEADER_MAX {
            put_tlv(out, kind, value);
        }
    }
    let checked = wanted.contains(&ProxyTlv::Crc32c);
    if checked {
        put_tlv(out, TLV_CRC32C, &[0; 4]);
    }
    // At most HEADER_MAX, so two bytes hold it.
    let length = (out.len() - start - V2_FIXED) as u16;
    out[start + V2_FIXED - 2..start + V2_FIXED].copy_from_slice(&length.to_be_bytes());
    if checked {
        let (end, sum) = (out.len(), crc32c::crc32c(&out[start..]));
        out[end - 4..].copy_from_slice(&sum.to_be_bytes());
    }
}

fn put_tlv(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

/// The first name of a ProtocolNameList body.
fn first_protocol(list: &[u8]) -> Option<&[u8]> {
    let (length, names) = list.split_first()?;
    names.get(..usize::from(*length))
}
