//! `sessile log reopen`: makes the running process open the file of its access log anew, after a rotation.
//!
//! Renames no file. Invariant: the exit code is 0 exactly if no line goes to the old file any more.

use std::io::Write;

use super::load::RunningProcess;
use super::{CommandError, EXIT_USAGE, client};

/// Arguments of `sessile log`.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LogCommand {
    /// Open the file of the access log anew, once it was renamed; waits until the old file has its last line.
    Reopen(RunningProcess),
}

impl LogArgs {
    /// Sends the request and prints the response.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let LogCommand::Reopen(running) = &self.command;
        let answer = client::request(&running.socket()?, "POST", "/log/reopen")?;
        if answer.code == 200 {
            write!(out, "the access log goes to {}", answer.body)?;
            return Ok(0);
        }
        out.write_all(answer.body.as_bytes())?;
        Ok(EXIT_USAGE)
    }
}
