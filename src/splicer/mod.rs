//! The splicer: passthrough connections, one thread per core, each with its own epoll, listeners, connections and
//! timers.
//!
//! [`flow`] is the life of one connection, [`worker`] drives many, and [`Workers`] gives each worker its thread. Terminated
//! TLS, health and configuration are elsewhere. Invariant: a connection is touched by the one worker that holds it.

mod called;
mod connect;
pub mod ending;
pub mod flow;
mod inbox;
mod large_pipes;
pub mod os;
pub mod pair;
mod pipe;
mod place;
mod preread;
mod read_ahead;
mod relay;
#[cfg(test)]
mod sim;
mod slab;
mod stick;
mod timer;
pub mod worker;
mod workers;

pub use self::large_pipes::LargePipes;
pub use self::os::Micros;
pub use self::pipe::PipeLimits;
pub use self::workers::{Adoption, Workers};
