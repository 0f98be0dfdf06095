//! [`TableKeys`]: every key that a configuration file may have, table by table.
//!
//! Values are read elsewhere. Invariant: a key is listed here exactly if `check` reads it
//! (`every_known_key_is_read_and_its_type_checked`), and `config/reference.toml` shows all of them.

mod nearest;

pub(super) use self::nearest::nearest;
use super::foreign;

/// The keys of one table.
#[derive(Debug)]
pub struct TableKeys {
    /// How the table is written: `[limits]`; empty for the top level.
    pub table: &'static str,
    /// All keys of the table.
    pub keys: &'static [&'static str],
}

/// Keys above the first table, and the names of the tables.
pub static TOP: TableKeys = TableKeys {
    table: "",
    keys: &[
        "workers",
        "cpu_affinity",
        "busy_poll",
        "bulk_memory",
        "watch",
        "stop_grace",
        "stop_deadline",
        "upgrade_deadline",
        "stick_table_file",
        "stick_table_interval",
        "admin",
        "log",
        "metrics",
        "tls",
        "limits",
        "store",
        "discovery",
        "listener",
        "pool",
        "split",
    ],
};
/// Keys of the admin interface.
pub static ADMIN: TableKeys =
    TableKeys { table: "[admin]", keys: &["socket", "mode", "group", "http", "allow", "clients", "names"] };
/// Keys of the log on standard output and standard error.
pub static LOG: TableKeys =
    TableKeys { table: "[log]", keys: &["format", "connections", "level", "output", "fields", "sample"] };
/// Keys of `/metrics`.
pub static METRICS: TableKeys = TableKeys { table: "[metrics]", keys: &["pools"] };
/// Keys for every TLS handshake.
pub static TLS: TableKeys = TableKeys { table: "[tls]", keys: &["ticket_keys", "min_version", "groups"] };
/// Keys for limits of every connection.
pub static LIMITS: TableKeys = TableKeys {
    table: "[limits]",
    keys: &[
        "max_connections",
        "max_connections_per_source",
        "connection_rate_per_source",
        "max_handshakes",
        "hello_timeout",
        "hello_max",
        "hello_memory",
        "http2_streams",
        "http2_backend_connections",
        "requests_max",
        "body_max",
        "body_rate_min",
        "body_time_max",
        "head_max",
        "fields_max",
        "request_rate",
        "request_burst",
        "request_key",
        "keepalive_timeout",
        "response_timeout",
        "body_timeout",
        "idle_timeout",
        "half_close_timeout",
        "lifetime",
        "keepalive",
        "keepalive_interval",
        "keepalive_count",
        "user_timeout",
    ],
};
/// Keys of the store that instances share.
pub static STORE: TableKeys = TableKeys {
    table: "[store]",
    keys: &[
        "kind",
        "url",
        "sentinels",
        "master",
        "cluster",
        "ca",
        "user",
        "password",
        "password_file",
        "database",
        "budget",
        "prefix",
        "secret_file",
        "share",
    ],
};
/// Keys of the name servers that are asked for backends.
pub static DISCOVERY: TableKeys = TableKeys { table: "[discovery]", keys: &["resolvers"] };
/// Keys with a secret value, which no message shows.
pub(super) static SECRET: [&str; 1] = ["password"];
/// Keys of a listener, an address that accepts clients.
pub static LISTENER: TableKeys = TableKeys {
    table: "[[listener]]",
    keys: &[
        "name",
        "bind",
        "mode",
        "group",
        "tls",
        "pool",
        "split",
        "max_connections",
        "limits",
        "backlog",
        "defer_accept",
        "trust",
        "untrusted",
        "not_tls",
        "silent",
        "unknown_names",
        "certificate",
        "client_certificate",
        "client_tls",
        "http2",
        "forwarded",
        "request_id",
        "route",
        "error_page",
    ],
};
/// Keys for timeouts of a listener's connections, and for limits of their requests.
pub static LISTENER_LIMITS: TableKeys = TableKeys {
    table: "[listener.limits]",
    keys: &[
        "hello_timeout",
        "keepalive_timeout",
        "response_timeout",
        "body_timeout",
        "idle_timeout",
        "half_close_timeout",
        "lifetime",
        "requests_max",
        "body_max",
        "body_rate_min",
        "body_time_max",
        "head_max",
        "fields_max",
        "request_rate",
        "request_burst",
        "request_key",
    ],
};
/// Keys of one certificate of a listener.
pub static CERTIFICATE: TableKeys = TableKeys { table: "[[listener.certificate]]", keys: &["cert", "key", "default"] };
/// Keys for certificates of a listener's clients.
pub static CLIENT_CERTIFICATE: TableKeys =
    TableKeys { table: "[listener.client_certificate]", keys: &["ca", "crl", "required"] };
