//! A connection to Redis and the three commands that are sent over it.
//!
//! Sets no time limit (`task.rs` does) and repeats nothing; follows no redirect of a cluster (`cluster` does). Invariants:
//! an entry is written only over an older one, and the comparison and the write are one atomic step of the store (a Lua
//! script); an entry that the store refuses costs no other entry of the same command, nor does a key that a node of a
//! cluster has not.
//!
//! ```text
//! PREFIX POOL ":" HASH  →  MILLISECONDS SINCE 1970 " " BACKEND, which expires with the cookie's `max_idle`
//! ```
//!
//! ` brought` stands behind the backend of a value that no backend is known to have set.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, cmd};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::access::Access;
use super::cluster::slots::SlotRedirect;
use super::pending::PendingValue;
use crate::config::StoreAddress;
use crate::tls::io_in_words;

/// The script of a write. Arguments for each key: time, time to live in milliseconds, backend. An empty backend deletes
/// the value. Time 0 prolongs: an entry that is there stays and gets the time to live anew. The reply for each key is
/// false if it was done, the entry that is kept instead, or `!` and the error (`redis.pcall`: the other keys are
/// written). A value that a backend has set replaces one that was only brought, whatever the time.
const PUT: &str = r"
local answers = {}
local function is_brought(entry) return string.sub(entry, -8) == ' brought' end
for i, key in ipairs(KEYS) do
  local at, ttl, backend = tonumber(ARGV[3 * i - 2]), ARGV[3 * i - 1], ARGV[3 * i]
  local known = redis.pcall('GET', key)
  local done = known
  answers[i] = false
  if type(known) ~= 'table' then
    local since = known and tonumber(string.match(known, '^(%d+) ')) or -1
    if backend == '' then
      if at >= since then done = redis.pcall('DEL', key) end
    elseif since < 0 or at > 0 and at >= since or is_brought(known) and not is_brought(backend) then
      done = redis.pcall('SET', key, ARGV[3 * i - 2] .. ' ' .. backend, 'PX', ttl)
    else
      if at == 0 then done = redis.pcall('PEXPIRE', key, ttl) end
      answers[i] = known
    end
  end
  if type(done) == 'table' and done.err then answers[i] = '!' .. done.err end
end
return answers";

/// First character of a reply that is an error; an entry begins with a digit.
const REFUSED: char = '!';

/// Commands that may be under way at once; more wait for room.
const BUFFER: usize = 256;

/// A connection that is shared by its clones; closed when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    _driver: Arc<Driver>,
    /// The far end is a node of a cluster: each command names one key.
    is_node: bool,
    /// The keys are about to come to this node: it serves them if it is told so before each command.
    asking: bool,
}

/// Why a command got no usable reply.
#[derive(Debug)]
pub(super) struct LinkError {
    pub(super) kind: FailureKind,
    /// Description of the failure, for the log.
    pub(super) why: String,
}

/// Kinds of a failure, by what has to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The connection is dead, or its far end is not the primary: connect again.
    Lost,
    /// The key belongs to another node of the cluster, as [`SlotRedirect::read`] finds it in the description.
    Redirected,
    /// The store replied with an error.
    Refused,
    /// The reply came too late or could not be read.
    Missing,
}

/// Result of writing one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Put {
    /// The entry was written as requested.
    Done,
    /// A newer entry was kept instead, as text.
    Other(String),
    /// Another node of the cluster has the key.
    Elsewhere(SlotRedirect),
    /// The store refused the write, with its error.
    Refused(String),
}

/// The entry of a key, or the other node of the cluster that has it.
pub(super) type Found = Result<Option<String>, SlotRedirect>;

/// Commands that open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    /// No AUTH and no SELECT.
    Anonymous,
    /// AUTH with the configured user and password.
    User,
    /// AUTH as for `User`, then SELECT of the database.
    Database,
}

/// Reply to one command: one text for each of its keys.
type KeyReplies = Result<Vec<Option<String>>, LinkError>;

