//! [`StateFile`]: reads the state file once at the start, and writes it at each command, at intervals and before the
//! stop.
//!
//! Decides nothing about backends (`runtime_state` does). [`last`] is for the backends that sources had named, which a
//! start needs before it has a snapshot. Invariants: the file is replaced whole or not at all, by one
//! write at a time, and only its owner can read it; after the last write nothing is written, because the file belongs to
//! the next process from then on; a damaged file costs its contents and nothing else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::runtime_state::RuntimeState;
use super::table_file::TableFileReport;
use super::{Server, lock_of, own_files};
use crate::clock;
use crate::config::Config;
use crate::events::{self, Event, EventKind, Subject};
use crate::regular_file::{self, WholeFile};
use crate::snapshot::Snapshot;

/// Most bytes of the file that are read: far beyond what thousands of backends need.
const FILE_MAX: u64 = 16 << 20;

/// How long a command and the stop wait for the disk.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why nothing is written any more.
const STOPPING: &str = "the process is stopping";

/// Where the file may be: beside the stick-table file, or beside the admin socket. The first place is that of this
/// configuration; the second one counts for what a process without a stick-table file has left.
fn places(config: &Config) -> impl Iterator<Item = PathBuf> {
    let process = &config.process;
    process.stick_table_file.iter().chain(&process.admin.socket).map(|beside| own_files::with_suffix(beside, ".state"))
}

/// True if a configuration has a place for the file.
pub(super) fn has_place(config: &Config) -> bool {
    places(config).next().is_some()
}

/// What the process before has kept for a configuration; `None`: nothing that can be read.
pub(super) fn last(config: &Config) -> Option<RuntimeState> {
    // Of a file that cannot be read the start says more.
    let states = places(config).filter_map(|path| read(&path).ok().flatten());
    states.max_by_key(RuntimeState::written_unix_ms)
}

/// Writes the file, for the whole process. The report has a lock of its own, because a write may wait for the disk.
#[derive(Debug, Default)]
pub(super) struct StateFile {
    writing: Mutex<Writing>,
    report: Mutex<TableFileReport>,
    /// The file belongs to the next process, also during a write that is under way.
    is_closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Writing {
    /// The files that are there: one, or two before the first write in another place.
    files: Vec<PathBuf>,
    /// True if a file holds state, so that the end of it must be written, too.
    holds_state: bool,
}

impl StateFile {
    /// The file of a process that begins. `follows`: the process before gives its state over by itself, and nothing of
    /// it is forgotten.
    pub(super) fn of_process(snapshot: &Snapshot, fresh: bool, follows: bool) -> Arc<Self> {
        Arc::new(if follows { Self::beside(snapshot) } else { Self::start(snapshot, fresh) })
    }

    /// Notes the files, and takes nothing from them.
    fn beside(snapshot: &Snapshot) -> Self {
        let file = Self::default();
        let files = places(&snapshot.config).filter(|path| path.exists());
        let mut writing = file.lock();
        writing.files = files.collect();
        writing.holds_state = !writing.files.is_empty();
        drop(writing);
        file
    }

    /// Takes over what the process before has kept, before the first client. `fresh`: forgets it instead.
    fn start(snapshot: &Snapshot, fresh: bool) -> Self {
        let file = Self::default();
        let mut latest: Option<RuntimeState> = None;
        for path in places(&snapshot.config) {
            match read(&path) {
                Ok(None) => continue,
                _ if fresh => tracing::info!("state file {}: forgotten, because of --fresh", path.display()),
                Ok(state) => latest = latest.into_iter().chain(state).max_by_key(RuntimeState::written_unix_ms),
                Err(why) => tracing::warn!("state file {} {why}; drains by command are forgotten", path.display()),
            }
            let mut writing = file.lock();
            writing.files.push(path);
            writing.holds_state = true;
        }
        if let Some(state) = latest {
            state.left_out().into_iter().for_each(|what| tracing::warn!("state file: it {what}"));
            let lines = state.apply(snapshot, clock::now_ms(), clock::unix_ms());
            lines.iter().for_each(|line| tracing::info!("{line}"));
        }
        if fresh {
            // A failure is in the log.
            let _ = file.write(snapshot);
        }
        file
    }

    /// Where the file is, and how the writes went so far; `None`: there is no place for it.
    pub(super) fn report(&self, config: &Config) -> Option<(PathBuf, TableFileReport)> {
        Some((places(config).next()?, lock_of(&self.report).clone()))
    }

