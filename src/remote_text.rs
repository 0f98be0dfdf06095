//! [`shown`], [`shown_bytes`] and [`one_line`]: text of a remote party, or of anything that is not known, in a form that
//! a message, a status and a terminal can take; [`text_of`]: bytes as text, for a writer that escapes.
//!
//! Judges no text and writes none. Invariant: what the first three return has no character that ends a line, moves a
//! cursor or turns the direction of writing, so a text can forge neither a line of the log nor a part of a table; what [`shown`] returns has
//! at most [`SHOWN_MAX`] characters of the text.

use std::borrow::Cow;

/// Most characters of a remote party's text that are shown.
pub const SHOWN_MAX: usize = 512;

/// The begin of a text of a remote party, on one line and without white space around it.
pub fn shown(text: &str) -> String {
    let text = text.trim();
    let end = text.char_indices().nth(SHOWN_MAX).map(|(at, _)| at);
    let begin = one_line(&text[..end.unwrap_or(text.len())]);
    if end.is_some() { format!("{begin}…") } else { begin.into_owned() }
}

/// The first `most` bytes of something that need not be text, as printable ASCII.
pub fn shown_bytes(bytes: &[u8], most: usize) -> String {
    bytes[..bytes.len().min(most)].escape_ascii().to_string()
}

/// The first `most` bytes of something that need not be text, with U+FFFD for what is none. Escapes nothing: a log and
/// JSON do that when they write it.
pub fn text_of(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}

/// The whole text, with an escape such as `\n` or `\u{1b}` in place of each character that cannot be shown.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// True for control characters, line ends of Unicode, and characters that change the direction of writing (UAX #9).
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_forges_no_line_and_moves_no_cursor() {
        let text = "NO\r\n2026-01-01 ERROR all is lost\x1b[2J\u{9b}31m\u{2028}a\u{202e}b\0\t";
        assert_eq!(
            one_line(text),
            "NO\\r\\n2026-01-01 ERROR all is lost\\u{1b}[2J\\u{9b}31m\\u{2028}a\\u{202e}b\\u{0}\\t"
        );
        for plain in ["", "OOM command not allowed", "a\\nb", "Grüße, 世界", "\"quoted\""] {
            assert!(matches!(one_line(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn a_text_is_shown_up_to_a_length_of_characters() {
        assert_eq!(shown(" refused \r\n"), "refused");
        assert_eq!(shown(&"ü".repeat(SHOWN_MAX)), "ü".repeat(SHOWN_MAX));
        assert_eq!(shown(&"ü".repeat(SHOWN_MAX + 1)), "ü".repeat(SHOWN_MAX) + "…");
        assert!(shown(&"\n\u{1b}x".repeat(1 << 20)).len() < 8 * SHOWN_MAX);
    }
}
