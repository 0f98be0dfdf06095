//! [`Explainer`]: routes and pools of a configuration, and where they send one client.
//!
//! Builds the same route tables and pools that serve, and calls what connections call. Invariant: a mistake in the
//! arguments is found before the first client is explained.

use super::{Explain, ExplainReport, ExplainedClient};
use crate::cli::{CommandError, load};
use crate::clock;
use crate::config::{self, Config};
use crate::http::Progress;
use crate::http::head::RequestReader;
use crate::outcome::Ended;
use crate::plan::Explanation;
use crate::pool::Pool;
use crate::pool::request_cookie::{ReadCookie, cookies_of_key};
use crate::route::{RouteFacts, RouteTable};
use crate::server::cookie_keys;
use crate::server_name::ServerName;
use crate::snapshot::Rings;
use crate::sticky::Facts;
use crate::sticky::cookie::CookieVerdict;

/// Explains clients of one listener.
pub(super) struct Explainer<'a> {
    listener: &'a str,
    routes: RouteTable,
    pools: Vec<Pool>,
    /// Names of the backends that are down, by pool.
    down: Vec<Vec<String>>,
    sni: Option<ServerName>,
    alpn: Vec<u8>,
    tlvs: Vec<u8>,
    request: ExplainedHead,
}

/// Head of the request that every client sends.
struct ExplainedHead {
    bytes: Vec<u8>,
    reader: RequestReader,
}

impl<'a> Explainer<'a> {
    /// Builds the routes and pools of the configuration, for the clients that the arguments describe.
    pub(super) fn new(arguments: &Explain, config: &'a Config) -> Result<Self, CommandError> {
        let listener = find_listener(config, arguments.listener.as_deref())?;
        let index = |name: &str| config.pools.iter().position(|pool| pool.name == name).unwrap_or(usize::MAX);
        Ok(Self {
            listener: &listener.name,
            routes: RouteTable::new(&listener.routes, listener.pool.as_deref(), index),
            pools: pools(config, !(arguments.cookie.is_empty() && arguments.header.is_empty()))?,
            down: find_down(config, &arguments.down)?,
            sni: arguments.sni.as_deref().map(server_name).transpose()?,
            alpn: alpn(&arguments.alpn)?,
            tlvs: tlvs(&arguments.tlv)?,
            request: ExplainedHead::of(&arguments.cookie, &arguments.header)?,
        })
    }

    /// Server name of clients that name none.
    pub(super) fn sni(&self) -> Option<&ServerName> {
        self.sni.as_ref()
    }

    /// Routes the client and explains the pick of its pool.
    pub(super) fn explain(&self, client: &ExplainedClient) -> ExplainReport<'a> {
        let (source, sni) = (Some(client.source), client.sni.as_ref().map(ServerName::as_str));
        let pool = self.routes.find(&RouteFacts { sni, alpn: &self.alpn, source });
        let explanation = pool.map(|pool| {
            let (down, pool) = (&self.down[pool], &self.pools[pool]);
            let fields = self.request.reader.request(&self.request.bytes).fields;
            let cookie = ReadCookie::new(pool, fields, clock::unix_s(), clock::now() / 1_000);
            let cookies = cookies_of_key(pool, fields);
            let facts = Facts { source, sni, tlvs: &self.tlvs, cookies: &cookies };
            let explanation = Explanation::new(pool, &facts, cookie.backend(), down);
            (cookie.verdict.map(CookieVerdict::word), explanation)
        });
        let (cookie, explanation) = explanation.map_or((None, None), |(cookie, found)| (cookie, Some(found)));
        let refused = match &explanation {
            None => Some(Ended::NoRoute.word()),
            Some(explanation) => explanation.reason.is_none().then_some(Ended::NoBackend.word()),
        };
        let sni = sni.map(str::to_owned);
        ExplainReport { client: client.source, listener: self.listener, sni, cookie, refused, explanation }
    }
}

