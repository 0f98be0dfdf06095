//! The demo: it keeps its promises, and however it ends it leaves nothing behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::backend::listener;
use crate::support::program::free_address;
use crate::support::{has, http};

/// Starts it with a folder of its own for temporary files.
fn demo(temporary: &Path) -> Command {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_sessile"));
    demo.arg("demo").env("TMPDIR", temporary).stdin(Stdio::null()).stdout(Stdio::piped());
    demo
}

#[test]
fn the_demo_keeps_every_promise() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path()).arg("--once").stderr(Stdio::piped()).output().unwrap();
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    for title in [
        "1. IP hash",
        "2. Consistent ring",
        "3. Consistent ring, one backend added",
        "4. Round robin",
        "5. One backend killed",
        "6. One backend back",
        "7. Ways to keep users logged in",
    ] {
        assert!(text.lines().any(|line| line == title), "{title}: {text}");
    }
    assert!(text.contains("✓") && !text.contains("✗") && text.trim_end().ends_with("all kept."), "{text}");
    assert!(!text.contains('\x1b'), "standard output is no terminal: {text}");
    let paths = temporary.path().to_str().unwrap();
    let wide = text.lines().find(|line| line.chars().count() > 100 && !line.contains(paths));
    assert_eq!(wide, None);
    assert!(is_empty(temporary.path()));
    if STORES.iter().any(|store| has("the_demo_keeps_every_promise", store)) {
        let shown = include_str!("../../src/cli/help/stickiness.md").lines().filter_map(|line| row_of(line, "|"));
        let shown: Vec<_> = shown.skip_while(|(title, _)| *title != "IP hash").take(WAYS).collect();
        let counted = text.lines().skip_while(|line| !line.contains("HAD TO LOG IN AGAIN"));
        let counted: Vec<_> = counted.filter_map(|line| row_of(line, "  ")).take(WAYS).collect();
        assert_eq!(shown.len(), WAYS);
        for (shown, counted) in shown.iter().zip(&counted) {
            assert!(
                shown.0.starts_with(counted.0) && shown.1 == counted.1,
                "the manual has {shown:?}, not {counted:?}"
            );
        }
    }
}

/// Programs that the demo takes as a store.
const STORES: [&str; 2] = ["redis-server", "valkey-server"];

/// Ways to keep users logged in, where there is a store.
const WAYS: usize = 7;

/// The title of a row of a table, and its five numbers; `None`: the line has other cells.
fn row_of<'l>(line: &'l str, between: &str) -> Option<(&'l str, [usize; 5])> {
    let cells: Vec<_> = line.split(between).map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let (title, numbers) = cells.split_first()?;
    let numbers: Vec<_> = numbers.iter().map(|number| number.parse().ok()).collect::<Option<_>>()?;
    Some((*title, numbers.try_into().ok()?))
}

#[test]
fn without_a_store_the_demo_says_what_it_lacks() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, programs) = (temporary.path().join("tmp"), temporary.path().join("bin"));
    [&folder, &programs].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let output = demo(&folder).arg("--once").env("PATH", programs).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains('✗'), "{text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("There is no redis-server or valkey-server on this machine: replicated sessions"), "{text}");
    assert!(words.contains("the balancers share neither learned cookies nor stick tables."), "{text}");
    assert!(words.contains("ring with stick table 0 ") && !words.contains("ring, shared stick table"), "{text}");
    assert!(is_empty(&folder));
}

#[test]
fn after_its_scenarios_the_demo_serves_until_it_is_interrupted() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(temporary.path()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    let balancer = balancer_in(&read_until(&mut lines, "Before them sessile"));
    read_until(&mut lines, "The balancer goes on serving until Ctrl-C.");
    let to_try = read_until(&mut lines, "curl http://");
    let address = to_try.trim_start().trim_start_matches("curl http://").split(' ').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\r\n\r\nbackend "), "{answer}");
    assert_eq!(end(&mut demo, Signal::INT), Some(0));
    assert!(test_kill_process(balancer).is_err(), "the balancer is still there");
    assert!(is_empty(temporary.path()));
}

#[test]
fn a_demo_ended_in_the_middle_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let temporary = tempfile::tempdir().unwrap();
        let mut demo = demo(temporary.path()).spawn().unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap());
        let balancer = balancer_in(&read_until(&mut lines, "Before them sessile"));
        assert_eq!(end(&mut demo, signal), Some(130));
        assert!(test_kill_process(balancer).is_err(), "the balancer is still there");
        assert!(is_empty(temporary.path()));
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_demo_without_a_word() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(temporary.path()).stderr(Stdio::piped()).spawn().unwrap();
    drop(demo.stdout.take());
    let output = demo.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(is_empty(temporary.path()));
}

#[test]
fn backends_alone_serve_until_ctrl_c_and_leave_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, tcp) = (folder.path().join("run/a.sock"), free_address());
    let file = backends_of(folder.path(), &["10.0.0.1:80", &format!("unix:{}", socket.display()), &tcp.to_string()]);
    let mut demo = demo(folder.path()).args(["--backends", "-c"]).arg(file).current_dir(&folder).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap());
    let refused = read_until(&mut lines, "not started: ");
    assert_eq!(refused, "not started: pool \"p\": backend \"b0\": 10.0.0.1:80 is not a loopback address\n");
    read_until(&mut lines, "No client trusts their certificates");
    read_until(&mut lines, "2 backends, serving until Ctrl-C.");
    let over_unix = http::unix_get(&socket, "/").unwrap();
    let over_tcp = http::exchange(TcpStream::connect(tcp).unwrap(), "GET", "/").unwrap();
    assert_eq!(
        [over_unix, over_tcp],
        ["b1", "b2"].map(|name| (200, format!("backend {name}, answer 1 since it started\n")))
    );
    assert_eq!(end(&mut demo, Signal::INT), Some(0));
    assert!(!socket.exists());
}

#[test]
fn without_an_address_of_this_machine_there_are_no_backends() {
    let folder = tempfile::tempdir().unwrap();
    let file = backends_of(folder.path(), &["192.0.2.1:80"]);
    let output = demo(folder.path()).args(["--backends", "-c"]).arg(file).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(64), &b""[..]));
    let said = String::from_utf8(output.stderr).unwrap();
    let refused =
        "sessile: demo: no backend was started\npool \"p\": backend \"b0\": 192.0.2.1:80 is not a loopback address";
    assert!(said.starts_with(refused), "{said}");
}

/// A configuration with these backends.
fn backends_of(folder: &Path, addresses: &[&str]) -> PathBuf {
    let backends =
        addresses.iter().enumerate().map(|(n, address)| format!("{{ name = \"b{n}\", address = \"{address}\" }}"));
    let backends: Vec<_> = backends.collect();
    let text = listener("p", "") + &format!("[[pool]]\nname = \"p\"\nbackend = [{}]\n", backends.join(", "));
    let file = folder.join("sessile.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn read_until(lines: &mut BufReader<ChildStdout>, begins: &str) -> String {
    let mut line = String::new();
    while !line.trim_start().starts_with(begins) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the demo ended before {begins:?}");
    }
    line
}

/// "Before them sessile, process 123, …".
fn balancer_in(line: &str) -> Pid {
    let number = line.split("process ").nth(1).and_then(|rest| rest.split(',').next());
    Pid::from_raw(number.unwrap().parse().unwrap()).unwrap()
}

fn end(demo: &mut Child, signal: Signal) -> Option<i32> {
    kill_process(Pid::from_child(demo), signal).unwrap();
    demo.wait().unwrap().code()
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().unwrap().next().is_none()
}
