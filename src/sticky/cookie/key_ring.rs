//! The keys that seal the balancer's own cookie: the first one seals, all of them open.
//!
//! Parses the text of the key file and opens no file; `seal` decides what is sealed. Invariant: neither a key nor a
//! part of one is ever shown, in a message or by `Debug`; a ring has at least one key.
//!
//! # The file
//!
//! One key a line: 32 random bytes as 64 hexadecimal digits or as base64 (either alphabet, padding optional). `#`
//! begins a comment, empty lines are skipped. To change keys without moving a client, put the new key last on every
//! instance, then first on every instance, and drop the old one when `max_idle` has passed.
//!
//! # Derived keys
//!
//! HKDF-SHA256 (RFC 5869, no salt) of the 32 bytes: with info `sessile cookie 1 seal` the AEAD's key, with info
//! `sessile cookie 1 id` the four bytes by which a value names its key, and with info `sessile cookie 1 compare` sixteen
//! bytes by which two rings are compared. The id shows that two values were sealed with one key, and nothing about that
//! key. Another use of the file would need another info.

use std::fmt;
use std::sync::LazyLock;

use aws_lc_rs::aead::{AES_256_GCM_SIV, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};

/// Length of a key in the file, in bytes.
const KEY_LENGTH: usize = 32;
/// Length of the id by which a value names its key, in bytes.
pub(super) const ID_LENGTH: usize = 4;
/// Length of what two keys are compared by, in bytes.
const PRINT_LENGTH: usize = 16;
/// Most keys of a ring; a rotation needs two.
const KEYS_MAX: usize = 64;
/// Fewest different bytes in a key. Of 32 random bytes about 30 differ; fewer than 16 differ once in 10^18 keys.
const DIFFERENT_MIN: usize = 16;

/// Sealing keys in the order of their file.
pub struct KeyRing {
    keys: Box<[SealingKey]>,
}

/// Id and cipher of one key.
pub(super) struct SealingKey {
    pub(super) id: [u8; ID_LENGTH],
    pub(super) aead: LessSafeKey,
    /// Equal for equal keys, and never shown.
    print: [u8; PRINT_LENGTH],
}

/// A problem of a key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyProblem {
    /// Line of the problem, from 1; `None` for the file as a whole.
    pub line: Option<usize>,
    /// Description of the problem, without a byte of the key.
    pub message: String,
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line.map_or(Ok(()), |line| write!(f, "line {line}: "))?;
        f.write_str(&self.message)
    }
}

impl KeyRing {
    /// Parses the text of a key file. An error lists every problem.
    pub fn parse(text: &str) -> Result<Self, Vec<KeyProblem>> {
        let mut problems = Vec::new();
        let mut keys: Vec<(usize, [u8; KEY_LENGTH])> = Vec::new();
        for (number, written) in (1..).zip(text.lines().map(without_comment)).filter(|(_, key)| !key.is_empty()) {
            let read = parse_key(written).and_then(|key| match keys.iter().find(|(_, known)| *known == key) {
                Some((earlier, _)) => Err(format!("the key of line {earlier} again")),
                None => Ok(key),
            });
            match read {
                Ok(key) => keys.push((number, key)),
                Err(message) => problems.push(KeyProblem { line: Some(number), message }),
            }
        }
        let whole = match keys.len() {
            0 if problems.is_empty() => Some("holds no key".to_owned()),
            count if count > KEYS_MAX => Some(format!("holds {count} keys; the most is {KEYS_MAX}")),
            _ => None,
        };
        problems.extend(whole.map(|message| KeyProblem { line: None, message }));
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { keys: keys.iter().map(|(_, key)| SealingKey::new(key)).collect() })
    }

    /// True if this ring opens what `other` seals.
    pub fn opens_what_seals(&self, other: &Self) -> bool {
        self.has(other.first())
    }

    /// Number of keys of `other` that this ring does not have.
    pub fn lacks(&self, other: &Self) -> usize {
        other.keys.iter().filter(|key| !self.has(key)).count()
    }

    fn has(&self, key: &SealingKey) -> bool {
        self.keys.iter().any(|own| own.print == key.print)
    }

    /// The key that seals.
    pub(super) fn first(&self) -> &SealingKey {
        &self.keys[0]
    }

    /// The keys with this id, nearly always one or none, and whether each is the first of the ring.
    pub(super) fn named(&self, id: [u8; ID_LENGTH]) -> impl Iterator<Item = (bool, &SealingKey)> {
        self.keys.iter().enumerate().filter(move |(_, key)| key.id == id).map(|(index, key)| (index == 0, key))
    }
}

impl PartialEq for KeyRing {
    /// True if both have the same keys in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| key.print).eq(other.keys.iter().map(|key| key.print))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.keys.len())
    }
}

impl SealingKey {
    fn new(secret: &[u8; KEY_LENGTH]) -> Self {
        /// HKDF with an empty salt.
        static UNSALTED: LazyLock<Salt> = LazyLock::new(|| Salt::new(HKDF_SHA256, &[]));
        let secret = UNSALTED.extract(secret);
        let aead = expand::<KEY_LENGTH>(&secret, "sessile cookie 1 seal");
        let aead = UnboundKey::new(&AES_256_GCM_SIV, &aead).expect("the algorithm takes 32 bytes");
        let print = expand(&secret, "sessile cookie 1 compare");
        Self { id: expand(&secret, "sessile cookie 1 id"), aead: LessSafeKey::new(aead), print }
    }
}

