//! Parses PROXY headers, to the letter of the specification.
//!
//! Repairs nothing: a header that does not match exactly is malformed, but for one that proxies in the field write, an
//! IPv4 address in a TCP6 line. The values of TLVs are not checked, except
//! CRC32C.
//!
//! Invariant: a result is final. Once some bytes are `Done` or `No`, more bytes behind them never change it, and at
//! [`HEADER_MAX`] bytes it is never `More`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use super::{
    HEADER_MAX, Header, LOCAL, PROXY, TCP_OVER_V4, TCP_OVER_V6, TLV_CRC32C, V1_MAX, V2_FIXED, V2_VERSION, canonical,
    opens_with_signature, split_tlv,
};
use crate::outcome::Ended;
use crate::progress::Progress;

/// Reads a header from the first bytes of a connection. `Done` holds the header and its length.
///
/// `No` is `ProxyMalformed`, `ProxyChecksum` or `ProxyTooLong`. Nothing is allocated but the TLVs of a whole header.
pub fn parse(bytes: &[u8]) -> Progress<(Header, usize), Ended> {
    let header = match opens_with_signature(bytes) {
        None => Ok(None),
        Some(false) => Err(Ended::ProxyMalformed),
        Some(true) if bytes[0] == b'P' => parse_v1(bytes),
        Some(true) => parse_v2(bytes),
    };
    header.into()
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, Ended> {
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let end = window.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    match end.map(|end| (end, &window[end..])) {
        Some((end, [b'\r', b'\n', ..])) => {
            let header = read_line(&window[..end]).ok_or(Ended::ProxyMalformed)?;
            Ok(Some((header, end + 2)))
        }
        None | Some((_, [b'\r'])) if window.len() < V1_MAX => Ok(None),
        _ => Err(Ended::ProxyMalformed),
    }
}

/// Reads a v1 line without its CRLF.
fn read_line(line: &[u8]) -> Option<Header> {
    let line = line.strip_prefix(b"PROXY ")?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Header::Local); // whatever follows is to be ignored
    }
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let address: fn(&str) -> Option<IpAddr> = match words.next()? {
        "TCP4" => address_of::<Ipv4Addr>,
        // A proxy with an IPv6 client on an IPv4 socket writes its own address as it is: the mapped one is meant.
        "TCP6" => address_of::<IpAddr>,
        _ => return None,
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| Header::Proxied {
        source: canonical(SocketAddr::new(source, source_port)),
        destination: canonical(SocketAddr::new(destination, destination_port)),
        tlvs: Box::default(),
    })
}

fn address_of<A: FromStr + Into<IpAddr>>(word: &str) -> Option<IpAddr> {
    word.parse::<A>().ok().map(Into::into)
}

/// A port as v1 writes it: decimal digits without leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word == "0" || word.starts_with(|first: char| first.is_ascii_digit() && first != '0');
    if plain { word.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, Ended> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else { return Ok(None) };
    let [.., version_command, family_transport, high, low] = *fixed;
    if version_command & 0xf0 != V2_VERSION {
        return Err(Ended::ProxyMalformed);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_FIXED + length > HEADER_MAX {
        return Err(Ended::ProxyTooLong);
    }
    let Some(block) = rest.get(..length) else { return Ok(None) };
    let header = match version_command & 0x0f {
        LOCAL => Header::Local, // whatever follows is to be ignored, family included
        PROXY => proxied(&bytes[..V2_FIXED + length], family_transport, block)?,
        _ => return Err(Ended::ProxyMalformed),
    };
    Ok(Some((header, V2_FIXED + length)))
}

/// A PROXY command's family, addresses and TLVs. `block` is what follows the fixed part of `header`.
fn proxied(header: &[u8], family_transport: u8, block: &[u8]) -> Result<Header, Ended> {
    const FAMILY_LAST: u8 = 3; // AF_UNIX
    const TRANSPORT_LAST: u8 = 2; // DGRAM
    let addresses = match family_transport {
        TCP_OVER_V4 => split_addresses::<4>(block),
        TCP_OVER_V6 => split_addresses::<16>(block),
        other if other >> 4 <= FAMILY_LAST && other & 0x0f <= TRANSPORT_LAST => return Ok(Header::Local),
        _ => None,
    };
    let (source, destination, tlvs) = addresses.ok_or(Ended::ProxyMalformed)?;
    check_tlvs(header, tlvs)?;
    Ok(Header::Proxied { source: canonical(source), destination: canonical(destination), tlvs: tlvs.into() })
}

/// Splits off two addresses of `N` bytes and their ports.
fn split_addresses<const N: usize>(block: &[u8]) -> Option<(SocketAddr, SocketAddr, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, block) = block.split_first_chunk::<N>()?;
    let (destination, block) = block.split_first_chunk::<N>()?;
    let (source_port, block) = block.split_first_chunk::<2>()?;
    let (destination_port, tlvs) = block.split_first_chunk::<2>()?;
    let address = |ip: &[u8; N], port: &[u8; 2]| SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port));
    Some((address(source, source_port), address(destination, destination_port), tlvs))
}

/// Checks that the TLVs at the end of `header` fill its length exactly, and the checksum if there is one.
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), Ended> {
    let mut checksum = None;
    while !tlvs.is_empty() {
        let (kind, value, rest) = split_tlv(tlvs).ok_or(Ended::ProxyMalformed)?;
        if kind == TLV_CRC32C {
            let value = <[u8; 4]>::try_from(value).map_err(|_| Ended::ProxyMalformed)?;
            let end = header.len() - rest.len();
            if checksum.replace((u32::from_be_bytes(value), end)).is_some() {
                return Err(Ended::ProxyMalformed);
            }
        }
        tlvs = rest;
    }
    let Some((announced, end)) = checksum else { return Ok(()) };
    let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..end - 4]), &[0; 4]);
    let sum = crc32c::crc32c_append(sum, &header[end..]);
    if sum == announced { Ok(()) } else { Err(Ended::ProxyChecksum) }
}
