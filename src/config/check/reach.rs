//! Checks that each pool can use the bytes that listeners send to it.
//!
//! A pool with `http = true` or `[pool.tls]` needs decrypted bytes, which passthrough does not have. The ALPN condition
//! of a terminated route must name a protocol that its pool offers. Whether names exist is checked in `whole.rs`.
//!
//! Invariant: in a configuration without errors no pool receives bytes that it cannot read.

use std::collections::{HashMap, HashSet};

use super::Bad;
use super::listener::{ParsedListener as Listener, PoolUse};
use super::pool::ParsedPool as Pool;
use crate::config::file::Section;
use crate::config::{self, Tls};

/// The ALPN protocols in front of a pool with `http = true`; the first one needs `http2 = true`.
const HTTP: [&str; 3] = ["h2", "http/1.1", "http/1.0"];

/// Checks every place where a listener names a pool.
pub(super) fn check(top: &Section<'_>, listeners: &[Listener<'_>], pools: &[Pool<'_>]) {
    let by_name: HashMap<&str, &config::Pool> =
        pools.iter().map(|pool| (pool.config.name.as_str(), &pool.config)).collect();
    let pool_of = |use_: &PoolUse<'_>| by_name.get(use_.pool).copied();
    for listener in listeners {
        for use_ in listener.pool_uses() {
            if let Some(pool) = pool_of(&use_) {
                can_read(&use_, pool, use_.split.and_then(|split| listener.split(split)));
                alpn_is_offered(&use_, pool);
            }
        }
        let is_http = |use_: &PoolUse<'_>| pool_of(use_).is_some_and(|pool| pool.http.is_read());
        let reads_http = listener.config.routes_requests() || listener.pool_uses().any(|use_| is_http(&use_));
        warn_idle_keys(listener, reads_http);
        requests_come(listener, is_http);
        warn_idle_http2(listener, is_http);
    }
    let uses = listeners.iter().flat_map(Listener::pool_uses);
    let terminated: HashSet<&str> = uses.filter(|use_| use_.tls == Tls::Terminate).map(|use_| use_.pool).collect();
    for pool in pools {
        check_alpn(pool, terminated.contains(pool.config.name.as_str()));
    }
    if !listeners.iter().any(Listener::terminates) && top.has("tls") {
        let section = top.child("tls", &config::keys::TLS);
        section.idle_keys(&["ticket_keys", "min_version"], "because no listener terminates TLS");
    }
}

/// `split`: the one by which the listener names the pool.
fn can_read(use_: &PoolUse<'_>, pool: &config::Pool, split: Option<&config::Split>) {
    let (key, http) = (use_.key, pool.http.word());
    let name = match split {
        None => format!("{key} \"{}\"", use_.pool),
        // That its pools read requests is checked with the split.
        Some(split) if split.key().is_none() => {
            if use_.tls == Tls::Passthrough && split.pools().next() == Some(use_.pool) {
                let bad = Bad::new("split places requests, and those inside passthrough TLS cannot be read");
                use_.section.error(key, bad.hint("write tls = \"terminate\" here, or a key in the split"));
            }
            return;
        }
        Some(split) => format!("pool \"{}\" of split \"{}\"", use_.pool, split.name),
    };
    if use_.silent && pool.http.is_read() {
        let why = format!("{name} has http = {http}: its backends also wait for the client to send first");
        use_.section.error(key, Bad::new(why));
    }
    if use_.requests && !pool.http.is_read() {
        let why = format!("{name} does not have http = true, and this route sends it single requests");
        use_.section.error(key, Bad::new(why).hint("write http = true in the pool"));
    }
    if use_.tls != Tls::Passthrough {
        return;
    }
    if pool.http.is_read() {
        let why = format!("{name} has http = {http}, and requests inside passthrough TLS cannot be read");
        use_.section.error(key, Bad::new(why).hint("write tls = \"terminate\" here, or http = false in the pool"));
    } else if pool.tls.is_some() {
        let why = format!("{name} has [pool.tls], and passthrough bytes are already TLS");
        use_.section.error(key, Bad::new(why).hint("write tls = \"terminate\" here, or delete the pool's tls"));
    }
}

