//! [`Problem`]: an error or warning about a configuration file, with its place.
//!
//! Collects and sorts; the rules are in `check`. Invariant: problems are in the order of the file, each with line and
//! column (both from 1, columns in characters).

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::fmt;

use super::place::{FileProblem, FoundPlace, Places, ValuePlace};

/// One error, or one warning about a probable mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1.
    pub line: usize,
    /// Column of the line in characters, from 1.
    pub column: usize,
    /// The object: `pool "web": backend "a"`; empty for the file as a whole.
    pub object: String,
    /// The mistake, with the value as written.
    pub message: String,
    /// What to write instead; `None` where that is not known.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}

/// Why a value was refused; the place is added by the section that read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    /// The mistake, in words that follow the key and value.
    pub(super) message: String,
    /// What to write instead; `None` where that is not known.
    pub(super) hint: Option<String>,
}

impl Bad {
    /// A refusal without a hint.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// Adds a hint to a refusal.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Severity of a problem; a syntax error also hides other errors of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ProblemKind {
    Syntax,
    Error,
    Warning,
}

/// All problems found so far in one text.
pub(super) struct Problems<'a> {
    text: &'a str,
    lines: OnceCell<LineStarts>,
    found: RefCell<Vec<Found>>,
    places: RefCell<Places>,
}

struct Found {
    offset: usize,
    kind: ProblemKind,
    /// True for a problem of a file, false for one of the text.
    of_file: bool,
    object: String,
    bad: Bad,
}

impl<'a> Problems<'a> {
    /// An empty collection for this text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, lines: OnceCell::new(), found: RefCell::default(), places: RefCell::default() }
    }

    /// Line of a byte offset, for a message about two places.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.place(offset).0
    }

    /// Notes where a table and its values stand, for problems of files.
    pub(super) fn note_table(&self, object: &str, start: usize, values: impl Iterator<Item = (String, ValuePlace)>) {
        self.places.borrow_mut().note(object, start, values);
    }

    /// Adds an error of a file. An error of the text at the same place hides it, because it only follows from that one.
    /// `whole`: false after a syntax error, which may hide a key: only keys that are written count then.
    pub(super) fn file_error(&self, problem: FileProblem, whole: bool) {
        let place = self.places.borrow().find(&problem);
        let is_cause = |one: &Found| {
            let is_here = (one.offset, &one.object) == (place.offset, &place.object);
            is_here && !one.of_file && one.kind < ProblemKind::Warning
        };
        if (whole || place.is_written) && !self.found.borrow().iter().any(is_cause) {
            self.note_file(place, ProblemKind::Error, problem);
        }
    }

    /// Adds a warning of a file.
    pub(super) fn file_warning(&self, problem: FileProblem) {
        let place = self.places.borrow().find(&problem);
        self.note_file(place, ProblemKind::Warning, problem);
    }

    /// Adds a syntax error at a byte offset. The first one of a line hides all other problems of that line, because
    /// they only follow from it.
    pub(super) fn syntax(&self, offset: usize, bad: Bad) {
        self.note(offset, ProblemKind::Syntax, "", bad);
    }

    /// Adds an error at a byte offset of the text.
    pub(super) fn error(&self, offset: usize, object: &str, bad: Bad) {
        self.note(offset, ProblemKind::Error, object, bad);
    }

    /// Adds a warning at a byte offset of the text.
    pub(super) fn warn(&self, offset: usize, object: &str, bad: Bad) {
        self.note(offset, ProblemKind::Warning, object, bad);
    }

    /// Returns all errors, or, if there are none, all warnings.
    pub(super) fn finish(self) -> Result<Vec<Problem>, Vec<Problem>> {
        let mut found = self.found.take();
        let failed = found.iter().any(|one| one.kind < ProblemKind::Warning);
        found.retain(|one| failed == (one.kind < ProblemKind::Warning));
        found.sort_by_key(|one| (one.kind, one.offset));
        let mut broken_lines = HashSet::new();
        let mut problems = Vec::new();
        for Found { offset, kind, object, bad, .. } in found {
            let (line, column) = self.place(offset);
            let is_hidden = broken_lines.contains(&line);
            if kind == ProblemKind::Syntax {
                broken_lines.insert(line);
            }
            if !is_hidden {
                problems.push(Problem { line, column, object, message: bad.message, hint: bad.hint });
            }
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if failed { Err(problems) } else { Ok(problems) }
    }

    /// Line and column of a byte offset.
    fn place(&self, offset: usize) -> (usize, usize) {
        self.lines.get_or_init(|| LineStarts::new(self.text)).place(self.text, offset)
    }

    fn note(&self, offset: usize, kind: ProblemKind, object: &str, bad: Bad) {
        self.found.borrow_mut().push(Found { offset, kind, of_file: false, object: object.to_owned(), bad });
    }

    /// Adds a problem of a file once: many routes may inherit one table.
    fn note_file(&self, place: FoundPlace, kind: ProblemKind, problem: FileProblem) {
        let FoundPlace { offset, object, .. } = place;
        let bad = Bad { message: format!("{} {}", problem.key, problem.message), hint: problem.hint };
        let mut found = self.found.borrow_mut();
        if !found.iter().any(|one| (one.offset, &one.object, &one.bad) == (offset, &object, &bad)) {
            found.push(Found { offset, kind, of_file: true, object, bad });
        }
    }
}

