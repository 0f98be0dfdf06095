//! Headers written by hand from the specification, headers written by `write`, and headers that were damaged.
//!
//! Invariant: whatever is valid here is `More` at every shorter length, and gives the same answer whatever follows it.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::config::{ProxyOut, ProxyTlv, ProxyVersion};
use crate::outcome::Ended;
use crate::progress::Progress;

const EVERY_TLV: [ProxyTlv; 5] =
    [ProxyTlv::Crc32c, ProxyTlv::Ssl, ProxyTlv::Alpn, ProxyTlv::Authority, ProxyTlv::UniqueId];

/// A v2 header with this version and command, family and transport, and block.
fn v2(version_command: u8, family_transport: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [V2_SIGNATURE, &[version_command, family_transport], &length, block].concat()
}

/// 192.0.2.1:56324 → 198.51.100.7:443, then these TLVs.
fn tcp4(tlvs: &[u8]) -> Vec<u8> {
    let block = [&[192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb], tlvs].concat();
    v2(0x21, 0x11, &block)
}

fn proxied(source: &str, destination: &str, tlvs: &[u8]) -> Header {
    Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap(), tlvs: tlvs.into() }
}

fn written(version: ProxyVersion, tlvs: &[ProxyTlv], announce: &Announce<'_>) -> Vec<u8> {
    let mut out = b"kept".to_vec();
    write(&mut out, &ProxyOut { version, tlvs: tlvs.to_vec() }, announce);
    out.split_off(4)
}

/// The header parses as this, at no shorter length, and ignoring what follows.
fn assert_reads(bytes: &[u8], header: &Header) {
    for length in 0..bytes.len() {
        assert_eq!(parse(&bytes[..length]), Progress::More, "at {length} of {bytes:x?}");
    }
    for rest in [&b""[..], b"\r\n", b"PROXY ", &[0xff; 5000]] {
        assert_eq!(parse(&[bytes, rest].concat()), Progress::Done((header.clone(), bytes.len())), "{bytes:x?}");
    }
}

fn assert_refused(bytes: &[u8], ended: Ended) {
    assert_eq!(parse(bytes), Progress::No(ended), "{:?}", bytes.escape_ascii().to_string());
}

#[test]
fn version_1_lines_are_read() {
    for (line, header) in [
        ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", proxied("192.168.0.1:56324", "192.168.0.11:443", &[])),
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            proxied("255.255.255.255:65535", "255.255.255.255:65535", &[]),
        ),
        ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", proxied("0.0.0.0:0", "0.0.0.0:0", &[])),
        ("PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", proxied("[2001:db8::1]:1", "[::1]:65535", &[])),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:FFFF:ffff:ffff:ffff 65535 65535\r\n",
            proxied(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                &[],
            ),
        ),
        ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6407 5 6\r\n", proxied("192.0.2.1:5", "198.51.100.7:6", &[])),
        // What a proxy writes that has an IPv6 client and listens on an IPv4 address, or the reverse.
        ("PROXY TCP6 2001:db8::1 198.51.100.7 5 6\r\n", proxied("[2001:db8::1]:5", "198.51.100.7:6", &[])),
        ("PROXY TCP6 192.0.2.1 2001:db8::1 5 6\r\n", proxied("192.0.2.1:5", "[2001:db8::1]:6", &[])),
        ("PROXY TCP6 192.0.2.1 198.51.100.7 5 6\r\n", proxied("192.0.2.1:5", "198.51.100.7:6", &[])),
        ("PROXY TCP6 192.0.2.1 ::ffff:198.51.100.7 5 6\r\n", proxied("192.0.2.1:5", "198.51.100.7:6", &[])),
        ("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 5 6\r\n", proxied("192.0.2.1:5", "[2001:db8::1]:6", &[])),
        ("PROXY UNKNOWN\r\n", Header::Local),
        ("PROXY UNKNOWN \r\n", Header::Local),
        ("PROXY UNKNOWN whatever 1.2.3.4\r\n", Header::Local),
        ("PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n", Header::Local),
        (
            "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Header::Local,
        ),
    ] {
        assert_reads(line.as_bytes(), &header);
    }
    assert_reads(b"PROXY UNKNOWN \xff\x00\r\n", &Header::Local);
}

