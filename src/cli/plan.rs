//! `sessile plan`: which clients would move if a new file were put in force, or a backend added, changed or removed.
//!
//! Computes nothing itself: [`Plan`] compares two files, or a running process with one file or with edits of what it has
//! in force. Invariant: the exit code is 1 exactly if more would move than `--max-move` allows.

mod text;

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::exit_codes::EXIT_NO;
use super::load::{self, RunningProcess};
use super::{CommandError, print_json};
use crate::clock;
use crate::config::{BackendEdit, Config};
use crate::plan::{Ask, CookieKeys, ListedClient, Plan};
use crate::server::certificates_and_keys;

/// The longest list of clients, in bytes; one that is sent to a running process may be half as long.
const CLIENTS_MAX: u64 = 64 << 20;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
#[command(override_usage = "sessile plan [OPTIONS] [OLD] NEW\n       sessile plan [OPTIONS] --live NEW\n       \
                      sessile plan [OPTIONS] --live [--without POOL/NAME] [--weight POOL/NAME=N] [--add POOL/NAME=ADDRESS]")]
pub(super) struct PlanFiles {
    /// File in force (by default that of --config) and new file; with --live, the new file alone
    #[arg(value_name = "FILE", required_unless_present_any = ["without", "weight", "add"], num_args = 1..=2)]
    files: Vec<PathBuf>,
    /// Compare with the running process: the plan then counts its known clients and open connections
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    edits: Edits,
    #[command(flatten)]
    running: RunningProcess,
    /// File with clients to plan one by one: an address a line, optionally followed by a server name
    #[arg(long, value_name = "FILE")]
    clients: Option<PathBuf>,
    /// Exit with 1 if more than this share of a pool's clients would move, for example "5%" or "0.05". With --live, the
    /// share of the process's known clients
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_move: Option<f64>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Edits of what a running process has in force.
#[derive(Debug, clap::Args)]
struct Edits {
    /// With --live: plan to remove this backend of what is in force; may be repeated
    #[arg(long, value_name = "POOL/NAME", value_parser = without, requires = "live", conflicts_with = "files")]
    without: Vec<BackendEdit>,
    /// With --live: plan to give this backend another weight; may be repeated
    #[arg(long, value_name = "POOL/NAME=N", value_parser = weight, requires = "live", conflicts_with = "files")]
    weight: Vec<BackendEdit>,
    /// With --live: plan to add this backend; may be repeated
    #[arg(long, value_name = "POOL/NAME=ADDRESS", value_parser = add, requires = "live", conflicts_with = "files")]
    add: Vec<BackendEdit>,
}

impl PlanFiles {
    /// Makes the plan and prints it.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let clients = self.clients.as_deref().map(read_clients).transpose()?.unwrap_or_default();
        let Edits { without, weight, add } = &self.edits;
        let plan = match (&self.files[..], self.live) {
            ([], _) => load::plan_of_edits(&self.running, [&without[..], weight, add].concat(), clients)?,
            ([old, new], false) => compare(old, new, &clients)?,
            ([new], true) => load::plan_of(&self.running, new, clients)?,
            ([new], false) => compare(self.running.file(), new, &clients)?,
            _ => {
                return Err(CommandError::Usage(
                    "plan --live: name only the new file; it is compared with the running process".into(),
                ));
            }
        };
        let too_much = self.max_move.map(|most| plan.too_much(most)).unwrap_or_default();
        if self.json {
            print_json(out, &plan)?;
        } else {
            text::print(out, &plan)?;
            for line in &too_much {
                writeln!(out, "too much: {line}")?;
            }
        }
        Ok(if too_much.is_empty() { 0 } else { EXIT_NO })
    }
}

/// Compares two files, and the certificates and keys that they name, if all of those can be read.
fn compare(old: &Path, new: &Path, clients: &[ListedClient]) -> Result<Plan, CommandError> {
    let (old, new) = (load::load(old)?.config, load::load(new)?.config);
    // On the machine where a plan is made there may be no keys.
    let both = [&old, &new].map(Config::clone);
    let [before, after] = load::in_time(move || both.map(|config| certificates_and_keys(&config, None)))?;
    match (before, after) {
        (Ok(before), Ok(after)) => {
            let keys = CookieKeys::new(&before.rings, &after.rings);
            let mut plan = Plan::new(&old, &new, Ask { keys, ..Ask::about(clients) });
            plan.changes.extend(after.texts.changes(&before.texts));
            Ok(plan.with_files(&before.tls, &after.tls, clock::unix_s()))
        }
        (before, after) => {
            let mut plan = Plan::new(&old, &new, Ask::about(clients));
            let unread = [before.err(), after.err()].into_iter().flatten().flatten();
            plan.warnings.extend(unread.map(|why| format!("certificates and keys are not compared: {why}")));
            plan.warnings.dedup();
            Ok(plan)
        }
    }
}

