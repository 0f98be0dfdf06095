//! The stick-table file: [`load`] reads it once at the start, [`TableFileWriter`] writes it at intervals and at the
//! end.
//!
//! Encodes nothing (`sticky::table::file` does). Invariant: the file is replaced whole or not at all, by one write at a
//! time, and only its owner can read it; a damaged file costs its entries and nothing else, and a disk that does not
//! answer holds neither the start nor the end.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::files::{self, FileIdentity};
use super::{lock_of, own_files};
use crate::clock;
use crate::detached::{self, FOR_READING, Patience, Unfinished};
use crate::events::{self, Event, EventKind, Subject};
use crate::regular_file;
use crate::snapshot::Snapshot;
use crate::sticky::table::file::{self, FileRefused, LoadedSection, SectionTarget, Writer};
use crate::sticky::table::{Minute, Secret};
use crate::waiting::{self, Stepwise};

/// For a file of any length, as long as its disk goes on to answer.
const FOR_A_FILE: Patience = Patience { whole: Duration::MAX, ..FOR_READING };

/// Bytes after which what was written is brought to the disk, so that no single step takes long.
const SYNC_EVERY: usize = 16 << 20;

/// The file while it is read.
type Input = BufReader<Stepwise<File>>;

/// The secret of a good file; stick tables must be made with it to find the entries of the file. `None`: there is no
/// good file, and [`load`] logs why. An error: the disk does not answer.
pub(super) fn secret(path: &Path) -> Result<Option<Secret>, Unfinished> {
    let path = path.to_owned();
    detached::within("stick_table", FOR_A_FILE, move || {
        let header = read(&path, file::check).ok().flatten();
        header.map(|header| header.secret)
    })
}

/// Loads the entries of the file into the stick tables of the first snapshot.
pub(super) fn load(path: &Path, snapshot: &Arc<Snapshot>) {
    let (file, of_thread) = (path.to_owned(), Arc::clone(snapshot));
    let load = move || load_here(&file, &of_thread);
    if let Err(unfinished) = detached::within("stick_table", FOR_A_FILE, load) {
        tracing::warn!("stick-table file {}: {unfinished}; some clients may not be known", path.display());
    }
}

/// Does the same with the file that the snapshot itself names, if it names one.
pub(super) fn load_own(snapshot: &Arc<Snapshot>) {
    if let Some(path) = &snapshot.config.process.stick_table_file {
        load(path, snapshot);
    }
}

fn load_here(path: &Path, snapshot: &Snapshot) {
    match read(path, |input| load_into(snapshot, input)) {
        Ok(sections) => sections.into_iter().flatten().for_each(|section| report(&section)),
        Err(refused) => tracing::warn!("stick-table file {} {refused}", path.display()),
    }
}

/// Loads the entries that another process has given over.
pub(super) fn load_from(file: File, snapshot: &Snapshot) {
    match load_into(snapshot, BufReader::new(file)) {
        Ok(sections) => sections.iter().for_each(report),
        Err(refused) => tracing::warn!("the stick tables of the other process: a file that {refused}"),
    }
}

fn load_into(snapshot: &Snapshot, input: impl Read) -> Result<Vec<LoadedSection>, FileRefused> {
    let target = |name: &str| {
        let of_group = || snapshot.pools.iter().find(|pool| &**pool.sticks_as() == name);
        let pool = snapshot.pool(name).or_else(of_group)?;
        Some(SectionTarget {
            table: pool.table()?.stick_table(),
            hash_seed: pool.config().hash_seed,
            backends: pool.backends().iter().map(|backend| backend.name()).collect(),
        })
    };
    file::load(input, clock::unix_s(), now(), target)
}

/// Writes the entries of every stick table, with the secret that finds them.
pub(super) fn write_to(out: impl Write, snapshot: &Snapshot) -> io::Result<()> {
    let mut writer = Writer::new(BufWriter::new(out), &snapshot.secret, clock::unix_s())?;
    for (name, pools) in snapshot.stick_tables() {
        if let Some((pool, table)) = pools.first().and_then(|pool| Some((pool, pool.table()?.stick_table()))) {
            let names = pool.backends().iter().map(|backend| backend.name());
            writer.section(name, pool.config().hash_seed, names, table, now())?;
        }
    }
    writer.finish()?.flush()
}

