//! `sessile reload`: makes the running process reload its configuration, and prints the result.
//!
//! Reads the configuration only to find the admin socket; the process reads the file itself. Invariant: the exit code is
//! 0 exactly if the new configuration is in use.

use std::io::Write;

use super::{CommandError, EXIT_USAGE, client, load::RunningProcess, print_json};
use crate::admin::ReloadVerdict;

/// Most backends with a name that are printed.
const NAMES_MAX: usize = 16;

/// Arguments of `sessile reload`.
#[derive(Debug, clap::Args)]
pub(super) struct Reload {
    #[command(flatten)]
    running: RunningProcess,
    /// Refuse the reload if more than this share of a pool's clients would move: "5%" or "0.05".
    #[arg(long, value_name = "SHARE", value_parser = super::plan::share)]
    max_move: Option<f64>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

impl Reload {
    /// Sends the request and prints the result.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let path = self.max_move.map_or("/reload".to_owned(), |most| format!("/reload?max_move={most}"));
        let answer = client::request(&self.running.socket()?, "POST", &path)?;
        let verdict: ReloadVerdict = answer.json(&[200, 409])?;
        if self.json {
            print_json(out, &verdict)?;
        } else {
            print(out, &verdict)?;
        }
        Ok(if verdict.accepted { 0 } else { EXIT_USAGE })
    }
}

fn print(out: &mut impl Write, verdict: &ReloadVerdict) -> Result<(), CommandError> {
    let ReloadVerdict { generation, digest, .. } = verdict;
    if verdict.accepted {
        writeln!(out, "accepted: generation {generation}, digest {digest}")?;
    } else {
        writeln!(out, "refused: generation {generation}, digest {digest} stays in use")?;
    }
    for (what, lines) in [("", &verdict.changes), ("warning: ", &verdict.warnings), ("", &verdict.problems)] {
        for line in lines {
            writeln!(out, "  {what}{line}")?;
        }
    }
    verdict.names.iter().take(NAMES_MAX).try_for_each(|line| writeln!(out, "  {line}"))?;
    if let Some(more @ 1..) = verdict.names.len().checked_sub(NAMES_MAX) {
        writeln!(out, "  and {more} more names: `sessile status --json` has them")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(verdict: &ReloadVerdict) -> String {
        let mut out = Vec::new();
        print(&mut out, verdict).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_verdict_says_what_is_in_use_and_why() {
        let base = ReloadVerdict { generation: 5, digest: "00ff".into(), ..ReloadVerdict::default() };
        let accepted =
            ReloadVerdict { accepted: true, changes: vec!["pool \"web\": backend \"c\" added".into()], ..base.clone() };
        assert_eq!(printed(&accepted), "accepted: generation 5, digest 00ff\n  pool \"web\": backend \"c\" added\n");
        let refused = ReloadVerdict { problems: vec!["s.toml:3:1: unknown key".into()], ..base };
        assert_eq!(printed(&refused), "refused: generation 5, digest 00ff stays in use\n  s.toml:3:1: unknown key\n");
    }
}
