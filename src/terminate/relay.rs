//! Moves the bytes of a terminated connection both ways: plain relays, and connections after an accepted Upgrade.
//!
//! Reads no protocol, but for the frames of a WebSocket, which it only counts off. The promises are those of the splicer's relay: half-close passes both ways (as close_notify where
//! there is TLS), an error on one side is a reset on the other, a slow reader costs at most one buffer or pipe a
//! direction, and the limits are the same. A client that closes its socket without close_notify has its end passed on as an end, as in
//! HAProxy and nginx, because a reset could destroy bytes that the backend has not read yet; the outcome is
//! `client_truncated`. A backend that does the same counts as cut.
//!
//! Invariant: an end is passed on only behind every byte before it.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::buffer::{BULK, Buffer};
use super::bypass::Bypass;
use super::byte_stream::{ByteStream, ClientStream, Got};
use super::conversation::Conversation;
use super::deadline::Deadline;
use super::state::ConversationStage;
use super::turns::give_way;
use crate::attempt::{BackendEnd, FirstByte, Silence};
use crate::clock;
use crate::fault::{Endpoint, Fault};
use crate::http::websocket::{FrameReader, Position};
use crate::limits::Limits;
use crate::outcome::Ended;
use crate::pool::Lease;

/// Number of buffers that a direction moves before other tasks have a turn.
const ROUNDS: usize = 16;

/// One direction of a relay, from a sender to a receiver.
#[derive(Debug, Default)]
pub struct RelayDirection {
    buffer: Buffer,
    /// Bytes that pass without being read, where both streams are bare and carry no frames.
    bypass: Bypass,
    end_seen: bool,
    end_sent: bool,
    truncated: bool,
    moved: u64,
    /// Place of the bytes that the receiver was sent, if they are frames.
    frames: Option<FrameReader>,
}

/// The side of a direction that failed, and its fault.
#[derive(Debug)]
pub enum BrokenSide {
    Sender(Fault),
    Receiver(Fault),
}

impl RelayDirection {
    /// Makes a direction that begins with bytes read earlier.
    pub fn holding(buffer: Buffer) -> Self {
        Self { buffer, ..Self::default() }
    }

    /// A direction that carries frames of a WebSocket.
    pub fn of_frames(buffer: Buffer, frames: FrameReader) -> Self {
        Self { buffer, frames: Some(frames), ..Self::default() }
    }

    /// Number of bytes that the receiver was sent.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// True once the sender has sent a byte.
    fn has_begun(&self) -> bool {
        self.moved > 0 || !self.buffer.is_empty() || !self.bypass.is_empty()
    }

    /// True once the sender has finished.
    pub fn has_ended(&self) -> bool {
        self.end_seen
    }

    /// True once the receiver was sent the end.
    pub fn is_over(&self) -> bool {
        self.end_sent
    }

    /// Place of the bytes that the receiver was sent, among frames.
    pub fn position(&self) -> Position {
        self.frames.map_or(Position::Lost, |frames| frames.position())
    }

    /// Moves what there is to move, and the end behind it.
    pub fn poll(
        &mut self,
        from: &mut impl ByteStream,
        to: &mut impl ByteStream,
        cx: &mut Context<'_>,
    ) -> Result<(), BrokenSide> {
        let passes = self.frames.is_none() && from.is_bare() && to.is_bare();
        for _ in 0..ROUNDS {
            if !self.buffer.is_empty() {
                match self.poll_write(to, self.buffer.bytes().len(), cx) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return Ok(()),
                }
            } else if !self.bypass.is_empty() {
                match self.bypass.poll_drain(to, cx) {
                    Poll::Ready(moved) => self.moved += moved.map_err(BrokenSide::Receiver)? as u64,
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
                // Nothing is read for a receiver that has not taken what came before: it holds at most one write.
                match to.poll_flush(cx) {
                    Poll::Ready(flushed) => flushed.map_err(BrokenSide::Receiver)?,
                    Poll::Pending => return Ok(()),
                }
                match self.poll_read(from, passes, cx) {
                    Poll::Ready(read) => read?,
                    Poll::Pending => return Ok(()),
                }
            }
        }
        give_way(cx);
        Ok(())
    }

