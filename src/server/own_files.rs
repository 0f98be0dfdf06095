//! The files that the process writes: [`problems`] names those that cannot be written, [`make_folder`] makes the folder
//! of one, [`replace`] puts another file in the place of one.
//!
//! Knows no contents. Invariants: `check` and `run` judge by the same rules, so that a configuration that `check`
//! accepts does not fail for want of a folder, as long as the same user runs both; a file is replaced whole or not at
//! all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::geteuid;

use crate::config::{Bind, Config, FileProblem, LogOutput};
use crate::detached::{self, Patience};
use crate::regular_file;
use crate::socket;
use crate::socket::unix_file::UnixFile;
use crate::waiting;

/// Mode of a folder for sockets, which other users connect to.
pub(super) const OPEN: u32 = 0o755;
/// Mode of a folder for the log, which the group reads.
pub(super) const OF_GROUP: u32 = 0o750;
/// Mode of a folder for files that are only for this user.
pub(super) const PRIVATE: u32 = 0o700;

/// Suffix of a file that is not whole yet.
pub(super) const UNFINISHED: &str = ".new";

/// A file that the process writes, with the key that names it.
struct WrittenFile<'c> {
    object: String,
    key: &'static str,
    /// The element of a list, as written.
    element: Option<String>,
    path: &'c Path,
    is_socket: bool,
    /// True: the file is made if it is missing, and never replaced.
    is_kept: bool,
}

/// The files of a configuration that cannot be written, and groups that do not exist. `in_force`: files that this
/// configuration has as well are in use already, and not judged again.
pub(super) fn problems(config: &Config, in_force: Option<&Config>) -> Vec<FileProblem> {
    let known: Vec<_> = in_force.into_iter().flat_map(files).map(|file| file.path.to_owned()).collect();
    let judged = |file: WrittenFile<'_>| {
        let judge = || judge(&file).filter(|_| !known.iter().any(|path| path == file.path));
        // Also of a file in use: its disk answers, so the thread that puts the configuration in force does not wait.
        waiting::on(|| format!("looking at \"{}\"", file.path.display()), judge).map(|bad| file.problem(&bad))
    };
    files(config).into_iter().filter_map(judged).chain(unknown_groups(config)).collect()
}

/// True if a file, or with `is_socket` a socket, can be made at the path, with the folders that are missing.
pub fn is_writable(path: &Path, is_socket: bool) -> bool {
    judge(&WrittenFile { object: String::new(), key: "", element: None, path, is_socket, is_kept: false }).is_none()
}

/// Makes the folder of a file, and those above it, if they are missing.
pub(super) fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    let folder = folder_of(path);
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("the folder \"{}\" cannot be made: {error}", folder.display()))
    };
    if folder.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(mode).create(folder).map_err(failed) }
}

/// Writes a new file and puts it in the place of `path`, when it is whole and on the disk; false: `keeps` became true
/// meanwhile, and the file stays. Only its owner can read it. An unfinished file has one name, with this suffix, so a
/// crash leaves at most one, which the next write removes. Of two calls for one name the last one to begin counts.
pub(super) fn replace(
    path: &Path,
    suffix: &str,
    write: impl FnOnce(&File) -> io::Result<()>,
    keeps: impl FnOnce() -> bool,
) -> io::Result<bool> {
    make_folder(path, PRIVATE)?;
    let unfinished = with_suffix(path, suffix);
    // The file is created anew: one that was left behind may be readable for others, and this one may hold a secret.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    write(&file)?;
    file.sync_all()?;
    let keeps = keeps();
    // The disk may have taken long, and another process may have begun a file of this name meanwhile.
    if !is_at(&file, &unfinished) {
        return if keeps { Ok(false) } else { Err(io::Error::other("another process writes the file")) };
    }
    if keeps {
        let _ = fs::remove_file(&unfinished);
        return Ok(false);
    }
    fs::rename(&unfinished, path)?;
    Ok(true)
}

