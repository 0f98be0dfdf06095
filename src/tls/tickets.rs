//! [`Ticketer`]: session tickets, the sealed state of a session that the client keeps (RFC 5077, RFC 8446 §4.6.1).
//!
//! The keys come from a file that all instances share, or are random and change every 6 hours, by a clock that never
//! goes back. The first key of the
//! file seals and all open, so that keys can be changed live: add the new one last everywhere, then move it first, then
//! remove the old one. A ticket is bound to its route: the names of the route and its rule for client certificates are
//! associated data, so no other route opens it. The server name is in the sealed state, and rustls compares it with the
//! name of the new handshake. No state is kept for a ticket, so there is no 0-RTT.
//!
//! A ticket, all integers big-endian:
//!
//! ```text
//! key name (8) | nonce (12) | AES-256-GCM-SIV ( issued at, seconds since 1970 (8) | state ) | tag (16)
//! ```
//!
//! Associated data: `sessile ticket 1`, then the 32 bytes of the binding. Name and key are derived from a line of the
//! file by HKDF-SHA256 (RFC 5869) without salt, `info` being `sessile ticket 1 name` and `sessile ticket 1 key`.
//! Nonces are random and shared keys live long, so the algorithm is one that stays safe if a nonce repeats (RFC 8452).
//!
//! Invariant: no ticket opens after [`LIFETIME_S`], on another route, or under a key that is not in the ring.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;

use super::pem::{Files, about};
use crate::config;

/// How long a ticket can be opened: half of the advised maximum (RFC 5077 §5.6), twice the time that a random key
/// seals.
pub const LIFETIME_S: u32 = 12 * 3600;
/// How long a random key seals tickets; it opens them for the same time again.
const TURN_MS: u64 = 6 * 3600 * 1000;
/// The allowed difference between the clocks of two instances.
const SKEW_S: u64 = 60;
/// The most keys in a file. A ticket names its key, so more keys cost no time.
const KEYS_MAX: usize = 16;

const NAME_LEN: usize = 8;
const ISSUED_LEN: usize = 8;
const TAG_LEN: usize = 16;
const DOMAIN: &[u8] = b"sessile ticket 1";

/// Milliseconds on a clock that never goes back. A wall clock that once ran ahead would leave a key in use for as long
/// as it had been wrong.
pub(super) type SteadyClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The ticket keys of this process, shared by all routes and kept over reloads.
pub(super) enum TicketKeys {
    /// Keys from a file: constant until a reload replaces them.
    File(Vec<TicketKey>),
    /// Random keys. Readers hold the lock for one sealing or opening; the writer changes keys once in 6 hours.
    Random(RwLock<Turning>, SteadyClock),
}

pub(super) struct Turning {
    /// Time since which the first key seals; negative: before the process started.
    since_ms: i64,
    keys: Vec<TicketKey>,
}

/// Random ticket keys, as another process needs them to seal and open the same tickets. Not for a file.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketSecrets {
    /// Time since which the first key seals; negative: before the process started.
    pub since_ms: i64,
    /// The secrets of the keys; the first seals.
    pub secrets: Vec<[u8; 32]>,
}

impl fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecrets").field("since_ms", &self.since_ms).finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Reads a file: one key a line, 64 hexadecimal digits; empty lines and lines that begin with `#` do not count.
    pub(super) fn load(path: &Path, files: &mut Files) -> Result<Self, String> {
        let text = files.secrets(path)?;
        let mut secrets: Vec<[u8; 32]> = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| about(path, &format!("line {}: {what}", index + 1));
            let secret = config::hex32(line).ok_or_else(|| wrong("not a key: 64 hexadecimal digits"))?;
            if secrets.contains(&secret) {
                return Err(wrong("this key is there twice"));
            }
            secrets.push(secret);
        }
        match secrets.len() {
            0 => Err(about(path, "there is no key in it")),
            1..=KEYS_MAX => Ok(Self::File(secrets.iter().map(TicketKey::new).collect())),
            count => Err(about(path, &format!("{count} keys are too many; the most is {KEYS_MAX}"))),
        }
    }

    /// Makes one random key, unknown outside this process.
    pub(super) fn random(clock: SteadyClock) -> Self {
        Self::Random(RwLock::new(Turning { since_ms: signed(clock()), keys: vec![TicketKey::random()] }), clock)
    }

    /// True for keys that are unknown outside this process.
    pub(super) fn are_random(&self) -> bool {
        matches!(self, Self::Random(..))
    }

    /// The random keys; `None`: the keys come from a file.
    pub(super) fn secrets(&self) -> Option<TicketSecrets> {
        let Self::Random(turning, _) = self else { return None };
        let turning = turning.read().unwrap_or_else(PoisonError::into_inner);
        Some(TicketSecrets { since_ms: turning.since_ms, secrets: turning.keys.iter().map(|key| key.secret).collect() })
    }

    /// Goes on with the random keys of another process; false if the keys come from a file, or if there are none.
    pub(super) fn resume(&self, before: &TicketSecrets) -> bool {
        let Self::Random(turning, clock) = self else { return false };
        if !(1..=KEYS_MAX).contains(&before.secrets.len()) {
            return false;
        }
        let keys = before.secrets.iter().map(TicketKey::new).collect();
        let mut turning = turning.write().unwrap_or_else(PoisonError::into_inner);
        *turning = Turning { since_ms: before.since_ms.min(signed(clock())), keys };
        true
    }

    /// Calls `act` with the keys that are valid now, and replaces random keys that are due.
    fn with<T>(&self, act: impl FnOnce(&[TicketKey]) -> T) -> T {
        let (turning, now_ms) = match self {
            Self::File(keys) => return act(keys),
            Self::Random(turning, clock) => (turning, clock()),
        };
        {
            let turning = turning.read().unwrap_or_else(PoisonError::into_inner);
            if !turning.is_due(now_ms) {
                return act(&turning.keys);
            }
        }
        let mut turning = turning.write().unwrap_or_else(PoisonError::into_inner);
        turning.turn(now_ms);
        act(&turning.keys)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "Keys::File",
            Self::Random(..) => "Keys::Random",
        })
    }
}

