//! [`OpenOutput`]: where the lines go, and [`Lines`]: lines to an output that may refuse some of them, as a full disk does.
//!
//! Invariant: every line is in the output as a whole, or is counted as lost; what an output took of a line before it
//! failed, or holds of one that another process has left, is ended there, so the next line begins on its own.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::appended::Appended;
use super::journal_socket::{JOURNAL, JournalEntry, JournalSocket};
use super::schema::Schema;
use super::{LogRecord, line};
use crate::config::LogOutput;
use crate::http::date::rfc3339;
use crate::regular_file;
use crate::waiting;

/// Mode of a file that is made: readable for its owner and its group.
const FILE_MODE: u32 = 0o640;

/// An output that is open.
pub struct OpenOutput(Way);

enum Way {
    Stream(Lines<Box<dyn Write + Send>>),
    Journal(JournalSocket),
}

impl OpenOutput {
    /// Opens what the configuration names; makes a file that does not exist. May wait for a disk.
    pub fn open(output: &LogOutput) -> io::Result<Self> {
        match output {
            LogOutput::Stdout => Ok(Self::stream(Appended::to(StandardOutput))),
            LogOutput::Journal => Self::journal(JOURNAL.into()),
            LogOutput::File(path) => {
                let open = || {
                    let mut options = File::options();
                    regular_file::open_with(options.append(true).create(true).mode(FILE_MODE), path)
                };
                let file = waiting::on(|| format!("opening \"{}\"", path.display()), open)?;
                Ok(Self::stream(Appended::to(file)))
            }
        }
    }

    /// Makes a file that is missing. True: this process has made it; false: [`OpenOutput::open`] finds it, or says why not.
    pub fn make(path: &Path) -> bool {
        let make = || File::options().write(true).create_new(true).mode(FILE_MODE).open(path);
        waiting::on(|| format!("opening \"{}\"", path.display()), make).is_ok()
    }

    /// The journal that listens at `path`.
    pub(super) fn journal(path: PathBuf) -> io::Result<Self> {
        JournalSocket::open(path).map(|socket| Self(Way::Journal(socket)))
    }

    /// An output that takes bytes.
    pub fn stream(out: impl Write + Send + 'static) -> Self {
        Self(Way::Stream(Lines::to(Box::new(out))))
    }

    /// Writes the lines of records, as many as the output takes. `text` is memory for them; `unix_us`: now.
    pub(super) fn write(
        &mut self,
        records: &[LogRecord],
        schema: Schema,
        unix_us: u64,
        text: &mut String,
    ) -> Result<(), LinesLost> {
        text.clear();
        // One time for all lines of a batch, and one text.
        let time = &rfc3339(unix_us / 1_000);
        let put = |text: &mut String, record: &LogRecord| match record {
            LogRecord::Connection(connection) => line::write(text, connection, schema, time),
            LogRecord::Request(request) => line::write_request(text, request, schema, time),
        };
        match &mut self.0 {
            Way::Stream(lines) => {
                records.iter().for_each(|record| put(text, record));
                lines.write(text.as_bytes())
            }
            Way::Journal(socket) => {
                let mut lost = None;
                for record in records {
                    text.clear();
                    put(text, record);
                    let mut entry = JournalEntry::of(text, schema.fields);
                    match record {
                        LogRecord::Connection(connection) => line::of_connection(&mut entry, connection, time),
                        LogRecord::Request(request) => line::of_request(&mut entry, request, time),
                    }
                    if let Err(error) = socket.send(&entry) {
                        let lines = lost.map_or(0, |LinesLost { lines, .. }| lines);
                        lost = Some(LinesLost { lines: lines + 1, error });
                    }
                }
                lost.map_or(Ok(()), Err)
            }
        }
    }
}

impl std::fmt::Debug for OpenOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Way::Stream(_) => "OpenOutput(stream)",
            Way::Journal(_) => "OpenOutput(journal)",
        })
    }
}