/// True if this open file is the one at the path.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |there: fs::Metadata| (there.dev(), there.ino());
    file.metadata().ok().map(identity).is_some_and(|own| path.symlink_metadata().ok().map(identity) == Some(own))
}

/// The name of another file beside this one. The suffix follows the whole name, because the files of two instances may
/// differ only in what looks like an extension.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes the file of a socket that is given up. A disk that does not answer holds the caller for a second: the next
/// start finds the file.
pub(super) fn remove_socket(file: &UnixFile) {
    const PATIENCE: Patience = Patience { each: Duration::from_secs(1), whole: Duration::from_secs(1) };
    let of_thread = file.clone();
    if let Err(unfinished) = detached::within("remove", PATIENCE, move || of_thread.remove()) {
        tracing::warn!("{} is not removed: {unfinished}", file.path().display());
    }
}

/// True for a file of another user than this one and root: it may hold what that user wants to be believed.
pub(super) fn is_of_another(owner: u32) -> bool {
    owner != 0 && owner != geteuid().as_raw()
}

fn files(config: &Config) -> Vec<WrittenFile<'_>> {
    let process = &config.process;
    let socket = process.admin.socket.as_deref().map(|path| WrittenFile {
        object: "admin".to_owned(),
        key: "socket",
        element: None,
        path,
        is_socket: true,
        is_kept: false,
    });
    let table = process.stick_table_file.as_deref().map(|path| WrittenFile {
        object: String::new(),
        key: "stick_table_file",
        element: None,
        path,
        is_socket: false,
        is_kept: false,
    });
    let log = match &process.log.output {
        LogOutput::File(path) => Some(path.as_path()),
        LogOutput::Stdout | LogOutput::Journal => None,
    };
    let log = log.map(|path| WrittenFile {
        object: "log".to_owned(),
        key: "output",
        element: None,
        path,
        is_socket: false,
        is_kept: true,
    });
    let keys = config.cookies().filter_map(|(object, cookie)| {
        let (path, object) = (cookie.made_keys()?, format!("{object}: cookie"));
        Some(WrittenFile { object, key: "keys", element: None, path, is_socket: false, is_kept: true })
    });
    let listeners = config.listeners.iter().flat_map(|listener| {
        listener.bind.iter().filter_map(|bind| match bind {
            Bind::Unix(path) => Some(WrittenFile {
                object: format!("listener \"{}\"", listener.name),
                key: "bind",
                element: Some(bind.to_string()),
                path,
                is_socket: true,
                is_kept: false,
            }),
            Bind::Tcp(_) | Bind::Systemd(_) => None,
        })
    });
    socket.into_iter().chain(table).chain(log).chain(keys).chain(listeners).collect()
}

/// Why a file cannot be written; `None`: it can.
fn judge(file: &WrittenFile<'_>) -> Option<String> {
    match fs::symlink_metadata(file.path) {
        // What is wrong with it shows when it is read or opened.
        Ok(_) if file.is_kept => return None,
        Ok(there) if file.is_socket && !there.file_type().is_socket() => {
            return Some("a file that is not a socket is in the way".to_owned());
        }
        Ok(there) if there.is_dir() => return Some("it is a folder".to_owned()),
        // A write would replace it; a symbolic link is replaced too, whatever it leads to.
        Ok(there) if !file.is_socket && !there.is_symlink() => {
            if let Some(kind) = regular_file::other_kind(&there) {
                return Some(format!("it is {kind}, not a file"));
            }
        }
        _ => {}
    }
    let folder = folder_of(file.path);
    let mut existing = folder;
    loop {
        match fs::metadata(existing) {
            Ok(there) if there.is_dir() => break,
            Ok(_) => return Some(format!("\"{}\" is not a folder", existing.display())),
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {}
            Err(error) => return Some(format!("the folder \"{}\": {error}", existing.display())),
        }
        existing = existing.parent().map_or(Path::new("."), or_here);
    }
    let error = accessat(CWD, existing, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).err()?;
    let error = io::Error::from(error);
    let folder = folder.display();
    Some(match existing == folder_of(file.path) {
        true => format!("the folder \"{folder}\" cannot be written: {error}"),
        false => {
            format!("the folder \"{folder}\" does not exist and cannot be made in \"{}\": {error}", existing.display())
        }
    })
}

