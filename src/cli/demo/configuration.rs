//! [`text`]: the configuration file of the demo's balancer.
//!
//! Each listener has a pool of its own; all pools have the same backends. Starts nothing. Invariant: a listener and its
//! pool have the same name.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// Pool with weighted rendezvous over the client's address.
pub(super) const HASH: &str = "hash";
/// Pool with a consistent ring over the client's address.
pub(super) const RING: &str = "ring";
/// Pool with weighted rendezvous over the client's address, and a stick table.
pub(super) const STICK_TABLE: &str = "stick-table";
/// Pool with round robin, without a key.
pub(super) const ROUND_ROBIN: &str = "round_robin";
/// Names of all pools.
pub(super) const POOLS: [&str; 4] = [HASH, RING, STICK_TABLE, ROUND_ROBIN];

/// Balancing method of a pool.
fn method(pool: &str) -> &str {
    if pool == STICK_TABLE { HASH } else { pool }
}

/// The file for this admin socket and these backends, by name and address.
pub(super) fn text(socket: &Path, backends: &[(&str, SocketAddr)]) -> String {
    let mut text = admin(socket);
    for name in POOLS {
        let alone = if [HASH, RING].contains(&name) { "stick_table = \"0\" # to show placement alone\n" } else { "" };
        text.push_str(&service(name, &format!("balance = \"{}\"\n{alone}", method(name)), backends));
    }
    text
}

/// The table `[admin]` with this socket.
pub(super) fn admin(socket: &Path) -> String {
    format!("[admin]\nsocket = {}\n", toml::Value::from(&*socket.to_string_lossy()))
}

/// A listener on a free port, and its pool with these backends.
pub(super) fn service(name: &str, options: &str, backends: &[(&str, SocketAddr)]) -> String {
    let mut text = format!("\n[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n");
    // Writing to a String does not fail.
    let _ = write!(text, "\n[[pool]]\nname = \"{name}\"\n{options}");
    text.push_str("eject = \"off\" # only checks decide which backend is up\nbackend = [\n");
    for (backend, address) in backends {
        let _ = writeln!(text, "    {{ name = \"{backend}\", address = \"{address}\" }},");
    }
    text.push_str("]\n\n[pool.check]\nkind = \"http\"\npath = \"/healthz\"\n");
    text.push_str("interval = \"200ms\"\nrise = 1\nfall = 1\n");
    text.push_str(
        "timeout = \"5s\" # longer than the interval: a dead backend refuses at once, a busy one needs time\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_file_says_what_the_demo_needs() {
        let address: SocketAddr = "127.0.0.1:8001".parse().unwrap();
        let text = text(Path::new("/tmp/a \"quoted\" place/admin.sock"), &[("a", address), ("b", address)]);
        let checked = config::check(&text, &|_| Ok(Vec::new())).unwrap();
        let config = checked.config;
        assert_eq!(config.process.admin.socket.unwrap(), Path::new("/tmp/a \"quoted\" place/admin.sock"));
        let methods: Vec<_> = config.pools.iter().map(|pool| (pool.name.as_str(), pool.balance.word())).collect();
        assert_eq!(methods, POOLS.map(|name| (name, method(name))));
        assert!(config.pools.iter().all(|pool| pool.check.is_some() && pool.eject.is_none()));
    }
}
