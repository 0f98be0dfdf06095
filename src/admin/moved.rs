//! The admin sockets of processes that stop: [`moved_path`] names the path to which one moves, and [`moved_sockets`]
//! finds those beside a path.
//!
//! Moves and asks none. Invariant: a process that stops is reached by its number for as long as it runs, while the path
//! of the configuration belongs to the next process.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How far a process is that follows one that stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuccessorStage {
    /// The next process has the lock and binds its addresses soon.
    Starting,
    /// The next process serves new clients.
    Serving,
    /// The next process has ended before that.
    Failed,
}

/// What a process that stops still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAddresses {
    /// Addresses on which the process listens, as `IP:PORT` or `unix:PATH`.
    pub listening: Vec<String>,
}

/// Where the admin socket of a process is while the process stops: `admin.4711.sock` beside `admin.sock`.
pub fn moved_path(socket: &Path, pid: u32) -> PathBuf {
    let mut name = socket.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{pid}.sock"));
    socket.with_file_name(name)
}

/// The moved sockets beside an admin socket, with the numbers of their processes. A process that was killed leaves its
/// socket, which no process listens on.
pub fn moved_sockets(socket: &Path) -> Vec<(u32, PathBuf)> {
    let folder = socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut found: Vec<_> = names
        .filter_map(|name| {
            let pid = name.to_str()?.strip_suffix(".sock")?.rsplit_once('.')?.1.parse().ok()?;
            let path = moved_path(socket, pid);
            (path.file_name() == Some(&*name)).then_some((pid, path))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_socket_is_found_by_the_path_from_which_it_moved() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["admin.sock", "admin.lock", "admin.x.sock", "admin.07.sock", "other.7.sock", "admin.1.2.sock"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert_eq!(moved_sockets(&at("admin.sock")), []);
        for pid in [4711, 12] {
            assert_eq!(moved_path(&at("admin.sock"), pid), at(&format!("admin.{pid}.sock")));
            std::fs::write(moved_path(&at("admin.sock"), pid), "").unwrap();
        }
        let found = vec![(12, at("admin.12.sock")), (4711, at("admin.4711.sock"))];
        assert_eq!(moved_sockets(&at("admin.sock")), found);
        std::fs::write(moved_path(&at("ctl"), 5), "").unwrap();
        assert_eq!(moved_sockets(&at("ctl")), [(5, at("ctl.5.sock"))]);
    }
}
