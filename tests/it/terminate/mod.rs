//! Terminated connections: TLS with clients, relays, requests placed one by one.

mod abuse;
mod alerts;
pub mod backend;
mod breaks;
mod bypass;
mod check_agrees;
pub mod client;
mod cookie;
mod counts;
mod early;
mod field_reports;
mod framing;
mod headers;
mod http;
mod kept;
mod kept_race;
mod learned;
mod leaving;
pub mod load;
pub mod mixed;
mod one_write;
pub mod programs;
mod refusals;
mod relay;
mod short_forms;
mod stick_table;
pub mod store;
mod tiers;
mod two_instances;
mod unknown_names;
mod upgraded;

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::Sessile;
use crate::support::authority::Authority;
use crate::support::backend::pool;

/// An instance with a listener `l` that terminates TLS for `a.test` and all names below it, in front of one pool.
pub struct Front {
    pub sessile: Sessile,
    pub authority: Authority,
    pub dir: TempDir,
}

impl Front {
    /// Starts it; `options` are keys of the pool, `top` is the text in front of all tables.
    pub fn start(top: &str, options: &str, backends: &[SocketAddr]) -> Self {
        Self::with(top, "pool = \"p\"\n", &pool("p", options, backends))
    }

    /// Starts it with further keys of the listener, and any pools.
    pub fn with(top: &str, listener: &str, pools: &str) -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a scratch directory"));
        authority.mint("a.test").write(dir.path(), "a");
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).expect("the file is written");
        // Client certificates of the trusted authority, and of another one.
        let clients = Authority::new();
        std::fs::write(dir.path().join("clients.pem"), clients.pem()).expect("the file is written");
        clients.mint("ann").write(dir.path(), "ann");
        Authority::new().mint("eve").write(dir.path(), "eve");
        std::fs::write(dir.path().join("ticket.keys"), "a1".repeat(32) + "\n").expect("the file is written");
        std::fs::write(dir.path().join("cookie.keys"), format!("{}\n", "0123456789abcdef5a69788796a5b4c3".repeat(2)))
            .expect("the file is written");
        let text = config(&dir, top, listener, pools);
        Self { sessile: Sessile::start(&text), authority, dir }
    }

    pub fn address(&self) -> SocketAddr {
        self.sessile.address("l")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Value of a counter of conversations, over all threads.
    pub fn counted(&self, what: &str) -> u64 {
        let status = self.sessile.status();
        let threads = status["conversations"].as_array().expect("threads").iter();
        threads.map(|thread| thread[what].as_u64().expect("a number")).sum()
    }

    /// Lines of requests in the access log, in order.
    pub fn requests(&self) -> Vec<serde_json::Value> {
        self.sessile.lines().into_iter().filter(|line| line["request"].is_string()).collect()
    }
}

/// The whole configuration; `$FILES` is the directory of certificates and keys.
pub fn config(dir: &TempDir, top: &str, listener: &str, pools: &str) -> String {
    format!(
        "{top}\n[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntls = \"terminate\"\n{listener}\n\
         [[listener.certificate]]\ncert = \"$FILES/a.pem\"\nkey = \"$FILES/a.key\"\n{pools}"
    )
    .replace("$FILES", dir.path().to_str().expect("a path of words"))
}
