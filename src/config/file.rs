//! The file as written: tables whose values know where they stand.
//!
//! Gives no value a meaning (that is `value.rs`) and knows no rule between values (that is `check.rs`).
//! Invariant: reading never stops at a problem; whatever cannot be read is noted where it stands and answered as if
//! it were not written, so that one pass finds everything.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::LazyLock;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, TableKeys};
use super::problem::{Bad, Problems};
use super::value::ValueResult;

/// What a table that is not written holds.
static NOTHING: LazyLock<DeTable<'static>> = LazyLock::new(DeTable::new);

/// A text split into tables.
pub(super) struct Document<'a> {
    top: DeTable<'a>,
    /// Whether the syntax is whole, so that what is missing was not written.
    pub(super) whole: bool,
}

impl<'a> Document<'a> {
    /// Splits it as well as it can be split, and notes every mistake of syntax.
    pub(super) fn parse(text: &'a str, problems: &Problems<'_>) -> Self {
        let (top, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            problems.syntax(error.span().map_or(0, |span| span.start), Bad::new(error.message()));
        }
        Self { top: top.into_inner(), whole: errors.is_empty() }
    }

    /// The top level as a section.
    pub(super) fn top<'d>(&'d self, problems: &'d Problems<'d>) -> Section<'d> {
        Section::new(&self.top, 0, String::new(), &keys::TOP, self.whole, problems)
    }
}

/// One table, and the object it describes.
pub(super) struct Section<'d> {
    table: &'d DeTable<'d>,
    /// Where it begins.
    pub(super) start: usize,
    /// `pool "web": backend "a"`.
    pub(super) object: String,
    keys: &'static TableKeys,
    whole: bool,
    problems: &'d Problems<'d>,
}

impl<'d> Section<'d> {
    /// What `read` makes of the value, if it is written and understood.
    pub(super) fn read<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Option<T> {
        let value = self.value(key)?;
        self.understood(key, value, &read)
    }

    /// The same for a value that must be written.
    pub(super) fn required<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Option<T> {
        if !self.has(key) {
            self.missing(format!("has no {key}"));
        }
        self.read(key, read)
    }

    /// One value, or a list of different values, each with the place where it stands.
    pub(super) fn list<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Vec<(usize, T)>
    where
        T: Clone + Eq + Hash,
    {
        let mut seen = HashSet::new();
        let mut different = Vec::new();
        for element in self.elements(key) {
            let Some(understood) = self.understood(key, element, &read) else { continue };
            if seen.insert(understood.clone()) {
                different.push((element.span().start, understood));
            } else {
                self.error_at(element.span().start, Bad::new(format!("{key} {} is there twice", show(element))));
            }
        }
        different
    }

    /// The same without the places.
    pub(super) fn values<T>(&self, key: &'static str, read: impl Fn(&DeValue<'_>) -> ValueResult<T>) -> Vec<T>
    where
        T: Clone + Eq + Hash,
    {
        self.list(key, read).into_iter().map(|(_, value)| value).collect()
    }

    /// A table below this one; one that is not written reads as empty.
    pub(super) fn child(&self, key: &'static str, keys: &'static TableKeys) -> Section<'d> {
        let nothing = || Section::new(&NOTHING, self.start, self.below(key), keys, self.whole, self.problems);
        self.value(key).and_then(|value| self.table(key, value, keys)).unwrap_or_else(nothing)
    }

    /// The same, unless the word `"off"` stands in the table's place, or anything else that is no table.
    pub(super) fn child_unless_off(&self, key: &'static str, keys: &'static TableKeys) -> Option<Section<'d>> {
        match self.value(key) {
            None => Some(self.child(key, keys)),
            Some(value) if value.get_ref().as_str() == Some("off") => None,
            Some(value) => self.table(key, value, keys),
        }
    }

    /// The tables of a list; each is an object with a name or, for want of one, a number.
    pub(super) fn children(&self, key: &'static str, keys: &'static TableKeys) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let not_tables = || Bad::new("is not a list of tables").hint(format!("write {}", keys.table));
        let Some(elements) = value.get_ref().as_array() else {
            self.complain(key, value, not_tables());
            return Vec::new();
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

    /// Whether the key is written.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Values of a list as written, understood or not; one value counts as a list of itself.
    pub(super) fn count(&self, key: &'static str) -> usize {
        self.elements(key).len()
    }

    /// Where a value stands; the table itself if it is not written.
    pub(super) fn at(&self, key: &'static str) -> usize {
        self.value(key).map_or(self.start, |value| value.span().start)
    }

    /// Notes an error at a key's value.
    pub(super) fn error(&self, key: &'static str, bad: Bad) {
        self.error_at(self.at(key), bad);
    }

    /// Notes an error at a place.
    pub(super) fn error_at(&self, offset: usize, bad: Bad) {
        self.problems.error(offset, &self.object, bad);
    }

    /// Notes a warning at a key's value.
    pub(super) fn warn(&self, key: &'static str, bad: Bad) {
        self.problems.warn(self.at(key), &self.object, bad);
    }

    /// Notes that something is not there; not said of a broken text, where it may only be unreadable.
    pub(super) fn missing(&self, what: impl Into<String>) {
        if self.whole {
            self.error_at(self.start, Bad::new(what));
        }
    }

    /// Warns of keys that are written but do nothing.
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
        for key in table.keys().filter(|key| !keys.keys.contains(&key.get_ref().as_ref())) {
            let bad = Bad::new(format!("unknown key \"{}\"", key.get_ref().escape_debug()));
            section.error_at(key.span().start, Bad { hint: keys::advice(keys, key.get_ref()), ..bad });
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

    fn understood<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> ValueResult<T>,
    ) -> Option<T> {
        read(value.get_ref()).map_err(|bad| self.complain(key, value, bad)).ok()
    }

    /// Notes `KEY VALUE …`.
    fn complain(&self, key: &str, value: &Spanned<DeValue<'_>>, bad: Bad) {
        let shown = if keys::SECRET.contains(&key) { "(not shown)".to_owned() } else { show(value) };
        let message = format!("{key} {shown} {}", bad.message);
        self.error_at(value.span().start, Bad { message, ..bad });
    }

    fn below(&self, object: &str) -> String {
        if self.object.is_empty() { object.to_owned() } else { format!("{}: {object}", self.object) }
    }
}

/// A value as people would quote it; composite ones only by kind.
fn show(value: &Spanned<DeValue<'_>>) -> String {
    const LONGEST: usize = 80;
    let shown = match value.get_ref() {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    };
    match shown.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &shown[..end]),
        None => shown,
    }
}
