//! Moves the bytes of a terminated connection both ways: plain relays, and connections after an accepted Upgrade.
//!
//! Reads no protocol. The promises are those of the splicer's relay: half-close passes both ways (as close_notify where
//! there is TLS), an error on one side is a reset on the other, a slow reader costs at most one buffer a direction, and
//! the limits are the same. A client that closes its socket without close_notify has its end passed on as an end, as in
//! HAProxy and nginx, because a reset could destroy bytes that the backend has not read yet; the outcome is
//! `client_truncated`. A backend that does the same counts as cut.
//!
//! Invariant: an end is passed on only behind every byte before it.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::buffer::{BUFFER, Buffer};
use super::conversation::Conversation;
use super::deadline::Deadline;
use super::state::ConversationStage;
use super::stream::{Got, Stream};
use super::turns::give_way;
use crate::clock;
use crate::counters::BackendCounters;
use crate::fault::{Endpoint, Fault};
use crate::limits::Limits;
use crate::outcome::Ended;

/// Number of buffers that a direction moves before other tasks have a turn.
const ROUNDS: usize = 16;

/// One direction of a relay, from a sender to a receiver.
#[derive(Debug, Default)]
pub struct RelayDirection {
    buffer: Buffer,
    end_seen: bool,
    end_sent: bool,
    truncated: bool,
    moved: u64,
}

/// The side of a direction that failed, and its fault.
enum BrokenSide {
    Sender(Fault),
    Receiver(Fault),
}

impl RelayDirection {
    /// Makes a direction that begins with bytes read earlier.
    pub fn holding(buffer: Buffer) -> Self {
        Self { buffer, ..Self::default() }
    }

    fn poll(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Result<(), BrokenSide> {
        for _ in 0..ROUNDS {
            if !self.buffer.is_empty() {
                match to.poll_write(cx, self.buffer.bytes()) {
                    Poll::Ready(Ok(n)) => {
                        self.buffer.consume(n);
                        self.moved += n as u64;
                    }
                    Poll::Ready(Err(fault)) => return Err(BrokenSide::Receiver(fault)),
                    Poll::Pending => return Ok(()),
                }
            } else if self.end_seen {
                if !self.end_sent {
                    match to.poll_finish(cx) {
                        Poll::Ready(Ok(())) => self.end_sent = true,
                        Poll::Ready(Err(fault)) => return Err(BrokenSide::Receiver(fault)),
                        Poll::Pending => {}
                    }
                }
                return Ok(());
            } else {
                match self.buffer.poll_read(from, BUFFER, cx) {
                    Poll::Ready(Ok(Some(Got::Bytes(_)) | None)) => {}
                    Poll::Ready(Ok(Some(end))) => {
                        self.end_seen = true;
                        self.truncated = end == Got::Truncated;
                    }
                    Poll::Ready(Err(fault)) => return Err(BrokenSide::Sender(fault)),
                    Poll::Pending => {
                        return match to.poll_flush(cx) {
                            Poll::Ready(Err(fault)) => Err(BrokenSide::Receiver(fault)),
                            _ => Ok(()),
                        };
                    }
                }
            }
        }
        give_way(cx);
        Ok(())
    }
}

/// Moves bytes until both sides have finished, one fails or a limit passes. The caller drops the streams.
pub async fn relay(
    conversation: &Conversation,
    limits: Limits,
    (client, backend): (&mut Stream, &mut Stream),
    (mut up, mut down): (RelayDirection, RelayDirection),
    counters: &BackendCounters,
    deadline: &mut Deadline,
) -> Ended {
    conversation.state.enter(ConversationStage::Relay);
    let mut last_active = clock::now();
    let ended = poll_fn(|cx| {
        let before = (up.moved, down.moved, up.end_seen, down.end_seen);
        let (way_up, way_down) = (up.poll(client, backend, cx), down.poll(backend, client, cx));
        if (up.moved, down.moved, up.end_seen, down.end_seen) != before {
            last_active = clock::now();
            conversation.state.moved(up.moved - before.0, down.moved - before.1, last_active);
            counters.bytes_up.add(up.moved - before.0);
            counters.bytes_down.add(down.moved - before.1);
        }
        if let Some(ended) = broken(&way_up, &way_down) {
            return Poll::Ready(ended);
        }
        if down.truncated {
            return Poll::Ready(Ended::ResponseCut);
        }
        if up.end_sent && down.end_sent {
            return Poll::Ready(if up.truncated { Ended::ClientTruncated } else { Ended::Done });
        }
        let half_closed = up.end_seen || down.end_seen;
        match limits.deadline(half_closed, last_active, conversation.client_info.accepted) {
            Some((at, ended)) => deadline.poll(cx, at).map(|()| ended),
            None => Poll::Pending,
        }
    })
    .await;
    if matches!(ended, Ended::Done | Ended::ClientTruncated) {
        client.socket().reset_on_drop(false);
        backend.socket().reset_on_drop(false);
    }
    ended
}

fn broken(up: &Result<(), BrokenSide>, down: &Result<(), BrokenSide>) -> Option<Ended> {
    match (up, down) {
        (Err(BrokenSide::Sender(fault)), _) | (_, Err(BrokenSide::Receiver(fault))) => {
            Some(fault.ending(Endpoint::Client))
        }
        (Err(BrokenSide::Receiver(fault)), _) | (_, Err(BrokenSide::Sender(fault))) => {
            Some(fault.ending(Endpoint::Backend))
        }
        (Ok(()), Ok(())) => None,
    }
}
