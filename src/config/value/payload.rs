//! Bytes that a health check sends or looks for.
//!
//! Sends none. Invariant: there is at least one byte, and no more than [`PAYLOAD_MAX`].

use data_encoding::HEXLOWER_PERMISSIVE;
use toml::de::DeValue;

use super::{ValueResult, text};
use crate::config::problem::Bad;

/// Most bytes.
const PAYLOAD_MAX: usize = 1024;

/// Reads text, with the escapes of TOML (`\r\n`), or bytes: `"hex:"` and two digits for each.
pub(in crate::config) fn payload(value: &DeValue<'_>) -> ValueResult<Vec<u8>> {
    let written = text(value)?;
    let bytes = match written.strip_prefix("hex:") {
        None => written.as_bytes().to_vec(),
        Some(digits) => HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| {
            Bad::new("is not bytes: two hexadecimal digits for each").hint("\"hex:50494e470d0a\", without spaces")
        })?,
    };
    let fits = (1..=PAYLOAD_MAX).contains(&bytes.len());
    fits.then_some(bytes).ok_or_else(|| Bad::new(format!("is not between 1 and {PAYLOAD_MAX} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_text_or_digits_of_bytes() {
        let read = |written: &str| payload(&DeValue::String(written.into())).ok();
        for (written, bytes) in [
            ("PING\r\n", &b"PING\r\n"[..]),
            ("hex:00FFa0", b"\x00\xff\xa0"),
            ("Hex:00", b"Hex:00"),
            ("\u{fc}", b"\xc3\xbc"),
        ] {
            assert_eq!(read(written).as_deref(), Some(bytes), "{written:?}");
        }
        let long = "x".repeat(PAYLOAD_MAX + 1);
        for written in ["", "hex:", "hex:0", "hex:0g", "hex:00 ff", &long] {
            assert_eq!(read(written), None, "{written:?}");
        }
    }
}
