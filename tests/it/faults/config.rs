//! Broken configuration files through the front door: `check`, `run` and a reload say where and what, all of it.
//!
//! The files under `tests/broken` name their problems: `# expect: LINE:COLUMN: OBJECT: MESSAGE`, as they begin, and
//! `# expect-file: …` for those of files that the text names.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use super::peer::{ask, connect};
use crate::support::backend::{Backend, listener, pool};
use crate::support::sessile::run;
use crate::support::{Sessile, eventually, http};

struct Broken {
    path: PathBuf,
    text: String,
    expected: Vec<String>,
}

fn broken() -> Vec<Broken> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let expected =
            ["# expect: ", "# expect-file: "].map(|mark| text.lines().filter_map(move |l| l.strip_prefix(mark)));
        let expected = expected.into_iter().flatten().map(str::to_owned);
        let mut expected: Vec<_> = expected.collect();
        expected.sort_by_key(|line| place(line));
        Broken { path, text, expected }
    };
    paths.into_iter().map(read).collect()
}

/// Line and column at the beginning of a problem.
fn place(problem: &str) -> (usize, usize) {
    let mut numbers = problem.split(':').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether what was found is what was expected: in order, each from its beginning, nothing else.
fn assert_found(what: &str, found: &[String], expected: &[String]) {
    let agree = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected.as_str()));
    assert!(agree && !expected.is_empty(), "{what}\nexpected {expected:#?}\nfound {found:#?}");
}

#[test]
fn there_are_many_broken_files_and_one_has_five_errors() {
    let files = broken();
    assert!(files.len() > 30);
    assert!(files.iter().any(|file| file.expected.len() == 5));
    for file in files {
        assert!(!file.expected.is_empty(), "{:?}", file.path);
    }
}

#[test]
fn check_prints_every_problem_with_its_place() {
    for Broken { path, expected, .. } in broken() {
        let file = path.to_str().unwrap();
        let output = run(&["check", file]);
        assert_eq!(output.status.code(), Some(64), "{file}");
        let text = String::from_utf8(output.stdout).unwrap();
        let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{file}:"))).collect();
        // The last line sums up; a hint stands on a line of its own.
        let (last, found) = found.split_last().unwrap();
        assert!(last.starts_with(&format!(" refused for {} problem", expected.len())), "{last}");
        let found: Vec<_> = found.iter().map(|line| (*line).to_owned()).collect();
        let shown: Vec<_> = expected.iter().map(|line| line.split(" (hint:").next().unwrap().to_owned()).collect();
        assert_found(file, &found, &shown);
        for hint in expected.iter().filter_map(|line| Some(line.split_once(" (hint:")?.1.trim_end_matches(')'))) {
            assert!(text.contains(&format!("\n    hint:{hint}")), "{file}: {hint}\n{text}");
        }
    }
}

#[test]
fn check_prints_every_problem_as_json() {
    for Broken { path, expected, .. } in broken() {
        let file = path.to_str().unwrap();
        let output = run(&["check", "--json", file]);
        assert_eq!(output.status.code(), Some(64), "{file}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["accepted"], &report["file"]), (&false.into(), &file.into()));
        let problems = report["problems"].as_array().unwrap();
        let found: Vec<_> = problems.iter().map(as_line).collect();
        assert_found(file, &found, &expected);
    }
}

fn as_line(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    let object = if text("object").is_empty() { String::new() } else { text("object") + ": " };
    let hint = problem["hint"].as_str().map_or(String::new(), |hint| format!(" (hint: {hint})"));
    format!("{}:{}: {object}{}{hint}", problem["line"], problem["column"], text("message"))
}

#[test]
fn run_refuses_a_broken_file() {
    for Broken { path, expected, .. } in broken() {
        let file = path.to_str().unwrap();
        let output = run(&["run", "--config", file]);
        assert_eq!(output.status.code(), Some(64), "{file}");
        let text = String::from_utf8(output.stderr).unwrap();
        let start = format!("sessile: {file}:");
        let found: Vec<_> = text.lines().map(|line| line.strip_prefix(&start).unwrap_or(line).to_owned()).collect();
        assert_found(file, &found, &expected);
    }
}

#[test]
fn a_byte_that_is_no_text_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sessile.toml");
    std::fs::write(&path, b"workers = 2\nname = \"M\xfcller\"\n").unwrap();
    let file = path.to_str().unwrap();
    for arguments in [["check", file].as_slice(), &["run", "--config", file]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(&format!("{file}:2:10: it is not text in UTF-8")), "{arguments:?}: {text}");
    }
}

