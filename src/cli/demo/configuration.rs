//! The configuration of the demo's balancer, as an operator would have written it.
//!
//! Listeners before the same backends, each with a pool of its own. Invariant: a listener and its
//! pool have the same name.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

/// Weighted rendezvous of the client's address.
pub(super) const HASH: &str = "hash";
/// A consistent ring of the client's address.
pub(super) const RING: &str = "ring";
/// Weighted rendezvous of the client's address, and what is remembered of it.
pub(super) const STICK_TABLE: &str = "stick-table";
/// In turn.
pub(super) const ROUND_ROBIN: &str = "round_robin";
/// All of them.
pub(super) const POOLS: [&str; 4] = [HASH, RING, STICK_TABLE, ROUND_ROBIN];

/// How a pool chooses.
fn method(pool: &str) -> &str {
    if pool == STICK_TABLE { HASH } else { pool }
}

/// The file, for an admin socket and the names and addresses of the backends.
pub(super) fn text(socket: &Path, backends: &[(&str, SocketAddr)]) -> String {
    let mut text = admin(socket);
    for name in POOLS {
        let alone =
            if [HASH, RING].contains(&name) { "stick_table = \"0\" # so that placement alone is seen\n" } else { "" };
        text.push_str(&service(name, &format!("balance = \"{}\"\n{alone}", method(name)), backends));
    }
    text
}

/// Where it is asked and told.
pub(super) fn admin(socket: &Path) -> String {
    format!("[admin]\nsocket = {}\n", toml::Value::from(&*socket.to_string_lossy()))
}

/// A listener on a free port, and its pool of these backends.
pub(super) fn service(name: &str, options: &str, backends: &[(&str, SocketAddr)]) -> String {
    let mut text = format!("\n[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n");
    // Writing to a String does not fail.
    let _ = write!(text, "\n[[pool]]\nname = \"{name}\"\n{options}");
    text.push_str("eject = \"off\" # so that checks alone say who is up\nbackend = [\n");
    for (backend, address) in backends {
        let _ = writeln!(text, "    {{ name = \"{backend}\", address = \"{address}\" }},");
    }
    text.push_str("]\n\n[pool.check]\nkind = \"http\"\npath = \"/healthz\"\n");
    text.push_str("interval = \"200ms\"\nrise = 1\nfall = 1\n");
    text.push_str(
        "timeout = \"5s\" # longer than the interval: a dead backend refuses at once, a busy one gets patience\n",
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
