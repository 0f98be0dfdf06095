//! [`SharedSessions`]: sessions that all backends share, in a redis-server or valkey-server that the demo starts.
//!
//! On a machine with neither a map in memory replaces it, and the demo prints so. Expires nothing in that map.
//! Invariants: the store listens on a unix socket in the folder of the demo alone; it does not outlive the demo.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::AsyncCommands;

use crate::cli::CommandError;

/// Programs of which the first that is there is the store.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Longest wait for the store to start.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two attempts to connect.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Lifetime of an unused session in seconds.
const SESSION_S: u64 = 3_600;

/// Sessions of all backends, by session id.
#[derive(Clone)]
pub(super) struct SharedSessions(Arc<SessionPlace>);

enum SessionPlace {
    Store { client: redis::Client, socket: PathBuf, version: String, _server: StoreServer },
    Here(Mutex<HashMap<String, String>>),
}

/// Process of a store without files, killed when dropped.
struct StoreServer(Child);

impl Drop for StoreServer {
    fn drop(&mut self) {
        let _ = self.0.kill(); // fails only if the process has already ended
        let _ = self.0.wait();
    }
}

impl SharedSessions {
    /// Starts a store on this unix socket; without a program for it, sessions stay in memory.
    pub(super) async fn start(socket: &Path) -> Result<Self, CommandError> {
        let started = PROGRAMS.iter().find_map(|program| Some((program, spawn(program, socket)?)));
        let Some((program, server)) = started else {
            return Ok(Self(Arc::new(SessionPlace::Here(Mutex::default()))));
        };
        let failure = |error: redis::RedisError| CommandError::Internal(format!("{program}: {error}"));
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
        let (socket, version) = (socket.to_owned(), named(&about));
        Ok(Self(Arc::new(SessionPlace::Store { client, socket, version, _server: server })))
    }

    /// Unix socket of the store; `None`: there is none.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &*self.0 {
            SessionPlace::Store { socket, .. } => Some(socket),
            SessionPlace::Here(_) => None,
        }
    }

    /// Name and version of the store; `None`: there is none.
    pub(super) fn server(&self) -> Option<&str> {
        match &*self.0 {
            SessionPlace::Store { version, .. } => Some(version),
            SessionPlace::Here(_) => None,
        }
    }

    /// Stores the user of a session.
    pub(super) async fn keep(&self, session: &str, user: &str) -> redis::RedisResult<()> {
        match &*self.0 {
            SessionPlace::Store { client, .. } => {
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
            SessionPlace::Store { client, .. } => {
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

/// Starts a program as the store; `None`: it is not there.
fn spawn(program: &str, socket: &Path) -> Option<StoreServer> {
    let mut command = Command::new(program);
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(socket);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    spawned.ok().map(StoreServer)
}

/// Name and version of the store, by what it says of itself. Valkey says for which version of Redis it stands, too.
fn named(about: &str) -> String {
    let of = |key: &str| about.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let versions = [("Valkey", of("valkey_version")), ("Redis", of("redis_version"))];
    let known = versions.into_iter().find_map(|(name, version)| Some(format!("{name} {}", version?.trim())));
    known.unwrap_or_else(|| "Redis of some version".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_as_what_it_is() {
        assert_eq!(named("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n"), "Redis 7.0.15");
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(named(valkey), "Valkey 8.0.1");
        assert_eq!(named(""), "Redis of some version");
    }
}
