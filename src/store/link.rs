//! A connection to the store, and the three things that are said on it.
//!
//! Waits for as long as it takes (`keeper.rs` does not) and repeats nothing. Invariants: an entry is written only over an
//! earlier one: what is compared and what is written is one step of the store's; an entry that the store refuses costs
//! no other one.
//!
//! ```text
//! PREFIX POOL ":" HASH  →  MILLISECONDS SINCE 1970 " " BACKEND, which lasts as long as the cookie is remembered
//! ```

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

/// For each key: time, how long it lasts, backend. No backend: the value has ended. Time 0: whoever is there stays, and
/// stays as long as it would from now. Answers who stands there instead, where it is not what was to be written, or, behind
/// a mark that no such answer begins with, why nothing was done (`redis.pcall`: the others are written).
const PUT: &str = r"
local answers = {}
for i, key in ipairs(KEYS) do
  local at, ttl, backend = tonumber(ARGV[3 * i - 2]), ARGV[3 * i - 1], ARGV[3 * i]
  local known = redis.pcall('GET', key)
  local done = known
  answers[i] = false
  if type(known) ~= 'table' then
    local since = known and tonumber(string.match(known, '^(%d+) ')) or -1
    if backend == '' then
      if at >= since then done = redis.pcall('DEL', key) end
    elseif since < 0 or at > 0 and at >= since then
      done = redis.pcall('SET', key, ARGV[3 * i - 2] .. ' ' .. backend, 'PX', ttl)
    else
      if at == 0 then done = redis.pcall('PEXPIRE', key, ttl) end
      answers[i] = known
    end
  end
  if type(done) == 'table' and done.err then answers[i] = '!' .. done.err end
end
return answers";

/// What an answer begins with that says why nothing was done; what stands there begins with a number.
const REFUSED: char = '!';

/// Commands that may be on their way at once; more wait here.
const BUFFER: usize = 256;

/// A connection that may be used by many at once; ends with the last of them.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

/// Why there was no answer, or none that is of use.
#[derive(Debug)]
pub(super) struct LinkError {
    pub(super) how: How,
    /// What happened.
    pub(super) why: String,
}

/// What no answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing more will come on this connection, or not from whoever is behind it.
    Lost,
    /// The store is there and says no.
    Refused,
    /// Too late, or not to be understood.
    Missing,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Put {
    /// It is as it was to be.
    Done,
    /// This stands there instead.
    Other(String),
    /// The store would not have it, and says why.
    Refused(String),
}

/// What is said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    /// Nothing.
    Nobody,
    /// Who we are.
    User,
    /// That, and which database is meant.
    Database,
}

/// Moves the connection's bytes.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Connects to the store, or to what the sentinels say it is.
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

    /// What a sentinel says may be a moment old.
    async fn connect_to_primary(access: &Access, address: &StoreAddress) -> Result<Self, String> {
        let link = Self::connect(access, address, Greeting::Database).await.map_err(|broken| broken.why)?;
        let role: Vec<redis::Value> = link.ask(&cmd("ROLE")).await.map_err(|broken| broken.why)?;
        match role.first() {
            Some(redis::Value::BulkString(word)) if word == b"master" => Ok(link),
            _ => Err("it is no primary".to_owned()),
        }
    }

    async fn connect(access: &Access, address: &StoreAddress, greeting: Greeting) -> Result<Self, LinkError> {
        let lost = |why: String| LinkError { how: How::Lost, why };
        let of_io = |error: std::io::Error| lost(error.to_string());
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
        let mut who = RedisConnectionInfo::default().set_skip_set_lib_name();
        if greeting == Greeting::Database {
            who = who.set_db(access.config.database.into());
        }
        if greeting != Greeting::Nobody {
            if let Some(password) = &access.password {
                who = who.set_password(&password.0);
            }
            if let Some(user) = &access.config.user {
                who = who.set_username(user);
            }
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(BUFFER);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&who, stream, config).await.map_err(LinkError::from)?;
        let driver = tokio::task::spawn_local(driver).abort_handle();
        Ok(Self { connection, _driver: Arc::new(Driver(driver)) })
    }

    /// To somebody who never says anything; ends with the other end.
    #[cfg(test)]
    pub(super) async fn to_nobody(access: &Access) -> (Self, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        (Self::greet(access, ours, Greeting::Nobody).await.expect("nothing is said"), theirs)
    }

    /// Writes entries; what became of each.
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
            Err(LinkError { how: How::Refused, why }) => Ok(vec![Put::Refused(why); entries.len()]),
            Err(broken) => Err(broken),
        }
    }

    /// The values of keys.
    pub(super) async fn find(&self, keys: &[Box<str>]) -> Result<Vec<Option<String>>, LinkError> {
        let mut find = cmd("MGET");
        for key in keys {
            find.arg(&**key);
        }
        self.ask(&find).await
    }

    /// Asks for nothing but an answer.
    pub(super) async fn ping(&self) -> Result<(), LinkError> {
        self.ask(&cmd("PING")).await
    }

    async fn ask<T: redis::FromRedisValue>(&self, what: &Cmd) -> Result<T, LinkError> {
        what.query_async(&mut self.connection.clone()).await.map_err(LinkError::from)
    }
}