#[test]
fn run_with_a_broken_file_binds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let within = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "[admin]\nsocket = \"{}\"\n[[listener]]\nname = \"l\"\nbind = \"unix:{}\"\npool = \"nowhere\"\n{}",
        within("admin.sock"),
        within("l.sock"),
        pool("app", "key = \"none\"\nbalance = \"random\"", &["127.0.0.1:9".parse().unwrap()])
    );
    std::fs::write(within("sessile.toml"), text).unwrap();
    let output = run(&["run", "--config", &within("sessile.toml")]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["sessile.toml"]);
}

#[test]
fn a_reload_of_a_broken_file_changes_nothing_and_shows_everywhere() {
    let app = Backend::named("b0");
    let good = listener("app", "") + &pool("app", "", &[app.address]);
    let sessile = Sessile::start(&good);
    let living = connect(sessile.address("l"));
    let (before, file) = (sessile.status(), sessile.file().display().to_string());
    let mut refused = 0;
    for Broken { path, text, expected } in broken() {
        std::fs::write(sessile.file(), text).unwrap();
        let (code, body) = http::unix_post(&sessile.admin(), "/reload").unwrap();
        refused += 1;
        let verdict: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &verdict["accepted"]), (409, &false.into()), "{path:?}");
        for key in ["generation", "digest"] {
            assert_eq!(verdict[key], before[key], "{path:?}: {key}");
        }
        assert_problems(&format!("{path:?}: verdict"), &verdict["problems"], &file, &expected);

        let after = sessile.status();
        for key in ["generation", "digest", "generations_alive"] {
            assert_eq!(after[key], before[key], "{path:?}: {key}");
        }
        assert_eq!(after["pools"][0]["digest"], before["pools"][0]["digest"], "{path:?}");
        assert_eq!(after["listeners"][0]["bind"], before["listeners"][0]["bind"], "{path:?}");
        assert_eq!(
            (&after["reloads"]["refused"], &after["reloads"]["last_accepted"]),
            (&refused.into(), &false.into())
        );
        assert_problems(&format!("{path:?}: status"), &after["reloads"]["problems"], &file, &expected);
        assert_eq!(sessile.metric("sessile_reloads_total{verdict=\"refused\"}"), refused as f64);
        assert_eq!(sessile.metric("sessile_reload_last_accepted"), 0.0);

        let logged = eventually("the refusal in the log", || {
            Some(logged_refusals(&sessile)).filter(|logged| logged.len() as u64 >= refused)
        });
        let last = logged.last().unwrap();
        assert_eq!(logged.len() as u64, refused, "{path:?}");
        for problem in &expected {
            assert!(last.contains(&format!("{file}:{problem}")), "{path:?}: {problem}\n{last}");
        }
        assert_eq!(ask(&living, "hi").unwrap(), "b0 hi\n", "{path:?}");
    }
    refused_for_command_and_signal(&sessile, refused);
    let verdict = sessile.reload(&good);
    assert_eq!(verdict["accepted"], true, "{verdict}");
    assert_eq!(verdict["generation"].as_u64(), before["generation"].as_u64().map(|generation| generation + 1));
    assert_eq!(sessile.metric("sessile_reload_last_accepted"), 1.0);
    assert_eq!(ask(&living, "hi").unwrap(), "b0 hi\n");
}

/// A broken file is refused by SIGHUP and by the command, too.
fn refused_for_command_and_signal(sessile: &Sessile, refused: u64) {
    let socket = sessile.admin().display().to_string();
    let output = run(&["reload", "--socket", &socket]);
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("refused: ") && text.contains(&sessile.file().display().to_string()), "{text}");
    let output = run(&["reload", "--socket", &socket, "--json"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["accepted"], false);
    sessile.signal(Signal::HUP);
    eventually("the signal to be obeyed", || (sessile.status()["reloads"]["refused"] == refused + 3).then_some(()));
}

fn assert_problems(what: &str, found: &Value, file: &str, expected: &[String]) {
    let found = found.as_array().unwrap().iter().map(|problem| problem.as_str().unwrap());
    let found: Vec<_> = found.map(|line| line.strip_prefix(&format!("{file}:")).unwrap_or(line).to_owned()).collect();
    assert_found(what, &found, expected);
}

/// What was said of refused reloads on standard error.
fn logged_refusals(sessile: &Sessile) -> Vec<String> {
    let lines = sessile.said();
    let messages = lines.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        assert!(line["level"].is_string(), "{line}");
        line["msg"].as_str().map(str::to_owned)
    });
    messages.filter(|message| message.starts_with("reload refused")).collect()
}
