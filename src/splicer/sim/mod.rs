//! A hostile imitation of the operating system, and a world of clients and backends round one worker.
//!
//! For tests and benches; the product never runs it. `kernel.rs` imitates sockets, `world.rs` is everybody at the
//! other ends, `tests.rs` runs many worlds. A failing world names its seed; replay it with
//! `SESSILE_SIM_SEED=<seed> cargo test --lib sim::tests::replay -- --nocapture`.
//!
//! Invariant: a world is a function of its seed alone.

pub mod kernel;
pub mod random;
#[cfg(test)]
mod tests;
pub mod world;
