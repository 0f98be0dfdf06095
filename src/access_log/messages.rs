//! [`StandardError`]: where messages about the process go.
//!
//! Decides nothing about what is said. Invariants: a message is one line, whatever text it quotes; a standard error that
//! nothing reads makes no thread wait longer than [`PATIENCE`], and what is not written then is counted.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::remote_text::one_line;

/// How long one write of a message waits for room. A reader that is merely slow takes less.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Most bytes of one write: where a pipe has room at all, it has room for so many (pipe(7)).
const WRITE_MAX: usize = 4096;

/// Messages that were not written, or not as a whole.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Number of messages about the process that standard error did not take.
pub fn messages_lost() -> u64 {
    LOST.load(Relaxed)
}

/// Standard error, for one message a write.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandardError;

impl Write for StandardError {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        if !write_to(rustix::stdio::stderr(), message) {
            LOST.fetch_add(1, Relaxed);
        }
        // A message that cannot be written has no other place to go.
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a message as one line; false: not all of it was written.
fn write_to(out: BorrowedFd<'_>, message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
    let line = one_line(text).into_owned() + end;
    line.as_bytes().chunks(WRITE_MAX).all(|piece| write_piece(out, piece))
}

fn write_piece(out: BorrowedFd<'_>, mut piece: &[u8]) -> bool {
    while !piece.is_empty() {
        let has_room = poll(&mut [PollFd::new(&out, PollFlags::OUT)], Some(&PATIENCE));
        match has_room.and_then(|ready| if ready == 0 { Ok(0) } else { rustix::io::write(out, piece) }) {
            Ok(0) => return false,
            Ok(written) => piece = &piece[written..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(write_to(writer.as_fd(), b"WARN store: no\nERROR forged\x1b[2J\n"));
        assert!(write_to(writer.as_fd(), b"INFO ready\n"));
        assert!(write_to(writer.as_fd(), b"\xff\xfe\n"));
        drop(writer);
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "WARN store: no\\nERROR forged\\u{1b}[2J\nINFO ready\n\u{fffd}\u{fffd}\n");
    }

    #[test]
    fn a_pipe_that_nothing_reads_makes_no_thread_wait() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let begun = Instant::now();
        let written = (0..40).filter(|_| write_to(writer.as_fd(), &[b'x'; 8 << 10])).count();
        assert!((1..40).contains(&written), "{written} of 320 KiB were written into a pipe of 64");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
