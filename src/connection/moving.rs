//! [`Moving`]: a client that has just got another backend than the one it had, for the memory of moves.
//!
//! Decides no move: [`Pool::client_move`] does. Invariant: both halves note a move by this file, at the moment at which
//! the other backend is connected.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::client_history::NotedMove;
use crate::clock;
use crate::outcome::ClientMove;
use crate::pool::{Backend, Pool};

/// A client that has moved.
#[derive(Debug, Clone, Copy)]
pub struct Moving {
    /// Address of the client, announced or seen; `None` for a unix peer.
    pub address: Option<SocketAddr>,
    /// Number of the connection.
    pub connection: u64,
    /// Keyed hash of the cookie that the client brought; `None`: no cookie makes the pool's clients known, or none came.
    pub cookie: Option<u64>,
}

impl Moving {
    /// The note of the move to this backend.
    pub fn noted(&self, pool: &Pool, moved: &ClientMove, to: &Arc<Backend>) -> NotedMove {
        NotedMove {
            unix_ms: clock::unix_ms(),
            client: self.address.map(|address| address.ip()),
            connection: self.connection,
            pool: Arc::clone(pool.shared_name()),
            from: moved.from.clone(),
            to: to.name_shared(),
            cause: moved.cause,
            cookies: [self.cookie, None],
        }
    }
}
