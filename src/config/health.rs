//! [`Check`] and [`Eject`]: how the health of a pool's backends is found out, by checks and by failures of clients.
//!
//! Checks nothing itself (`probe.rs` does). Invariant: a check has what its kind needs, and nothing else.

use std::time::Duration;

use crate::server_name::ServerName;

/// One `[pool.check]`: active health checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Kind of request that a check makes.
    pub kind: CheckKind,
    /// Time between two checks of one backend, varied by up to a tenth.
    pub interval: Duration,
    /// Time limit of one check, connect included.
    pub timeout: Duration,
    /// Good checks in a row until a backend is up.
    pub rise: u32,
    /// Failed checks in a row until a backend is down.
    pub fall: u32,
    /// Greatest factor by which flapping multiplies `rise`; 1: not at all.
    pub flap_damping: u32,
    /// Port to check; `None`: the backend's own.
    pub port: Option<u16>,
    /// Port of the backends' agents; `None`: they have none.
    pub agent: Option<u16>,
    /// Server name sent in a check with TLS; `None`: none.
    pub sni: Option<ServerName>,
}

/// Kind of request that a health check makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// A connect that succeeds is a good check.
    Tcp,
    /// Connect and TLS handshake; the certificate is verified only as `[pool.tls]` says.
    Tls,
    /// Bytes are sent after the connect or handshake, and the answer must contain others: kind "tcp" or "tls" with
    /// `expect`.
    Talk {
        /// True for bytes inside TLS.
        tls: bool,
        /// Bytes that are sent; empty: the backend speaks first.
        send: Vec<u8>,
        /// Bytes that a good answer contains; at least one.
        expect: Vec<u8>,
    },
    /// Call of the standard health service of gRPC over HTTP/2; the service must be serving.
    Grpc {
        /// True over TLS, false by prior knowledge.
        tls: bool,
        /// Authority of the call; `None`: the backend's address.
        host: Option<String>,
        /// Service that is asked for; empty: the server as a whole.
        service: String,
    },
    /// HTTP request; status and body of the response are judged.
    Http(HttpCheck),
    /// `PING` to a Redis or Valkey, or `ROLE`.
    Redis {
        /// True if only a primary is up.
        primary: bool,
    },
    /// Greeting of a MySQL or MariaDB, and a login without a password.
    Mysql {
        /// Name of the user that logs in.
        user: String,
    },
    /// Begin of a session with a PostgreSQL.
    Postgres {
        /// Name of the user that begins the session.
        user: String,
    },
    /// Greeting of a mail server, EHLO and QUIT.
    Smtp,
}

/// One request of a health check, and the response that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// True for HTTPS, false for plain HTTP.
    pub tls: bool,
    /// Method of the request; `GET` by default.
    pub method: &'static str,
    /// Path of the request; `/` by default.
    pub path: String,
    /// Value of `Host`; `None`: the backend's address.
    pub host: Option<String>,
    /// Further lines of the head, `Name: value`.
    pub headers: Vec<String>,
    /// Lowest status of a good check.
    pub status_min: u16,
    /// Highest status of a good check.
    pub status_max: u16,
    /// Bytes that the body of a good response contains; empty: the body is not read.
    pub expect: Vec<u8>,
}

/// One `[pool.eject]`: passive ejection after failed connects of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eject {
    /// Failed connects in a row until ejection.
    pub failures: u32,
    /// Time of the first ejection; doubles each time.
    pub base: Duration,
    /// Longest time of an ejection.
    pub max: Duration,
    /// True if a connection that the backend ends before its first byte counts as failed, and only a first byte as good.
    pub early_close: bool,
}
