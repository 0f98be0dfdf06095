//! [`builder`]: what clients of HTTP/2 are told that they may send, and what is kept of it.
//!
//! Counts no frame. Invariant: each number is bounded, whatever the configuration says.

use h2::server::Builder;

use super::stream::SEND_BUFFER;
use crate::config::Limits;
use crate::http::head::{HEAD_MAX, HeadLimits};

/// Bytes of all bodies together that the client may send before backends have taken some. Each stream has its part of
/// them, so that bodies which wait cannot stop the others.
pub const WINDOW: u32 = 1600 * 1024;

/// Longest list of header fields that is decoded, as RFC 9113 §6.5.2 counts it, in longest heads: what is between the two
/// gets 431 by the reader of HTTP/1.
const HEADER_LISTS: u32 = 2;

/// Longest list of header fields of the longest head that can be configured.
pub const HEADER_LIST_MAX: u32 = HEADER_LISTS * HEAD_MAX as u32;

/// Most streams that the client may have reset before they were looked at.
const RESETS_UNSEEN_MAX: usize = 200;

/// What small frames of DATA may cost that no stream has taken, each 256 bytes less its own. Streams take them one turn
/// later: a turn may bring as many messages of ten bytes as this.
const SMALL_FRAMES_MAX: usize = WINDOW as usize;

/// Settings of a connection with these limits of heads.
pub fn builder(limits: &Limits, heads: HeadLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(WINDOW / limits.http2_streams.max(1))
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(HEADER_LISTS * heads.bytes as u32)
        .max_concurrent_streams(limits.http2_streams)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES_MAX)
        .max_pending_accept_reset_streams(RESETS_UNSEEN_MAX)
        // They are counted on the wire, by rate.
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    builder
}
