//! Programs of Go, built from Debian's packages alone.
//!
//! Fetches nothing. Invariant: what the compiler keeps is below the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::program::{find, output};
use super::skip;

/// Where Debian puts the sources of libraries.
const LIBRARIES: &str = "/usr/share/gocode";

/// A program; its file is removed when dropped.
pub struct GoProgram {
    dir: TempDir,
}

impl GoProgram {
    /// Builds a program of one file, which needs this library beside the standard ones; if something is missing, the test is
    /// skipped.
    pub fn build(test: &str, source: &Path, library: Option<&str>) -> Option<Self> {
        let go = find(test, "go")?;
        let is_missing = |library: &&str| !Path::new(LIBRARIES).join("src").join(library).is_dir();
        if let Some(library) = library.filter(is_missing) {
            skip(test, &format!("{library} of Go is not installed"));
            return None;
        }
        let dir = tempfile::tempdir().expect("a scratch directory");
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
        let mut command = Command::new(go);
        command.args(["build", "-o"]).arg(dir.path().join("program")).arg(source);
        command.env("GO111MODULE", "off").env("GOPATH", LIBRARIES).env("GOFLAGS", "").env("GOCACHE", cache);
        output(command.current_dir(dir.path()));
        Some(Self { dir })
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        Command::new(self.file())
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("program")
    }
}
