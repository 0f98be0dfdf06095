//! Which connections a command or a request of the admin interface is about.
//!
//! Ends and lists nothing: each half does that with its own connections. Invariant: a selection compares backends by
//! identity, because a name may belong to another backend after a reload; a filter compares names, as it was written.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;

use crate::pool::Backend;

/// The connections that a command ends.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Every connection of the process.
    All,
    /// The connections that use this backend.
    Of(Arc<Backend>),
}

/// The connections that the admin interface lists; also the query of `GET /connections`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Name of the pool; `None` = any pool.
    pub pool: Option<String>,
    /// Name of the backend; `None` = any backend.
    pub backend: Option<String>,
    /// Address of the client; `None` = any client.
    pub client: Option<IpAddr>,
    /// Number of the connection; `None` = any connection.
    pub id: Option<u64>,
    /// The list holds at most this many.
    #[serde(default = "ConnectionFilter::default_limit")]
    pub limit: usize,
}

impl ConnectionFilter {
    /// The limit of a query that gives none.
    pub const LIMIT: usize = 1_000;

    fn default_limit() -> usize {
        Self::LIMIT
    }

    /// True for a connection of this number and client; `None` = a unix peer.
    pub fn is_about(&self, id: u64, client: Option<SocketAddr>) -> bool {
        self.id.is_none_or(|wanted| wanted == id)
            && self.client.is_none_or(|wanted| client.is_some_and(|client| client.ip() == wanted))
    }

    /// True for a connection of this pool and backend; `None` = it has no pool or backend yet.
    pub fn matches(&self, pool: Option<&str>, backend: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| wanted.as_deref().is_none_or(|is| name == Some(is));
        is(&self.pool, pool) && is(&self.backend, backend)
    }
}
