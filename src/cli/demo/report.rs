//! [`Report`]: prints scenes of the demo, each with a title, paragraphs, a table and promises kept or broken.
//!
//! Runs no scenario. Invariant: escape sequences appear only on a terminal.

use std::io::{self, IsTerminal, Write};

use crate::cli::table::Table;

/// Width of a paragraph in columns; with its indent no line is wider than 100.
const WIDTH: usize = 90;
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Result of one scenario.
#[derive(Debug)]
pub(super) struct Scene {
    title: &'static str,
    words: Vec<String>,
    table: String,
    promises: Vec<Promise>,
}

#[derive(Debug)]
struct Promise {
    text: String,
    /// Reason why the promise is broken; `None`: kept.
    complaint: Option<String>,
}

impl Scene {
    /// A scene with a title only.
    pub(super) fn new(title: &'static str) -> Self {
        Self { title, words: Vec::new(), table: String::new(), promises: Vec::new() }
    }

    /// Adds a paragraph of text.
    pub(super) fn text(mut self, words: impl Into<String>) -> Self {
        self.words.push(words.into());
        self
    }

    /// Sets the table of the scene.
    pub(super) fn show<const N: usize>(mut self, table: &Table<N>) -> Self {
        self.table = table.render();
        self
    }

    /// Adds a promise; a complaint means that it is broken.
    pub(super) fn promise(mut self, text: impl Into<String>, complaint: Option<String>) -> Self {
        self.promises.push(Promise { text: text.into(), complaint });
        self
    }
}

/// Writes numbered scenes and counts promises.
pub(super) struct Report<'a, W> {
    out: &'a mut W,
    colours: bool,
    scenes: usize,
    promises: usize,
    broken: usize,
}

impl<'a, W: Write> Report<'a, W> {
    /// A report that writes to `out`, which must be standard output.
    pub(super) fn new(out: &'a mut W) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, colours: wanted && io::stdout().is_terminal(), scenes: 0, promises: 0, broken: 0 }
    }

    /// Writes lines without indent or wrapping.
    pub(super) fn print(&mut self, lines: &str) -> io::Result<()> {
        writeln!(self.out, "{}", lines.trim_end())?;
        self.out.flush()
    }

    /// Writes one scene and flushes.
    pub(super) fn scene(&mut self, scene: &Scene) -> io::Result<()> {
        self.scenes += 1;
        let title = self.coloured(BOLD, format!("{}. {}", self.scenes, scene.title));
        writeln!(self.out, "\n{title}")?;
        for line in scene.words.iter().flat_map(|words| wrapped(words)) {
            writeln!(self.out, "   {line}")?;
        }
        writeln!(self.out)?;
        for row in scene.table.lines() {
            writeln!(self.out, "   {row}")?;
        }
        writeln!(self.out)?;
        for promise in &scene.promises {
            self.promise(promise)?;
        }
        self.out.flush()
    }

    /// Number of promises, and of broken ones.
    pub(super) fn promises(&self) -> (usize, usize) {
        (self.promises, self.broken)
    }

    fn promise(&mut self, Promise { text, complaint }: &Promise) -> io::Result<()> {
        self.promises += 1;
        let Some(complaint) = complaint else {
            let kept = self.coloured(GREEN, "✓".into());
            return writeln!(self.out, "   {kept} {text}");
        };
        self.broken += 1;
        let broken = self.coloured(RED, format!("✗ {text}: BROKEN, {complaint}"));
        writeln!(self.out, "   {broken}")
    }

    fn coloured(&self, colour: &str, text: String) -> String {
        if self.colours { format!("{colour}{text}{PLAIN}") } else { text }
    }
}

/// Wraps a paragraph into lines of [`WIDTH`].
fn wrapped(words: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(colours: bool) -> (String, (usize, usize)) {
        let mut table = Table::new(["BACKEND", "CLIENTS"]);
        table.row(["a".into(), "7".into()]);
        let scene =
            Scene::new("Title").text("words").show(&table).promise("one", None).promise("two", Some("no".into()));
        let mut out = Vec::new();
        let mut report = Report { colours, ..Report::new(&mut out) };
        report.scene(&scene).unwrap();
        let promises = report.promises();
        (String::from_utf8(out).unwrap(), promises)
    }

    #[test]
    fn broken_promises_stand_out_and_are_counted() {
        let (text, promises) = printed(false);
        assert_eq!(
            text,
            "\n1. Title\n   words\n\n   BACKEND  CLIENTS\n   a              7\n\n   ✓ one\n   ✗ two: BROKEN, no\n"
        );
        assert_eq!(promises, (2, 1));
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(printed(true).0.contains(GREEN) && printed(true).0.contains(RED));
        assert!(!printed(false).0.contains('\x1b'));
    }

    #[test]
    fn paragraphs_keep_their_words_and_the_width() {
        let words = "a word and another ".repeat(20);
        let lines = wrapped(words.trim_end());
        assert_eq!(lines.join(" "), words.trim_end());
        assert!(lines.len() > 3 && lines.iter().all(|line| line.len() <= WIDTH));
    }
}
