//! The words of the texts: comments, `--help`, the manual, the README and the configurations that are shown.
//!
//! A thing is no person, and a comment stands alone: it names its subject first. Counted are `///` comments of the
//! product; simulator, demo and unit tests are left out. Invariant: a text for operators has none of the words at all.

use std::collections::BTreeSet;
use std::fs;

use super::source::{Source, files_below, repository};
use crate::support::sessile::run;

/// Words for persons, where things are meant, and the future of commandments.
const BANNED: &[&str] = &["who", "whom", "whose", "whoever", "nobody", "somebody", "everybody", "shall"];

/// Openings that lean on the comment of the item before.
const FRAGMENTS: &[&str] = &[
    "It",
    "Its",
    "They",
    "Those",
    "These",
    "That",
    "This one",
    "One of them",
    "Who",
    "Whom",
    "Whose",
    "So",
    "None",
    "Nobody",
    "Nothing",
    "Of",
    "As",
];

/// A `///` comment with its place.
struct Comment {
    place: String,
    text: String,
}

impl Comment {
    fn words(&self) -> Vec<String> {
        words(&self.text)
    }

    fn is_fragment(&self) -> bool {
        let opens = |opening: &&&str| {
            let rest = self.text.strip_prefix(**opening);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        FRAGMENTS.iter().any(|opening| opens(&opening))
    }
}

#[test]
fn comments_stand_alone() {
    let comments: Vec<_> = product().iter().flat_map(doc_comments).collect();
    let short = comments.iter().filter(|comment| comment.words().len() <= 4).count();
    let fragments: Vec<_> = comments.iter().filter(|comment| comment.is_fragment()).collect();
    let shown: Vec<_> = fragments.iter().map(|comment| format!("{}: {}", comment.place, comment.text)).collect();
    let all = comments.len();
    println!("{all} comments, {short} of at most four words, {} fragments", fragments.len());
    assert!(10 * short <= all, "{short} of {all} comments have at most four words");
    assert!(200 * fragments.len() <= all, "{} of {all} comments lean on another\n{}", shown.len(), shown.join("\n"));
}

#[test]
fn comments_do_not_take_things_for_persons() {
    let mut found = Vec::new();
    for source in product() {
        let comments = without_tests(&source).lines().zip(source.code.lines()).enumerate();
        for (index, (line, code)) in comments {
            // What is a comment in the text is blank in the code; a literal may hold the mark of one.
            let comment = line.find("//").filter(|at| code.get(*at..).is_none_or(|code| code.trim().is_empty()));
            let Some(at) = comment.filter(|at| line[..*at].matches('"').count() % 2 == 0) else { continue };
            found.extend(banned(&line[at..]).map(|word| format!("src/{}:{}: {word}", source.path, index + 1)));
        }
    }
    assert!(found.is_empty(), "{} words\n{}", found.len(), found.join("\n"));
}

#[test]
fn texts_for_operators_do_not_take_things_for_persons() {
    let mut files = files_below(&repository().join("config"), "toml");
    files.extend(files_below(&repository().join("src/cli/help"), "md"));
    files.push(repository().join("README.md"));
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a text");
        for (index, line) in text.lines().enumerate() {
            found.extend(banned(line).map(|word| format!("{}:{}: {word}", file.display(), index + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn help_does_not_take_things_for_persons() {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut commands = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        let output =
            run(&[&command[..], &["--help".to_owned()]].concat().iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{command:?} --help: {output:?}");
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        found.extend(banned(&help).map(|word| format!("sessile {} --help: {word}", command.join(" "))));
        for name in subcommands(&help) {
            commands.push([&command[..], &[name]].concat());
        }
        seen.insert(command.join(" "));
    }
    assert!(["run", "certs dev", "demo"].iter().all(|known| seen.contains(*known)), "commands seen: {seen:?}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Commands that a help text lists, but for `help` itself.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Deeper lines go on with a description.
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let names = names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

fn product() -> Vec<Source> {
    let other =
        |source: &Source| source.path.split('/').any(|part| ["sim", "demo"].contains(&part.trim_end_matches(".rs")));
    Source::product().into_iter().filter(|source| !other(source)).collect()
}

/// The text of a file before its inline tests.
fn without_tests(source: &Source) -> &str {
    source.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// Blocks of `///` lines, each as one line of text.
fn doc_comments(source: &Source) -> Vec<Comment> {
    let mut comments: Vec<Comment> = Vec::new();
    let mut goes_on = false;
    for (index, line) in without_tests(source).lines().enumerate() {
        let text = line.trim_start().strip_prefix("///").map(str::trim);
        match (text, comments.last_mut().filter(|_| goes_on)) {
            (Some(text), Some(comment)) => comment.text += &format!(" {text}"),
            (Some(text), None) => {
                comments.push(Comment { place: format!("src/{}:{}", source.path, index + 1), text: text.to_owned() });
            }
            (None, _) => {}
        }
        goes_on = text.is_some();
    }
    comments
}

/// Words of letters and apostrophes.
fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_ascii_alphabetic() && c != '\'').filter(|word| !word.is_empty());
    parts.map(str::to_lowercase).collect()
}

/// Banned words of a text, as often as they occur.
fn banned(text: &str) -> impl Iterator<Item = String> {
    words(text).into_iter().filter(|word| BANNED.contains(&word.as_str()))
}
