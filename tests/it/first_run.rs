//! The first start: folders that are missing are made, and what cannot be made is named by `check` and `run` alike.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;

use crate::support::backend::{Backend, listener, pool};
use crate::support::program::copy_to_run;
use crate::support::sessile::{command, run};
use crate::support::{Sessile, eventually, http, is_root};

/// An ordinary user.
const NOBODY: u32 = 65_534;

fn config(backend: &Backend) -> String {
    "stick_table_file = \"$DIR/state/deep/stick-table\"\n[admin]\nsocket = \"$DIR/run/deep/admin.sock\"\n".to_owned()
        + &listener("p", "")
        + "[[listener]]\nname = \"u\"\nbind = \"unix:$DIR/sockets/u.sock\"\npool = \"q\"\n"
        + &pool("p", "", &[backend.address])
        + &pool("q", "balance = \"random\"", &[backend.address])
}

/// A folder that a user may write, with a configuration for it; `None`: the user that runs the test.
fn folder(config: &str, user: Option<u32>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    if let Some(user) = user {
        std::os::unix::fs::chown(dir.path(), Some(user), Some(user)).unwrap();
    }
    let file = dir.path().join("sessile.toml");
    std::fs::write(&file, config.replace("$DIR", dir.path().to_str().unwrap())).unwrap();
    (dir, file)
}

/// A copy of the binary that every user can start; the folder where it was built may be closed.
fn program(dir: &Path) -> PathBuf {
    let copy = dir.join("sessile");
    copy_to_run(Path::new(env!("CARGO_BIN_EXE_sessile")), &copy);
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn as_user(user: Option<u32>, program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts what `check` accepts, and waits until its admin socket answers; everything has its folder after the stop.
fn assert_starts(user: Option<u32>) {
    let backend = Backend::named("b");
    let (dir, file) = folder(&config(&backend), user);
    let binaries = tempfile::tempdir().unwrap();
    let program = program(binaries.path());
    let file = file.to_str().unwrap();
    let checked = as_user(user, &program, &["check", file]).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(!dir.path().join("run").exists(), "check makes nothing");
    let mut command = as_user(user, &program, &["run", "--config", file]);
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let admin = dir.path().join("run/deep/admin.sock");
    eventually("the process to be ready", || http::unix_get(&admin, "/readyz").filter(|(status, _)| *status == 200));
    assert!(dir.path().join("sockets/u.sock").exists());
    let pid = rustix::process::Pid::from_raw(running.0.id() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    let mode = |folder: &str| dir.path().join(folder).metadata().unwrap().permissions().mode() & 0o777;
    assert!(dir.path().join("state/deep/stick-table").exists());
    assert_eq!(mode("state/deep") & 0o077, 0, "the table holds a secret");
    assert_eq!(mode("run/deep") & 0o700, 0o700);
}

#[test]
fn missing_folders_are_made() {
    assert_starts(None);
}

#[test]
fn missing_folders_are_made_by_an_ordinary_user() {
    if is_root("missing_folders_are_made_by_an_ordinary_user") {
        assert_starts(Some(NOBODY));
    }
}

#[test]
fn what_cannot_be_made_is_named_by_check_and_run_alike() {
    if !is_root("what_cannot_be_made_is_named_by_check_and_run_alike") {
        return;
    }
    let backend = Backend::named("b");
    // The folder is root's.
    let (dir, file) = folder(&config(&backend), None);
    let binaries = tempfile::tempdir().unwrap();
    let program = program(binaries.path());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = file.to_str().unwrap();
    let [checked, started] = [&["check", file][..], &["run", "--config", file]]
        .map(|line| as_user(Some(NOBODY), &program, line).output().unwrap());
    assert_eq!((checked.status.code(), started.status.code()), (Some(64), Some(64)));
    let here = dir.path().display();
    for said in [text(&checked), text(&started)] {
        for (place, folder) in [
            ("1:20: stick_table_file", "state/deep"),
            ("3:10: admin: socket", "run/deep"),
            ("11:8: listener \"u\": bind", "sockets"),
        ] {
            let line = said.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("{place}\n{said}"));
            let why = format!("the folder \"{here}/{folder}\" does not exist and cannot be made in \"{here}\"");
            assert!(line.contains(&why), "{line}");
        }
        assert!(said.contains(&format!("install -d -o USER {here}/run/deep")), "{said}");
    }
    assert!(!dir.path().join("run").exists());
}

#[test]
fn a_reload_into_a_folder_that_cannot_be_made_changes_nothing() {
    let backend = Backend::named("b");
    let rest = listener("p", "") + &pool("p", "", &[backend.address]);
    let sessile = Sessile::start(&rest);
    std::fs::write(sessile.dir.path().join("file"), "").unwrap();
    let verdict = sessile.reload(&format!("stick_table_file = \"$DIR/file/stick-table\"\n{rest}"));
    assert_eq!(verdict["accepted"], false, "{verdict}");
    let problem = verdict["problems"][0].as_str().unwrap();
    assert!(problem.contains(":1:20: stick_table_file \""), "{problem}");
    assert!(problem.ends_with("/file\" is not a folder"), "{problem}");
    assert_eq!(sessile.status()["generation"], 1);
}

/// Every example that `check` accepts has its folders, or can make them. Certificates are those of `certs dev`.
#[test]
fn examples_that_check_accepts_can_make_their_folders() {
    if !is_root("examples_that_check_accepts_can_make_their_folders") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let made = run(&["certs", "dev", "--dir", dir.path().join("certs").to_str().unwrap()]);
    assert!(made.status.success());
    let examples = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap();
    let examples = examples.flatten().map(|entry| entry.path());
    let mut count = 0;
    for example in examples.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let checked = command(&["check", example.to_str().unwrap()]).current_dir(dir.path()).output().unwrap();
        let said = text(&checked);
        assert!(checked.status.success(), "{said}");
        // The reference names a name server, and none is there.
        let is_silent = |line: &&str| line.contains("127.0.0.1:5353 did not answer");
        let silent = said.lines().filter(is_silent).count();
        let good = if silent == 1 { ": good, with 1 warning\n" } else { ": good\n" };
        assert!(silent < 2 && said.ends_with(good), "{said}");
        count += 1;
    }
    assert!(count > 10);
}
