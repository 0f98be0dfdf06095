//! Imports follow the map in `src/lib.rs`: from a higher floor to a lower one, or inside one folder.
//!
//! The map is the table in the head of `lib.rs`, highest floor first. Its first column is a number and a word, its last
//! one names modules in backticks, or folders and files below them (`sticky/key`); the longest name that fits a file
//! gives its floor. Modules of one floor do not import each other. Invariant: every file stands on exactly one floor.

use std::collections::BTreeMap;

use super::names::Names;
use super::source::{Source, belongs};

/// What a floor of rules does without: time and bytes are its arguments.
const IMPURE: &[&str] = &["tokio", "socket2", "Instant", "SystemTime", "OwnedFd", "TcpStream", "UnixStream"];

struct Map {
    /// Module or file, without `.rs`, and its floor.
    floors: BTreeMap<String, usize>,
    /// The highest floor without sockets, clocks and runtimes.
    pure: usize,
}

#[test]
fn every_import_leads_to_a_lower_floor_or_stays_in_its_folder() {
    let sources = Source::shipped();
    let map = Map::of(&sources);
    let mut complaints = Vec::new();
    for used in Names::of(&sources).uses() {
        let ((from, floor), (to, below)) = (map.floor(&used.from), map.floor(&used.to));
        if from != to && below >= floor {
            complaints.push(format!(
                "{}:{} (floor {floor}) uses {} of {} (floor {below})",
                used.from, used.line, used.item, used.to
            ));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn rules_name_no_runtime_no_socket_and_no_clock() {
    let sources = Source::shipped();
    let map = Map::of(&sources);
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| map.floor(&source.path).1 <= map.pure) {
        for token in source.tokens().iter().filter(|token| IMPURE.contains(&token.text)) {
            complaints.push(format!("{}:{} names {}", source.path, token.line, token.text));
        }
    }
    assert!(complaints.is_empty(), "floors 0 to {}\n{}", map.pure, complaints.join("\n"));
}

impl Map {
    /// Reads the table; checks that its floors go down to 0 one by one and that it names what exists, each once.
    fn of(sources: &[Source]) -> Self {
        let root = sources.iter().find(|source| source.path == "lib.rs").expect("lib.rs");
        let head: Vec<_> = root.text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let (mut floors, mut last) = (BTreeMap::new(), None);
        for row in head.iter().filter_map(|line| line.strip_prefix('|')) {
            let cells: Vec<_> = row.trim_end_matches('|').split('|').map(str::trim).collect();
            let number = cells[0].split(' ').next().and_then(|number| number.parse::<usize>().ok());
            let Some(floor) = number else { continue };
            assert!(last.is_none_or(|last: usize| last == floor + 1), "floor {floor} follows {last:?}");
            last = Some(floor);
            for name in cells.last().expect("cells").split('`').skip(1).step_by(2) {
                let exists = |source: &Source| belongs(&source.path, name);
                assert!(sources.iter().any(exists), "the map names `{name}`, which does not exist");
                assert_eq!(floors.insert(name.to_owned(), floor), None, "the map names `{name}` twice");
            }
        }
        assert_eq!(last, Some(0), "the map has no floor 0");
        let pure = head.iter().find_map(|line| line.strip_prefix("Floors 0 to ")?.split(' ').next()?.parse().ok());
        Self { floors, pure: pure.expect("a line `Floors 0 to N name neither …` in the head of lib.rs") }
    }

    /// The name in the map that a file belongs to, and its floor; `lib.rs` and `main.rs` stand above all.
    fn floor(&self, file: &str) -> (&str, usize) {
        if ["lib.rs", "main.rs"].contains(&file) {
            return ("", usize::MAX);
        }
        let fits = self.floors.iter().filter(|(name, _)| belongs(file, name));
        let (name, floor) = fits.max_by_key(|(name, _)| name.len()).unwrap_or_else(|| panic!("{file} has no floor"));
        (name, *floor)
    }
}
