//! What `[pool.cookie]` means: whose cookie keeps a client at its backend, and how the balancer's own is sent.
//!
//! Reads no cookie and no key file; `sticky::cookie` does the one, whoever loads the configuration the other.
//! Invariant: times are whole seconds, because cookies count in those; a cookie that browsers accept only with
//! `Secure` never has it switched off.

use std::path::PathBuf;
use std::time::Duration;

use crate::server_name::ServerName;

/// The name of the balancer's own cookie where none is written. No application cookie may have it.
pub const OWN_NAME: &str = "SESSILE";

/// The cookie that says where a client settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name, a token of RFC 9110 §5.6.2, as RFC 6265 §4.1.1 wants it.
    pub name: String,
    /// Whose cookie it is, and how it tells the backend.
    pub mode: CookieMode,
}

/// Whose cookie it is, and how it tells the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CookieMode {
    /// The balancer's own, as with HAProxy's `insert indirect nocache` and AWSALB.
    Insert(InsertRules),
    /// The application's; which value belongs to which backend is remembered, as with AWSALBAPP and nginx' `sticky learn`.
    Learn {
        /// How long after its last use a value is remembered.
        remember: Duration,
    },
    /// The application's, its value prefixed with the backend's name: `backend~value`, as with HAProxy's `prefix`.
    Prefix,
    /// The application's, whose value ends in the backend's name: `value.backend`, Tomcat's `jvmRoute`.
    Route,
    /// The application's; its value is the key that placement hashes.
    Hash,
}

impl Cookie {
    /// How long a client may be silent before this cookie is worth nothing; `None` = that is the application's affair.
    pub fn max_idle(&self) -> Option<Duration> {
        match &self.mode {
            CookieMode::Insert(insert) => Some(insert.max_idle),
            CookieMode::Learn { remember } => Some(*remember),
            CookieMode::Prefix | CookieMode::Route | CookieMode::Hash => None,
        }
    }
}

impl CookieMode {
    /// The word in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Insert(_) => "insert",
            Self::Learn { .. } => "learn",
            Self::Prefix => "prefix",
            Self::Route => "route",
            Self::Hash => "hash",
        }
    }
}

/// The balancer's own cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertRules {
    /// The file with the keys that seal it.
    pub keys: PathBuf,
    /// How long it is valid after it was last sent; a client that goes on asking keeps it.
    pub max_idle: Duration,
    /// How long it is valid in all, however busy the client; `None` = no limit.
    pub max_life: Option<Duration>,
    /// `Domain`; `None` = the host that was asked and no other.
    pub domain: Option<ServerName>,
    /// `Path`.
    pub path: String,
    /// `Secure`.
    pub secure: Secure,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Partitioned` (CHIPS): one cookie per top-level site.
    pub partitioned: bool,
}

/// When a cookie is `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// Where the client's side is TLS.
    Auto,
    /// Always, because somebody in front decodes.
    On,
    /// Never.
    Off,
}

/// `SameSite` (RFC 6265bis §5.5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Sent when the user follows a link here.
    Lax,
    /// Sent only from our own pages.
    Strict,
    /// Sent from anywhere; needs `Secure`.
    None,
}
