//! `sessile drain`, `ready` and `close`: set the state of a backend in the running process; [`send`] gives every order
//! about a backend.
//!
//! Changes no file. Invariant: the exit code is 0 exactly if the process has accepted the order.

use std::io::Write;

use serde::Serialize;

use super::load::RunningProcess;
use super::{CommandError, EXIT_USAGE, client, print_json};

/// Arguments of the three commands.
#[derive(Debug, clap::Args)]
pub(super) struct Order {
    #[command(flatten)]
    backend: BackendName,
    #[command(flatten)]
    running: RunningProcess,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

/// The argument that names a backend.
#[derive(Debug, clap::Args)]
pub(super) struct BackendName {
    /// The backend, as POOL/NAME.
    #[arg(value_name = "POOL/NAME")]
    backend: String,
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
        send(&self.running, &self.backend, (order, ""), self.json, out)
    }
}

/// Gives an order about a backend, and prints what has become of it. `order`: its word, and its values as a query.
pub(super) fn send(
    running: &RunningProcess,
    BackendName { backend }: &BackendName,
    (order, query): (&str, &str),
    json: bool,
    out: &mut impl Write,
) -> Result<u8, CommandError> {
    let Some((pool, name)) = backend.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        return Err(CommandError::Usage(format!("{backend}: not of the form POOL/NAME")));
    };
    let (pool, name) = (client::query_value(pool), client::query_value(name));
    let answer = client::request(&running.socket()?, "POST", &format!("/backends/{pool}/{name}/{order}{query}"))?;
    let accepted = answer.code == 200;
    if json {
        let message = answer.body.trim_end();
        print_json(out, &OrderReport { backend, order, accepted, message })?;
    } else {
        out.write_all(answer.body.as_bytes())?;
    }
    Ok(if accepted { 0 } else { EXIT_USAGE })
}
