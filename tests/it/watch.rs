//! `watch = true`: another file in the place of this one is a reload, the same file written anew is not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::backend::{listener, pool};
use crate::support::{Sessile, eventually};

/// Longer than it takes to see a change.
const LONG_ENOUGH: Duration = Duration::from_millis(1_300);

/// A configuration with a digest of its own for each number.
fn config(watch: bool, number: u32) -> String {
    let pool = pool("p", &format!("hash_seed = {number}"), &["127.0.0.1:1".parse().unwrap()]);
    format!("watch = {watch}\n{}{pool}", listener("p", ""))
}

fn generation(sessile: &Sessile) -> u64 {
    sessile.status()["generation"].as_u64().unwrap()
}

fn reaches(sessile: &Sessile, wanted: u64) {
    eventually(&format!("generation {wanted}"), || (generation(sessile) == wanted).then_some(()));
}

/// The text in force, with another number.
fn numbered(sessile: &Sessile, number: u32) -> String {
    let text = fs::read_to_string(sessile.file()).unwrap();
    let (before, rest) = text.split_once("hash_seed = ").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    format!("{before}hash_seed = {number}\n{after}")
}

fn rename_over(file: &Path, text: &str) {
    let beside = file.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, file).unwrap();
}

fn swap_link(link: &Path, target: &Path) {
    let beside = link.with_extension("link");
    symlink(target, &beside).unwrap();
    fs::rename(&beside, link).unwrap();
}

#[test]
fn a_rename_over_the_file_reloads_and_writing_in_place_never_does() {
    let sessile = Sessile::start(&config(true, 0));
    let digest = sessile.status()["digest"].clone();
    for number in 1..=3 {
        fs::write(sessile.file(), numbered(&sessile, number)).unwrap();
        thread::sleep(LONG_ENOUGH / 2);
    }
    thread::sleep(LONG_ENOUGH);
    assert_eq!((generation(&sessile), &sessile.status()["digest"]), (1, &digest), "written in place");
    rename_over(&sessile.file(), &numbered(&sessile, 4));
    reaches(&sessile, 2);
    assert_ne!(sessile.status()["digest"], digest);
    rename_over(&sessile.file(), &numbered(&sessile, 5));
    reaches(&sessile, 3);
    // Half a file, renamed: refused, and that is said once.
    let good = numbered(&sessile, 6);
    rename_over(&sessile.file(), &good[..good.len() / 2]);
    eventually("the refusal", || (sessile.status()["reloads"]["refused"] == 1).then_some(()));
    thread::sleep(LONG_ENOUGH);
    assert_eq!((generation(&sessile), &sessile.status()["reloads"]["refused"]), (3, &1.into()));
    rename_over(&sessile.file(), &good);
    reaches(&sessile, 4);
}

/// A file that is taken away and put back is another one, and the number of a file is used again at once.
#[test]
fn every_file_that_takes_the_place_is_seen_though_it_has_the_number_of_the_one_before_last() {
    let sessile = Sessile::start(&config(true, 0));
    let last = numbered(&sessile, 9);
    for round in 1..=5 {
        for number in 1..=3 {
            rename_over(&sessile.file(), &numbered(&sessile, round * 10 + number));
        }
        rename_over(&sessile.file(), &last.replace("hash_seed = 9", &format!("hash_seed = {round}")));
        let wanted = format!("{:016x}", digest(&sessile));
        eventually("the last file to be in force", || (sessile.status()["digest"] == wanted).then_some(()));
    }
    fs::remove_file(sessile.file()).unwrap();
    thread::sleep(LONG_ENOUGH);
    assert_eq!(sessile.status()["reloads"]["refused"], 0, "nothing is there to be refused");
    let before = generation(&sessile);
    fs::write(sessile.file(), last).unwrap();
    reaches(&sessile, before + 1);
}

/// What the file as it is would have as its digest.
fn digest(sessile: &Sessile) -> u64 {
    let text = fs::read_to_string(sessile.file()).unwrap();
    let checked = sessile::config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
    let admission = std::sync::Arc::new(sessile::admission::Admission::new(1));
    sessile::snapshot::Snapshot::build(checked.config, sessile::snapshot::LoadedFiles::default(), None, 1, &admission)
        .digest
}

#[test]
fn a_symlink_that_is_swapped_reloads_also_where_it_is_a_directory_above() {
    let sessile = Sessile::start(&config(true, 0));
    let (dir, file) = (sessile.dir.path().to_owned(), sessile.file());
    let version = |number: u32| {
        let folder = dir.join(format!("version-{number}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("sessile.toml"), numbered(&sessile, number)).unwrap();
        folder
    };
    let versions = [version(1), version(2), version(3)];
    // The file becomes a link, then the link another one.
    swap_link(&file, &versions[0].join("sessile.toml"));
    reaches(&sessile, 2);
    swap_link(&file, &versions[1].join("sessile.toml"));
    reaches(&sessile, 3);
    // The file is a link into a folder that is itself a link, as orchestrators lay out volumes.
    let current = dir.join("current");
    symlink(&versions[1], &current).unwrap();
    swap_link(&file, Path::new("current/sessile.toml"));
    thread::sleep(LONG_ENOUGH);
    assert_eq!(generation(&sessile), 3, "the same file by another way");
    swap_link(&current, &versions[2]);
    reaches(&sessile, 4);
    // Writing through the links is writing in place.
    fs::write(&file, numbered(&sessile, 7)).unwrap();
    thread::sleep(LONG_ENOUGH);
    assert_eq!(generation(&sessile), 4);
}

#[test]
fn without_watch_only_who_is_asked_reloads_and_watch_itself_can_be_switched() {
    let sessile = Sessile::start(&config(false, 0));
    rename_over(&sessile.file(), &numbered(&sessile, 1));
    thread::sleep(LONG_ENOUGH);
    assert_eq!(generation(&sessile), 1);
    rename_over(&sessile.file(), &numbered(&sessile, 2).replace("watch = false", "watch = true"));
    thread::sleep(LONG_ENOUGH);
    assert_eq!(generation(&sessile), 1);
    sessile.signal(Signal::HUP);
    reaches(&sessile, 2);
    rename_over(&sessile.file(), &numbered(&sessile, 3));
    reaches(&sessile, 3);
    rename_over(&sessile.file(), &numbered(&sessile, 4).replace("watch = true", "watch = false"));
    reaches(&sessile, 4);
    rename_over(&sessile.file(), &numbered(&sessile, 5));
    thread::sleep(LONG_ENOUGH);
    assert_eq!(generation(&sessile), 4);
}
