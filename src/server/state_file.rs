//! [`StateFile`]: reads the state file once at the start, and writes it at each command, at intervals and before the
//! stop.
//!
//! Decides nothing about backends (`runtime_state` does). [`last`] is for the backends that sources had named, which a
//! start needs before it has a snapshot. Invariants: the file is replaced whole or not at all, by one
//! write at a time, and only its owner can read it; after the last write nothing is written, because the file belongs to
//! the next process from then on; a damaged file costs its contents and nothing else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Deref;
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
use crate::snapshot::{Current, Snapshot};

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
    /// Taken before a thread is: of all writes that are asked for on a dead disk one has a thread.
    turn: Arc<tokio::sync::Mutex<()>>,
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
            let _ = file.write(|| snapshot);
        }
        file
    }

    /// Where the file is, and how the writes went so far; `None`: there is no place for it.
    pub(super) fn report(&self, config: &Config) -> Option<(PathBuf, TableFileReport)> {
        Some((places(config).next()?, lock_of(&self.report).clone()))
    }

    /// Writes the state on a thread that may wait for the disk. `is_last`: the last time.
    async fn keep(self: Arc<Self>, current: Arc<Current>, is_last: bool) -> Result<(), String> {
        let written = async move {
            // The last write is never left out, however long the disk takes.
            let turn = if is_last { None } else { Some(Arc::clone(&self.turn).lock_owned().await) };
            let write = move || {
                let _turn = turn;
                let in_force = || current.load_full();
                if is_last { self.write_last(in_force) } else { self.write(in_force) }
            };
            tokio::task::spawn_blocking(write).await
        };
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(written) => written.unwrap_or_else(|panic| Err(format!("state file: {panic}"))),
            Err(_) => Err(format!("the state file is not written after {} s", PATIENCE.as_secs())),
        }
    }

    /// Writes the state of now; the error is why a restart will not know it. `in_force`: says the snapshot once the write
    /// before is over, so that no write brings back what was so before another one.
    pub(super) fn write<S: Deref<Target = Snapshot>>(&self, in_force: impl FnOnce() -> S) -> Result<(), String> {
        let mut writing = self.lock();
        let snapshot = &*in_force();
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
    fn write_last<S: Deref<Target = Snapshot>>(&self, in_force: impl FnOnce() -> S) -> Result<(), String> {
        let written = self.write(in_force);
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
        Arc::clone(&self.state_file).keep(Arc::clone(&self.current), is_last).await
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
mod tests;
