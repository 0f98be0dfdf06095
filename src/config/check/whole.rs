//! Rules between objects: names that must exist or be unique, addresses used twice, keys that can never be known.
//!
//! Invariant: runs after everything was read, on a text whose syntax is whole.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::listener::WrittenListener as Listener;
use super::pool::{WrittenPool as Pool, unique_names};
use super::{Bad, group};
use crate::config::file::Section;
use crate::config::{Address, Bind, KeyPart, Process, Tls, keys};

/// Checks the whole configuration.
pub(super) fn check(top: &Section<'_>, process: &Process, listeners: &[Listener<'_>], pools: &[Pool<'_>]) {
    if !top.has("listener") || top.count("listener") == 0 {
        top.missing("the file has no [[listener]]");
    }
    unique_names(listeners.iter().map(|listener| (&listener.section, listener.meant.name.as_str())));
    unique_names(pools.iter().map(|pool| (&pool.section, pool.meant.name.as_str())));
    named_pools_exist(listeners, pools);
    group::check(pools);
    addresses_differ(process, listeners);
    for pool in pools {
        let reaching: Vec<_> =
            listeners.iter().filter(|listener| listener.pools().any(|(_, _, name)| name == pool.meant.name)).collect();
        if reaching.is_empty() {
            pool.section.warn("name", Bad::new("no listener names this pool"));
        } else {
            key_can_be_known(pool, &reaching);
        }
        no_loop(pool, listeners);
    }
    for listener in listeners {
        hello_is_read(listener, pools);
    }
}

fn named_pools_exist(listeners: &[Listener<'_>], pools: &[Pool<'_>]) {
    let names: HashSet<&str> = pools.iter().map(|pool| pool.meant.name.as_str()).collect();
    for (section, key, name) in listeners.iter().flat_map(Listener::pools) {
        if !names.contains(name) {
            let near = keys::nearest(name, names.iter().copied());
            let bad = Bad::new(format!("{key} \"{name}\" is not the name of a pool"));
            section.error(key, Bad { hint: near.map(|near| format!("did you mean \"{near}\"?")), ..bad });
        }
    }
}

/// No address is bound twice. Port 0 is another port each time.
fn addresses_differ(process: &Process, listeners: &[Listener<'_>]) {
    let admin_socket = process.admin.socket.clone().map(Bind::Unix);
    let admin_http = process.admin.http.map(Bind::Tcp);
    let admin = [admin_socket, admin_http].into_iter().flatten().map(|bind| (bind, "the admin interface".to_owned()));
    let mut taken: HashMap<Bind, String> = admin.collect();
    for listener in listeners {
        for (bind, at) in listener.meant.bind.iter().zip(&listener.binds) {
            if matches!(bind, Bind::Tcp(address) if address.port() == 0) {
                continue;
            }
            if let Some(by) = taken.insert(bind.clone(), listener.section.object.clone()) {
                listener.section.error_at(*at, Bad::new(format!("bind \"{bind}\" is taken by {by}")));
            }
        }
    }
}

/// Every part of a pool's key can be known on some listener that reaches it, and the source on all.
fn key_can_be_known(pool: &Pool<'_>, reaching: &[&Listener<'_>]) {
    let name = &pool.meant.name;
    for part in &pool.meant.key {
        let what = match part {
            KeyPart::Source => {
                source_is_known(name, reaching);
                continue;
            }
            KeyPart::Sni if reaching.iter().all(|listener| listener.meant.tls == Tls::Off) => {
                "key \"sni\" is never known: every listener that reaches this pool has tls = \"off\""
            }
            KeyPart::Tlv(_) if reaching.iter().all(|listener| listener.meant.proxy.is_none()) => {
                "key \"tlv\" is never known: no listener that reaches this pool has trust"
            }
            KeyPart::Sni | KeyPart::Tlv(_) | KeyPart::Cookie(_) => continue,
        };
        pool.section.error("key", Bad::new(what));
    }
}

fn source_is_known(pool: &str, reaching: &[&Listener<'_>]) {
    for listener in reaching.iter().filter(|listener| listener.meant.proxy.is_none()) {
        let unix = listener.meant.bind.iter().zip(&listener.binds).find(|(bind, _)| matches!(bind, Bind::Unix(_)));
        if let Some((bind, at)) = unix {
            let (bind, hint) = (bind, "trust = [\"unix\"] if its peers send PROXY headers, or another key");
            let why = format!(
                "bind \"{bind}\": clients of a unix socket have no address, and pool \"{pool}\" is keyed by it"
            );
            listener.section.error_at(*at, Bad::new(why).hint(hint));
        }
    }
}

/// Warns of backends that are ourselves.
fn no_loop(pool: &Pool<'_>, listeners: &[Listener<'_>]) {
    for (backend, section) in pool.meant.backends.iter().zip(&pool.backends) {
        let own = |listener: &&Listener<'_>| listener.meant.bind.iter().any(|bind| leads_to(&backend.address, bind));
        if let Some(listener) = listeners.iter().find(own) {
            let why = format!(
                "address \"{}\" is our own {}: connections would go round",
                backend.address, listener.section.object
            );
            section.warn("address", Bad::new(why));
        }
    }
}

fn leads_to(address: &Address, bind: &Bind) -> bool {
    match (address, bind) {
        (Address::Tcp(to), Bind::Tcp(at)) => {
            let same_family = to.is_ipv4() == at.is_ipv4();
            let any = at.ip().is_unspecified() && same_family && IpAddr::is_loopback(&to.ip());
            to.port() == at.port() && (to.ip() == at.ip() || any)
        }
        (Address::Unix(to), Bind::Unix(at)) => to == at,
        _ => false,
    }
}

/// Warns of words about the hello on a listener that never reads it.
fn hello_is_read(listener: &Listener<'_>, pools: &[Pool<'_>]) {
    let by_sni: HashSet<&str> = pools
        .iter()
        .filter(|pool| pool.meant.key.contains(&KeyPart::Sni))
        .map(|pool| pool.meant.name.as_str())
        .collect();
    let asks = listener.meant.routes.iter().any(|route| !route.sni.is_empty() || !route.alpn.is_empty())
        || listener.terminates()
        || listener.pools().any(|(_, _, pool)| by_sni.contains(pool));
    if listener.meant.tls != Tls::Off && !asks {
        let why = "because no route asks for sni or alpn and no pool is keyed by sni, so the hello is not waited for";
        listener.section.idle_keys(&["not_tls", "silent"], why);
    }
}
