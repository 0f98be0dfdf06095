//! `sessile check`: reports all problems of a configuration file and of the files that it names.
//!
//! The rules are in `config::check` and `server::read_files`. Invariant: the exit code is 64 exactly if `run` and `reload`
//! would refuse the configuration.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::load::RunningProcess;
use super::{CommandError, EXIT_USAGE, load};
use crate::clock;
use crate::config::{self, Problem};
use crate::server::read_files;
use crate::store::Access;

/// Arguments of `sessile check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The configuration file to check.
    file: PathBuf,
    /// Compare with the running process too, and warn of what a reload would do to its clients.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    running: RunningProcess,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    /// Checks the file and prints the findings.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let found = self.found()?;
        if self.json {
            print_json(out, &self.file, &found)?;
        } else {
            print(out, &self.file, &found)?;
        }
        Ok(if found.accepted { 0 } else { EXIT_USAGE })
    }

    /// With `--live`, what the running process warns of when it compares the file with what is in force.
    fn against_the_process(&self) -> Result<Vec<String>, CommandError> {
        if !self.live {
            return Ok(Vec::new());
        }
        let plan = load::plan_of(&self.running, &self.file, Vec::new())?;
        // Of the file alone this command has found everything itself.
        let alone = format!("{}:", self.file.display());
        Ok(plan.warnings.into_iter().filter(|warning| !warning.starts_with(&alone)).collect())
    }

    /// Checks the text, and then the files that it names; a text with errors may name the wrong ones.
    fn found(&self) -> Result<CheckFindings, CommandError> {
        let refused = |in_text, in_files| CheckFindings { accepted: false, in_text, in_files };
        Ok(match config::check(&load::read(&self.file)?, &crate::socket::resolve) {
            Err(problems) => refused(problems, Vec::new()),
            Ok(checked) => match read_files(&checked.config, None) {
                Err(problems) => refused(Vec::new(), problems),
                Ok((loaded, access)) => {
                    let mut in_files = loaded.tls.warnings(clock::unix_s());
                    in_files.extend(loaded.rings.warnings());
                    in_files.extend(self.against_the_process()?);
                    in_files.extend(access.iter().flat_map(Access::warnings));
                    CheckFindings { accepted: true, in_text: checked.warnings, in_files }
                }
            },
        })
    }
}

/// Errors, or the warnings of an accepted configuration.
struct CheckFindings {
    accepted: bool,
    /// Problems of the text, each with line and column.
    in_text: Vec<Problem>,
    /// Problems of the files that the text names.
    in_files: Vec<String>,
}

fn print(out: &mut impl Write, file: &Path, found: &CheckFindings) -> Result<(), CommandError> {
    let file = file.display();
    let accepted = found.accepted;
    for problem in &found.in_text {
        let Problem { line, column, .. } = problem;
        let (warning, object) = (if accepted { "warning: " } else { "" }, &problem.object);
        let object = if object.is_empty() { String::new() } else { format!("{object}: ") };
        writeln!(out, "{file}:{line}:{column}: {warning}{object}{}", problem.message)?;
        if let Some(hint) = &problem.hint {
            writeln!(out, "    hint: {hint}")?;
        }
    }
    for problem in &found.in_files {
        writeln!(out, "{file}: {}{problem}", if accepted { "warning: " } else { "" })?;
    }
    let count = found.in_text.len() + found.in_files.len();
    let s = if count == 1 { "" } else { "s" };
    match (accepted, count) {
        (true, 0) => writeln!(out, "{file}: good")?,
        (true, _) => writeln!(out, "{file}: good, with {count} warning{s}")?,
        (false, _) => writeln!(out, "{file}: refused for {count} problem{s}")?,
    }
    Ok(())
}

#[derive(Serialize)]
struct CheckReport<'a> {
    file: String,
    accepted: bool,
    problems: Vec<CheckRow<'a>>,
    warnings: Vec<CheckRow<'a>>,
}

#[derive(Serialize)]
struct CheckRow<'a> {
    /// Line of the configuration; `null` for a problem of another file.
    line: Option<usize>,
    column: Option<usize>,
    object: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
}

impl<'a> From<&'a Problem> for CheckRow<'a> {
    fn from(problem: &'a Problem) -> Self {
        let Problem { line, column, object, message, hint } = problem;
        Self { line: Some(*line), column: Some(*column), object, message, hint: hint.as_deref() }
    }
}

impl<'a> From<&'a String> for CheckRow<'a> {
    fn from(message: &'a String) -> Self {
        Self { line: None, column: None, object: "", message, hint: None }
    }
}

fn print_json(out: &mut impl Write, file: &Path, found: &CheckFindings) -> Result<(), CommandError> {
    let rows = found.in_text.iter().map(CheckRow::from).chain(found.in_files.iter().map(CheckRow::from)).collect();
    let (problems, warnings) = if found.accepted { (vec![], rows) } else { (rows, vec![]) };
    let report = CheckReport { file: file.display().to_string(), accepted: found.accepted, problems, warnings };
    super::print_json(out, &report)
}
