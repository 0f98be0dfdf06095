//! A hostile imitation of the operating system, and a world of clients and backends round one worker.
//!
//! For tests and benches; the product never runs it. `kernel.rs` and `os.rs` imitate sockets, `conformance` holds them
//! against real ones, `peer.rs` is somebody at the other end, `crowd.rs` what they do, `world.rs` everybody, `oracle.rs` knows how each
//! connection must end, `tests.rs` lives many worlds. A failing world names its seed; replay it with
//! `SESSILE_SIM_SEED=<seed> cargo test --lib sim::tests::replay -- --nocapture`.
//!
//! Invariant: a world is a function of its seed alone.

mod actors;
mod bytes;
#[cfg(test)]
mod conformance;
pub mod kernel;
pub mod oracle;
pub mod os;
pub mod peer;
pub mod random;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod world;
