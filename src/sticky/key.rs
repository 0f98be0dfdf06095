//! The key of a connection: its facts as the bytes that placement hashes.
//!
//! Hashes nothing itself. Invariant: two different lists of part values never give the same bytes, and a key of up to
//! [`INLINE`] bytes touches no heap.
//!
//! # Wire format
//!
//! The parts of the pool's `key`, in the order written there, each as one tag byte and its value:
//!
//! | tag | part | value |
//! |---|---|---|
//! | 0 | absent (no SNI, no such TLV, no such value of a request or an empty one) | none |
//! | 1 | source, IPv4 | 4 bytes big-endian, bits after the prefix cleared |
//! | 2 | source, IPv6 | 16 bytes big-endian, bits after the prefix cleared |
//! | 3 | server name | length as u16 big-endian, the bytes |
//! | 4 | TLV | length as u16 big-endian, the bytes |
//! | 5 | source inside a range that is one key | length of the range's name as u16 big-endian, the name |
//! | 6 | cookie | length as u16 big-endian, the value |
//! | 7 | header | length as u16 big-endian, the value of the first such field that is not empty |
//! | 8 | query | length as u16 big-endian, the value of the first such name that is not empty |
//! | 9 | path | length as u16 big-endian, the first segments, each with the slash before it, without slashes at the end |
//! | 10 | path parameter | length as u16 big-endian, the value of the first such parameter that is not empty |
//! | 11 | client certificate | length as u16 big-endian, the subject as RFC 4514 writes it, in printable ASCII |
//!
//! A chain (`A or B`) is the first of its parts that is present, and 0 if none is. Names of cookies, fields and parameters
//! do not enter. Values of requests are the bytes that were sent: percent-encoding is not decoded, so two spellings of
//! one path are two keys. A head of 32 KiB bounds their length; a stick table stores nothing but a hash of the key.
//!
//! IPv4-mapped addresses are IPv4. With no part present, or no source (PROXY LOCAL), there is no key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Facts;
use crate::config::KeyPart;
use crate::proxy_protocol;

/// Keys up to this length need no heap: a source and a server name of any length fit.
pub const INLINE: usize = 320;

const ABSENT: u8 = 0;
const SOURCE_V4: u8 = 1;
const SOURCE_V6: u8 = 2;
const SNI: u8 = 3;
const TLV: u8 = 4;
const RANGE: u8 = 5;
const COOKIE: u8 = 6;
const HEADER: u8 = 7;
const QUERY: u8 = 8;
const PATH: u8 = 9;
const PATH_PARAMETER: u8 = 10;
const CLIENT_CERTIFICATE: u8 = 11;

/// Form in which the source enters the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceAs<'a> {
    /// The address cut to this many leading bits.
    Prefix {
        /// Bits of an IPv4 address, 0 to 32.
        v4: u8,
        /// Bits of an IPv6 address, 0 to 128.
        v6: u8,
    },
    /// The name of the range that contains the address.
    Range(&'a str),
}

impl SourceAs<'_> {
    /// One prefix length for both families; a range has one family only.
    pub fn prefix(bits: u8) -> Self {
        Self::Prefix { v4: bits, v6: bits }
    }
}

/// Bytes of one client's key.
#[derive(Debug, Clone)]
pub struct Key {
    inline: [u8; INLINE],
    length: usize,
    /// The whole key if it is longer than `inline`, else empty.
    spilled: Vec<u8>,
}

