//! Exchanges over streams in memory: chosen stories, and a simulation with a hostile backend.
//!
//! `wire.rs` is a stream in memory, `stage.rs` the conversation that an exchange belongs to, `stories.rs` has exchanges
//! that are told step by step, `drain.rs` those that the drain of the process meets, `world.rs` an exchange between a
//! client and a backend that do what a seed says, and `hostile.rs` runs many of them. `bypass.rs` has bodies that pass
//! through pipes. `web_socket.rs` ends WebSockets. Opens no socket. Invariant: an exchange meets nothing here that a socket could not do.

mod bypass;
mod drain;
mod hostile;
mod stage;
mod stories;
mod web_socket;
mod wire;
mod world;