/// Keys of a route, a rule of a listener.
pub static ROUTE: TableKeys = TableKeys {
    table: "[[listener.route]]",
    keys: &[
        "sni",
        "alpn",
        "source",
        "host",
        "path",
        "method",
        "header",
        "tls",
        "client_certificate",
        "http2",
        "pool",
        "split",
        "redirect",
        "respond",
    ],
};
/// Keys of a redirect to another place.
pub static REDIRECT: TableKeys = TableKeys { table: "[listener.route.redirect]", keys: &["to", "status"] };
/// Keys of an answer that is written in the file.
pub static RESPOND: TableKeys =
    TableKeys { table: "[listener.route.respond]", keys: &["status", "body", "body_file", "headers"] };
/// Statuses of replies that may have a page of their own.
pub static ERROR_PAGE: TableKeys = TableKeys {
    table: "[listener.error_page]",
    keys: &["400", "404", "408", "413", "414", "421", "429", "431", "501", "502", "503", "504", "505"],
};
/// Keys for certificates of a route's clients.
pub static ROUTE_CLIENT_CERTIFICATE: TableKeys =
    TableKeys { table: "[listener.route.client_certificate]", keys: &["ca", "crl", "required"] };
/// Keys of a pool, backends with one balancing rule.
pub static POOL: TableKeys = TableKeys {
    table: "[[pool]]",
    keys: &[
        "name",
        "http",
        "alpn",
        "tls",
        "balance",
        "key",
        "prefix_v4",
        "prefix_v6",
        "hash_seed",
        "stick_table",
        "stick_group",
        "remember",
        "on_add",
        "on_return",
        "on_down",
        "wait_max",
        "app_session_timeout",
        "load_bound",
        "on_full",
        "queue_max",
        "queue_timeout",
        "slow_start",
        "drain_deadline",
        "drain_over",
        "ring_points",
        "maglev_size",
        "all_down",
        "limits",
        "connect_timeout",
        "connect_budget",
        "sticky_retries",
        "source",
        "send_proxy",
        "send_proxy_tlvs",
        "on_marked_down",
        "backend",
        "resolve",
        "discover",
        "range",
        "check",
        "eject",
        "cookie",
        "request_headers",
        "response_headers",
    ],
};
/// Keys for timeouts of a pool's connections, and for limits of its requests.
pub static POOL_LIMITS: TableKeys = TableKeys {
    table: "[pool.limits]",
    keys: &[
        "response_timeout",
        "body_timeout",
        "idle_timeout",
        "half_close_timeout",
        "lifetime",
        "body_max",
        "body_rate_min",
        "body_time_max",
        "request_rate",
        "request_burst",
        "request_key",
    ],
};
/// Keys of one backend of a pool.
pub static BACKEND: TableKeys = TableKeys {
    table: "[[pool.backend]]",
    keys: &["name", "address", "weight", "state", "max_connections", "location", "backup"],
};
/// Keys for backends that a source names.
pub static DISCOVER: TableKeys = TableKeys {
    table: "[pool.discover]",
    keys: &["kind", "path", "name", "port", "identity", "vanish", "empty", "max_backends", "max_connections"],
};
/// Keys of a named range of client addresses.
pub static RANGE: TableKeys =
    TableKeys { table: "[[pool.range]]", keys: &["name", "cidr", "one", "prefix", "pin", "strict"] };
/// Keys for TLS to a pool's backends.
pub static POOL_TLS: TableKeys =
    TableKeys { table: "[pool.tls]", keys: &["verify", "ca", "pin", "sni", "cert", "key"] };
