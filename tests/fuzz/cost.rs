//! [`Limit`]: what reading some bytes may cost, in allocations and in steps, never in time.
//!
//! Allocations of the calling thread are counted in every run. Steps are counted where the library was built with
//! counters (`tests/fuzz/run`): a step is a run through one region of its code, so a loop over all bytes for each byte
//! is seen however fast it is. Invariant: the same input has the same cost.

use super::coverage;

/// The most that something may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Calls of the allocator.
    pub allocations: u64,
    /// Bytes asked of the allocator, all together.
    pub bytes: u64,
    /// Steps whatever the length.
    pub steps: u64,
    /// Steps for each byte.
    pub steps_per_byte: u64,
}

impl Limit {
    /// No allocation at all.
    pub const NO_MEMORY: Self = Self { allocations: 0, bytes: 0, steps: 0, steps_per_byte: 0 };
}

/// Runs something that works on `length` bytes, and panics if it costs more than the limit.
pub fn bounded<T>(what: &str, length: usize, limit: Limit, work: impl FnOnce() -> T) -> T {
    let mut result = None;
    let mut memory = allocation_counter::AllocationInfo::default();
    let steps = coverage::steps(|| {
        memory = allocation_counter::measure(|| result = Some(work()));
    });
    assert!(memory.count_total <= limit.allocations, "{what}: {} allocations for {length} bytes", memory.count_total);
    assert!(memory.bytes_total <= limit.bytes, "{what}: {} bytes of memory for {length} bytes", memory.bytes_total);
    let most = limit.steps + limit.steps_per_byte * length as u64;
    if let Some(steps) = steps {
        assert!(steps <= most, "{what}: {steps} steps for {length} bytes, more than {most}");
    }
    result.expect("the work was done")
}
