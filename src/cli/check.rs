//! `sessile check`: reports all problems of a configuration file and of the files that it names.
//!
//! The rules are in `config::check`, those for files in `server::examine`. Invariant: the exit code is 64 exactly if
//! `run` and `reload`, as this user, would refuse the configuration for its text or for a file.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::load::RunningProcess;
use super::{CommandError, EXIT_USAGE, load};
use crate::config::Problem;
use crate::server::{self, Examination, ResolvedName};

/// Arguments of `sessile check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The configuration file to check [default: that of --config].
    file: Option<PathBuf>,
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
        let file = self.file.as_deref().unwrap_or_else(|| self.running.file());
        let found = self.found(file)?;
        if self.json {
            print_json(out, file, &found)?;
        } else {
            print(out, file, &found)?;
        }
        Ok(if found.accepted { 0 } else { EXIT_USAGE })
    }

    /// Checks the text and the files that it names.
    fn found(&self, file: &Path) -> Result<CheckFindings, CommandError> {
        let text = load::read(file)?;
        Ok(match load::in_time(move || server::examine(&text))? {
            Ok(Examination { warnings: problems, names }) => {
                CheckFindings { accepted: true, problems, live: self.against_the_process(file)?, names }
            }
            Err(problems) => CheckFindings { accepted: false, problems, live: Vec::new(), names: Vec::new() },
        })
    }

    /// With `--live`, what the running process warns of when it compares the file with what is in force.
    fn against_the_process(&self, file: &Path) -> Result<Vec<String>, CommandError> {
        if !self.live {
            return Ok(Vec::new());
        }
        let plan = load::plan_of(&self.running, file, Vec::new())?;
        // Of the file alone this command has found everything itself.
        let alone = format!("{}:", file.display());
        Ok(plan.warnings.into_iter().filter(|warning| !warning.starts_with(&alone)).collect())
    }
}

/// Errors, or the warnings of an accepted configuration.
struct CheckFindings {
    accepted: bool,
    /// Problems of the text and of the files that it names, each with the line and column of the key.
    problems: Vec<Problem>,
    /// What the running process warns of.
    live: Vec<String>,
    /// Backends that are written with a name.
    names: Vec<ResolvedName>,
}

fn print(out: &mut impl Write, file: &Path, found: &CheckFindings) -> Result<(), CommandError> {
    let file = file.display();
    let accepted = found.accepted;
    for problem in &found.problems {
        let Problem { line, column, .. } = problem;
        let (warning, object) = (if accepted { "warning: " } else { "" }, &problem.object);
        let object = if object.is_empty() { String::new() } else { format!("{object}: ") };
        writeln!(out, "{file}:{line}:{column}: {warning}{object}{}", problem.message)?;
        if let Some(hint) = &problem.hint {
            writeln!(out, "    hint: {hint}")?;
        }
    }
    for warning in &found.live {
        writeln!(out, "{file}: warning: {warning}")?;
    }
    found.names.iter().try_for_each(|name| writeln!(out, "{file}: {name}"))?;
    let count = found.problems.len() + found.live.len();
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
    /// What the running process warns of, with `--live`.
    live: &'a [String],
    /// Backends that are written with a name.
    names: Vec<NameRow<'a>>,
}

#[derive(Serialize)]
struct CheckRow<'a> {
    /// Line and column of the key in the configuration, also for a problem of a file that the key names.
    line: usize,
    column: usize,
    object: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
}

#[derive(Serialize)]
struct NameRow<'a> {
    pool: &'a str,
    backend: &'a str,
    /// The name, with the port.
    name: String,
    /// All addresses of the answer, the lowest first.
    answers: &'a [IpAddr],
    /// The one that is taken; `None`: the backend would be down.
    address: Option<SocketAddr>,
}

impl<'a> From<&'a ResolvedName> for NameRow<'a> {
    fn from(name: &'a ResolvedName) -> Self {
        let ResolvedName { pool, backend, name, answers, address } = name;
        Self { pool, backend, name: name.to_string(), answers, address: *address }
    }
}

impl<'a> From<&'a Problem> for CheckRow<'a> {
    fn from(problem: &'a Problem) -> Self {
        let Problem { line, column, object, message, hint } = problem;
        Self { line: *line, column: *column, object, message, hint: hint.as_deref() }
    }
}

fn print_json(out: &mut impl Write, file: &Path, found: &CheckFindings) -> Result<(), CommandError> {
    let rows = found.problems.iter().map(CheckRow::from).collect();
    let (problems, warnings) = if found.accepted { (vec![], rows) } else { (rows, vec![]) };
    let report = CheckReport {
        file: file.display().to_string(),
        accepted: found.accepted,
        problems,
        warnings,
        live: &found.live,
        names: found.names.iter().map(NameRow::from).collect(),
    };
    super::print_json(out, &report)
}
