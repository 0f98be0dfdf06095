//! `sessile demo --backends`: small backends at the addresses that configuration files name, so that the files can be
//! tried before the real backends are there.
//!
//! Reads the files, and starts no balancer. Invariants: no address of another machine is ever contacted, nor is a name
//! server; a dropped [`StandIns`] leaves no file behind.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::examples::EXAMPLES;
use self::plan::{AppCookie, StandIn, StandInPlan};
use crate::cli::certs::authority::Authority;
use crate::cli::certs::{self, DEV_FOLDER};
use crate::cli::table::Table;
use crate::cli::{CommandError, load};
use crate::config::{self, Config};
use crate::socket::unix_file::UnixFile;

mod examples;
mod identity;
mod opening;
mod plan;
mod server;
mod web;

/// Running stand-ins, which end with the runtime; here are the files of their unix sockets.
#[derive(Debug)]
pub(super) struct StandIns(Vec<UnixFile>);

impl Drop for StandIns {
    fn drop(&mut self) {
        self.0.iter().for_each(UnixFile::remove);
    }
}

/// Starts the backends of these files, or of the examples, and prints them.
pub(super) fn start(files: &[PathBuf], out: &mut impl Write) -> Result<StandIns, CommandError> {
    let StandInPlan { stand_ins, refused: mut failed, .. } = StandInPlan::of(&configurations(files)?);
    let known = certs::dev_authority(Path::new(DEV_FOLDER))?;
    let is_known = known.is_some();
    let authority = Arc::new(known.map_or_else(Authority::unsaved, Ok)?);
    let mut table = Table::new(["ADDRESS", "BACKEND", "COOKIE"]);
    let mut running = StandIns(Vec::new());
    let mut count = 0;
    for stand_in in stand_ins {
        let StandIn { address, known_as, cookies, .. } = &stand_in;
        let row = [address.to_string(), known_as.join(", "), names(cookies)];
        match server::start(stand_in, &authority) {
            Ok(file) => {
                running.0.extend(file);
                table.row(row);
                count += 1;
            }
            Err(error) => failed.push(format!("{}, {}: {error}", row[1], row[0])),
        }
    }
    if count == 0 {
        return Err(CommandError::Usage(format!("demo: no backend was started\n{}", failed.join("\n"))));
    }
    write!(out, "{}", table.render())?;
    failed.iter().try_for_each(|failure| writeln!(out, "not started: {failure}"))?;
    writeln!(out, "\nEach answers with its name: to HTTP, WebSockets at /ws and lines, also in TLS and after a PROXY")?;
    writeln!(out, "header. It greets a client that sends nothing for a second.")?;
    if is_known {
        writeln!(out, "TLS has a certificate for every name, by {DEV_FOLDER}/dev-ca.pem.")?;
    } else {
        writeln!(out, "No client trusts their certificates: `sessile certs dev` was not run in this folder.")?;
    }
    writeln!(out, "{count} backends, serving until Ctrl-C.")?;
    out.flush()?;
    Ok(running)
}

/// Reads the files; without files, the examples.
fn configurations(files: &[PathBuf]) -> Result<Vec<Config>, CommandError> {
    if files.is_empty() {
        let examples = EXAMPLES.iter().map(|(name, text)| parse(&Path::new("config").join(name), text));
        return examples.collect();
    }
    files.iter().map(|file| parse(file, &load::read(file)?)).collect()
}

fn parse(file: &Path, text: &str) -> Result<Config, CommandError> {
    let checked = config::check(text, &plan::resolve);
    checked.map(|checked| checked.config).map_err(|problems| CommandError::Config { file: file.to_owned(), problems })
}

fn names(cookies: &[AppCookie]) -> String {
    cookies.iter().map(|cookie| &*cookie.name).collect::<Vec<_>>().join(", ")
}