/// Line and column of a byte offset in a text.
pub(super) fn place_in(text: &str, offset: usize) -> (usize, usize) {
    LineStarts::new(text).place(text, offset)
}

/// Byte offsets of the lines of a text.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn new(text: &str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Self(std::iter::once(0).chain(after_newlines).collect())
    }

    /// Line and column of a byte offset in that text; an offset behind it counts as its end.
    fn place(&self, text: &str, offset: usize) -> (usize, usize) {
        let offset = text.floor_char_boundary(offset);
        let line = self.0.partition_point(|start| *start <= offset);
        let column = text[self.0[line - 1]..offset].chars().count() + 1;
        (line, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let place = |text: &str, offset| LineStarts::new(text).place(text, offset);
        let places = [(0, (1, 1)), (2, (2, 1)), (4, (2, 2)), (3, (2, 1)), (10, (3, 1)), (11, (4, 1)), (99, (4, 4))];
        for (offset, expected) in places {
            assert_eq!(place("a\nüb = 1\n\nend", offset), expected, "offset {offset}");
        }
        assert_eq!(place("", 0), (1, 1));
    }

    #[test]
    fn warnings_are_shown_only_when_nothing_is_wrong() {
        let problems = Problems::new("ab\n");
        problems.warn(1, "", Bad::new("odd"));
        assert_eq!(problems.finish().unwrap()[0].to_string(), "1:2: odd");

        let problems = Problems::new("ab\n");
        problems.warn(0, "", Bad::new("odd"));
        problems.error(1, "pool \"web\"", Bad::new("wrong").hint("right"));
        problems.error(0, "", Bad::new("first"));
        let shown: Vec<_> = problems.finish().unwrap_err().iter().map(Problem::to_string).collect();
        assert_eq!(shown, ["1:1: first", "1:2: pool \"web\": wrong (hint: right)"]);
    }

    #[test]
    fn a_mistake_of_syntax_hides_the_rest_of_its_line() {
        let problems = Problems::new("a b c\nd\n");
        problems.error(0, "", Bad::new("echo"));
        problems.error(6, "", Bad::new("another line"));
        problems.syntax(4, Bad::new("echo"));
        problems.syntax(2, Bad::new("first"));
        let shown: Vec<_> = problems.finish().unwrap_err().iter().map(Problem::to_string).collect();
        assert_eq!(shown, ["1:3: first", "2:1: another line"]);
    }
}
