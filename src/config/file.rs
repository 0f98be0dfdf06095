//! [`Document`] and [`Section`]: the tables of a file, each value with its place.
//!
//! Single values are read by `value`, rules between values are in `check`. Invariant: reading never stops at an error.
//! An unreadable value is reported at its place and returned as if it were not written, so that one pass finds all
//! errors.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, TableKeys};
use super::place::ValuePlace;
use super::problem::{Bad, Problems};
use super::value::ValueResult;
use super::{foreign, shorthand, syntax};

/// Stands in for a table that the file does not have.
static EMPTY_TABLE: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);

/// Most mistakes of syntax for which a line as it should be is looked for: each costs some runs of the parser over a line.
const HINTS_MAX: usize = 12;

/// The text of a file, split into tables.
pub(super) struct Document<'a> {
    top: DeTable<'a>,
    /// True if there is no syntax error; otherwise a missing key may only be unreadable.
    pub(super) whole: bool,
}

impl<'a> Document<'a> {
    /// Splits a text into tables as far as possible, and reports every syntax error.
    pub(super) fn parse(text: &'a str, problems: &Problems<'_>) -> Self {
        let (top, errors) = DeTable::parse_recoverable(text);
        let mut hints = HINTS_MAX;
        for error in &errors {
            let (offset, bad) = syntax::explain(text, error, &mut hints, |offset| problems.line(offset));
            problems.syntax(offset, bad);
        }
        let mut top = top.into_inner();
        shorthand::expand(&mut top);
        Self { top, whole: errors.is_empty() }
    }

    /// The keys above the first table, as a section.
    pub(super) fn top<'d>(&'d self, problems: &'d Problems<'d>) -> Section<'d> {
        Section::new(&self.top, 0, String::new(), &keys::TOP, self.whole, problems)
    }
}

/// One table, with the object that it describes and the list of its known keys.
pub(super) struct Section<'d> {
    table: &'d DeTable<'d>,
    /// Byte offset of the table in the text.
    pub(super) start: usize,
    /// The object for messages: `pool "web": backend "a"`.
    pub(super) object: String,
    keys: &'static TableKeys,
    whole: bool,
    problems: &'d Problems<'d>,
}

impl<'d> Section<'d> {
    /// Reads a value; `None`: not written, or reported as unreadable.
    pub(super) fn read<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Option<T> {
        let value = self.value(key)?;
        self.parse_value(key, value, &read)
    }

    /// Reads a value that must be written; a missing one is reported.
    pub(super) fn required<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Option<T> {
        if !self.has(key) {
            self.missing(format!("has no {key}"));
        }
        self.read(key, read)
    }

    /// Reads one value or a list, each with its byte offset; a value that is listed twice is reported.
    pub(super) fn list<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Vec<(usize, T)>
    where
        T: Clone + Eq + Hash,
    {
        let mut seen = HashSet::new();
        let mut different = Vec::new();
        for element in self.elements(key) {
            let Some(parsed) = self.parse_value(key, element, &read) else { continue };
            if seen.insert(parsed.clone()) {
                different.push((element.span().start, parsed));
            } else {
                self.error_at(element.span().start, Bad::new(format!("{key} {} is listed twice", show(element))));
            }
        }
        different
    }

    /// Reads one value or a list like [`list`](Self::list), without the offsets.
    pub(super) fn values<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Vec<T>
    where
        T: Clone + Eq + Hash,
    {
        self.list(key, read).into_iter().map(|(_, value)| value).collect()
    }

