//! The command line: what was asked for, who answers it, and the exit code.
//!
//! Commands compute and print; the process itself is started by what `main.rs` passes in. Invariants: an error names
//! the object, what was tried and why it failed, on standard error; exit codes are those of `sysexits.h`: 64 for
//! usage and configuration, 69 when no process answers, 70 for our own failures; every command that prints data has
//! `--json`.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::Problem;

mod certs;
mod check;
mod client;
mod demo;
mod explain;
mod load;
mod order;
mod plan;
mod reload;
mod status;
mod table;

/// Exit code for usage and configuration.
const EXIT_USAGE: u8 = 64;
/// Exit code when no process answers.
const EXIT_UNAVAILABLE: u8 = 69;
/// Exit code for our own failures.
const EXIT_INTERNAL: u8 = 70;

/// A layer-4 TCP/TLS passthrough balancer whose first promise is that a client stays where it settled.
#[derive(Debug, Parser)]
#[command(name = "sessile", version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what a configuration file says.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Report everything that is wrong with a configuration file; exit code 64 if it would be refused.
    Check(check::CheckArgs),
    /// Say where clients go, why, and who is next, without connecting anywhere.
    Explain(explain::Explain),
    /// Say who would move if a new configuration file were put in force.
    Plan(plan::PlanFiles),
    /// Have the running process read its configuration again; not zero if it is refused.
    Reload(reload::Reload),
    /// Have a backend take nobody new, and nobody at all when its time is over.
    Drain(order::Order),
    /// Have a backend that was drained take whoever comes.
    Ready(order::Order),
    /// Have a backend take nobody from now on, and close what is open, evenly.
    Close(order::Order),
    /// Show what the running process is doing.
    Status(status::StatusArgs),
    /// Make certificates for trying things on this machine.
    Certs(certs::Certs),
    /// Play with three backends, the balancer before them and many clients, all on this machine.
    Demo(demo::Demo),
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page, or that of one command.
    Man {
        /// The command.
        command: Option<String>,
    },
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// The command was not understood, or a file cannot be read.
    Usage(String),
    /// A configuration was refused.
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// No process answers.
    Unavailable(String),
    /// A failure of our own.
    Internal(String),
    /// What is printed cannot be written.
    Output(io::Error),
}

impl CommandError {
    /// Tells on standard error; the exit code.
    fn report(&self) -> u8 {
        let code = self.code();
        if code != 0 {
            eprintln!("sessile: {self}");
        }
        code
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config { .. } => EXIT_USAGE,
            Self::Unavailable(_) => EXIT_UNAVAILABLE,
            Self::Internal(_) => EXIT_INTERNAL,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0, // the reader has seen enough
            Self::Output(_) => EXIT_INTERNAL,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::Unavailable(message) | Self::Internal(message) => f.write_str(message),
            Self::Config { file, problems } => {
                let count = problems.len();
                write!(f, "{}: {count} problem{}", file.display(), if count == 1 { "" } else { "s" })?;
                problems.iter().try_for_each(|problem| write!(f, "\n{}:{problem}", file.display()))
            }
            Self::Output(error) => write!(f, "standard output: {error}"),
        }
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Does what the process's arguments say. `run` serves a configuration file until it is told to stop.
pub fn main(run: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Run { config } }) => run(&config),
        Ok(Arguments { command }) => {
            let mut out = io::BufWriter::new(io::stdout());
            let code = command.print(&mut out).and_then(|code| Ok(out.flush().map(|()| code)?));
            code.unwrap_or_else(|failure| failure.report()).into()
        }
        Err(help_or_error) => {
            let _ = help_or_error.print(); // nobody left to tell
            if help_or_error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS }
        }
    }
}

impl Command {
    /// Runs a command that comes to an end by itself. The exit code is not 0 when the answer is no.
    fn print(self, out: &mut impl Write) -> Result<u8, CommandError> {
        match self {
            Self::Run { config } => Err(CommandError::Internal(format!("{} is to be served", config.display()))),
            Self::Check(check) => check.run(out),
            Self::Explain(explain) => explain.run(out),
            Self::Plan(plan) => plan.run(out),
            Self::Reload(reload) => reload.run(out),
            Self::Drain(order) => order.run("drain", out),
            Self::Ready(order) => order.run("ready", out),
            Self::Close(order) => order.run("close", out),
            Self::Status(status) => status.run(out),
            Self::Certs(certs) => certs.run(out),
            Self::Demo(demo) => demo.run(out),
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Arguments::command(), "sessile", &mut script);
                out.write_all(&script)?;
                Ok(0)
            }
            Self::Man { command } => manual(command.as_deref(), out),
        }
    }
}

fn manual(command: Option<&str>, out: &mut impl Write) -> Result<u8, CommandError> {
    let mut whole = Arguments::command();
    whole.build(); // names the commands "sessile-run" and so on
    let page = match command {
        None => whole,
        Some(name) => {
            let found = whole.find_subcommand(name).cloned();
            found.ok_or_else(|| CommandError::Usage(format!("man {name}: there is no such command")))?
        }
    };
    clap_mangen::Man::new(page).render(out)?;
    Ok(0)
}

/// One JSON value on a line of its own.
fn print_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), CommandError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

#[cfg(test)]
mod tests;
