//! [`explain`]: turns an error of the TOML parser into a problem that quotes what is wrong and shows the line as it should
//! be.
//!
//! Reads no value. Invariants: a line that a hint shows is one that the parser accepts; no part of a line that may hold
//! a password is quoted.

use toml::de::{DeTable, Error};

use super::problem::Bad;
use super::{foreign, keys};
use crate::remote_text;

/// The longest line that a hint shows, in bytes.
const LINE_MAX: usize = 100;
/// The longest word that a message quotes, in characters.
const WORD_MAX: usize = 60;
/// Opening and closing quotes of text programs.
const CURLY: [char; 8] = ['“', '”', '„', '‟', '«', '»', '‘', '’'];

/// Byte offset and explanation of an error of the parser in this text. `hints`: how many more lines may be looked for as
/// they should be. `number`: of the line at a byte offset.
pub(super) fn explain(text: &str, error: &Error, hints: &mut usize, number: impl Fn(usize) -> usize) -> (usize, Bad) {
    let span = error.span().unwrap_or_default();
    let offset = text.floor_char_boundary(span.start.min(text.len()));
    let line = Line::around(text, offset);
    let parser = error.message();
    if line.may_hold_a_secret() {
        return (offset, Bad::new(parser));
    }
    let word = line.word_at(offset);
    let (offset, message) = match parser {
        "duplicate key" => {
            let bad = Bad::new(format!("duplicate key \"{}\"", text.get(span).unwrap_or_default().escape_debug()));
            let earlier = line.earlier(text).map(|first| format!("it stands in line {}, too", number(first)));
            return (offset, Bad { hint: earlier, ..bad });
        }
        _ if parser.starts_with("key with no value") && line.sign != Some('=') => {
            let sign = line.sign.map(String::from).unwrap_or_default();
            let is_key = line.key.is_empty() || word.starts_with(line.key);
            let words = if is_key { word } else { format!("{}{sign} {word}", line.key) };
            (offset, format!("{words} has no \"=\""))
        }
        _ if is_of_a_value(parser) && line.sign == Some('=') && !line.key.is_empty() => {
            let (key, value) = (line.key, first_word(line.value));
            match offset <= line.value_start + value.len() {
                _ if value.is_empty() => (offset, format!("{key} has no value")),
                true => (line.value_start, format!("{key} {value} is not a value")),
                false => (offset, format!("{key}: {} is not a value", word.trim_matches(['[', ']', '{', '}']))),
            }
        }
        _ if word.is_empty() => (offset, parser.to_owned()),
        _ => (offset, format!("{parser}: {word}")),
    };
    let in_quotes = || parser.starts_with("string values must be quoted").then(|| "a text stands in quotes".to_owned());
    let hint = line.translated().or_else(|| {
        *hints = hints.checked_sub(1)?;
        line.hint().or_else(in_quotes)
    });
    (offset, Bad { message, hint })
}

/// True for an error of a number, a switch, a time, or a text without quotes.
fn is_of_a_value(parser: &str) -> bool {
    const VALUES: [&str; 8] =
        ["boolean", "date-time", "float", "integer", "mantissa", "fraction", "exponent", "number"];
    let kind = parser.strip_prefix("invalid ").unwrap_or_default();
    parser.starts_with("string values must be quoted")
        || parser.starts_with("missing value")
        || VALUES.iter().any(|value| kind.split([' ', ',']).take(2).any(|word| word == *value))
}

/// A line of the text, taken as `KEY = VALUE`.
struct Line<'a> {
    /// Byte offset of the line.
    start: usize,
    text: &'a str,
    /// The first word, as far as it can be a key; may be empty.
    key: &'a str,
    /// The sign behind the key: `=`, or `:` of other formats.
    sign: Option<char>,
    /// What stands behind the sign or the key.
    value: &'a str,
    /// Byte offset of the value.
    value_start: usize,
}

impl<'a> Line<'a> {
    /// The line that holds this byte; an empty one if the byte is far from its beginning, as no line of a balancer's file
    /// is that long.
    fn around(text: &'a str, offset: usize) -> Self {
        const BYTES_MAX: usize = 400;
        let near = |offset: usize| text.floor_char_boundary(offset);
        let from = near(offset.saturating_sub(BYTES_MAX));
        let start = match text[from..offset].rfind('\n') {
            Some(newline) => from + newline + 1,
            None if from == 0 => 0,
            None => return Self::new(offset, ""),
        };
        Self::new(start, text[start..near(start + BYTES_MAX)].lines().next().unwrap_or_default())
    }

