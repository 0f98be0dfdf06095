//! [`FileProblem`]: a problem that shows only where a value is used, and [`Places`]: where the text names the value.
//!
//! Opens no file. Invariant: a problem gets the place of the key that names the file, or of the table if the key is not
//! written.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use super::keys;

/// A problem of a file that a key names; the text itself shows nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The table of the key: `listener "web": certificate #1`; empty for the top of the file.
    pub object: String,
    /// The key that names the file.
    pub key: &'static str,
    /// The element of a list, as written; `None`: the value is no list.
    pub element: Option<String>,
    /// The mistake, in words that follow the key: `"certs/a.pem": …`.
    pub message: String,
    /// What to do instead; `None` where that is not known.
    pub hint: Option<String>,
}

impl FileProblem {
    /// A problem without a hint, of a value that is no list.
    pub fn new(object: impl Into<String>, key: &'static str, message: impl Into<String>) -> Self {
        Self { object: object.into(), key, element: None, message: message.into(), hint: None }
    }

    /// The warning about a file with a secret that every user of this machine can read; `what`: a key, a secret.
    pub fn exposed(object: impl Into<String>, key: &'static str, path: &Path, what: &str) -> Self {
        Self::new(object, key, format!("\"{}\": it holds {what}, and every user can read it", path.display()))
    }
}

/// True for the mode of a file that is open to every user of this machine.
pub fn is_open_to_all(mode: u32) -> bool {
    const OTHERS: u32 = 0o007;
    mode & OTHERS != 0
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        write!(f, "{} {}", self.key, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}

/// The places of every table in a text, by the object that messages name.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<String, TablePlaces>);

/// The byte offsets of one table and of its values.
#[derive(Debug)]
struct TablePlaces {
    start: usize,
    values: HashMap<String, ValuePlace>,
}

/// The byte offset of a value, and those of the texts in it if it is a list.
#[derive(Debug, Default)]
pub(super) struct ValuePlace {
    pub(super) offset: usize,
    pub(super) elements: Vec<(String, usize)>,
}

/// The place of a problem in the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundPlace {
    pub(super) offset: usize,
    /// The object of the table that names the file.
    pub(super) object: String,
    /// False: the key is not written, and the place is that of the table.
    pub(super) is_written: bool,
}

impl Places {
    /// Notes a table and its values. Of two tables with one name the first counts; the text is refused anyway.
    pub(super) fn note(&mut self, object: &str, start: usize, values: impl Iterator<Item = (String, ValuePlace)>) {
        if !self.0.contains_key(object) {
            self.0.insert(object.to_owned(), TablePlaces { start, values: values.collect() });
        }
    }

    /// The place of a problem. A table or key that a route does not have is the listener's; for another one that is not
    /// written, the nearest table above stands.
    pub(super) fn find(&self, problem: &FileProblem) -> FoundPlace {
        debug_assert!(keys::ALL.iter().any(|table| table.keys.contains(&problem.key)), "{problem} names no key");
        let named = |object: &str| Some((object.to_owned(), self.0.get(object)?));
        let found = named(&problem.object).or_else(|| named(&above_route(&problem.object)?));
        let Some((object, table)) = found else {
            return FoundPlace {
                offset: self.above(&problem.object),
                object: problem.object.clone(),
                is_written: false,
            };
        };
        // A key that a route does not have is the listener's.
        let inherited = || named(problem.object.split_once(": route #")?.0).filter(|(_, above)| above.has(problem.key));
        let (object, table) =
            if table.has(problem.key) { (object, table) } else { inherited().unwrap_or((object, table)) };
        let Some(value) = table.values.get(problem.key) else {
            return FoundPlace { offset: table.start, object, is_written: false };
        };
        let element = value.elements.iter().find(|(text, _)| problem.element.as_ref() == Some(text));
        FoundPlace { offset: element.map_or(value.offset, |(_, offset)| *offset), object, is_written: true }
    }

    /// The place of a table that the text does not have: of its key in the nearest table above, or of that table.
    fn above(&self, object: &str) -> usize {
        let mut rest = object;
        while let Some((above, key)) = rest.rsplit_once(": ") {
            if let Some(table) = self.0.get(above) {
                return table.values.get(key).map_or(table.start, |value| value.offset);
            }
            rest = above;
        }
        0
    }
}

impl TablePlaces {
    fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }
}

/// `listener "a": route #2: client_certificate` → `listener "a": client_certificate`.
fn above_route(object: &str) -> Option<String> {
    let (listener, route) = object.split_once(": route #")?;
    let (_, table) = route.split_once(": ")?;
    Some(format!("{listener}: {table}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_placed_at_its_key_or_its_table_or_that_of_the_listener() {
        let mut places = Places::default();
        let value = |key: &str, offset, elements| [(key.to_owned(), ValuePlace { offset, elements })].into_iter();
        places.note("listener \"l\": client_certificate", 40, value("ca", 47, vec![]));
        let elements = vec![("a".to_owned(), 21), ("b".to_owned(), 30)];
        places.note("listener \"l\"", 10, value("bind", 20, elements));
        places.note("listener \"l\"", 99, std::iter::empty());
        let at = |object: &str, key, element: Option<&str>| {
            let element = element.map(str::to_owned);
            let found = places.find(&FileProblem { element, ..FileProblem::new(object, key, "") });
            (found.offset, found.object, found.is_written)
        };
        let listener = || "listener \"l\"".to_owned();
        assert_eq!(at("listener \"l\"", "bind", Some("b")), (30, listener(), true));
        assert_eq!(at("listener \"l\"", "bind", None), (20, listener(), true));
        assert_eq!(at("listener \"l\"", "group", None), (10, listener(), false));
        let table = "listener \"l\": client_certificate".to_owned();
        assert_eq!(at("listener \"l\": route #2: client_certificate", "ca", None), (47, table, true));
        assert_eq!(at("store", "ca", None), (0, "store".to_owned(), false));
        assert_eq!(
            at("listener \"l\": route #2: tls", "ca", None),
            (10, "listener \"l\": route #2: tls".to_owned(), false)
        );
    }

    #[test]
    fn what_a_table_inherits_or_does_not_have_is_placed_at_the_nearest_one_that_has_it() {
        let mut places = Places::default();
        let value = |key: &str, offset| [(key.to_owned(), ValuePlace { offset, elements: vec![] })].into_iter();
        places.note("listener \"l\"", 10, value("tls", 15));
        places.note("listener \"l\": route #1", 30, value("pool", 35));
        places.note("pool \"p\"", 50, value("check", 60));
        let at = |object: &str, key| {
            let found = places.find(&FileProblem::new(object, key, ""));
            (found.offset, found.is_written)
        };
        assert_eq!(at("listener \"l\": route #1", "tls"), (15, true), "the listener's");
        assert_eq!(at("listener \"l\": route #1", "pool"), (35, true));
        assert_eq!(at("listener \"l\": route #1", "sni"), (30, false));
        assert_eq!(at("pool \"p\": check", "sni"), (60, false), "no table, but a value");
        assert_eq!(at("pool \"p\": cookie: other", "keys"), (50, false));
    }
}