impl Put {
    /// Why the store would not have it.
    pub(super) fn refusal(&self) -> Option<&str> {
        if let Self::Refused(why) = self { Some(why) } else { None }
    }

    /// What the script has answered about one entry.
    fn read(answer: Option<String>) -> Result<Self, LinkError> {
        let Some(answer) = answer else { return Ok(Self::Done) };
        let Some(error) = answer.strip_prefix(REFUSED) else { return Ok(Self::Other(answer)) };
        let why = plain(error).to_owned();
        if is_elsewhere(&why) { Err(LinkError { how: How::Lost, why }) } else { Ok(Self::Refused(why)) }
    }
}

/// An error of the store's from its code on, as in `OOM command not allowed`. Redis 6 says before it where in the script
/// it was, and both have `ERR` before the code of an error that ends a script.
fn plain(error: &str) -> &str {
    let is_code = |word: &&str| word.len() > 2 && *word != "ERR" && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let word = error.split_ascii_whitespace().map(|word| word.trim_start_matches('-')).find(is_code);
    let begins = word.and_then(|word| error.find(word)).unwrap_or_default();
    error.get(begins..).unwrap_or(error).trim()
}

/// Whether the store is not, or not yet, whoever is behind this connection.
fn is_elsewhere(plain: &str) -> bool {
    let code = plain.split_ascii_whitespace().next().unwrap_or_default();
    // What Redis 7 tells a script on a replica that may not even be read.
    matches!(code, "READONLY" | "MASTERDOWN" | "LOADING") || plain.contains("on a stale replica")
}

/// The backend that an entry names.
pub(super) fn backend(value: &str) -> Option<&str> {
    let (at, backend) = value.split_once(' ')?;
    (at.bytes().all(|byte| byte.is_ascii_digit()) && !backend.is_empty()).then_some(backend)
}

/// Where a sentinel says that the primary is. Sentinels often let everybody ask.
async fn primary(access: &Access, sentinel: &StoreAddress, master: &str) -> Result<Option<StoreAddress>, LinkError> {
    let mut which = cmd("SENTINEL");
    which.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let link = Link::connect(access, sentinel, Greeting::Nobody).await?;
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
            return Self { how: if is_lost { How::Lost } else { How::Missing }, why };
        }
        let said = format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default());
        let why = plain(&said).to_owned();
        Self { how: if is_elsewhere(&why) { How::Lost } else { How::Refused }, why }
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
        let read = |answer: &str| Put::read(Some(answer.to_owned())).map_err(|broken| broken.how);
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
            assert_eq!(read(elsewhere), Err(How::Lost), "{elsewhere}");
        }
    }

    #[test]
    fn an_error_that_ended_the_script_means_what_its_own_code_says() {
        let of = |line: &str| {
            let error = redis::parse_redis_value(line.as_bytes()).and_then(redis::Value::extract_error).unwrap_err();
            LinkError::from(error).how
        };
        for elsewhere in [
            "-READONLY You can't write against a read only replica.\r\n",
            "-LOADING Redis is loading the dataset in memory\r\n",
            "-ERR Error running script (call to f_0a): @user_script:8: @user_script: 8: -READONLY You can't write\r\n",
        ] {
            assert_eq!(of(elsewhere), How::Lost, "{elsewhere}");
        }
        for refused in ["-NOPERM User sessile has no permissions to run the 'eval' command\r\n", "-ERR no\r\n"] {
            assert_eq!(of(refused), How::Refused, "{refused}");
        }
    }
}
