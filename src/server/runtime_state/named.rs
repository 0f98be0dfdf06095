//! [`RuntimeName`]: the last address of a backend that is written with a name, for a process that begins while no name
//! server answers.
//!
//! Asks for no name. Invariant: what comes back is an address that the name could have had, whatever a document has.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::RuntimeState;
use crate::config::{self, Address, Backend, HostPort};

/// A backend that is written with a name, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RuntimeName {
    /// Name of the backend.
    backend: String,
    /// The name that is written as its address, with the port.
    host: String,
    address: String,
}

impl RuntimeName {
    /// `None`: the address itself is written, or none is known.
    pub(super) fn of(backend: &Backend) -> Option<Self> {
        let Address::Tcp(address) = backend.address else { return None };
        let host = backend.followed_name()?.to_string();
        Some(Self { backend: backend.name.clone(), host, address: address.to_string() })
    }
}

impl RuntimeState {
    /// The last address of a backend that had this name as its address then, too.
    pub(in crate::server) fn address_of(&self, pool: &str, backend: &str, host: &HostPort) -> Option<SocketAddr> {
        let known = self.pools.iter().filter(|known| known.name == pool).flat_map(|known| &known.named);
        let host_port = host.to_string();
        let mut of_backend = known.filter(|known| known.backend == backend && known.host == host_port);
        let address = config::backend_address(&of_backend.next()?.address).ok()?;
        (address.port() == host.port).then_some(address)
    }
}
