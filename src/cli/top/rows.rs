//! [`rows`]: pools and their backends as one list, in the order of a [`SortBy`].
//!
//! Draws nothing. Invariant: the backends of a pool follow its own row, whatever the order.

use std::cmp::Ordering;

use super::model::{Model, Rate};
use crate::metrics::status::{BackendStatus, PoolStatus};

/// What the list is sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SortBy {
    /// The order of the configuration.
    #[default]
    File,
    /// Open connections, the most first.
    Open,
    /// New connections a second, the most first.
    New,
    /// Errors a second, the most first.
    Errors,
    /// Names of pools, and of backends in each.
    Name,
}

impl SortBy {
    const ALL: [Self; 5] = [Self::File, Self::Open, Self::New, Self::Errors, Self::Name];

    /// The order that follows this one; the first one follows the last.
    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// The word for the foot of the screen.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Open => "open",
            Self::New => "new",
            Self::Errors => "errors",
            Self::Name => "name",
        }
    }

    fn compare(self, a: &TopRow<'_>, b: &TopRow<'_>) -> Ordering {
        let most = |of: fn(&Rate) -> Option<f64>| {
            let [a, b] = [a, b].map(|row| of(&row.rate).unwrap_or(-1.0));
            b.total_cmp(&a)
        };
        match self {
            Self::File => Ordering::Equal,
            Self::Open => b.open().cmp(&a.open()),
            Self::New => most(|rate| rate.new),
            Self::Errors => most(|rate| rate.errors),
            Self::Name => a.name().cmp(b.name()),
        }
    }
}

/// Names a row, also while it is not in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowId {
    /// Name of the pool.
    pub(super) pool: String,
    /// Name of the backend; `None`: the row of the pool itself.
    pub(super) backend: Option<String>,
}

/// A pool, or one backend of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TopRow<'m> {
    /// The pool, which a backend has, too.
    pub(super) pool: &'m PoolStatus,
    /// The backend; `None`: the row of the pool itself.
    pub(super) backend: Option<&'m BackendStatus>,
    /// What happens there a second.
    pub(super) rate: Rate,
}

impl<'m> TopRow<'m> {
    /// The name that the row is shown with.
    pub(super) fn name(&self) -> &'m str {
        self.backend.map_or(&self.pool.name, |backend| &backend.name)
    }

    /// What the row is found by in the next list.
    pub(super) fn id(&self) -> RowId {
        RowId { pool: self.pool.name.clone(), backend: self.backend.map(|backend| backend.name.clone()) }
    }

    /// True if the row has this name.
    pub(super) fn is(&self, id: &RowId) -> bool {
        self.pool.name == id.pool && self.backend.map(|backend| &backend.name) == id.backend.as_ref()
    }

    /// Connections that are open now.
    pub(super) fn open(&self) -> u64 {
        match self.backend {
            Some(backend) => backend.leases,
            None => self.pool.backends.iter().map(|backend| backend.leases).sum(),
        }
    }
}

/// The rows of all pools and backends.
pub(super) fn rows(model: &Model, sort: SortBy) -> Vec<TopRow<'_>> {
    let of_pool = |pool| TopRow { pool, backend: None, rate: model.rates.of_pool(pool) };
    let mut pools: Vec<_> = model.status.pools.iter().map(of_pool).collect();
    pools.sort_by(|a, b| sort.compare(a, b));
    pools.into_iter().flat_map(|pool| std::iter::once(pool).chain(backends(model, pool.pool, sort))).collect()
}

/// The rows of the backends of a pool.
fn backends<'m>(model: &'m Model, pool: &'m PoolStatus, sort: SortBy) -> Vec<TopRow<'m>> {
    let of_backend = |backend| TopRow { pool, backend: Some(backend), rate: model.rates.of_backend(pool, backend) };
    let mut backends: Vec<_> = pool.backends.iter().map(of_backend).collect();
    backends.sort_by(|a, b| sort.compare(a, b));
    backends
}
