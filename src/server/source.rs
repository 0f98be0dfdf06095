//! [`ConfigSource`]: where the configuration of this process is from, a file or the arguments of `run`.
//!
//! Composes no text (the command line does) and has no rule of its own (`files` applies them). Invariant: a reload reads
//! the source of the start again, and both report a problem at its place there: a line of the file, or an argument.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::discovery::Before;
use super::files::{self, FileIdentity, ReadConfig};
use crate::config::Problem;

/// Where the configuration of a process is from.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A file, which a reload reads again.
    File(PathBuf),
    /// Arguments of `run`. A reload reads the certificates and keys again that they name.
    Arguments(Arc<ArgumentText>),
}

/// The text of a configuration that arguments stand for.
#[derive(Debug, Default)]
pub struct ArgumentText {
    text: String,
    /// The argument behind each line of the text.
    arguments: Vec<String>,
    /// Warnings about the choice of what no argument says.
    warnings: Vec<String>,
}

impl ConfigSource {
    /// Reads and checks the source and every file that it names. Keys and certificates that did not change are taken from
    /// the snapshot in force.
    pub(super) fn read(&self, before: Before<'_>) -> Result<ReadConfig, Vec<String>> {
        match self {
            Self::File(path) => files::read(path, before),
            Self::Arguments(composed) => {
                let read = files::check_named(&composed.text, before, |problem| composed.at_argument(problem))?;
                let warnings = composed.warnings.iter().cloned().chain(read.warnings).collect();
                Ok(ReadConfig { warnings, ..read })
            }
        }
    }

    /// A problem with its place in this source, as operators read it.
    pub(super) fn named(&self, problem: &Problem) -> String {
        match self {
            Self::File(path) => format!("{}:{problem}", path.display()),
            Self::Arguments(composed) => composed.at_argument(problem),
        }
    }

    /// Tells the file from another that has taken its place; `None`: it cannot be found, or there is none.
    pub(super) fn identity(&self) -> Option<FileIdentity> {
        match self {
            Self::File(path) => files::identity(path),
            Self::Arguments(_) => None,
        }
    }
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Arguments(_) => f.write_str("the command line"),
        }
    }
}

impl ArgumentText {
    /// Adds lines that an argument stands for.
    pub fn push(&mut self, argument: &str, lines: impl fmt::Display) {
        let begins = self.text.len();
        self.text += &format!("{lines}\n");
        let added = self.text[begins..].lines().map(|_| argument.to_owned());
        self.arguments.extend(added);
    }

    /// Adds a warning, which every start and reload shows.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// The whole text, as a file may have it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A problem of the text, with the argument instead of line, column and object.
    pub fn at_argument(&self, problem: &Problem) -> String {
        let Problem { line, message, hint, .. } = problem;
        let argument = self.arguments.get(line - 1).map_or("", String::as_str);
        let hint = hint.as_ref().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
        format!("{argument}: {message}{hint}")
    }
}
