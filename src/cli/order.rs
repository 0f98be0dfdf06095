//! `sessile drain`, `ready` and `close`: tell the running process what a backend shall do.
//!
//! Invariant: the exit code is 0 exactly if the backend was told.

use std::io::Write;

use super::load::RunningProcess;
use super::{CommandError, EXIT_USAGE, client};

/// The arguments of all three.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// The backend: POOL/NAME.
    #[arg(value_name = "POOL/NAME")]
    backend: String,
    #[command(flatten)]
    running: RunningProcess,
}

impl Order {
    /// Asks and prints.
    pub(super) fn run(&self, order: &str, out: &mut impl Write) -> Result<u8, CommandError> {
        let Some((pool, backend)) = self.backend.split_once('/') else {
            return Err(CommandError::Usage(format!("{}: not like POOL/NAME", self.backend)));
        };
        let path = format!("/backends/{pool}/{backend}/{order}");
        let answer = client::request(&self.running.socket()?, "POST", &path)?;
        out.write_all(answer.body.as_bytes())?;
        Ok(if answer.code == 200 { 0 } else { EXIT_USAGE })
    }
}
