//! The state file between processes, and its writes one after the other.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::admission::Admission;
use crate::pool::AdminState;
use crate::{config, snapshot};

/// A snapshot whose stick-table file is in this folder.
fn snapshot(folder: &Path) -> Snapshot {
    let text = format!(
        "stick_table_file = \"{}\"\n[admin]\nsocket = \"off\"\n[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
         [[pool]]\nname = \"web\"\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}, \
         {{ name = \"b\", address = \"127.0.0.1:2\" }}]\n",
        folder.join("table").display()
    );
    let config = config::check(&text, &|_| Err(io::ErrorKind::NotFound.into())).unwrap().config;
    Snapshot::build(config, snapshot::LoadedFiles::default(), None, 1, &Arc::new(Admission::new(1)))
}

fn drain(snapshot: &Snapshot) {
    assert!(snapshot.pools[0].order("a", AdminState::Drain, clock::now_ms()));
}

fn drains(snapshot: &Snapshot) -> bool {
    snapshot.pools[0].backends()[0].draining()
}

#[test]
fn a_file_is_made_for_the_first_state_and_says_when_there_is_none_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.state");
    let before = snapshot(folder.path());
    let file = StateFile::start(&before, false);
    file.write(|| &before).unwrap();
    assert!(!path.exists(), "nothing to keep");
    drain(&before);
    file.write(|| &before).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let after = snapshot(folder.path());
    let file = StateFile::start(&after, false);
    assert!(drains(&after));
    assert!(after.pools[0].order("a", AdminState::Ready, clock::now_ms()));
    file.write(|| &after).unwrap();
    let last = snapshot(folder.path());
    StateFile::start(&last, false);
    assert!(!drains(&last));
}

#[test]
fn a_fresh_start_forgets_for_itself_and_for_those_that_follow() {
    let folder = tempfile::tempdir().unwrap();
    let before = snapshot(folder.path());
    drain(&before);
    StateFile::default().write(|| &before).unwrap();
    for fresh in [true, false] {
        let after = snapshot(folder.path());
        drop(StateFile::start(&after, fresh));
        assert!(!drains(&after), "fresh: {fresh}");
    }
}

#[test]
fn after_the_last_write_the_file_is_left_to_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let before = snapshot(folder.path());
    let file = StateFile::start(&before, false);
    file.write_last(|| &before).unwrap();
    drain(&before);
    assert!(file.write(|| &before).is_err(), "and a command says so");
    assert!(file.write_last(|| &before).is_err());
    assert!(!folder.path().join("table.state").exists());
}

#[test]
fn a_file_is_closed_also_while_a_write_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(folder.path());
    let file = StateFile::start(&snapshot, false);
    drain(&snapshot);
    let hangs = file.lock();
    file.close();
    drop(hangs);
    assert!(file.write(|| &snapshot).is_err() && !folder.path().join("table.state").exists());
}

#[test]
fn what_is_no_state_is_harmless_and_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.state");
    let good = |snapshot: &Snapshot| read(&path).is_ok_and(|state| state.is_some()) && !drains(snapshot);
    for bad in ["", "nonsense", "{\"version\":2}", "{\"version\":1", "[]", "\u{0}", "{}"] {
        fs::write(&path, bad).unwrap();
        assert!(read(&path).is_err(), "{bad:?}");
        let snapshot = snapshot(folder.path());
        StateFile::start(&snapshot, false).write(|| &snapshot).unwrap();
        assert!(good(&snapshot), "{bad:?}");
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(read(&path).unwrap_err().contains("cannot be read"), "not UTF-8");
}

#[test]
fn only_a_regular_file_of_a_sane_size_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(read(&path).unwrap_err().contains("it is a pipe, not a file"), "a FIFO does not hold the start");
    assert!(read(folder.path()).unwrap_err().contains("it is a folder, not a file"));
    fs::remove_file(&path).unwrap();
    assert!(read(&path).unwrap().is_none(), "no file");
    File::create(&path).unwrap().set_len(FILE_MAX + 1).unwrap();
    assert!(read(&path).unwrap_err().contains("longer than"));
}

#[test]
fn a_file_of_another_user_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.state");
    let before = snapshot(folder.path());
    drain(&before);
    StateFile::default().write(|| &before).unwrap();
    let own = rustix::process::geteuid().as_raw();
    assert!(!own_files::is_of_another(own) && !own_files::is_of_another(0) && own_files::is_of_another(own + 1));
    // Only root can give a file to another user.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        let why = read(&path).unwrap_err();
        assert_eq!(why, "is not read: it belongs to user 65534, not to this one or root");
        let after = snapshot(folder.path());
        StateFile::start(&after, false);
        assert!(!drains(&after));
        std::os::unix::fs::chown(&path, Some(own), None).unwrap();
    }
    let after = snapshot(folder.path());
    StateFile::start(&after, false);
    assert!(drains(&after));
}