    /// The table under this key; empty if it is not written.
    pub(super) fn child(&self, key: &'static str, keys: &'static TableKeys) -> Section<'d> {
        let nothing = || Section::new(&EMPTY_TABLE, self.start, self.below(key), keys, self.whole, self.problems);
        self.value(key).and_then(|value| self.table(key, value, keys)).unwrap_or_else(nothing)
    }

    /// The names and values of a table with any names, each value with its byte offset. `name` checks a name, `read` reads
    /// a value; what they refuse is reported and left out.
    pub(super) fn entries<T>(
        &self,
        key: &'static str,
        name: impl Fn(&str) -> ValueResult<()>,
        read: impl Fn(&DeValue<'_>) -> ValueResult<T>,
    ) -> Vec<(usize, String, T)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.complain(key, value, Bad::new("is not a table").hint(format!("write {key} = {{ NAME = \"VALUE\" }}")));
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (entry, value) in table.iter() {
            let written = entry.get_ref().to_string();
            if let Err(bad) = name(&written) {
                let message = format!("{key} \"{}\" {}", written.escape_debug(), bad.message);
                self.error_at(entry.span().start, Bad { message, ..bad });
            } else if let Some(read) = self.parse_value(&format!("{key} \"{written}\""), value, &read) {
                entries.push((value.span().start, written, read));
            }
        }
        entries
    }

    /// The table under this key; `None`: the word "off", or a value that is reported because it is no table.
    pub(super) fn child_unless_off(&self, key: &'static str, keys: &'static TableKeys) -> Option<Section<'d>> {
        match self.value(key) {
            None => Some(self.child(key, keys)),
            Some(value) if value.get_ref().as_str() == Some("off") => None,
            Some(value) => self.table(key, value, keys),
        }
    }

    /// The tables of a list, or one table alone; an object without a name is reported by its number.
    pub(super) fn children(&self, key: &'static str, keys: &'static TableKeys) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let not_tables = || Bad::new("is not a list of tables").hint(format!("write {}", keys.table));
        let elements = match value.get_ref() {
            DeValue::Array(elements) => &elements[..],
            // A list of one needs no brackets.
            DeValue::Table(_) => std::slice::from_ref(value),
            _ => {
                self.complain(key, value, not_tables());
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let Some(table) = element.get_ref().as_table() else {
                self.complain(key, element, not_tables());
                continue;
            };
            let object = match table.get("name").and_then(|name| name.get_ref().as_str()) {
                Some(name) if keys.keys.contains(&"name") => self.below(&format!("{key} \"{}\"", name.escape_debug())),
                _ => self.below(&format!("{key} #{}", index + 1)),
            };
            sections.push(Section::new(table, element.span().start, object, keys, self.whole, self.problems));
        }
        sections
    }

    /// True if the key is written, readable or not.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// True for a table that a value alone stands for, as an address for a backend: its name was made from the value.
    pub(super) fn is_made(&self) -> bool {
        self.table.get("name").is_some_and(|name| name.span().start == self.start)
    }

    /// Number of values in a list, readable or not; a single value counts as 1.
    pub(super) fn count(&self, key: &'static str) -> usize {
        self.elements(key).len()
    }

    /// Byte offset of a value; of the table if the value is not written.
    pub(super) fn at(&self, key: &'static str) -> usize {
        self.value(key).map_or(self.start, |value| value.span().start)
    }

    /// Line of a byte offset, for a message about two places.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.problems.line(offset)
    }

    /// Reports an error at the value of a key.
    pub(super) fn error(&self, key: &'static str, bad: Bad) {
        self.error_at(self.at(key), bad);
    }

    /// Reports an error at a byte offset.
    pub(super) fn error_at(&self, offset: usize, bad: Bad) {
        self.problems.error(offset, &self.object, bad);
    }

    /// Reports a warning at the value of a key.
    pub(super) fn warn(&self, key: &'static str, bad: Bad) {
        self.problems.warn(self.at(key), &self.object, bad);
    }

    /// Reports that something is missing, unless a syntax error may hide it.
    pub(super) fn missing(&self, what: impl Into<String>) {
        if self.whole {
            self.error_at(self.start, Bad::new(what));
        }
    }

    /// Reports a warning for each of these keys that is written: `KEY has no effect WHY`.
    pub(super) fn idle_keys(&self, keys: &[&'static str], why: &str) {
        for key in keys.iter().copied().filter(|key| self.has(key)) {
            self.warn(key, Bad::new(format!("{key} has no effect {why}")));
        }
    }

    fn new(
        table: &'d DeTable<'d>,
        start: usize,
        object: String,
        keys: &'static TableKeys,
        whole: bool,
        problems: &'d Problems<'d>,
    ) -> Self {
        let section = Self { table, start, object, keys, whole, problems };
        let places = table.iter().map(|(key, value)| (key.get_ref().to_string(), place_of(value)));
        problems.note_table(&section.object, start, places);
        for (key, value) in table.iter().filter(|(key, _)| !keys.keys.contains(&key.get_ref().as_ref())) {
            let bad = Bad::new(format!("unknown key \"{}\"", key.get_ref().escape_debug()));
            let below = value.get_ref().as_table().into_iter().flat_map(DeTable::keys);
            let below: Vec<&str> = below.map(|key| key.get_ref().as_ref()).collect();
            section.error_at(key.span().start, bad.hint(keys::advice(keys, key.get_ref(), &below)));
        }
        section
    }

    fn value(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        debug_assert!(self.keys.keys.contains(&key), "{key} is not among the keys of {}", self.keys.table);
        self.table.get(key)
    }

    fn table(&self, key: &str, value: &'d Spanned<DeValue<'d>>, keys: &'static TableKeys) -> Option<Section<'d>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.complain(key, value, Bad::new("is not a table").hint(format!("write {}", keys.table)));
            return None;
        };
        Some(Section::new(table, value.span().start, self.below(key), keys, self.whole, self.problems))
    }

    fn elements(&self, key: &'static str) -> &'d [Spanned<DeValue<'d>>] {
        match self.value(key).map(|value| (value, value.get_ref())) {
            None => &[],
            Some((_, DeValue::Array(elements))) => elements,
            Some((value, _)) => std::slice::from_ref(value),
        }
    }

    fn parse_value<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> ValueResult<T>,
    ) -> Option<T> {
        read(value.get_ref()).map_err(|bad| self.complain(key, value, bad)).ok()
    }

    /// Reports `KEY VALUE …`, completed by the message.
    fn complain(&self, key: &str, value: &Spanned<DeValue<'_>>, bad: Bad) {
        let shown = if keys::SECRET.contains(&key) { "(not shown)".to_owned() } else { show(value) };
        let message = format!("{key} {shown} {}", bad.message);
        let foreign = value.get_ref().as_str().and_then(|word| foreign::of_value(key, word));
        self.error_at(value.span().start, Bad { message, hint: foreign.map(ToString::to_string).or(bad.hint) });
    }

    fn below(&self, object: &str) -> String {
        if self.object.is_empty() { object.to_owned() } else { format!("{}: {object}", self.object) }
    }
}

/// The place of a value, and of the texts in it if it is a list.
fn place_of(value: &Spanned<DeValue<'_>>) -> ValuePlace {
    let elements = value.get_ref().as_array().into_iter().flat_map(|elements| elements.iter());
    let texts = elements.filter_map(|one| Some((one.get_ref().as_str()?.to_owned(), one.span().start)));
    ValuePlace { offset: value.span().start, elements: texts.collect() }
}

/// A value as messages quote it: at most 80 characters; lists and tables only as brackets.
fn show(value: &Spanned<DeValue<'_>>) -> String {
    const CHARACTERS_MAX: usize = 80;
    let shown = match value.get_ref() {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    };
    match shown.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &shown[..end]),
        None => shown,
    }
}