impl Key {
    /// Calls `then` with the bytes of `parts`; `None` if no part is present. The usual key, a source alone, is built on
    /// the spot: the buffer with room for a server name is neither filled nor moved.
    #[inline]
    pub fn with<T>(
        parts: &[KeyPart],
        source_as: SourceAs<'_>,
        facts: &Facts<'_>,
        then: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let ([KeyPart::Source], SourceAs::Prefix { v4, v6 }) = (parts, source_as) else {
            return Self::encode(parts, source_as, facts).map(|key| then(key.as_bytes()));
        };
        Some(match facts.source?.to_canonical() {
            IpAddr::V4(address) => {
                // Written as one word: the hash reads several bytes at once, and would wait for single stores.
                let address = u64::from(cut_v4(address, v4).to_bits());
                let word = u64::from(SOURCE_V4) << 56 | address << 24;
                then(&word.to_be_bytes()[..5])
            }
            IpAddr::V6(address) => {
                let mut bytes = [SOURCE_V6; 17];
                bytes[1..].copy_from_slice(&cut_v6(address, v6).octets());
                then(&bytes)
            }
        })
    }

    /// Encodes `parts`; `None` if no part is present.
    pub fn encode(parts: &[KeyPart], source_as: SourceAs<'_>, facts: &Facts<'_>) -> Option<Self> {
        let mut key = Self { inline: [0; INLINE], length: 0, spilled: Vec::new() };
        let mut present = false;
        for part in parts {
            match part.alternatives().iter().any(|part| key.push_part(part, source_as, facts)) {
                true => present = true,
                false => key.push(&[ABSENT]),
            }
        }
        present.then_some(key)
    }

    /// Appends a part; false if it is absent.
    fn push_part(&mut self, part: &KeyPart, source_as: SourceAs<'_>, facts: &Facts<'_>) -> bool {
        let (tag, value) = match part {
            KeyPart::Source => {
                facts.source.inspect(|source| self.push_source(source.to_canonical(), source_as));
                return facts.source.is_some();
            }
            KeyPart::Sni => (SNI, facts.sni.map(str::as_bytes)),
            KeyPart::Tlv(kind) => (TLV, proxy_protocol::tlv(facts.tlvs, *kind)),
            KeyPart::Cookie(_) => (COOKIE, facts.value(part)),
            KeyPart::Header(_) => (HEADER, facts.value(part)),
            KeyPart::Query(_) => (QUERY, facts.value(part)),
            KeyPart::Path(_) => (PATH, facts.value(part)),
            KeyPart::PathParameter(_) => (PATH_PARAMETER, facts.value(part)),
            KeyPart::ClientCertificate => (CLIENT_CERTIFICATE, facts.value(part)),
            // A chain has no chains in it.
            KeyPart::FirstOf(_) => return false,
        };
        value.inspect(|value| self.push_counted(tag, value)).is_some()
    }

    /// The bytes that placement hashes.
    pub fn as_bytes(&self) -> &[u8] {
        if self.spilled.is_empty() { &self.inline[..self.length] } else { &self.spilled }
    }

    fn push_source(&mut self, source: IpAddr, source_as: SourceAs<'_>) {
        match (source_as, source) {
            (SourceAs::Range(name), _) => self.push_counted(RANGE, name.as_bytes()),
            (SourceAs::Prefix { v4: prefix, .. }, IpAddr::V4(address)) => {
                self.push(&[SOURCE_V4]);
                self.push(&cut_v4(address, prefix).octets());
            }
            (SourceAs::Prefix { v6: prefix, .. }, IpAddr::V6(address)) => {
                self.push(&[SOURCE_V6]);
                self.push(&cut_v6(address, prefix).octets());
            }
        }
    }

    /// Appends tag, length and value. No hello, TLV or head has a value above 65,535 bytes; a longer one would be cut.
    fn push_counted(&mut self, tag: u8, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        let [high, low] = length.to_be_bytes();
        self.push(&[tag, high, low]);
        self.push(&value[..usize::from(length)]);
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if self.spilled.is_empty()
            && let Some(room) = self.inline.get_mut(self.length..end)
        {
            room.copy_from_slice(bytes);
            self.length = end;
            return;
        }
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(&self.inline[..self.length]);
        }
        self.spilled.extend_from_slice(bytes);
    }
}

