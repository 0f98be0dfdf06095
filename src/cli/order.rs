//! `sessile drain`, `ready` and `close`: set the state of a backend in the running process.
//!
//! Changes no file. Invariant: the exit code is 0 exactly if the process has accepted the new state.

use std::io::Write;

use super::load::RunningProcess;
use super::{CommandError, EXIT_USAGE, client};

/// Arguments of the three commands.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// The backend, as POOL/NAME.
    #[arg(value_name = "POOL/NAME")]
    backend: String,
    #[command(flatten)]
    running: RunningProcess,
}

impl Order {
    /// Sends the request and prints the response.
    pub(super) fn run(&self, order: &str, out: &mut impl Write) -> Result<u8, CommandError> {
        let Some((pool, backend)) = self.backend.split_once('/') else {
            return Err(CommandError::Usage(format!("{}: not of the form POOL/NAME", self.backend)));
        };
        let path = format!("/backends/{pool}/{backend}/{order}");
        let answer = client::request(&self.running.socket()?, "POST", &path)?;
        out.write_all(answer.body.as_bytes())?;
        Ok(if answer.code == 200 { 0 } else { EXIT_USAGE })
    }
}
