//! The hash of a key in the stick table: SipHash-1-3 under a secret of 128 bits.
//!
//! Stores no key and makes no random number. Invariant: without the secret it is not possible to find keys that share a
//! bucket, or two keys with one hash.
//!
//! # Why 64 bits
//!
//! The whole hash stands in the entry and both buckets follow from it, so a table can change its size and can be
//! written to a file. A new key has the hash of one of n known keys with probability n / 2⁶⁴: with a million of them,
//! at ten thousand new keys a second, once in 56 years, and then one client goes to the backend of another. 128 bits
//! would cost three more rounds of SipHash in every pick.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Hash of a key in the stick table.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub(super) u64);

impl KeyHash {
    /// Returns the hash as a number, for a row that travels to another process with the same secret.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Takes the number of a hash.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// Secret of the hashes, which makes them unpredictable; one for all stick tables of a process and for its file.
#[derive(Clone)]
pub struct Secret {
    bytes: [u8; 16],
    keys: SipHasher13,
    cookies: SipHasher13,
}

impl Secret {
    /// A secret of 16 bytes, random or from the stick-table file.
    pub fn new(bytes: [u8; 16]) -> Self {
        let keys = SipHasher13::new_with_key(&bytes);
        // The key of a connection and the value of a cookie may be the same bytes, but belong to different clients.
        let part = |half: u8| {
            let mut hasher = keys;
            hasher.write(&[b'c', half]);
            hasher.finish()
        };
        Self { bytes, keys, cookies: SipHasher13::new_with_keys(part(0), part(1)) }
    }

    /// Hashes the bytes of a connection's key, as [`sticky::key`](crate::sticky::key) encodes them.
    #[inline]
    pub fn key(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.keys.hash(key))
    }

    /// Hashes the value of an application's cookie.
    #[inline]
    pub fn cookie(&self, value: &[u8]) -> KeyHash {
        KeyHash(self.cookies.hash(value))
    }

    /// The 16 bytes, for the stick-table file.
    pub fn bytes(&self) -> [u8; 16] {
        self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({:016x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_differs_by_key_by_secret_and_by_kind() {
        let (one, other) = (Secret::new([1; 16]), Secret::new([2; 16]));
        assert_eq!(one.key(b"a"), Secret::new([1; 16]).key(b"a"));
        assert_ne!(one.key(b"a"), one.key(b"b"));
        assert_ne!(one.key(b"a"), other.key(b"a"));
        assert_ne!(one.key(b"a"), one.cookie(b"a"));
        assert_ne!(one.cookie(b"a"), other.cookie(b"a"));
    }

    #[test]
    fn nothing_printed_shows_the_secret() {
        assert_eq!(format!("{:?}", Secret::new([7; 16])), "Secret");
    }
}
