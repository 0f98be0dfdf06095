//! The value of the balancer's own cookie: four facts under a seal, as 76 characters.
//!
//! Judges no time and resolves no backend (`insert` does). Invariants: every value has the same length, every bit of it
//! is under the seal, and a value that opens was sealed with a key of the ring, for a cookie of this name.
//!
//! # Wire format, version 1
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 4 | id of the key, see [`key_ring`](super::key_ring) |
//! | 12 | nonce, random |
//! | 24 | sealed: pool's id, backend's id (XXH3-64, big-endian), issued, last seen (Unix seconds, u32 big-endian) |
//! | 16 | tag |
//!
//! 57 bytes, as base64 for URLs (RFC 4648 §5): 76 characters without padding and without a spare bit, so a value has
//! one spelling. The additional data are `sessile cookie 1 ` and the cookie's name: a value is invalid under another
//! name. The pool is inside the seal and not in the additional data, so that a value of a neighbouring pool can be told
//! from a forged one. Seconds end in 2106.
//!
//! # Why AES-256-GCM-SIV (RFC 8452)
//!
//! Many instances seal under one key and share nothing but that key, so nonces can only be random, and 96 bits repeat
//! with probability n² / 2^97: 2^-33 after 2^32 cookies, nearly surely after 2^49. Under AES-GCM one repetition gives
//! the authentication key away, which is why SP 800-38D §8.3 ends a key's life at 2^32 random nonces: five days of a
//! busy site. Under GCM-SIV a repetition only shows whether the two values hold the same facts. So a key needs no count
//! of its uses; it is changed when people with access to it leave. A value made up without the key opens with a
//! probability below 2^-120.

use aws_lc_rs::aead::{Aad, Nonce as AeadNonce};
use data_encoding::BASE64URL_NOPAD;

use super::key_ring::{ID_LENGTH, KeyRing};
use super::names::NameId;

/// Length of a value, in characters.
pub const VALUE_LENGTH: usize = 76;

/// Nonce of the AEAD: twelve random bytes, fresh for every value.
pub type Nonce = [u8; NONCE_LENGTH];

/// Nonces drawn in advance: one draw of many random bytes costs little more than a draw of twelve, and that costs more
/// than sealing. One for each thread; not for a process that forks.
#[derive(Debug)]
pub struct Nonces {
    drawn: Box<[Nonce; NONCES]>,
    left: usize,
}

impl Nonces {
    /// An empty store; the first [`next`](Self::next) draws.
    pub fn new() -> Self {
        Self { drawn: Box::new([Nonce::default(); NONCES]), left: 0 }
    }

    /// The next nonce; `fill` draws random bytes when none is left.
    pub fn next<E>(&mut self, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Nonce, E> {
        if self.left == 0 {
            fill(self.drawn.as_flattened_mut())?;
            self.left = NONCES;
        }
        self.left -= 1;
        Ok(self.drawn[self.left])
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new()
    }
}

const VERSION: u8 = 1;
const NONCE_LENGTH: usize = 12;
/// Number of nonces in one draw.
const NONCES: usize = 64;
const FACTS_LENGTH: usize = 24;
const NONCE_AT: usize = 1 + ID_LENGTH;
const FACTS_AT: usize = NONCE_AT + NONCE_LENGTH;
const TAG_AT: usize = FACTS_AT + FACTS_LENGTH;
const SEALED_LENGTH: usize = TAG_AT + 16;
const _: () = assert!(SEALED_LENGTH * 4 == VALUE_LENGTH * 3);

/// The four facts under the seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SealedClaims {
    /// Id of the pool that the cookie is for.
    pub(super) pool: NameId,
    /// Id of the backend where the client settled.
    pub(super) backend: NameId,
    /// When the client was placed there, in Unix seconds.
    pub(super) issued: u32,
    /// When this value was written, in Unix seconds.
    pub(super) seen: u32,
}

/// The additional data of a cookie of this name.
pub(super) fn additional_data(name: &str) -> Box<[u8]> {
    format!("sessile cookie {VERSION} {name}").into_bytes().into()
}

