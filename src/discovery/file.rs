//! [`FileSource`]: backends that a file names, one a line or as JSON, looked at again when another file takes its
//! place.
//!
//! Writes nothing and keeps no set. Invariants: a file with one mistake names no backend at all; a file that was good
//! is read again only once another one has taken its place, so a file that is written in place is never read half.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::found::{Found, FoundState, Reading, WEIGHT_MAX};
use crate::config::{backend_address, is_name, levels};
use crate::regular_file::{self, FileIdentity, WholeFile};
use crate::waiting;

/// The longest file: room for far more backends than any pool may have.
const FILE_MAX: u64 = 4 << 20;

/// How often the file is looked at.
pub const LOOK: Duration = Duration::from_millis(500);

/// A file that names backends, and what is known of it.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    seen: Option<SeenFile>,
}

/// What a file looked like when it was read.
#[derive(Debug, PartialEq, Eq)]
struct SeenFile {
    identity: Option<FileIdentity>,
    /// Time and length of a file that had a mistake, which may be mended in place; `None`: it was good.
    broken: Option<(Option<SystemTime>, u64)>,
}

impl FileSource {
    /// A file that was not read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), seen: None }
    }

    /// Reads the file if another one has taken its place, or if the last one had a mistake and has changed; `None`: it
    /// is as it was.
    pub fn look(&mut self) -> Option<Reading> {
        let identity = regular_file::identity(&self.path);
        let stamp = self.stamp();
        if let Some(SeenFile { identity: before, broken }) = &self.seen
            && *before == identity
            && broken.as_ref().is_none_or(|before| *before == stamp)
        {
            return None;
        }
        let reading = read(&self.path);
        let broken = matches!(reading, Reading::Failed { .. }).then_some(stamp);
        self.seen = Some(SeenFile { identity, broken });
        Some(reading)
    }

    fn stamp(&self) -> (Option<SystemTime>, u64) {
        let look = || std::fs::metadata(&self.path);
        let metadata = waiting::on(|| format!("looking at \"{}\"", self.path.display()), look);
        metadata.map_or((None, 0), |metadata| (metadata.modified().ok(), metadata.len()))
    }
}

/// Reads a file once.
pub fn read(path: &Path) -> Reading {
    let text = regular_file::read(path, FILE_MAX).and_then(WholeFile::text);
    let found = text.map_err(|error| error.to_string()).and_then(|text| parse(&text));
    match found {
        Err(why) => Reading::Failed { why },
        Ok(found) if found.is_empty() => Reading::Empty { valid_for: LOOK },
        Ok(found) => Reading::Set { found, valid_for: LOOK },
    }
}

/// The backends of a text, sorted by name; the error names the first mistake.
fn parse(text: &str) -> Result<Vec<Found>, String> {
    let placed = match text.trim_start().chars().next() {
        None if text.is_empty() => {
            return Err("the file is empty: a comment or [] says that there is no backend".into());
        }
        Some('[') => of_json(text)?,
        _ => of_lines(text)?,
    };
    let mut first: HashMap<&str, &str> = HashMap::new();
    for (place, found) in &placed {
        if let Some(earlier) = first.insert(&found.name, place) {
            return Err(format!("{place}: name \"{}\" is taken by {earlier}", found.name));
        }
    }
    let mut found: Vec<_> = placed.into_iter().map(|(_, found)| found).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Backends of a list in JSON, each with its place.
fn of_json(text: &str) -> Result<Vec<(String, Found)>, String> {
    let listed: Vec<ListedBackend> =
        serde_json::from_str(text).map_err(|error| format!("is no list of backends in JSON: {error}"))?;
    let placed = (1..).zip(listed).map(|(number, listed)| {
        let place = format!("backend #{number}");
        let found = listed.found().map_err(|why| format!("{place}: {why}"))?;
        Ok((place, found))
    });
    placed.collect()
}

/// Backends of lines `NAME ADDRESS [WEIGHT] [LOCATION] [STATE]`, each with its place.
fn of_lines(text: &str) -> Result<Vec<(String, Found)>, String> {
    if !text.ends_with('\n') {
        return Err("the file does not end with a newline: it may be cut short".to_owned());
    }
    let lines = (1..).zip(text.lines()).map(|(number, line)| {
        let words: Vec<_> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        (format!("line {number}"), words)
    });
    let placed = lines.filter(|(_, words)| !words.is_empty()).map(|(place, words)| {
        let found =
            ListedBackend::of_words(&words).and_then(ListedBackend::found).map_err(|why| format!("{place}: {why}"))?;
        Ok((place, found))
    });
    placed.collect()
}

/// A backend as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListedBackend {
    name: String,
    address: String,
    weight: Option<u32>,
    location: Option<String>,
    state: Option<String>,
    /// In JSON alone, as the next.
    max_connections: Option<u64>,
    #[serde(default)]
    backup: bool,
}

impl ListedBackend {
    fn of_words(words: &[&str]) -> Result<Self, String> {
        let [name, address, more @ ..] = words else { return Err("has a name and no address".to_owned()) };
        let is_number = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_digit());
        let (weight, more) = match more.split_first() {
            Some((first, rest)) if is_number(&first) => (Some(first), rest),
            _ => (None, more),
        };
        let (state, more) = match more.split_last() {
            Some((last, rest)) if STATES.iter().any(|(word, _)| word == last) => (Some(last), rest),
            _ => (None, more),
        };
        let weight =
            weight.map(|word| word.parse().map_err(|_| format!("weight {word} is not between 0 and {WEIGHT_MAX}")));
        match more {
            [] | [_] => Ok(Self {
                name: (*name).to_owned(),
                address: (*address).to_owned(),
                weight: weight.transpose()?,
                location: more.first().map(|word| (*word).to_owned()),
                state: state.map(|word| (*word).to_owned()),
                max_connections: None,
                backup: false,
            }),
            [_, other, ..] => Err(format!("\"{other}\" is none of weight, location and state, in this order")),
        }
    }

    fn found(self) -> Result<Found, String> {
        let Self { name, address, weight, location, state, max_connections, backup } = self;
        if !is_name(&name) {
            return Err(format!("name \"{}\" is not a name: 1 to 64 letters, digits, '.', '_' or '-'", shown(&name)));
        }
        let to: SocketAddr =
            backend_address(&address).map_err(|why| format!("address \"{}\" {why}", shown(&address)))?;
        if let Some(weight) = weight.filter(|weight| *weight > WEIGHT_MAX) {
            return Err(format!("weight {weight} is not between 0 and {WEIGHT_MAX}"));
        }
        if let Some(location) = &location {
            levels(location).map_err(|why| format!("location \"{}\" {why}", shown(location)))?;
        }
        let state = state.map(|word| {
            let known = STATES.iter().find(|(known, _)| *known == word);
            known
                .map(|(_, state)| *state)
                .ok_or_else(|| format!("state \"{}\" is not \"ready\" or \"drain\"", shown(&word)))
        });
        let too_many = |most| format!("max_connections {most} is not between 1 and {}", u32::MAX);
        let most = max_connections.map(|most| u32::try_from(most).ok().filter(|most| *most > 0).ok_or(too_many(most)));
        Ok(Found {
            weight,
            location: location.map(Into::into),
            state: state.transpose()?,
            max_connections: most.transpose()?,
            backup,
            ..Found::new(name, to)
        })
    }
}

/// Words for the state of a backend.
const STATES: [(&str, FoundState); 2] = [("ready", FoundState::Ready), ("drain", FoundState::Drain)];

/// A word of a file as messages show it: at most 80 characters, none of them a control character.
fn shown(word: &str) -> String {
    word.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
