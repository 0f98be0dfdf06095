//! The files for systemd in `config/`: the unit, its socket and its user.
//!
//! How the process behaves under a service manager is in `notify.rs` and `systemd.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::has;

/// Most exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX: &str = "20";

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// The units in a folder of their own, with a program that is there.
fn units() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["sessile.service", "sessile.socket"] {
        let text = fs::read_to_string(config().join(name)).unwrap();
        let text = text.replace("/usr/bin/sessile", env!("CARGO_BIN_EXE_sessile"));
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_takes_every_line_of_the_units() {
    if !has("systemd_takes_every_line_of_the_units", "systemd-analyze") {
        return;
    }
    let dir = units();
    for name in ["sessile.service", "sessile.socket"] {
        let output = analyze(&["verify", "--man=no"], &dir.path().join(name));
        let said = text(&output);
        // Other units of this machine are not ours to judge.
        let ours: Vec<_> = said.lines().filter(|line| line.contains("sessile")).collect();
        assert!(output.status.success() && ours.is_empty(), "{name}: {said}");
    }
    let service = dir.path().join("sessile.service");
    let broken = fs::read_to_string(&service).unwrap().replace("KillMode=mixed", "KillMode=mixd");
    fs::write(&service, broken).unwrap();
    assert!(text(&analyze(&["verify", "--man=no"], &service)).contains("mixd"), "the test sees no mistake");
}

#[test]
fn the_unit_leaves_little_open() {
    if !has("the_unit_leaves_little_open", "systemd-analyze") {
        return;
    }
    let dir = units();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let output =
        analyze(&["security", "--offline=true", "--no-pager", &threshold], &dir.path().join("sessile.service"));
    let said = text(&output);
    assert!(said.contains("Overall exposure level"), "{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_user_of_the_unit_is_made() {
    if !has("the_user_of_the_unit_is_made", "systemd-sysusers") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let mut command = Command::new("systemd-sysusers");
    command.arg(format!("--root={}", root.path().display())).arg(config().join("sessile.sysusers.conf"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let unit = fs::read_to_string(config().join("sessile.service")).unwrap();
    let user = unit.lines().find_map(|line| line.strip_prefix("User=")).unwrap();
    let made = users.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap_or_else(|| panic!("{users}"));
    assert!(made.ends_with("/nologin"), "{made}");
    let groups = fs::read_to_string(root.path().join("etc/group")).unwrap();
    let group = unit.lines().find_map(|line| line.strip_prefix("Group=")).unwrap();
    assert!(groups.lines().any(|line| line.starts_with(&format!("{group}:"))), "{groups}");
}
