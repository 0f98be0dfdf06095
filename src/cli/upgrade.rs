//! `sessile upgrade`: has the running process start another binary and give everything to it.
//!
//! Starts nothing itself. Invariant: the exit code is 0 exactly if the new process serves.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::{CommandError, EXIT_USAGE, client, load::RunningProcess, print_json};
use crate::admin::{UpgradeRequest, UpgradeVerdict};
use crate::server::UPGRADE_MAX;

/// How long the verdict may take: a little longer than an upgrade at most.
const PATIENCE: Duration = UPGRADE_MAX.saturating_add(Duration::from_secs(10));

/// Arguments of `sessile upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct Upgrade {
    /// The binary to start; by default the file from which the running process was started.
    #[arg(value_name = "BINARY")]
    binary: Option<PathBuf>,
    #[command(flatten)]
    running: RunningProcess,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Upgrade {
    /// Sends the request and prints the result.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        // The running process has another working directory.
        let absolute = |binary: &PathBuf| {
            let named = |error| CommandError::Usage(format!("{}: {error}", binary.display()));
            std::fs::canonicalize(binary).map_err(named)
        };
        let request = UpgradeRequest { binary: self.binary.as_ref().map(absolute).transpose()? };
        let body = serde_json::to_string(&request).map_err(|error| CommandError::Internal(error.to_string()))?;
        let answer = client::request_within(&self.running.socket()?, "POST", "/upgrade", &body, PATIENCE)?;
        let verdict: UpgradeVerdict = answer.json(&[200, 409])?;
        if self.json {
            print_json(out, &verdict)?;
        } else {
            print(out, &verdict)?;
        }
        Ok(if verdict.accepted { 0 } else { EXIT_USAGE })
    }
}

fn print(out: &mut impl Write, verdict: &UpgradeVerdict) -> Result<(), CommandError> {
    let UpgradeVerdict { accepted, pid, version, pairs, conversations, problems } = verdict;
    if *accepted {
        writeln!(out, "upgraded: process {pid}, version {version}")?;
        writeln!(out, "  {pairs} connections moved, {conversations} are finished by the process before")?;
    } else {
        writeln!(out, "refused: the running process goes on")?;
        problems.iter().try_for_each(|problem| writeln!(out, "  {problem}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(verdict: &UpgradeVerdict) -> String {
        let mut out = Vec::new();
        print(&mut out, verdict).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_verdict_says_which_process_serves_and_why() {
        let accepted = UpgradeVerdict {
            accepted: true,
            pid: 7,
            version: "0.2.0".into(),
            pairs: 40,
            conversations: 2,
            problems: Vec::new(),
        };
        assert_eq!(
            printed(&accepted),
            "upgraded: process 7, version 0.2.0\n  40 connections moved, 2 are finished by the process before\n"
        );
        let refused = UpgradeVerdict { problems: vec!["s.toml:3:1: unknown key".into()], ..UpgradeVerdict::default() };
        assert_eq!(printed(&refused), "refused: the running process goes on\n  s.toml:3:1: unknown key\n");
    }
}