/// Seals the facts with the first key of the ring.
pub(super) fn seal(ring: &KeyRing, additional: &[u8], said: &SealedClaims, nonce: Nonce) -> [u8; VALUE_LENGTH] {
    let key = ring.first();
    let mut sealed = [0; SEALED_LENGTH];
    sealed[0] = VERSION;
    sealed[1..NONCE_AT].copy_from_slice(&key.id);
    sealed[NONCE_AT..FACTS_AT].copy_from_slice(&nonce);
    sealed[FACTS_AT..TAG_AT].copy_from_slice(&said.encode());
    let nonce = AeadNonce::assume_unique_for_key(nonce);
    let facts = &mut sealed[FACTS_AT..TAG_AT];
    let tag = key.aead.seal_in_place_separate_tag(nonce, Aad::from(additional), facts).expect("24 bytes can be sealed");
    sealed[TAG_AT..].copy_from_slice(tag.as_ref());
    let mut value = [0; VALUE_LENGTH];
    BASE64URL_NOPAD.encode_mut(&sealed, &mut value);
    value
}

/// True for a text that has the form of a sealed value, whatever key has sealed it.
pub(super) fn is_value(text: &[u8]) -> bool {
    decode(text).is_some()
}

fn decode(value: &[u8]) -> Option<[u8; SEALED_LENGTH]> {
    let mut sealed = [0; SEALED_LENGTH];
    let good = value.len() == VALUE_LENGTH && BASE64URL_NOPAD.decode_mut(value, &mut sealed).is_ok();
    (good && sealed[0] == VERSION).then_some(sealed)
}

/// The facts of a value, and whether the first key of the ring sealed it; `None` unless a key of the ring sealed the
/// value for a cookie of this name.
pub(super) fn open(ring: &KeyRing, additional: &[u8], value: &[u8]) -> Option<(SealedClaims, bool)> {
    let sealed = decode(value)?;
    let id = part(&sealed, 1);
    let nonce: Nonce = part(&sealed, NONCE_AT);
    let tag: [u8; 16] = part(&sealed, TAG_AT);
    ring.named(id).find_map(|(is_first, key)| {
        let mut facts: [u8; FACTS_LENGTH] = part(&sealed, FACTS_AT);
        let nonce = AeadNonce::assume_unique_for_key(nonce);
        key.aead.open_in_place_separate_tag(nonce, Aad::from(additional), &tag, &mut facts).ok()?;
        Some((SealedClaims::decode(&facts), is_first))
    })
}

impl SealedClaims {
    fn encode(&self) -> [u8; FACTS_LENGTH] {
        let mut bytes = [0; FACTS_LENGTH];
        bytes[..8].copy_from_slice(&self.pool.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.backend.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.issued.to_be_bytes());
        bytes[20..].copy_from_slice(&self.seen.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FACTS_LENGTH]) -> Self {
        Self {
            pool: NameId(u64::from_be_bytes(part(bytes, 0))),
            backend: NameId(u64::from_be_bytes(part(bytes, 8))),
            issued: u32::from_be_bytes(part(bytes, 16)),
            seen: u32::from_be_bytes(part(bytes, 20)),
        }
    }
}

/// Copies the bytes of a field that begins at `at`.
fn part<const LENGTH: usize>(bytes: &[u8], at: usize) -> [u8; LENGTH] {
    let mut field = [0; LENGTH];
    field.copy_from_slice(&bytes[at..at + LENGTH]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_drawn_64_at_once_and_each_is_given_once() {
        let mut draws = 0u8;
        let mut fill = |bytes: &mut [u8]| {
            draws += 1;
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / NONCE_LENGTH) as u8 ^ (draws << 6));
            Ok::<_, ()>(())
        };
        let mut nonces = Nonces::new();
        let given: std::collections::HashSet<_> = (0..3 * NONCES).map(|_| nonces.next(&mut fill).unwrap()).collect();
        assert_eq!((given.len(), draws), (3 * NONCES, 3));
        assert_eq!(nonces.next(|_| Err("no entropy")), Err("no entropy"));
        assert_eq!(nonces.next(|_| Err("still none")), Err("still none"), "what failed gave nothing");
    }
}