/// The task that reads and writes the socket; aborted on drop.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Connects to a server.
    pub(super) async fn connect(
        access: &Access,
        address: &StoreAddress,
        greeting: Greeting,
    ) -> Result<Self, LinkError> {
        let lost = |why: String| LinkError { kind: FailureKind::Lost, why };
        let of_io = |error: std::io::Error| lost(io_in_words(&error));
        match (address, &access.tls) {
            (StoreAddress::Unix(path), _) => {
                let stream = UnixStream::connect(path).await.map_err(of_io)?;
                Self::greet(access, stream, greeting).await
            }
            (StoreAddress::Tcp(host, port), tls) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(of_io)?;
                stream.set_nodelay(true).map_err(of_io)?;
                let Some(tls) = tls else { return Self::greet(access, stream, greeting).await };
                let name = ServerName::try_from(host.clone()).map_err(|error| lost(error.to_string()))?;
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector.connect(name, stream).await.map_err(of_io)?;
                Self::greet(access, stream, greeting).await
            }
        }
    }

    async fn greet<S>(access: &Access, stream: S, greeting: Greeting) -> Result<Self, LinkError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if greeting == Greeting::Database {
            login = login.set_db(access.config.database.into());
        }
        if greeting != Greeting::Anonymous {
            if let Some(password) = &access.password {
                login = login.set_password(&password.0);
            }
            if let Some(user) = &access.config.user {
                login = login.set_username(user);
            }
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(BUFFER);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&login, stream, config).await.map_err(LinkError::from)?;
        let driver = tokio::task::spawn_local(driver).abort_handle();
        Ok(Self { connection, _driver: Arc::new(Driver(driver)), is_node: access.is_node, asking: false })
    }

    /// The same connection for keys that are about to come to this node.
    pub(super) fn asking(self) -> Self {
        Self { asking: true, ..self }
    }

    /// A connection to a far end that never replies.
    #[cfg(test)]
    pub(super) async fn to_nobody(access: &Access) -> (Self, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        (Self::greet(access, ours, Greeting::Anonymous).await.expect("no command is sent"), theirs)
    }

    /// Writes entries; one result for each, in order.
    pub(super) async fn put(&self, entries: &[PendingValue]) -> Result<Vec<Put>, LinkError> {
        let put = |entries: &[PendingValue]| {
            let mut put = cmd("EVAL");
            put.arg(PUT).arg(entries.len());
            for entry in entries {
                put.arg(&*entry.key);
            }
            for entry in entries {
                put.arg(entry.at_ms).arg(entry.ttl_ms.max(1)).arg(entry.backend.as_deref().unwrap_or_default());
            }
            put
        };
        let pieces: Vec<_> = self.pieces(entries).collect();
        let replies = self.ask_each(pieces.iter().map(|piece| put(piece))).await?;
        let mut results = Vec::with_capacity(entries.len());
        for (piece, reply) in pieces.into_iter().zip(replies) {
            match reply {
                Ok(answers) => {
                    for answer in answers {
                        results.push(Put::read(answer)?);
                    }
                }
                Err(LinkError { kind: FailureKind::Refused, why }) => {
                    results.resize(results.len() + piece.len(), Put::Refused(why));
                }
                Err(broken) => results.resize(results.len() + piece.len(), Put::Elsewhere(broken.redirect()?)),
            }
        }
        Ok(results)
    }

    /// Reads the entries of keys; `None` for a key that has none.
    pub(super) async fn find(&self, keys: &[Box<str>]) -> Result<Vec<Found>, LinkError> {
        let find = |keys: &[Box<str>]| {
            let mut find = cmd("MGET");
            for key in keys {
                find.arg(&**key);
            }
            find
        };
        let pieces: Vec<_> = self.pieces(keys).collect();
        let replies = self.ask_each(pieces.iter().map(|piece| find(piece))).await?;
        let mut results = Vec::with_capacity(keys.len());
        for (piece, reply) in pieces.into_iter().zip(replies) {
            match reply {
                Ok(found) => results.extend(found.into_iter().map(Ok)),
                Err(broken) => results.resize(results.len() + piece.len(), Err(broken.redirect()?)),
            }
        }
        Ok(results)
    }

    /// What one command may name: all, or one key of a cluster.
    fn pieces<'a, T>(&self, all: &'a [T]) -> impl Iterator<Item = &'a [T]> + use<'a, T> {
        all.chunks(if self.is_node { 1 } else { all.len().max(1) })
    }

    /// Sends commands together; one reply for each, with one text for each of its keys.
    async fn ask_each(&self, commands: impl Iterator<Item = Cmd>) -> Result<Vec<KeyReplies>, LinkError> {
        let mut pipeline = redis::pipe();
        for command in commands {
            if self.asking {
                pipeline.cmd("ASKING").ignore();
            }
            pipeline.add_command(command);
        }
        let replies: Vec<redis::RedisResult<Vec<Option<String>>>> =
            pipeline.ignore_errors().query_async(&mut self.connection.clone()).await?;
        Ok(replies.into_iter().map(|reply| reply.map_err(|error| self.broken(error))).collect())
    }

    /// Checks that the store replies.
    pub(super) async fn ping(&self) -> Result<(), LinkError> {
        self.ask(&cmd("PING")).await
    }

    /// Sends one command.
    pub(super) async fn ask<T: redis::FromRedisValue>(&self, what: &Cmd) -> Result<T, LinkError> {
        what.query_async(&mut self.connection.clone()).await.map_err(|error| self.broken(error))
    }

    /// What an error means at this end. A store that is one server and turns out to be a part of a cluster is of no use.
    fn broken(&self, error: RedisError) -> LinkError {
        let broken = LinkError::from(error);
        let is_part = broken.kind == FailureKind::Redirected || broken.why.starts_with("CROSSSLOT");
        if self.is_node || !is_part {
            return broken;
        }
        let why = format!("it is a node of a cluster, which [store] names with cluster: {}", broken.why);
        LinkError { kind: FailureKind::Lost, why }
    }
}