    fn new(start: usize, text: &'a str) -> Self {
        let indented = text.trim_start();
        let is_key = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        let (key, rest) = indented.split_at(indented.find(|letter| !is_key(letter)).unwrap_or(indented.len()));
        let behind = rest.trim_start();
        let sign = behind.chars().next().filter(|sign| ['=', ':'].contains(sign));
        let value = behind.get(sign.map_or(0, char::len_utf8)..).unwrap_or_default().trim_start();
        Self { start, text, key, sign, value: value.trim_end(), value_start: start + text.len() - value.len() }
    }

    fn may_hold_a_secret(&self) -> bool {
        let is_url_with_user = self.text.contains("://") && self.text.contains('@');
        is_url_with_user || keys::SECRET.iter().any(|key| self.text.contains(key))
    }

    /// The word around a byte of the text; behind the last word, that one.
    fn word_at(&self, offset: usize) -> String {
        let at = self.text.floor_char_boundary(offset.saturating_sub(self.start).min(self.text.len()));
        let start = self.text[..at].trim_end_matches(is_gap).len();
        // At the first letter of a word, and not behind one.
        let start = if self.text[at..].starts_with(|letter| !is_gap(letter)) { at } else { start };
        let start = self.text[..start].rfind(is_gap).map_or(0, |gap| gap + 1);
        first_word(&self.text[self.text.ceil_char_boundary(start)..])
    }

    /// The translation of another balancer's line, or the line as it should be.
    fn hint(&self) -> Option<String> {
        self.repaired().map(|line| format!("write {line}")).or_else(|| {
            let is_empty = self.sign == Some('=') && self.value.is_empty();
            is_empty.then(|| "a text in quotes, a number, true, false, or a list: [\"a\", \"b\"]".to_owned())
        })
    }

    /// What sessile has for the words of another balancer. A line with "=" is one of this format, whatever its first word
    /// means elsewhere.
    fn translated(&self) -> Option<String> {
        let foreign = foreign::of_line(self.text).filter(|_| self.sign != Some('='));
        foreign.map(ToString::to_string)
    }

    /// The first of the likely corrections that the parser accepts.
    fn repaired(&self) -> Option<String> {
        let header = self.text.trim().trim_matches(['[', ']']);
        let candidates = if self.text.trim_start().starts_with("[[") {
            vec![format!("[[{header}]]")]
        } else if self.text.trim_start().starts_with('[') {
            vec![format!("[{header}]")]
        } else if self.key.is_empty() || self.value.is_empty() {
            return None;
        } else {
            likely_values(self.value).into_iter().map(|value| format!("{} = {value}", self.key)).collect()
        };
        let is_better = |line: &String| line.len() <= LINE_MAX && line != self.text.trim();
        let is_visible = |line: &String| remote_text::one_line(line) == line.as_str();
        candidates.into_iter().find(|line| is_better(line) && is_visible(line) && DeTable::parse(line).is_ok())
    }

    /// Byte offset of a line above with the same header, or with the same key in this table.
    fn earlier(&self, text: &str) -> Option<usize> {
        const LINES_MAX: usize = 1000;
        let is_header = |line: &str| line.trim_start().starts_with('[');
        let mut end = self.start;
        for _ in 0..LINES_MAX {
            let start = text[..end.checked_sub(1)?].rfind('\n').map_or(0, |newline| newline + 1);
            let line = &text[start..end];
            if is_header(self.text) {
                if line.trim() == self.text.trim() {
                    return Some(start);
                }
            } else if is_header(line) {
                return None;
            } else if Line::new(start, line).key == self.key {
                return Some(start);
            }
            end = start;
        }
        None
    }
}

/// A value as it is, and as its writer may have meant it.
fn likely_values(written: &str) -> Vec<String> {
    let value = written.trim_end_matches([';', ',']).trim_end();
    let mut likely = vec![value.to_owned()];
    match value {
        "on" | "yes" | "On" | "Yes" | "ON" | "YES" | "True" | "TRUE" => likely.push("true".to_owned()),
        "no" | "No" | "NO" | "False" | "FALSE" => likely.push("false".to_owned()),
        _ => {}
    }
    for end in ["]", "\"", "'", "\"]", "}", "}]"] {
        likely.push(format!("{value}{end}"));
    }
    let words: Vec<_> = value.split_whitespace().collect();
    if words.len() > 1 && words.iter().all(|word| word.starts_with('"')) {
        likely.push(format!("[{}]", words.join(", ")));
    }
    let bare = value.trim_matches(CURLY);
    if !bare.contains(['"', '\'', '\\', '#', '=']) && words.len() == 1 {
        likely.push(format!("\"{bare}\""));
    }
    likely
}

fn is_gap(letter: char) -> bool {
    letter.is_whitespace() || letter == ','
}

