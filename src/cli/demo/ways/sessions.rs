//! [`SharedSessions`]: sessions that all backends share, in a redis-server that the demo starts.
//!
//! On a machine without redis-server a map in memory replaces it, and the demo prints so. Expires nothing in that map.
//! Invariant: no redis-server outlives the demo.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::AsyncCommands;

use crate::cli::CommandError;

/// Longest wait for the redis-server to start.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two attempts to connect.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Lifetime of an unused session in seconds.
const SESSION_S: u64 = 3_600;

/// Sessions of all backends, by session id.
#[derive(Clone)]
pub(super) struct SharedSessions(Arc<SessionPlace>);

enum SessionPlace {
    Redis { client: redis::Client, socket: PathBuf, version: String, _server: RedisServer },
    Here(Mutex<HashMap<String, String>>),
}

/// A redis-server process without files, killed when dropped.
struct RedisServer(Child);

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.0.kill(); // fails only if the process has already ended
        let _ = self.0.wait();
    }
}

impl SharedSessions {
    /// Starts a redis-server on this unix socket; without the program, sessions stay in memory.
    pub(super) async fn start(socket: &Path) -> Result<Self, CommandError> {
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(socket);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(server) = spawned.map(RedisServer) else {
            return Ok(Self(Arc::new(SessionPlace::Here(Mutex::default()))));
        };
        let failure = |error: redis::RedisError| CommandError::Internal(format!("redis-server: {error}"));
        let client = redis::Client::open(format!("redis+unix://{}", socket.display())).map_err(failure)?;
        let deadline = Instant::now() + TIMEOUT;
        let mut connection = loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => break connection,
                Err(error) if Instant::now() > deadline => return Err(failure(error)),
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        };
        let about: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(failure)?;
        let version = about.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or("of some version");
        let (socket, version) = (socket.to_owned(), version.trim().to_owned());
        Ok(Self(Arc::new(SessionPlace::Redis { client, socket, version, _server: server })))
    }

    /// Unix socket of the redis-server; `None`: there is none.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &*self.0 {
            SessionPlace::Redis { socket, .. } => Some(socket),
            SessionPlace::Here(_) => None,
        }
    }

    /// Version of the redis-server; `None`: there is none.
    pub(super) fn redis(&self) -> Option<&str> {
        match &*self.0 {
            SessionPlace::Redis { version, .. } => Some(version),
            SessionPlace::Here(_) => None,
        }
    }

    /// Stores the user of a session.
    pub(super) async fn keep(&self, session: &str, user: &str) -> redis::RedisResult<()> {
        match &*self.0 {
            SessionPlace::Redis { client, .. } => {
                let mut connection = client.get_multiplexed_async_connection().await?;
                connection.set_ex(key(session), user, SESSION_S).await
            }
            SessionPlace::Here(table) => {
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                table.insert(session.to_owned(), user.to_owned());
                Ok(())
            }
        }
    }

    /// User of a session; `None`: unknown session.
    pub(super) async fn user(&self, session: &str) -> redis::RedisResult<Option<String>> {
        match &*self.0 {
            SessionPlace::Redis { client, .. } => {
                let mut connection = client.get_multiplexed_async_connection().await?;
                connection.get(key(session)).await
            }
            SessionPlace::Here(table) => Ok(table.lock().unwrap_or_else(PoisonError::into_inner).get(session).cloned()),
        }
    }
}

fn key(session: &str) -> String {
    format!("session:{session}")
}