#[test]
fn version_1_lines_that_differ_in_anything_are_malformed() {
    for line in [
        "PROXY \r\n",
        "PROXY\r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
        "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
        "PROXY TCP4 0x1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP4 ::1 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::ffff:1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 1.2.3 ::1 1 2\r\n",
        "PROXY TCP6 01.2.3.4 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4:5 ::1 1 2\r\n",
        "PROXY TCP6 ::1::2 ::1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n",
        "PROXY TCP6 12345::1 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 00 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2a\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN \r \r\n",
        "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "GET / HTTP/1.1\r\n",
        "PROXZ",
        "Q",
        "\u{16}\u{3}",
    ] {
        assert_refused(line.as_bytes(), Ended::ProxyMalformed);
    }
}

#[test]
fn a_header_is_shown_escaped_and_cut() {
    assert_eq!(shown(b"PROXY TCP4 ::1 ::1 1 2\r\nGET / HTTP/1.1\r\n"), "PROXY TCP4 ::1 ::1 1 2");
    assert_eq!(shown(b"GET /\x1b[2J\xff \"\n"), "GET /\\x1b[2J\\xff \\\"");
    assert_eq!(shown(&v2(0x22, 0x11, &[])), "\\r\\n\\r\\n\\x00\\r\\nQUIT\\n\\\"\\x11\\x00\\x00");
    assert_eq!(shown(&[b'x'; 5_000]).len(), V1_MAX);
    assert_eq!(shown(&[0; 5_000]).len(), 4 * V1_MAX);
}

#[test]
fn a_version_1_line_ends_within_107_bytes() {
    let line = |length: usize| [b"PROXY UNKNOWN ", vec![b'x'; length - 16].as_slice(), b"\r\n"].concat();
    assert_reads(&line(107), &Header::Local);
    assert_refused(&line(108), Ended::ProxyMalformed);
    assert_eq!(parse(&line(109)[..106]), Progress::More);
    assert_refused(&line(109)[..107], Ended::ProxyMalformed);
}

#[test]
fn version_2_headers_are_read() {
    assert_reads(&tcp4(&[]), &proxied("192.0.2.1:56324", "198.51.100.7:443", &[]));

    let mut block = Vec::new();
    block.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    block.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    block.extend([0x00, 0x05, 0xff, 0xff]);
    assert_reads(&v2(0x21, 0x21, &block), &proxied("[2001:db8::1]:5", "[2001:db8::2]:65535", &[]));

    let tlvs = [&[0x01, 0, 2, b'h', b'2'][..], &[0x04, 0, 0], &[0xe0, 0, 1, 9]].concat();
    assert_reads(&tcp4(&tlvs), &proxied("192.0.2.1:56324", "198.51.100.7:443", &tlvs));
}

#[test]
fn mapped_addresses_become_ipv4_each_for_itself() {
    let mapped = |last: u8| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, last];
    let both = [&mapped(1)[..], &mapped(2), &[0, 1, 0, 2]].concat();
    assert_reads(&v2(0x21, 0x21, &both), &proxied("192.0.2.1:1", "192.0.2.2:2", &[]));
    let one = [&mapped(1)[..], &[0xfd; 16], &[0, 1, 0, 2]].concat();
    let destination = "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:2";
    assert_reads(&v2(0x21, 0x21, &one), &proxied("192.0.2.1:1", destination, &[]));
}

#[test]
fn what_is_not_tcp_over_ip_counts_as_local() {
    for family_transport in [0x00, 0x01, 0x02, 0x10, 0x12, 0x20, 0x22, 0x30, 0x31, 0x32] {
        assert_reads(&v2(0x21, family_transport, &[]), &Header::Local);
        assert_reads(&v2(0x21, family_transport, &[0xee; 230]), &Header::Local);
    }
    for family_transport in [0x00, 0x11, 0x21, 0x31, 0x47, 0xff] {
        assert_reads(&v2(0x20, family_transport, &[]), &Header::Local);
        assert_reads(&v2(0x20, family_transport, &[0xee; 300]), &Header::Local);
    }
}