/// Keys of active health checks.
pub static CHECK: TableKeys = TableKeys {
    table: "[pool.check]",
    keys: &[
        "kind",
        "interval",
        "timeout",
        "rise",
        "fall",
        "flap_damping",
        "port",
        "agent",
        "sni",
        "method",
        "path",
        "host",
        "headers",
        "status",
        "send",
        "expect",
        "role",
        "user",
        "service",
    ],
};
/// Keys of passive ejection.
pub static EJECT: TableKeys = TableKeys { table: "[pool.eject]", keys: &["failures", "base", "max", "early_close"] };
/// Keys of the cookie that keeps a client at its backend.
pub static COOKIE: TableKeys = TableKeys {
    table: "[pool.cookie]",
    keys: &[
        "mode",
        "name",
        "header",
        "end_on_404",
        "keys",
        "max_idle",
        "max_life",
        "lifetime",
        "domain",
        "path",
        "secure",
        "http_only",
        "same_site",
        "partitioned",
        "cross_site_twin",
        "remember",
        "separator",
        "side",
        "path_parameter",
    ],
};

/// Keys for header fields of requests.
pub static REQUEST_HEADERS: TableKeys = TableKeys { table: "[pool.request_headers]", keys: &["set", "remove"] };
/// Keys for header fields of responses.
pub static RESPONSE_HEADERS: TableKeys = TableKeys { table: "[pool.response_headers]", keys: &["set", "remove"] };

/// Keys of a split, pools that share their new clients.
pub static SPLIT: TableKeys =
    TableKeys { table: "[[split]]", keys: &["name", "to", "key", "prefix_v4", "prefix_v6", "cookie"] };
/// Keys of one pool of a split.
pub static SPLIT_TO: TableKeys = TableKeys { table: "[[split.to]]", keys: &["pool", "weight"] };
/// Keys of the cookie that keeps a client at its pool.
pub static SPLIT_COOKIE: TableKeys = TableKeys { table: "[split.cookie]", keys: &INSERT };
/// Keys of a cookie of the balancer's own: its name, which other cookies have, too, and what only such a cookie has.
pub(super) const INSERT: [&str; 12] = [
    "name",
    "keys",
    "max_idle",
    "max_life",
    "lifetime",
    "domain",
    "path",
    "secure",
    "http_only",
    "same_site",
    "partitioned",
    "cross_site_twin",
];

/// Every table that a file may have.
pub static ALL: &[&TableKeys] = &[
    &TOP,
    &ADMIN,
    &LOG,
    &METRICS,
    &TLS,
    &LIMITS,
    &STORE,
    &DISCOVERY,
    &LISTENER,
    &LISTENER_LIMITS,
    &CERTIFICATE,
    &CLIENT_CERTIFICATE,
    &ROUTE,
    &ROUTE_CLIENT_CERTIFICATE,
    &REDIRECT,
    &RESPOND,
    &ERROR_PAGE,
    &POOL,
    &POOL_LIMITS,
    &POOL_TLS,
    &BACKEND,
    &DISCOVER,
    &RANGE,
    &CHECK,
    &EJECT,
    &COOKIE,
    &REQUEST_HEADERS,
    &RESPONSE_HEADERS,
    &SPLIT,
    &SPLIT_TO,
    &SPLIT_COOKIE,
];

/// Hint for a key that is like none.
const EVERY_KEY: &str = "`sessile help reference` shows every key";

/// Hint for an unknown key of this table, which may be a table with keys `below`: the translation of a word of another
/// balancer, the nearest known key, or the table that has this key.
pub(super) fn advice(keys: &TableKeys, unknown: &str, below: &[&str]) -> String {
    let is_ours = ALL.iter().any(|table| table.keys.contains(&unknown));
    let alone = || foreign::of_key(unknown).filter(|_| !is_ours);
    if let Some(word) = foreign::of_key_and_below(unknown, below).or_else(alone) {
        return word.to_string();
    }
    if let Some(near) = nearest(unknown, keys.keys.iter().copied()) {
        return format!("did you mean \"{near}\"?");
    }
    // A weight is far more often one of a backend than of a pool in a split, and a key one of a pool.
    let is_of_pools = POOL.keys.contains(&unknown);
    let tables = ALL.iter().filter(|t| t.table != SPLIT_TO.table && (t.table != SPLIT.table || !is_of_pools));
    let elsewhere: Vec<_> = tables.filter(|other| other.keys.contains(&unknown)).collect();
    match elsewhere[..] {
        [table] if table.table.is_empty() => "it belongs at the top of the file, before the first table".to_owned(),
        [table] => format!("it belongs in {}", table.table),
        _ => {
            let word = below.iter().find_map(|below| foreign::of_key(below));
            word.map_or_else(|| EVERY_KEY.to_owned(), ToString::to_string)
        }
    }
}

#[cfg(test)]
mod tests;
