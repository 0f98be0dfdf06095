//! `sessile save`: prints the configuration file with the orders of `sessile backend` in it.
//!
//! Writes no file. Invariant: what is printed would be accepted as a configuration; a reload of it changes neither digest
//! nor placement, and ends the orders that it has.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::load::{self, RunningProcess};
use super::{CommandError, client, print_json};
use crate::access_log::print_error;
use crate::config::{self, SavedText, save_orders};
use crate::order::BackendOrder;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Save {
    /// File to change a copy of [default: the configuration file of the running process].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    running: RunningProcess,
    /// Print one JSON object: the text, and the orders.
    #[arg(long)]
    json: bool,
}

/// The result, as JSON.
#[derive(Serialize)]
struct SaveReport<'s> {
    text: &'s str,
    orders: &'s [BackendOrder],
    /// Orders that no file can have.
    left_out: &'s [String],
    /// True if the text has lost its comments.
    rewritten: bool,
}

impl Save {
    /// Asks for the orders, and prints the file with them.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let orders: Vec<BackendOrder> = client::request(&self.running.socket()?, "GET", "/orders")?.json(&[200])?;
        let file = self.file.as_deref().unwrap_or(self.running.file());
        let problem = |why: String| CommandError::Usage(format!("{}: {why}", file.display()));
        let saved = save_orders(&load::read(file)?, &orders).map_err(problem)?;
        let SavedText { text, left_out, is_rewritten } = &saved;
        let checked = text.clone();
        load::in_time(move || config::check(&checked, &crate::socket::resolve))?.map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            problem(format!("with the orders it would be refused: {}", problems.join("; ")))
        })?;
        if self.json {
            print_json(out, &SaveReport { text, orders: &orders, left_out, rewritten: *is_rewritten })?;
            return Ok(0);
        }
        left_out.iter().for_each(|order| print_error(&format!("sessile: not in the file: {order}")));
        if *is_rewritten {
            print_error("sessile: the file could not be changed in place: its comments are left out");
        }
        out.write_all(text.as_bytes())?;
        Ok(0)
    }
}