/// Text of a key for display, as far as its bytes go. Values that may be secrets of a session stay hidden, and bytes that
/// a client chose are escaped, so that none controls a terminal.
pub fn show(mut bytes: &[u8]) -> String {
    let mut parts = Vec::new();
    while let Some((tag, rest)) = bytes.split_first() {
        let (part, length) = match (*tag, counted(rest)) {
            (ABSENT, _) => ("-".to_owned(), 0),
            (SOURCE_V4, _) if rest.len() >= 4 => (Ipv4Addr::from([rest[0], rest[1], rest[2], rest[3]]).to_string(), 4),
            (SOURCE_V6, _) => match rest.first_chunk::<16>() {
                Some(octets) => (Ipv6Addr::from(*octets).to_string(), 16),
                None => break,
            },
            (COOKIE, Some((_, length))) => ("cookie".to_owned(), length),
            (HEADER, Some((_, length))) => ("header".to_owned(), length),
            (QUERY, Some((_, length))) => ("query".to_owned(), length),
            (PATH_PARAMETER, Some((_, length))) => ("path_parameter".to_owned(), length),
            (TLV, Some((value, length))) => (data_encoding::HEXLOWER.encode(value), length),
            (SNI | RANGE | PATH | CLIENT_CERTIFICATE, Some((value, length))) => {
                (value.escape_ascii().to_string(), length)
            }
            _ => break,
        };
        parts.push(part);
        bytes = rest.get(length..).unwrap_or_default();
    }
    if !bytes.is_empty() {
        parts.push("…".to_owned());
    }
    parts.join(" ")
}

/// A value with a length before it, as far as it is there, and the number of bytes that both take.
fn counted(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, value) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some((&value[..length.min(value.len())], 2 + length))
}

/// The address with all bits after the prefix cleared.
pub fn cut(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => cut_v4(address, prefix).into(),
        IpAddr::V6(address) => cut_v6(address, prefix).into(),
    }
}

fn cut_v4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let cleared = 32_u32.saturating_sub(prefix.into());
    (address.to_bits() & u32::MAX.checked_shl(cleared).unwrap_or(0)).into()
}

