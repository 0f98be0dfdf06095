//! [`JournalSocket`]: lines to the journal by its native protocol, one datagram each.
//!
//! An entry has the line as `MESSAGE`, its priority, and every field as `SESSILE_NAME`, so that
//! `journalctl SESSILE_POOL=web` finds it. Passes no file for long entries: a line is far below the limit of a datagram.
//! Invariant: an entry is sent as a whole or not at all; a value that has a line end goes with its length.

use std::fmt::Display;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::schema::FieldSink;
use crate::log_field::{LogField, LogFields};

/// Where the journal takes entries.
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// Priority of syslog for connections and requests: informational.
const INFO: &str = "6";

/// The way to the journal.
#[derive(Debug)]
pub(super) struct JournalSocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl JournalSocket {
    /// Opens a way to the journal that listens at `path`.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // An error now and not with the first line. A journal that is started again has another socket at the path,
        // so that each entry is sent to the path.
        UnixDatagram::unbound()?.connect(&path)?;
        Ok(Self { socket, path })
    }

    /// Sends one entry, and waits while the journal has no room.
    pub(super) fn send(&self, entry: &JournalEntry) -> io::Result<()> {
        loop {
            match self.socket.send_to(&entry.bytes, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(drop),
            }
        }
    }
}

/// One entry.
#[derive(Debug)]
pub(super) struct JournalEntry {
    bytes: Vec<u8>,
    fields: LogFields,
}

impl JournalEntry {
    /// Begins an entry with its line; `fields` are those that it gets beside that.
    pub(super) fn of(line: &str, fields: LogFields) -> Self {
        let mut entry = Self { bytes: Vec::with_capacity(line.len() * 3), fields };
        entry.put("MESSAGE", line.trim_end_matches('\n'));
        entry.put("PRIORITY", INFO);
        entry.put("SYSLOG_IDENTIFIER", "sessile");
        entry
    }

    fn put(&mut self, name: &str, value: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.bytes.push(b'\n');
            self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }

    fn put_field(&mut self, field: LogField, value: &str) {
        if self.fields.has(field) {
            self.put(&format!("SESSILE_{}", field.name().to_ascii_uppercase()), value);
        }
    }
}

impl FieldSink for JournalEntry {
    fn text(&mut self, field: LogField, value: &str) {
        // The journal has its own time and priority.
        if !matches!(field, LogField::Time | LogField::Level) {
            self.put_field(field, value);
        }
    }

    fn number(&mut self, field: LogField, value: u64) {
        self.put_field(field, &value.to_string());
    }

    fn flag(&mut self, field: LogField) {
        self.put_field(field, "true");
    }

    fn bare(&mut self, field: LogField, value: impl Display) {
        self.text(field, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_line_and_every_field_and_no_value_makes_another_field() {
        let mut entry = JournalEntry::of("time=t path=\"/a\\nPRIORITY=0\"\n", LogFields::EVERY);
        entry.text(LogField::Time, "t");
        entry.text(LogField::Path, "/a\nPRIORITY=0");
        entry.number(LogField::Id, 7);
        entry.flag(LogField::Ech);
        let wanted: &[u8] = b"MESSAGE=time=t path=\"/a\\nPRIORITY=0\"\nPRIORITY=6\nSYSLOG_IDENTIFIER=sessile\n\
            SESSILE_PATH\n\x0d\0\0\0\0\0\0\0/a\nPRIORITY=0\nSESSILE_ID=7\nSESSILE_ECH=true\n";
        assert_eq!(String::from_utf8_lossy(&entry.bytes), String::from_utf8_lossy(wanted));
    }

    #[test]
    fn a_journal_that_is_not_there_is_an_error_and_one_that_comes_back_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        assert!(JournalSocket::open(path.clone()).is_err());
        let entry = JournalEntry::of("line\n", LogFields::EVERY);
        let first = UnixDatagram::bind(&path).unwrap();
        let socket = JournalSocket::open(path.clone()).unwrap();
        drop(first);
        std::fs::remove_file(&path).unwrap();
        assert!(socket.send(&entry).is_err());
        let second = UnixDatagram::bind(&path).unwrap();
        socket.send(&entry).unwrap();
        let mut taken = [0; 64];
        let length = second.recv(&mut taken).unwrap();
        assert!(taken[..length].starts_with(b"MESSAGE=line\nPRIORITY=6\n"));
    }
}
