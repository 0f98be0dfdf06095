//! The manual as a user meets it: pages that other programs read, and completions in a shell.
//!
//! What the texts say is tested beside them, in `src/cli/help/tests.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::backend::{Backend, listener, pool};
use crate::support::sessile::run;
use crate::support::{Sessile, has};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every manual page, in a folder that `sessile man` has made.
fn pages() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("share/man");
    let output = run(&["man", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    let mut pages: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(text(&output).ends_with(&format!("{} pages\n", pages.len())), "{}", text(&output));
    (dir, pages)
}

#[test]
fn there_is_a_page_for_every_command_the_file_and_every_topic() {
    let (_dir, pages) = pages();
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
    for name in ["sessile.1", "sessile-run.1", "sessile-certs-dev.1", "sessile.toml.5", "sessile-stickiness.7"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let help = String::from_utf8(run(&["help"]).stdout).unwrap();
    let listed = |after: &str| {
        let lines =
            help.lines().skip_while(|line| !line.starts_with(after)).skip(1).take_while(|line| !line.is_empty());
        let words = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        words.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (commands, topics) = (listed("Commands:"), listed("Topics "));
    assert!(commands.len() > 12 && topics.len() > 9, "{help}");
    for command in commands {
        assert!(names.contains(&&*format!("sessile-{command}.1")), "{command}");
    }
    for topic in topics.iter().filter(|topic| !["config", "reference"].contains(&topic.as_str())) {
        assert!(names.contains(&&*format!("sessile-{topic}.7")), "{topic}");
    }
    let file = std::fs::read_to_string(pages.iter().find(|page| page.ends_with("sessile.toml.5")).unwrap()).unwrap();
    assert!(file.contains("stick_table_interval"), "the page of the file has every key");
}

/// The complaints of a program that formats manual pages.
fn complaints(program: &str, arguments: &[&str], page: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(page).output().unwrap();
    text(&output)
}

#[test]
fn groff_formats_every_page_without_a_warning() {
    if !has("groff_formats_every_page_without_a_warning", "groff") {
        return;
    }
    let arguments = ["-man", "-ww", "-Tascii", "-z"];
    let (dir, pages) = pages();
    for page in &pages {
        let said = complaints("groff", &arguments, page);
        assert!(said.is_empty(), "{}: {said}", page.display());
    }
    let broken = dir.path().join("broken.1");
    std::fs::write(&broken, ".TH broken 1\n.SH NAME\n.NOSUCH\n").unwrap();
    assert!(!complaints("groff", &arguments, &broken).is_empty(), "the test sees no mistake");
}

#[test]
fn mandoc_formats_every_page_without_an_error() {
    if !has("mandoc_formats_every_page_without_an_error", "mandoc") {
        return;
    }
    let (_dir, pages) = pages();
    for page in &pages {
        let said = complaints("mandoc", &["-Tlint", "-Werror"], page);
        assert!(said.is_empty(), "{}: {said}", page.display());
    }
}

/// A folder with the binary under its name, and the completions of a shell.
fn completions(shell: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sessile"), dir.path().join("sessile")).unwrap();
    let script = dir.path().join("completions");
    let output = run(&["completions", shell]);
    assert!(output.status.success(), "{}", text(&output));
    std::fs::write(&script, output.stdout).unwrap();
    (dir, script)
}

/// What bash offers for the last of some words.
fn completed(words: &[&str]) -> Vec<String> {
    let (dir, script) = completions("bash");
    // The function that `complete` has registered is called as bash does: command, word, word before.
    let call = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        function=$(complete -p sessile | sed 's/.*-F \([^ ]*\).*/\1/')
        compopt() { :; }
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", call, "bash"]).arg(&script).args(words).env("PATH", path);
    let output = bash.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_topics() {
    if !has("bash_completes_commands_options_and_topics", "bash") {
        return;
    }
    assert_eq!(completed(&["sessile", "sta"]), ["status"]);
    assert_eq!(completed(&["sessile", "plan", "--max"]), ["--max-move"]);
    assert_eq!(completed(&["sessile", "help", "stick"]), ["stickiness"]);
    assert!(completed(&["sessile", "help", ""]).contains(&"migrate".to_owned()));
}

#[test]
fn bash_completes_backends_of_the_running_process_and_is_quiet_without_one() {
    if !has("bash_completes_backends_of_the_running_process_and_is_quiet_without_one", "bash") {
        return;
    }
    let backends = [Backend::named("a"), Backend::named("b")];
    let sessile = Sessile::start(&(listener("web", "") + &pool("web", "", &backends.each_ref().map(|b| b.address))));
    let socket = sessile.admin();
    let socket = socket.to_str().unwrap();
    let names = completed(&["sessile", "drain", "--socket", socket, "web/"]);
    let shown = String::from_utf8(run(&["status", "--names", "--socket", socket]).stdout).unwrap();
    assert_eq!(names, shown.lines().collect::<Vec<_>>());
    assert!(names.len() == 2 && names.iter().all(|name| name.starts_with("web/")), "{names:?}");
    assert_eq!(completed(&["sessile", "explain", "--config", sessile.file().to_str().unwrap(), "--down", ""]), names);
    assert_eq!(completed(&["sessile", "plan", "--live", "--socket", socket, "--without", "web/"]), names);

    let nothing = sessile.dir.path().join("nothing.sock");
    assert_eq!(completed(&["sessile", "drain", "--socket", nothing.to_str().unwrap(), "web/"]), [""; 0]);
}

#[test]
fn other_shells_can_read_their_completions() {
    for shell in ["zsh", "fish"] {
        if has("other_shells_can_read_their_completions", shell) {
            let (_dir, script) = completions(shell);
            let output = Command::new(shell).arg("-n").arg(&script).output().unwrap();
            assert!(output.status.success() && text(&output).is_empty(), "{shell}: {}", text(&output));
        }
    }
}
