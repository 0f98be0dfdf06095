//! Tests of the commands as typed: output and exit code.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use clap::CommandFactory;

use super::*;

/// Parses a command line as typed.
pub(super) fn parse(line: &str) -> Result<Command, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace()).map(|arguments| arguments.command)
}

/// Runs a command line: its output, and its exit code or error.
fn run(line: &str) -> (String, Result<u8, CommandError>) {
    let mut out = Vec::new();
    let result = parse(line).unwrap().print(&mut out);
    (String::from_utf8(out).unwrap(), result)
}

/// Serves one prepared response; the thread returns the request.
pub(super) fn answering(folder: &Path, code: &str, body: &str) -> (PathBuf, thread::JoinHandle<Vec<String>>) {
    answering_each(folder, vec![(code.to_owned(), body.to_owned())])
}

/// Serves one prepared response per connection; the thread returns the requests.
pub(super) fn answering_each(
    folder: &Path,
    answers: Vec<(String, String)>,
) -> (PathBuf, thread::JoinHandle<Vec<String>>) {
    let socket = folder.join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = move |(code, body): (String, String)| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let length = io::Read::read(&mut stream, &mut request).unwrap();
        write!(stream, "HTTP/1.0 {code}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    };
    let thread = thread::spawn(move || answers.into_iter().map(answer).collect());
    (socket, thread)
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn commands_are_understood() {
    for line in [
        "sessile run --config f.toml",
        "sessile run --fresh --config f.toml",
        "sessile run",
        "sessile run -c f.toml",
        "sessile run --listen 8080 --backend 127.0.0.1:9000 --backend 127.0.0.1:9001 --print-config",
        "sessile run --listen :1 --backend b:1 --sticky source --http --tls-cert c --tls-key k --socket off --fresh",
        "sessile run --listen :1 --listen :2 --backend b:1 --sticky cookie --cookie-keys k",
        "sessile check f.toml --json",
        "sessile check",
        "sessile check -c f.toml",
        "sessile explain -c f.toml --client ::1",
        "sessile explain --client ::1",
        "sessile plan new.toml",
        "sessile plan -c old.toml new.toml",
        "sessile drain p/b -c f.toml",
        "sessile upgrade -c f.toml",
        "sessile explain --config f.toml --client ::1 --client 10.0.0.1 --sni a --alpn h2 --down a --down p/b --json",
        "sessile explain --config f.toml --client - --listener l --tlv 0xE0=v",
        "sessile reload --socket /tmp/s --json",
        "sessile status --config f.toml --json",
        "sessile status",
        "sessile certs dev",
        "sessile certs dev --dir d --name a --name b --json",
        "sessile demo",
        "sessile demo --once",
        "sessile demo --backends",
        "sessile demo --backends -c f.toml --config g.toml",
        "sessile completions zsh",
        "sessile man",
        "sessile man pages",
        "sessile help",
        "sessile help certs dev",
        "sessile status --names",
        "sessile events",
        "sessile events -f --after 7 --kind down --kind up --pool p --json -c f.toml",
        "sessile why 192.0.2.1",
        "sessile why SID=31d4 --json --socket s",
        "sessile top",
        "sessile top --interval 3600 --once -c f.toml",
        "sessile top --json --socket s",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for line in [
        "sessile",
        "sessile run f.toml",
        "sessile run --listen :1",
        "sessile run --backend b:1",
        "sessile run --print-config",
        "sessile run --sticky cookie",
        "sessile run --listen :1 --backend b:1 --sticky ip",
        "sessile run --listen :1 --backend b:1 --tls-key k",
        "sessile reload --socket s --config f",
        "sessile completions tea",
        "sessile demo --config f.toml",
        "sessile demo --backends --once",
        "sessile status --names --json",
        "sessile events --after x",
        "sessile why",
        "sessile top --once --json",
        "sessile top --interval 0.5",
        "sessile top --interval 3601",
    ] {
        assert!(parse(line).unwrap_err().use_stderr(), "{line}");
    }
    for argument in ["--listen :1 --backend b:1", "--listen :1", "--backend b:1"] {
        let refused = parse(&format!("sessile run -c f.toml {argument}")).unwrap_err().to_string();
        assert!(refused.contains("--config") && refused.contains("cannot be used with"), "{refused}");
    }
    assert!(!parse("sessile --version").unwrap_err().use_stderr());
}

#[test]
fn a_refused_file_shows_every_problem_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "bogus = 1\nworkers = \"many\"\n").unwrap();
    let name = file.display();
    let (text, result) = run(&format!("sessile check {name}"));
    assert!(matches!(result, Ok(EXIT_USAGE)));
    assert!(text.contains(&format!("{name}:1:1: ")) && text.contains(&format!("{name}:2:")), "{text}");
    assert!(text.contains(&format!("{name}: refused for ")), "{text}");

    let (json, result) = run(&format!("sessile check {name} --json"));
    assert!(matches!(result, Ok(EXIT_USAGE)));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["accepted"], false);
    assert_eq!((&report["problems"][0]["line"], &report["problems"][0]["column"]), (&1.into(), &1.into()));

    let (_, result) = run(&format!("sessile explain --config {name} --client ::1"));
    let failure = result.unwrap_err();
    assert_eq!(failure.code(), EXIT_USAGE);
    assert!(failure.to_string().contains(&format!("\n{name}:1:1: ")), "{failure}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (_, result) = run("sessile check /nonexistent/s.toml");
    let failure = result.unwrap_err();
    assert_eq!(failure.code(), EXIT_USAGE);
    assert_eq!(failure.to_string(), "/nonexistent/s.toml: No such file or directory (os error 2)");
}

#[test]
fn nobody_answering_is_another_exit_code_than_a_refusal() {
    let mut commands = vec!["reload", "status", "events", "why 192.0.2.1"];
    commands.extend(cfg!(feature = "top").then_some("top"));
    for command in commands {
        let (_, result) = run(&format!("sessile {command} --socket /nonexistent/admin.sock"));
        assert_eq!(result.unwrap_err().code(), EXIT_UNAVAILABLE);
    }
}

#[test]
fn reload_prints_the_verdict_and_fails_when_refused() {
    let verdict = |accepted: bool| {
        serde_json::to_string(&crate::admin::ReloadVerdict { accepted, generation: 3, ..Default::default() }).unwrap()
    };
    for (code, accepted, exit) in [("200 OK", true, 0), ("409 Conflict", false, EXIT_USAGE)] {
        let folder = tempfile::tempdir().unwrap();
        let (socket, served) = answering(folder.path(), code, &verdict(accepted));
        let (text, result) = run(&format!("sessile reload --socket {}", socket.display()));
        assert_eq!(result.unwrap(), exit);
        assert!(text.starts_with(if accepted { "accepted: generation 3" } else { "refused: generation 3" }), "{text}");
        assert!(served.join().unwrap()[0].starts_with("POST /reload HTTP/1.0\r\n"));
    }
}

#[test]
fn status_prints_a_table_or_what_the_process_answered() {
    let status = crate::metrics::Status { version: "9.9.9".into(), ready: true, ..Default::default() };
    let body = serde_json::to_string(&status).unwrap();
    for (option, begins) in [("", "sessile 9.9.9, ready, "), ("--json", "{")] {
        let folder = tempfile::tempdir().unwrap();
        let mut answers = vec![("200 OK".to_owned(), body.clone()), ("200 OK".to_owned(), "[]".to_owned())];
        answers.truncate(if option.is_empty() { 2 } else { 1 });
        let (socket, served) = answering_each(folder.path(), answers);
        let (text, result) = run(&format!("sessile status --socket {} {option}", socket.display()));
        assert_eq!(result.unwrap(), 0);
        assert!(text.starts_with(begins), "{text}");
        assert!(served.join().unwrap()[0].starts_with("GET /status HTTP/1.0\r\n"));
    }
}

#[test]
fn an_answer_that_is_not_understood_is_our_failure() {
    for (code, body) in [("200 OK", "[]"), ("500 Internal Server Error", "oops")] {
        let folder = tempfile::tempdir().unwrap();
        let (socket, served) = answering(folder.path(), code, body);
        let (_, result) = run(&format!("sessile reload --socket {}", socket.display()));
        assert_eq!(result.unwrap_err().code(), EXIT_INTERNAL);
        served.join().unwrap();
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    assert_eq!(CommandError::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(), 0);
    assert_eq!(CommandError::from(io::Error::from(io::ErrorKind::StorageFull)).code(), EXIT_INTERNAL);
}

#[test]
fn completions_and_the_manual_know_every_command() {
    for line in ["sessile completions bash", "sessile man"] {
        let (text, result) = run(line);
        assert_eq!(result.unwrap(), 0);
        for command in ["run", "check", "explain", "reload", "status", "events", "why", "top", "demo"] {
            assert!(text.contains(command), "{line}: {command}");
        }
    }
}