impl LinkError {
    /// True if the store has replied, with an error.
    pub(super) fn is_refusal(&self) -> bool {
        self.kind == FailureKind::Refused
    }

    /// An error that the store has replied with.
    fn of_reply(error: &str) -> Self {
        let why = plain(error).to_owned();
        let kind = match () {
            () if serves_nothing(&why) => FailureKind::Lost,
            () if SlotRedirect::read(&why).is_some() => FailureKind::Redirected,
            () => FailureKind::Refused,
        };
        Self { kind, why }
    }

    /// The other node of the cluster that has the key; the error itself if it names none.
    fn redirect(self) -> Result<SlotRedirect, Self> {
        SlotRedirect::read(&self.why).filter(|_| self.kind == FailureKind::Redirected).ok_or(self)
    }
}

impl Put {
    /// The store's error, if the write was refused.
    pub(super) fn refusal(&self) -> Option<&str> {
        if let Self::Refused(why) = self { Some(why) } else { None }
    }

    /// Reads the script's reply for one entry.
    fn read(answer: Option<String>) -> Result<Self, LinkError> {
        let Some(answer) = answer else { return Ok(Self::Done) };
        let Some(error) = answer.strip_prefix(REFUSED) else { return Ok(Self::Other(answer)) };
        let broken = LinkError::of_reply(error);
        if broken.is_refusal() { Ok(Self::Refused(broken.why)) } else { broken.redirect().map(Self::Elsewhere) }
    }
}

/// The text of an error from its code on, as in `OOM command not allowed`. Redis 6 puts the position in the script
/// before the code, and both versions put `ERR` before the code of an error that ends a script.
fn plain(error: &str) -> &str {
    let is_code = |word: &&str| word.len() > 2 && *word != "ERR" && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let word = error.split_ascii_whitespace().map(|word| word.trim_start_matches('-')).find(is_code);
    let begins = word.and_then(|word| error.find(word)).unwrap_or_default();
    error.get(begins..).unwrap_or(error).trim()
}

