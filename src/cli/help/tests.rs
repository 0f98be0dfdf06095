//! The manual against the command line, the configuration and the lists in the code.

use std::collections::BTreeSet;

use clap::CommandFactory;

use super::terminal::{WIDTH, page};
use super::*;
use crate::config;

const README: &str = include_str!("../../../README.md");

/// The README and every topic, each with its name.
fn texts() -> Vec<(&'static str, Vec<Block>)> {
    let topics = TOPICS.iter().map(|topic| (topic.name, topic.blocks()));
    [("README", markup::parse(README))].into_iter().chain(topics).collect()
}

/// Fenced blocks of one language in all texts, each with the name of its text.
fn fenced(language: &str) -> Vec<(&'static str, String)> {
    let of_text = |(name, blocks): (&'static str, Vec<Block>)| {
        let code = blocks.into_iter().filter_map(move |block| match block {
            Block::Code(word, lines) if word == language => Some((name, lines.join("\n") + "\n")),
            _ => None,
        });
        code.collect::<Vec<_>>()
    };
    texts().into_iter().flat_map(of_text).collect()
}

fn help(words: &[&str]) -> Result<String, CommandError> {
    let mut out = Vec::new();
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    HelpArgs { words }.run(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

/// A resolver that knows no name: the configurations of the manual have addresses.
fn no_names(name: &str) -> std::io::Result<Vec<std::net::SocketAddr>> {
    Err(std::io::Error::other(format!("{name} is a name")))
}

/// All options of a command and of those below it.
fn options(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned);
    let below = command.get_subcommands().flat_map(options);
    own.chain(below).collect()
}

#[test]
fn pages_are_plain_and_80_columns_wide() {
    for topic in TOPICS {
        let text = page(&topic.blocks());
        assert!(text.is_ascii(), "{}: {:?}", topic.name, text.lines().find(|line| !line.is_ascii()));
        let long: Vec<_> = text.lines().filter(|line| line.len() > WIDTH).collect();
        assert!(long.is_empty(), "{}\n{}", topic.name, long.join("\n"));
        for list in ["{endings}", "{refusals}", "{exit_codes}", "{event_kinds}", "{metrics:"] {
            assert!(!text.contains(list), "{}: {list}", topic.name);
        }
    }
}

#[test]
fn commands_of_the_manual_are_those_of_the_command_line() {
    let mut seen = 0;
    for (text, code) in fenced("sh") {
        for line in code.replace("\\\n", " ").lines() {
            let upto = |line, sign: &&str| str::split(line, *sign).next().unwrap_or_default();
            let line = [" | ", " > ", " #"].iter().fold(line, upto);
            if !matches!(line.split(' ').next(), Some("sessile" | "./sessile")) {
                continue;
            }
            seen += 1;
            if let Err(error) = Arguments::try_parse_from(line.split_whitespace()) {
                panic!("{text}: {line}: {error}");
            }
        }
    }
    assert!(seen > 30, "{seen} commands");
}

/// Commands of the command line that do something themselves, each as its words.
fn commands(command: &clap::Command, words: &str) -> Vec<String> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let below: Vec<_> =
        below.flat_map(|below| commands(below, format!("{words} {}", below.get_name()).trim_start())).collect();
    if words.is_empty() { below } else { [vec![words.to_owned()], below].concat() }
}

#[test]
fn every_command_has_examples_that_it_understands() {
    let known = commands(&Arguments::command(), "");
    assert!(known.contains(&"certs dev".to_owned()) && known.len() > 15, "{known:?}");
    for command in &known {
        let lines = examples(command).into_iter().flat_map(|block| match block {
            Block::Code(language, lines) if language == "sh" => lines,
            _ => Vec::new(),
        });
        let lines: Vec<_> = lines.collect();
        assert!(!lines.is_empty(), "help/examples.md has no heading \"## {command}\" with a block of commands");
        for line in &lines {
            assert!(line.starts_with(&format!("sessile {command}")) && line.len() <= WIDTH - 4, "{command}: {line}");
            let parsed = Arguments::try_parse_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
    }
    let headings = markup::parse(EXAMPLES).into_iter().filter_map(|block| match block {
        Block::Heading(2, name) => Some(name),
        _ => None,
    });
    let unknown: Vec<_> = headings.filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "examples of no command: {unknown:?}");
    let words = ["plan".to_owned()];
    assert!(help_of_command(&words).unwrap().contains("\nExamples:\n"), "{}", help_of_command(&words).unwrap());
}

#[test]
fn commands_without_json_print_no_data() {
    fn without(command: &clap::Command, words: &str, found: &mut Vec<String>) {
        let below = command.get_subcommands().filter(|below| !below.is_hide_set());
        below.for_each(|below| without(below, format!("{words} {}", below.get_name()).trim_start(), found));
        let has_json = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
        if !has_json && !command.has_subcommands() {
            found.push(words.to_owned());
        }
    }
    let mut found = Vec::new();
    without(&Arguments::command(), "", &mut found);
    let texts = ["run", "log reopen", "demo", "help", "completions", "man"];
    assert_eq!(found, texts, "one sentence, and texts for people and for shells");
}

#[test]
fn options_of_the_manual_exist() {
    let known = options(&Arguments::command());
    let unknown = |text: &str| -> Vec<String> {
        let words =
            text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').filter_map(|word| word.strip_prefix("--"));
        let words = words.filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
        words
            .filter(|word| !known.contains(*word) && *word != "version" && *word != "help")
            .map(str::to_owned)
            .collect()
    };
    for topic in TOPICS {
        let prose =
            topic.text.lines().filter(|line| !["cargo ", "systemctl "].iter().any(|other| line.contains(other)));
        let found = unknown(&prose.collect::<Vec<_>>().join("\n"));
        assert!(found.is_empty(), "{}: {found:?}", topic.name);
    }
    assert_eq!(unknown("`--json` and --bogus"), ["bogus"]);
}

