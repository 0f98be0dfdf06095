//! `sessile plan OLD NEW`: who would move if the new file were put in force.
//!
//! Asks no process and judges nothing itself; `plan` does. Invariant: the exit code is 1 exactly if more would move
//! than `--max-move` allows.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::table::Table;
use super::{Failure, load, print_json};
use crate::plan::{Client, Plan, PoolPlan};

/// Exit code when more would move than is allowed.
const EXIT_TOO_MUCH: u8 = 1;

/// Rows of who goes where that are printed of a pool; JSON has them all.
const MOVES_SHOWN: usize = 12;

/// The command.
#[derive(Debug, clap::Args)]
pub(super) struct PlanFiles {
    /// The file that is in force.
    old: PathBuf,
    /// The file that shall be.
    new: PathBuf,
    /// Clients to look at one by one: a file with an address a line, and the server name behind it if there is one.
    #[arg(long, value_name = "FILE")]
    clients: Option<PathBuf>,
    /// Exit with 1 if more than this share of a pool's clients would move: "5%", or "0.05".
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_move: Option<f64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl PlanFiles {
    /// Compares and prints.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, Failure> {
        let clients = self.clients.as_deref().map(read_clients).transpose()?.unwrap_or_default();
        let plan = Plan::new(&load::load(&self.old)?.config, &load::load(&self.new)?.config, &clients);
        if self.json {
            print_json(out, &plan)?;
        } else {
            print(out, &plan)?;
        }
        match self.max_move {
            Some(most) if plan.largest_move() > most => {
                if !self.json {
                    writeln!(
                        out,
                        "too much: {} of a pool's clients, and {} is allowed",
                        percent(plan.largest_move()),
                        percent(most)
                    )?;
                }
                Ok(EXIT_TOO_MUCH)
            }
            _ => Ok(0),
        }
    }
}

/// A share as people write it.
pub(super) fn share(written: &str) -> Result<f64, String> {
    let (number, unit) = written.strip_suffix('%').map_or((written, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok().map(|number| number / unit);
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "not like 5% or 0.05".to_owned())
}

fn read_clients(path: &Path) -> Result<Vec<Client>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line): (usize, &str)| {
        let mut words = line.split_whitespace();
        let source: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
        let sni = words.next().map(str::to_ascii_lowercase);
        let wrong = || Failure::Usage(format!("{}:{}: not an address: {line:?}", path.display(), number + 1));
        Ok(Client { source: source.ok_or_else(wrong)?, sni })
    };
    lines.map(read).collect()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn print(out: &mut impl Write, plan: &Plan) -> Result<(), Failure> {
    if plan.changes.is_empty() {
        writeln!(out, "nothing changes")?;
    }
    for line in &plan.changes {
        writeln!(out, "{line}")?;
    }
    for line in &plan.warnings {
        writeln!(out, "warning: {line}")?;
    }
    for pool in plan.pools.iter().filter(|pool| pool.keyed) {
        print_pool(out, pool)?;
    }
    Ok(())
}

fn print_pool(out: &mut impl Write, pool: &PoolPlan) -> Result<(), Failure> {
    let PoolPlan { pool: name, new_keys, known_keys, listed, moves, .. } = pool;
    writeln!(
        out,
        "pool {name:?}: {} of its known clients move, {} of new ones go elsewhere",
        percent(*known_keys),
        percent(*new_keys)
    )?;
    if let Some(listed) = listed {
        let (known, new, all) = (listed.known, listed.new, listed.clients);
        writeln!(out, "  of {all} listed clients {known} move if they are known, {new} if they are not")?;
    }
    let mut table = Table::new(["  from", "to", "share of all keys"]);
    for row in moves.iter().take(MOVES_SHOWN) {
        table.row([format!("  {}", row.from), row.to.clone(), percent(row.share)]);
    }
    out.write_all(table.render().as_bytes())?;
    if moves.len() > MOVES_SHOWN {
        writeln!(out, "  and {} more", moves.len() - MOVES_SHOWN)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(backends: &[&str]) -> String {
        let one = |(n, name): (usize, &&str)| format!("{{ name = \"{name}\", address = \"127.0.0.1:{}\" }}", n + 1);
        let list = backends.iter().enumerate().map(one).collect::<Vec<_>>().join(", ");
        format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"web\"\n[[pool]]\nname = \"web\"\nbackend = [{list}]\n"
        )
    }

    fn plan(old: &[&str], new: &[&str], more: &str, clients: &str) -> (u8, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for (name, text) in [("old", file(old)), ("new", file(new)), ("clients", clients.to_owned())] {
            fs::write(path(name), text).unwrap();
        }
        let line =
            format!("sessile plan {} {} {}", path("old"), path("new"), more.replace("CLIENTS", &path("clients")));
        let super::super::Command::Plan(plan) = super::super::tests::parse(&line).unwrap() else { panic!("{line}") };
        let mut out = Vec::new();
        let code = plan.run(&mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_person_reads_it_at_a_glance() {
        let (code, text) = plan(&["a", "b"], &["a"], "", "");
        assert_eq!(code, 0);
        assert!(text.starts_with("backend \"web/b\" removed\npool \"web\": 50."), "{text}");
        assert!(text.contains("  from  to  share of all keys\n  b     a   "), "{text}");
        assert_eq!(
            plan(&["a", "b"], &["a", "b"], "", ""),
            (
                0,
                "nothing changes\npool \"web\": 0.0 % of its known clients move, 0.0 % of new ones go elsewhere\n"
                    .to_owned()
            )
        );
    }

    #[test]
    fn too_much_is_an_exit_code() {
        assert_eq!(plan(&["a", "b"], &["a"], "--max-move 5%", "").0, 1);
        assert_eq!(plan(&["a", "b"], &["a"], "--max-move 0.6", "").0, 0);
        assert_eq!(plan(&["a", "b"], &["a", "b", "c"], "--max-move 0%", "").0, 0, "known clients stay");
        assert!(share("5").is_err() && share("x%").is_err() && share("101%").is_err());
    }

    #[test]
    fn listed_clients_are_counted_one_by_one() {
        let (_, text) =
            plan(&["a", "b"], &["a"], "--json --clients CLIENTS", "192.0.2.1\n192.0.2.2 www.example.org\n\n::1\n");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let listed = &value["pools"][0]["listed"];
        assert_eq!(listed["clients"], 3);
        assert_eq!(listed["known"], listed["new"]);
    }
}