#[test]
fn a_write_that_fails_says_why_and_the_next_one_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    let snapshot = snapshot(&inner);
    fs::write(&inner, "in the place of the folder").unwrap();
    let file = StateFile::start(&snapshot, false);
    drain(&snapshot);
    assert!(file.write(|| &snapshot).unwrap_err().contains("cannot be made"));
    let (path, report) = file.report(&snapshot.config).unwrap();
    assert_eq!((path, report.failures, report.written_unix_s), (inner.join("table.state"), 1, None));
    assert!(report.complaint.contains("cannot be made"), "{report:?}");
    fs::remove_file(&inner).unwrap();
    file.write(|| &snapshot).unwrap();
    let (_, report) = file.report(&snapshot.config).unwrap();
    assert!(report.complaint.is_empty() && report.failures == 1 && report.written_unix_s.is_some(), "{report:?}");
    assert!(read(&inner.join("table.state")).unwrap().is_some());
}

/// A snapshot with an admin socket, and a stick-table file or none, in this folder.
fn with_places(folder: &Path, has_table: bool) -> Snapshot {
    let mut config = (*snapshot(folder).config).clone();
    config.process.admin.socket = Some(folder.join("admin.sock"));
    config.process.stick_table_file = config.process.stick_table_file.filter(|_| has_table);
    Snapshot::build(config, snapshot::LoadedFiles::default(), None, 1, &Arc::new(Admission::new(1)))
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn the_file_stands_beside_the_stick_table_file_or_the_admin_socket_and_follows() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [without, with] = [false, true].map(|has_table| with_places(folder, has_table));
    let file = StateFile::start(&without, false);
    drain(&without);
    file.write(|| &without).unwrap();
    assert_eq!(files(folder), ["admin.sock.state"]);
    // The next process has a stick-table file.
    let next = StateFile::start(&with, false);
    assert!(drains(&with));
    next.write(|| &with).unwrap();
    assert_eq!(files(folder), ["table.state"]);
    // A reload takes it away again.
    drain(&without);
    next.write(|| &without).unwrap();
    assert_eq!(files(folder), ["admin.sock.state"]);
}

#[test]
fn of_two_files_the_latest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [without, with] = [false, true].map(|has_table| with_places(folder, has_table));
    drain(&with);
    StateFile::default().write(|| &with).unwrap();
    std::thread::sleep(Duration::from_millis(2)); // dates are in milliseconds
    let file = StateFile::default();
    file.lock().holds_state = true;
    file.write(|| &without).unwrap();
    assert_eq!(files(folder).len(), 2);
    let next = with_places(folder, true);
    StateFile::start(&next, false).write(|| &next).unwrap();
    assert!(!drains(&next));
    assert_eq!(files(folder), ["table.state"]);
}

#[test]
fn without_a_place_there_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = (*snapshot(folder.path()).config).clone();
    (config.process.stick_table_file, config.process.admin.socket) = (None, None);
    let snapshot = Snapshot::build(config, snapshot::LoadedFiles::default(), None, 1, &Arc::new(Admission::new(1)));
    drain(&snapshot);
    assert_eq!(StateFile::start(&snapshot, false).write(|| &snapshot), Ok(()));
}

/// A runtime on which tasks run when the test lets them.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Lets all tasks go as far as they can.
async fn let_tasks_run() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_write_that_waits_for_another_one_writes_what_is_so_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let current = Arc::new(snapshot::Current::new(snapshot(folder.path())));
    let file = StateFile::start(&current.load_full(), false);
    let file = Arc::new(file);
    let runtime = runtime();
    let under_way = file.lock();
    let written = runtime.spawn(Arc::clone(&file).keep(Arc::clone(&current), false));
    runtime.block_on(let_tasks_run());
    let later = snapshot(folder.path());
    drain(&later);
    current.swap(Arc::new(later));
    drop(under_way);
    assert_eq!(runtime.block_on(written).unwrap(), Ok(()));
    let next = snapshot(folder.path());
    StateFile::start(&next, false);
    assert!(drains(&next));
}

#[test]
fn on_a_dead_disk_one_write_has_a_thread_and_the_others_end_with_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let current = Arc::new(snapshot::Current::new(snapshot(folder.path())));
    let file = Arc::new(StateFile::start(&current.load_full(), false));
    let runtime = runtime();
    let dead = file.lock();
    let keep = |is_last| runtime.spawn(Arc::clone(&file).keep(Arc::clone(&current), is_last));
    let writes: Vec<_> = (0..20).map(|_| keep(false)).collect();
    runtime.block_on(let_tasks_run());
    // As if their time were over.
    writes.iter().for_each(|written| written.abort());
    runtime.block_on(let_tasks_run());
    assert_eq!(Arc::strong_count(&current), 2, "one thread waits");
    // The last write waits for no turn.
    let last = keep(true);
    runtime.block_on(let_tasks_run());
    assert_eq!(Arc::strong_count(&current), 3, "and a second one");
    drop(dead);
    assert_eq!(runtime.block_on(last).unwrap(), Ok(()));
    assert!(file.is_closed.load(Relaxed));
}