#[test]
fn version_2_headers_outside_the_specification_are_malformed() {
    for bytes in [
        v2(0x11, 0x11, &[0; 12]),
        v2(0x31, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x2f, 0x00, &[]),
        v2(0x21, 0x41, &[0; 12]),
        v2(0x21, 0x13, &[0; 12]),
        v2(0x21, 0xf0, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x11, &[]),
        v2(0x21, 0x21, &[0; 35]),
        tcp4(&[1]),
        tcp4(&[1, 0]),
        tcp4(&[1, 0, 1]),
        tcp4(&[1, 0, 1, 2, 9]),
        tcp4(&[1, 0xff, 0xff, 2]),
        tcp4(&[0x03, 0, 3, 0, 0, 0]),
        tcp4(&[0x03, 0, 5, 0, 0, 0, 0, 0]),
        tcp4(&[0x03, 0, 4, 0, 0, 0, 0, 0x03, 0, 4, 0, 0, 0, 0]),
    ] {
        assert_refused(&bytes, Ended::ProxyMalformed);
    }
    for index in 0..V2_SIGNATURE.len() {
        let mut bytes = tcp4(&[]);
        bytes[index] ^= 0x40;
        assert_refused(&bytes[..=index], Ended::ProxyMalformed);
        assert_refused(&bytes, Ended::ProxyMalformed);
    }
}

#[test]
fn headers_beyond_four_kibibytes_are_too_long_before_they_arrive() {
    let padding = |header: usize| {
        let length = header - V2_FIXED - 12 - 3;
        [&[0x04], &(length as u16).to_be_bytes()[..], &vec![0; length]].concat()
    };
    let tlvs = padding(HEADER_MAX);
    assert_reads(&tcp4(&tlvs), &proxied("192.0.2.1:56324", "198.51.100.7:443", &tlvs));
    let longer = tcp4(&padding(HEADER_MAX + 1));
    assert_eq!(parse(&longer[..15]), Progress::More);
    assert_refused(&longer[..16], Ended::ProxyTooLong);
    assert_refused(&longer, Ended::ProxyTooLong);
    assert_refused(&v2(0x20, 0x00, &[0; HEADER_MAX - 15]), Ended::ProxyTooLong);
}

#[test]
fn the_checksum_is_that_of_the_specification() {
    // CRC-32C of "123456789" is 0xe3069283 in every catalogue; computed here bit by bit, sharing nothing with the crate.
    fn bitwise(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
        })
    }
    assert_eq!(bitwise(b"123456789"), 0xe306_9283);
    for (before, after) in [(&[][..], &[][..]), (&[0x04, 0, 1, 7], &[]), (&[], &[0x02, 0, 1, b'a'])] {
        let zeroed = [before, &[0x03, 0, 4, 0, 0, 0, 0], after].concat();
        let sum = bitwise(&tcp4(&zeroed)).to_be_bytes();
        let tlvs = [before, &[0x03, 0, 4], &sum, after].concat();
        let good = tcp4(&tlvs);
        assert_reads(&good, &proxied("192.0.2.1:56324", "198.51.100.7:443", &tlvs));
        for index in V2_FIXED..V2_FIXED + 12 {
            let mut bad = good.clone();
            bad[index] ^= 1;
            assert_refused(&bad, Ended::ProxyChecksum);
        }
        assert_refused(&tcp4(&zeroed), Ended::ProxyChecksum);
    }
}

#[test]
fn tlvs_are_found_by_kind() {
    let tlvs = [0x01, 0, 2, b'h', b'2', 0xe0, 0, 0, 0x02, 0, 1, b'a', 0x02, 0, 1, b'b'];
    assert_eq!(tlv(&tlvs, TLV_ALPN), Some(&b"h2"[..]));
    assert_eq!(tlv(&tlvs, 0xe0), Some(&[][..]));
    assert_eq!(tlv(&tlvs, TLV_AUTHORITY), Some(&b"a"[..]), "the first of two");
    assert_eq!(tlv(&tlvs, TLV_SSL), None);
    assert_eq!(tlv(&[], 1), None);
    assert_eq!(tlv(&[0x01, 0, 9, 1], 1), None, "does not fit");
}

