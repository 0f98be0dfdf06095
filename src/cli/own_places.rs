//! Places of files that no configuration names: the admin socket of a process without a file, and the keys of its cookie.
//!
//! Makes nothing. Invariant: a process without a file and the commands that look for it go by one rule, [`of_user`].

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use socket2::SockAddr;

use crate::admin::moved::moved_sockets;
use crate::config::ADMIN_SOCKET;
use crate::server;
use crate::socket;

/// Default path of a configuration file.
pub(super) const DEFAULT_FILE: &str = "/etc/sessile/sessile.toml";

/// Path of the admin socket in the folder of this user, `$XDG_RUNTIME_DIR`; `None`: the variable names no usable folder.
fn of_user() -> Option<PathBuf> {
    in_runtime_folder(env::var_os("XDG_RUNTIME_DIR"))
}

/// `folder`: value of the variable. A program that became another user may still have the folder of the first one.
fn in_runtime_folder(folder: Option<OsString>) -> Option<PathBuf> {
    let folder = absolute(folder)?;
    let is_own = fs::metadata(&folder).is_ok_and(|there| there.is_dir() && there.uid() == geteuid().as_raw());
    let socket = folder.join("sessile/admin.sock");
    (is_own && SockAddr::unix(&socket).is_ok()).then_some(socket)
}

/// Where a process without a file puts its admin socket; `None`: nowhere can one be made.
pub(super) fn new_admin_socket() -> Option<PathBuf> {
    let mut places = of_user().into_iter().chain([ADMIN_SOCKET.into()]);
    places.find(|socket| server::is_writable(socket, true))
}

/// The admin socket of a process of this user that runs without a file, or has stopped to accept and drains.
pub(super) fn running_admin_socket() -> Option<PathBuf> {
    of_user().filter(|socket| is_served(socket))
}

fn is_served(path: &Path) -> bool {
    let answers = |path: &Path| match socket::knock(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    };
    answers(path) || moved_sockets(path).iter().any(|(_, moved)| answers(moved))
}

/// Where a process without a file keeps the keys of its cookie: a folder that outlives the process and, but for the last
/// one, a restart of the machine. `None`: no folder can be written.
pub(super) fn cookie_keys() -> Option<PathBuf> {
    let state = absolute(env::var_os("XDG_STATE_HOME"));
    let of_system = geteuid().is_root().then(|| PathBuf::from("/var/lib"));
    let of_home = absolute(env::var_os("HOME")).map(|home| home.join(".local/state"));
    let folders = [state, of_system, of_home].into_iter().flatten().map(|folder| folder.join("sessile"));
    let of_runtime = of_user().and_then(|socket| Some(socket.parent()?.to_owned()));
    let files: Vec<_> = folders.chain(of_runtime).map(|folder| folder.join("cookie.keys")).collect();
    // Before a folder that can be written: cookies in use depend on the key that is there.
    let known = files.iter().find(|file| fs::metadata(file).is_ok_and(|there| there.uid() == geteuid().as_raw()));
    known.or_else(|| files.iter().find(|file| server::is_writable(file, false))).cloned()
}

fn absolute(folder: Option<OsString>) -> Option<PathBuf> {
    folder.map(PathBuf::from).filter(|folder| folder.is_absolute())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_runtime_folder_is_an_absolute_one_of_this_user() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sessile/admin.sock");
        assert_eq!(in_runtime_folder(Some(folder.path().into())), Some(socket));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let long = folder.path().join("l".repeat(100));
        fs::create_dir(&long).unwrap();
        for unusable in ["".into(), "run".into(), "/nonexistent".into(), file.into_os_string(), long.into_os_string()] {
            assert_eq!(in_runtime_folder(Some(unusable.clone())), None, "{unusable:?}");
        }
        assert_eq!(in_runtime_folder(None), None);
        if !geteuid().is_root() {
            assert_eq!(in_runtime_folder(Some("/".into())), None, "the folder of another user");
        }
    }

    #[test]
    fn a_socket_is_served_while_a_process_accepts_or_drains() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        assert!(!is_served(&socket), "not there");
        let listener = UnixListener::bind(&socket).unwrap();
        assert!(is_served(&socket));
        drop(listener);
        assert!(!is_served(&socket), "left over");
        let drains = UnixListener::bind(folder.path().join("admin.4711.sock")).unwrap();
        assert!(is_served(&socket), "a process drains");
        drop(drains);
        assert!(!is_served(&socket), "both are left over");
    }
}
