//! The hash by which the stick table knows a key: SipHash-1-3 under a secret of 128 bits.
//!
//! Keeps no key and makes no randomness. Invariant: without the secret nobody can tell which keys share a bucket, nor
//! make two that are taken for one.
//!
//! # Why 64 bits
//!
//! The whole hash stands in the entry and both buckets follow from it, so a stick table can change its size and a stick table
//! file outlives it. A new key is taken for one of n known ones with probability n / 2⁶⁴: with a million of them, at
//! ten thousand new keys a second, once in 56 years, and then one client is sent where another one lives. 128 bits
//! would cost three more rounds in every pick.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// A key as the stick table knows it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub(super) u64);

/// What makes hashes of keys unforeseeable; one for all memories of a process and for its stick-table file.
#[derive(Clone)]
pub struct Secret {
    bytes: [u8; 16],
    keys: SipHasher13,
    cookies: SipHasher13,
}

impl Secret {
    /// `bytes` are random, or come from the stick-table file.
    pub fn new(bytes: [u8; 16]) -> Self {
        let keys = SipHasher13::new_with_key(&bytes);
        // Keys of connections and values of cookies may be the same bytes; they are not the same client.
        let part = |half: u8| {
            let mut hasher = keys;
            hasher.write(&[b'c', half]);
            hasher.finish()
        };
        Self { bytes, keys, cookies: SipHasher13::new_with_keys(part(0), part(1)) }
    }

    /// Of the bytes of a connection's key, as [`sticky::key`](crate::sticky::key) encodes them.
    #[inline]
    pub fn key(&self, key: &[u8]) -> KeyHash {
        KeyHash(self.keys.hash(key))
    }

    /// Of the value of an application's cookie.
    #[inline]
    pub fn cookie(&self, value: &[u8]) -> KeyHash {
        KeyHash(self.cookies.hash(value))
    }

    /// For the stick-table file.
    pub(super) fn bytes(&self) -> [u8; 16] {
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
