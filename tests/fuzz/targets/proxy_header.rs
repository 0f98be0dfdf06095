//! PROXY headers of both versions: final verdicts, an independent reading, and what is written reads as the same.

use std::net::{IpAddr, SocketAddr};

use sessile::config::{ProxyOut, ProxyTlv, ProxyVersion};
use sessile::outcome::Ended;
use sessile::progress::Progress;
use sessile::proxy_protocol::ssl::Ssl;
use sessile::proxy_protocol::{self, Announce, HEADER_MAX, Header, TLV_SSL, opens_with_signature, parse, tlv};

use crate::cost::{Limit, bounded};
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "proxy_header",
    run,
    words: &[
        b"PROXY ",
        b"TCP4 ",
        b"TCP6 ",
        b"UNKNOWN",
        b"\r\n",
        b" 1 2\r\n",
        b"127.0.0.1 ",
        b"::ffff:1.2.3.4 ",
        b"::1 ",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\x21\x11\0\x0c",
        b"\x21\x21\0\x24",
        b"\x20\0\0\0",
        b"\x21\x12",
        b"\x21\x31",
        b"\x21\0",
        b"\x01\0\x02h2",
        b"\x02\0\x01a",
        b"\x03\0\x04SUM!",
        b"\x04\0\0",
        b"\x20\0\x05\x01\0\0\0\0",
        b"\x21\0\x07TLSv1.3",
    ],
    seeds: Vec::new,
    length_max: 6_000,
    mutants: 20_000,
};

/// The TLVs are kept, and nothing else; an error of a text costs no memory either.
const READ: Limit = Limit { allocations: 1, bytes: HEADER_MAX as u64, steps: 1_000, steps_per_byte: 20 };

fn run(bytes: &[u8]) {
    let bytes = &with_checksum(bytes)[..];
    let whole = bounded("reading a PROXY header", bytes.len(), READ, || parse(bytes));
    for stop in super::cuts(bytes) {
        let part = parse(&bytes[..stop]);
        assert!(part == whole || part == Progress::More, "{part:?} at {stop}, {whole:?} at the end");
    }
    assert!(bytes.len() < HEADER_MAX || whole != Progress::More, "a header of more than the most");
    match (opens_with_signature(bytes), &whole) {
        (Some(false), whole) => assert_eq!(whole, &Progress::No(Ended::ProxyMalformed)),
        (None, whole) => assert_eq!(whole, &Progress::More),
        (Some(true), _) => {}
    }
    match &whole {
        Progress::Done((header, length)) => {
            assert!((1..=bytes.len().min(HEADER_MAX)).contains(length));
            assert_eq!(parse(&bytes[..*length]), whole, "without what follows");
            assert_eq!(parse(&bytes[..length - 1]), Progress::More, "not before its last byte");
            check_header(header);
            if bytes.starts_with(b"PROXY") {
                check_line(&bytes[..*length], header);
            } else {
                check_block(&bytes[..*length], header);
            }
        }
        Progress::No(_) => assert_eq!(parse(&[bytes, b"\r\nPROXY UNKNOWN\r\n"].concat()), whole, "final"),
        Progress::More => {}
    }
    if let Some(ssl) = Ssl::read(bytes) {
        assert_eq!(Ssl::read(&ssl.write()), Some(ssl), "facts about TLS");
    }
}

/// A version 2 header with the checksum `SUM!` gets the right one, so that what is behind the check is reached, too.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut fixed = bytes.to_vec();
    let length = match bytes {
        [b'\r', .., _] if bytes.len() > 16 => 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])),
        _ => return fixed,
    };
    let Some(at) = fixed.get(..length).and_then(|header| header.windows(7).position(|tlv| tlv == b"\x03\0\x04SUM!"))
    else {
        return fixed;
    };
    fixed[at + 3..at + 7].fill(0);
    let sum = crc32c::crc32c(&fixed[..length]);
    fixed[at + 3..at + 7].copy_from_slice(&sum.to_be_bytes());
    fixed
}

/// Addresses are canonical, and a written header reads as the same.
fn check_header(header: &Header) {
    let Header::Proxied { source, destination, tlvs } = header else { return };
    for address in [source, destination] {
        assert_eq!(address.ip(), address.ip().to_canonical());
    }
    let every = vec![ProxyTlv::Alpn, ProxyTlv::Authority, ProxyTlv::UniqueId, ProxyTlv::Ssl, ProxyTlv::Crc32c];
    let ssl = tlv(tlvs, TLV_SSL);
    let announce =
        Announce { addresses: Some((*source, *destination)), ssl, authority: Some("a"), ..Announce::default() };
    for (version, tlvs) in [(ProxyVersion::V1, Vec::new()), (ProxyVersion::V2, every)] {
        let mut written = Vec::new();
        proxy_protocol::write(&mut written, &ProxyOut { version, tlvs }, &announce);
        let Progress::Done((Header::Proxied { source: again, destination: target, tlvs }, length)) = parse(&written)
        else {
            panic!("written, but not read: {}", written.escape_ascii());
        };
        assert_eq!((again, target, length), (*source, *destination, written.len()));
        // A value that leaves no room in the header is left out.
        if version == ProxyVersion::V2 && ssl.is_none_or(|ssl| ssl.len() < 3_900) {
            assert_eq!(tlv(&tlvs, TLV_SSL), ssl);
        }
    }
}

/// A line as the standard library reads its words.
fn check_line(line: &[u8], header: &Header) {
    let text = std::str::from_utf8(line).unwrap_or("PROXY UNKNOWN");
    let words: Vec<_> = text.trim_end_matches("\r\n").split(' ').collect();
    match header {
        Header::Local => assert_eq!(words[1], "UNKNOWN"),
        Header::Proxied { source, destination, tlvs } => {
            let [_, family, from, to, from_port, to_port] = words[..] else { panic!("{text}") };
            let read = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().expect("an address");
                assert!(family == "TCP6" || ip.is_ipv4(), "{text}");
                SocketAddr::new(ip.to_canonical(), port.parse().expect("a port"))
            };
            assert_eq!((read(from, from_port), read(to, to_port)), (*source, *destination));
            assert!(["TCP4", "TCP6"].contains(&family) && tlvs.is_empty());
        }
    }
}

/// A block as its first bytes say.
fn check_block(bytes: &[u8], header: &Header) {
    assert_eq!(bytes.len(), 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]])));
    let Header::Proxied { source, destination, tlvs } = header else {
        assert!(bytes[12] == 0x20 || ![0x11, 0x21].contains(&bytes[13]));
        return;
    };
    let width = if bytes[13] == 0x11 { 4 } else { 16 };
    let address = |at: usize, port: usize| {
        let ip: IpAddr = match &bytes[at..at + width] {
            [a, b, c, d] => [*a, *b, *c, *d].into(),
            long => <[u8; 16]>::try_from(long).expect("sixteen bytes").into(),
        };
        SocketAddr::new(ip.to_canonical(), u16::from_be_bytes([bytes[port], bytes[port + 1]]))
    };
    let ports = 16 + 2 * width;
    assert_eq!((*source, *destination), (address(16, ports), address(16 + width, ports + 2)));
    assert_eq!(tlvs[..], bytes[ports + 4..]);
}
