//! How long files and functions are, and how often the name of a type occurs.
//!
//! Unit tests do not count, neither inline nor in files of their own. Invariant: the limits are the same for every file.

use std::collections::BTreeMap;

use super::source::{Source, block_length};

const FILE_LINES: usize = 450;
const FUNCTION_LINES: usize = 70;

/// At most this share of types may have the name of another type, in percent.
const SHARED_NAMES: usize = 10;

#[test]
fn no_file_has_more_than_450_lines() {
    let sources = Source::product();
    let lengths = sources.iter().map(|source| (source.text.lines().count() - source.test_lines, &source.path));
    let long: Vec<_> = lengths.filter(|(lines, _)| *lines > FILE_LINES).collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn no_function_has_more_than_70_lines() {
    let mut long = Vec::new();
    for source in Source::product() {
        for (name, lines) in functions(&source.code) {
            if lines > FUNCTION_LINES {
                long.push(format!("{}: {name} has {lines} lines", source.path));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Every function with a body: its name, and its lines from `fn` to the closing brace.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let starts = code.match_indices("fn ").filter(|(at, _)| {
        let before = code[..*at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    });
    let function = |(at, mark): (usize, &str)| {
        let rest = &code[at + mark.len()..];
        let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_')?];
        let body = body_start(rest)?;
        let lines = rest[..body + block_length(&rest[body..])].lines().count();
        (!name.is_empty()).then_some((name, lines))
    };
    starts.filter_map(function).collect()
}

/// Where the body of a function begins in a text that starts in its signature; `None` if it has no body.
fn body_start(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, mark) in text.match_indices(['(', ')', '[', ']', '{', ';']) {
        match mark {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "{" if depth == 0 => return Some(at),
            ";" if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[test]
fn hardly_a_type_has_the_name_of_another() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in Source::product() {
        for pair in source.tokens().windows(2) {
            if ["struct", "enum", "trait"].contains(&pair[0].text) {
                places.entry(pair[1].text.to_owned()).or_default().push(source.path.clone());
            }
        }
    }
    let all: usize = places.values().map(Vec::len).sum();
    places.retain(|_, places| places.len() > 1);
    let shared: usize = places.values().map(Vec::len).sum();
    println!("{shared} of {all} types share a name: {places:#?}");
    assert!(100 * shared <= SHARED_NAMES * all, "{shared} of {all} types share a name: {places:#?}");
}
