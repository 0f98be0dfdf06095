//! Every exit code that the manual page of a command has, from the real binary; and none that it has not.
//!
//! A full disk (`/dev/full` as standard output) is the failure of sessile itself.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Sessile;
use crate::support::backend::{Backend, listener, pool};
use crate::support::program::free_address;
use crate::support::sessile::{command, run};

/// Codes in the pages of all commands, as `(command, code)`.
fn documented(folder: &Path) -> BTreeSet<(String, i32)> {
    let output = run(&["man", folder.to_str().unwrap()]);
    assert!(output.status.success());
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(command) = name.strip_prefix("sessile-").and_then(|name| name.strip_suffix(".1")) else { continue };
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.contains(".SH EXAMPLES"), "{name} has no examples");
        let codes = page.lines().skip_while(|line| !line.contains("EXIT STATUS")).skip(1);
        let codes = codes.take_while(|line| !line.starts_with(".SH"));
        let codes = codes.filter_map(|line| line.split_whitespace().next()?.parse().ok());
        all.extend(codes.map(|code| (command.replace('-', " "), code)));
    }
    all
}

/// What was seen of the exit codes.
#[derive(Default)]
struct Seen(BTreeSet<(String, i32)>);

impl Seen {
    /// Runs a command line; `words` are the command, the rest its arguments.
    fn expect(&mut self, code: i32, words: &str, arguments: &[&str]) {
        let line: Vec<_> = words.split(' ').chain(arguments.iter().copied()).collect();
        let output = command(&line).output().expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line:?}: {said}");
        let is_said = !said.is_empty() || !output.stdout.is_empty();
        assert!(if code > 1 { is_said } else { said.is_empty() }, "{line:?}: {said}");
        self.0.insert((words.to_owned(), code));
    }

    /// The same, where standard output is on a full disk.
    fn expect_full_disk(&mut self, words: &str, arguments: &[&str]) {
        let line: Vec<_> = words.split(' ').chain(arguments.iter().copied()).collect();
        let full = File::create("/dev/full").expect("/dev/full");
        let output = command(&line).stdout(full).output().expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{line:?}: {said}");
        assert!(said.contains("standard output"), "{line:?}: {said}");
        self.0.insert((words.to_owned(), 70));
    }

    /// Interrupts a command once it has printed a line.
    fn expect_interrupted(&mut self, code: i32, words: &str, arguments: &[&str]) {
        let line: Vec<_> = words.split(' ').chain(arguments.iter().copied()).collect();
        let mut child = command(&line).stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut String::new()).expect("a line");
        kill_process(Pid::from_child(&child), Signal::INT).expect("the process is there");
        std::io::copy(&mut out, &mut std::io::sink()).expect("the rest");
        assert_eq!(child.wait().expect("the process is ours").code(), Some(code), "{line:?}");
        self.0.insert((words.to_owned(), code));
    }
}