/// Whether the error means that the far end of this connection is no primary, or not yet, or a node of a cluster that
/// serves nothing.
fn serves_nothing(plain: &str) -> bool {
    let code = plain.split_ascii_whitespace().next().unwrap_or_default();
    // Redis 7 replies so to a script on a replica that may not be read either.
    matches!(code, "READONLY" | "MASTERDOWN" | "LOADING" | "CLUSTERDOWN") || plain.contains("on a stale replica")
}

/// The text of an entry behind its time; `None` if the text is not an entry.
pub(super) fn backend(value: &str) -> Option<&str> {
    let (at, backend) = value.split_once(' ')?;
    (at.bytes().all(|byte| byte.is_ascii_digit()) && !backend.is_empty()).then_some(backend)
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        let why = error.to_string();
        if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
            let is_lost = error.is_io_error() || error.is_unrecoverable_error();
            return Self { kind: if is_lost { FailureKind::Lost } else { FailureKind::Missing }, why };
        }
        let text = format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default());
        Self::of_reply(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_ours_names_no_backend() {
        assert_eq!(backend("1700000000000 b1"), Some("b1"));
        assert_eq!(backend("0 b1"), Some("b1"));
        for other in ["", "b1", "12", "12 ", "x b1"] {
            assert_eq!(backend(other), None, "{other:?}");
        }
    }
    #[test]
    fn a_refusal_is_told_from_what_stands_there_and_from_a_store_that_is_elsewhere() {
        let read = |answer: &str| Put::read(Some(answer.to_owned())).map_err(|broken| broken.kind);
        assert_eq!(Put::read(None).unwrap(), Put::Done);
        assert_eq!(read("1700000000000 b1").unwrap(), Put::Other("1700000000000 b1".into()));
        let oom = Put::Refused("OOM command not allowed when used memory > 'maxmemory'.".into());
        assert_eq!(read("!OOM command not allowed when used memory > 'maxmemory'.").unwrap(), oom);
        // Redis 6.
        assert_eq!(
            read("!@user_script: 15: -OOM command not allowed when used memory > 'maxmemory'.\r\n").unwrap(),
            oom
        );
        for elsewhere in [
            "!READONLY You can't write against a read only replica.",
            "!@user_script: 15: -READONLY You can't write against a read only replica.\r\n",
            "!MASTERDOWN Link with MASTER is down",
        ] {
            assert_eq!(read(elsewhere), Err(FailureKind::Lost), "{elsewhere}");
        }
    }

    #[test]
    fn an_error_that_ended_the_script_means_what_its_own_code_says() {
        let of = |line: &str| {
            let error = redis::parse_redis_value(line.as_bytes()).and_then(redis::Value::extract_error).unwrap_err();
            LinkError::from(error).kind
        };
        for elsewhere in [
            "-READONLY You can't write against a read only replica.\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-ERR Error running script (call to f_0a): @user_script:8: @user_script: 8: -READONLY You can't write\r\n",
        ] {
            assert_eq!(of(elsewhere), FailureKind::Lost, "{elsewhere}");
        }
        assert_eq!(of("-CLUSTERDOWN The cluster is down\r\n"), FailureKind::Lost);
        for elsewhere in ["-MOVED 3999 127.0.0.1:6381\r\n", "-ASK 3999 127.0.0.1:6381\r\n"] {
            assert_eq!(of(elsewhere), FailureKind::Redirected, "{elsewhere}");
        }
        let no_right = "-NOPERM User sessile has no permissions to run the 'eval' command\r\n";
        for refused in ["-MOVED away\r\n", no_right, "-ERR no\r\n"] {
            assert_eq!(of(refused), FailureKind::Refused, "{refused}");
        }
    }
}
