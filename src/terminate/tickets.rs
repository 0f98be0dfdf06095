//! [`HeldTickets`]: the session tickets of a new conversation, which wait for the first response.
//!
//! Makes no ticket: rustls has written these, and they stand before everything else that it writes. Sent by shared
//! reference, so that whatever waits on behalf of the client, be it for a backend, can send them in time. Invariant: the
//! bytes are sent once and in order, with the first write or after [`TICKETS_WAIT`], whichever comes first.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::Connection;
use tokio::time::Sleep;

use super::socket::Socket;

/// How long tickets wait for a response with which they can leave. A client that sends no request gets them then.
pub(super) const TICKETS_WAIT: Duration = Duration::from_millis(10);

/// Tickets that are not sent yet; nothing once they are.
#[derive(Debug, Default)]
pub(super) struct HeldTickets(RefCell<Option<Box<Held>>>);

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    sent: usize,
    /// `None`: they wait no longer, and go before the next bytes.
    wait: Option<Pin<Box<Sleep>>>,
}

impl HeldTickets {
    /// Takes what rustls has written and not sent; the time begins.
    pub(super) fn hold(&self, tls: &mut Connection) {
        let mut bytes = Vec::new();
        // A write to memory does not fail.
        while tls.wants_write() && tls.write_tls(&mut bytes).is_ok() {}
        let wait = Some(Box::pin(tokio::time::sleep(TICKETS_WAIT)));
        *self.0.borrow_mut() = (!bytes.is_empty()).then(|| Box::new(Held { bytes, sent: 0, wait }));
    }

    /// True if bytes are held.
    pub(super) fn are_held(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// True while they may wait.
    pub(super) fn poll_wait(&self, cx: &mut Context<'_>) -> bool {
        let mut held = self.0.borrow_mut();
        let wait = held.as_mut().and_then(|held| held.wait.as_mut());
        wait.is_some_and(|wait| wait.as_mut().poll(cx).is_pending())
    }

    /// Ends the wait: they go with what is sent next. True if they have waited until now.
    pub(super) fn release(&self) -> bool {
        self.0.borrow_mut().as_mut().is_some_and(|held| held.wait.take().is_some())
    }

    /// Sends them alone.
    pub(super) fn poll_send(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.are_held() {
            ready!(self.poll_send_with(socket, &[], cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends them when they have waited for long enough, and never returns but with an error: for where the client is
    /// only watched.
    pub(super) async fn send_in_time(&self, socket: &Socket) -> io::Error {
        let sent = poll_fn(|cx| if self.poll_wait(cx) { Poll::Pending } else { self.poll_send(socket, cx) }).await;
        match sent {
            Ok(()) => pending().await,
            Err(error) => error,
        }
    }

    /// Sends them and what comes behind them with one call; the number of bytes of the latter that were sent.
    pub(super) fn poll_send_with(
        &self,
        socket: &Socket,
        behind: &[IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut held = self.0.borrow_mut();
        let Some(first) = held.as_mut() else { return socket.poll_send_all(cx, behind) };
        let rest = &first.bytes[first.sent..];
        let all: Vec<_> = [IoSlice::new(rest)].into_iter().chain(behind.iter().copied()).collect();
        let count = ready!(socket.poll_send_all(cx, &all))?;
        let before = rest.len();
        first.sent += count.min(before);
        if count >= before {
            *held = None;
        }
        Poll::Ready(Ok(count.saturating_sub(before)))
    }
}
