//! [`Socket`]: a stream socket of a conversation, non-blocking, driven by the runtime.
//!
//! Speaks no protocol. One method is one system call, as in the splicer's `Os`. Invariant: a socket that is dropped
//! before [`Socket::reset_on_drop`]`(false)` is reset, so that a stream which was cut never looks complete.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::fault::Fault;

/// How often the end of a peer is looked for that unread bytes hide.
const LOOK_FOR_END: Duration = Duration::from_millis(200);

/// A connected stream socket of the runtime.
#[derive(Debug)]
pub struct Socket {
    socket: AsyncFd<OwnedFd>,
    reset_on_drop: bool,
    /// The last write found no room, and the kernel has reported none since.
    full: Cell<bool>,
}

impl Socket {
    /// Takes over a non-blocking socket.
    #[allow(deprecated, reason = "its successor is unsafe to call, and an owned descriptor is all that it asks for")]
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // An urgent byte has an event of its own, see `poll_recv`.
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR | Interest::PRIORITY;
        Ok(Self { socket: AsyncFd::with_interest(socket, interest)?, reset_on_drop: true, full: Cell::new(false) })
    }

    /// Waits until the socket fails, by a reset or a timeout of the kernel; reads nothing.
    pub async fn broken(&self) -> Fault {
        if let Err(error) = self.socket.ready(Interest::ERROR).await {
            return Fault::of_io(&error);
        }
        match sockopt::socket_error(self.socket.get_ref()) {
            Ok(Err(error)) | Err(error) => Fault::of(error),
            // An earlier call has taken the error: the kernel reports each once.
            Ok(Ok(())) => Fault::Reset,
        }
    }

    /// Waits until bytes, the end or an error can be read; reads nothing.
    pub async fn readable(&self) -> Result<(), Fault> {
        self.socket.readable().await.map(drop).map_err(|error| Fault::of_io(&error))
    }

    /// Waits until the peer has finished sending; reads nothing. Where unread bytes hide the end, it is looked for a few
    /// times a second.
    pub async fn finished(&self) {
        loop {
            match self.socket.ready(Interest::READABLE).await {
                Ok(guard) if !guard.ready().is_read_closed() => {}
                // An error is told by another wait.
                Ok(_) => return,
                Err(_) => return std::future::pending().await,
            }
            tokio::time::sleep(LOOK_FOR_END).await;
        }
    }

    /// Reads into the buffer; 0 bytes mean the end of the stream.
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match rustix::net::recv(self.socket.get_ref(), &mut *into, RecvFlags::empty()) {
                Ok((_, n)) => {
                    // Bytes that come after a short read make an event of their own. A read also stops before an urgent
                    // byte (RFC 6093), though more has come behind it.
                    if n > 0 && n < into.len() && !self.has_urgent() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// True once an event has reported an urgent byte; asks the kernel nothing.
    fn has_urgent(&self) -> bool {
        self.socket.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    /// Writes from one buffer and returns the number of bytes.
    pub fn poll_send(&self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |socket| rustix::net::send(socket, from, SendFlags::NOSIGNAL))
    }

    /// Writes from several buffers with one writev(2). SIGPIPE is ignored in this process.
    pub fn poll_send_all(&self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |socket| rustix::io::writev(socket, from))
    }

    /// Moves bytes into an empty pipe, at most `most`. After 0 bytes and `WouldBlock`, [`Self::poll_recv`] tells what there
    /// is, and waits: an urgent byte stops splice(2), with 0 bytes if the stream has ended behind it, but not recv(2).
    pub fn poll_splice_in(&self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        loop {
            let _guard = ready!(self.socket.poll_read_ready(cx))?;
            match splice(self.socket.get_ref(), None, pipe, None, most, splice_flags()) {
                Err(Errno::INTR) => {}
                answer => return Poll::Ready(answer.map_err(io::Error::from)),
            }
        }
    }

    /// Moves some of the `most` bytes that a pipe holds to the peer, and returns their number.
    pub fn poll_splice_out(&self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |socket| splice(pipe, None, socket, None, most, splice_flags()))
    }

    fn poll_out(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            // There nearly always is room, also before the runtime has seen an event. After a write that found none,
            // the event is waited for: a caller that tries again because time has passed would find room for a few
            // bytes and take a peer that does not read for one that does.
            let guard = if self.full.get() { Some(ready!(self.socket.poll_write_ready(cx))?) } else { None };
            #[cfg(test)]
            SENDS.with(|sends| sends.set(sends.get() + 1));
            let answer = write(self.socket.get_ref());
            self.full.set(matches!(answer, Err(Errno::AGAIN)));
            match answer {
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(Errno::AGAIN) => {
                    if let Some(mut guard) = guard {
                        guard.clear_ready();
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Waits until a connect is complete, and returns its error.
    pub async fn connected(&self) -> io::Result<()> {
        drop(self.socket.writable().await?);
        Ok(sockopt::socket_error(self.socket.get_ref())??)
    }

    /// Finishes sending, so that the peer reads the end.
    pub fn shutdown(&self) {
        // Fails only where the peer has reset meanwhile, which the next call reports.
        let _ = rustix::net::shutdown(self.socket.get_ref(), Shutdown::Write);
    }

    /// Sets whether a drop resets the connection. True from the start; to be set to false after everything was sent, or
    /// while nothing is under way.
    pub fn reset_on_drop(&mut self, reset: bool) {
        self.reset_on_drop = reset;
    }
}

#[cfg(test)]
thread_local! {
    static SENDS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has written to a socket.
#[cfg(test)]
pub fn sends() -> u64 {
    SENDS.get()
}

fn splice_flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset_on_drop {
            let _ = sockopt::set_socket_linger(self.socket.get_ref(), Some(Duration::ZERO));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A client, and the socket of its connection.
    fn pair(listener: &TcpListener) -> (TcpStream, OwnedFd) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let accepted = listener.accept().unwrap().0;
        accepted.set_nonblocking(true).unwrap();
        (client, accepted.into())
    }

    fn urgent(client: &TcpStream) {
        assert_eq!(rustix::net::send(client, b"!", SendFlags::OOB), Ok(1));
    }

    async fn read(socket: &Socket, most: usize) -> Vec<u8> {
        let mut into = vec![0; most];
        let read = poll_fn(|cx| socket.poll_recv(cx, &mut into));
        let count = tokio::time::timeout(Duration::from_secs(10), read).await.expect("what has come is read").unwrap();
        into.truncate(count);
        into
    }

    #[tokio::test]
    async fn what_comes_behind_an_urgent_byte_is_read_without_another_event() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for round in 0..200 {
            let (mut client, accepted) = pair(&listener);
            let before = if round % 2 == 0 { Some(Socket::new(accepted.try_clone().unwrap()).unwrap()) } else { None };
            let parts: [&[u8]; 3] = [b"before", b"between", b"behind"];
            for part in parts {
                client.write_all(part).unwrap();
                urgent(&client);
            }
            client.write_all(b"end").unwrap();
            drop(client);
            // An urgent byte that another follows belongs to the stream.
            let wanted = b"before!between!behindend";
            // Watched before the bytes came, or after.
            let socket = before.unwrap_or_else(|| Socket::new(accepted).unwrap());
            let mut got = Vec::new();
            loop {
                let more = read(&socket, 100).await;
                if more.is_empty() {
                    break;
                }
                got.extend(more);
            }
            assert_eq!(got, wanted, "round {round}");
        }
    }

    #[tokio::test]
    async fn a_read_that_an_urgent_byte_stops_leaves_the_rest_to_the_next_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            let (mut client, accepted) = pair(&listener);
            client.write_all(b"before").unwrap();
            urgent(&client);
            client.write_all(b"behind").unwrap();
            // The client goes on waiting: no further event comes.
            let socket = Socket::new(accepted).unwrap();
            assert_eq!((read(&socket, 100).await, read(&socket, 100).await), (b"before".to_vec(), b"behind".to_vec()));
        }
    }
}
