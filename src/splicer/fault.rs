//! What a broken socket means for the connection: whose fault, and which ending.
//!
//! Pure. Invariant: a local error is never blamed on a client or a backend.

use super::os::Broken;
use super::relay::Pumped;
use crate::attempt::ConnectFailure;
use crate::outcome::Ended;

/// The client's socket broke.
pub fn client_broken(why: Broken) -> Ended {
    match why {
        Broken::Gone | Broken::Unreachable => Ended::ClientGone,
        Broken::Reset | Broken::Refused => Ended::ClientReset,
        other => local(other),
    }
}

/// The backend's socket broke after it was connected.
pub fn backend_broken(why: Broken) -> Ended {
    match why {
        Broken::Gone | Broken::Unreachable => Ended::BackendGone,
        Broken::Reset | Broken::Refused => Ended::BackendReset,
        other => local(other),
    }
}

/// Whichever socket broke while bytes were moved.
pub fn relay_broken(up: Pumped, down: Pumped) -> Option<Ended> {
    match (up, down) {
        (Pumped::SenderBroken(why), _) | (_, Pumped::ReceiverBroken(why)) => Some(client_broken(why)),
        (_, Pumped::SenderBroken(why)) | (Pumped::ReceiverBroken(why), _) => Some(backend_broken(why)),
        _ => None,
    }
}

/// Connecting failed.
pub fn connect_failed(why: Broken) -> ConnectFailure {
    match why {
        Broken::Refused | Broken::Reset => ConnectFailure::Refused,
        Broken::Gone => ConnectFailure::TimedOut,
        Broken::Unreachable => ConnectFailure::Unreachable,
        other => ConnectFailure::Local(local(other)),
    }
}

/// This machine's fault.
pub fn local(why: Broken) -> Ended {
    match why {
        Broken::NoPort => Ended::NoPort,
        Broken::NoDescriptor => Ended::NoDescriptor,
        Broken::NoMemory => Ended::NoMemory,
        _ => Ended::LocalError,
    }
}
