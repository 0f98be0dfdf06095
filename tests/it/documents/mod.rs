//! The commands that documents show: each fenced one of the README and of the manual is run as it stands there.
//!
//! A fence has a [`Machine`] of its own, where nothing of a command is replaced. `sessile run` goes on serving for the
//! commands below it, and what follows the process is ended as by its reader; all others run to their end. The manual pages are made from the texts of the manual. Invariant:
//! the exit code of every command is 0, or the command is in [`ELSEWHERE`] or [`OTHER_CODES`].

mod machine;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use self::machine::{Machine, State};
use crate::support::sessile::run;
use crate::support::{has, is_root};

/// Commands that cannot run here, with the reason and the file that runs them.
const ELSEWHERE: [(&str, &str, &str); 5] = [
    ("cargo run --profile quick -- demo", "builds the sources", "tests/first_user"),
    ("cargo install --locked --path .", "builds the sources", "tests/first_user"),
    ("packaging/static", "builds the sources", ".ci/package"),
    (".ci/package", "builds the sources and boots a Debian", ".ci/package"),
    ("systemd-analyze security sessile", "needs a booted systemd; the unit alone does not", "tests/it/unit.rs"),
];

/// Commands that say something else than success on a machine of this test: their exit code, and what it says.
const OTHER_CODES: &[(&str, i32, &str)] = &[
    ("sessile why 203.0.113.9", 1, "the client has not been here"),
    ("sessile why 41ef0b0a5bd4c1c8f4a1c2f6ab9f7e10", 1, "the request was not here"),
    ("sessile why 281474976710663", 1, "the connection was not here"),
    ("sessile why JSESSIONID=31d4f6 --json", 1, "the cookie is not known"),
    ("sessile why JSESSIONID=31d4f6", 1, "the cookie is not known"),
    ("sessile plan --live --without web/web2 --max-move 5% --json", 1, "more clients would move"),
    ("sessile plan --live --without web/web2 --max-move 5%", 1, "more clients would move"),
    ("sessile log reopen", 64, "the log goes to standard output there, and a file alone is opened anew"),
    ("sessile log reopen --socket /run/sessile/admin.sock", 64, "the same"),
];

/// Fences that are tried at the same time.
const LANES: usize = 3;

/// A fenced block of a document.
struct Fence {
    /// Document and line.
    place: String,
    /// The word behind its first mark.
    word: String,
    text: String,
}

impl Fence {
    /// All commands, each with the lines on which it goes on, but without a comment behind it.
    fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        let mut command = String::new();
        for line in self.text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let line = line.split(" #").next().unwrap_or_default().trim_end();
            command += line;
            if ["\\", "&&", "||", "|"].iter().any(|open| line.ends_with(open)) {
                command += "\n";
            } else if !line.is_empty() {
                commands.push(std::mem::take(&mut command));
            }
        }
        assert!(command.is_empty(), "{}: not complete: {command}", self.place);
        commands
    }

    /// Commands to run here.
    fn to_run(&self) -> Vec<String> {
        let is_elsewhere = |command: &str| ELSEWHERE.iter().any(|(known, ..)| *known == command);
        self.commands().into_iter().filter(|command| !is_elsewhere(command)).collect()
    }

    /// Runs every command in order; an error names the command and has what it said.
    fn try_out(&self, config: &str) -> Result<(), String> {
        let commands = self.to_run();
        let state = if commands.iter().any(|command| command.contains("install ")) {
            State::Bare
        } else if commands.iter().any(|command| serves(command)) {
            State::Installed
        } else {
            State::Serving
        };
        let mut machine = Machine::start(state, config);
        for command in &commands {
            let done = if serves(command) {
                machine.serve(command).and_then(|()| is_answered(&machine, command))
            } else if follows(command) {
                succeeds(&machine, &format!("timeout --signal=INT 1 {command}; [[ $? =~ ^(0|124)$ ]]"))
            } else {
                let other = OTHER_CODES.iter().find(|(known, ..)| known == command);
                ends_with(&machine, command, other.map_or(0, |(_, code, _)| *code))
            };
            done.map_err(|why| format!("{}: {command}\n{why}", self.place))?;
        }
        machine.stop().map_err(|why| format!("{}: {why}", self.place))
    }
}

/// True for a command that goes on serving.
fn serves(command: &str) -> bool {
    command.contains("sessile run ") && !command.contains("--print-config")
}

/// True for a command that shows what happens until its reader has seen enough.
fn follows(command: &str) -> bool {
    command.split_whitespace().any(|word| word == "--follow")
}

fn succeeds(machine: &Machine, command: &str) -> Result<(), String> {
    ends_with(machine, command, 0)
}

fn ends_with(machine: &Machine, command: &str, code: i32) -> Result<(), String> {
    let output = machine.run(command);
    let said = [output.stdout, output.stderr].concat();
    let is_so = output.status.code() == Some(code);
    if is_so { Ok(()) } else { Err(format!("{}: {}", output.status, String::from_utf8_lossy(&said))) }
}

