//! [`Ssl`]: facts about a client's TLS in PP2_TYPE_SSL, a TLV of a PROXY v2 header (proxy-protocol.txt §2.2.6).
//!
//! ```text
//! flags (1): 0x01 client used TLS, 0x02 showed a certificate now, 0x04 showed one when its session began
//! verify (4, big-endian): 0 = it showed one and that was verified
//! TLVs: 0x21 version, 0x22 common name, 0x23 cipher
//! ```
//!
//! Checks nothing: which peers may announce this is decided by `trust`. Invariant: a written value reads as the same.

use super::split_tlv;

const CLIENT_TLS: u8 = 0x01;
const CERTIFICATE_NOW: u8 = 0x02;
const CERTIFICATE_IN_SESSION: u8 = 0x04;

const VERSION: u8 = 0x21;
const COMMON_NAME: u8 = 0x22;
const CIPHER: u8 = 0x23;

/// The facts about a client's TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ssl<'a> {
    /// True if the client used TLS.
    pub tls: bool,
    /// Whether and when the client showed a certificate.
    pub certificate: Shown,
    /// True if that certificate was verified.
    pub verified: bool,
    /// The protocol version, such as `TLSv1.3`.
    pub version: Option<&'a [u8]>,
    /// The common name of the certificate: UTF-8 by the specification, but any bytes that its authority signed.
    pub common_name: Option<&'a [u8]>,
    /// The cipher suite, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<&'a [u8]>,
}

/// When a client has shown its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shown {
    /// The client has shown no certificate.
    #[default]
    No,
    /// In the handshake that began the resumed session.
    InSession,
    /// In the handshake of this connection.
    Now,
}

impl<'a> Ssl<'a> {
    /// Reads the TLV's value; `None` if it is malformed.
    pub fn read(value: &'a [u8]) -> Option<Self> {
        let (flags, rest) = value.split_first()?;
        let (verify, mut tlvs) = rest.split_first_chunk::<4>()?;
        let certificate = match flags {
            flags if flags & CERTIFICATE_NOW != 0 => Shown::Now,
            flags if flags & CERTIFICATE_IN_SESSION != 0 => Shown::InSession,
            _ => Shown::No,
        };
        let verified = certificate != Shown::No && *verify == [0; 4];
        let mut ssl = Self { tls: flags & CLIENT_TLS != 0, certificate, verified, ..Self::default() };
        while !tlvs.is_empty() {
            let (kind, value, rest) = split_tlv(tlvs)?;
            tlvs = rest;
            match kind {
                VERSION => ssl.version = Some(value),
                COMMON_NAME => ssl.common_name = Some(value),
                CIPHER => ssl.cipher = Some(value),
                _ => {}
            }
        }
        Some(ssl)
    }

    /// Encodes the value of the TLV.
    pub fn write(&self) -> Vec<u8> {
        let shown = match self.certificate {
            Shown::No => 0,
            Shown::InSession => CERTIFICATE_IN_SESSION,
            Shown::Now => CERTIFICATE_IN_SESSION | CERTIFICATE_NOW,
        };
        let mut value = vec![if self.tls { CLIENT_TLS | shown } else { shown }];
        value.extend(u32::from(!self.verified).to_be_bytes());
        let parts = [(VERSION, self.version), (COMMON_NAME, self.common_name), (CIPHER, self.cipher)];
        for (kind, part) in parts.into_iter().filter_map(|(kind, part)| Some((kind, part?))) {
            // What is too long for its length field is left out.
            if let Ok(length) = u16::try_from(part.len()) {
                value.push(kind);
                value.extend(length.to_be_bytes());
                value.extend(part);
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let ssl = Ssl {
            tls: true,
            certificate: Shown::Now,
            verified: true,
            version: Some(b"TLSv1.3"),
            common_name: Some(b"ann"),
            cipher: None,
        };
        let bytes = b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x03ann";
        assert_eq!(ssl.write(), bytes);
        assert_eq!(Ssl::read(bytes), Some(ssl));
        assert_eq!(Ssl { tls: true, ..Ssl::default() }.write(), b"\x01\0\0\0\x01");
    }

    #[test]
    fn what_was_not_shown_was_not_verified() {
        assert!(!Ssl::read(b"\x01\0\0\0\0").unwrap().verified);
        assert_eq!(
            Ssl::read(b"\x05\0\0\0\0").map(|ssl| (ssl.certificate, ssl.verified)),
            Some((Shown::InSession, true))
        );
        assert!(!Ssl::read(b"\x07\0\0\0\x02").unwrap().verified);
    }

    #[test]
    fn what_is_cut_short_is_malformed() {
        let whole = b"\x01\0\0\0\x01\x21\0\x07TLSv1.3";
        assert!(Ssl::read(whole).is_some());
        for length in (0..whole.len()).filter(|length| *length != 5) {
            assert_eq!(Ssl::read(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_reads_the_same(
            tls: bool, shown in 0..3, verified: bool,
            version in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            common_name in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            cipher in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        ) {
            let certificate = [Shown::No, Shown::InSession, Shown::Now][shown as usize];
            let ssl = Ssl {
                tls,
                certificate,
                verified: verified && certificate != Shown::No,
                version: version.as_deref(),
                common_name: common_name.as_deref(),
                cipher: cipher.as_deref(),
            };
            let written = ssl.write();
            prop_assert_eq!(Ssl::read(&written), Some(ssl));
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Ssl::read(&bytes);
        }
    }
}
