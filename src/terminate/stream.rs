//! [`Stream`]: a stream of a conversation, towards a client or a backend: a socket with or without TLS.
//!
//! Drives rustls over the socket's own calls; wraps no stream and hides no bytes that were read before. Reads no
//! protocol inside. Bytes that are written leave with the flush that every caller makes before it waits, so that what
//! belongs together leaves in one write: tickets with the first response, close_notify with the last record. Invariants:
//! at most one write of [`BULK`] bytes waits inside it for the peer; an end that the peer's TLS did not announce is never
//! reported as a clean one; a fault is reported behind every byte that came before it.

use std::cell::Cell;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ClientConnection, Connection, ProtocolVersion, ServerConfig, ServerConnection};

use super::buffer::{BUFFER, BULK};
use super::byte_stream::{ByteStream, ClientStream, Got};
use super::deadline::{LINGER, until};
use super::socket::Socket;
use super::tickets::HeldTickets;
use crate::clock;
use crate::fault::{Endpoint, Fault};
use crate::outcome::Ended;
use crate::tls::TlsAlert;

/// The alert by which TLS has failed, for the log; `None`: it has not.
pub type AlertNote = Rc<Cell<Option<TlsAlert>>>;

/// A socket with or without TLS.
pub struct Stream {
    socket: Socket,
    tls: Option<Box<Connection>>,
    closing: bool,
    finished: bool,
    /// Tickets of the handshake, which stand before all that TLS holds back.
    tickets: HeldTickets,
    /// A fault that stands behind bytes which were not read yet.
    late_fault: Option<Fault>,
    /// `None`: no TLS.
    alert: Option<AlertNote>,
}

impl Stream {
    /// Makes a stream that has no TLS.
    pub fn plain(socket: Socket) -> Self {
        Self::with(socket, None, None)
    }

    /// Makes a stream towards a client that is to make a handshake; see [`Self::take_in`] and
    /// [`Self::take_in_more`]. `alert` gets the alert of a failure, also after the handshake.
    pub fn with_client(socket: Socket, config: Arc<ServerConfig>, alert: &AlertNote) -> Result<Self, Fault> {
        let mut tls = ServerConnection::new(config).map_err(|_| Fault::Local)?;
        tls.set_buffer_limit(Some(BULK));
        Ok(Self::with(socket, Some(Connection::Server(tls)), Some(Rc::clone(alert))))
    }

    fn with(socket: Socket, tls: Option<Connection>, alert: Option<AlertNote>) -> Self {
        let tls = tls.map(Box::new);
        Self { socket, tls, closing: false, finished: false, tickets: HeldTickets::default(), late_fault: None, alert }
    }

