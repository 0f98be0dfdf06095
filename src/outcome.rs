//! [`Ended`], [`PickReason`] and [`BreakCause`]: the closed lists behind metric labels, log words and documentation; and
//! [`ClientMove`], which has a cause.
//!
//! Counts nothing and writes nothing. Invariant: every [`Ended`] has one word, one party at fault and one sentence of
//! documentation, and stands in [`Ended::ALL`] at the index that `as usize` gives.

use std::sync::Arc;

/// The party at fault for an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// No party: the connection ran its course.
    None,
    /// The client caused the ending.
    Client,
    /// The backend caused the ending.
    Backend,
    /// A configured limit was reached.
    Limit,
    /// This process or this machine failed.
    Us,
}

impl Party {
    /// Returns the word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Limit => "limit",
            Self::Us => "us",
        }
    }
}

macro_rules! endings {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $fault:ident;)+) => {
        /// How a connection ended; see [`Ended::meaning`] for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Ended { $($(#[doc = $doc])+ $name,)+ }

        impl Ended {
            /// Every ending, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the word for logs, metrics and the admin interface.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// Returns the party at fault.
            pub fn fault(self) -> Party {
                match self { $(Self::$name => Party::$fault,)+ }
            }

            /// Returns the documentation, one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

endings! {
    /// Both sides closed cleanly and every byte was delivered.
    Done = "done", None;
    /// A trusted peer sent no byte until it closed or `hello_timeout` passed, or LOCAL and nothing behind it.
    Probe = "probe", None;
    /// The client closed cleanly before a backend was connected.
    ClientLeft = "client_left", Client;
    /// The client reset the connection; the backend's side was reset too.
    ClientReset = "client_reset", Client;
    /// The client stopped acknowledging (keepalive or `user_timeout`).
    ClientGone = "client_gone", Client;
    /// A peer outside `trust` was refused at accept.
    Untrusted = "untrusted", Client;
    /// A peer served directly opened with a PROXY signature.
    ProxySpoofed = "proxy_spoofed", Client;
    /// A trusted peer sent something that is not a PROXY header.
    ProxyMalformed = "proxy_malformed", Client;
    /// A PROXY header's CRC32C did not match.
    ProxyChecksum = "proxy_checksum", Client;
    /// A PROXY header was longer than 4 KiB.
    ProxyTooLong = "proxy_too_long", Client;
    /// A trusted peer sent no complete PROXY header before `hello_timeout`, or closed inside it.
    ProxyTruncated = "proxy_truncated", Client;
    /// The bytes are certainly not TLS and `not_tls = "refuse"`.
    NotTls = "not_tls", Client;
    /// No byte was received before `hello_timeout` and `silent = "refuse"`.
    Silent = "silent", Client;
    /// A ClientHello was begun but not complete before `hello_timeout`.
    HelloTimeout = "hello_timeout", Client;
    /// The client closed inside its ClientHello.
    HelloTruncated = "hello_truncated", Client;
    /// The ClientHello breaks RFC 8446 §4.1.2.
    HelloMalformed = "hello_malformed", Client;
    /// The ClientHello is longer than `hello_max`.
    HelloTooLong = "hello_too_long", Client;
    /// The ClientHello is longer than 4 KiB, and all hellos together would take more than `hello_memory`.
    HelloMemory = "hello_memory", Limit;
    /// The server name of the ClientHello is no host name, and TLS that ends here takes no such name.
    BadServerName = "bad_server_name", Client;
    /// The TLS handshake was not complete before `hello_timeout`.
    HandshakeTimeout = "handshake_timeout", Client;
    /// `max_handshakes` left no turn for the TLS handshake until `hello_timeout`.
    HandshakeLimit = "handshake_limit", Limit;
    /// The TLS handshake failed: nothing in common, a certificate that is refused on either side, or bytes that are
    /// wrong.
    HandshakeFailed = "handshake_failed", Client;
    /// The client resumed a TLS session, and since that began its certificate has expired, or the revocation list of its
    /// authority.
    CertificateExpired = "certificate_expired", Client;
    /// The certificate of the client is in a revocation list of `crl`.
    CertificateRevoked = "certificate_revoked", Client;
    /// The client closed inside the TLS handshake.
    HandshakeCut = "handshake_cut", Client;
    /// After the handshake the client sent what is not TLS, or ended it with an alert.
    ClientTls = "client_tls", Client;
    /// The client closed without close_notify (RFC 8446 §6.1), in the middle of what it was sending or being sent.
    ClientTruncated = "client_truncated", Client;
    /// A request's head or body did not come in time; the reply was 408.
    RequestTimeout = "request_timeout", Client;
    /// A request was malformed or ambiguous (RFC 9112) and was refused.
    RequestRefused = "request_refused", Client;
    /// The client sent frames that break RFC 9113; the connection ended with GOAWAY.
    Http2Error = "http2_error", Client;
    /// The client sent more control frames or empty frames than an HTTP/2 connection may.
    Http2Flood = "http2_flood", Client;
    /// The client reset more streams than an HTTP/2 connection may.
    Http2Resets = "http2_resets", Client;
    /// The body of a request is longer than `body_max`; the reply was 413.
    BodyTooLarge = "body_too_large", Limit;
    /// The body of a request came slower than `body_rate_min`, or took longer than `body_time_max`; the reply was 408.
    BodySlow = "body_slow", Limit;
    /// The client makes more requests than `request_rate` gives it; the reply was 429.
    RequestRate = "request_rate", Limit;
    /// A route answered the request, with a redirect or a content of the configuration.
    Answered = "answered", None;
    /// A request was for a host with other rules of TLS than its connection; the reply was 421.
    Misdirected = "misdirected", Client;
    /// A kept connection received no further request within `keepalive_timeout`.
    KeepaliveTimeout = "keepalive_timeout", Limit;
    /// The head of the response did not come within `response_timeout`; the reply was 504.
    ResponseTimeout = "response_timeout", Backend;
    /// No byte of a body came or was taken for `body_timeout`.
    BodyTimeout = "body_timeout", Limit;
    /// The backend's response was malformed or ambiguous (RFC 9112); 502, or a reset if it had begun.
    ResponseRefused = "response_refused", Backend;
    /// The backend closed before its response was complete; 502, or a reset if it had begun.
    ResponseCut = "response_cut", Backend;
    /// The backend responded before it had the whole request, and did not read on; the client got the response.
    RequestCut = "request_cut", Backend;
    /// A kept connection to the backend closed while it carried a request that must not be sent twice; no reply.
    KeptClosed = "kept_closed", Backend;
    /// The TLS handshake with the backend failed, or its certificate is not trusted.
    BackendTls = "backend_tls", Backend;
    /// The backend did not agree on HTTP/2 (ALPN `h2`), which its pool speaks with `http = "h2"`.
    BackendNoHttp2 = "backend_no_http2", Backend;
    /// No route matches, and the listener has no default pool, or none for this name (`unknown_names`); a request got 404.
    NoRoute = "no_route", Client;
    /// The source has `max_connections_per_source` open already.
    SourceConnections = "source_connections", Limit;
    /// The source exceeds `connection_rate_per_source`.
    SourceRate = "source_rate", Limit;
    /// No backend is usable and `all_down = "refuse"`, or a strict range has none.
    NoBackend = "no_backend", Backend;
    /// Every usable backend has `max_connections`, or the client's own backend has and `on_full = "reject"`.
    BackendFull = "backend_full", Limit;
    /// The client would have had to wait for a place at a full backend, and `queue_max` clients did; a request got 503.
    QueueFull = "queue_full", Limit;
    /// The client waited for a place at a full backend for `queue_timeout`; a request got 503.
    QueueTimeout = "queue_timeout", Limit;
    /// The client's own backend is down, and `on_down = "reject"`.
    SettledDown = "settled_down", Backend;
    /// The last backend tried refused the connection.
    ConnectRefused = "connect_refused", Backend;
    /// The last backend tried did not reply within `connect_timeout`, or `connect_budget` ran out.
    ConnectTimeout = "connect_timeout", Backend;
    /// The last backend tried is unreachable, or a rule of this host or the network forbids the connection.
    ConnectUnreachable = "connect_unreachable", Backend;
    /// The backend reset the connection; the client's side was reset too.
    BackendReset = "backend_reset", Backend;
    /// The backend stopped acknowledging (keepalive or `user_timeout`).
    BackendGone = "backend_gone", Backend;
    /// The backend was marked down and `on_marked_down = "close"`.
    BackendDown = "backend_down", Backend;
    /// The backend was drained, and `drain_deadline` had passed.
    Drained = "drained", None;
    /// No byte came in either direction for `idle_timeout`.
    IdleTimeout = "idle_timeout", Limit;
    /// One side had closed and no byte came for `half_close_timeout`.
    HalfCloseTimeout = "half_close_timeout", Limit;
    /// The connection reached its `lifetime`.
    Lifetime = "lifetime", Limit;
    /// Closed because the process stops.
    Stopped = "stopped", Us;
    /// This machine has no free port towards the backend.
    NoPort = "no_port", Us;
    /// This process has no free descriptor.
    NoDescriptor = "no_descriptor", Us;
    /// The kernel has no memory for sockets.
    NoMemory = "no_memory", Us;
    /// A local error that is none of the above.
    LocalError = "local_error", Us;
    /// A bug: the step panicked; this connection was reset, no other was touched.
    Panicked = "panicked", Us;
}

impl Ended {
    /// Number of endings, for arrays of counters.
    pub const COUNT: usize = Self::ALL.len();

    /// Endings that limits of requests cause, in the order of their counters.
    pub const OF_REQUEST_LIMITS: &'static [Self] = &[Self::BodyTooLarge, Self::RequestRate, Self::BodySlow];

    /// True if the connection was turned away before any backend was tried.
    pub fn refused(self) -> bool {
        use Ended::*;
        matches!(
            self,
            Untrusted
                | ProxySpoofed
                | ProxyMalformed
                | ProxyChecksum
                | ProxyTooLong
                | ProxyTruncated
                | NotTls
                | Silent
                | HelloTimeout
                | HelloTruncated
                | HelloMalformed
                | HelloTooLong
                | HelloMemory
                | BadServerName
                | HandshakeTimeout
                | HandshakeLimit
                | HandshakeFailed
                | HandshakeCut
                | CertificateExpired
                | CertificateRevoked
                | Misdirected
                | NoRoute
                | SourceConnections
                | SourceRate
                | NoBackend
                | SettledDown
                | BackendFull
                | QueueFull
                | QueueTimeout
        )
    }
}

/// The step of the chain that chose the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PickReason {
    /// A valid cookie of the request names the backend.
    Cookie,
    /// The stick table has an entry for the key.
    StickTable,
    /// Another stream of the connection was placed there, and this one brought no cookie.
    Connection,
    /// The balancing method placed the key among the usable backends.
    Placement,
    /// Only a backup was usable, or all backends are down and `all_down = "try"`.
    LastResort,
}

impl PickReason {
    /// Every reason, in the order of the chain.
    const ALL: [Self; 5] = [Self::Cookie, Self::StickTable, Self::Connection, Self::Placement, Self::LastResort];

    /// Returns the reason of this word; `None`: there is none.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }

    /// Returns the word for logs and `explain`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::StickTable => "stick_table",
            Self::Connection => "connection",
            Self::Placement => "placement",
            Self::LastResort => "last_resort",
        }
    }
}

