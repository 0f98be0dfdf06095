//! HTTP/2 with clients: every stream is one HTTP/1.1 request inside.
//!
//! `chunks.rs` gives the body of a stream its framing, `response.rs` reads the response that goes back, `wire.rs` is
//! the client's stream as h2 reads and writes it, and `limits.rs` counts frames on that way. Heads of requests are
//! written by [`crate::http::http2_head`].

mod chunks;
mod limits;
mod response;
mod wire;
