//! Configuration files: every problem stands at a place inside the text, in order, and is told in one line.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use sessile::config::{self, CheckedConfig, Problem, diff};

use crate::cost::{Limit, bounded};
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "configuration",
    run,
    words: &[
        b"[[listener]]\n",
        b"[[pool]]\n",
        b"[pool.cookie]\n",
        b"[pool.check]\n",
        b"[limits]\n",
        b"[admin]\n",
        b"[log]\n",
        b"[tls]\n",
        b"[store]\n",
        b"name = \"a\"\n",
        b"bind = \"0.0.0.0:80\"\n",
        b"pool = \"a\"\n",
        b"route = [{ sni = \"a.b\", pool = \"a\" }]\n",
        b"backend = [{ name = \"a\", address = \"10.0.0.1:80\" }]\n",
        b"http = true\n",
        b"mode = \"learn\"\n",
        b"key = [\"source\", \"sni\"]\n",
        b"balance = \"maglev\"\n",
        b"tls = \"terminate\"\n",
        b"stick_table = \"4 MiB\"\n",
        b"\"off\"",
        b"\"1h\"",
        b"\"",
        b"'''",
        b"\n",
        b"\r\n",
        b" = ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"#",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
        b"0x",
        b"1979-05-27",
        b"true",
        b"[[pool.backend]]\n",
        b"[[pool.range]]\n",
        b"cidr = \"10.0.0.0/8\"\n",
        b"trust = [\"::/0\"]\n",
        b"password = \"not to be shown\"\n",
    ],
    seeds,
    length_max: 20_000,
    mutants: 2_500,
};

/// The examples, and the files with mistakes.
fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["config", "tests/broken"].map(|folder| fs::read_dir(root.join(folder)).expect("a folder"));
    let mut paths: Vec<_> = folders.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a text")).collect()
}

/// Names have one address, and those that begin with `x` none.
fn resolve(name: &str) -> std::io::Result<Vec<SocketAddr>> {
    let port = name.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(1);
    if name.starts_with('x') { Err(std::io::Error::other("not here")) } else { Ok(vec![([10, 0, 0, 9], port).into()]) }
}

fn check(text: &str) -> Result<CheckedConfig, Vec<Problem>> {
    config::check(text, &resolve)
}

fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Tables, values and messages for what the text has, and the defaults of everything that it has not.
    let length = text.len();
    let limit = Limit {
        allocations: 4_000 + 60 * length as u64,
        bytes: 400_000 + 4_000 * length as u64,
        steps: 200_000,
        steps_per_byte: 2_000,
    };
    let checked = bounded("checking a configuration", length, limit, || check(&text));
    let problems = match &checked {
        Ok(checked) => &checked.warnings,
        Err(problems) => problems,
    };
    assert!(checked.is_ok() || !problems.is_empty(), "refused without a reason");
    problems.iter().for_each(|problem| check_problem(&text, problem));
    assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)), "{problems:?}");
    check_secret(&text, &checked);
    if let Ok(checked) = &checked {
        let CheckedConfig { config, .. } = checked;
        assert_eq!(diff::changes(config, config), [""; 0], "nothing differs from itself");
        assert_eq!(diff::warnings(config, config, config), [""; 0], "nothing differs from itself");
        let pool = |name: &str| config.pools.iter().any(|pool| pool.name == name);
        assert!(!config.listeners.is_empty() && config.pools.iter().all(|known| pool(&known.name)));
    }
    check_moved(&text, &checked);
}

/// A place inside the text, and a message that is one line and reads back as the same place.
fn check_problem(text: &str, problem: &Problem) {
    let lines: Vec<_> = text.split('\n').collect();
    let line = lines.get(problem.line - 1).unwrap_or_else(|| panic!("{} lines, but {problem:?}", lines.len()));
    let characters = line.chars().count();
    assert!((1..=characters + 1).contains(&problem.column), "{characters} characters, but {problem:?}");
    let shown = problem.to_string();
    assert!(!shown.chars().any(char::is_control), "more than a line: {shown:?}");
    assert!(!problem.message.is_empty());
    let mut parts = shown.splitn(3, ':');
    let place = [parts.next(), parts.next()].map(|number| number.and_then(|number| number.parse::<usize>().ok()));
    assert_eq!(place, [Some(problem.line), Some(problem.column)], "{shown}");
    assert!(parts.next().is_some_and(|rest| rest.starts_with(' ') && rest.contains(&problem.message)), "{shown}");
}

/// A password that stands once in the text stands in no message and in no configuration that is shown.
fn check_secret(text: &str, checked: &Result<CheckedConfig, Vec<Problem>>) {
    let after = |line: &str| Some(line.trim().strip_prefix("password = \"")?.strip_suffix('"')?.to_owned());
    for secret in text.lines().filter_map(after).filter(|secret| secret.len() >= 8 && text.matches(secret).count() == 1)
    {
        let shown = match checked {
            Ok(checked) => format!("{checked:?}"),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        assert!(!shown.contains(&secret), "a password is shown: {shown}");
    }
}

/// Two lines above move problems and change nothing else.
fn check_moved(text: &str, before: &Result<CheckedConfig, Vec<Problem>>) {
    // A byte order mark is one at the start alone, and an empty text has no line whose end may be missing.
    if text.starts_with('\u{feff}') || text.is_empty() {
        return;
    }
    let moved = |problem: &Problem| {
        let earlier =
            problem.message.rsplit_once(", in line ").and_then(|(said, line)| Some((said, line.parse().ok()?)));
        let message = earlier.map_or_else(
            || problem.message.clone(),
            |(said, line): (_, usize)| format!("{said}, in line {}", line + 2),
        );
        let twice = |hint: &String| {
            let line = hint.strip_prefix("it stands in line ")?.strip_suffix(", too")?.parse::<usize>().ok()?;
            Some(format!("it stands in line {}, too", line + 2))
        };
        let hint = problem.hint.as_ref().map(|hint| twice(hint).unwrap_or_else(|| hint.clone()));
        Problem { line: problem.line + 2, message, hint, ..problem.clone() }
    };
    // A problem without a place in the text stands at its begin, where a mistake of the first line may hide it.
    let has_place = |problem: &&Problem| (problem.line, problem.column) != (1, 1);
    let same = |before: &[Problem], after: &[Problem]| {
        let stays = before.iter().filter(has_place).all(|problem| after.contains(&moved(problem)));
        let known = |problem: &Problem| before.iter().any(|before| moved(before) == *problem);
        assert!(stays && after.iter().filter(has_place).all(known), "moved: {before:?}, {after:?}");
    };
    match (before, check(&format!("# a comment\n\n{text}"))) {
        (Ok(before), Ok(after)) => {
            assert_eq!(before.config, after.config);
            same(&before.warnings, &after.warnings);
        }
        // The parser of TOML gives no place for too many brackets, and they hide other mistakes of the first line.
        (Err(before), Err(after)) if before.iter().chain(&after).any(|problem| problem.message.contains("recurs")) => {}
        (Err(before), Err(after)) => same(before, &after),
        (before, after) => panic!("a comment changed the verdict: {before:?}, {after:?}"),
    }
}
