//! Paths of files, and public keys written as digests.
//!
//! Opens no file. Invariant: a path is not empty and has no zero byte.

use std::path::PathBuf;

use data_encoding::HEXLOWER_PERMISSIVE;
use toml::de::DeValue;

use super::{ValueResult, text};
use crate::config::problem::Bad;

/// Reads the path of a file; a relative path starts in the working directory of the process.
pub(in crate::config) fn file(value: &DeValue<'_>) -> ValueResult<PathBuf> {
    let written = text(value)?;
    let good = !written.is_empty() && !written.contains('\0');
    good.then(|| written.into()).ok_or_else(|| Bad::new("is not the path of a file"))
}

/// Reads the SHA-256 of a public key: `"sha256:"` and 64 hexadecimal digits.
pub(in crate::config) fn pin(value: &DeValue<'_>) -> ValueResult<[u8; 32]> {
    let bad = || Bad::new("is not a pin").hint("\"sha256:\" and 64 hexadecimal digits, of the public key");
    text(value).map_err(|_| bad())?.strip_prefix("sha256:").and_then(hex32).ok_or_else(bad)
}

/// Decodes 64 hexadecimal digits of either case into 32 bytes; `None`: anything else.
pub fn hex32(digits: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}