fn report(section: &LoadedSection) {
    let LoadedSection { name, kept, over, removed, .. } = section;
    match &section.refused {
        None => tracing::info!(
            "{name:?} remembers {kept} clients; the time of {over} was over, and the backends of {removed} are gone"
        ),
        Some(refused) => tracing::warn!("what {name:?} remembered {refused}"),
    }
}

/// Writes the file, for the whole process: an unfinished file has one name, so a crash leaves at most one, which the
/// next write removes.
#[derive(Debug, Default)]
pub(super) struct TableFileWriter {
    /// Held by the thread that writes.
    ownership: Mutex<Ownership>,
    /// The file is a next process's, and this one leaves it alone, also with a write that is under way.
    is_left: AtomicBool,
    report: Mutex<TableFileReport>,
    /// A write that was given up; its thread may go on.
    stuck: Mutex<Option<Unfinished>>,
}

/// Which process the file belongs to.
#[derive(Debug, Default)]
enum Ownership {
    /// This process writes the file, and no other.
    #[default]
    Own,
    /// This process stops, and another may write the file. `Some`: the file that this process has seen last.
    Shared(Option<FileIdentity>),
    /// Another process has written the file.
    Lost,
}

/// How the writes of the file went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TableFileReport {
    /// Writes that failed.
    pub(super) failures: u64,
    /// When the file was last written, in seconds since 1970; `None`: not by this process.
    pub(super) written_unix_s: Option<u64>,
    /// Why the last write failed; empty if it did not.
    pub(super) complaint: String,
}

impl TableFileWriter {
    /// How the writes went so far.
    pub(super) fn report(&self) -> TableFileReport {
        lock_of(&self.report).clone()
    }

    /// Writes the file on a thread of its own, and waits as long as the disk answers; for the last time, no longer than
    /// a minute.
    pub(super) async fn write_aside(self: &Arc<Self>, path: &Path, snapshot: Arc<Snapshot>, is_last: bool) {
        let stuck = lock_of(&self.stuck).clone().filter(Unfinished::is_running);
        let unfinished = match stuck {
            Some(stuck) => Some(stuck),
            None => {
                let (writer, file) = (Arc::clone(self), path.to_owned());
                let patience = if is_last { FOR_READING } else { FOR_A_FILE };
                let write = move || writer.write(&file, &snapshot, is_last);
                detached::finished_within("stick_table", patience, write).await.err()
            }
        };
        if let Some(unfinished) = unfinished {
            self.note(path, Err(unfinished.to_string()), is_last);
            *lock_of(&self.stuck) = Some(unfinished);
        }
    }

    /// Writes the file and logs a failure that is new, also an old one if this is the last write.
    fn write(&self, path: &Path, snapshot: &Snapshot, is_last: bool) {
        let store = || self.store(path, snapshot);
        match waiting::on(|| format!("writing \"{}\"", path.display()), store) {
            Ok(false) => {}
            Ok(true) => self.note(path, Ok(()), is_last),
            Err(error) => self.note(path, Err(error.to_string()), is_last),
        }
    }

    fn note(&self, path: &Path, written: Result<(), String>, is_last: bool) {
        let mut report = lock_of(&self.report);
        let before = std::mem::take(&mut report.complaint);
        match written {
            Ok(()) => {
                report.written_unix_s = Some(clock::unix_s());
                if !before.is_empty() {
                    let text = format!("stick-table file {} is written again", path.display());
                    events::info(
                        clock::unix_ms(),
                        Event::new(EventKind::FileWritten, &text).of(Subject::StickTableFile),
                    );
                }
            }
            Err(error) => {
                report.failures += 1;
                report.complaint = error;
                if is_last || before != report.complaint {
                    let (path, why) = (path.display(), &report.complaint);
                    let text =
                        format!("stick-table file {path} cannot be written: {why}; a restart loses the stick tables");
                    events::warn(
                        clock::unix_ms(),
                        Event::new(EventKind::FileFailed, &text).of(Subject::StickTableFile),
                    );
                }
            }
        }
    }