/// The first word of a text as a message quotes it: short, with escapes for signs that a terminal does not show.
fn first_word(text: &str) -> String {
    let word = text.split(is_gap).find(|word| !word.is_empty()).unwrap_or_default();
    let begin: String = word.chars().take(WORD_MAX).collect();
    let end = if begin.len() < word.len() { "..." } else { "" };
    format!("{}{end}", remote_text::one_line(&begin))
}

#[cfg(test)]
mod tests {
    use super::super::problem;
    use super::*;

    /// The first error of a text: place, message and hint.
    fn explained(text: &str) -> String {
        let (_, errors) = DeTable::parse_recoverable(text);
        let (offset, Bad { message, hint }) =
            explain(text, errors.first().unwrap_or_else(|| panic!("{text}")), &mut 1, |offset| {
                problem::place_in(text, offset).0
            });
        let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{offset}: {message}{hint}")
    }

    #[test]
    fn a_value_that_is_none_is_quoted_with_the_line_as_it_should_be() {
        for (line, expected) in [
            ("tls = terminate", "6: tls terminate is not a value (write tls = \"terminate\")"),
            ("http = on", "7: http on is not a value (write http = true)"),
            ("name = “web”", "7: name “web” is not a value (write name = \"web\")"),
            ("bind = 0.0.0.0:443", "7: bind 0.0.0.0:443 is not a value (write bind = \"0.0.0.0:443\")"),
            ("idle = 5s", "7: idle 5s is not a value (write idle = \"5s\")"),
            ("list = [\"a\", bare]", "13: list: bare is not a value (a text stands in quotes)"),
        ] {
            assert_eq!(explained(&format!("{line}\n")), expected, "{line}");
        }
        let empty = explained("bind =\n");
        assert!(empty.contains(": bind has no value (a text in quotes, a number"), "{empty}");
    }

    #[test]
    fn a_missing_or_another_sign_is_shown_with_the_line_as_it_should_be() {
        for (line, expected) in [
            ("name \"web\"", "name \"web\" has no \"=\" (write name = \"web\")"),
            ("nothing", "nothing has no \"=\""),
            ("pool: \"app\"", "pool: \"app\" has no \"=\" (write pool = \"app\")"),
            ("pool = \"app\";", "\"app\"; (write pool = \"app\")"),
            ("pool = \"app\" \"other\"", "\"other\" (write pool = [\"app\", \"other\"])"),
            ("[[pool]", "[[pool] (write [[pool]])"),
            ("[limits", "[limits (write [limits])"),
            ("name = \"web", "\"web (write name = \"web\")"),
            ("a = [1, 2", "2 (write a = [1, 2])"),
            ("a = { b = 1", "1 (write a = { b = 1})"),
        ] {
            let found = explained(&format!("{line}\n"));
            assert!(found.ends_with(expected), "{line}: {found}");
        }
    }

    #[test]
    fn a_line_of_another_balancer_is_translated_but_none_that_only_has_one_of_its_words() {
        assert!(explained("bind *:80\n").contains("of HAProxy"));
        assert!(explained("balance leastconn\n").contains("\"leastconn\" of HAProxy"));
        assert!(!explained("bind = \n").contains("HAProxy"));
        assert!(!explained("backend = [\"10.0.0.1:80\"\n").contains("HAProxy"));
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_the_line_of_the_first() {
        let text = "a = 1\n[t]\nb = 1\n\nb = 2\n";
        assert_eq!(explained(text), "17: duplicate key \"b\" (it stands in line 3, too)");
        let tables = explained("[t]\na = 1\n[u]\n[t]\n");
        assert!(tables.ends_with(": duplicate key \"t\" (it stands in line 1, too)"), "{tables}");
    }

    #[test]
    fn no_part_of_a_password_is_shown() {
        for line in
            ["password = hunter2", "password = \"hunter2", "url = redis://:hunter2@10.0.0.1", "password hunter2"]
        {
            let found = explained(&format!("{line}\n"));
            assert!(!found.contains("hunter"), "{found}");
        }
    }

    #[test]
    fn what_is_quoted_is_short_and_visible() {
        let long = explained(&format!("tls = t{}\n", "e".repeat(1000)));
        assert!(long.len() < 150 && long.contains("..."), "{long}");
        let control = explained("name = \"w\u{1}eb\"\n");
        assert!(control.contains("\"w\\u{1}eb\"") && !control.contains('\u{1}'), "{control}");
        assert!(!explained(&format!("{} x\n", "k".repeat(5000))).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_explained(text in "[a-z=\\[\\]{}\"'“”ü,;:.# \\n\u{0}]{0,60}") {
            let (_, errors) = DeTable::parse_recoverable(&text);
            for error in &errors {
                let (offset, bad) = explain(&text, error, &mut 1, |offset| offset);
                proptest::prop_assert!(offset <= text.len() && !bad.message.is_empty());
            }
        }
    }
}