impl ExplainedHead {
    fn of(cookies: &[String], headers: &[String]) -> Result<Self, CommandError> {
        let mut head = "GET / HTTP/1.1\r\n".to_owned();
        for line in headers {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| CommandError::Usage(format!("--header {line:?} is not like Name: value")))?;
            head += &format!("{name}: {}\r\n", value.trim());
        }
        if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            head += "Host: localhost\r\n";
        }
        for cookie in cookies {
            head += &format!("Cookie: {cookie}\r\n");
        }
        head += "\r\n";
        let (mut reader, bytes) = (RequestReader::new(), head.into_bytes());
        match reader.read(&bytes) {
            Progress::Done(_) => Ok(Self { bytes, reader }),
            Progress::No(refused) => {
                Err(CommandError::Usage(format!("such a request is refused: {}", refused.meaning())))
            }
            Progress::More => Err(CommandError::Usage("such a request would not end".to_owned())),
        }
    }
}

/// Builds the pools. Files with cookie keys have to be readable only for clients with cookies.
fn pools(config: &Config, with_cookies: bool) -> Result<Vec<Pool>, CommandError> {
    let of_thread = config.clone();
    let rings = match load::in_time(move || cookie_keys(&of_thread))? {
        Ok(rings) => rings,
        Err(problems) if with_cookies => {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Err(CommandError::Usage(problems.join("; ")));
        }
        Err(_) => Rings::default(),
    };
    let pool = |pool: &config::Pool| Pool::new(pool, None, 1).with_cookie(rings.rule(pool));
    Ok(config.pools.iter().map(pool).collect())
}

fn find_listener<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a config::Listener, CommandError> {
    let names = || config.listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.listeners.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(CommandError::Usage(format!("--listener is needed; there are: {}", names()))),
        (Some(name), listeners) => listeners
            .iter()
            .find(|listener| listener.name == name)
            .ok_or_else(|| CommandError::Usage(format!("--listener {name}: no such listener; there are: {}", names()))),
    }
}

fn find_down(config: &Config, wanted: &[String]) -> Result<Vec<Vec<String>>, CommandError> {
    let mut down = vec![Vec::new(); config.pools.len()];
    for wanted in wanted {
        let (pool_name, name) = match wanted.split_once('/') {
            Some((pool, name)) => (Some(pool), name),
            None => (None, wanted.as_str()),
        };
        let mut found = false;
        for (pool, down) in config.pools.iter().zip(&mut down) {
            let here = pool_name.is_none_or(|wanted| wanted == pool.name);
            if here && pool.backends.iter().any(|backend| backend.name == name) {
                down.push(name.to_owned());
                found = true;
            }
        }
        if !found {
            return Err(CommandError::Usage(format!("--down {wanted}: no pool has such a backend")));
        }
    }
    Ok(down)
}

/// Encodes the names as a ClientHello does: length and name of each.
fn alpn(names: &[String]) -> Result<Vec<u8>, CommandError> {
    let mut list = Vec::new();
    for name in names {
        match u8::try_from(name.len()) {
            Ok(length @ 1..) => list.push(length),
            _ => return Err(CommandError::Usage(format!("--alpn {name:?} is not 1 to 255 bytes long"))),
        }
        list.extend_from_slice(name.as_bytes());
    }
    Ok(list)
}

/// Encodes TLVs as a PROXY header does: kind, length and value of each.
pub(super) fn tlvs(written: &[String]) -> Result<Vec<u8>, CommandError> {
    let mut list = Vec::new();
    for tlv in written {
        let (kind, value) = tlv
            .strip_prefix("0x")
            .and_then(|tlv| tlv.split_once('='))
            .and_then(|(kind, value)| Some((u8::from_str_radix(kind, 16).ok()?, value)))
            .ok_or_else(|| CommandError::Usage(format!("--tlv {tlv:?} is not like 0xE0=value")))?;
        let length = u16::try_from(value.len());
        let length = length.map_err(|_| CommandError::Usage(format!("--tlv 0x{kind:02x}: the value is too long")))?;
        list.push(kind);
        list.extend_from_slice(&length.to_be_bytes());
        list.extend_from_slice(value.as_bytes());
    }
    Ok(list)
}

/// Reads a server name.
pub(super) fn server_name(text: &str) -> Result<ServerName, CommandError> {
    ServerName::parse(text).ok_or_else(|| CommandError::Usage(format!("server name {text:?} is not a host name")))
}