    /// Processes the bytes of the handshake that the worker has read. They come before the first read of the socket: a
    /// client that has sent everything waits now.
    pub fn take_in(&mut self, mut unread: &[u8]) -> Result<(), Fault> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while !unread.is_empty() {
            tls.read_tls(&mut unread).map_err(|_| Fault::Tls)?;
            if let Err(error) = tls.process_new_packets() {
                self.note(&error);
                return Err(Fault::Tls);
            }
        }
        Ok(())
    }

    /// Processes the bytes of the handshake that the socket has, without waiting.
    pub async fn take_in_more(&mut self) -> Result<(), Fault> {
        let filled = std::future::poll_fn(|cx| Poll::Ready(self.poll_fill(cx))).await;
        match filled {
            Poll::Ready(Ok(0)) => Err(Fault::Cut),
            Poll::Ready(filled) => filled.map(drop),
            Poll::Pending => Ok(()),
        }
    }

    /// True until the handshake is complete.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Keeps the tickets that follow a complete handshake for the first write: to be called before they are flushed,
    /// where clients send first. In TLS 1.2 they are a part of the handshake, which the client awaits.
    pub fn hold_tickets(&mut self) {
        let tls = self.tls.as_deref_mut().filter(|tls| tls.protocol_version() == Some(ProtocolVersion::TLSv1_3));
        tls.into_iter().for_each(|tls| self.tickets.hold(tls));
    }

    /// Sends everything that TLS holds back, but for tickets that may wait.
    pub async fn flush(&mut self) -> Result<(), Fault> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Makes the handshake with a backend. `alert` as for [`Self::with_client`].
    pub async fn connect(socket: Socket, mut tls: ClientConnection, alert: &AlertNote) -> Result<Self, Fault> {
        tls.set_buffer_limit(Some(BULK));
        let mut stream = Self::with(socket, Some(Connection::Client(tls)), Some(Rc::clone(alert)));
        stream.shake_hands().await?;
        Ok(stream)
    }

    async fn shake_hands(&mut self) -> Result<(), Fault> {
        std::future::poll_fn(|cx| {
            while self.is_handshaking() {
                if self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
                    ready!(self.poll_flush(cx))?;
                    continue;
                }
                if ready!(self.poll_fill(cx))? == 0 {
                    return Poll::Ready(Err(Fault::Cut));
                }
            }
            // The last flight, and tickets.
            self.poll_flush(cx)
        })
        .await
    }

    fn note(&self, error: &rustls::Error) {
        if let Some(alert) = &self.alert {
            alert.set(TlsAlert::of(error));
        }
    }

    /// Ends sending after an alert or another last word, and drops what the peer still sends, until it closes or
    /// [`LINGER`] has passed: a close before that resets, and removes the last word from the peer's buffer unread.
    pub async fn linger(&mut self) {
        self.socket.reset_on_drop(false);
        let until_closed = std::future::poll_fn(|cx| {
            if ready!(self.poll_send_all(cx)).is_err() {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut self.closing, true) {
                self.socket.shutdown();
            }
            // On the stack of this poll, so that a waiting conversation does not hold it.
            let mut scrap = [0; 4096];
            while matches!(ready!(self.socket.poll_recv(cx, &mut scrap)), Ok(1..)) {}
            Poll::Ready(())
        });
        let _ = until(clock::now() + LINGER, until_closed).await;
    }

    /// Returns the TLS connection with a client; `None` = no TLS, or a backend's stream.
    pub fn server(&self) -> Option<&ServerConnection> {
        match self.tls.as_deref()? {
            Connection::Server(server) => Some(server),
            Connection::Client(_) => None,
        }
    }

    /// The protocol that TLS has agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.as_deref()?.alpn_protocol()
    }

    /// Reads decrypted bytes into the buffer. More than one record is read only into a buffer for more than one.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        if self.tls.is_none() {
            let got = |n| if n == 0 { Got::End } else { Got::Bytes(n) };
            return self.socket.poll_recv(cx, into).map_ok(got).map_err(|error| Fault::of_io(&error));
        }
        let mut read = 0;
        while read < into.len() {
            match self.poll_read_record(cx, &mut into[read..]) {
                Poll::Ready(Ok(Got::Bytes(n))) => read += n,
                other if read == 0 => return other,
                Poll::Ready(Err(fault)) => {
                    self.late_fault = Some(fault);
                    break;
                }
                // The next call returns the end again.
                Poll::Ready(Ok(_)) | Poll::Pending => break,
            }
            if into.len() <= BUFFER {
                break;
            }
        }
        Poll::Ready(Ok(Got::Bytes(read)))
    }

    /// Reads bytes of one record at most.
    fn poll_read_record(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        loop {
            let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(Got::End)) };
            match tls.reader().read(into) {
                Ok(0) => return Poll::Ready(Ok(Got::End)),
                Ok(n) => return Poll::Ready(Ok(Got::Bytes(n))),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(Got::Truncated)),
                Err(_) => {}
            }
            if let Some(fault) = self.late_fault.take() {
                return Poll::Ready(Err(fault));
            }
            // 0 is the socket's end; the reader then returns a clean end or `UnexpectedEof`. A fault stands behind the
            // records that came with it.
            self.late_fault = ready!(self.poll_fill(cx)).err();
        }
    }

    /// Writes some of the bytes; `poll_flush` sends what TLS holds back.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        if self.tls.is_none() {
            return self.socket.poll_send(cx, from).map_err(|error| Fault::of_io(&error));
        }
        ready!(self.poll_make_room(cx))?;
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(0)) };
        Poll::Ready(tls.writer().write(from).map_err(|_| Fault::Tls))
    }

    /// Writes some of the bytes of several buffers as [`Self::poll_write`] writes those of one: records do not end with a
    /// buffer, and a bare socket gets all of them with one call.
    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<Result<usize, Fault>> {
        if self.tls.is_none() {
            return self.socket.poll_send_all(cx, from).map_err(|error| Fault::of_io(&error));
        }
        ready!(self.poll_make_room(cx))?;
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(0)) };
        Poll::Ready(tls.writer().write_vectored(from).map_err(|_| Fault::Tls))
    }

    /// Sends what an earlier write has left, so that TLS has room for the next one; tickets go with that.
    fn poll_make_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.tickets.release() { Poll::Ready(Ok(())) } else { self.poll_send_all(cx) }
    }

    /// Writes the records that TLS holds back to the socket, but for tickets that may wait.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.tickets.poll_wait(cx) { Poll::Ready(Ok(())) } else { self.poll_send_all(cx) }
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(())) };
        while tls.wants_write() {
            match tls.write_tls(&mut Wire { socket: &self.socket, tickets: &self.tickets, cx }) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(Fault::of_io(&error))),
            }
        }
        self.tickets.poll_send(&self.socket, cx).map_err(|error| Fault::of_io(&error))
    }

    /// Ends sending: close_notify, then FIN.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if !std::mem::replace(&mut self.closing, true)
            && let Some(tls) = &mut self.tls
        {
            tls.send_close_notify();
        }
        ready!(self.poll_send_all(cx))?;
        if !std::mem::replace(&mut self.finished, true) {
            self.socket.shutdown();
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the socket fails, and sends tickets in time meanwhile; reads nothing.
    pub async fn broken(&self) -> Fault {
        tokio::select! {
            biased;
            fault = self.socket.broken() => fault,
            error = self.tickets.send_in_time(&self.socket) => Fault::of_io(&error),
        }
    }

    /// Awaits what the client waits for, and sends tickets in time meanwhile.
    pub async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            // The next write fails, too.
            _ = self.tickets.send_in_time(&self.socket) => {}
        }
        work.await
    }

    /// Returns the socket, to set whether a drop resets it.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Returns the socket of a stream without TLS.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Reads from the socket and processes the TLS records. 0 is the socket's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(0)) };
        let n = match tls.read_tls(&mut Wire { socket: &self.socket, tickets: &self.tickets, cx }) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Records of a handshake or a key update are sent now, because no later write may follow; tickets in time.
                if (tls.wants_write() || self.tickets.are_held())
                    && let Poll::Ready(Err(fault)) = self.poll_flush(cx)
                {
                    return Poll::Ready(Err(fault));
                }
                return Poll::Pending;
            }
            Err(error) => return Poll::Ready(Err(Fault::of_io(&error))),
        };
        if let Err(error) = tls.process_new_packets() {
            self.note(&error);
            // The alert goes out as far as there is room. A reset could destroy it before the peer reads it.
            if self.poll_send_all(cx).is_ready() {
                self.socket.shutdown();
                self.socket.reset_on_drop(false);
            }
            return Poll::Ready(Err(Fault::Tls));
        }
        Poll::Ready(Ok(n))
    }
}

