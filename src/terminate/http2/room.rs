//! [`poll_room`]: how much of a body may be sent now.
//!
//! Sends nothing. Invariant: no more than the windows of the peer allow, and than a stream may hold that waits.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;

use crate::fault::Fault;

/// How many bytes of so many may be sent on a stream now; registers for more if there are none.
pub fn poll_room(body: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Result<usize, Fault> {
    loop {
        body.reserve_capacity(wanted);
        match body.capacity() {
            0 => match body.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(_) => return Err(Fault::Reset),
                Poll::Pending => return Ok(0),
            },
            room => return Ok(room.min(wanted)),
        }
    }
}
