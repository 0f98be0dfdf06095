//! HTTP/2 frame by frame: what RFC 9113, RFC 7541 and RFC 8441 demand of a server, and attacks.
//!
//! The client writes and reads raw frames over plaintext with prior knowledge; bodies, cookies and real clients are
//! tested elsewhere. Invariant: a case allows every behaviour that the RFC allows, and no other.

mod appendix_c;
mod attacks;
mod cases;
mod connection;
mod extended_connect;
mod frames;
mod hpack;
mod huffman;
mod messages;
mod site;
pub mod wire;
