//! `sessile help`: the manual, by [`Topic`], and the help of the commands.
//!
//! The texts are Markdown files beside this one; `markup` reads them, `terminal` and `roff` render them. What the code
//! knows itself is not written again: lists of endings, refusals and exit codes are put in where a text names them.
//! Invariant: a page of a topic is plain ASCII of at most 80 columns.

pub(super) mod markup;
pub(super) mod roff;
pub(super) mod terminal;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io::Write;

use clap::Parser;
use clap::error::ErrorKind;

use self::markup::Block;
use super::{Arguments, CommandError, exit_codes};
use crate::events::EventKind;
use crate::http::Refused;
use crate::log_field::{InLines, LogField};
use crate::metrics::{self, MetricFamily};
use crate::outcome::Ended;

/// The file with every key of the configuration, printed as it is.
pub(super) const REFERENCE: &str = include_str!("../../../config/reference.toml");
/// What the command calls that file.
pub(super) const REFERENCE_NAME: &str = "reference";
/// Examples, below a heading for each command.
const EXAMPLES: &str = include_str!("examples.md");

/// A page of the manual.
#[derive(Debug)]
pub(super) struct Topic {
    /// The word that `sessile help` takes.
    pub(super) name: &'static str,
    text: &'static str,
}

macro_rules! topics {
    ($($name:literal)+) => { &[$(Topic { name: $name, text: include_str!(concat!($name, ".md")) }),+] };
}

/// Every topic, in the order in which a new user needs them.
pub(super) const TOPICS: &[Topic] = topics! {
    "quickstart" "config" "stickiness" "fleet" "https" "operating" "upgrade" "metrics" "log" "security" "migrate"
};

impl Topic {
    /// What the topic is about: the title of its page.
    pub(super) fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }

    /// The page, with the lists that the code knows.
    pub(super) fn blocks(&self) -> Vec<Block> {
        markup::parse(&self.whole())
    }

    /// The text of the page, with the lists that the code knows.
    fn whole(&self) -> String {
        let text = self.text.replace("{exit_codes}", &exit_codes::table());
        let text = text.replace("{endings}", &endings()).replace("{refusals}", &refusals());
        let text = text.replace("{fields_of_every_line}", &log_fields(&[InLines::Every, InLines::Message]));
        let text = text.replace("{fields_of_connections}", &log_fields(&[InLines::Both, InLines::Connection]));
        let text = text.replace("{fields_of_requests}", &log_fields(&[InLines::Both, InLines::Request]));
        let text = text.replace("{event_kinds}", &event_kinds());
        if text.contains("{metrics:") { with_metrics(text) } else { text }
    }
}

/// Arguments of `sessile help`.
#[derive(Debug, clap::Args)]
pub(super) struct HelpArgs {
    /// A topic of the manual, or a command; without it, the list of both.
    #[arg(value_name = "TOPIC")]
    words: Vec<String>,
}

impl HelpArgs {
    /// Prints the page of a topic, the configuration with every key, or the help of a command.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let topic = match &self.words[..] {
            [word] => TOPICS.iter().find(|topic| topic.name == word),
            _ => None,
        };
        let text = match topic {
            Some(topic) => terminal::page(&topic.blocks()),
            None if self.words == [REFERENCE_NAME] => REFERENCE.to_owned(),
            None => help_of_command(&self.words)?,
        };
        out.write_all(text.as_bytes())?;
        Ok(0)
    }
}

/// The list of topics below the list of commands.
pub(super) fn list() -> String {
    let mut list = "Topics (`sessile help TOPIC`):\n".to_owned();
    let all = TOPICS.iter().map(|topic| (topic.name, topic.about()));
    for (name, about) in all.chain([(REFERENCE_NAME, "The file with every key and its default, to copy from")]) {
        // Writing to a String does not fail.
        let _ = writeln!(list, "  {name:<12} {about}");
    }
    list
}

fn help_of_command(words: &[String]) -> Result<String, CommandError> {
    let line = ["sessile"].into_iter().chain(words.iter().map(String::as_str)).chain(["--help"]);
    match Arguments::try_parse_from(line) {
        Err(help) if help.kind() == ErrorKind::DisplayHelp => Ok(help.to_string() + &examples_as_text(words)),
        _ => {
            let words = words.join(" ");
            Err(CommandError::Usage(format!("help {words}: no such topic or command; `sessile help` lists them")))
        }
    }
}

/// The examples of a command, its words separated by spaces; empty for one that has none.
pub(super) fn examples(command: &str) -> Vec<Block> {
    let own = |block: &Block| matches!(block, Block::Heading(2, name) if name == command);
    let blocks = markup::parse(EXAMPLES).into_iter().skip_while(|block| !own(block)).skip(1);
    blocks.take_while(|block| !matches!(block, Block::Heading(..))).collect()
}

fn examples_as_text(words: &[String]) -> String {
    let examples = examples(&words.join(" "));
    if examples.is_empty() { String::new() } else { format!("\nExamples:\n{}", terminal::page(&examples)) }
}

/// The rows of a table of all endings.
fn endings() -> String {
    rows(Ended::ALL.iter().map(|ended| [ended.word(), ended.fault().word(), ended.meaning()]))
}

/// The rows of a table of all reasons to refuse a request or a response.
fn refusals() -> String {
    rows(Refused::ALL.iter().map(|refused| [refused.word(), refused.meaning()]))
}

/// The rows of a table of the fields that these lines of the log have.
fn log_fields(lines: &[InLines]) -> String {
    let fields = LogField::ALL.iter().filter(|field| lines.contains(&field.lines()));
    let row = |field: &LogField| format!("| `{}` | {} | {} |", field.name(), field.form().word(), field.meaning());
    fields.map(row).collect::<Vec<_>>().join("\n")
}

/// The rows of a table of all kinds of events.
fn event_kinds() -> String {
    rows(EventKind::ALL.iter().map(|kind| [kind.word(), kind.meaning()]))
}

/// Puts the families of metrics into a text, part by part.
fn with_metrics(text: String) -> String {
    metrics::catalog().into_iter().fold(text, |text, (part, families)| {
        let items = families.iter().map(|MetricFamily { name, kind, labels, help }| {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            format!("- `{name}{labels}`, {kind}: {help}")
        });
        text.replace(&format!("{{metrics:{part}}}"), &items.collect::<Vec<_>>().join("\n"))
    })
}

fn rows<const N: usize>(rows: impl Iterator<Item = [&'static str; N]>) -> String {
    let rows = rows.map(|row| format!("| {} |", row.join(" | ")).replace('§', "section "));
    rows.collect::<Vec<_>>().join("\n")
}
