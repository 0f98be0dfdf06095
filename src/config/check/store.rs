//! `[store]`: the shared store of learned cookies.
//!
//! Opens no file. Invariant: no problem shows what a password is, or a URL that holds one.

use std::time::Duration;

use toml::de::DeValue;

use super::Bad;
use crate::config::file::Section;
use crate::config::store::{Hidden, StoreAddress, StoreConfig, StorePlace};
use crate::config::value::{self, MILLISECOND, SECOND, ValueResult};
use crate::config::{CookieMode, Pool, keys};

/// A shorter budget is over before any answer can be there.
const BUDGET_LEAST: Duration = Duration::from_micros(100);
/// The highest number of a database.
const DATABASE_MAX: u64 = 65_535;
/// What stands before a port.
const HINT: &str = "\"redis://HOST:6379\", \"rediss://HOST:6379\" (TLS) or \"unix:/run/redis.sock\"";

/// One server, as written.
#[derive(Clone, PartialEq, Eq, Hash)]
enum WrittenServer {
    Server {
        address: StoreAddress,
        tls: bool,
    },
    /// Not to be shown.
    WithPassword,
}

/// Reads `[store]`; `None` = there is none.
pub(super) fn store(top: &Section<'_>) -> Option<StoreConfig> {
    if !top.has("store") {
        return None;
    }
    let section = top.child_unless_off("store", &keys::STORE)?;
    section.required("kind", value::word(&[("redis", ())]));
    let (place, tls) = place(&section);
    let ca = section.read("ca", value::file);
    match (tls, &ca) {
        (Some(true), None) if !section.has("ca") => {
            let hint = "the bundle of the system is /etc/ssl/certs/ca-certificates.crt on Debian";
            section.error_at(section.start, Bad::new("has no ca: whom TLS shall believe").hint(hint));
        }
        (Some(false), _) => section.idle_keys(&["ca"], "without rediss://, which says that TLS is spoken"),
        _ => {}
    }
    let (user, password, password_file) = credentials(&section);
    Some(StoreConfig {
        place: place.unwrap_or_else(|| StorePlace::One(StoreAddress::Unix("/".into()))),
        ca: ca.filter(|_| tls == Some(true)),
        user,
        password,
        password_file,
        database: section.read("database", value::integer(0..=DATABASE_MAX)).unwrap_or(0),
        budget: section.read("budget", value::duration(BUDGET_LEAST, SECOND)).unwrap_or(2 * MILLISECOND),
        prefix: section.read("prefix", prefix).unwrap_or_else(|| "sessile:".to_owned()),
        secret_file: section.read("secret_file", value::file),
    })
}

/// Only learned cookies are kept there.
pub(super) fn has_use<'p>(top: &Section<'_>, store: Option<&StoreConfig>, mut pools: impl Iterator<Item = &'p Pool>) {
    let learns = |pool: &Pool| matches!(&pool.cookie, Some(cookie) if matches!(cookie.mode, CookieMode::Learn { .. }));
    if store.is_some() && !pools.any(learns) {
        top.warn("store", Bad::new("[store] has no use: no pool has [pool.cookie] with mode = \"learn\""));
    }
}

/// Where it is, and whether TLS is spoken there.
fn place(section: &Section<'_>) -> (Option<StorePlace>, Option<bool>) {
    let one = section.read("url", server).and_then(|written| server_of(section, section.at("url"), "url", written));
    let listed = section.list("sentinels", server).into_iter();
    let sentinels: Vec<_> = listed
        .filter_map(|(at, written)| server_of(section, at, "sentinels", written).map(|server| (at, server)))
        .collect();
    let master = section.read("master", |value| match value::text(value)? {
        "" => Err(Bad::new("is not the name of a primary")),
        name => Ok(name.to_owned()),
    });
    if !section.has("sentinels") {
        section.idle_keys(&["master"], "without sentinels");
        if !section.has("url") {
            section.missing("has neither url nor sentinels");
        }
        let tls = one.as_ref().map(|(_, tls)| *tls);
        return (one.map(|(address, _)| StorePlace::One(address)), tls);
    }
    if section.has("url") {
        section.error("url", Bad::new("url and sentinels are both there: one of them has no use"));
    }
    if section.count("sentinels") == 0 {
        section.error("sentinels", Bad::new("sentinels is empty: nobody knows where the primary is"));
    }
    if !section.has("master") {
        section.missing("has no master: the name under which the sentinels know the primary");
    }
    let tls = sentinels.first().map(|(_, (_, tls))| *tls);
    for (at, _) in sentinels.iter().filter(|(_, (_, other))| Some(*other) != tls) {
        section.error_at(*at, Bad::new("sentinels are spoken to with TLS, or without, but not with both"));
    }
    let sentinels = sentinels.into_iter().map(|(_, (address, _))| address).collect();
    (master.map(|master| StorePlace::Sentinels { sentinels, master }), tls)
}

fn server_of(
    section: &Section<'_>,
    at: usize,
    key: &'static str,
    written: WrittenServer,
) -> Option<(StoreAddress, bool)> {
    match written {
        WrittenServer::Server { address, tls } => Some((address, tls)),
        WrittenServer::WithPassword => {
            let why = format!("{key} holds a user or a password");
            section.error_at(at, Bad::new(why).hint("write user, and password or password_file"));
            None
        }
    }
}

fn credentials(section: &Section<'_>) -> (Option<String>, Option<Hidden>, Option<std::path::PathBuf>) {
    let user = section.read("user", |value| match value::text(value)? {
        "" => Err(Bad::new("is not a user")),
        name => Ok(name.to_owned()),
    });
    let password = section.read("password", |value| value::text(value).map(|text| Hidden(text.to_owned())));
    let password_file = section.read("password_file", value::file);
    if section.has("password") && section.has("password_file") {
        section.error("password_file", Bad::new("password and password_file are both there: one of them has no use"));
    }
    if section.has("user") && !section.has("password") && !section.has("password_file") {
        section.error("user", Bad::new("user needs password or password_file"));
    }
    (user, password, password_file)
}

/// `redis://HOST:PORT`, `rediss://HOST:PORT`, `unix:/PATH`.
fn server(value: &DeValue<'_>) -> ValueResult<WrittenServer> {
    let written = value::text(value)?;
    if written.contains('@') {
        return Ok(WrittenServer::WithPassword);
    }
    if let Some(path) = written.strip_prefix("unix:") {
        return Ok(WrittenServer::Server { address: StoreAddress::Unix(value::unix_path(path)?), tls: false });
    }
    let bad = || Bad::new("is not where a store can be").hint(HINT);
    let (scheme, rest) = written.split_once("://").ok_or_else(bad)?;
    let tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(bad()),
    };
    let (host, port) = value::host_and_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(bad)?;
    Ok(WrittenServer::Server { address: StoreAddress::Tcp(host, port), tls })
}

fn prefix(value: &DeValue<'_>) -> ValueResult<String> {
    const LONGEST: usize = 64;
    let written = value::text(value)?;
    let good = (1..=LONGEST).contains(&written.len()) && written.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a prefix of 1 to 64 visible characters"))
}