/// Why a client that was known at one backend got another.
///
/// A break is a client that gets another backend than the one it had, and nothing else: a cookie that is worth nothing
/// is counted by its verdict, see [`CookieVerdict`](crate::sticky::cookie::CookieVerdict). Only a client that is still
/// known is counted: a client with an entry that was evicted is placed as a new one, and a cookie that no key opens
/// says nothing about a backend. Clients known by a cookie are counted per request: a client that sends the same old
/// cookie again, although it received a new one, is counted again, because it cannot be told from another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakCause {
    /// The client's backend is down, ejected, or could not be connected.
    Down,
    /// The client's backend was drained.
    Drain,
    /// The client's backend has left the pool, before or after a restart, or its pool has another name now.
    Removed,
    /// The client's named range no longer allows that backend.
    Range,
    /// The list of backends has changed, and `on_add = "move"`.
    Moved,
    /// The backend that the client once had to leave is back, and `on_return = "return"`.
    Returned,
    /// The client's backend has `max_connections`.
    Full,
    /// The client's cookie names another backend, and was too old to count.
    Expired,
}

/// A client that got another backend than the one it had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMove {
    /// Name of the backend that the client had; `None`: it is not known any more.
    pub from: Option<Arc<str>>,
    /// Why the client did not keep it.
    pub cause: BreakCause,
}

impl BreakCause {
    /// Every cause, in the order of its number.
    pub const ALL: [Self; 8] =
        [Self::Down, Self::Drain, Self::Removed, Self::Range, Self::Moved, Self::Returned, Self::Full, Self::Expired];

    /// Returns the cause of this word; `None`: there is none.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// Returns the word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Removed => "removed",
            Self::Range => "range",
            Self::Moved => "moved",
            Self::Returned => "returned",
            Self::Full => "full",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_ending_has_its_own_word_and_place() {
        let words: HashSet<_> = Ended::ALL.iter().map(|ended| ended.word()).collect();
        assert_eq!(words.len(), Ended::COUNT);
        for (index, ended) in Ended::ALL.iter().enumerate() {
            assert_eq!(*ended as usize, index);
            assert!(ended.meaning().ends_with('.'), "{}", ended.word());
        }
    }
}