    /// Writes the state of now; the error is why a restart will not know it.
    pub(super) fn write(&self, snapshot: &Snapshot) -> Result<(), String> {
        let mut writing = self.lock();
        let is_closed = || self.is_closed.load(Relaxed);
        if is_closed() {
            return Err(STOPPING.to_owned());
        }
        let Some(path) = places(&snapshot.config).next() else { return Ok(()) };
        let state = RuntimeState::of(snapshot, clock::now_ms(), clock::unix_ms()).for_file();
        if state.is_empty() && !writing.holds_state {
            return Ok(());
        }
        let text = state.to_json() + "\n";
        let write = |mut file: &File| file.write_all(text.as_bytes());
        let written = own_files::replace(&path, own_files::UNFINISHED, write, is_closed);
        let mut report = lock_of(&self.report);
        let before = std::mem::take(&mut report.complaint);
        match written {
            Ok(false) => Err(STOPPING.to_owned()),
            Ok(true) => {
                report.written_unix_s = Some(clock::unix_s());
                if !before.is_empty() {
                    let text = format!("state file {} is written again", path.display());
                    events::info(clock::unix_ms(), Event::new(EventKind::FileWritten, &text).of(Subject::StateFile));
                }
                writing.holds_state = !state.is_empty();
                for old in std::mem::replace(&mut writing.files, vec![path.clone()]) {
                    if old != path {
                        // One that stays is older than the new file, and so is not taken over.
                        let _ = fs::remove_file(old);
                    }
                }
                Ok(())
            }
            Err(error) => {
                report.failures += 1;
                report.complaint = error.to_string();
                let (path, why) = (path.display(), &report.complaint);
                if before != *why {
                    let text = format!("state file {path} cannot be written: {why}; a restart forgets commands");
                    events::warn(clock::unix_ms(), Event::new(EventKind::FileFailed, &text).of(Subject::StateFile));
                }
                Err(format!("state file {path}: {why}"))
            }
        }
    }

    /// Writes the state for the last time: from here on the file belongs to the next process.
    pub(super) fn write_last(&self, snapshot: &Snapshot) -> Result<(), String> {
        let written = self.write(snapshot);
        self.close();
        written
    }

    /// Writes nothing any more: the file belongs to another process.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        // A write that panicked left at most an unfinished file.
        lock_of(&self.writing)
    }
}

impl Server {
    /// Writes the state file on a thread that may wait for the disk; the error is why a restart will not know the state.
    /// `is_last`: the file belongs to the next process from then on.
    pub(super) async fn keep_state(&self, is_last: bool) -> Result<(), String> {
        let (file, snapshot) = (Arc::clone(&self.state_file), self.current.load_full());
        let write = move || if is_last { file.write_last(&snapshot) } else { file.write(&snapshot) };
        match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(write)).await {
            Ok(written) => written.unwrap_or_else(|panic| Err(format!("state file: {panic}"))),
            Err(_) => Err(format!("the state file is not written after {} s", PATIENCE.as_secs())),
        }
    }
}

/// Reads the file; `None`: there is no file. The error is what to say behind the name of the file.
fn read(path: &Path) -> Result<Option<RuntimeState>, String> {
    let whole = regular_file::read(path, FILE_MAX);
    if let Ok(WholeFile { owner, .. }) = whole
        && own_files::is_of_another(owner)
    {
        return Err(format!("is not read: it belongs to user {owner}, not to this one or root"));
    }
    match whole.and_then(WholeFile::text) {
        Ok(text) => RuntimeState::from_json(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
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
        file.write(&before).unwrap();
        assert!(!path.exists(), "nothing to keep");
        drain(&before);
        file.write(&before).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let after = snapshot(folder.path());
        let file = StateFile::start(&after, false);
        assert!(drains(&after));
        assert!(after.pools[0].order("a", AdminState::Ready, clock::now_ms()));
        file.write(&after).unwrap();
        let last = snapshot(folder.path());
        StateFile::start(&last, false);
        assert!(!drains(&last));
    }

    #[test]
    fn a_fresh_start_forgets_for_itself_and_for_those_that_follow() {
        let folder = tempfile::tempdir().unwrap();
        let before = snapshot(folder.path());
        drain(&before);
        StateFile::default().write(&before).unwrap();
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
        file.write_last(&before).unwrap();
        drain(&before);
        assert!(file.write(&before).is_err(), "and a command says so");
        assert!(file.write_last(&before).is_err());
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
        assert!(file.write(&snapshot).is_err() && !folder.path().join("table.state").exists());
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
            StateFile::start(&snapshot, false).write(&snapshot).unwrap();
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
        StateFile::default().write(&before).unwrap();
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
        assert!(file.write(&snapshot).unwrap_err().contains("cannot be made"));
        let (path, report) = file.report(&snapshot.config).unwrap();
        assert_eq!((path, report.failures, report.written_unix_s), (inner.join("table.state"), 1, None));
        assert!(report.complaint.contains("cannot be made"), "{report:?}");
        fs::remove_file(&inner).unwrap();
        file.write(&snapshot).unwrap();
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
        file.write(&without).unwrap();
        assert_eq!(files(folder), ["admin.sock.state"]);
        // The next process has a stick-table file.
        let next = StateFile::start(&with, false);
        assert!(drains(&with));
        next.write(&with).unwrap();
        assert_eq!(files(folder), ["table.state"]);
        // A reload takes it away again.
        drain(&without);
        next.write(&without).unwrap();
        assert_eq!(files(folder), ["admin.sock.state"]);
    }

    #[test]
    fn of_two_files_the_latest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let [without, with] = [false, true].map(|has_table| with_places(folder, has_table));
        drain(&with);
        StateFile::default().write(&with).unwrap();
        std::thread::sleep(Duration::from_millis(2)); // dates are in milliseconds
        let file = StateFile::default();
        file.lock().holds_state = true;
        file.write(&without).unwrap();
        assert_eq!(files(folder).len(), 2);
        let next = with_places(folder, true);
        StateFile::start(&next, false).write(&next).unwrap();
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
        assert_eq!(StateFile::start(&snapshot, false).write(&snapshot), Ok(()));
    }
}
