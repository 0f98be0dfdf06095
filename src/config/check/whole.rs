//! Checks rules between objects: names that must exist or differ, addresses used twice, keys without a value.
//!
//! Reads no value of the file. Invariant: runs after all tables are read, and only on a text without syntax errors.

use std::collections::{HashMap, HashSet};

use super::listener::ParsedListener as Listener;
use super::pool::{ParsedPool as Pool, unique_names};
use super::{Bad, group};
use crate::config::file::Section;
use crate::config::{Bind, KeyPart, Process, Route, Tls, keys};

/// Checks listeners, pools and the admin interface together.
pub(super) fn check(top: &Section<'_>, process: &Process, listeners: &[Listener<'_>], pools: &[Pool<'_>]) {
    if !top.has("listener") || top.count("listener") == 0 {
        top.missing("the file has no [[listener]]");
    }
    unique_names(listeners.iter().map(|listener| (&listener.section, listener.config.name.as_str())));
    unique_names(pools.iter().map(|pool| (&pool.section, pool.config.name.as_str())));
    named_pools_exist(listeners, pools);
    group::check(pools);
    addresses_differ(process, listeners);
    let reaching = reaching(listeners);
    for pool in pools {
        match reaching.get(pool.config.name.as_str()) {
            None => pool.section.warn("name", Bad::new("no listener names this pool")),
            Some(reaching) => {
                let (name, key) = (pool.config.name.as_str(), &pool.config.key[..]);
                let asks = |listener: &Listener<'_>| may_know_certificate(listener, name);
                key_can_be_known((&pool.section, key), ("pool", name), asks, reaching);
            }
        }
        no_loop(pool, listeners);
    }
    for listener in listeners {
        hello_is_read(listener, pools);
    }
}

