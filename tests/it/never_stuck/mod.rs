//! What does not end or answer holds no start, no reload, no check and no exit: pipes in the place of files, a disk that
//! is dead, outputs that are full.

mod disk;
mod outputs;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::http::{unix_get, unix_post};
use crate::support::load_support::Client;
use crate::support::sessile::{command, run};
use crate::support::{PATIENCE, Sessile, eventually, has, is_root, skip};

/// What a command says in the end, which must come in time.
fn output_of(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    ends(&mut child);
    child.wait_with_output().unwrap()
}

fn ends(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the command does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Exit code and both outputs of the binary with these arguments.
fn verdict(arguments: &[&str]) -> (Option<i32>, String) {
    let output = output_of(command(arguments));
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

/// Kills a process that hangs, so that the test fails instead of hanging with it.
struct Watchdog(#[expect(dead_code, reason = "its end is the signal")] Sender<()>);

impl Watchdog {
    fn over(pid: u32) -> Self {
        let (alive, ended) = channel::<()>();
        thread::spawn(move || {
            if ended.recv_timeout(6 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        });
        Self(alive)
    }
}

fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A reader and writer of a pipe with a name, which keeps readers waiting: it is opened and nothing is written.
fn silent_writer(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Whatever can be in the place of a file, and what is said of it.
fn no_files(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    let at = |name: &str| folder.join(name);
    make_pipe(&at("pipe"));
    make_pipe(&at("silent"));
    fs::create_dir(at("folder")).unwrap();
    symlink("/dev/zero", at("zero")).unwrap();
    File::create(at("sparse")).unwrap().set_len(1 << 30).unwrap();
    vec![
        (at("pipe"), "it is a pipe, not a file"),
        (at("silent"), "it is a pipe, not a file"),
        (at("folder"), "it is a folder, not a file"),
        (at("zero"), "it is a device, not a file"),
        (at("sparse"), "it is longer than 16 MiB"),
    ]
}

fn small_config() -> String {
    listener("p", "") + &pool("p", "", &["127.0.0.1:1".parse().unwrap()])
}

#[test]
fn a_configuration_that_is_no_file_is_refused_by_start_and_check_and_plan() {
    let dir = tempfile::tempdir().unwrap();
    let files = no_files(dir.path());
    let _writer = silent_writer(&dir.path().join("silent"));
    for (path, why) in files {
        let path = path.to_str().unwrap();
        for arguments in [
            &["run", "--config", path][..],
            &["check", path],
            &["plan", path, path],
            &["explain", "--config", path, "--client", "127.0.0.1"],
            &["status", "--config", path],
        ] {
            let (code, said) = verdict(arguments);
            assert_eq!(code, Some(64), "{arguments:?}: {said}");
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_configuration_that_is_no_file_is_refused_by_a_reload_and_the_process_goes_on_and_ends() {
    let backend = Backend::named("b");
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let folder = sessile.dir.path().join("odd");
    fs::create_dir(&folder).unwrap();
    let files = no_files(&folder);
    let (_writer, _watchdog) = (silent_writer(&folder.join("silent")), Watchdog::over(sessile.pid()));
    for (path, why) in &files {
        fs::remove_file(sessile.file()).unwrap();
        symlink(path, sessile.file()).unwrap();
        let verdict = reload(&sessile);
        assert_eq!((&verdict["accepted"], &verdict["generation"]), (&false.into(), &1.into()), "{verdict}");
        assert!(verdict["problems"][0].as_str().unwrap().ends_with(why), "{verdict}");
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    }
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
}

/// Requests a reload of the file as it is.
fn reload(sessile: &Sessile) -> Value {
    serde_json::from_str(&unix_post(&sessile.admin(), "/reload").unwrap().1).unwrap()
}

/// A configuration that names a file in every place where one can be named; each name is the letter `F` and a number.
fn with_files(front: SocketAddr) -> String {
    format!(
        "[tls]\nticket_keys = \"$DIR/F1\"\n\
         [store]\nkind = \"redis\"\nurl = \"rediss://127.0.0.1:6379\"\nca = \"$DIR/F2\"\nuser = \"u\"\npassword_file = \"$DIR/F3\"\n\
         secret_file = \"$DIR/F4\"\n\
         [[listener]]\nname = \"l\"\nbind = \"{front}\"\ntls = \"terminate\"\npool = \"p\"\n\
         certificate = [{{ cert = \"$DIR/F5\", key = \"$DIR/F6\" }}]\nclient_certificate = {{ ca = \"$DIR/F7\" }}\n\
         [[pool]]\nname = \"p\"\nhttp = true\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\ncheck = \"off\"\n\
         tls = {{ ca = \"$DIR/F8\"}}\n\
         cookie = {{ mode = \"insert\", keys = \"$DIR/F9\" }}\n"
    )
}

#[test]
fn keys_certificates_and_secrets_that_are_pipes_are_all_named_in_one_verdict() {
    const FILES: usize = 9;
    let mut sessile = Sessile::start(&small_config());
    let _watchdog = Watchdog::over(sessile.pid());
    for number in 1..=FILES {
        make_pipe(&sessile.dir.path().join(format!("F{number}")));
    }
    // A writer that never writes holds a reader that was not held by the open.
    let _writers: Vec<_> =
        (1..=FILES).step_by(2).map(|n| silent_writer(&sessile.dir.path().join(format!("F{n}")))).collect();
    let refused = sessile.reload(&with_files("127.0.0.1:0".parse().unwrap()));
    let (code, checked) = verdict(&["check", sessile.file().to_str().unwrap()]);
    let (started, said) = verdict(&["run", "--config", sessile.file().to_str().unwrap()]);
    assert_eq!((code, started, &refused["accepted"]), (Some(64), Some(64), &false.into()), "{refused}");
    for number in 1..=FILES {
        let named = format!("/F{number}\": it is a pipe, not a file");
        for text in [&refused.to_string().replace("\\\"", "\""), &checked, &said] {
            assert!(text.contains(&named), "F{number}: {text}");
        }
    }
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_pipe_in_the_place_of_the_lock_or_of_the_stick_table_holds_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessile.toml");
    let start = |top: &str| {
        let admin = format!("[admin]\nsocket = \"{}\"\n", dir.path().join("admin.sock").display());
        fs::write(&file, top.to_owned() + &admin + &small_config()).unwrap();
        verdict(&["run", "--config", file.to_str().unwrap()])
    };
    make_pipe(&dir.path().join("admin.lock"));
    let (code, said) = start("");
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("admin.lock: it is a pipe, not a file"), "{said}");
    fs::remove_file(dir.path().join("admin.lock")).unwrap();
    let table = dir.path().join("stick-table");
    make_pipe(&table);
    let (code, said) = start(&format!("stick_table_file = \"{}\"\n", table.display()));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("stick-table\": it is a pipe, not a file"), "{said}");
}

#[test]
fn a_pipe_that_the_caller_has_opened_for_a_command_is_read() {
    let config = small_config();
    for path in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let mut check = command(&["check", path]);
        check.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut check = check.spawn().unwrap();
        let mut input = check.stdin.take().unwrap();
        let (begin, rest) = config.split_at(config.len() / 2);
        input.write_all(begin.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50));
        input.write_all(rest.as_bytes()).unwrap();
        drop(input);
        assert_eq!(ends(&mut check), Some(0), "{path}");
    }
    let mut endless = command(&["check", "/dev/stdin"]);
    endless.stdin(File::open("/dev/zero").unwrap());
    let output = output_of(endless);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(64), "sessile: /dev/stdin: it is longer than 16 MiB\n"));
}
