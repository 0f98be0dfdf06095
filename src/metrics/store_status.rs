//! The shared store in the status of a process, with the nodes of a cluster.
//!
//! Counts nothing. Invariant: neither a user nor a password is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counters::HistogramSum;

/// The shared store of learned cookies.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Address of the store, without user and password.
    pub place: String,
    /// `working`, or `open`: the circuit breaker is open, and the store is not used until it replies in time.
    pub state: String,
    /// The last failure of the store; empty if there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// The nodes of a cluster; none of a store that is one server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<StoreNodeStatus>,
    /// The longest time that a request waits for the store, in microseconds.
    pub budget_us: u64,
    /// Times that the circuit breaker opened.
    pub opened: u64,
    /// Entries that wait to be written until the store is back.
    pub pending: u64,
    /// Entries that waited and were written.
    pub reconciled: u64,
    /// Entries that waited and were lost for want of room.
    pub overflow: u64,
    /// Number of requests to the store, by kind and then by result.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Mean time of an exchange with the store, in microseconds; `None` before the first.
    pub latency_us_mean: Option<u64>,
    /// Histogram of the times of exchanges.
    #[serde(skip)]
    pub latency: HistogramSum,
}

/// A node of the cluster that is the shared store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StoreNodeStatus {
    /// Address of the node, as the cluster names it.
    pub address: String,
    /// Number of the slots that it has.
    pub slots: usize,
    /// `working`, or `open`: the node's circuit breaker is open, and it is not used until it replies in time.
    pub state: String,
    /// Last failure of the node; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
}