impl ByteStream for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        Stream::poll_read(self, cx, into)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        Stream::poll_write(self, cx, from)
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<Result<usize, Fault>> {
        Stream::poll_write_vectored(self, cx, from)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Stream::poll_flush(self, cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Stream::poll_finish(self, cx)
    }

    fn reset_on_drop(&mut self, reset: bool) {
        self.socket.reset_on_drop(reset);
    }

    fn is_bare(&self) -> bool {
        self.tls.is_none()
    }

    fn poll_splice_in(&mut self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.socket.poll_splice_in(cx, pipe, most)
    }

    fn poll_splice_out(&mut self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.socket.poll_splice_out(cx, pipe, most)
    }
}

impl ClientStream for Stream {
    fn broken(&self) -> impl Future<Output = Fault> {
        Stream::broken(self)
    }

    async fn gone(&self) -> Ended {
        tokio::select! {
            biased;
            fault = Stream::broken(self) => fault.ending(Endpoint::Client),
            () = self.socket.finished() => Ended::ClientLeft,
        }
    }

    fn meanwhile<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T> {
        Stream::meanwhile(self, work)
    }

    fn linger(&mut self) -> impl Future<Output = ()> {
        Stream::linger(self)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket as `Read` and `Write`, for rustls.
struct Wire<'a, 'c, 'w> {
    socket: &'a Socket,
    /// Leave before the first bytes.
    tickets: &'a HeldTickets,
    cx: &'c mut Context<'w>,
}

fn now_or_never(poll: Poll<io::Result<usize>>) -> io::Result<usize> {
    match poll {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Wire<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        now_or_never(self.socket.poll_recv(self.cx, into))
    }
}

impl Write for Wire<'_, '_, '_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(from)])
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match now_or_never(self.tickets.poll_send_with(self.socket, from, self.cx))? {
                // Only tickets had room, and there is no more.
                0 if from.iter().any(|slice| !slice.is_empty()) => {}
                sent => return Ok(sent),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
