//! Files that this process reads, each as a whole and of a limited size: [`read`] for all of them; [`make_once`] for keys.
//!
//! Knows no format. Sets no deadline: a disk that does not answer is left to the caller (`detached`), which finds the
//! file in the [`waiting`] note of the thread. Invariants: only a regular file is ever read, so a pipe or a device holds
//! no reader; a device is not even opened, because some take that for an order.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::OFlags;

use crate::waiting::{self, Stepwise};

/// The longest configuration, in bytes: some 100,000 backends.
pub const CONFIGURATION_MAX: u64 = 16 << 20;
/// The longest file of certificates or keys of TLS; a bundle of all public authorities is a quarter of it.
pub const PEM_MAX: u64 = 1 << 20;
/// The longest file of revocation lists: some 400,000 certificates.
pub const CRL_MAX: u64 = 16 << 20;
/// The longest file of cookie keys, or of one secret or password.
pub const SECRET_MAX: u64 = 64 << 10;

/// Device, inode and time of creation since 1970, if the file system has it: the inode of a file that was replaced is reused at
/// once.
pub type FileIdentity = (u64, u64, Option<Duration>);

/// The content of a file.
#[derive(Debug)]
pub struct WholeFile {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Type and mode, as stat(2) has them.
    pub mode: u32,
    /// Number of the user that owns the file.
    pub owner: u32,
}

impl WholeFile {
    /// The content as text, which is an error if it is none.
    pub fn text(self) -> io::Result<String> {
        Ok(self.placed_text()?)
    }

    /// The content as text, or the place of the first byte that is none.
    pub fn placed_text(self) -> Result<String, NotText> {
        String::from_utf8(self.bytes).map_err(|error| {
            let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            let line = before.rsplit('\n').next().unwrap_or_default();
            NotText { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
        })
    }
}

/// The first byte of a file that is not text in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotText {
    /// Line of the byte, from 1.
    pub line: usize,
    /// Column of the byte in characters, from 1.
    pub column: usize,
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: it is not text in UTF-8, as it has to be", self.line, self.column)
    }
}

impl From<NotText> for io::Error {
    fn from(NotText { line, column }: NotText) -> Self {
        Self::new(ErrorKind::InvalidData, format!("line {line}, column {column}: it is not text in UTF-8"))
    }
}

/// Reads a regular file of at most `most` bytes.
pub fn read(path: &Path, most: u64) -> io::Result<WholeFile> {
    waiting::on(
        || format!("reading \"{}\"", path.display()),
        || {
            let file = open(path)?;
            let metadata = file.0.metadata()?;
            if metadata.len() > most {
                return Err(too_long(most));
            }
            Ok(WholeFile { bytes: read_at_most(file, most)?, mode: metadata.mode(), owner: metadata.uid() })
        },
    )
}

/// Tells a file from another that has taken its place; a file that is only written anew keeps its identity. `None`: it
/// cannot be found.
pub fn identity(path: &Path) -> Option<FileIdentity> {
    let look = || fs::metadata(path);
    let metadata = waiting::on(|| format!("looking at \"{}\"", path.display()), look).ok()?;
    let created = metadata.created().ok().and_then(|created| created.duration_since(UNIX_EPOCH).ok());
    Some((metadata.dev(), metadata.ino(), created))
}

/// Opens a regular file to read it piece by piece.
pub fn open(path: &Path) -> io::Result<Stepwise<File>> {
    open_with(File::options().read(true), path).map(Stepwise)
}

/// Opens a regular file in any way, or makes it if the options say so.
pub fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(there) => refuse_others(&there)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // What has taken its place since then does not hold the open either.
    let file = options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32).open(path)?;
    refuse_others(&file.metadata()?)?;
    Ok(file)
}

/// Opens a file that this process keeps for itself, or makes it if the options say so. A symbolic link is an error: it
/// may lead to a file that another user wants changed.
pub fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|there| there.is_symlink()) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is a symbolic link"));
    }
    let file = options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW).bits() as i32).open(path)?;
    refuse_others(&file.metadata()?)?;
    Ok(file)
}

/// Makes a file that its owner alone can read, unless it exists; true: it was made. It is on the disk as a whole before
/// it has its name, so several processes that begin at once all read the same.
pub fn make_once(path: &Path, content: &[u8]) -> io::Result<bool> {
    // Processes in two containers may have one number.
    let random = RandomState::new().hash_one(std::process::id());
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{random:016x}.new"));
    let unfinished = PathBuf::from(unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    // A link replaces nothing.
    let linked = written.and_then(|()| fs::hard_link(&unfinished, path));
    let _ = fs::remove_file(&unfinished);
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        linked => linked.map(|()| true),
    }
}

