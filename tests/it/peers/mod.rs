//! `sessile check` beside what HAProxy and nginx print for the same mistake.
//!
//! A folder of `tests/peers` has one mistake three times: `sessile.toml`, `haproxy.cfg`, `nginx.conf`; for a file of
//! `tests/broken` the first one is that file. Where a peer cannot make a mistake, `tests/peers/README.md` says why.
//! `$DIR` stands for a folder with certificates.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use judge::{Message, Said};
use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::{program, sessile};

/// The mistakes that are no files of `tests/broken`.
const NEW_MIN: usize = 20;

/// The mistakes that each of the others refuses, at least.
const REFUSED_MIN: usize = 60;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Every mistake by its name, with our file.
fn mistakes() -> BTreeMap<String, PathBuf> {
    let entries = |name: &str| fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let broken = entries("broken").filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let new = entries("peers").map(|path| path.join("sessile.toml")).filter(|path| path.is_file());
    let new = new.map(|file| (stem(&file.parent().unwrap().to_owned()), file));
    broken.map(|file| (stem(&file), file)).chain(new).collect()
}

/// A program with the arguments that have it check a file.
struct Peer {
    program: &'static str,
    file: &'static str,
    read: fn(&Output) -> Said,
}

const PEERS: [Peer; 2] = [
    Peer { program: "haproxy", file: "haproxy.cfg", read: judge::haproxy },
    Peer { program: "nginx", file: "nginx.conf", read: judge::nginx },
];

/// A folder with certificates, in which the programs run.
fn scratch() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let (site, site_key) = authority.mint("site.example").write(dir.path(), "site");
    let (_, other_key) = authority.mint("other.example").write(dir.path(), "other");
    let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
    write("alone.pem", read(&site));
    write("both.pem", read(&site) + &read(&site_key));
    write("mixed.pem", read(&site) + &read(&other_key));
    write("notes.txt", "Renew in May.\n".to_owned());
    dir
}

/// Copies a file into the folder, with its path in the place of `$DIR`.
fn placed(dir: &Path, file: &Path, name: &str) -> PathBuf {
    let bytes = fs::read(file).unwrap();
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => text.replace("$DIR", dir.to_str().unwrap()).into_bytes(),
        Err(no_text) => no_text.into_bytes(),
    };
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn output(dir: &Path, command: &mut Command) -> Output {
    command.current_dir(dir).stdin(Stdio::null()).env("LC_ALL", "C").output().unwrap()
}

fn check(dir: &Path, file: &Path) -> Said {
    let output = output(dir, sessile::command(&["check"]).arg(file));
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    judge::sessile(&output, &file.display().to_string(), &text)
}

/// The programs that are there; a test is skipped in part without one.
fn present(test: &str) -> Vec<(&'static Peer, PathBuf)> {
    PEERS.iter().filter_map(|peer| Some((peer, program::find(test, peer.program)?))).collect()
}

fn check_by_peer(dir: &Path, (peer, program): &(&Peer, PathBuf), file: &Path) -> Said {
    let mut command = Command::new(program);
    if peer.program == "haproxy" {
        command.args(["-c", "-f"]).arg(file);
    } else {
        // On the lines that are there: an ordinary user may not write where the package keeps its files.
        if let Ok(text) = fs::read_to_string(file) {
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let own: String = temporary.map(|kind| format!("{kind}_temp_path {kind}; ")).concat();
            let own = format!("\nhttp {{ access_log off; {own}");
            fs::write(file, text.replacen("\nhttp {", &own, 1)).unwrap();
        }
        let pid = format!("pid {};", dir.join("nginx.pid").display());
        command.args(["-t", "-e", "stderr", "-g", &pid, "-p"]).arg(dir).arg("-c").arg(file);
    }
    (peer.read)(&output(dir, &mut command))
}

/// The mistakes that a peer cannot make, by peer, as the table of the README has them.
fn without_counterpart() -> BTreeSet<(String, String)> {
    let text = fs::read_to_string(folder("peers").join("README.md")).unwrap();
    let mut rows = BTreeSet::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = row.split_once("` | ").expect(row);
        let (peers, why) = rest.split_once(" | ").expect(row);
        assert!(why.trim_matches([' ', '|']).len() > 10, "{row}");
        rows.extend(peers.split(", ").map(|peer| (name.to_owned(), peer.to_owned())));
    }
    rows
}

#[test]
fn every_mistake_has_a_counterpart_or_a_reason_why_there_is_none() {
    let mistakes = mistakes();
    let new = mistakes.values().filter(|file| file.ends_with("sessile.toml")).count();
    assert!(new >= NEW_MIN, "{new}");
    let mut without = without_counterpart();
    for name in mistakes.keys() {
        for peer in &PEERS {
            let is_there = folder("peers").join(name).join(peer.file).is_file();
            let row = without.remove(&(name.clone(), peer.program.to_owned()));
            assert!(is_there != row, "{name}: {}: a file or a row, not both and not neither", peer.program);
        }
    }
    assert!(without.is_empty(), "rows of no mistake: {without:?}");
}

#[test]
fn what_check_says_is_never_worse_than_what_haproxy_and_nginx_say() {
    let present = present("what_check_says_is_never_worse_than_what_haproxy_and_nginx_say");
    let dir = scratch();
    let (mut worse, mut refused) = (String::new(), vec![0; present.len()]);
    for (name, file) in mistakes() {
        let ours = check(dir.path(), &placed(dir.path(), &file, "sessile.toml"));
        let mut found = judge::alone(&ours);
        for (peer, refused) in present.iter().zip(&mut refused) {
            let Peer { program, file, .. } = peer.0;
            let path = folder("peers").join(&name).join(file);
            if !path.is_file() {
                continue;
            }
            let theirs = check_by_peer(dir.path(), peer, &placed(dir.path(), &path, file));
            *refused += usize::from(theirs.code != 0);
            found.extend(judge::beside(&ours, &theirs).into_iter().map(|how| format!("{program}: {how}")));
        }
        for how in found {
            worse += &format!("{name}: {how}\n");
        }
    }
    assert!(worse.is_empty(), "{worse}");
    // Where the other accepts the file, there is little to compare.
    assert!(refused.iter().all(|refused| *refused >= REFUSED_MIN), "{refused:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let present = present("a_file_that_cannot_be_read_is_named_with_the_reason");
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("closed.toml"), "workers = 1\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    fs::set_permissions(at("closed.toml"), mode).unwrap();
    let mut files = vec![
        (at("gone.toml"), "No such file"),
        (at("notes.txt/sessile.toml"), "Not a directory"),
        (at("."), "it is a folder"),
    ];
    if !rustix::process::geteuid().is_root() {
        files.push((at("closed.toml"), "Permission denied"));
    }
    for (file, why) in files {
        let ours = check(dir.path(), &file);
        let [Message { text, .. }] = &ours.messages[..] else { panic!("{file:?}: {ours:?}") };
        assert!(text.contains(&file.display().to_string()) && text.contains(why), "{text}");
        for peer in &present {
            let theirs = check_by_peer(dir.path(), peer, &file);
            // A folder is a list of files for HAProxy.
            if !(peer.0.program == "haproxy" && file.is_dir()) {
                assert!(theirs.code != 0 && ours.code != 0, "{file:?}: {theirs:?}");
            }
            assert_eq!(judge::beside(&ours, &theirs), Vec::<String>::new(), "{file:?}: {theirs:?}");
        }
    }
}