impl WrittenFile<'_> {
    fn problem(&self, bad: &str) -> FileProblem {
        let message = format!("\"{}\": {bad}", self.path.display());
        let folder = folder_of(self.path).display();
        let other = match self.key {
            "socket" => "another socket in [admin], or \"off\"",
            _ => "another path here",
        };
        let hint = bad.starts_with("the folder").then(|| {
            format!("as root: install -d -o USER {folder}, where USER is the user that runs sessile; or write {other}")
        });
        FileProblem { element: self.element.clone(), hint, ..FileProblem::new(&self.object, self.key, message) }
    }
}

fn unknown_groups(config: &Config) -> impl Iterator<Item = FileProblem> {
    let admin = config.process.admin.group.as_ref().map(|group| ("admin".to_owned(), group));
    let listeners = config
        .listeners
        .iter()
        .filter_map(|listener| listener.group.as_ref().map(|group| (format!("listener \"{}\"", listener.name), group)));
    admin.into_iter().chain(listeners).filter_map(|(object, group)| {
        let unknown = socket::unix_file::group_id(group).err()?;
        Some(FileProblem::new(object, "group", format!("\"{group}\" {unknown}")))
    })
}

fn folder_of(path: &Path) -> &Path {
    path.parent().map_or(Path::new("."), or_here)
}

/// The working directory stands in for the empty path.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn judged(path: &Path, is_socket: bool) -> Option<String> {
        judge(&WrittenFile { object: String::new(), key: "bind", element: None, path, is_socket, is_kept: false })
    }

    #[test]
    fn a_write_that_took_long_leaves_alone_what_another_process_has_begun_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let unfinished = with_suffix(&path, UNFINISHED);
        for keeps in [false, true] {
            // What the write of another process does while this one waits for the disk.
            let meanwhile = |_: &File| {
                fs::remove_file(&unfinished)?;
                fs::write(&unfinished, "of another")
            };
            let replaced = replace(&path, UNFINISHED, meanwhile, || keeps);
            assert_eq!(replaced.ok(), keeps.then_some(false));
            assert_eq!(fs::read(&unfinished).unwrap(), b"of another", "{keeps}");
            assert!(!path.exists());
        }
        assert!(replace(&path, UNFINISHED, |mut file| io::Write::write_all(&mut file, b"whole"), || false).unwrap());
        assert!(!replace(&path, UNFINISHED, |_| Ok(()), || true).unwrap());
        assert_eq!((fs::read(&path).unwrap(), unfinished.exists()), (b"whole".to_vec(), false));
    }

    #[test]
    fn a_folder_that_can_be_made_is_no_problem_and_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c.sock");
        assert_eq!(judged(&path, true), None);
        assert!(is_writable(&path, true));
        make_folder(&path, PRIVATE).unwrap();
        let mode = fs::metadata(dir.path().join("a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        assert!(make_folder(&path, OPEN).is_ok(), "it is there");
        assert_eq!(judged(Path::new("a-file-beside-me"), false), None, "the working directory");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(judged(&file, true).unwrap(), "a file that is not a socket is in the way");
        assert_eq!(judged(&file, false), None);
        assert_eq!((is_writable(&file, true), is_writable(&file, false)), (false, true));
        assert_eq!(judged(dir.path(), false).unwrap(), "it is a folder");
        let not_a_folder = format!("\"{}\" is not a folder", file.display());
        assert_eq!(judged(&file.join("a.sock"), true).unwrap(), not_a_folder);
        assert_eq!(judged(&file.join("a/b.sock"), true).unwrap(), not_a_folder);
        assert!(make_folder(&file.join("a.sock"), OPEN).unwrap_err().to_string().contains("cannot be made"));
    }
}
