//! [`Closing`]: the end of a WebSocket that this process ends: by a stop, an upgrade, a drain, or a limit.
//!
//! Decides about no end, and reads frames only as far as to know where they begin. The client gets a Close frame with
//! 1012, "service restart": it may connect again. Its messages reach the backend until it answers, and its answer, a
//! Close frame too, is the one for the backend; a client that does not answer is replaced by this process, with 1001.
//! Messages of the backend are dropped behind the client's Close frame: none may follow that. Invariant: a Close frame
//! stands between two frames, or is not sent; the whole takes no longer than `CLOSING_MAX`.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::clock::{self, Micros};
use crate::http::websocket::{self, Position};
use crate::terminate::byte_stream::ByteStream;
use crate::terminate::deadline::{CLOSING_MAX, Deadline};
use crate::terminate::relay::RelayDirection;

/// The longest of the three waits: for the end of a frame, for the answer, for the ends of both connections.
const WAIT: Micros = CLOSING_MAX.as_micros() as Micros / 3;

/// Both sides of a WebSocket that ends.
pub struct Closing<'a, C, S> {
    pub client: &'a mut C,
    pub backend: &'a mut S,
    pub up: &'a mut RelayDirection,
    pub down: &'a mut RelayDirection,
}

impl<C: ByteStream, S: ByteStream> Closing<'_, C, S> {
    /// Ends both sides, and calls a function for each that has its Close frame, the client's first; the other one is cut.
    pub async fn close(mut self, (client_ends_well, backend_ends_well): (impl Fn(&mut C), impl Fn(&mut S))) {
        let unknown = |direction: &RelayDirection| direction.position() == Position::Lost || direction.has_ended();
        if unknown(self.up) || unknown(self.down) || !self.tell_client().await {
            return;
        }
        client_ends_well(self.client);
        let told = self.answer().await || self.tell_backend().await;
        if told {
            backend_ends_well(self.backend);
        }
        self.finish(told).await;
    }

    /// Sends the client its Close frame, behind the frame that it has a part of; false: that was not possible.
    async fn tell_client(&mut self) -> bool {
        let Self { client, backend, up, down, .. } = self;
        let frame = websocket::close_frame(websocket::SERVICE_RESTART);
        let mut rest = &frame[..];
        bounded(|cx| {
            if up.poll(*client, *backend, cx).is_err() {
                return Poll::Ready(false);
            }
            if rest.len() == frame.len() {
                match down.poll_to_boundary(*backend, *client, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Pending,
                }
                match down.position() {
                    // The backend has closed by itself.
                    Position::Closed => rest = &[],
                    Position::Lost => return Poll::Ready(false),
                    Position::Boundary | Position::Inside => {}
                }
            }
            write_all(*client, &mut rest, cx)
        })
        .await
    }

    /// Passes on what the client sends up to its Close frame, or its end; false: neither has come.
    async fn answer(&mut self) -> bool {
        let Self { client, backend, up, down, .. } = self;
        bounded(|cx| {
            let _ = down.poll_discard(*backend, cx);
            match up.poll(*client, *backend, cx) {
                Ok(()) if up.position() == Position::Closed || up.is_over() => Poll::Ready(true),
                Ok(()) => Poll::Pending,
                Err(_) => Poll::Ready(false),
            }
        })
        .await
    }

    /// Sends the backend a Close frame in place of the client's; false: that was not possible.
    async fn tell_backend(&mut self) -> bool {
        let Self { client, backend, up, down, .. } = self;
        let mut key = [0; 4];
        if aws_lc_rs::rand::fill(&mut key).is_err() || up.has_ended() {
            return false;
        }
        let frame = websocket::masked_close_frame(websocket::GOING_AWAY, key);
        let mut rest = &frame[..];
        // The wait for the answer is over: a frame that is not whole by now stays so.
        poll_fn(|cx| {
            let _ = down.poll_discard(*backend, cx);
            let boundary = up.poll_to_boundary(*client, *backend, cx);
            let told = matches!(boundary, Poll::Ready(Ok(())))
                && up.position() == Position::Boundary
                && write_all(*backend, &mut rest, cx) == Poll::Ready(true);
            Poll::Ready(told)
        })
        .await
    }

    /// Finishes the client's connection, and the backend's if it was `told`, and waits for their ends.
    async fn finish(&mut self, told: bool) {
        let Self { client, backend, up, down, .. } = self;
        bounded(|cx| {
            let client_ended = client.poll_finish(cx).is_ready() & up.poll_discard(*client, cx).is_ready();
            let backend_ended =
                !told || backend.poll_finish(cx).is_ready() & down.poll_discard(*backend, cx).is_ready();
            match client_ended && backend_ended {
                true => Poll::Ready(true),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Polls for at most [`WAIT`]; false: it was not ready by then.
async fn bounded(mut step: impl FnMut(&mut Context<'_>) -> Poll<bool>) -> bool {
    let (mut deadline, until) = (Deadline::default(), clock::now() + WAIT);
    poll_fn(|cx| match step(cx) {
        Poll::Pending => deadline.poll(cx, until).map(|()| false),
        ready => ready,
    })
    .await
}

/// Writes the rest and flushes it; ready with false if the stream fails.
fn write_all(to: &mut impl ByteStream, rest: &mut &[u8], cx: &mut Context<'_>) -> Poll<bool> {
    while !rest.is_empty() {
        match to.poll_write(cx, rest) {
            Poll::Ready(Ok(n)) => *rest = &rest[n..],
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => return Poll::Pending,
        }
    }
    to.poll_flush(cx).map(|flushed| flushed.is_ok())
}
