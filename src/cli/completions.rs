//! `sessile completions`: scripts for bash, zsh and fish that complete commands, options, topics and names of backends.
//!
//! `clap_complete` writes the scripts; added are functions that ask the running process for the names of its backends
//! (`sessile status --names`). Invariant: a completion prints no message; without a process it has no names.

use std::io::Write;

use clap::CommandFactory;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;

use super::help::{REFERENCE_NAME, TOPICS};
use super::{Arguments, CommandError};

const BASH: &str = include_str!("completions/names.bash");
const ZSH: &str = include_str!("completions/names.zsh");
const FISH: &str = include_str!("completions/names.fish");
/// The generator for fish completes no arguments without a name.
const FISH_HELP: &str = "complete -c sessile -n '__fish_seen_subcommand_from help' -f -a";

/// The line of the zsh script behind all of its functions.
const ZSH_END: &str = "if [ \"$funcstack[1]\" = \"_sessile\" ]; then";

/// Arguments of `sessile completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell to complete for.
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script of the shell.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let words = words_of_help();
        let script = generated(self.shell, &words)?;
        let script = match self.shell {
            Shell::Bash => script + BASH,
            Shell::Zsh => with_names_in_zsh(&script),
            Shell::Fish => script + FISH + &format!("{FISH_HELP} '{}'\n", words.join(" ")),
            _ => script,
        };
        out.write_all(script.as_bytes())?;
        Ok(0)
    }
}

/// What `sessile help` takes: topics and commands.
fn words_of_help() -> Vec<String> {
    let topics = TOPICS.iter().map(|topic| topic.name.to_owned()).chain([REFERENCE_NAME.to_owned()]);
    let mut words: Vec<_> = topics.collect();
    for command in Arguments::command().get_subcommands().map(|command| command.get_name().to_owned()) {
        if !words.contains(&command) {
            words.push(command);
        }
    }
    words
}

fn generated(shell: Shell, words_of_help: &[String]) -> Result<String, CommandError> {
    let words = PossibleValuesParser::new(words_of_help.to_vec());
    let mut all = Arguments::command()
        .mut_subcommand("help", |help| help.mut_arg("words", |argument| argument.value_parser(words)));
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut all, "sessile", &mut script);
    String::from_utf8(script).map_err(|error| CommandError::Internal(format!("completions: {error}")))
}

/// The script in which arguments that name a backend are completed by our function.
fn with_names_in_zsh(script: &str) -> String {
    let names = |line: &str| {
        let line = line.trim_start();
        line.starts_with("':backend ") || ["--down=[", "--without=["].iter().any(|option| line.contains(option))
    };
    let lines = script.lines().map(|line| match line {
        ZSH_END => format!("{ZSH}\n{line}\n"),
        line if names(line) => format!("{}\n", line.replace(":_default'", ":_sessile_backends'")),
        line => format!("{line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(shell: Shell) -> String {
        let mut out = Vec::new();
        CompletionsArgs { shell }.run(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_shell_asks_the_process_for_names_of_backends() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(script(shell).contains("status --names"), "{shell}");
        }
        // `drain`, `ready`, `close` and the four orders name a backend, and `explain --down` and `plan --without`.
        assert_eq!(script(Shell::Zsh).matches(":_sessile_backends'").count(), 9);
        assert!(script(Shell::Bash).contains("| plan,--without)"));
        let of_plan = "__fish_seen_subcommand_from plan' -l without -x -a '(__sessile_backends)'";
        assert!(script(Shell::Fish).contains(of_plan));
    }

    #[test]
    fn topics_are_completed_beside_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(script.contains("stickiness") && script.contains("migrate"), "{shell}");
        }
    }
}