/// Reports an ALPN condition that the pool does not offer: the handshake of such a client would fail.
fn alpn_is_offered(use_: &PoolUse<'_>, pool: &config::Pool) {
    if use_.tls != Tls::Terminate || use_.requests {
        return;
    }
    let offered: Vec<&str> = match (pool.http.is_read(), use_.http2) {
        (true, true) => HTTP.to_vec(),
        (true, false) => HTTP[1..].to_vec(),
        (false, _) => pool.alpn.iter().map(String::as_str).collect(),
    };
    // A pool without `alpn` negotiates no protocol, and the handshake succeeds.
    for wanted in use_.alpn.iter().filter(|wanted| !offered.is_empty() && !offered.contains(&wanted.as_str())) {
        let why = format!("alpn \"{wanted}\" is not offered by pool \"{}\", which offers only", pool.name);
        let bad = Bad::new(format!("{why} \"{}\"", offered.join("\", \"")));
        let by_http2 = pool.http.is_read() && wanted == HTTP[0];
        let bad = if by_http2 { bad.hint("write http2 = true here, or delete the condition") } else { bad };
        use_.section.error("alpn", bad);
    }
}

/// Reports routes about requests of a listener on which no connection is read as HTTP.
fn requests_come(listener: &Listener<'_>, is_http: impl Fn(&PoolUse<'_>) -> bool) {
    let config = &listener.config;
    let answers = config.routes.iter().any(|route| !route.is_of_requests() && route.answers());
    let comes = |use_: PoolUse<'_>| !use_.requests && is_http(&use_);
    if answers || config.takes_requests_alone() || listener.pool_uses().any(comes) {
        return;
    }
    let routes = listener.routes.iter().zip(&config.routes).filter(|(_, route)| route.is_of_requests());
    for (section, _) in routes {
        let bad = Bad::new("no connection of this listener is read as HTTP, so no request comes to this route");
        section.error_at(section.start, bad.hint("write http = true in the listener's pool, or end TLS here"));
    }
}

/// Warns of keys of a listener that have no effect.
fn warn_idle_keys(listener: &Listener<'_>, reaches_http: bool) {
    let section = &listener.section;
    if !reaches_http {
        let idle = ["forwarded", "client_tls", "request_id", "error_page"];
        section.idle_keys(&idle, "because no pool it names has http = true");
    } else if listener.config.tls != Tls::Off {
        section
            .idle_keys(&["client_tls"], "because tls is not \"off\": the listener itself sees which clients use TLS");
    }
    if !listener.terminates() {
        section.idle_keys(&["certificate"], "because no route of this listener terminates TLS");
    }
}

/// Warns of `http2` where no HTTP is read: on a route, and on a listener for all pools for which its word counts.
fn warn_idle_http2(listener: &Listener<'_>, is_http: impl Fn(&PoolUse<'_>) -> bool) {
    let section = &listener.section;
    let (own, routes): (Vec<_>, Vec<_>) =
        listener.pool_uses().partition(|use_| std::ptr::eq(use_.section, section) || !use_.section.has("http2"));
    for route in routes.iter().filter(|route| !route.requests && !is_http(route)) {
        route.section.idle_keys(&["http2"], "because its pool does not have http = true");
    }
    if listener.config.routes_requests() || own.iter().any(&is_http) {
        return;
    }
    let why = match routes.iter().any(is_http) {
        true => "because each route to a pool with http = true has a word of its own",
        false => "because no pool it names has http = true",
    };
    section.idle_keys(&["http2"], why);
}

fn check_alpn(pool: &Pool<'_>, is_terminated: bool) {
    if pool.config.alpn.is_empty() {
        return;
    }
    if pool.config.http.is_read() {
        pool.section.error(
            "alpn",
            Bad::new(format!(
                "alpn cannot be set with http = {}: such a pool offers only \"{}\"",
                pool.config.http.word(),
                HTTP.join("\", \"")
            ))
            .hint("http2 = false in a listener or route leaves \"h2\" out"),
        );
    } else if !is_terminated {
        pool.section.idle_keys(&["alpn"], "because no route that terminates TLS names this pool");
    }
}