/// Standard output without a buffer: what a call returns is what the kernel has taken.
#[derive(Debug, Clone, Copy)]
struct StandardOutput;

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for StandardOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stdout()
    }
}

/// An output for lines.
#[derive(Debug)]
pub(super) struct Lines<W> {
    out: W,
    /// The output has taken the begin of a line that it refused.
    torn: bool,
}

/// Lines that an output did not take.
#[derive(Debug)]
pub(super) struct LinesLost {
    pub(super) lines: u64,
    pub(super) error: io::Error,
}

impl<W: Write> Lines<W> {
    pub(super) fn to(out: W) -> Self {
        Self { out, torn: false }
    }

    /// Writes whole lines, as many as the output takes.
    pub(super) fn write(&mut self, text: &[u8]) -> Result<(), LinesLost> {
        if text.is_empty() {
            return Ok(());
        }
        let mut taken = 0;
        let written = self.end_torn_line().and_then(|()| self.write_bytes(text, &mut taken));
        let written = written.and_then(|()| self.out.flush());
        // After a failed flush it is not known what was taken.
        written.map_err(|error| {
            let (done, rest) = text.split_at(if taken == text.len() { 0 } else { taken });
            self.torn |= done.last().is_some_and(|byte| *byte != b'\n');
            LinesLost { lines: rest.iter().filter(|byte| **byte == b'\n').count() as u64, error }
        })
    }

    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.torn {
            self.write_bytes(b"\n", &mut 0)?;
            self.torn = false;
        }
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &[u8], taken: &mut usize) -> io::Result<()> {
        while *taken < bytes.len() {
            match self.out.write(&bytes[*taken..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => *taken += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so many free bytes.
    #[derive(Default)]
    struct Disk {
        bytes: Vec<u8>,
        free: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.free);
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.bytes.extend_from_slice(&bytes[..taken]);
            self.free -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_do_not_fit_and_no_other() {
        let mut out = Lines::to(Disk { free: 9, ..Disk::default() });
        let lost = out.write(b"one\ntwo\nthree\nfour\n").unwrap_err();
        assert_eq!((lost.lines, lost.error.kind()), (2, ErrorKind::StorageFull));
        assert_eq!(out.write(b"five\n").unwrap_err().lines, 1);
        out.out.free = 3;
        assert_eq!(out.write(b"six\n").unwrap_err().lines, 1);
        out.out.free = 100;
        out.write(b"seven\neight\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&out.out.bytes), "one\ntwo\nt\nsi\nseven\neight\n");
    }

    #[test]
    fn a_file_that_ends_within_a_line_gets_its_end_before_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (before, after) in [("one\ntw", "one\ntw\nsix\nsix\n"), ("one\n", "one\nsix\nsix\n"), ("", "six\nsix\n")] {
            std::fs::write(&path, before).unwrap();
            let OpenOutput(Way::Stream(mut lines)) = OpenOutput::open(&LogOutput::File(path.clone())).unwrap() else {
                panic!("a file is a stream");
            };
            assert_eq!(std::fs::read_to_string(&path).unwrap(), before, "opened, and not written");
            lines.write(b"six\n").unwrap();
            lines.write(b"six\n").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
        // What another process has left there between the opening and the first line counts, too.
        let OpenOutput(Way::Stream(mut lines)) = OpenOutput::open(&LogOutput::File(path.clone())).unwrap() else {
            panic!("a file is a stream");
        };
        std::fs::write(&path, "torn").unwrap();
        lines.write(b"six\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "torn\nsix\n");
    }

    #[test]
    fn a_line_that_fits_to_the_byte_is_not_torn() {
        let mut out = Lines::to(Disk { free: 4, ..Disk::default() });
        assert_eq!(out.write(b"one\ntwo\n").unwrap_err().lines, 1);
        out.out.free = 4;
        out.write(b"six\n").unwrap();
        assert_eq!(out.out.bytes, b"one\nsix\n");
    }
}
