//! [`Appended`]: an output that may be a file which ends within a line, as after a crash, a full disk or an editor.
//!
//! Looks when the first bytes come, because another process may write until then. Invariants: the first line begins on
//! its own; only a regular file is read, and what cannot be read counts as whole.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::{FileType, OFlags, fstat};

/// An output in which lines stand behind what is there.
#[derive(Debug)]
pub(super) struct Appended<W> {
    out: W,
    /// What was there ends a line.
    is_begun: bool,
}

impl<W: Write + AsFd> Appended<W> {
    pub(super) fn to(out: W) -> Self {
        Self { out, is_begun: false }
    }
}

impl<W: Write + AsFd> Write for Appended<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_begun {
            if ends_within_line(&self.out) && self.out.write(b"\n")? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.is_begun = true;
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// True if the open file has bytes, and the last one ends no line.
pub(super) fn ends_within_line(file: impl AsFd) -> bool {
    let Ok(there) = fstat(&file) else { return false };
    let Some(last) = u64::try_from(there.st_size).ok().and_then(|size| size.checked_sub(1)) else { return false };
    if FileType::from_raw_mode(there.st_mode) != FileType::RegularFile {
        return false;
    }
    // The descriptor is for writing alone; its name may belong to another file by now.
    let same = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let mut byte = [0];
    let read = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(same);
    read.and_then(|file| file.read_exact_at(&mut byte, last)).is_ok() && byte != *b"\n"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_is_only_written_is_judged_by_its_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (text, is_torn) in [("", false), ("one\n", false), ("one\ntw", true), ("\n", false), ("o", true)] {
            fs::write(&path, text).unwrap();
            let file = File::options().append(true).open(&path).unwrap();
            assert_eq!(ends_within_line(&file), is_torn, "{text:?}");
        }
        // Renamed, and another file has its name.
        let file = File::options().append(true).open(&path).unwrap();
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, "whole\n").unwrap();
        assert!(ends_within_line(&file));
    }

    #[test]
    fn a_pipe_and_a_device_are_not_touched() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(!ends_within_line(&writer));
        assert!(!ends_within_line(File::options().write(true).open("/dev/null").unwrap()));
    }
}