    /// Notes that this process stops: it writes the file for as long as no other process has written it.
    pub(super) fn share(&self, path: &Path) {
        let mut ownership = self.ownership.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*ownership, Ownership::Own) {
            *ownership = Ownership::Shared(files::identity(path));
        }
    }

    /// Leaves the file to a next process that serves clients. A write that is under way comes to nothing.
    pub(super) fn leave(&self) {
        self.is_left.store(true, Relaxed);
    }

    /// Writes the entries of every stick table, after a write that is under way. False: the file is another process's.
    pub(super) fn store(&self, path: &Path, snapshot: &Snapshot) -> io::Result<bool> {
        // A write that panicked left at most an unfinished file.
        let mut ownership = self.ownership.lock().unwrap_or_else(PoisonError::into_inner);
        let is_lost = |ownership: &mut Ownership| self.is_left.load(Relaxed) || ownership.is_lost(path);
        if is_lost(&mut ownership) {
            return Ok(false);
        }
        // A process that stops has an unfinished file of its own, beside that of the next.
        let suffix = if matches!(*ownership, Ownership::Own) { own_files::UNFINISHED } else { ".last" };
        let write = |file: &File| write_to(SteadyFile { file, unsynced: 0 }, snapshot);
        // The disk may have taken long, and the next process may have been faster.
        if !own_files::replace(path, suffix, write, || is_lost(&mut ownership))? {
            return Ok(false);
        }
        if let Ownership::Shared(seen) = &mut *ownership {
            *seen = files::identity(path);
        }
        Ok(true)
    }
}

impl Ownership {
    /// True if another process has written the file since this one began to stop.
    fn is_lost(&mut self, path: &Path) -> bool {
        if matches!(self, Self::Shared(seen) if *seen != files::identity(path)) {
            *self = Self::Lost;
        }
        matches!(self, Self::Lost)
    }
}

/// A file that comes to the disk in pieces; each piece is a step of the write.
struct SteadyFile<'f> {
    file: &'f File,
    unsynced: usize,
}

impl Write for SteadyFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.unsynced += count;
        if self.unsynced >= SYNC_EVERY {
            waiting::step();
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        waiting::step();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads the file; `None`: there is no file.
fn read<T>(path: &Path, read: impl FnOnce(Input) -> Result<T, FileRefused>) -> Result<Option<T>, FileRefused> {
    let read = || match regular_file::open(path) {
        Ok(file) => read(BufReader::new(file)).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileRefused::Unreadable(error)),
    };
    waiting::on(|| format!("reading \"{}\"", path.display()), read)
}

