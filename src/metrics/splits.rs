//! [`SplitStatus`]: what splits have chosen, as data and as series.
//!
//! Counts nothing itself. Invariant: the labels are names and words of the configuration and of closed lists: there are as
//! many series as pools in splits, three times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::page::labels;
use super::rows::Rows;
use super::status::Status;

/// One split and its pools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// Name of the split in the configuration.
    pub name: String,
    /// The pools, in the order of the file.
    pub pools: Vec<SplitPoolStatus>,
}

/// One pool of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPoolStatus {
    /// Name of the pool.
    pub pool: String,
    /// Weight of the pool.
    pub weight: u16,
    /// Requests that came to it by the split, by what has chosen it: `cookie`, `connection`, `weight`.
    pub requests: BTreeMap<String, u64>,
}

/// Writes the series of all splits.
pub(super) fn write(rows: &mut Rows, status: &Status) {
    rows.counter(
        "sessile_split_requests_total",
        "HTTP requests that a split has led to the pool, by what has chosen it; weight: a new client.",
        status.splits.iter().flat_map(|split| {
            split.pools.iter().flat_map(move |to| {
                let of_pool = to.requests.iter();
                of_pool
                    .map(move |(by, count)| (labels([("split", &split.name), ("pool", &to.pool), ("by", by)]), *count))
            })
        }),
    );
}
