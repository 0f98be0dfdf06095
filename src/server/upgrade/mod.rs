//! An upgrade: the process that serves starts another binary, gives it everything, and leaves.
//!
//! | step | old process (`leave.rs`) | new process (`arrive.rs`) |
//! |---|---|---|
//! | 1 | has the binary started (`launch.rs`), with one end of a socket pair as its standard input; sends `Hello` | answers with its own, or refuses |
//! | 2 | sends its listening sockets, lock, admin sockets and state | reads *its* file, binds what is new, answers `Ready` or what is wrong |
//! | 3 | sends established pairs in batches, and goes on accepting meanwhile | acknowledges each batch, and serves it |
//! | 4 | stops accepting; sends the last pairs and the stick tables: `Commit` | `Committed`; accepts |
//! | 5 | finishes conversations, and sends pairs that were still connecting | takes them |
//! | 6 | sends the stick tables once more, and ends | takes what is newer |
//!
//! A process that leaves during step 5 of the one before it gives its end of that channel on, so that each process which
//! still finishes conversations has a channel to the one that serves (`tails.rs`). That one tells them when it stops.
//!
//! Until step 4 nothing has changed for clients: the old process goes on if the new one refuses, fails or is too slow.
//! Connections wait in the accept queues, which belong to the shared sockets, so none is refused or reset. A pair
//! belongs to the new process from the moment at which that one acknowledges it; it touches none before. If the old
//! process ends too early, the new one serves what it has. A stop before step 4 is the old process's, and ends the new one;
//! a stop in step 4 is the new process's (`handover.rs`). Invariant: at any time one process accepts, and a pair is
//! read by one process.
//!
//! A restart by a service manager is the same without answers: the old process (`stored.rs`) queues its messages in the
//! pair (`queue.rs`), gives the other end to the manager for the next process, and ends.

mod arrive;
mod channel;
mod handover;
mod kept_places;
mod launch;
mod leave;
mod messages;
mod pairs;
mod peer;
mod queue;
mod stored;
mod successor;
mod tails;

pub(super) use self::arrive::Predecessor;
pub(super) use self::handover::Handover;
pub use self::kept_places::KeptPlaces;
pub(super) use self::launch::from_environment as launch_from_environment;
pub use self::leave::LONGEST;
pub(super) use self::messages::AddressFacts;

/// Variable in the environment of the new process: its standard input is its end of the socket pair.
const ENVIRONMENT: &str = "SESSILE_UPGRADE";
