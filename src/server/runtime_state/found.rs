//! [`RuntimeFound`]: a backend that the source of its pool has named, for a process that begins while the source says
//! nothing.
//!
//! Asks no source. Invariant: what comes back is a backend that a source could have named, whatever a document has.

use serde::{Deserialize, Serialize};

use super::{Clocks, RuntimeState};
use crate::config::{self, Absence, Address, Backend, BackendOrigin, is_name, levels};

/// A backend that a source has named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct RuntimeFound {
    name: String,
    address: String,
    weight: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    location: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    absence: Option<RuntimeAbsence>,
}

/// The time in which the source does not name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct RuntimeAbsence {
    since_unix_ms: i64,
    deadline_unix_ms: i64,
}

impl RuntimeFound {
    pub(super) fn of(backend: &Backend, clocks: Clocks) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address.to_string(),
            weight: backend.weight,
            location: backend.location.join("/"),
            max_connections: backend.max_connections,
            backup: backend.backup,
            absence: backend.absence().map(|absence| RuntimeAbsence {
                since_unix_ms: clocks.unix(absence.since_ms),
                deadline_unix_ms: clocks.unix(absence.deadline_ms),
            }),
        }
    }

    /// The backend; `None`: it is none that a source could have named.
    fn backend(&self, clocks: Clocks) -> Option<Backend> {
        let address = config::backend_address(&self.address).ok().filter(|_| is_name(&self.name))?;
        let absence = self.absence.as_ref().map(|absence| {
            let (since_ms, deadline_ms) = clocks.span(absence.since_unix_ms, absence.deadline_unix_ms);
            Absence { since_ms, deadline_ms }
        });
        Some(Backend {
            name: self.name.clone(),
            address: Address::Tcp(address),
            host: None,
            weight: self.weight.min(256),
            location: levels(&self.location).ok()?,
            backup: self.backup,
            max_connections: self.max_connections.filter(|most| *most > 0),
            origin: BackendOrigin::Found { absence },
        })
    }
}

impl RuntimeState {
    /// The backends of this pool that its source had named last.
    pub(in crate::server) fn found(&self, pool: &str, now_ms: u64, unix_ms: u64) -> Vec<Backend> {
        let clocks = Clocks::new(now_ms, unix_ms);
        let known = self.pools.iter().filter(|known| known.name == pool).flat_map(|known| &known.found);
        known.filter_map(|found| found.backend(clocks)).collect()
    }
}