fn cut_v6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let cleared = 128_u32.saturating_sub(prefix.into());
    (address.to_bits() & u128::MAX.checked_shl(cleared).unwrap_or(0)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts<'a>(source: &str, sni: Option<&'a str>, tlvs: &'a [u8]) -> Facts<'a> {
        Facts { source: source.parse().ok(), sni, tlvs, values: &[] }
    }

    fn bytes(parts: &[KeyPart], source_as: SourceAs<'_>, facts: &Facts<'_>) -> Vec<u8> {
        Key::encode(parts, source_as, facts).expect("a key").as_bytes().to_vec()
    }

    #[test]
    fn the_wire_format_is_as_documented() {
        let tlvs = [0xea, 0, 2, 7, 8];
        let all = [KeyPart::Source, KeyPart::Sni, KeyPart::Tlv(0xea), KeyPart::Tlv(0xeb)];
        let known = facts("10.1.2.3", Some("a.b"), &tlvs);
        assert_eq!(
            bytes(&all, SourceAs::prefix(24), &known),
            [1, 10, 1, 2, 0, 3, 0, 3, b'a', b'.', b'b', 4, 0, 2, 7, 8, 0]
        );
        assert_eq!(bytes(&all[..1], SourceAs::Range("hq"), &known), [5, 0, 2, b'h', b'q']);
        let v6 = bytes(&all[..2], SourceAs::prefix(64), &facts("2001:db8::1", None, &[]));
        assert_eq!(v6, [2, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_cookie_enters_the_key_by_its_value_alone() {
        let cookie = |cookies: &[(&str, &[u8])]| {
            let parts: Vec<_> = cookies.iter().map(|(name, _)| KeyPart::Cookie((*name).into())).collect();
            let values: Vec<_> = parts.iter().zip(cookies).map(|(part, (_, value))| (part, *value)).collect();
            let facts = Facts { values: &values, ..facts("10.1.2.3", None, &[]) };
            Key::encode(&[KeyPart::Cookie("SID".into())], SourceAs::prefix(32), &facts)
                .map(|key| key.as_bytes().to_vec())
        };
        assert_eq!(cookie(&[("sid", b"no"), ("SID", b"xy"), ("SID", b"z")]).unwrap(), [6, 0, 2, b'x', b'y']);
        assert_eq!(cookie(&[("SID", b""), ("SID", b"xy")]).unwrap(), [6, 0, 2, b'x', b'y']);
        assert_eq!(cookie(&[]), None, "nothing else is known");
        assert_eq!(cookie(&[("SID", b"")]), None);
    }

    #[test]
    fn each_part_of_a_request_has_a_tag_of_its_own() {
        let parts = [
            KeyPart::Header("x-user".into()),
            KeyPart::Query("user".into()),
            KeyPart::Path(2),
            KeyPart::PathParameter("sid".into()),
            KeyPart::ClientCertificate,
        ];
        let values = parts.each_ref().map(|part| (part, &b"/v"[..]));
        let known = Facts { values: &values, ..facts("10.1.2.3", None, &[]) };
        let tagged: Vec<u8> = (7..=11).flat_map(|tag| [tag, 0, 2, b'/', b'v']).collect();
        assert_eq!(bytes(&parts, SourceAs::prefix(32), &known), tagged);
        let shown = show(&tagged);
        assert_eq!(shown, "header query /v path_parameter /v");
        assert!((0..tagged.len()).all(|end| shown.starts_with(show(&tagged[..end]).trim_end_matches(['…', ' ']))));
        let empty = parts.each_ref().map(|part| (part, &b""[..]));
        let known = Facts { values: &empty, ..facts("10.1.2.3", None, &[]) };
        assert!(Key::encode(&parts, SourceAs::prefix(32), &known).is_none(), "an empty value is none");
    }

    #[test]
    fn a_chain_is_the_first_of_its_parts_that_is_there() {
        let [header, cookie] = [KeyPart::Header("x".into()), KeyPart::Cookie("c".into())];
        let chain = KeyPart::FirstOf([header.clone(), cookie.clone(), KeyPart::Source].into());
        let of = |parts: &[KeyPart], values: &[(&KeyPart, &[u8])], source: &str| {
            let facts = Facts { values, ..facts(source, None, &[]) };
            Key::encode(parts, SourceAs::prefix(32), &facts).map(|key| key.as_bytes().to_vec())
        };
        let chain = std::slice::from_ref(&chain);
        let (h, c) = ((&header, &b"h"[..]), (&cookie, &b"c"[..]));
        assert_eq!(of(chain, &[c, h], "10.1.2.3").unwrap(), [7, 0, 1, b'h']);
        assert_eq!(of(chain, &[c, (&header, b"")], "10.1.2.3").unwrap(), [6, 0, 1, b'c']);
        assert_eq!(of(chain, &[], "10.1.2.3"), of(&[KeyPart::Source], &[], "10.1.2.3"), "the key of the part alone");
        assert_eq!(of(chain, &[], "local"), None);
        let beside = [chain[0].clone(), KeyPart::Sni];
        assert_eq!(of(&beside, &[], "local"), None);
        assert_eq!(of(&beside, &[h], "local").unwrap(), [7, 0, 1, b'h', 0]);
    }

    #[test]
    fn a_key_is_shown_without_what_is_secret_in_it() {
        let parts = [KeyPart::Source, KeyPart::Sni, KeyPart::Cookie("SID".into()), KeyPart::Tlv(0xea)];
        let values = [(&parts[2], &b"secret"[..])];
        let facts = Facts { values: &values, ..facts("10.1.2.3", Some("a.b\x1b"), &[0xea, 0, 2, 7, 8]) };
        let key = bytes(&parts, SourceAs::prefix(24), &facts);
        assert_eq!(show(&key), "10.1.2.0 a.b\\x1b cookie 0708");
        assert_eq!(show(&key[..9]), "10.1.2.0 a");
        assert_eq!(show(&key[..3]), "…");
        let v6 =
            bytes(&parts[..2], SourceAs::prefix(64), &Facts { source: "2001:db8::1".parse().ok(), ..Facts::default() });
        assert_eq!(show(&v6), "2001:db8:: -");
        assert_eq!(show(&bytes(&parts[..1], SourceAs::Range("hq"), &facts)), "hq");
        for end in 0..key.len() {
            show(&key[..end]);
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let key = |source| bytes(&[KeyPart::Source], SourceAs::prefix(32), &facts(source, None, &[]));
        assert_eq!(key("::ffff:10.1.2.3"), key("10.1.2.3"));
    }

    #[test]
    fn a_key_made_where_it_is_used_is_the_same() {
        for source in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1:2:3::4", "local"] {
            for source_as in [SourceAs::prefix(20), SourceAs::prefix(48), SourceAs::Range("hq")] {
                for parts in [&[KeyPart::Source][..], &[KeyPart::Source, KeyPart::Sni], &[]] {
                    let facts = facts(source, Some("a.b"), &[]);
                    let encoded = Key::encode(parts, source_as, &facts).map(|key| key.as_bytes().to_vec());
                    assert_eq!(Key::with(parts, source_as, &facts, <[u8]>::to_vec), encoded, "{source} {source_as:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_present_is_no_key() {
        let encode = |parts: &[KeyPart], facts: &Facts<'_>| Key::encode(parts, SourceAs::prefix(32), facts).is_some();
        assert!(!encode(&[], &facts("10.0.0.1", None, &[])));
        assert!(!encode(&[KeyPart::Sni, KeyPart::Tlv(1)], &facts("10.0.0.1", None, &[])));
        assert!(!encode(&[KeyPart::Source, KeyPart::Sni], &facts("local", None, &[])));
        assert!(encode(&[KeyPart::Source, KeyPart::Sni], &facts("local", Some("a.b"), &[])), "a unix peer");
        assert!(encode(&[KeyPart::Source, KeyPart::Sni], &facts("10.0.0.1", None, &[])));
    }

    #[test]
    fn prefixes_clear_the_bits_behind_them() {
        let cut = |address: &str, prefix| cut(address.parse().unwrap(), prefix).to_string();
        assert_eq!(cut("255.255.255.255", 0), "0.0.0.0");
        assert_eq!(cut("255.255.255.255", 20), "255.255.240.0");
        assert_eq!(cut("255.255.255.255", 40), "255.255.255.255");
        assert_eq!(cut("ffff:ffff:ffff:ffff:ffff::1", 56), "ffff:ffff:ffff:ff00::");
        assert_eq!(cut("ffff::1", 0), "::");
    }

    proptest! {
        #[test]
        fn a_key_of_any_length_is_the_concatenation_of_its_parts(
            source: [u8; 4],
            sni in proptest::option::of("[a-z0-9.]{1,253}"),
            value in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut tlvs = vec![9];
            tlvs.extend_from_slice(&(value.len() as u16).to_be_bytes());
            tlvs.extend_from_slice(&value);
            let facts = Facts { source: Some(source.into()), sni: sni.as_deref(), tlvs: &tlvs, values: &[] };
            let mut naive = vec![1];
            naive.extend_from_slice(&source);
            match &sni {
                Some(name) => {
                    naive.push(3);
                    naive.extend_from_slice(&(name.len() as u16).to_be_bytes());
                    naive.extend_from_slice(name.as_bytes());
                }
                None => naive.push(0),
            }
            naive.push(4);
            naive.extend_from_slice(&tlvs[1..]);
            let parts = [KeyPart::Source, KeyPart::Sni, KeyPart::Tlv(9)];
            let key = Key::encode(&parts, SourceAs::prefix(32), &facts).unwrap();
            prop_assert_eq!(key.as_bytes(), &naive[..]);
            prop_assert_eq!(key.spilled.capacity() == 0, naive.len() <= INLINE);
        }
    }
}
