//! A file imports only from lower floors, from its own floor among the rules, or from inside its own folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Floors of the modules, as the map in `lib.rs` says.
const FLOORS: &[(&str, u8)] = &[
    ("config", 0),
    ("server_name", 0),
    ("outcome", 0),
    ("counters", 0),
    ("progress", 0),
    ("route", 1),
    ("attempt", 1),
    ("pool", 1),
    ("placement", 1),
    ("sticky", 1),
    ("client_hello", 1),
    ("http", 1),
    ("proxy_protocol", 1),
    ("clock", 2),
    ("connection", 2),
    ("limits", 2),
    ("snapshot", 2),
    ("admission", 2),
    ("metrics", 2),
    ("access_log", 2),
    ("socket", 2),
    ("tls", 2),
    ("plan", 2),
    ("probe", 3),
    ("store", 3),
    ("splicer", 4),
    ("terminate", 4),
    ("admin", 4),
    ("server", 5),
    ("cli", 5),
];

#[test]
fn every_module_imports_only_from_below() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut complaints = Vec::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).expect("below src");
        let own = relative.iter().next().expect("a name").to_string_lossy();
        let own = own.trim_end_matches(".rs").to_owned();
        if own == "lib" || own == "main" || is_test(relative) {
            continue;
        }
        let floor = *floors.get(own.as_str()).unwrap_or_else(|| panic!("{own} has no floor"));
        for (number, line) in code_lines(&file) {
            for used in modules_used(&line) {
                let below = floors.get(used.as_str()).copied().unwrap_or(0);
                // Rules may call each other, and words may be made of words; stages and what is above may not.
                let allowed = used == own || below < floor || (below == floor && floor <= 2) || floor == 5;
                if !allowed {
                    complaints.push(format!(
                        "{}:{number}: {own} (floor {floor}) uses {used} (floor {below})",
                        relative.display()
                    ));
                }
            }
            if floor <= 1 {
                for word in ["tokio::", "std::time::Instant", "SystemTime::now", "std::os::fd", "socket2::"] {
                    if line.contains(word) {
                        complaints.push(format!("{}:{number}: floor {floor} names {word}", relative.display()));
                    }
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part.to_string_lossy().trim_end_matches(".rs").ends_with("tests"))
}

/// The lines before the file's own tests, without comments.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).expect("a text");
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines =
        code.lines().enumerate().map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("").to_owned()));
    lines.collect()
}

fn modules_used(line: &str) -> Vec<String> {
    line.match_indices("crate::")
        .map(|(at, word)| {
            let rest = &line[at + word.len()..];
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        })
        .filter(|module| !module.is_empty())
        .collect()
}
