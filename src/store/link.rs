//! A connection to Redis and the three commands that are sent over it.
//!
//! Sets no time limit (`task.rs` does) and repeats nothing. Invariants: an entry is written only over an older one, and
//! the comparison and the write are one atomic step of the store (a Lua script); an entry that the store refuses costs
//! no other entry of the same command.
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
use super::pending::PendingValue;
use crate::config::{StoreAddress, StorePlace};
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
    /// The store refused the write, with its error.
    Refused(String),
}

/// Commands that open a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    /// No AUTH and no SELECT.
    Anonymous,
    /// AUTH with the configured user and password.
    User,
    /// AUTH as for `User`, then SELECT of the database.
    Database,
}

/// The task that reads and writes the socket; aborted on drop.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Connects to the store, or to the primary that one of the sentinels names.
    pub(super) async fn dial(access: &Access) -> Result<Self, String> {
        let (sentinels, master) = match &access.config.place {
            StorePlace::One(address) => {
                return Self::connect(access, address, Greeting::Database).await.map_err(|broken| broken.why);
            }
            StorePlace::Sentinels { sentinels, master } => (sentinels, master),
        };
        let mut complaints = Vec::new();
        for sentinel in sentinels {
            match primary(access, sentinel, master).await {
                Ok(Some(address)) => match Self::connect_to_primary(access, &address).await {
                    Ok(link) => return Ok(link),
                    Err(why) => {
                        complaints.push(format!("{address}, of which sentinel {sentinel} says that it is: {why}"));
                    }
                },
                Ok(None) => complaints.push(format!("sentinel {sentinel} knows no {master:?}")),
                Err(broken) => complaints.push(format!("sentinel {sentinel}: {}", broken.why)),
            }
        }
        Err(complaints.join("; "))
    }

    /// Connects to a primary and checks its ROLE, because a sentinel's view may be a moment old.
    async fn connect_to_primary(access: &Access, address: &StoreAddress) -> Result<Self, String> {
        let link = Self::connect(access, address, Greeting::Database).await.map_err(|broken| broken.why)?;
        let role: Vec<redis::Value> = link.ask(&cmd("ROLE")).await.map_err(|broken| broken.why)?;
        match role.first() {
            Some(redis::Value::BulkString(word)) if word == b"master" => Ok(link),
            _ => Err("it is no primary".to_owned()),
        }
    }

    async fn connect(access: &Access, address: &StoreAddress, greeting: Greeting) -> Result<Self, LinkError> {
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
        Ok(Self { connection, _driver: Arc::new(Driver(driver)) })
    }

    /// A connection to a far end that never replies.
    #[cfg(test)]
    pub(super) async fn to_nobody(access: &Access) -> (Self, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        (Self::greet(access, ours, Greeting::Anonymous).await.expect("no command is sent"), theirs)
    }

    /// Writes entries; one result for each, in order.
    pub(super) async fn put(&self, entries: &[PendingValue]) -> Result<Vec<Put>, LinkError> {
        let mut put = cmd("EVAL");
        put.arg(PUT).arg(entries.len());
        for entry in entries {
            put.arg(&*entry.key);
        }
        for entry in entries {
            put.arg(entry.at_ms).arg(entry.ttl_ms.max(1)).arg(entry.backend.as_deref().unwrap_or_default());
        }
        let answers: Result<Vec<Option<String>>, LinkError> = self.ask(&put).await;
        match answers {
            Ok(answers) => answers.into_iter().map(Put::read).collect(),
            Err(LinkError { kind: FailureKind::Refused, why }) => Ok(vec![Put::Refused(why); entries.len()]),
            Err(broken) => Err(broken),
        }
    }

    /// Reads the entries of keys; `None` for a key that has none.
    pub(super) async fn find(&self, keys: &[Box<str>]) -> Result<Vec<Option<String>>, LinkError> {
        let mut find = cmd("MGET");
        for key in keys {
            find.arg(&**key);
        }
        self.ask(&find).await
    }

    /// Checks that the store replies.
    pub(super) async fn ping(&self) -> Result<(), LinkError> {
        self.ask(&cmd("PING")).await
    }

    /// Sends one command.
    pub(super) async fn ask<T: redis::FromRedisValue>(&self, what: &Cmd) -> Result<T, LinkError> {
        what.query_async(&mut self.connection.clone()).await.map_err(LinkError::from)
    }
}

impl LinkError {
    /// True if the store has replied, with an error.
    pub(super) fn is_refusal(&self) -> bool {
        self.kind == FailureKind::Refused
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
        let why = plain(error).to_owned();
        if is_elsewhere(&why) { Err(LinkError { kind: FailureKind::Lost, why }) } else { Ok(Self::Refused(why)) }
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

/// Whether the error means that the far end of this connection is no primary, or not yet.
fn is_elsewhere(plain: &str) -> bool {
    let code = plain.split_ascii_whitespace().next().unwrap_or_default();
    // Redis 7 replies so to a script on a replica that may not be read either.
    matches!(code, "READONLY" | "MASTERDOWN" | "LOADING") || plain.contains("on a stale replica")
}

/// The text of an entry behind its time; `None` if the text is not an entry.
pub(super) fn backend(value: &str) -> Option<&str> {
    let (at, backend) = value.split_once(' ')?;
    (at.bytes().all(|byte| byte.is_ascii_digit()) && !backend.is_empty()).then_some(backend)
}

/// Requests the address of the primary from a sentinel, first without a password: sentinels often have none.
async fn primary(access: &Access, sentinel: &StoreAddress, master: &str) -> Result<Option<StoreAddress>, LinkError> {
    let mut which = cmd("SENTINEL");
    which.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let link = Link::connect(access, sentinel, Greeting::Anonymous).await?;
    let mut found: Result<Option<(String, u16)>, _> = link.ask(&which).await;
    if found.is_err() && access.password.is_some() {
        let link = Link::connect(access, sentinel, Greeting::User).await?;
        found = link.ask(&which).await;
    }
    Ok(found?.map(|(host, port)| StoreAddress::Tcp(host, port)))
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        let why = error.to_string();
        if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
            let is_lost = error.is_io_error() || error.is_unrecoverable_error();
            return Self { kind: if is_lost { FailureKind::Lost } else { FailureKind::Missing }, why };
        }
        let text = format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default());
        let why = plain(&text).to_owned();
        Self { kind: if is_elsewhere(&why) { FailureKind::Lost } else { FailureKind::Refused }, why }
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
        for refused in ["-NOPERM User sessile has no permissions to run the 'eval' command\r\n", "-ERR no\r\n"] {
            assert_eq!(of(refused), FailureKind::Refused, "{refused}");
        }
    }
}
