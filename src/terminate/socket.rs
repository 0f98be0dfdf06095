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
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
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

    /// Reads into the buffer; 0 bytes mean the end of the stream.
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match rustix::net::recv(self.socket.get_ref(), &mut *into, RecvFlags::empty()) {
                Ok((_, n)) => {
                    // Bytes that come after a short read make an event of their own.
                    if n > 0 && n < into.len() {
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
