//! [`ServiceManager`]: tells the service manager what the process does, by the protocol of sd_notify(3), and gives it
//! descriptors to keep for the next process.
//!
//! Composes nothing (`reports` does), and says nothing without `NOTIFY_SOCKET`. Invariants: no call waits; a change of
//! state is told in its order, and tried again until the service manager has taken it; a process that has named another
//! main process says no more.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};

pub use super::notification::Notification;

/// Most changes of state that wait for a service manager that does not read; then the oldest is given up.
const UNSENT_MAX: usize = 64;

/// The service manager that has started this process, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    voice: Option<Mutex<Voice>>,
    watchdog: Option<Duration>,
}

/// The way to the service manager, and what it knows.
#[derive(Debug)]
struct Voice {
    socket: UnixDatagram,
    address: SocketAddr,
    unsent: VecDeque<String>,
    /// The status line that was told last.
    status: String,
    leads: bool,
    stopping: bool,
    complained: bool,
}

impl ServiceManager {
    /// The service manager that the environment names.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name);
        let (socket, usec) = (variable("NOTIFY_SOCKET"), variable("WATCHDOG_USEC"));
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Self::default() };
        Self::new(&socket, usec.as_deref(), variable("WATCHDOG_PID").as_deref()).unwrap_or_else(|error| {
            tracing::warn!("the service manager at {} cannot be told anything: {error}", socket.display());
            Self::default()
        })
    }

    /// `socket`: a path, or a name behind `@`. `watchdog_pid`: the process that the watchdog is meant for.
    fn new(socket: &OsStr, watchdog_usec: Option<&OsStr>, watchdog_pid: Option<&OsStr>) -> io::Result<Self> {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(socket)?,
            _ => return Err(io::Error::new(ErrorKind::Unsupported, "neither a path nor an abstract socket")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let voice = Voice {
            socket,
            address,
            unsent: VecDeque::new(),
            status: String::new(),
            leads: true,
            stopping: false,
            complained: false,
        };
        let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
        let is_meant = watchdog_pid.is_none_or(|pid| number(pid) == Some(std::process::id().into()));
        let usec = watchdog_usec.and_then(number).filter(|usec| is_meant && *usec > 0);
        Ok(Self { voice: Some(Mutex::new(voice)), watchdog: usec.map(Duration::from_micros) })
    }

    /// A service manager that wants a sign of life within this time.
    #[cfg(test)]
    pub(super) fn with_watchdog(socket: &std::path::Path, within: Duration) -> Self {
        let usec = within.as_micros().to_string();
        Self::new(socket.as_os_str(), Some(OsStr::new(&usec)), None).unwrap()
    }

    /// True if something listens to what is told.
    pub fn is_there(&self) -> bool {
        self.voice.is_some()
    }

    /// How often a sign of life is due: twice within the time after which the manager ends the process.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|within| (within / 2).max(Duration::from_millis(1)))
    }

    /// Tells all of this in one message. `MainPid` of another process makes this one silent, until it names itself.
    pub fn notify(&self, notifications: &[Notification<'_>]) {
        if let Some(voice) = &self.voice {
            voice.lock().unwrap_or_else(PoisonError::into_inner).tell(notifications);
        }
    }

    /// Gives a descriptor to the store of the manager, under a name, for the next process of the unit. Fails while the
    /// manager does not read. The manager says nothing: see [`Self::barrier`].
    pub fn store(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        // It is kept also when its other end closes.
        self.send_descriptor(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), descriptor)
    }

    /// Has the manager remove what its store has under a name.
    pub fn forget(&self, name: &str) {
        if let Some(voice) = &self.voice {
            let mut voice = voice.lock().unwrap_or_else(PoisonError::into_inner);
            voice.say(format!("FDSTOREREMOVE=1\nFDNAME={name}"), false);
        }
    }

    /// A pipe with an end at the manager, which closes it once it has taken everything that was told before. Fails while
    /// the manager does not read.
    pub fn barrier(&self) -> io::Result<OwnedFd> {
        let (closed_then, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        self.send_descriptor("BARRIER=1", end.as_fd())?;
        Ok(closed_then)
    }

    fn send_descriptor(&self, text: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let voice = self.voice.as_ref().ok_or(ErrorKind::NotConnected)?;
        voice.lock().unwrap_or_else(PoisonError::into_inner).send_descriptor(text, descriptor)
    }

    /// Tries again what the manager did not take.
    pub fn flush(&self) {
        if let Some(voice) = &self.voice {
            voice.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }
}

impl Voice {
    fn tell(&mut self, notifications: &[Notification<'_>]) {
        let main = notifications.iter().find_map(|one| match one {
            Notification::MainPid(pid) => Some(*pid == std::process::id()),
            _ => None,
        });
        if self.leads || main.is_some() {
            let news: Vec<_> = notifications.iter().filter(|one| self.is_news(one)).collect();
            let text = news.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            if !text.is_empty() {
                self.say(text, news.iter().all(|one| one.is_repeated()));
            }
            for one in news {
                match one {
                    Notification::Status(line) => (*line).clone_into(&mut self.status),
                    Notification::Stopping => self.stopping = true,
                    _ => {}
                }
            }
        }
        self.leads = main.unwrap_or(self.leads);
    }

    /// False for what the manager knows already, and for a reload that a stop has overtaken.
    fn is_news(&self, notification: &Notification<'_>) -> bool {
        match notification {
            Notification::Status(line) => self.status != *line,
            Notification::Ready | Notification::Reloading { .. } => !self.stopping,
            _ => true,
        }
    }

    /// Sends a message behind those that wait. One that `is_repeated` does not wait.
    fn say(&mut self, text: String, is_repeated: bool) {
        self.flush();
        if (!self.unsent.is_empty() || !self.send(&text)) && !is_repeated {
            self.unsent.push_back(text);
            if self.unsent.len() > UNSENT_MAX {
                self.unsent.pop_front();
            }
        }
    }

    fn flush(&mut self) {
        while let Some(text) = self.unsent.pop_front() {
            if !self.send(&text) {
                self.unsent.push_front(text);
                return;
            }
        }
    }

    /// Sends a message with a descriptor, behind those that wait.
    fn send_descriptor(&mut self, text: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.flush();
        if !self.leads || !self.unsent.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let address = match (self.address.as_pathname(), self.address.as_abstract_name()) {
            (Some(path), _) => SocketAddrUnix::new(path)?,
            (None, name) => SocketAddrUnix::new_abstract_name(name.unwrap_or_default())?,
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg_addr(&self.socket, &address, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn send(&mut self, text: &str) -> bool {
        let sent = self.socket.send_to_addr(text.as_bytes(), &self.address);
        if let Err(error) = &sent
            && error.kind() != ErrorKind::WouldBlock
            && !std::mem::replace(&mut self.complained, true)
        {
            tracing::warn!("the service manager takes no message: {error}");
        }
        sent.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager that reads when it is asked to.
    struct Reader {
        socket: UnixDatagram,
        _dir: tempfile::TempDir,
    }

    impl Reader {
        fn new() -> (Self, ServiceManager) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            let manager = ServiceManager::new(path.as_os_str(), None, None).unwrap();
            (Self { socket, _dir: dir }, manager)
        }

        fn next(&self) -> Option<String> {
            let mut buffer = [0; 4096];
            let count = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8(buffer[..count].to_vec()).unwrap())
        }

        fn all(&self) -> Vec<String> {
            std::iter::from_fn(|| self.next()).collect()
        }
    }

    #[test]
    fn a_message_is_one_assignment_a_line() {
        let all = [
            Notification::Ready,
            Notification::Reloading { monotonic_us: 12_345_678 },
            Notification::Stopping,
            Notification::Status("serving: é"),
            Notification::Watchdog,
            Notification::ExtendTimeout(Duration::from_millis(1_500)),
            Notification::MainPid(4_321),
        ];
        let (reader, manager) = Reader::new();
        manager.notify(&all);
        let told = "READY=1\nRELOADING=1\nMONOTONIC_USEC=12345678\nSTOPPING=1\nSTATUS=serving: é\nWATCHDOG=1\n\
                    EXTEND_TIMEOUT_USEC=1500000\nMAINPID=4321";
        assert_eq!(reader.all(), [told]);
    }

    #[test]
    fn a_status_is_one_line_of_bounded_length_and_forges_no_assignment() {
        let (reader, manager) = Reader::new();
        manager.notify(&[Notification::Status("a\nMAINPID=1\r\0")]);
        assert_eq!(reader.all(), ["STATUS=a\\nMAINPID=1\\r\\u{0}"]);
        manager.notify(&[Notification::Status(&"é".repeat(5_000))]);
        assert!(reader.all()[0].len() < 2_000);
        manager.notify(&[Notification::Status("once")]);
        manager.notify(&[Notification::Status("once"), Notification::Watchdog]);
        manager.notify(&[Notification::Status("once")]);
        assert_eq!(reader.all(), ["STATUS=once", "WATCHDOG=1"], "what is known is not told again");
    }

    /// The next message with its descriptors.
    fn with_descriptors(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let (mut buffer, mut descriptors) = ([0; 256], Vec::new());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [io::IoSliceMut::new(&mut buffer)];
        let length = recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        Some((String::from_utf8(buffer[..length].to_vec()).unwrap(), descriptors))
    }

    #[test]
    fn the_store_gets_a_descriptor_under_a_name_and_a_barrier_says_when_it_has_it() {
        let (reader, manager) = Reader::new();
        let (kept, end) = rustix::pipe::pipe().unwrap();
        manager.store("a-name", end.as_fd()).unwrap();
        let barrier = manager.barrier().unwrap();
        drop(end);
        let (text, descriptors) = with_descriptors(&reader.socket).unwrap();
        assert_eq!((text.as_str(), descriptors.len()), ("FDSTORE=1\nFDNAME=a-name\nFDPOLL=0", 1));
        rustix::io::write(&descriptors[0], b"x").unwrap();
        assert_eq!(rustix::io::read(&kept, &mut [0; 8]), Ok(1), "it is the descriptor that was given");
        rustix::io::ioctl_fionbio(&barrier, true).unwrap();
        let (text, end) = with_descriptors(&reader.socket).unwrap();
        assert_eq!((text.as_str(), end.len()), ("BARRIER=1", 1), "the manager wants nothing else in this message");
        assert_eq!(rustix::io::read(&barrier, &mut [0; 1]), Err(rustix::io::Errno::AGAIN));
        drop(end);
        assert_eq!(rustix::io::read(&barrier, &mut [0; 1]), Ok(0));
        manager.forget("a-name");
        assert_eq!(reader.all(), ["FDSTOREREMOVE=1\nFDNAME=a-name"]);
    }

    #[test]
    fn a_descriptor_is_given_behind_everything_that_was_told_before_or_not_at_all() {
        let (reader, manager) = Reader::new();
        while manager.voice.as_ref().unwrap().lock().unwrap().send("x") {}
        manager.notify(&[Notification::Stopping]);
        let (_kept, end) = rustix::pipe::pipe().unwrap();
        assert_eq!(manager.store("a", end.as_fd()).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(manager.barrier().unwrap_err().kind(), ErrorKind::WouldBlock);
        reader.all();
        manager.store("a", end.as_fd()).unwrap();
        assert_eq!(reader.all(), ["STOPPING=1", "FDSTORE=1\nFDNAME=a\nFDPOLL=0"]);
        let none = ServiceManager::default();
        assert!(none.store("a", end.as_fd()).is_err() && none.barrier().is_err());
    }

    #[test]
    fn a_name_behind_an_at_sign_is_an_abstract_socket() {
        let name = format!("sessile-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = ServiceManager::new(OsStr::new(&format!("@{name}")), None, None).unwrap();
        manager.notify(&[Notification::Ready]);
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
        manager.store("a", rustix::pipe::pipe().unwrap().0.as_fd()).unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), b"FDSTORE=1\nFDNAME=a\nFDPOLL=0".len());
        for unknown in ["vsock:2:1", "relative"] {
            assert!(ServiceManager::new(OsStr::new(unknown), None, None).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nothing_up_and_gets_every_change_of_state_in_order() {
        let (reader, manager) = Reader::new();
        for number in 0..2_000 {
            manager.notify(&[Notification::Status(&number.to_string())]);
        }
        manager.notify(&[Notification::Reloading { monotonic_us: 1 }]);
        manager.notify(&[Notification::Watchdog]);
        manager.notify(&[Notification::Ready]);
        manager.notify(&[Notification::Stopping]);
        let taken = reader.all();
        assert!(taken.iter().all(|text| text.starts_with("STATUS=")), "{taken:?}");
        assert!(taken.len() < 2_000, "the socket took everything: {}", taken.len());
        manager.flush();
        assert_eq!(reader.all(), ["RELOADING=1\nMONOTONIC_USEC=1", "READY=1", "STOPPING=1"]);
        manager.flush();
        assert!(reader.all().is_empty(), "told twice");
    }

    #[test]
    fn changes_that_wait_are_bounded_and_the_last_ones_stay() {
        let (reader, manager) = Reader::new();
        for number in 0..2_000 {
            manager.notify(&[Notification::MainPid(std::process::id()), Notification::Status(&number.to_string())]);
        }
        let taken = reader.all().len();
        // A socket may have room for ten of them (net.unix.max_dgram_qlen).
        let mut waited = Vec::new();
        loop {
            manager.flush();
            match reader.all() {
                more if more.is_empty() => break,
                more => waited.extend(more),
            }
        }
        assert!(taken + waited.len() < 2_000 && waited.len() <= UNSENT_MAX, "{taken}, {}", waited.len());
        assert!(waited.last().unwrap().ends_with("STATUS=1999"), "{waited:?}");
    }

    #[test]
    fn after_the_stop_has_begun_no_reload_is_told() {
        let (reader, manager) = Reader::new();
        manager.notify(&[Notification::Stopping]);
        manager.notify(&[Notification::Reloading { monotonic_us: 1 }]);
        manager.notify(&[Notification::Ready, Notification::Status("draining")]);
        assert_eq!(reader.all(), ["STOPPING=1", "STATUS=draining"]);
    }

    #[test]
    fn a_process_that_has_named_another_main_process_is_silent_until_it_names_itself() {
        let (reader, manager) = Reader::new();
        let own = std::process::id();
        manager.notify(&[Notification::MainPid(own + 1), Notification::Status("moved")]);
        manager.notify(&[Notification::Stopping]);
        manager.notify(&[Notification::Watchdog]);
        assert_eq!(reader.all(), [format!("MAINPID={}\nSTATUS=moved", own + 1)]);
        manager.notify(&[Notification::MainPid(own)]);
        manager.notify(&[Notification::Ready]);
        assert_eq!(reader.all(), [format!("MAINPID={own}"), "READY=1".to_owned()]);
    }

    #[test]
    fn the_watchdog_is_of_the_process_that_it_is_meant_for() {
        let own = std::process::id().to_string();
        let half = |usec, pid: Option<&str>| {
            let watchdog = |text: &'static str| Some(OsStr::new(text));
            ServiceManager::new(OsStr::new("/run/none"), watchdog(usec), pid.map(OsStr::new)).unwrap().watchdog()
        };
        assert_eq!(half("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(half("30000000", Some(&own)), Some(Duration::from_secs(15)));
        for (usec, pid) in [("30000000", Some("1")), ("30000000", Some("")), ("0", None), ("-1", None), ("", None)] {
            assert_eq!(half(usec, pid), None, "{usec} {pid:?}");
        }
        assert_eq!(half("1", None), Some(Duration::from_millis(1)), "no busy loop");
    }

    #[test]
    fn a_manager_that_is_gone_costs_no_wait_and_is_told_when_it_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = ServiceManager::new(path.as_os_str(), None, None).unwrap();
        manager.notify(&[Notification::Ready]);
        let socket = UnixDatagram::bind(&path).unwrap();
        manager.flush();
        let mut buffer = [0; 64];
        let count = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"READY=1");
    }
}
