//! One file a target. Each says its properties; what heads of requests and responses share is in `head`.
//!
//! Reads no file and no clock. Invariant: a target panics only where the library breaks its word, never on strange bytes.

pub mod client_hello;
pub mod configuration;
pub mod cookie;
mod head;
pub mod http2_frames;
pub mod http2_head;
pub mod key_ring;
pub mod proxy_header;
pub mod request;
pub mod response;
pub mod table_file;

use super::rng::Rng;

/// Numbers that depend on the input alone, for cuts and choices.
fn choices(bytes: &[u8]) -> Rng {
    Rng(xxhash_rust::xxh3::xxh3_64(bytes))
}

/// Ascending places to cut an input at: every byte of a short one, a few of any other.
fn cuts(bytes: &[u8]) -> Vec<usize> {
    let mut rng = choices(bytes);
    if bytes.len() <= 64 || bytes.len() <= 1_000 && rng.below(8) == 0 {
        return (0..=bytes.len()).collect();
    }
    let mut places: Vec<_> = (0..8).map(|_| rng.below(bytes.len() + 1)).collect();
    places.push(bytes.len());
    places.sort_unstable();
    places
}