fn expand<const LENGTH: usize>(secret: &Prk, info: &str) -> [u8; LENGTH] {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut bytes = [0; LENGTH];
    let info = [info.as_bytes()];
    let expanded = secret.expand(&info, Length(LENGTH)).and_then(|expanded| expanded.fill(&mut bytes));
    expanded.expect("HKDF-SHA256 gives up to 8160 bytes");
    bytes
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default().trim()
}

fn parse_key(written: &str) -> Result<[u8; KEY_LENGTH], String> {
    const HEX_LENGTH: usize = 2 * KEY_LENGTH;
    let is_hex = written.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bytes = match written.len() {
        HEX_LENGTH if is_hex => HEXLOWER_PERMISSIVE.decode(written.as_bytes()).ok(),
        _ => decode_base64(written),
    };
    let Some(bytes) = bytes else {
        return Err(format!("neither 64 hexadecimal digits nor base64 ({} characters)", written.chars().count()));
    };
    let Ok(key) = <[u8; KEY_LENGTH]>::try_from(bytes.as_slice()) else {
        let (length, as_what) = if is_hex { (written.len() / 2, "hexadecimal") } else { (bytes.len(), "base64") };
        return Err(format!("{length} bytes of {as_what}; a key has {KEY_LENGTH}"));
    };
    let mut seen = [false; 256];
    key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    match seen.iter().filter(|seen| **seen).count() {
        different if different < DIFFERENT_MIN => Err("not random: too few different bytes".to_owned()),
        _ => Ok(key),
    }
}

/// Decodes either alphabet, padded or not.
fn decode_base64(written: &str) -> Option<Vec<u8>> {
    let bare = written.trim_end_matches('=');
    let padded = bare.len() < written.len();
    if padded && (written.len() - bare.len() > 2 || !written.len().is_multiple_of(4)) {
        return None;
    }
    [BASE64_NOPAD, BASE64URL_NOPAD].iter().find_map(|alphabet| alphabet.decode(bare.as_bytes()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "00112233445566778899aabbccddeeff0123456789abcdefFEDCBA9876543210";
    const BASE64: &str = "ABEiM0RVZneImaq7zN3u/wEjRWeJq83v/ty6mHZUMhA=";
    const OTHER: &str = "1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c";

    fn problems(text: &str) -> Vec<String> {
        KeyRing::parse(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_are_hex_or_base64_one_a_line_with_comments() {
        let text = format!("# of May\n\n  {HEX}  # the old one\n\r\n{OTHER}\r\n");
        let ring = KeyRing::parse(&text).unwrap();
        assert_eq!(ring.keys.len(), 2);
        assert_eq!(format!("{ring:?}"), "KeyRing(2 keys)");
        let urlsafe = BASE64.replace('/', "_");
        for same in [BASE64, BASE64.trim_end_matches('='), &urlsafe, urlsafe.trim_end_matches('='), HEX] {
            assert_eq!(KeyRing::parse(same).unwrap().first().id, ring.first().id, "{same}");
        }
        assert_ne!(ring.keys[1].id, ring.keys[0].id);
    }

    #[test]
    fn every_problem_is_named_by_its_line_and_no_key_is_shown() {
        let text =
            format!("{HEX}\nnot a key!\n{}\nAAAA\n{BASE64}\n{}\n{OTHER}\n{HEX}==\n", &HEX[..60], "00".repeat(32));
        assert_eq!(
            problems(&text),
            [
                "line 2: neither 64 hexadecimal digits nor base64 (10 characters)",
                "line 3: 30 bytes of hexadecimal; a key has 32",
                "line 4: 2 bytes of hexadecimal; a key has 32",
                "line 5: the key of line 1 again",
                "line 6: not random: too few different bytes",
                "line 8: neither 64 hexadecimal digits nor base64 (66 characters)",
            ]
        );
        assert_eq!(problems("# nothing\n\n"), ["holds no key"]);
        assert_eq!(problems(&"x".repeat(43)), ["line 1: neither 64 hexadecimal digits nor base64 (43 characters)"]);
        let many: String = (0..65).map(|n| format!("{}{n:02x}\n", &HEX[..62])).collect();
        assert_eq!(problems(&many), ["holds 65 keys; the most is 64"]);
    }

    #[test]
    fn rings_are_compared_by_their_keys() {
        let ring = |keys: &[&str]| KeyRing::parse(&keys.join("\n")).unwrap();
        let (one, other, both, turned) =
            (ring(&[HEX]), ring(&[OTHER]), ring(&[HEX, OTHER]), ring(&[OTHER, "# the old one", HEX]));
        assert!(one == ring(&["# a comment", BASE64]), "however a key is written");
        assert!(one != other && one != both && both != turned);
        // Whether `after` opens what `before` seals, and how many keys it lacks.
        for (before, after, opens, lacks) in [
            (&one, &both, true, 0),
            (&both, &turned, true, 0),
            (&turned, &other, true, 1),
            (&both, &other, false, 1),
            (&one, &other, false, 1),
        ] {
            assert_eq!((after.opens_what_seals(before), after.lacks(before)), (opens, lacks));
        }
    }

    /// `tests/cookie_reference.py` computes the same id.
    #[test]
    fn an_id_depends_on_the_key_alone() {
        let id = |text: &str| KeyRing::parse(text).unwrap().first().id;
        assert_eq!(id(HEX), id(&format!("{HEX}\n{OTHER}")));
        let first: String = HEX.chars().take(8).collect();
        let shown: String = id(HEX).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_ne!(shown, first, "not the key itself");
        assert_eq!(shown, "e5d2196e");
    }
}
