//! Backends of the file and backends that a source has named, side by side in one [`Pool`]; what orders make of both is
//! in `orders`.
//!
//! Reads no source (`discovery` does). Invariant: no two backends of a pool have one name, and those that were found
//! come last, in the order of their names.

use super::{Absence, Address, Backend, BackendOrigin, Balance, HostPort, Pool, Resolve};

/// Most points of a ring: 16 bytes each, so 64 MiB a pool.
pub(super) const RING_POINTS_MAX: u64 = 4_000_000;

impl Backend {
    /// True if the source of the pool has named it.
    pub fn is_found(&self) -> bool {
        matches!(self.origin, BackendOrigin::Found { .. })
    }

    /// Since when its source does not name it, or since when it drains to leave; `None`: neither.
    pub fn absence(&self) -> Option<Absence> {
        match self.origin {
            BackendOrigin::Written => None,
            BackendOrigin::Found { absence } => absence,
            BackendOrigin::Ordered { removal } => removal,
        }
    }

    /// True if no address is known of the name that is written as its address.
    pub fn has_no_address(&self) -> bool {
        matches!(self.address, Address::Name(_))
    }

    /// The name of which the backend follows the address; `None`: it stays where it is.
    pub fn followed_name(&self) -> Option<&HostPort> {
        self.host.as_ref().filter(|_| !self.is_found())
    }

    /// The address as it is written: a name stands for every address that it has.
    pub fn written_address(&self) -> Address {
        self.host.clone().map_or_else(|| self.address.clone(), Address::Name)
    }
}

impl Pool {
    /// The backends that are written in the file, as the file has them.
    pub fn written(&self) -> impl Iterator<Item = &Backend> {
        self.plain().iter().filter(|backend| !backend.is_found())
    }

    /// The backends that the source of the pool has named, as it names them.
    pub fn found(&self) -> impl Iterator<Item = &Backend> {
        self.plain().iter().filter(|backend| backend.is_found())
    }

    /// The same pool with these backends in the place of those that its source has named; they are sorted by name, and
    /// one that the file has is left out. Orders stand as before.
    pub fn with_found(&self, mut found: Vec<Backend>) -> Self {
        found.retain(|backend| self.written().all(|written| written.name != backend.name));
        found.sort_by(|one, other| one.name.cmp(&other.name));
        self.with_plain(self.written().cloned().chain(found).collect())
    }
}

impl Pool {
    /// The same pool with these backends in the place of those that the file has. Orders stand as before.
    pub fn with_written(&self, mut written: Vec<Backend>) -> Self {
        let found = self.found().filter(|found| written.iter().all(|written| written.name != found.name));
        let found: Vec<_> = found.cloned().collect();
        written.extend(found);
        self.with_plain(written)
    }

    /// The backends of which name servers are asked for the address from time to time, each with its name.
    pub fn followed(&self) -> impl Iterator<Item = (&Backend, &HostPort)> {
        let follows = |backend: &&Backend| self.resolve == Resolve::Ttl || backend.has_no_address();
        self.written().filter(follows).filter_map(|backend| Some((backend, backend.followed_name()?)))
    }
}

impl Balance {
    /// Says why the tables of the method cannot hold these backends.
    pub fn holds(self, backends: &[Backend]) -> Result<(), String> {
        match self {
            Self::Ring { points } => {
                let weight: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
                let total = u64::from(points) * weight;
                if total <= RING_POINTS_MAX {
                    return Ok(());
                }
                Err(format!(
                    "ring_points {points} times the weights ({weight}) is {total}; the most is {RING_POINTS_MAX}"
                ))
            }
            Self::Maglev { table_size } if table_size as usize <= backends.len() => {
                let count = backends.len();
                Err(format!("maglev_size {table_size} is not above the number of backends ({count})"))
            }
            _ => Ok(()),
        }
    }
}
