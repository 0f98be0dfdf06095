//! [`ConnectionRecord`]: what the admin interface, plans and the access log see of a connection, in either half.
//!
//! Owns nothing and counts nothing: the half that holds the connection lends its fields. Invariant: the listing, the
//! plan and the access log line of one connection agree, because all three are made here.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::{ClientInfo, ConnectionFilter, Selection};
use crate::access_log::{ConnectionLine, TlsLine};
use crate::client_history::NotedEnding;
use crate::clock::{self, Micros};
use crate::outcome::{ClientMove, Ended, PickReason};
use crate::pool::Backend;
use crate::server_name::ServerName;
use crate::split::ChosenBy;

/// A borrowed view of one connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionRecord<'c> {
    /// Number of the connection in this process.
    pub id: u64,
    /// Time of accept, on the process's monotonic clock.
    pub accepted: Micros,
    /// Time of the last byte in either direction, on the same clock.
    pub last_active: Micros,
    /// Address of the client, announced or seen; `None` for a unix peer.
    pub client: Option<SocketAddr>,
    /// Address of the socket's peer where a PROXY header announced another client.
    pub peer: Option<SocketAddr>,
    /// A PROXY header said LOCAL or UNKNOWN: the connection has no key.
    pub local: bool,
    /// Name of the listener that accepted it.
    pub listener: &'c Arc<str>,
    /// Server name of the ClientHello, where one was read.
    pub sni: Option<&'c ServerName>,
    /// What the ClientHello has in place of a host name, cut.
    pub odd_name: Option<&'c Arc<str>>,
    /// The ClientHello offered Encrypted ClientHello (RFC 9849).
    pub ech: bool,
    /// Word for what the connection is doing.
    pub stage: &'static str,
    /// The split of connections that has chosen the pool, and by what.
    pub split: Option<&'c (Arc<str>, ChosenBy)>,
    /// Name of the pool, once the connection is routed.
    pub pool: Option<&'c Arc<str>>,
    /// Named range of the pool that contains the client.
    pub range: Option<&'c Arc<str>>,
    /// Backend that was picked last.
    pub backend: Option<&'c Arc<Backend>>,
    /// Step of the chain that chose this backend.
    pub reason: Option<PickReason>,
    /// Attempts to connect that were begun.
    pub attempts: u8,
    /// Microseconds of the successful attempt.
    pub connect_us: Option<u64>,
    /// Bytes read from the client.
    pub bytes_up: u64,
    /// Bytes read from the backend.
    pub bytes_down: u64,
    /// The move of a client that was known at another backend.
    pub moved: Option<&'c ClientMove>,
}

impl ConnectionRecord<'_> {
    /// True if a command with this selection is about the connection.
    pub fn is_selected(&self, selection: &Selection) -> bool {
        match selection {
            Selection::All => true,
            Selection::Of(backend) => self.backend.is_some_and(|own| Arc::ptr_eq(own, backend)),
        }
    }

    /// True if a listing with this filter contains the connection.
    pub fn matches(&self, filter: &ConnectionFilter) -> bool {
        filter.is_about(self.id, self.client)
            && filter.matches(self.pool.map(|pool| &**pool), self.backend.map(|backend| backend.name()))
    }

    /// The connection as a plan needs it; `None` before a backend is picked.
    pub fn open(&self) -> Option<OpenConnection> {
        Some(OpenConnection {
            listener: Arc::clone(self.listener),
            backend: Arc::clone(self.backend?),
            by_cookie: self.reason == Some(PickReason::Cookie),
            client_info: ClientInfo {
                id: self.id,
                accepted: self.accepted,
                source: self.client,
                peer: self.peer,
                local: self.local,
                sni: self.sni.cloned(),
                ..ClientInfo::default()
            },
        })
    }

    /// The connection as the admin interface shows it; `worker` is the number of the thread pair that holds it.
    pub fn view(&self, worker: usize, now: Micros) -> ConnectionView {
        ConnectionView {
            id: self.id,
            worker,
            client: self.client.map(|client| client.to_string()),
            listener: self.listener.to_string(),
            pool: self.pool.map(|pool| pool.to_string()),
            backend: self.backend.map(|backend| backend.name().to_owned()),
            reason: self.reason.map(PickReason::word),
            sni: self.sni.map(ToString::to_string).or(self.odd_name.map(ToString::to_string)),
            stage: self.stage,
            age_ms: now.saturating_sub(self.accepted) / 1_000,
            idle_ms: now.saturating_sub(self.last_active) / 1_000,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
        }
    }

    /// The note of an ending that the client notices.
    pub fn noted(&self, ended: Ended) -> NotedEnding {
        NotedEnding {
            unix_ms: clock::unix_ms(),
            client: self.client.map(|client| client.ip()),
            connection: self.id,
            is_request: false,
            listener: Arc::clone(self.listener),
            pool: self.pool.cloned(),
            backend: self.backend.map(|backend| backend.name_shared()),
            ended,
            count: 1,
        }
    }

    /// The line of the access log for a connection that has just ended after `duration_us`; `tls` describes TLS that
    /// was terminated here.
    pub fn line(&self, ended: Ended, duration_us: u64, tls: Option<Box<TlsLine>>) -> ConnectionLine {
        ConnectionLine {
            id: self.id,
            started_unix_us: clock::unix_us().saturating_sub(duration_us),
            duration_us,
            client: self.client,
            peer: self.peer,
            listener: Arc::clone(self.listener),
            sni: self.sni.cloned(),
            odd_name: self.odd_name.cloned(),
            ech: self.ech,
            split: self.split.cloned(),
            pool: self.pool.cloned(),
            range: self.range.cloned(),
            backend: self.backend.map(|backend| backend.name_shared()),
            reason: self.reason,
            attempts: self.attempts,
            connect_us: self.connect_us,
            bytes_up: self.bytes_up,
            bytes_down: self.bytes_down,
            ended,
            tls,
            moved: self.moved.cloned(),
            alert: None,
            sample: 1,
        }
    }
}

/// An open connection that has a backend, for plans.
#[derive(Debug)]
pub struct OpenConnection {
    /// Name of the listener that accepted it.
    pub listener: Arc<str>,
    /// Backend that serves the connection.
    pub backend: Arc<Backend>,
    /// A valid cookie of the request chose this backend.
    pub by_cookie: bool,
    /// The part of the client's facts that outlives the first reading: addresses and server name.
    pub client_info: ClientInfo,
}

/// A living connection, for the admin interface.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionView {
    /// Number of the connection in this process.
    pub id: u64,
    /// Worker that holds the connection, or the worker beside the conversation's runtime.
    pub worker: usize,
    /// Address of the client, announced or seen; absent for a unix peer.
    pub client: Option<String>,
    /// Name of the listener that accepted it.
    pub listener: String,
    /// Name of the pool, once the connection is routed.
    pub pool: Option<String>,
    /// Name of the backend, once one is picked.
    pub backend: Option<String>,
    /// Step of the chain that chose this backend.
    pub reason: Option<&'static str>,
    /// Server name of the ClientHello, where one was read, also one that is no host name.
    pub sni: Option<String>,
    /// `preread`, `connect` or `relay`; of conversations also `handshake`, `head`, `exchange`, `kept`.
    pub stage: &'static str,
    /// Age in milliseconds, since accept.
    pub age_ms: u64,
    /// Milliseconds since the last byte.
    pub idle_ms: u64,
    /// Bytes read from the client.
    pub bytes_up: u64,
    /// Bytes read from the backend.
    pub bytes_down: u64,
}