impl Turning {
    fn is_due(&self, now_ms: u64) -> bool {
        self.sealed_ms(now_ms) >= TURN_MS
    }

    /// How long the first key has sealed.
    fn sealed_ms(&self, now_ms: u64) -> u64 {
        u64::try_from(signed(now_ms).saturating_sub(self.since_ms)).unwrap_or(0)
    }

    /// Adds a new key that seals. The one that sealed before now only opens; the one before that is dropped.
    fn turn(&mut self, now_ms: u64) {
        if !self.is_due(now_ms) {
            return;
        }
        let is_recent = self.sealed_ms(now_ms) < 2 * TURN_MS;
        self.keys.truncate(usize::from(is_recent));
        self.keys.insert(0, TicketKey::random());
        self.since_ms = signed(now_ms);
    }
}

/// One key, and the name by which tickets refer to it.
pub(super) struct TicketKey {
    secret: [u8; 32],
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl TicketKey {
    fn new(secret: &[u8; 32]) -> Self {
        let (mut name, mut key) = ([0; NAME_LEN], [0; 32]);
        derive(secret, b"name", &mut name);
        derive(secret, b"key", &mut key);
        let unbound = UnboundKey::new(&AES_256_GCM_SIV, &key).expect("32 bytes are a key");
        Self { secret: *secret, name, key: LessSafeKey::new(unbound) }
    }

    fn random() -> Self {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).expect("the kernel has randomness");
        Self::new(&secret)
    }

    fn seal(&self, binding: &Binding, issued_s: u64, state: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + ISSUED_LEN + state.len() + TAG_LEN);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(&issued_s.to_be_bytes());
        ticket.extend_from_slice(state);
        let (_, sealed) = ticket.split_at_mut(NAME_LEN + NONCE_LEN);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(binding.0), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// Opens a ticket: the second when it was issued, and the state.
    fn open(&self, binding: &Binding, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<(u64, Vec<u8>)> {
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.key.open_in_place(nonce, Aad::from(binding.0), &mut opened).ok()?.len();
        opened.truncate(length);
        let (issued, _) = opened.split_first_chunk::<ISSUED_LEN>()?;
        let issued_s = u64::from_be_bytes(*issued);
        opened.drain(..ISSUED_LEN);
        Some((issued_s, opened))
    }
}

/// The associated data that binds a ticket to its route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding([u8; DOMAIN.len() + 32]);

impl Binding {
    /// Makes a binding from the hash of the names and the client rule of a route.
    pub(super) fn new(hash: [u8; 32]) -> Self {
        let mut bytes = [0; DOMAIN.len() + 32];
        let (domain, rest) = bytes.split_at_mut(DOMAIN.len());
        domain.copy_from_slice(DOMAIN);
        rest.copy_from_slice(&hash);
        Self(bytes)
    }
}

/// Seals and opens the tickets of one route, for rustls.
pub(super) struct Ticketer {
    pub(super) keys: Arc<TicketKeys>,
    pub(super) binding: Binding,
    pub(super) clock: Arc<dyn TimeProvider>,
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        let now_s = self.clock.current_time()?.as_secs();
        self.keys.with(|keys| keys.first()?.seal(&self.binding, now_s, state))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let now_s = self.clock.current_time()?.as_secs();
        let (issued_s, state) =
            self.keys.with(|keys| keys.iter().find(|key| key.name == *name)?.open(&self.binding, *nonce, sealed))?;
        let is_of_now = issued_s <= now_s + SKEW_S && now_s.saturating_sub(issued_s) < u64::from(LIFETIME_S);
        is_of_now.then_some(state)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// A time of the clock among those before the start of the process.
fn signed(now_ms: u64) -> i64 {
    i64::try_from(now_ms).unwrap_or(i64::MAX)
}

/// Derives key material by HKDF-SHA256 without salt.
fn derive(secret: &[u8; 32], what: &[u8], out: &mut [u8]) {
    struct TicketKeyLength(usize);
    impl KeyType for TicketKeyLength {
        fn len(&self) -> usize {
            self.0
        }
    }
    let info = [DOMAIN, b" ", what];
    let pseudorandom = Salt::new(HKDF_SHA256, &[]).extract(secret);
    let expanded = pseudorandom.expand(&info, TicketKeyLength(out.len())).expect("far below 255 blocks");
    expanded.fill(out).expect("the length it was made for");
}

#[cfg(test)]
mod tests;
