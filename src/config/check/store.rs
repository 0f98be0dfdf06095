//! Reads `[store]`: what instances share.
//!
//! Opens no file and no connection. Invariant: no error message shows a password, or a URL that contains one.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::Bad;
use crate::config::file::Section;
use crate::config::store::{Hidden, Share, StoreAddress, StoreConfig, StorePlace};
use crate::config::value::{self, MILLISECOND, SECOND, ValueResult};
use crate::config::{CookieMode, Pool, keys};

/// Shortest budget: no reply can arrive earlier.
const BUDGET_MIN: Duration = Duration::from_micros(100);
/// Highest number of a database.
const DATABASE_MAX: u64 = 65_535;
/// Hint for a malformed URL.
const URL_HINT: &str = "\"redis://HOST:6379\", \"rediss://HOST:6379\" (TLS) or \"unix:/run/redis.sock\"";

/// Address of one server, as read from a URL.
#[derive(Clone, PartialEq, Eq, Hash)]
enum ServerUrl {
    Server {
        address: StoreAddress,
        tls: bool,
    },
    /// A URL with a user or password, which no message may show.
    WithPassword,
}

/// Reads `[store]`; `None`: the file has none, or it is "off".
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
            section.error_at(
                section.start,
                Bad::new("has no ca, which rediss:// needs: the authorities for the store's certificate").hint(hint),
            );
        }
        (Some(false), _) => section.idle_keys(&["ca"], "without rediss://, which turns TLS on"),
        _ => {}
    }
    let (user, password, password_file) = credentials(&section);
    Some(StoreConfig {
        place: place.unwrap_or_else(|| StorePlace::One(StoreAddress::Unix("/".into()))),
        ca: ca.filter(|_| tls == Some(true)),
        user,
        password,
        password_file,
        database: database(&section),
        budget: section.read("budget", value::duration(BUDGET_MIN, SECOND)).unwrap_or(2 * MILLISECOND),
        prefix: section.read("prefix", prefix).unwrap_or_else(|| "sessile:".to_owned()),
        secret_file: section.read("secret_file", value::file),
        share: share(&section),
    })
}

/// Reads what is shared. Entries of stick tables are known by a hash that all instances have to make alike, and neither
/// they nor orders may come from a stranger.
fn share(section: &Section<'_>) -> Share {
    if !section.has("share") {
        return Share::default();
    }
    let known = [("cookies", "cookies"), ("displaced", "displaced"), ("orders", "orders")];
    let words = section.values("share", value::word(&known));
    if section.count("share") == 0 {
        section.error("share", Bad::new("share is empty: store = \"off\" shares nothing"));
    }
    let [cookies, displaced, orders] = known.map(|(_, word)| words.contains(&word));
    let signed = [("displaced", displaced), ("orders", orders)].into_iter().find(|(_, is_shared)| *is_shared);
    if let Some((word, _)) = signed.filter(|_| !section.has("secret_file")) {
        let hint = "\"openssl rand -hex 32\" writes one; it is the same on all instances";
        section.error("share", Bad::new(format!("share with {word:?} needs secret_file")).hint(hint));
    }
    Share { cookies, displaced, orders }
}

/// Warns of what is shared although no pool has it.
pub(super) fn check_use<'p>(
    top: &Section<'_>,
    store: Option<&StoreConfig>,
    mut pools: impl Iterator<Item = &'p Pool> + Clone,
) {
    let learns = |pool: &Pool| matches!(&pool.cookie, Some(cookie) if matches!(cookie.mode, CookieMode::Learn { .. }));
    let Some(Share { cookies, displaced, orders }) = store.map(|store| store.share) else { return };
    let (learn, remember) = (pools.clone().any(learns), pools.any(|pool| pool.stick_table.is_some()));
    let is_used = learn || displaced && remember || orders;
    if cookies && !is_used {
        top.warn("store", Bad::new("[store] has no effect: no pool has [pool.cookie] with mode = \"learn\""));
    }
    if displaced && !remember {
        top.warn("store", Bad::new("[store] share = \"displaced\" has no effect: no pool has a stick table"));
    }
}

