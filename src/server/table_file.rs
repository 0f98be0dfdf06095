//! The stick-table file: [`load`] reads it once at the start, [`TableFileWriter`] writes it at intervals and at the
//! end.
//!
//! Encodes nothing (`sticky::table::file` does). Invariant: the file is replaced whole or not at all, by one write at a
//! time, and only its owner can read it; a damaged file costs its entries and nothing else.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::own_files;
use crate::clock;
use crate::snapshot::Snapshot;
use crate::sticky::table::file::{self, FileRefused, LoadedSection, SectionTarget, Writer};
use crate::sticky::table::{Minute, Secret};

/// The secret of a good file; stick tables must be made with it to find the entries of the file. `None`: there is no
/// good file, and [`load`] logs why.
pub(super) fn secret(path: &Path) -> Option<Secret> {
    open(path).and_then(|file| file.map(file::check).transpose()).ok()?.map(|header| header.secret)
}

/// Loads the entries of the file into the stick tables of the first snapshot.
pub(super) fn load(path: &Path, snapshot: &Snapshot) {
    match open(path).and_then(|file| file.map(|file| read(file, snapshot)).transpose()) {
        Ok(sections) => sections.into_iter().flatten().for_each(|section| report(&section)),
        Err(refused) => tracing::warn!("stick-table file {} {refused}", path.display()),
    }
}

/// Loads the entries that another process has given over.
pub(super) fn load_from(file: File, snapshot: &Snapshot) {
    match read(BufReader::new(file), snapshot) {
        Ok(sections) => sections.iter().for_each(report),
        Err(refused) => tracing::warn!("the stick tables of the other process: a file that {refused}"),
    }
}

fn read(input: BufReader<File>, snapshot: &Snapshot) -> Result<Vec<LoadedSection>, FileRefused> {
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
pub(super) fn write_to(file: &File, snapshot: &Snapshot) -> io::Result<()> {
    let mut writer = Writer::new(BufWriter::new(file), &snapshot.secret, clock::unix_s())?;
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

/// Writes the file, for the whole process.
#[derive(Debug, Default)]
pub(super) struct TableFileWriter(Mutex<()>, Mutex<TableFileReport>);

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
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the file and logs a failure that is new, also an old one if this is the last write.
    pub(super) fn write(&self, path: &Path, snapshot: &Snapshot, is_last: bool) {
        let written = self.store(path, snapshot);
        let mut report = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut report.complaint);
        match written {
            Ok(()) => {
                report.written_unix_s = Some(clock::unix_s());
                if !before.is_empty() {
                    tracing::info!("stick-table file {} is written again", path.display());
                }
            }
            Err(error) => {
                report.failures += 1;
                report.complaint = error.to_string();
                if is_last || before != report.complaint {
                    let (path, why) = (path.display(), &report.complaint);
                    tracing::warn!(
                        "stick-table file {path} cannot be written: {why}; a restart loses the stick tables"
                    );
                }
            }
        }
    }

    /// Writes the entries of every stick table, after a write that is under way.
    pub(super) fn store(&self, path: &Path, snapshot: &Snapshot) -> io::Result<()> {
        // A write that panicked left at most an unfinished file.
        let _alone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        own_files::replace(path, |file| write_to(file, snapshot))
    }
}

/// Opens the file; `None`: there is no file.
fn open(path: &Path) -> Result<Option<BufReader<File>>, FileRefused> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileRefused::Unreadable(error)),
    }
}

fn now() -> Minute {
    Minute::of_ms(clock::now_ms())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Barrier};

    use super::own_files::unfinished;
    use super::*;
    use crate::admission::Admission;
    use crate::config;
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

    fn snapshot(secret: Option<Secret>) -> Snapshot {
        let config = config::check(FILE, &|_| Err(io::ErrorKind::NotFound.into())).unwrap().config;
        let loaded = snapshot::LoadedFiles { secret, ..snapshot::LoadedFiles::default() };
        Snapshot::build(config, loaded, None, 1, &Arc::new(Admission::new(1)))
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
        let after = snapshot(secret(&path));
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