#[test]
fn every_documented_exit_code_is_one_that_the_command_returns() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let documented = documented(&folder.path().join("man"));

    let backends = ["b0", "b1", "b2"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &addresses)));
    let socket = sessile.admin().to_str().unwrap().to_owned();
    let socket = socket.as_str();
    let front = sessile.address("l");
    for n in 1..=50 {
        crate::support::load_support::Client::connect_from([127, 5, 0, n].into(), front).ask("x");
    }
    let (good, smaller, bad) = (at("good.toml"), at("smaller.toml"), at("bad.toml"));
    let file =
        |addresses: &[_]| format!("[admin]\nsocket = \"off\"\n{}{}", listener("p", ""), pool("p", "", addresses));
    fs::write(&good, file(&addresses)).unwrap();
    fs::write(&smaller, file(&addresses[..2])).unwrap();
    fs::write(&bad, "bogus = 1\n").unwrap();
    let (good, smaller, bad, nowhere) = (&*good, &*smaller, &*bad, &*at("nowhere.sock"));
    let mut seen = Seen::default();

    // Commands that need no process.
    let serve = ["--print-config", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:9"];
    seen.expect(0, "run", &serve);
    seen.expect(64, "run", &["--config", bad]);
    seen.expect_full_disk("run", &serve);
    for (words, arguments) in [("help", &["plan"][..]), ("completions", &["bash"]), ("man", &[])] {
        seen.expect(0, words, arguments);
        seen.expect_full_disk(words, arguments);
    }
    seen.expect(64, "help", &["tea"]);
    seen.expect(64, "completions", &["tea"]);
    seen.expect(64, "man", &["/dev/null/pages"]);
    let certs = at("certs");
    for words in ["certs", "certs dev"] {
        let arguments = if words == "certs" { vec!["dev", "--dir", &certs] } else { vec!["--dir", &certs] };
        seen.expect(0, words, &arguments);
        seen.expect(64, words, &[&arguments[..], &["--tea"]].concat());
        seen.expect_full_disk(words, &arguments);
    }
    let served = free_address();
    let backends_of = at("backends.toml");
    fs::write(&backends_of, file(&[served])).unwrap();
    seen.expect_interrupted(0, "demo", &["--backends", "--config", &backends_of]);
    seen.expect_interrupted(130, "demo", &["--once"]);
    seen.expect(64, "demo", &["--tea"]);
    seen.expect_full_disk("demo", &["--backends", "--config", &backends_of]);

    // Commands that ask a process, or may.
    let live = ["--live", "--without", "p/b0"];
    for (words, arguments, refused) in [
        ("check", &[good, "--live"][..], &[bad][..]),
        ("explain", &["--live", "--client", "192.0.2.1"], &["--live", "--client", "nobody"]),
        ("plan", &live, &["--live", "--without", "p/b9"]),
        ("reload", &[], &["--max-move", "x"]),
        ("drain", &["p/b0"], &["p/b9"]),
        ("ready", &["p/b0", "--json"], &["p/b9", "--json"]),
        ("close", &["p/b1"], &["b1"]),
        ("backend", &["weight", "p/b0", "1"], &["weight", "p/b9", "1"]),
        ("backend add", &["p/b8", "127.0.0.1:9"], &["p/b9", "127.0.0.1"]),
        ("backend weight", &["p/b8", "2"], &["p/b8", "heavy"]),
        ("backend address", &["p/b8", "default"], &["p/b9", "default"]),
        ("backend remove", &["p/b8"], &["p/b9"]),
        ("save", &[good], &[bad]),
        ("status", &[], &["--tea"]),
        ("events", &[], &["--kind", "tea"]),
        ("why", &["127.5.0.1"], &[""]),
        ("top", &["--once"], &["--interval", "0"]),
    ] {
        let with = |arguments: &[&str], socket: &str| -> Vec<String> {
            arguments.iter().copied().chain(["--socket", socket]).map(str::to_owned).collect()
        };
        let of = |all: &[String]| -> Vec<String> { all.to_vec() };
        let (here, there, refused) = (with(arguments, socket), with(arguments, nowhere), with(refused, socket));
        for (code, line) in [(0, of(&here)), (64, of(&refused)), (69, of(&there))] {
            seen.expect(code, words, &line.iter().map(String::as_str).collect::<Vec<_>>());
        }
        seen.expect_full_disk(words, &here.iter().map(String::as_str).collect::<Vec<_>>());
    }
    seen.expect(1, "plan", &[&live[..], &["--max-move", "1%", "--socket", socket]].concat());
    seen.expect(1, "plan", &["--max-move", "1%", good, smaller]);
    seen.expect(1, "why", &["192.0.2.9", "--socket", socket]);

    let logged =
        format!("[log]\noutput = \"{}\"\n{}{}", at("access.log"), listener("p", ""), pool("p", "", &addresses));
    let logging = Sessile::start(&logged);
    let its_socket = logging.admin().to_str().unwrap().to_owned();
    for (words, command) in [("log reopen", &[][..]), ("log", &["reopen"])] {
        seen.expect(0, words, &[command, &["--socket", &its_socket]].concat());
        seen.expect(64, words, &[command, &["--tea"]].concat());
        seen.expect(69, words, &[command, &["--socket", nowhere]].concat());
        seen.expect_full_disk(words, &[command, &["--socket", &its_socket]].concat());
    }

    seen.expect(64, "upgrade", &["/bin/false", "--socket", socket]);
    seen.expect(69, "upgrade", &["--socket", nowhere]);
    seen.expect_full_disk("upgrade", &["/bin/false", "--socket", socket]);
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    seen.0.insert(("upgrade".to_owned(), 0));

    let missing: Vec<_> = documented.difference(&seen.0).collect();
    assert!(missing.is_empty(), "documented, and no line of this test provokes them: {missing:?}");
    let more: Vec<_> = seen.0.difference(&documented).collect();
    assert!(more.is_empty(), "returned, and not in the manual page: {more:?}");
}

#[test]
fn an_unknown_command_is_wrong_usage_and_help_is_none() {
    let code = |line: &[&str]| Command::new(env!("CARGO_BIN_EXE_sessile")).args(line).output().unwrap().status.code();
    assert_eq!(
        [code(&["tea"]), code(&[]), code(&["--help"]), code(&["--version"])],
        [Some(64), Some(64), Some(0), Some(0)]
    );
}
