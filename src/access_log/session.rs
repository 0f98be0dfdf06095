//! [`session_hash`]: a session in the log without its cookie.
//!
//! Keeps nothing. Invariant: equal values have equal hashes on every machine, so `printf %s VALUE | sha256sum` finds the
//! lines of a session; the value cannot be had back from the hash unless it can be guessed.

use aws_lc_rs::digest::{SHA256, digest};

/// The first 8 bytes of the SHA-256 of a cookie's value, which the log has as 16 hexadecimal digits.
pub fn session_hash(value: &[u8]) -> u64 {
    digest(&SHA256, value).as_ref().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_begin_of_what_sha256sum_prints() {
        assert_eq!(session_hash(b"31d4"), 0x7e67_63c0_50cb_6bdb);
        assert_eq!(session_hash(b""), 0xe3b0_c442_98fc_1c14);
    }
}
