//! [`Cookie`]: the cookie that keeps a client at its backend, and the attributes of the balancer's own.
//!
//! Reads no cookie (`sticky::cookie` does) and no key file (`server` does). Invariant: times are whole seconds, as in
//! `Max-Age`; a cookie that browsers accept only with `Secure` never has it switched off.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::server_name::ServerName;

/// What the default name of the balancer's own cookie begins with; application cookies may not begin so.
const OWN_PREFIX: &str = "SESSILE-";

/// Default name of the balancer's own cookie. Ports do not separate cookies, so each pool has a name of its own; pools
/// of one `stick_group`, which understand each other's values, share the group's.
pub fn own_name(sticks_as: &str) -> String {
    format!("{OWN_PREFIX}{sticks_as}")
}

/// Name of the twin of the balancer's own cookie, see [`InsertRules::cross_site_twin`].
pub fn twin_name(name: &str) -> String {
    format!("{name}CORS")
}

/// True for a name that only a cookie of a balancer like this one has.
pub fn is_own_name(name: &str) -> bool {
    name == OWN_PREFIX.trim_end_matches('-') || name.starts_with(OWN_PREFIX)
}

/// One `[pool.cookie]`: the cookie that keeps a client at its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Name of the cookie, a token (RFC 6265 §4.1.1, RFC 9110 §5.6.2), or that of the header field which takes its place,
    /// in lower case.
    pub name: String,
    /// Owner of the cookie, and how its value names the backend.
    pub mode: CookieMode,
}

/// Owner of the cookie, and how its value names the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CookieMode {
    /// The balancer's own cookie, as with HAProxy's `insert indirect nocache` and AWSALB.
    Insert(InsertRules),
    /// An application cookie, or a header field in its place; the stick table stores the backend of each value, as nginx'
    /// `sticky learn` does.
    Learn {
        /// Time that a value is stored after its last use.
        remember: Duration,
        /// Where the value stands.
        carrier: Carrier,
    },
    /// An application cookie with the backend's name before the value, `backend~value`, as HAProxy's `prefix`.
    Prefix,
    /// An application cookie with the backend's name after the value, `value.backend`, as Tomcat's `jvmRoute`, or before
    /// it.
    Route(RouteRules),
    /// An application cookie with a value that is the placement key.
    Hash,
}

/// Where the value of an application stands that the stick table stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// In a cookie: `Set-Cookie` of a response, `Cookie` of requests.
    Cookie,
    /// In a header field of one name: that of a response sets the value, that of requests brings it.
    Header {
        /// A 404 ends the value that the request brought, as a successful DELETE does.
        end_on_404: bool,
    },
}

impl Cookie {
    /// Time without a request after which the cookie has no effect; `None`: no limit here.
    pub fn max_idle(&self) -> Option<Duration> {
        match &self.mode {
            CookieMode::Insert(insert) => Some(insert.max_idle),
            CookieMode::Learn { remember, .. } => Some(*remember),
            CookieMode::Prefix | CookieMode::Route(_) | CookieMode::Hash => None,
        }
    }

    /// Where requests have the value.
    pub fn carrier(&self) -> Carrier {
        match &self.mode {
            CookieMode::Learn { carrier, .. } => *carrier,
            _ => Carrier::Cookie,
        }
    }

    /// Names under which browsers keep it: its own and that of its twin; none of a header field.
    pub fn names_in_browsers(&self) -> impl Iterator<Item = String> {
        let own = (self.carrier() == Carrier::Cookie).then(|| self.name.clone());
        [own, self.twin()].into_iter().flatten()
    }

    /// Name of the twin of the balancer's own cookie; `None`: the cookie has none.
    pub fn twin(&self) -> Option<String> {
        match &self.mode {
            CookieMode::Insert(insert) => insert.cross_site_twin.then(|| twin_name(&self.name)),
            _ => None,
        }
    }

    /// The file of keys that is made if it is missing; `None`: the cookie has no keys, or the configuration names a file.
    pub fn made_keys(&self) -> Option<&Path> {
        match &self.mode {
            CookieMode::Insert(insert) if insert.makes_keys => Some(&insert.keys),
            _ => None,
        }
    }
}

impl CookieMode {
    /// Word of the mode in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Insert(_) => "insert",
            Self::Learn { .. } => "learn",
            Self::Prefix => "prefix",
            Self::Route(_) => "route",
            Self::Hash => "hash",
        }
    }
}

/// How a value of the application names its backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteRules {
    /// What stands between the backend's name and the application's part.
    pub separator: Separator,
    /// Where the backend's name stands.
    pub side: Side,
    /// Parameter of the path that has the value, too, for clients without cookies: `;NAME=value.backend`.
    pub path_parameter: Option<String>,
}

/// What stands between a backend's name and the application's part of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Separator {
    /// `.`, as Tomcat has it.
    #[default]
    Dot,
    /// `!`, as WebLogic has it.
    Mark,
    /// `-`.
    Dash,
}

impl Separator {
    /// The byte as which it is sent.
    pub fn byte(self) -> u8 {
        match self {
            Self::Dot => b'.',
            Self::Mark => b'!',
            Self::Dash => b'-',
        }
    }
}

/// Side of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Side {
    /// Behind the application's part.
    #[default]
    Suffix,
    /// Before the application's part.
    Prefix,
}

/// Attributes and keys of the balancer's own cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertRules {
    /// File with the keys that seal the value.
    pub keys: PathBuf,
    /// True: the configuration names no file, and this one is made if it is missing.
    pub makes_keys: bool,
    /// Time that a value is valid after it was last sent; requests renew it.
    pub max_idle: Duration,
    /// Time that a client may keep a cookie in all, with renewals; `None`: no limit.
    pub max_life: Option<Duration>,
    /// How long browsers keep the cookie.
    pub lifetime: CookieLifetime,
    /// Attribute `Domain`; `None`: the cookie belongs to the requested host only.
    pub domain: Option<ServerName>,
    /// Value of the attribute `Path`; `/` by default.
    pub path: String,
    /// When to send the attribute `Secure`.
    pub secure: Secure,
    /// Whether to send the attribute `HttpOnly`; on by default.
    pub http_only: bool,
    /// Value of the attribute `SameSite`; `Lax` by default.
    pub same_site: SameSite,
    /// Whether to send `Partitioned` (CHIPS), for a cookie per top-level site.
    pub partitioned: bool,
    /// Whether to send the value again in a twin with `SameSite=None` and `Secure`, to clients that use TLS.
    pub cross_site_twin: bool,
}

/// How long browsers keep the balancer's own cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieLifetime {
    /// `Max-Age`: as long as the value is valid.
    Idle,
    /// No `Max-Age`: while the browser runs.
    Session,
}

/// When a cookie has the attribute `Secure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secure {
    /// Only to clients that use TLS.
    Auto,
    /// Always, for a TLS decoder in front.
    On,
    /// Never, also to clients that use TLS.
    Off,
}

/// Value of the attribute `SameSite` (RFC 6265bis §5.5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Browsers send the cookie when a link leads to the site.
    Lax,
    /// Browsers send the cookie only from pages of the site.
    Strict,
    /// Browsers send the cookie from any page; needs `Secure`.
    None,
}