    /// Moves the rest of the frame that the receiver has a part of, and no byte behind it.
    pub fn poll_to_boundary(
        &mut self,
        from: &mut impl ByteStream,
        to: &mut impl ByteStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BrokenSide>> {
        for _ in 0..ROUNDS {
            let Some(frames) = self.frames.filter(|frames| frames.position() == Position::Inside) else {
                return Poll::Ready(Ok(()));
            };
            if !self.buffer.is_empty() {
                ready!(self.poll_write(to, frames.rest_of_frame(self.buffer.bytes()), cx))?;
            } else if self.end_seen {
                return Poll::Ready(Err(BrokenSide::Sender(Fault::Cut)));
            } else {
                ready!(to.poll_flush(cx)).map_err(BrokenSide::Receiver)?;
                ready!(self.poll_read(from, false, cx))?;
            }
        }
        give_way(cx);
        Poll::Pending
    }

    /// Drops what the sender still sends. Ready once it has finished, or failed.
    pub fn poll_discard(&mut self, from: &mut impl ByteStream, cx: &mut Context<'_>) -> Poll<()> {
        (self.buffer, self.bypass) = (Buffer::default(), Bypass::default());
        // On the stack of this poll, so that a waiting conversation does not hold it.
        let mut scrap = [0; 4096];
        for _ in 0..ROUNDS {
            if self.end_seen {
                return Poll::Ready(());
            }
            self.end_seen = !matches!(ready!(from.poll_read(cx, &mut scrap)), Ok(Got::Bytes(_)));
        }
        give_way(cx);
        Poll::Pending
    }

    /// Writes some of the oldest `most` bytes.
    fn poll_write(
        &mut self,
        to: &mut impl ByteStream,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BrokenSide>> {
        let bytes = &self.buffer.bytes()[..most];
        let n = ready!(to.poll_write(cx, bytes)).map_err(BrokenSide::Receiver)?;
        if let Some(frames) = &mut self.frames {
            frames.read(&bytes[..n]);
        }
        self.buffer.consume(n);
        self.moved += n as u64;
        Poll::Ready(Ok(()))
    }

    /// Reads into the empty buffer, or notes the end. `passes`: the bytes may pass without being read.
    fn poll_read(
        &mut self,
        from: &mut impl ByteStream,
        passes: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BrokenSide>> {
        let passed = if passes { self.bypass.poll_fill(from, &mut self.buffer, u64::MAX, cx) } else { None };
        let got = match passed {
            Some(got) => ready!(got).map(Some),
            None => ready!(self.buffer.poll_read(from, BULK, cx)),
        };
        match got {
            Ok(Some(Got::Bytes(_)) | None) => {}
            Ok(Some(end)) => {
                self.end_seen = true;
                self.truncated = end == Got::Truncated;
            }
            Err(fault) => return Poll::Ready(Err(BrokenSide::Sender(fault))),
        }
        Poll::Ready(Ok(()))
    }
}

/// Moves bytes until both sides have finished, one fails, a limit passes, or a command ends the conversation. The caller
/// drops the streams.
pub async fn relay(
    conversation: &Conversation,
    limits: Limits,
    (client, backend): (&mut impl ClientStream, &mut impl ByteStream),
    (up, down): (&mut RelayDirection, &mut RelayDirection),
    (lease, first_byte): (&Lease, &mut FirstByte),
    deadline: &mut Deadline,
) -> Ended {
    conversation.state.enter(ConversationStage::Relay);
    let counters = lease.counters(conversation.context.counters_index);
    let mut last_active = clock::now();
    let ended = poll_fn(|cx| {
        // Only a conversation that ends itself has a turn after that.
        if let Some(ended) = conversation.state.cancelled_by() {
            return Poll::Ready(ended);
        }
        let before = (up.moved, down.moved, up.end_seen, down.end_seen);
        let (way_up, way_down) = (up.poll(client, backend, cx), down.poll(backend, client, cx));
        if (up.moved, down.moved, up.end_seen, down.end_seen) != before {
            last_active = clock::now();
            conversation.state.moved(up.moved - before.0, down.moved - before.1, last_active);
            counters.bytes_up.add(up.moved - before.0);
            counters.bytes_down.add(down.moved - before.1);
        }
        let broken = broken(&way_up, &way_down);
        if first_byte.is_awaited() {
            judge_begin(conversation, (up, down), broken, lease, first_byte);
        }
        if let Some(ended) = broken {
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
        client.reset_on_drop(false);
        backend.reset_on_drop(false);
    }
    ended
}

/// Notes the first byte of the backend, or that it has ended the connection without one; `ended`: how the connection ends
/// now.
fn judge_begin(
    conversation: &Conversation,
    (up, down): (&RelayDirection, &RelayDirection),
    ended: Option<Ended>,
    lease: &Lease,
    first_byte: &mut FirstByte,
) {
    let backend = lease.backend();
    if down.has_begun() {
        return first_byte.came(backend);
    }
    let silence = Silence {
        backend: match ended {
            Some(Ended::BackendReset) => Some(BackendEnd::Reset),
            _ => down.end_seen.then_some(BackendEnd::Closed),
        },
        client_has_sent: up.has_begun(),
        client_has_ended: up.end_seen,
        source: conversation.client_info.counted_source(),
    };
    let pool = || conversation.context.current.load().pool_of(backend).cloned();
    first_byte.missed(silence, backend, pool, clock::now_ms());
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