#[test]
fn configurations_of_the_manual_are_accepted() {
    let all = fenced("toml");
    assert!(all.len() >= 3, "{} configurations", all.len());
    for (text, code) in all {
        if let Err(problems) = config::check(&code, &no_names) {
            panic!("{text}: {problems:?}\n{code}");
        }
    }
}

#[test]
fn the_list_names_commands_and_topics() {
    let list = help(&[]).unwrap();
    for name in ["run", "status", "help", "man"].into_iter().chain(TOPICS.iter().map(|topic| topic.name)) {
        assert!(list.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name}\n{list}");
    }
    assert_eq!(list, help_of_command(&[]).unwrap());
}

#[test]
fn a_command_has_its_help_and_an_unknown_word_is_named() {
    assert!(help(&["certs", "dev"]).unwrap().contains("sessile certs dev"));
    assert!(help(&["drain"]).unwrap().contains("POOL/NAME"));
    for words in [&["tea"][..], &["stickiness", "tea"], &["run", "tea"]] {
        let Err(CommandError::Usage(message)) = help(words) else { panic!("{words:?} is a topic") };
        assert!(message.starts_with(&format!("help {}: ", words.join(" "))), "{message}");
    }
}

#[test]
fn the_reference_is_printed_as_a_file_to_use() {
    let text = help(&["reference"]).unwrap();
    assert!(config::check(&text, &no_names).is_ok());
}

/// The topics list what the code has, and nothing else.
#[test]
fn the_topics_have_every_metric_field_ending_and_key() {
    let files = ["fleet", "mod", "page", "pools", "process", "requests", "rows", "splits", "status", "threads"];
    let metrics = files.map(|file| {
        let path = format!("{}/src/metrics/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
    });
    let names = |text: &str, quote: char| -> BTreeSet<String> {
        let parts = text.split(quote).map(|part| part.split('{').next().unwrap_or_default());
        let is_ours = |part: &&str| {
            ["sessile_", "process_"].iter().any(|start| part.len() > start.len() && part.starts_with(start))
        };
        let names = parts.filter(is_ours);
        let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        names.filter(is_name).map(str::to_owned).collect()
    };
    let page = TOPICS.iter().find(|topic| topic.name == "metrics").unwrap().whole();
    assert_eq!(
        names(&page, '`'),
        names(&metrics.concat(), '"').into_iter().filter(|name| !name.ends_with('_')).collect()
    );

    let page = help(&["log"]).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix('`')?.split_once("`  "));
    let rows: Vec<_> = rows.collect();
    for field in LogField::ALL {
        let of_field: Vec<_> = rows.iter().filter(|(name, _)| *name == field.name()).collect();
        assert_eq!(of_field.len(), if field.lines() == InLines::Both { 2 } else { 1 }, "{}", field.name());
        assert!(of_field.iter().all(|(_, row)| row.trim_start().starts_with(field.form().word())), "{of_field:?}");
    }

    for ended in Ended::ALL {
        assert!(page.lines().any(|line| line.starts_with(&format!("{} ", ended.word()))), "{}", ended.word());
    }
}

/// Labels in braces behind the name of a metric are those that it has.
#[test]
fn metrics_of_the_manual_have_the_labels_of_the_page() {
    let catalog = metrics::catalog();
    let labels: std::collections::BTreeMap<_, _> =
        catalog.values().flatten().map(|family| (&*family.name, family.labels.join(","))).collect();
    let is_metric = |span: &str| {
        let is_part = |c: char| c.is_ascii_lowercase() || "_{,}".contains(c);
        span.starts_with("sessile_") && span.chars().all(is_part)
    };
    let mut seen = 0;
    for (text, source) in TOPICS.iter().map(|topic| (topic.name, topic.text)).chain([("README", README)]) {
        for span in source.split('`').filter(|span| is_metric(span)) {
            let (name, rest) = span.split_once('{').unwrap_or((span, ""));
            let known = labels.get(name).unwrap_or_else(|| panic!("{text}: {name} is no metric"));
            assert!(rest.is_empty() || rest.strip_suffix('}') == Some(&**known), "{text}: {span} has {known}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn blocks_are_taken_apart_and_wrapped() {
    let text =
        "# Title\n\nOne\ntwo.\n- a\n  b\n- c\n\n| x | y |\n|---|---|\n| `1 2` | |\n\n```sh\n# not a heading\n\n```\n";
    let blocks = markup::parse(text);
    let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
    assert_eq!(
        blocks,
        [
            Block::Heading(1, "Title".into()),
            Block::Paragraph("One two.".into()),
            Block::List(vec!["a b".into(), "c".into()]),
            Block::Table(vec![row(["x", "y"]), row(["`1 2`", ""])]),
            Block::Code("sh".into(), vec!["# not a heading".into(), String::new()]),
        ]
    );
    let shown = page(&blocks);
    assert_eq!(shown, "TITLE\n\nOne two.\n\n- a b\n- c\n\nx      y\n-----  -\n`1 2`\n\n    # not a heading\n\n");
    let span = format!("{} `never broken`", "word ".repeat(15));
    assert!(page(&markup::parse(&span)).ends_with("\n`never broken`\n"));
}
