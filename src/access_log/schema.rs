//! The one schema of both streams: how a line is made of fields, as text and as JSON.
//!
//! # Text
//!
//! ```text
//! line   = field *( " " field ) LF
//! field  = name "=" value
//! name   = 1*( "a"-"z" / "_" )
//! value  = bare / quoted
//! bare   = 1*( any of "!" to "~" but DQUOTE, "=" and "\" )
//! quoted = a JSON string (RFC 8259 section 7)
//! ```
//!
//! A value is bare wherever it can be. JSON is one object a line with the same names in the same order; numbers and
//! `true` have no quotes there. In strings of both forms control characters, line ends of Unicode and characters that
//! change the direction of writing are `\n`, `\r`, `\t` or `\uXXXX`, so a line is one line for every reader. A name or
//! path that is not UTF-8 has U+FFFD for what is not.
//!
//! Knows no record (`line.rs` does). Invariant: both forms have the same fields with the same values, and a value is
//! escaped once, when it is written.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use crate::log_field::{LogField, LogFields};
use crate::remote_text::is_unsafe;

/// Takes the fields of one line, in the order of [`LogField`].
pub(super) trait FieldSink {
    fn text(&mut self, field: LogField, value: &str);
    fn number(&mut self, field: LogField, value: u64);
    fn flag(&mut self, field: LogField);

    /// A value with no character that a line quotes or escapes.
    fn bare(&mut self, field: LogField, value: impl Display);

    fn text_if(&mut self, field: LogField, value: Option<&str>) {
        if let Some(value) = value {
            self.text(field, value);
        }
    }

    fn number_if(&mut self, field: LogField, value: Option<u64>) {
        if let Some(value) = value {
            self.number(field, value);
        }
    }

    fn flag_if(&mut self, field: LogField, is_set: bool) {
        if is_set {
            self.flag(field);
        }
    }
}

/// What is written, and how.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// JSON in place of text.
    pub json: bool,
    /// Fields of lines of connections and requests.
    pub fields: LogFields,
}

/// Appends one line to a text.
pub(super) struct LineWriter<'a> {
    out: &'a mut String,
    schema: Schema,
    first: bool,
}

impl<'a> LineWriter<'a> {
    /// Appends the line of the fields that `fill` gives, newline included.
    pub(super) fn line(out: &'a mut String, schema: Schema, fill: impl FnOnce(&mut Self)) {
        let mut line = Self { out, schema, first: true };
        if schema.json {
            line.out.push('{');
        }
        fill(&mut line);
        line.out.push_str(if schema.json { "}\n" } else { "\n" });
    }

    /// Appends the name and what separates it; false: the field is not wanted.
    fn name(&mut self, field: LogField) -> bool {
        if !self.schema.fields.has(field) {
            return false;
        }
        let first = std::mem::replace(&mut self.first, false);
        if self.schema.json {
            self.out.push_str(if first { "\"" } else { ",\"" });
            self.out.push_str(field.name());
            self.out.push_str("\":");
        } else {
            self.out.push_str(if first { "" } else { " " });
            self.out.push_str(field.name());
            self.out.push('=');
        }
        true
    }
}

impl FieldSink for LineWriter<'_> {
    fn text(&mut self, field: LogField, value: &str) {
        if self.name(field) {
            if self.schema.json || !is_bare(value) { quote(self.out, value) } else { self.out.push_str(value) }
        }
    }

    fn number(&mut self, field: LogField, value: u64) {
        if self.name(field) {
            let _ = write!(self.out, "{value}"); // writing to a String does not fail
        }
    }

    fn flag(&mut self, field: LogField) {
        if self.name(field) {
            self.out.push_str("true");
        }
    }

    fn bare(&mut self, field: LogField, value: impl Display) {
        if self.name(field) {
            let quote = if self.schema.json { "\"" } else { "" };
            let _ = write!(self.out, "{quote}{value}{quote}"); // writing to a String does not fail
        }
    }
}

fn is_bare(value: &str) -> bool {
    let bare = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    !value.is_empty() && value.bytes().all(bare)
}

/// Appends a JSON string, which is also the form of a quoted value in text.
fn quote(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // All of them are below U+10000.
            c if is_unsafe(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The wall clock, in microseconds since 1970.
pub(super) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| time.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_bare_wherever_the_rule_allows_it_and_quoted_once_elsewhere() {
        for (value, text) in [
            ("a", "sni=a"),
            ("a,b;{c}[~]", "sni=a,b;{c}[~]"),
            ("", "sni=\"\""),
            ("a b", "sni=\"a b\""),
            ("a=b", "sni=\"a=b\""),
            ("say \"hi\"", "sni=\"say \\\"hi\\\"\""),
            ("\\x41", "sni=\"\\\\x41\""),
            ("a\nended=done", "sni=\"a\\nended=done\""),
            ("\u{1}\u{7f}\u{85}\u{2028}\u{202e}", "sni=\"\\u0001\\u007f\\u0085\\u2028\\u202e\""),
            ("b\u{fc}cher", "sni=\"b\u{fc}cher\""),
        ] {
            let mut out = String::new();
            let mut schema = Schema { json: false, fields: LogFields::EVERY };
            LineWriter::line(&mut out, schema, |line| line.text(LogField::Sni, value));
            assert_eq!(out, format!("{text}\n"));
            schema.json = true;
            out.clear();
            LineWriter::line(&mut out, schema, |line| line.text(LogField::Sni, value));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["sni"], value);
        }
    }

    #[test]
    fn a_field_that_is_not_chosen_is_not_written() {
        for (json, wanted) in [(false, "time=t id=7\n"), (true, "{\"time\":\"t\",\"id\":7}\n")] {
            let fields = LogFields::least().and(LogFields::of_word("id").unwrap());
            let mut out = String::new();
            LineWriter::line(&mut out, Schema { json, fields }, |line| {
                line.text(LogField::Time, "t");
                line.flag(LogField::Ech);
                line.number(LogField::Id, 7);
                line.number(LogField::BytesUp, 8);
            });
            assert_eq!(out, wanted);
        }
    }
}