/// Reads the address of the store, or of its sentinels or nodes, and whether connections use TLS; `None`: unreadable.
fn place(section: &Section<'_>) -> (Option<StorePlace>, Option<bool>) {
    let one = section.read("url", server).and_then(|url| server_of(section, section.at("url"), "url", url));
    let (sentinels, sentinels_tls) = servers(section, "sentinels", "to find the primary");
    let (nodes, nodes_tls) = servers(section, "cluster", "to find the others");
    let master = section.read("master", |value| match value::text(value)? {
        "" => Err(Bad::new("is not the name of a primary")),
        name => Ok(name.to_owned()),
    });
    let written: Vec<_> = ["url", "sentinels", "cluster"].into_iter().filter(|&key| section.has(key)).collect();
    if let [first, others @ ..] = &written[..] {
        for other in others {
            let why = format!("{first} and {other} exclude each other: write one of them");
            section.error(if *first == "url" { first } else { other }, Bad::new(why));
        }
    } else {
        section.missing("has none of url, sentinels and cluster");
    }
    if section.has("sentinels") {
        if !section.has("master") {
            section.missing("has no master: the name under which the sentinels know the primary");
        }
        return (master.map(|master| StorePlace::Sentinels { sentinels, master }), sentinels_tls);
    }
    section.idle_keys(&["master"], "without sentinels");
    if section.has("cluster") {
        return (Some(StorePlace::Cluster(nodes)), nodes_tls);
    }
    let tls = one.as_ref().map(|(_, tls)| *tls);
    (one.map(|(address, _)| StorePlace::One(address)), tls)
}

/// Reads several servers, and whether they use TLS, which all do or none.
fn servers(section: &Section<'_>, key: &'static str, why: &str) -> (Vec<StoreAddress>, Option<bool>) {
    let listed = section.list(key, server).into_iter();
    let servers: Vec<_> =
        listed.filter_map(|(at, url)| server_of(section, at, key, url).map(|server| (at, server))).collect();
    if section.has(key) && section.count(key) == 0 {
        section.error(key, Bad::new(format!("{key} is empty: at least one is needed {why}")));
    }
    let words = if key == "cluster" { "nodes of cluster" } else { key };
    let tls = servers.first().map(|(_, (_, tls))| *tls);
    for (at, (address, other)) in &servers {
        if Some(*other) != tls {
            section.error_at(*at, Bad::new(format!("either all {words} use TLS, or none of them")));
        }
        if key == "cluster" && matches!(address, StoreAddress::Unix(_)) {
            section.error_at(*at, Bad::new("a node of a cluster has a host and a port, no unix socket"));
        }
    }
    (servers.into_iter().map(|(_, (address, _))| address).collect(), tls)
}

/// Reads the number of the database.
fn database(section: &Section<'_>) -> u32 {
    let database = section.read("database", value::integer(0..=DATABASE_MAX)).unwrap_or(0);
    if section.has("cluster") && database != 0 {
        section.error("database", Bad::new(format!("database {database} is none of a cluster, which has only 0")));
    }
    database
}

fn server_of(section: &Section<'_>, at: usize, key: &'static str, url: ServerUrl) -> Option<(StoreAddress, bool)> {
    match url {
        ServerUrl::Server { address, tls } => Some((address, tls)),
        ServerUrl::WithPassword => {
            let why = format!("{key} holds a user or a password");
            section.error_at(at, Bad::new(why).hint("write user, and password or password_file"));
            None
        }
    }
}

fn credentials(section: &Section<'_>) -> (Option<String>, Option<Hidden>, Option<PathBuf>) {
    let user = section.read("user", |value| match value::text(value)? {
        "" => Err(Bad::new("is not a user")),
        name => Ok(name.to_owned()),
    });
    let password = section.read("password", |value| value::text(value).map(|text| Hidden(text.to_owned())));
    let password_file = section.read("password_file", value::file);
    if section.has("password") && section.has("password_file") {
        section.error("password_file", Bad::new("password and password_file exclude each other: write one of them"));
    }
    if section.has("user") && !section.has("password") && !section.has("password_file") {
        section.error("user", Bad::new("user needs password or password_file"));
    }
    (user, password, password_file)
}

/// Reads `redis://HOST:PORT`, `rediss://HOST:PORT` (TLS) or `unix:/PATH`.
fn server(value: &DeValue<'_>) -> ValueResult<ServerUrl> {
    let written = value::text(value)?;
    if written.contains('@') {
        return Ok(ServerUrl::WithPassword);
    }
    if let Some(path) = written.strip_prefix("unix:") {
        return Ok(ServerUrl::Server { address: StoreAddress::Unix(value::unix_path(path)?), tls: false });
    }
    let bad = || Bad::new("is not the address of a store").hint(URL_HINT);
    let (scheme, rest) = written.split_once("://").ok_or_else(bad)?;
    let tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(bad()),
    };
    let (host, port) = value::host_and_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(bad)?;
    Ok(ServerUrl::Server { address: StoreAddress::Tcp(host, port), tls })
}

fn prefix(value: &DeValue<'_>) -> ValueResult<String> {
    const LONGEST: usize = 64;
    let written = value::text(value)?;
    let good = (1..=LONGEST).contains(&written.len()) && written.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a prefix of 1 to 64 visible characters"))
}
