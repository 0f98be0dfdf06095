//! `sessile drain`, `ready` and `close`: set the state of a backend in the running process.
//!
//! Changes no file. Invariant: the exit code is 0 exactly if the process has accepted the new state.

use std::io::Write;

use serde::Serialize;

use super::load::RunningProcess;
use super::{CommandError, EXIT_USAGE, client, print_json};

/// Arguments of the three commands.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    /// The backend, as POOL/NAME.
    #[arg(value_name = "POOL/NAME")]
    backend: String,
    #[command(flatten)]
    running: RunningProcess,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// The result of an order, as JSON.
#[derive(Serialize)]
struct OrderReport<'a> {
    backend: &'a str,
    order: &'a str,
    accepted: bool,
    /// The new state, or why there is none.
    message: &'a str,
}

impl Order {
    /// Sends the request and prints the response.
    pub(super) fn run(&self, order: &str, out: &mut impl Write) -> Result<u8, CommandError> {
        let Some((pool, name)) = self.backend.split_once('/') else {
            return Err(CommandError::Usage(format!("{}: not of the form POOL/NAME", self.backend)));
        };
        let path = format!("/backends/{pool}/{name}/{order}");
        let answer = client::request(&self.running.socket()?, "POST", &path)?;
        let accepted = answer.code == 200;
        if self.json {
            let (backend, message) = (&self.backend, answer.body.trim_end());
            print_json(out, &OrderReport { backend, order, accepted, message })?;
        } else {
            out.write_all(answer.body.as_bytes())?;
        }
        Ok(if accepted { 0 } else { EXIT_USAGE })
    }
}