/// Reads to the end; more than `most` bytes are an error.
pub fn read_at_most(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_long(most)) } else { Ok(bytes) }
}

/// What is there instead of a regular file, in words that follow "it is"; `None`: a regular file.
pub fn other_kind(there: &Metadata) -> Option<&'static str> {
    let kind = there.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_fifo() => Some("a pipe"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

fn refuse_others(there: &Metadata) -> io::Result<()> {
    let refused = |kind| Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {kind}, not a file")));
    other_kind(there).map_or(Ok(()), refused)
}

fn too_long(most: u64) -> io::Error {
    let (count, unit) = if most >= 1 << 20 { (most >> 20, "MiB") } else { (most >> 10, "KiB") };
    io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {count} {unit}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// What reading says, which must not take long.
    fn said(path: &Path) -> String {
        let (done, verdict) = channel();
        let path = path.to_owned();
        thread::spawn(move || done.send(read(&path, 4096).map(|file| file.bytes.len()).map_err(|e| e.to_string())));
        format!("{:?}", verdict.recv_timeout(Duration::from_secs(10)).expect("a verdict"))
    }

    #[test]
    fn nothing_but_a_regular_file_is_read_and_nothing_else_holds_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink(at("pipe"), at("link")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for (path, kind) in [
            (at("pipe"), "a pipe"),
            (at("link"), "a pipe"),
            (at("socket"), "a socket"),
            (at("."), "a folder"),
            ("/dev/zero".into(), "a device"),
            ("/dev/null".into(), "a device"),
        ] {
            assert_eq!(said(&path), format!("Err(\"it is {kind}, not a file\")"), "{}", path.display());
        }
        // A pipe with a writer that writes nothing, which would hold a read as well as an open.
        let _writer = File::options().read(true).write(true).open(at("pipe")).unwrap();
        assert_eq!(said(&at("pipe")), "Err(\"it is a pipe, not a file\")");
        let refused = open_with(File::options().read(true).write(true).create(true), &at("pipe"));
        assert_eq!(refused.unwrap_err().to_string(), "it is a pipe, not a file");
        assert!(said(&at("nowhere")).contains("No such file"));
    }

    #[test]
    fn a_file_is_read_up_to_its_limit_and_refused_beyond_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![b'x'; 4096]).unwrap();
        assert_eq!(said(&path), "Ok(4096)");
        fs::write(&path, vec![b'x'; 4097]).unwrap();
        assert_eq!(said(&path), "Err(\"it is longer than 4 KiB\")");
        // Without a block on the disk.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(said(&path), "Err(\"it is longer than 4 KiB\")");
        assert_eq!(too_long(CONFIGURATION_MAX).to_string(), "it is longer than 16 MiB");
        // The kernel says that such a file has no length.
        assert!(said(Path::new("/proc/self/status")).starts_with("Ok("), "{}", said(Path::new("/proc/self/status")));
        assert_eq!(read_at_most(io::repeat(0), 10).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn of_several_that_make_one_file_the_first_counts_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let start = std::sync::Barrier::new(8);
        let make = &|number: u8| {
            start.wait();
            let made = make_once(&path, &[number; 100]).unwrap();
            (made, number, fs::read(&path).unwrap())
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || make(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let made: Vec<_> = all.iter().filter(|(made, ..)| *made).collect();
        assert_eq!(made.len(), 1);
        assert!(all.iter().all(|(.., read)| *read == [made[0].1; 100]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_byte_that_is_no_text_has_a_place() {
        let text = |bytes: &[u8]| WholeFile { bytes: bytes.to_owned(), mode: 0, owner: 0 }.placed_text();
        let bad = text("a = 1\nb = \u{fc}".as_bytes()).map(|text| text.len());
        assert_eq!(bad, Ok(12));
        for (bytes, place) in
            [(&b"a = \xe4\n"[..], (1, 5)), (b"a\n\xc3\xa4 \xff", (2, 3)), (b"a\n\xff", (2, 1)), (b"\xff", (1, 1))]
        {
            let bad = text(bytes).unwrap_err();
            assert_eq!((bad.line, bad.column), place, "{bytes:?}");
            assert_eq!(bad.to_string(), format!("{}:{}: it is not text in UTF-8, as it has to be", place.0, place.1));
        }
    }

    #[test]
    fn a_reader_says_which_file_it_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        let note = std::sync::Arc::new(waiting::WaitNote::default());
        let read = waiting::noted(std::sync::Arc::clone(&note), || read(&path, 10).unwrap());
        assert_eq!((read.mode & 0o400, read.text().unwrap().as_str()), (0o400, "abc"));
        assert!(note.state().steps >= 3, "begun, a piece, ended: {:?}", note.state());
    }
}
