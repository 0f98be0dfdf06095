//! [`EXAMPLES`]: the configuration files of `config/`, as they were when this program was built.
//!
//! Leaves out `reference.toml`, which lists keys and serves nothing. Invariant: no address has two names, and no
//! example listens at the port of a backend, so that one process has the backends of all of them.

/// Names and texts of the examples.
macro_rules! examples {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../config/", $name)))),+]
    };
}

/// Every example: its file name and its text.
pub(super) const EXAMPLES: &[(&str, &str)] = examples![
    "behind-decoder.toml",
    "behind-proxy.toml",
    "canary.toml",
    "ecmp-fleet.toml",
    "https.toml",
    "locations.toml",
    "named-ranges.toml",
    "ring-weights.toml",
    "round-robin.toml",
    "server-first.toml",
    "shared-store.toml",
    "stick-group.toml",
    "sticky-cookies.toml",
    "tcp-ip-hash.toml",
    "tls-passthrough-sni.toml",
    "unix-systemd.toml",
    "websocket.toml",
];