/// Requires that a client of a service that was started by one line gets the answer of a backend.
fn is_answered(machine: &Machine, command: &str) -> Result<(), String> {
    let Some(port) = command.split("--listen ").nth(1).and_then(|rest| rest.split_whitespace().next()) else {
        return Ok(());
    };
    let scheme = if command.contains("--tls-cert") { "https" } else { "http" };
    succeeds(machine, &format!("curl -ksSf {scheme}://localhost:{port}/ | grep '^backend '"))
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and the texts of the manual.
fn documents() -> Vec<PathBuf> {
    let files = fs::read_dir(repository().join("src/cli/help")).unwrap().map(|entry| entry.unwrap().path());
    let mut texts: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect();
    texts.push(repository().join("README.md"));
    texts.sort();
    texts
}

fn fences_of(document: &Path) -> Vec<Fence> {
    let text = fs::read_to_string(document).unwrap();
    let name = document.strip_prefix(repository()).unwrap_or(document).display();
    let mut fences = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if let Some(word) = line.strip_prefix("```") {
            let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| !line.starts_with("```"));
            let text = inside.flat_map(|line| [line, "\n"]).collect();
            fences.push(Fence { place: format!("{name}:{number}"), word: word.to_owned(), text });
        }
    }
    fences
}

fn fences() -> Vec<Fence> {
    documents().iter().flat_map(|document| fences_of(document)).collect()
}

/// Fences with commands.
fn scripts() -> Vec<Fence> {
    fences().into_iter().filter(|fence| fence.word == "sh").collect()
}

/// The configuration that the manual shows first; its commands name backends of it.
fn shown_config() -> String {
    let fences = fences_of(&repository().join("src/cli/help/config.md"));
    fences.into_iter().find(|fence| fence.word == "toml").expect("a configuration").text
}

fn is_possible(test: &str) -> bool {
    is_root(test) && ["bash", "curl", "ip", "nsenter", "unshare"].iter().all(|program| has(test, program))
}

#[test]
fn every_command_of_the_documents_runs_as_it_stands() {
    if !is_possible("every_command_of_the_documents_runs_as_it_stands") {
        return;
    }
    let scripts: Vec<_> = scripts().into_iter().filter(|fence| !fence.to_run().is_empty()).collect();
    assert!(scripts.len() > 12, "{} fences", scripts.len());
    let config = shown_config();
    let (next, failures) = (Mutex::new(scripts.iter()), Mutex::new(Vec::new()));
    let take = || next.lock().unwrap().next();
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(fence) = take() {
                    if let Err(failure) = fence.try_out(&config) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_command_that_fails_is_named_with_its_place() {
    if !is_possible("a_command_that_fails_is_named_with_its_place") {
        return;
    }
    for (text, says) in [
        ("sessile check sessile.toml\nsessile check none.toml  # is missing", "none.toml: No such file"),
        ("sessile run --listen 8080 --backend nowhere\nsessile status", "--backend 1: "),
        ("sudo apt install ./another_*.deb", "exit status: 100"),
        ("sessile status --follow", "exit status: 1"),
        ("sessile run --listen 8080 --backend 127.0.0.1:1\nsessile status", "exit status: 1"),
    ] {
        let fence = Fence { place: "a text:7".into(), word: "sh".into(), text: text.into() };
        let failure = fence.try_out(&shown_config()).expect_err("a failure");
        assert!(failure.starts_with("a text:7: s") && failure.contains(says), "{failure}");
    }
}

#[test]
fn commands_that_go_on_are_ended_and_a_line_may_go_on() {
    if !is_possible("commands_that_go_on_are_ended_and_a_line_may_go_on") {
        return;
    }
    let text =
        "tail --follow clients.txt   # a file\nsudo sessile \\\n    status &&\n  cat sessile.toml |\n  grep web1\n";
    let fence = Fence { place: "a text".into(), word: "sh".into(), text: text.into() };
    assert_eq!(fence.commands().len(), 2);
    assert_eq!(fence.try_out(&shown_config()), Ok(()));
}

#[test]
fn commands_that_run_elsewhere_are_shown_and_run_there() {
    let shown: BTreeSet<_> = scripts().iter().flat_map(Fence::commands).collect();
    for (command, _, why) in OTHER_CODES {
        assert!(shown.contains(*command), "no document shows: {command} ({why})");
    }
    for (command, why, file) in ELSEWHERE {
        assert!(shown.contains(command), "no document shows: {command} ({why})");
        let text = fs::read_to_string(repository().join(file)).expect(file);
        let program = command.split(' ').next().unwrap();
        assert!(text.contains(program), "{file} does not run {program}");
    }
}

/// No command hides behind another word: whatever is none is a file, or a picture.
#[test]
fn every_fence_says_what_it_holds() {
    for fence in fences() {
        let is_known = match &*fence.word {
            "" => fence.text.contains('▶'),
            word => ["sh", "toml", "yaml", "json"].contains(&word),
        };
        assert!(is_known, "{}: `{}`", fence.place, fence.word);
    }
}

#[test]
fn manual_pages_show_every_command_of_the_manual() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(&["man", dir.path().to_str().unwrap()]).status.success());
    let pages = fs::read_dir(dir.path()).unwrap().map(|page| fs::read_to_string(page.unwrap().path()).unwrap());
    let pages = pages.collect::<String>().replace("\\-", "-").replace("\\\\", "\\");
    for fence in scripts().iter().filter(|fence| !fence.place.starts_with("README")) {
        for line in fence.text.lines() {
            assert!(pages.lines().any(|shown| shown == line), "{}: {line}", fence.place);
        }
    }
}
