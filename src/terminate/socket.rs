//! A socket of a conversation: any stream socket, non-blocking, driven by the runtime.
//!
//! Speaks no protocol. One method is one system call, as the splicer's are. Invariant: a socket that is dropped before
//! [`Socket::reset_on_drop`]`(false)` is reset, so that a stream which was cut never looks complete, whatever cut it.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::fault::Fault;

/// A stream socket.
#[derive(Debug)]
pub struct Socket {
    socket: AsyncFd<OwnedFd>,
    reset_on_drop: bool,
    /// The last write found no room, and the kernel has not told of any since.
    full: Cell<bool>,
}

impl Socket {
    /// Takes over a non-blocking socket.
    #[allow(deprecated, reason = "its successor is unsafe to call, and an owned descriptor is all that it asks for")]
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::ERROR;
        Ok(Self { socket: AsyncFd::with_interest(socket, interest)?, reset_on_drop: true, full: Cell::new(false) })
    }

    /// Waits until the peer resets, or is known to be gone; reads nothing.
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

    /// Reads; 0 is the end.
    pub fn poll_recv(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match rustix::net::recv(self.socket.get_ref(), &mut *into, RecvFlags::empty()) {
                Ok((_, n)) => {
                    // Whatever comes after a short read makes an event of its own.
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

    /// Writes.
    pub fn poll_send(&self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |socket| rustix::net::send(socket, from, SendFlags::NOSIGNAL))
    }

    /// Writes several pieces. SIGPIPE is ignored in this process.
    pub fn poll_send_all(&self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |socket| rustix::io::writev(socket, from))
    }

    fn poll_out(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            // There nearly always is room, also where the runtime has not been told of it yet. Once there was none, it
            // is waited for: whoever looks in between, because time has passed, would find the odd byte and take it
            // for a peer that reads.
            let guard = if self.full.get() { Some(ready!(self.socket.poll_write_ready(cx))?) } else { None };
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

    /// Waits for the answer to a connect.
    pub async fn connected(&self) -> io::Result<()> {
        drop(self.socket.writable().await?);
        Ok(sockopt::socket_error(self.socket.get_ref())??)
    }

    /// Finishes sending.
    pub fn shutdown(&self) {
        // Fails only where the peer has reset meanwhile, which the next call tells.
        let _ = rustix::net::shutdown(self.socket.get_ref(), Shutdown::Write);
    }

    /// Whether a drop resets the connection. True from the start, so that a stream that was cut never looks complete;
    /// false once everything was sent, or while nothing is under way.
    pub fn reset_on_drop(&mut self, reset: bool) {
        self.reset_on_drop = reset;
    }
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