#[test]
fn signatures_are_told_from_everything_else() {
    for whole in [&b"PROXY"[..], V2_SIGNATURE] {
        for length in 0..whole.len() {
            assert_eq!(opens_with_signature(&whole[..length]), None);
            assert_eq!(opens_with_signature(&[&whole[..length], b"\x16"].concat()), Some(false));
        }
        assert_eq!(opens_with_signature(whole), Some(true));
        assert_eq!(opens_with_signature(&[whole, b"anything"].concat()), Some(true));
    }
    for other in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1", b"\r\n\r\nhello", b"PRI * HTTP/2.0"]
    {
        assert_eq!(opens_with_signature(other), Some(false));
    }
}

#[test]
fn headers_are_written_as_the_specification_shows_them() {
    let v4 = Announce {
        addresses: Some(("192.0.2.1:56324".parse().unwrap(), "198.51.100.7:443".parse().unwrap())),
        alpn: Some(b"\x02h2\x08http/1.1"),
        authority: Some("a.example"),
        unique_id: Some(b"id-1"),
        ssl: Some(&[1, 0, 0, 0, 0]),
    };
    assert_eq!(written(ProxyVersion::V1, &[], &v4), b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
    assert_eq!(written(ProxyVersion::V2, &[], &v4), tcp4(&[]));
    let tlvs = b"\x01\0\x02h2\x02\0\x09a.example\x05\0\x04id-1\x20\0\x05\x01\0\0\0\0\x03\0\x04";
    let all = written(ProxyVersion::V2, &EVERY_TLV, &v4);
    assert_eq!(
        all[..all.len() - 4],
        [&tcp4(&[])[..14], &[0, 12 + tlvs.len() as u8 + 4], &tcp4(&[])[16..], tlvs].concat()
    );

    let v6 = Announce {
        addresses: Some(("[2001:db8::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap())),
        ..Announce::default()
    };
    assert_eq!(written(ProxyVersion::V1, &[], &v6), b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    let mixed = Announce {
        addresses: Some(("192.0.2.1:1".parse().unwrap(), "[::1]:2".parse().unwrap())),
        ..Announce::default()
    };
    assert_eq!(written(ProxyVersion::V1, &[], &mixed), b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
    assert_eq!(written(ProxyVersion::V2, &[], &mixed)[13], 0x21);
    let mapped = Announce {
        addresses: Some(("[::ffff:192.0.2.1]:1".parse().unwrap(), "[::ffff:192.0.2.2]:2".parse().unwrap())),
        ..Announce::default()
    };
    assert_eq!(written(ProxyVersion::V1, &[], &mapped), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    assert_eq!(written(ProxyVersion::V2, &[], &mapped)[13], 0x11);
}

#[test]
fn local_stays_local_and_carries_nothing() {
    let local = Announce { authority: Some("a.example"), unique_id: Some(b"id"), ..Announce::default() };
    assert_eq!(written(ProxyVersion::V1, &[], &local), b"PROXY UNKNOWN\r\n");
    assert_eq!(written(ProxyVersion::V2, &EVERY_TLV, &local), v2(0x20, 0x00, &[]));
}

#[test]
fn a_tlv_that_does_not_fit_is_left_out() {
    let room = HEADER_MAX - V2_FIXED - 12 - 3 - 7; // addresses, its own header, the checksum
    for (length, fits) in [(0, true), (room, true), (room + 1, false), (room + 7, false), (70_000, false)] {
        let ssl = vec![7; length];
        let announce = Announce {
            addresses: Some(("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap())),
            ssl: Some(&ssl),
            ..Announce::default()
        };
        let wire = written(ProxyVersion::V2, &EVERY_TLV, &announce);
        let Progress::Done((Header::Proxied { tlvs, .. }, _)) = parse(&wire) else { panic!("not a header") };
        assert_eq!(tlv(&tlvs, TLV_SSL), fits.then_some(ssl.as_slice()), "{length} bytes");
        assert!(tlv(&tlvs, TLV_CRC32C).is_some());
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|ip| Ipv4Addr::from(ip).into()),
        any::<u128>().prop_map(|ip| Ipv6Addr::from(ip).into()),
        any::<u32>().prop_map(|ip| Ipv4Addr::from(ip).to_ipv6_mapped().into()),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn bytes(most: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..most))
}

/// A header as `write` makes it, with the addresses, TLVs and id it was made from.
type Written = (Vec<u8>, Option<(SocketAddr, SocketAddr)>, Vec<ProxyTlv>, Option<Vec<u8>>);

fn valid() -> impl Strategy<Value = Written> {
    let tlvs = proptest::sample::subsequence(EVERY_TLV.to_vec(), 0..=EVERY_TLV.len());
    let version = prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)];
    let addresses = proptest::option::of((address(), address()));
    (version, tlvs, addresses, bytes(128), bytes(5000)).prop_map(|(version, tlvs, addresses, id, ssl)| {
        let announce = Announce {
            addresses,
            alpn: Some(b"\x02h2"),
            authority: Some("a.example"),
            unique_id: id.as_deref(),
            ssl: ssl.as_deref(),
        };
        let tlvs = if version == ProxyVersion::V2 { tlvs } else { Vec::new() };
        (written(version, &tlvs, &announce), addresses, tlvs, id)
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same((wire, addresses, wanted, id) in valid(), stop in any::<prop::sample::Index>()) {
        prop_assert!(wire.len() <= HEADER_MAX);
        prop_assert_eq!(parse(&wire[..stop.index(wire.len())]), Progress::More);
        let Progress::Done((header, length)) = parse(&wire) else { return Err(TestCaseError::fail("not read")) };
        prop_assert_eq!(length, wire.len());
        match header {
            Header::Local => prop_assert_eq!(addresses, None),
            Header::Proxied { source, destination, tlvs } => {
                prop_assert_eq!(addresses.map(|(source, destination)| (canonical(source), canonical(destination))), Some((source, destination)));
                prop_assert_eq!(tlv(&tlvs, TLV_UNIQUE_ID), id.as_deref().filter(|_| wanted.contains(&ProxyTlv::UniqueId)));
                prop_assert_eq!(tlv(&tlvs, TLV_ALPN).is_some(), wanted.contains(&ProxyTlv::Alpn));
                prop_assert_eq!(tlv(&tlvs, TLV_CRC32C).is_some(), wanted.contains(&ProxyTlv::Crc32c));
            }
        }
    }

    #[test]
    fn damaged_headers_get_a_final_answer(
        (mut wire, ..) in valid(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        stops in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        for (at, byte) in hits {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        wire.resize(HEADER_MAX, b'x');
        let last = parse(&wire);
        prop_assert_ne!(&last, &Progress::More);
        for stop in stops {
            let answer = parse(&wire[..stop.index(wire.len())]);
            prop_assert!(answer == Progress::More || answer == last, "{answer:?} became {last:?}");
        }
    }

    #[test]
    fn a_damaged_header_with_a_checksum_is_never_believed(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let announce = Announce {
            addresses: Some(("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap())),
            authority: Some("a.example"),
            ..Announce::default()
        };
        let mut bad = written(ProxyVersion::V2, &[ProxyTlv::Crc32c, ProxyTlv::Authority], &announce);
        let at = at.index(bad.len());
        bad[at] ^= flip;
        if let Progress::Done((Header::Proxied { tlvs, .. }, _)) = parse(&bad) {
            prop_assert_eq!(tlv(&tlvs, TLV_CRC32C), None, "the flip hid the checksum, or it must have been noticed");
        }
    }

    #[test]
    fn any_bytes_after_a_signature_get_an_answer(kind in 0..3, rest in proptest::collection::vec(any::<u8>(), 0..300)) {
        let wire = [[b"PROXY TCP4 ".as_slice(), V2_SIGNATURE, b""][kind as usize], &rest].concat();
        let _ = parse(&wire);
        let _ = tlv(&rest, 1);
    }
}
