//! [`Question`]: what a client is asked by: its address, a connection, a request or a cookie.
//!
//! Looks nothing up but names of cookies. Invariant: every text is one of the four; what is no address, no number and no
//! id of this process is a cookie.

use std::net::{IpAddr, SocketAddr};

use crate::client_history::{ClientHistory, ClientKey};
use crate::connection::{ConnectionFilter, ConnectionView, of_request_id};
use crate::snapshot::Snapshot;

/// Number of connections that one worker can have numbered, and of requests in one: what is above is an id of another
/// process.
const NUMBERED_MAX: u64 = 1 << 40;

/// A cookie in a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AskedCookie {
    /// Name of the cookie; `None`: the question had a value alone.
    pub(super) name: Option<String>,
    pub(super) value: String,
}

/// What a client is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    Address(IpAddr),
    Connection(u64),
    Request { connection: u64, request: u64 },
    Cookie(AskedCookie),
}

impl Question {
    /// Reads the text of a question; `workers` is their number.
    pub(super) fn read(what: &str, snapshot: &Snapshot, workers: usize) -> Self {
        let what = what.trim();
        let address = what.parse().or_else(|_| what.parse().map(|address: SocketAddr| address.ip()));
        if let Ok(address) = address {
            return Self::Address(IpAddr::to_canonical(&address));
        }
        if let Ok(connection) = what.parse() {
            return Self::Connection(connection);
        }
        let is_ours = |(connection, request): &(u64, u64)| {
            let (worker, number) = (connection >> 48, connection & ((1 << 48) - 1));
            worker < workers as u64 && (1..NUMBERED_MAX).contains(&number) && *request < NUMBERED_MAX
        };
        if let Some((connection, request)) = of_request_id(what).filter(is_ours) {
            return Self::Request { connection, request };
        }
        Self::Cookie(AskedCookie::read(what, snapshot))
    }

    /// The kind of the question, as one word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Connection(_) => "connection",
            Self::Request { .. } => "request",
            Self::Cookie(_) => "cookie",
        }
    }

    /// What the answer is about, for the begin of a sentence. A cookie is not repeated: its value is a secret.
    pub(super) fn subject(&self) -> String {
        match self {
            Self::Address(address) => format!("Client {address}"),
            Self::Connection(connection) => format!("Connection {connection}"),
            Self::Request { connection, request } => format!("Request {request} of connection {connection}"),
            Self::Cookie(_) => "The client with this cookie".to_owned(),
        }
    }

    /// The key of what was noted.
    pub(super) fn key(&self, snapshot: &Snapshot) -> ClientKey {
        match self {
            Self::Address(address) => ClientKey::Address(*address),
            Self::Connection(connection) | Self::Request { connection, .. } => ClientKey::Connection(*connection),
            Self::Cookie(cookie) => ClientKey::Cookie(snapshot.secret.cookie(cookie.value.as_bytes()).to_bits()),
        }
    }

    /// The open connections of the client; `None`: a cookie does not say which they are.
    pub(super) fn filter(&self) -> Option<ConnectionFilter> {
        let all = ConnectionFilter::default();
        match self {
            Self::Address(address) => Some(ConnectionFilter { client: Some(*address), ..all }),
            Self::Connection(connection) | Self::Request { connection, .. } => {
                Some(ConnectionFilter { id: Some(*connection), ..all })
            }
            Self::Cookie(_) => None,
        }
    }

    /// Address of the client: that of the question, or that of the connection as far as it is known.
    pub(super) fn client(&self, history: &ClientHistory, open: &[ConnectionView]) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Connection(connection) | Self::Request { connection, .. } => {
                let of_open = open.first().and_then(|open| open.client.as_deref()?.parse::<SocketAddr>().ok());
                of_open.map(|client| client.ip()).or_else(|| history.client_of(*connection))
            }
            Self::Cookie(_) => None,
        }
    }

    /// The cookie of the question.
    pub(super) fn cookie(&self) -> Option<&AskedCookie> {
        match self {
            Self::Cookie(cookie) => Some(cookie),
            Self::Address(_) | Self::Connection(_) | Self::Request { .. } => None,
        }
    }
}

impl AskedCookie {
    /// Reads `NAME=VALUE` if a pool or split has a cookie of this name, else a value. Takes what a browser shows: with quotes, or
    /// attributes behind it.
    fn read(what: &str, snapshot: &Snapshot) -> Self {
        let what = what.split(';').next().unwrap_or_default().trim();
        let of_pools = || snapshot.pools.iter().filter_map(|pool| pool.cookie());
        let of_splits = || snapshot.splits.iter().filter_map(|split| split.cookie());
        let names = |name: &str| of_pools().chain(of_splits()).any(|rule| rule.is_named(name));
        let named = what.split_once('=').filter(|(name, _)| names(name));
        let (name, value) = named.map_or((None, what), |(name, value)| (Some(name.to_owned()), value));
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        Self { name, value: unquoted.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::request_id;

    fn snapshot() -> Snapshot {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\nhttp = true\n\
                    cookie = { mode = \"learn\", name = \"SID\" }\nbackend = [{ name = \"a\", address = \"127.0.0.1:1\" }]\n";
        Snapshot::of_text(text)
    }

    #[test]
    fn an_address_a_number_an_id_and_a_cookie_are_told_apart() {
        let snapshot = snapshot();
        let read = |what: &str| Question::read(what, &snapshot, 2);
        let cookie = |name: Option<&str>, value: &str| {
            Question::Cookie(AskedCookie { name: name.map(str::to_owned), value: value.to_owned() })
        };
        for address in ["192.0.2.1", "192.0.2.1:4711", "::ffff:192.0.2.1", " 192.0.2.1\n", "[::ffff:192.0.2.1]:1"] {
            assert_eq!(read(address), Question::Address([192, 0, 2, 1].into()), "{address}");
        }
        let connection = 1 << 48 | 7;
        assert_eq!(read(&connection.to_string()), Question::Connection(connection));
        assert_eq!(read(&request_id(connection, 3).to_string()), Question::Request { connection, request: 3 });
        let unknown = request_id(2 << 48 | 7, 3).to_string();
        assert_eq!(read(&unknown), cookie(None, &unknown), "no such worker");
        // The session of an application may have the form of an id.
        assert_eq!(read(&"ab".repeat(16)), cookie(None, &"ab".repeat(16)));
        assert_eq!(read("SID=31d4"), cookie(Some("SID"), "31d4"));
        assert_eq!(read("SID=\"31d4\"; Path=/"), cookie(Some("SID"), "31d4"));
        assert_eq!(read("a=b="), cookie(None, "a=b="), "base64 ends so, and no pool has a cookie called a");
    }
}
