//! [`session_hash`]: a session in the log without its cookie.
//!
//! Keeps no value. Invariant: equal values have equal hashes on every machine, so `printf %s VALUE | sha256sum` finds the
//! lines of a session; the value cannot be had back from the hash unless it can be guessed.

use aws_lc_rs::digest::{SHA256, digest};
use xxhash_rust::xxh3::xxh3_64;

/// The first 8 bytes of the SHA-256 of a cookie's value, which the log has as 16 hexadecimal digits.
pub fn session_hash(value: &[u8]) -> u64 {
    digest(&SHA256, value).as_ref().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// The last hash, for a client that brings the same value again and again.
#[derive(Debug, Clone, Copy, Default)]
pub struct LastSession {
    /// A cheap hash of the value. A client that finds two values for one of these confuses its own lines alone.
    seen: u64,
    hash: Option<u64>,
}

impl LastSession {
    /// The [`session_hash`] of a value.
    pub fn hash_of(&mut self, value: &[u8]) -> u64 {
        let seen = xxh3_64(value);
        match self.hash {
            Some(hash) if self.seen == seen => hash,
            _ => {
                let hash = session_hash(value);
                *self = Self { seen, hash: Some(hash) };
                hash
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_begin_of_what_sha256sum_prints() {
        assert_eq!(session_hash(b"31d4"), 0x7e67_63c0_50cb_6bdb);
        assert_eq!(session_hash(b""), 0xe3b0_c442_98fc_1c14);
    }

    #[test]
    fn a_client_that_changes_its_value_gets_another_hash() {
        let mut last = LastSession::default();
        for value in [&b""[..], b"31d4", b"31d4", b"31d5", b"", b"31d4"] {
            assert_eq!(last.hash_of(value), session_hash(value));
        }
    }
}
