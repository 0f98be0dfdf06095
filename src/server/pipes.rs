//! The pipes that the process may have: by its descriptors, the configuration, and what the kernel leaves to a user.
//!
//! Makes no pipe. Invariant: large pipes take at most half of the pages that an unprivileged user's pipes may have, so
//! that the other half is there for small ones.

use std::fs;
use std::sync::Arc;

use super::descriptors;
use crate::splicer::{LargePipes, PipeLimits};

/// Size of a large pipe where the kernel allows it: beyond, a splice saves nothing that can be measured.
const BYTES: u64 = 1 << 20;

/// A pipe of at most this many bytes is no larger than any other (`splicer::os::linux`).
const SMALL: u64 = 256 << 10;

/// The kernel's defaults (pipe(7)), where its files cannot be read.
const MAX_SIZE: u64 = 1 << 20;
const USER_PAGES: u64 = 16_384;

/// The pipes of this process; `memory` is the configured bound of all large ones together, in bytes.
pub(super) fn limits(workers: usize, memory: usize) -> PipeLimits {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/fs/{name}")).ok()?.trim().parse().ok();
    let max_size = read("pipe-max-size").unwrap_or(MAX_SIZE);
    let user_pages = read("pipe-user-pages-soft").unwrap_or(USER_PAGES);
    let (bytes, most) = within(memory as u64, max_size, user_pages.saturating_mul(rustix::param::page_size() as u64));
    PipeLimits { most: descriptors::pipes_max(workers), large: Arc::new(LargePipes::new(bytes, most)) }
}

/// The most pipes of one runtime. Each holds 64 KiB at most, so 64 of them are 4 MiB.
pub(super) fn runtime_most(workers: usize) -> usize {
    (descriptors::pipes_max(workers) / 4).min(64)
}

/// Size and number of large pipes; `user` = bytes of all pipes of a user, 0: no bound.
fn within(memory: u64, max_size: u64, user: u64) -> (u32, usize) {
    let bytes = BYTES.min(max_size);
    if bytes <= SMALL {
        return (0, 0);
    }
    let most = if user == 0 { memory } else { memory.min(user / 2) };
    (bytes as u32, (most / bytes) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pipes_keep_to_the_configured_memory_and_to_half_of_what_a_user_may_have() {
        let (mib, kib) = (1 << 20, 1 << 10);
        for (memory, max_size, user, expected) in [
            (64 * mib, mib, 64 * mib, (1 << 20, 32)),
            (64 * mib, 64 * mib, 0, (1 << 20, 64)),
            (10 * mib, mib, 64 * mib, (1 << 20, 10)),
            (mib - 1, mib, 64 * mib, (1 << 20, 0)),
            (0, mib, 64 * mib, (1 << 20, 0)),
            (64 * mib, 512 * kib, 64 * mib, (1 << 19, 64)),
            (64 * mib, 256 * kib, 64 * mib, (0, 0)),
            (64 * mib, 4 * kib, 64 * mib, (0, 0)),
            (u64::MAX, mib, u64::MAX, (1 << 20, (u64::MAX / 2 / mib) as usize)),
        ] {
            assert_eq!(within(memory, max_size, user), expected, "{memory} {max_size} {user}");
        }
    }
}