fn without(written: &str) -> Result<BackendEdit, String> {
    let (pool, backend) = pool_and_name(written)?;
    Ok(BackendEdit::Without { pool, backend })
}

fn weight(written: &str) -> Result<BackendEdit, String> {
    let (name, weight) = written.rsplit_once('=').ok_or("not like POOL/NAME=N")?;
    let (pool, backend) = pool_and_name(name)?;
    Ok(BackendEdit::Weight { pool, backend, weight: weight.parse().map_err(|_| format!("{weight:?} is no weight"))? })
}

fn add(written: &str) -> Result<BackendEdit, String> {
    let (name, address) = written.split_once('=').ok_or("not like POOL/NAME=ADDRESS")?;
    let (pool, backend) = pool_and_name(name)?;
    Ok(BackendEdit::Add { pool, backend, address: address.to_owned() })
}

fn pool_and_name(written: &str) -> Result<(String, String), String> {
    let parts = written.split_once('/').filter(|(pool, name)| !pool.is_empty() && !name.is_empty());
    parts.map(|(pool, name)| (pool.to_owned(), name.to_owned())).ok_or_else(|| "not like POOL/NAME".to_owned())
}

/// Reads a share: a number from 0 to 1, or a percentage.
pub(super) fn share(written: &str) -> Result<f64, String> {
    let (number, unit) = written.strip_suffix('%').map_or((written, 1.0), |number| (number, 100.0));
    let share = number.trim().parse::<f64>().ok().map(|number| number / unit);
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "not like 5% or 0.05".to_owned())
}

fn read_clients(path: &Path) -> Result<Vec<ListedClient>, CommandError> {
    let text = load::read_at_most(path, CLIENTS_MAX)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line): (usize, &str)| {
        let mut words = line.split_whitespace();
        let source: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
        let sni = words.next().map(str::to_ascii_lowercase);
        let wrong = || CommandError::Usage(format!("{}:{}: not an address: {line:?}", path.display(), number + 1));
        Ok(ListedClient { source: source.ok_or_else(wrong)?, sni })
    };
    lines.map(read).collect()
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
            std::fs::write(path(name), text).unwrap();
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
        assert!(text.contains("  from  to   known     new\n  b     a   5"), "{text}");
        assert_eq!(
            plan(&["a", "b"], &["a", "b"], "", ""),
            (0, "nothing changes\npool \"web\": no client moves\n".to_owned())
        );
    }

    #[test]
    fn too_much_is_an_exit_code() {
        assert_eq!(plan(&["a", "b"], &["a"], "--max-move 5%", "").0, 1);
        assert_eq!(plan(&["a", "b"], &["a"], "--max-move 0.6", "").0, 0);
        assert_eq!(plan(&["a", "b"], &["a", "b", "c"], "--max-move 0%", "").0, 0, "known clients stay");
        let (_, text) = plan(&["a", "b"], &["a"], "--max-move 5%", "");
        assert!(
            text.ends_with("too much: pool \"web\": 50.0 % of its clients would move, and 5.0 % is allowed\n"),
            "{text}"
        );
        assert!(share("5").is_err() && share("x%").is_err() && share("101%").is_err());
    }

    #[test]
    fn edits_are_read_and_need_a_process_and_no_file() {
        use super::super::tests::parse;

        let line = "sessile plan --live --without web/a --without web/b --weight web/c=12 --add web/d=[::1]:80";
        let super::super::Command::Plan(plan) = parse(line).unwrap() else { panic!("{line}") };
        let (pool, named) = (|| "web".to_owned(), |name: &str| name.to_owned());
        let without = |name| BackendEdit::Without { pool: pool(), backend: named(name) };
        assert_eq!(plan.edits.without, [without("a"), without("b")]);
        assert_eq!(plan.edits.weight, [BackendEdit::Weight { pool: pool(), backend: named("c"), weight: 12 }]);
        let address = named("[::1]:80");
        assert_eq!(plan.edits.add, [BackendEdit::Add { pool: pool(), backend: named("d"), address }]);
        for wrong in [
            "--without web/a",
            "--live --without web/a new.toml",
            "--live --without web",
            "--live --without /a",
            "--live --weight web/a",
            "--live --weight web/a=-1",
            "--live --weight web/a=70000",
            "--live --add web/a",
            "--live",
        ] {
            assert!(parse(&format!("sessile plan {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_files_or_one_and_a_process() {
        let words = |line: &str| {
            let super::super::Command::Plan(plan) = super::super::tests::parse(line).unwrap() else { panic!("{line}") };
            plan.run(&mut Vec::new()).unwrap_err()
        };
        assert!(matches!(words("sessile plan one.toml"), CommandError::Usage(_)));
        assert!(matches!(words("sessile plan --live one.toml two.toml"), CommandError::Usage(_)));
        assert!(super::super::tests::parse("sessile plan").is_err());
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
