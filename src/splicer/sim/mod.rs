//! A hostile imitation of the operating system, and a world of clients and backends around one worker.
//!
//! Part of the library's tests only; `benches/flow.rs` compiles the imitated kernel for itself. `kernel.rs` and `os.rs`
//! imitate sockets, `conformance` holds them against real ones, `peer.rs` is the far end of a socket, `actors.rs` what
//! clients and backends do, `world.rs` one world of them, `handover.rs` moves
//! pairs between its processes, `oracle.rs` decides how each connection must end, `tests.rs`
//! runs many worlds. A failing world names its seed; replay it with
//! `SESSILE_SIM_SEED=<seed> cargo test --lib sim::tests::replay -- --ignored --nocapture`.
//!
//! Invariant: a world is a function of its seed alone.

mod actors;
mod bytes;
mod conformance;
mod handover;
pub(super) mod kernel;
pub(super) mod oracle;
pub(super) mod os;
pub(super) mod peer;
pub(super) mod socket;
mod tests;
pub(super) mod world;
