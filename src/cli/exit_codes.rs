//! The one table of exit codes, for the manual, for the page of every command and for its tests.
//!
//! Returns no code: commands do, by the constants of this file. Invariant: every code that a command returns is in the
//! row of that command; the codes from 64 on are those of `sysexits.h`.

use std::fmt::Write as _;

/// Exit code when the answer is no: more clients would move than is allowed, or nothing is known of a client.
pub(super) const EXIT_NO: u8 = 1;
/// Exit code for wrong usage and for what is refused.
pub(super) const EXIT_USAGE: u8 = 64;
/// Exit code if the running process cannot be reached.
pub(super) const EXIT_UNAVAILABLE: u8 = 69;
/// Exit code for internal failures.
pub(super) const EXIT_INTERNAL: u8 = 70;
/// Exit code after Ctrl-C, by the convention of shells.
pub(super) const EXIT_INTERRUPTED: u8 = 130;

/// One exit code.
struct ExitRow {
    code: u8,
    meaning: &'static str,
    /// Commands that return it, as their pages are named; empty: all.
    commands: &'static [&'static str],
}

/// Commands that ask the running process, some of them with `--live` alone.
const ASKING: &[&str] = &[
    "backend",
    "backend-add",
    "backend-address",
    "backend-remove",
    "backend-weight",
    "check",
    "close",
    "drain",
    "events",
    "explain",
    "log",
    "log-reopen",
    "plan",
    "ready",
    "reload",
    "save",
    "status",
    "top",
    "upgrade",
    "why",
];

const ROWS: [ExitRow; 6] = [
    ExitRow { code: 0, meaning: "done; what was asked for is so", commands: &[] },
    ExitRow {
        code: EXIT_NO,
        meaning: "no: more clients would move than `--max-move` allows, or nothing is known of the client",
        commands: &["plan", "why"],
    },
    ExitRow {
        code: EXIT_USAGE,
        meaning: "wrong usage, or a configuration, a reload, an upgrade or an order that is refused",
        commands: &[],
    },
    ExitRow { code: EXIT_UNAVAILABLE, meaning: "the running process cannot be reached", commands: ASKING },
    ExitRow {
        code: EXIT_INTERNAL,
        meaning: "a failure of sessile itself, or of `demo` to keep a promise",
        commands: &[],
    },
    ExitRow { code: EXIT_INTERRUPTED, meaning: "interrupted", commands: &["demo"] },
];

/// The table in Markdown, with the commands of each code.
pub(super) fn table() -> String {
    let mut text = "| code | meaning | commands |\n|---|---|---|\n".to_owned();
    for ExitRow { code, meaning, commands } in &ROWS {
        let commands: Vec<_> = commands.iter().map(|command| format!("`{}`", command.replace('-', " "))).collect();
        let commands = if commands.is_empty() { "all".to_owned() } else { commands.join(", ") };
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {code} | {meaning} | {commands} |");
    }
    text
}

/// The codes of one command in Markdown; `command` as its page is named, `certs-dev`. Without a name: all codes.
pub(super) fn table_of(command: Option<&str>) -> String {
    let mut text = "| code | meaning |\n|---|---|\n".to_owned();
    let returns = |row: &&ExitRow| row.commands.is_empty() || command.is_none_or(|name| row.commands.contains(&name));
    for ExitRow { code, meaning, .. } in ROWS.iter().filter(returns) {
        let _ = writeln!(text, "| {code} | {meaning} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_codes_that_it_returns() {
        let codes = |command| -> Vec<String> {
            let text = table_of(command);
            text.lines().skip(2).filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
        };
        assert_eq!(codes(Some("plan")), ["0", "1", "64", "69", "70"]);
        assert_eq!(codes(Some("certs-dev")), ["0", "64", "70"]);
        assert_eq!(codes(Some("demo")), ["0", "64", "70", "130"]);
        assert_eq!(codes(None), ["0", "1", "64", "69", "70", "130"]);
        assert!(table().contains("| 130 | interrupted | `demo` |\n"), "{}", table());
    }
}
