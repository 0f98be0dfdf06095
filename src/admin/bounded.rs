//! Limits of the admin interface: [`Bounded`] accepts only so many connections at once, each for a limited time.
//!
//! Reads no HTTP. Invariant: a connection holds a permit for exactly as long as it lives, and is closed after
//! [`LIFETIME`], whatever its peer does.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections to one listener at once; further clients wait in the backlog.
const CONNECTIONS_MAX: usize = 32;
/// The longest time that a connection lives; every reply takes less.
const LIFETIME: Duration = Duration::from_secs(120);

/// A listener with a limit of open connections.
pub(super) struct Bounded<L> {
    listener: L,
    permits: Arc<Semaphore>,
    lifetime: Duration,
}

impl<L> Bounded<L> {
    /// Puts the limits on a listener.
    pub(super) fn new(listener: L) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)), lifetime: LIFETIME }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = BoundedIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed; without a permit the connection would merely go uncounted.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        (BoundedIo { io, end: Box::pin(sleep(self.lifetime)), _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself.
pub(super) struct BoundedIo<T> {
    io: T,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<T> BoundedIo<T> {
    fn alive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for BoundedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.alive(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for BoundedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.alive(cx)?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn bounded(permits: usize, lifetime: Duration) -> (Bounded<TcpListener>, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Bounded { listener, permits: Arc::new(Semaphore::new(permits)), lifetime }, address)
    }

    #[tokio::test]
    async fn one_too_many_waits_until_another_is_gone() {
        let (mut listener, address) = bounded(1, LIFETIME).await;
        let _clients = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, _) = Listener::accept(&mut listener).await;
        let early = tokio::time::timeout(Duration::from_millis(50), Listener::accept(&mut listener)).await;
        assert!(early.is_err());
        drop(first);
        tokio::time::timeout(Duration::from_secs(5), Listener::accept(&mut listener)).await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_peer_is_cut_off() {
        let (mut listener, address) = bounded(1, Duration::from_millis(20)).await;
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut io, _) = Listener::accept(&mut listener).await;
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
