//! [`Writer`]: the thread that makes lines of records and gives them to the output.
//!
//! Waits for the output, and no other thread does. Invariant: the lines of one batch have one schema and go to one
//! output; a record is written, or counted as lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

use super::output::OpenOutput;
use super::schema::{Schema, unix_us};
use super::{Batch, Common};

/// What the thread is given.
#[derive(Debug)]
pub(super) enum Work {
    /// Lines to write.
    Write(Batch),
    /// Look whether something has changed.
    Look,
}

/// The thread, with what it uses now.
pub(super) struct Writer {
    schema: Schema,
    output: OpenOutput,
    shared: Arc<Common>,
    /// Memory for lines that are being made.
    text: String,
}

impl Writer {
    pub(super) fn new(schema: Schema, output: OpenOutput, shared: Arc<Common>) -> Self {
        Self { schema, output, shared, text: String::new() }
    }

    /// Writes until every sender is gone.
    pub(super) fn run(mut self, work: &Receiver<Work>) {
        for work in work {
            self.change();
            let Work::Write(Batch { mut records, home }) = work else { continue };
            let written = self.output.write(&records, self.schema, unix_us(), &mut self.text);
            if let Err(lost) = written {
                self.shared.lost_errno.store(number_of(&lost.error), Relaxed);
                self.shared.lost.fetch_add(lost.lines, Relaxed);
            }
            self.shared.waiting.fetch_sub(records.len() as u64, Relaxed);
            records.clear();
            let _ = home.try_send(records); // its worker may be gone, or have enough
        }
    }

    fn change(&mut self) {
        let mut changes = self.shared.changes();
        let Some((schema, output)) = changes.next.take() else { return };
        self.schema = schema;
        let old = output.map(|output| std::mem::replace(&mut self.output, output));
        changes.made = changes.asked;
        drop(changes);
        // Closing a file may take a while.
        drop(old);
    }
}

/// The number of an error; an error without one counts as one of the device.
fn number_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error())
}
