//! `sessile check`: everything that is wrong with a file, at once.
//!
//! Judges nothing itself. Invariant: the exit code is 64 exactly if `run` and `reload` would refuse the text.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{EXIT_USAGE, Failure, load};
use crate::config::{self, Problem};

/// The command.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The configuration file.
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Checks and prints.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, Failure> {
        let (accepted, found) = match config::check(&load::read(&self.file)?, &crate::socket::resolve) {
            Ok(checked) => (true, checked.warnings),
            Err(problems) => (false, problems),
        };
        if self.json {
            print_json(out, &self.file, accepted, &found)?;
        } else {
            print(out, &self.file, accepted, &found)?;
        }
        Ok(if accepted { 0 } else { EXIT_USAGE })
    }
}

fn print(out: &mut impl Write, file: &Path, accepted: bool, found: &[Problem]) -> Result<(), Failure> {
    let file = file.display();
    for problem in found {
        let Problem { line, column, .. } = problem;
        let (warning, object) = (if accepted { "warning: " } else { "" }, &problem.object);
        let object = if object.is_empty() { String::new() } else { format!("{object}: ") };
        writeln!(out, "{file}:{line}:{column}: {warning}{object}{}", problem.message)?;
        if let Some(hint) = &problem.hint {
            writeln!(out, "    hint: {hint}")?;
        }
    }
    let count = found.len();
    let s = if count == 1 { "" } else { "s" };
    match (accepted, count) {
        (true, 0) => writeln!(out, "{file}: good")?,
        (true, _) => writeln!(out, "{file}: good, with {count} warning{s}")?,
        (false, _) => writeln!(out, "{file}: refused for {count} problem{s}")?,
    }
    Ok(())
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    accepted: bool,
    problems: Vec<Row<'a>>,
    warnings: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    line: usize,
    column: usize,
    object: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
}

impl<'a> From<&'a Problem> for Row<'a> {
    fn from(problem: &'a Problem) -> Self {
        let Problem { line, column, object, message, hint } = problem;
        Self { line: *line, column: *column, object, message, hint: hint.as_deref() }
    }
}

fn print_json(out: &mut impl Write, file: &Path, accepted: bool, found: &[Problem]) -> Result<(), Failure> {
    let rows = found.iter().map(Row::from).collect();
    let (problems, warnings) = if accepted { (vec![], rows) } else { (rows, vec![]) };
    let report = Report { file: file.display().to_string(), accepted, problems, warnings };
    super::print_json(out, &report)
}
