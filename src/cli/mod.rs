//! The command line: parses the arguments, runs a command, returns the exit code.
//!
//! Commands compute and print; `run` is passed in by `main.rs`. Invariants: an error on standard error names the object,
//! the action and the reason; exit codes are those of `exit_codes.rs`; every command that prints data has `--json`.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit_codes::{EXIT_INTERNAL, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::access_log::print_error;
use crate::config::Problem;
use crate::server::{ConfigSource, RunOptions};

mod backend;
mod certs;
mod check;
mod client;
mod completions;
mod demo;
mod events;
mod exit_codes;
mod explain;
mod help;
mod load;
mod log;
mod man;
mod one_line;
mod order;
mod own_places;
mod plan;
mod reload;
mod run;
mod save;
mod status;
mod table;
mod top;
mod upgrade;
mod why;
mod width;

/// A layer-4 TCP/TLS passthrough balancer; its first promise is that a client stays where it settled.
#[derive(Debug, Parser)]
#[command(
    name = "sessile",
    version = env!("SESSILE_VERSION"),
    max_term_width = 120,
    disable_help_subcommand = true,
    after_help = help::list()
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the balancer with a configuration file, or for backends that the arguments name.
    Run(run::Run),
    /// Check a configuration file and report all problems; exit code 64 if it would be refused.
    Check(check::CheckArgs),
    /// Show which backend a client would get, why, and the next candidates; makes no connection for it.
    Explain(explain::Explain),
    /// Show which clients would move if a new file were loaded, or a backend added, changed or removed.
    Plan(plan::PlanFiles),
    /// Reload the configuration of the running process; exit code not 0 if it is refused.
    Reload(reload::Reload),
    /// Start another binary in place of the running process; established connections move to it.
    Upgrade(upgrade::Upgrade),
    /// Stop sending new clients to a backend; after drain_deadline, all clients.
    Drain(order::Order),
    /// Send clients to a drained or closed backend again.
    Ready(order::Order),
    /// Stop sending any client to a backend, and close its open connections evenly over drain_over.
    Close(order::Order),
    /// Add or remove a backend of the running process, or change its weight or address.
    Backend(backend::BackendArgs),
    /// Print the configuration file with the orders of `sessile backend` in it; writes no file.
    Save(save::Save),
    /// Work on the access log of the running process.
    Log(log::LogArgs),
    /// Show listeners, pools, backends, stick tables and workers of the running process.
    Status(status::StatusArgs),
    /// Show what happened to the running process: backends up and down, drains, reloads, limits, the store.
    Events(events::EventsArgs),
    /// Show what happened to one client: its backend, its moves and why, its last endings.
    Why(why::WhyArgs),
    /// Show the running process in this terminal, again and again: load, states, moves, hottest keys, events.
    Top(top::TopArgs),
    /// Make certificates and keys for tests on this machine.
    Certs(certs::Certs),
    /// Run the balancer with three backends and 200 clients on this machine, and show what happens.
    Demo(demo::Demo),
    /// Show a topic of the manual, or the help of a command.
    Help(help::HelpArgs),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
    /// Print the manual page of sessile, or write the pages of all commands, of the file and of all topics.
    Man(man::ManArgs),
}

/// Why a command failed, with its message.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// Wrong arguments, or a file that cannot be read.
    Usage(String),
    /// A configuration file with errors.
    Config {
        /// Path of the file.
        file: PathBuf,
        /// All errors in the file.
        problems: Vec<Problem>,
    },
    /// The admin interface of the running process cannot be reached.
    Unavailable(String),
    /// An internal failure, or an invalid response of the admin interface.
    Internal(String),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl CommandError {
    /// Prints the error on standard error and returns the exit code.
    fn report(&self) -> u8 {
        let code = self.code();
        if code != 0 {
            print_error(&format!("sessile: {self}"));
        }
        code
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config { .. } => EXIT_USAGE,
            Self::Unavailable(_) => EXIT_UNAVAILABLE,
            Self::Internal(_) => EXIT_INTERNAL,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0, // the reader closed the pipe, as `head` does
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

/// Runs the command in the process's arguments; `run` serves a configuration until it is stopped.
pub fn main(run: impl FnOnce(ConfigSource, RunOptions) -> ExitCode) -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command: Command::Run(arguments) }) if !arguments.prints() => match arguments.source() {
            Ok(source) => run(source, arguments.options()),
            Err(failure) => failure.report().into(),
        },
        Ok(Arguments { command }) => {
            let mut out = io::BufWriter::new(io::stdout());
            let code = command.print(&mut out).and_then(|code| Ok(out.flush().map(|()| code)?));
            code.unwrap_or_else(|failure| failure.report()).into()
        }
        Err(help_or_error) => {
            let _ = help_or_error.print(); // a closed output cannot be reported anywhere
            if help_or_error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS }
        }
    }
}

impl Command {
    /// Runs any command, of `run` the one that prints, and returns the exit code: not 0 if the result is negative.
    fn print(self, out: &mut impl Write) -> Result<u8, CommandError> {
        match self {
            Self::Run(run) => run.print(out),
            Self::Check(check) => check.run(out),
            Self::Explain(explain) => explain.run(out),
            Self::Plan(plan) => plan.run(out),
            Self::Reload(reload) => reload.run(out),
            Self::Upgrade(upgrade) => upgrade.run(out),
            Self::Drain(order) => order.run("drain", out),
            Self::Ready(order) => order.run("ready", out),
            Self::Close(order) => order.run("close", out),
            Self::Backend(backend) => backend.run(out),
            Self::Save(save) => save.run(out),
            Self::Log(log) => log.run(out),
            Self::Status(status) => status.run(out),
            Self::Events(events) => events.run(out),
            Self::Why(why) => why.run(out),
            Self::Top(top) => top.run(out),
            Self::Certs(certs) => certs.run(out),
            Self::Demo(demo) => demo.run(out),
            Self::Help(help) => help.run(out),
            Self::Completions(completions) => completions.run(out),
            Self::Man(man) => man.run(out),
        }
    }
}

/// Prints one JSON value and a line end.
fn print_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), CommandError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

#[cfg(test)]
mod tests;