/// The listeners that name each pool, in the order of the file.
fn reaching<'l>(listeners: &'l [Listener<'_>]) -> HashMap<&'l str, Vec<&'l Listener<'l>>> {
    let mut reaching: HashMap<&str, Vec<&Listener<'_>>> = HashMap::new();
    for listener in listeners {
        for pool in listener.pools().map(|(_, _, pool)| pool).collect::<HashSet<_>>() {
            reaching.entry(pool).or_default().push(listener);
        }
    }
    reaching
}

fn named_pools_exist(listeners: &[Listener<'_>], pools: &[Pool<'_>]) {
    let names: HashSet<&str> = pools.iter().map(|pool| pool.config.name.as_str()).collect();
    // Pools of splits are reported where the split names them.
    for use_ in listeners.iter().flat_map(Listener::pool_uses).filter(|use_| use_.split.is_none()) {
        if !names.contains(use_.pool) {
            use_.section.error(use_.key, no_such_pool(use_.key, use_.pool, pools));
        }
    }
}

/// The error about a name that no pool has, with the nearest names.
pub(super) fn no_such_pool(key: &str, name: &str, pools: &[Pool<'_>]) -> Bad {
    let names = || pools.iter().map(|pool| pool.config.name.as_str());
    let hint = match keys::nearest(name, names()) {
        Some(near) => Some(format!("did you mean \"{near}\"?")),
        None => listed(names()),
    };
    Bad { hint, ..Bad::new(format!("{key} \"{name}\" is not the name of a pool")) }
}

/// The hint with the pools that there are; none if a list would be long or empty.
fn listed<'p>(names: impl Iterator<Item = &'p str>) -> Option<String> {
    const NAMES_MAX: usize = 5;
    let names: Vec<_> = names.map(|name| format!("\"{}\"", name.escape_debug())).collect();
    match names.len() {
        1 => Some(format!("the only pool is {}", names.concat())),
        2..=NAMES_MAX => Some(format!("the pools are {}", names.join(", "))),
        _ => None,
    }
}

/// Reports addresses that two listeners, or a listener and the admin interface, bind. Port 0 is a new port each time.
fn addresses_differ(process: &Process, listeners: &[Listener<'_>]) {
    let admin_socket = process.admin.socket.clone().map(Bind::Unix);
    let admin_http = process.admin.http.map(Bind::Tcp);
    let admin = [admin_socket, admin_http].into_iter().flatten().map(|bind| (bind, "the admin interface".to_owned()));
    let mut taken: HashMap<Bind, String> = admin.collect();
    for listener in listeners {
        for (bind, at) in listener.config.bind.iter().zip(&listener.binds) {
            if matches!(bind, Bind::Tcp(address) if address.port() == 0) {
                continue;
            }
            let here = format!("{}, in line {}", listener.section.object, listener.section.line(*at));
            if let Some(by) = taken.insert(bind.clone(), here) {
                listener.section.error_at(*at, Bad::new(format!("bind \"{bind}\" is taken by {by}")));
            }
        }
    }
}

/// Checks that each part of the key of a pool or split has a value on some listener that reaches it, the source on all of
/// them unless it is one of several that a client may have.
pub(super) fn key_can_be_known(
    (section, key): (&Section<'_>, &[KeyPart]),
    (what, name): (&str, &str),
    may_know_certificate: impl Fn(&Listener<'_>) -> bool,
    reaching: &[&Listener<'_>],
) {
    for part in key.iter().flat_map(KeyPart::alternatives) {
        let why = match part {
            KeyPart::Source => {
                if key.contains(part) {
                    source_is_known(what, name, reaching);
                }
                continue;
            }
            KeyPart::Sni if reaching.iter().all(|listener| listener.config.tls == Tls::Off) => {
                format!("key \"sni\" is never known: every listener that reaches this {what} has tls = \"off\"")
            }
            KeyPart::Tlv(_) if reaching.iter().all(|listener| listener.config.proxy.is_none()) => {
                format!("key \"tlv\" is never known: no listener that reaches this {what} has trust")
            }
            KeyPart::ClientCertificate if !reaching.iter().any(|listener| may_know_certificate(listener)) => {
                format!(
                    "key \"client_certificate\" is never known: no way to this {what} asks clients for certificates"
                )
            }
            _ => continue,
        };
        section.error("key", Bad::new(why));
    }
}

/// True if clients that reach the pool by this listener may have shown a certificate, here or to a proxy in front.
pub(super) fn may_know_certificate(listener: &Listener<'_>, pool: &str) -> bool {
    let config = &listener.config;
    let leads = |to: Option<&str>, split: Option<&str>| listener.led_to(to, split).any(|(_, name, _)| name == pool);
    let own = config.client_certificate.is_some() && leads(config.pool.as_deref(), config.split.as_deref());
    let asks = |route: &Route| route.client_certificate.is_some() && leads(route.pool(), route.split());
    config.proxy.is_some() || own || config.routes.iter().any(asks)
}

fn source_is_known(what: &str, name: &str, reaching: &[&Listener<'_>]) {
    for listener in reaching.iter().filter(|listener| listener.config.proxy.is_none()) {
        let unix = listener.config.bind.iter().zip(&listener.binds).find(|(bind, _)| matches!(bind, Bind::Unix(_)));
        if let Some((bind, at)) = unix {
            let hint = "trust = [\"unix\"] if its peers send PROXY headers, or another key";
            let why = format!(
                "bind \"{bind}\": clients of a unix socket have no address, but the key of {what} \"{name}\" needs one"
            );
            listener.section.error_at(*at, Bad::new(why).hint(hint));
        }
    }
}

/// Warns of backends that are a listener of this process.
fn no_loop(pool: &Pool<'_>, listeners: &[Listener<'_>]) {
    for (backend, section) in pool.config.backends.iter().zip(&pool.backends) {
        let own =
            |listener: &&Listener<'_>| listener.config.bind.iter().any(|bind| bind.is_reached_by(&backend.address));
        if let Some(listener) = listeners.iter().find(own) {
            let why = format!(
                "address \"{}\" is {} of this process: connections would loop",
                backend.address, listener.section.object
            );
            section.warn("address", Bad::new(why));
        }
    }
}

/// Warns of `not_tls` and `silent` on a listener that never waits for a ClientHello.
fn hello_is_read(listener: &Listener<'_>, pools: &[Pool<'_>]) {
    let by_sni: HashSet<&str> = pools
        .iter()
        .filter(|pool| pool.config.key.iter().any(|part| part.may_be(&KeyPart::Sni)))
        .map(|pool| pool.config.name.as_str())
        .collect();
    let reads = listener.config.routes.iter().any(|route| !route.sni.is_empty() || !route.alpn.is_empty())
        || listener.terminates()
        || listener.pools().any(|(_, _, pool)| by_sni.contains(pool));
    if listener.config.tls != Tls::Off && !reads {
        let why = "because no route has sni or alpn and no pool has sni in its key, so the ClientHello is not read";
        listener.section.idle_keys(&["not_tls", "silent"], why);
    }
}
