//! How pools are reached, and whether they can do anything with what reaches them.
//!
//! A pool with `http = true` or `[pool.tls]` needs its bytes in the clear; passthrough has none to give. What a
//! terminated route accepts by ALPN must be something its pool offers. Whether names exist is for `whole.rs`.
//!
//! Invariant: a configuration that passes never hands a pool bytes that it cannot read.

use std::collections::HashMap;

use super::Bad;
use super::listener::{PoolUse, WrittenListener as Listener};
use super::pool::WrittenPool as Pool;
use crate::config::file::Section;
use crate::config::{self, Tls};

/// The protocol that `http = true` offers.
const HTTP: &str = "http/1.1";

/// Checks every way from a listener to a pool.
pub(super) fn check(top: &Section<'_>, listeners: &[Listener<'_>], pools: &[Pool<'_>]) {
    let by_name: HashMap<&str, &config::Pool> =
        pools.iter().map(|pool| (pool.meant.name.as_str(), &pool.meant)).collect();
    let pool_of = |use_: &PoolUse<'_>| by_name.get(use_.pool).copied();
    for listener in listeners {
        for use_ in listener.pool_uses() {
            if let Some(pool) = pool_of(&use_) {
                can_read(&use_, pool);
                alpn_is_offered(&use_, pool);
            }
        }
        says_nothing_idle(listener, listener.pool_uses().any(|use_| pool_of(&use_).is_some_and(|pool| pool.http)));
    }
    for pool in pools {
        let mut pool_uses = listeners.iter().flat_map(Listener::pool_uses).filter(|use_| use_.pool == pool.meant.name);
        offers_itself(pool, pool_uses.any(|use_| use_.tls == Tls::Terminate));
    }
    if !listeners.iter().flat_map(Listener::pool_uses).any(|use_| use_.tls == Tls::Terminate) && top.has("tls") {
        let section = top.child("tls", &config::keys::TLS);
        section.idle_keys(&["ticket_keys", "min_version"], "because nothing is terminated");
    }
}

fn can_read(use_: &PoolUse<'_>, pool: &config::Pool) {
    let (key, name) = (use_.key, use_.pool);
    if use_.silent && pool.http {
        let why = format!("{key} \"{name}\" has http = true: its backends wait for the client, too");
        use_.section.error(key, Bad::new(why));
    }
    if use_.tls != Tls::Passthrough {
        return;
    }
    if pool.http {
        let why = format!("{key} \"{name}\" has http = true, and requests cannot be read in what is passed through");
        use_.section.error(key, Bad::new(why).hint("write tls = \"terminate\" here, or http = false in the pool"));
    } else if pool.tls.is_some() {
        let why = format!("{key} \"{name}\" has [pool.tls], and what is passed through is TLS already");
        use_.section.error(key, Bad::new(why).hint("write tls = \"terminate\" here, or delete the pool's tls"));
    }
}

/// A client that a route takes for the protocol it offers must not be refused for it.
fn alpn_is_offered(use_: &PoolUse<'_>, pool: &config::Pool) {
    if use_.tls != Tls::Terminate {
        return;
    }
    let offered: Vec<&str> = if pool.http { vec![HTTP] } else { pool.alpn.iter().map(String::as_str).collect() };
    // A pool that offers nothing refuses nobody.
    for wanted in use_.alpn.iter().filter(|wanted| !offered.is_empty() && !offered.contains(&wanted.as_str())) {
        let why = format!("alpn \"{wanted}\" is not offered by pool \"{}\", which offers only", pool.name);
        let bad = Bad::new(format!("{why} \"{}\"", offered.join("\", \"")));
        let bad = if pool.http { bad.hint("clients that offer h2 beside http/1.1 need no route") } else { bad };
        use_.section.error("alpn", bad);
    }
}

/// Warns of what a listener says to no effect.
fn says_nothing_idle(listener: &Listener<'_>, reaches_http: bool) {
    let (section, meant) = (&listener.section, &listener.meant);
    if !reaches_http {
        section.idle_keys(&["forwarded", "client_tls"], "because no pool it names has http = true");
    } else if meant.tls != Tls::Off {
        section.idle_keys(&["client_tls"], "where the listener sees for itself whether clients use TLS");
    }
    if !listener.terminates() {
        section.idle_keys(&["certificate"], "because nothing here is terminated");
    }
}

fn offers_itself(pool: &Pool<'_>, is_terminated: bool) {
    if pool.meant.alpn.is_empty() {
        return;
    }
    if pool.meant.http {
        pool.section.error("alpn", Bad::new(format!("alpn beside http = true: such a pool offers \"{HTTP}\" alone")));
    } else if !is_terminated {
        pool.section.idle_keys(&["alpn"], "because no route that terminates TLS names this pool");
    }
}
