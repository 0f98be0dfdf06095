//! The fleet in the status of a process: instances that tell each other of their stick tables, and the orders that all
//! follow.
//!
//! Counts nothing. Invariant: a field that another version does not give has its default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What instances tell each other of their stick tables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetStatus {
    /// `working`; `joining`: the first read is not over; `away`: the store is not used until it answers; `next_start`: `share` takes effect then.
    pub state: String,
    /// What is wrong; empty if nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// Instances that are there, with this one.
    pub instances: Vec<FleetMember>,
    /// Entries that were told when they came to be.
    pub told: u64,
    /// Entries that were told again, in recaps.
    pub recapped: u64,
    /// Entries that other instances have told, by what became of them.
    pub received: BTreeMap<String, u64>,
    /// Items that were written to the store.
    pub items: u64,
    /// Bytes of these items.
    pub bytes: u64,
    /// Items in the store that no instance with the same `secret_file` has written, or that cannot be read.
    pub refused: u64,
    /// Times that the store was away.
    pub lost: u64,
    /// Entries that found no room among those that wait to be told; the next recap has them.
    pub overflow: u64,
    /// Orders about backends that all instances follow, the latest first; those that only end others are among them.
    pub orders: Vec<FleetOrderStatus>,
    /// Orders that were told.
    pub orders_told: u64,
    /// Orders of other instances that were new here.
    pub orders_taken: u64,
    /// Orders of another version, which this one does not know.
    pub orders_unknown: u64,
}

/// An order about a backend that all instances follow: the last one about this matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetOrderStatus {
    /// Name of the pool.
    pub pool: String,
    /// Name of the backend.
    pub backend: String,
    /// What was ordered: `drain`, `close`, `ready`, `weight 5`.
    pub order: String,
    /// The instance where it was given: its host, and the begin of its number.
    pub by: String,
    /// True if that is the instance that answers.
    pub is_own: bool,
    /// Seconds since it was given.
    pub given_s: u64,
    /// True if the store has it; an order that it does not have waits until the store is back.
    pub told: bool,
    /// What has become of it at the instance that answers: `applied`; `due`: in a moment; `not_here`: it does not have
    /// the backend; `refused`.
    pub here: String,
    /// Why it is refused; empty if it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// An instance of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetMember {
    /// Host of the instance, and the begin of its number, which is new with each start.
    pub name: String,
    /// True for the instance that answers.
    pub is_self: bool,
    /// Number of configurations that it has accepted.
    pub generation: u64,
    /// Digest of its placements.
    pub digest: String,
    /// Seconds since it last told of itself.
    pub seen_s: u64,
    /// Stick tables that it does not place as the instance that answers does; `+` before one that only it has, `-` before
    /// one that it does not have.
    pub differs: Vec<String>,
}