fn now() -> Minute {
    Minute::of_ms(clock::now_ms())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::admission::Admission;
    use crate::config;
    use crate::server::own_files::{UNFINISHED, with_suffix};
    use crate::snapshot;
    use crate::sticky::table::{BackendState, EntryKind, EntryValue, IdMap, TableLookup};

    const FILE: &str = r#"
[[listener]]
name = "web"
bind = "127.0.0.1:0"
pool = "p"

[[pool]]
name = "p"
http = true
backend = [{ name = "a", address = "127.0.0.1:1" }, { name = "b", address = "127.0.0.1:2" }]

[pool.cookie]
mode = "learn"
name = "SID"
remember = "1d"
"#;

    fn unfinished(path: &Path) -> std::path::PathBuf {
        with_suffix(path, UNFINISHED)
    }

    fn snapshot(secret: Option<Secret>) -> Snapshot {
        let config = config::check(FILE, &|_| Err(io::ErrorKind::NotFound.into())).unwrap().config;
        let loaded = snapshot::LoadedFiles { secret, ..snapshot::LoadedFiles::default() };
        Snapshot::build(config, loaded, None, 1, &Arc::new(Admission::new(1)))
    }

    #[test]
    fn a_process_that_stops_writes_the_file_until_another_has_written_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stick-table");
        let snapshot = snapshot(None);
        let (old, new) = (TableFileWriter::default(), TableFileWriter::default());
        assert!(old.store(&path, &snapshot).unwrap());
        old.share(&path);
        assert!(old.store(&path, &snapshot).unwrap() && old.store(&path, &snapshot).unwrap(), "no other has written");
        assert!(new.store(&path, &snapshot).unwrap());
        let of_the_new = files::identity(&path);
        old.share(&path);
        assert!(!old.store(&path, &snapshot).unwrap(), "the file is the next process's");
        old.write(&path, &snapshot, true);
        assert_eq!(files::identity(&path), of_the_new);
        assert_eq!((old.report().failures, fs::read_dir(dir.path()).unwrap().count()), (0, 1));
        new.share(&path);
        new.leave();
        new.share(&path);
        assert!(!new.store(&path, &snapshot).unwrap(), "another process serves, which has not written it yet");
    }

    #[test]
    fn a_file_is_left_to_the_next_process_also_while_a_write_of_this_one_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stick-table");
        let (snapshot, writer) = (snapshot(None), TableFileWriter::default());
        let hangs = writer.ownership.lock().unwrap();
        writer.leave();
        drop(hangs);
        assert!(!writer.store(&path, &snapshot).unwrap() && !path.exists());
    }

    #[test]
    fn a_value_last_used_before_keys_are_over_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stick-table");
        let before = snapshot(None);
        let table = before.pools[0].table().unwrap().stick_table();
        let id = IdMap::new(table.ids(), ["b"]).id(0).unwrap();
        for (value, kind) in [("set", EntryKind::Learned), ("brought", EntryKind::Brought)] {
            let key = table.secret().cookie(value.as_bytes());
            let _ = table.settle(key, EntryValue { id, kind }, now().before(240), |_| BackendState::Usable);
        }
        TableFileWriter::default().store(&path, &before).unwrap();
        let after = Arc::new(snapshot(secret(&path).unwrap()));
        load(&path, &after);
        for (value, kind) in [("set", EntryKind::Learned), ("brought", EntryKind::Brought)] {
            let recalled = after.pools[0].table().unwrap().lookup_value(value.as_bytes(), clock::now() / 1_000);
            assert_eq!(recalled, TableLookup::At(1, kind), "{value}");
        }
    }

    #[test]
    fn writes_that_fail_are_reported_until_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder").join("stick-table");
        // A file in the place of the folder, which is made where it is only missing.
        fs::write(path.parent().unwrap(), "").unwrap();
        let (snapshot, writer) = (snapshot(None), TableFileWriter::default());
        assert_eq!(writer.report(), TableFileReport::default());
        (0..2).for_each(|_| writer.write(&path, &snapshot, false));
        let report = writer.report();
        assert_eq!((report.failures, report.written_unix_s), (2, None));
        assert!(report.complaint.contains("cannot be made"), "{report:?}");
        fs::remove_file(path.parent().unwrap()).unwrap();
        writer.write(&path, &snapshot, false);
        let report = writer.report();
        assert_eq!((report.failures, &*report.complaint), (2, ""));
        assert!(report.written_unix_s.is_some());
    }

    #[test]
    fn two_who_write_at_once_leave_one_whole_file() {
        const ROUNDS: u64 = 10;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stick-table");
        let snapshot = snapshot(None);
        let table = snapshot.pools[0].table().unwrap().stick_table();
        let id = IdMap::new(table.ids(), ["a"]).id(0).unwrap();
        let (keeper, begin) = (TableFileWriter::default(), Barrier::new(2));
        let write = || {
            let replaced = |_: &u64| {
                begin.wait();
                keeper.store(&path, &snapshot).is_ok()
            };
            (0..ROUNDS).filter(replaced).count() as u64
        };
        std::thread::scope(|scope| {
            // Of different lengths, as others come and go.
            scope.spawn(|| {
                for n in 0..100_000_u64 {
                    let key = table.secret().key(&n.to_be_bytes());
                    let _ = table
                        .settle(key, EntryValue { id, kind: EntryKind::Displaced }, now(), |_| BackendState::Usable);
                }
            });
            let both = [scope.spawn(write), scope.spawn(write)];
            assert_eq!(both.map(|one| one.join().unwrap()), [ROUNDS; 2], "each replaces the file, every time");
        });
        assert!(file::check(BufReader::new(File::open(&path).unwrap())).is_ok());
        assert!(!unfinished(&path).exists());
    }

    #[test]
    fn a_file_is_nobody_elses_to_read_whatever_was_left_behind() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let snapshot = snapshot(None);
        let paths = ["table.a", "table.b", "table.new"].map(|name| dir.path().join(name));
        for path in &paths {
            fs::write(unfinished(path), "half").unwrap();
            fs::set_permissions(unfinished(path), fs::Permissions::from_mode(0o644)).unwrap();
        }
        for path in &paths {
            TableFileWriter::default().store(path, &snapshot).unwrap();
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(paths.iter().all(|path| file::check(BufReader::new(File::open(path).unwrap())).is_ok()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), paths.len(), "nothing is left behind");
    }
}
