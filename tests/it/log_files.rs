//! Files of the log and those beside it: what begins on a line of its own, and what a refused configuration leaves.

use std::fs;
use std::path::Path;

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::sessile::{command, run};
use crate::support::{Sessile, eventually, logfmt};

/// The whole lines of a file that are lines of connections.
fn connections(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| line.contains(" kind=connection ")).map(logfmt::read).count()
}

fn connect(sessile: &Sessile, file: &Path, count: usize) {
    assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    eventually("a line", || (connections(file) == count).then_some(()));
}

/// Every file and folder below a folder, but for the process's own.
fn files(folder: &Path) -> Vec<String> {
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let below = found.iter().filter(|path| path.is_dir()).flat_map(|path| files(path)).collect::<Vec<_>>();
    found.sort();
    found.iter().map(|path| path.display().to_string()).chain(below).collect()
}

#[test]
fn a_line_that_a_crash_has_torn_is_ended_before_the_next_one_at_a_start_and_when_the_file_is_opened_anew() {
    let backend = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    let torn = "time=2026-01-01T00:00:00.000Z level=info kind=conn";
    fs::write(&file, torn).unwrap();
    let log = format!("[log]\nformat = \"text\"\noutput = \"{}\"\n", file.display());
    let sessile = Sessile::start(&(log + &listener("p", "") + &pool("p", "", &[backend.address])));
    connect(&sessile, &file, 1);
    connect(&sessile, &file, 2);
    let lines = || fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((lines().len(), lines()[0].as_str()), (3, torn));
    // An editor has written the file without its last end.
    fs::remove_file(&file).unwrap();
    fs::write(&file, torn).unwrap();
    let output = run(&["log", "reopen", "--socket", sessile.admin().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    connect(&sessile, &file, 1);
    assert_eq!((lines().len(), lines()[0].as_str()), (2, torn));
}

#[test]
fn standard_output_that_is_a_file_with_a_torn_line_is_continued_on_another_one() {
    let backend = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out");
    fs::write(&file, "torn").unwrap();
    let out = fs::File::options().append(true).open(&file).unwrap();
    let log = "[log]\nformat = \"text\"\n".to_owned();
    let sessile = Sessile::spawn(&(log + &listener("p", "") + &pool("p", "", &[backend.address])), |command| {
        command.stdout(out);
    });
    sessile.ready();
    connect(&sessile, &file, 1);
    assert!(fs::read_to_string(&file).unwrap().starts_with("torn\ntime="));
}

#[test]
fn a_reload_that_is_refused_leaves_nothing_on_the_disk_and_neither_does_a_check() {
    let backend = Backend::named("b");
    let (dir, taken) = (tempfile::tempdir().unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let good = listener("p", "") + &pool("p", "http = true", &[backend.address]);
    let sessile = Sessile::start(&good);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let wanted = |bind: &str| {
        let top = format!(
            "stick_table_file = \"{}\"\n[log]\nformat = \"json\"\noutput = \"{}\"\n",
            at("table/t"),
            at("log/a/access.log")
        );
        let made = format!("[[listener]]\nname = \"u\"\nbind = \"unix:{}\"\npool = \"q\"\n", at("sockets/u.sock"));
        let taken = format!("[[listener]]\nname = \"t\"\nbind = \"{bind}\"\npool = \"q\"\n");
        top + &good
            + &made
            + &taken
            + &pool("q", "http = true\nbalance = \"random\"\ncookie = \"insert\"", &[backend.address])
    };
    let verdict = sessile.reload(&wanted(&taken.local_addr().unwrap().to_string()));
    assert_eq!(verdict["accepted"], false, "{verdict}");
    assert!(verdict["problems"].to_string().contains("another program listens there"), "{verdict}");
    assert_eq!(files(dir.path()), Vec::<String>::new());
    let text = wanted("127.0.0.1:0") + &format!("[admin]\nsocket = \"{}\"\n", at("run/admin.sock"));
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), text).unwrap();
    let output = command(&["check"]).arg(config.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(files(dir.path()), Vec::<String>::new());
    // In force it makes all of them.
    let verdict = sessile.reload(&wanted("127.0.0.1:0"));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    for name in ["log/a/access.log", "sockets/u.sock", "table/cookie.keys"] {
        assert!(dir.path().join(name).exists(), "{name}: {:?}", files(dir.path()));
    }
}
