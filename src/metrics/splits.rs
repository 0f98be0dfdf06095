//! Series of what splits have chosen.
//!
//! Counts nothing itself. Invariant: the labels are names and words of the configuration and of closed lists: there are as
//! many series as pools in splits, three times.

use super::page::labels;
use super::rows::Rows;
use super::status::Status;

/// Writes the series of all splits.
pub(super) fn write(rows: &mut Rows, status: &Status) {
    rows.counter(
        "sessile_split_requests_total",
        "HTTP requests, or connections of pools without http, that a split has led to the pool, by what has chosen it; \
         weight: a new client.",
        status.splits.iter().flat_map(|split| {
            split.pools.iter().flat_map(move |to| {
                let of_pool = to.requests.iter();
                of_pool
                    .map(move |(by, count)| (labels([("split", &split.name), ("pool", &to.pool), ("by", by)]), *count))
            })
        }),
    );
}
