//! Paths, modes and groups of files, and public keys written as digests.
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

/// Reads the mode of a file, in octal digits: `"0660"`.
pub(in crate::config) fn mode(value: &DeValue<'_>) -> ValueResult<u32> {
    let bad = || Bad::new("is not the mode of a file").hint("octal digits in quotes: \"0660\"");
    let written = value.as_str().filter(|written| (3..=4).contains(&written.len())).ok_or_else(bad)?;
    let is_octal = written.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    u32::from_str_radix(written, 8).ok().filter(|mode| is_octal && *mode <= 0o777).ok_or_else(bad)
}

/// Reads a group of the machine, by name or number.
pub(in crate::config) fn group(value: &DeValue<'_>) -> ValueResult<String> {
    let written = text(value)?;
    let good = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not the name of a group"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_digits() {
        let read = |written: &'static str| mode(&DeValue::String(written.into())).ok();
        assert_eq!((read("0660"), read("777"), read("0000")), (Some(0o660), Some(0o777), Some(0)));
        for written in ["", "66", "0888", "1777", "00660", "+660", "rw-"] {
            assert_eq!(read(written), None, "{written}");
        }
        assert!(mode(&DeValue::parse("660").unwrap().into_inner()).is_err(), "a decimal number");
    }
}
