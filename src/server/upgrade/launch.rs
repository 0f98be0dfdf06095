//! Starts the new process so that it is no child of the old one.
//!
//! A service manager watches only its own children well, so the new process has to become one: the old process runs its
//! own program once more, which starts the new binary and ends, and the kernel gives the orphan to the service manager
//! (or to init). Invariant: the program in between says which process it has started, or why it could not.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use super::ENVIRONMENT;
use super::channel::{encode, pair};
use super::kept_places::KeptPlaces;
use super::messages::{Kind, Launched, Refused};

/// Variable in the environment of the program in between: the binary that it starts.
const BINARY: &str = "SESSILE_UPGRADE_BINARY";

/// Variables that are about this process, by its number, and not about the new one.
const OWN_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Starts the program in between, which starts the binary with the arguments of this process. The other end of the pair
/// is the standard input of both. `places`: what the arguments leave open, for a process without a file.
pub(super) fn launch(binary: &Path, places: Option<&KeptPlaces>) -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = pair()?;
    // The program of this process, also if its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(BINARY, binary).stdin(Stdio::from(theirs));
    command.envs(places.iter().flat_map(|places| places.variables()));
    for variable in OWN_VARIABLES {
        command.env_remove(variable);
    }
    Ok((ours, command.spawn()?))
}

/// Does the work of the program in between, if this process is one; `None`: it is not.
pub(in crate::server) fn from_environment() -> Option<ExitCode> {
    let binary = std::env::var_os(BINARY)?;
    let mut command = Command::new(&binary);
    let started = command.args(std::env::args_os().skip(1)).env_remove(BINARY).env(ENVIRONMENT, "1").spawn();
    let message = match &started {
        Ok(child) => encode(Kind::Launched as u16, &Launched { pid: child.id() }),
        Err(error) => {
            let problem = format!("{}: {error}", Path::new(&binary).display());
            encode(Kind::Refused as u16, &Refused { problems: vec![problem] })
        }
    };
    let said = message.and_then(|message| {
        let input = io::stdin();
        Ok(rustix::net::send(input.as_fd(), &message, rustix::net::SendFlags::NOSIGNAL)?)
    });
    Some(if started.is_ok() && said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
