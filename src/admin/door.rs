//! What differs between the doors of the admin interface: [`DoorKind`], [`NamesClients`], [`DoorStop`].
//!
//! Serves no request. Invariant: every request has all of them, from the router of its door.

use tokio::sync::watch;

/// What is shown in the place of a client's address or key.
pub(super) const HIDDEN: &str = "hidden";

/// Which door it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DoorKind {
    /// The unix socket.
    Socket,
    /// The port.
    Port,
}

/// Views name clients, on this door.
#[derive(Debug, Clone, Copy)]
pub(super) struct NamesClients(pub(super) bool);

/// Becomes true once the door closes: a reply without an end ends then.
#[derive(Debug, Clone)]
pub(super) struct DoorStop(pub(super) watch::Receiver<bool>);
