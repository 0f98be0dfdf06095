//! Backends that a file or DNS names while the process runs.
//!
//! `dns`: looks at a real name server, and at one that says what no real one does; `dns_pool`: pools with such
//! backends; `names`: backends that are written with a name; `rolling`: pods that are replaced one after the other;
//! `upgraded`: another process takes over while sources are dead. The other files: pools with a file of backends. `users`
//! are many clients.

mod broken;
mod change;
mod dns;
mod dns_pool;
mod kept;
mod knot;
pub mod name_server;
mod names;
mod rolling;
mod scale;
mod upgraded;
mod users;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::backend::listener;
use crate::support::load_support::Client;
use crate::support::{Sessile, eventually};

/// A process with a pool `p` of which a file names the backends.
pub struct Pods {
    pub sessile: Sessile,
}

impl Pods {
    /// Starts it with a file that names these backends. `options`: keys of the pool; `rules`: keys of
    /// `[pool.discover]`.
    pub fn start(options: &str, rules: &str, backends: &[(&str, SocketAddr)]) -> Self {
        let pods = Self { sessile: Sessile::spawn(&config(options, rules), |_| {}) };
        pods.name(backends);
        pods.sessile.ready();
        pods.are(&backends.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        pods
    }

    pub fn file(&self) -> PathBuf {
        self.sessile.dir.path().join("backends")
    }

    /// Puts a file with this text in the place of the one before.
    pub fn replace(&self, text: &str) {
        let beside = self.file().with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.file()).unwrap();
    }

    /// Has the file name these backends, from the last one to the first.
    pub fn name(&self, backends: &[(&str, SocketAddr)]) {
        let lines = backends.iter().rev().map(|(name, address)| format!("{name} {address}\n"));
        self.replace(&("# pods\n".to_owned() + &lines.collect::<String>()));
    }

    /// Waits until these are the backends of the pool.
    pub fn are(&self, names: &[&str]) {
        eventually(&format!("the backends {names:?}"), || (self.names() == names).then_some(()));
    }

    /// The names of all backends, in the order of the pool.
    pub fn names(&self) -> Vec<String> {
        let pool = self.pool();
        let backends = pool["backends"].as_array().unwrap().iter();
        backends.map(|backend| backend["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn pool(&self) -> Value {
        self.sessile.status()["pools"][0].clone()
    }

    pub fn backend(&self, name: &str) -> Value {
        let pool = self.pool();
        pool["backends"].as_array().unwrap().iter().find(|backend| backend["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until the source is complained of in these words; empty: not at all.
    pub fn complains(&self, words: &str) {
        eventually(&format!("the complaint {words:?}"), || {
            let pool = self.pool();
            let complaint = pool["discover"]["complaint"].as_str().unwrap_or_default();
            (complaint.contains(words) && complaint.is_empty() == words.is_empty()).then_some(())
        });
    }

    /// The backend that serves client number `n`.
    pub fn home(&self, n: u16) -> String {
        let [high, low] = n.to_be_bytes();
        let answer = Client::connect_from([127, 3, high, low].into(), self.sessile.address("l")).ask("x");
        answer.split(' ').next().unwrap().to_owned()
    }

    pub fn homes(&self, clients: std::ops::Range<u16>) -> Vec<String> {
        clients.map(|n| self.home(n)).collect()
    }
}

/// The configuration of such a process.
pub fn config(options: &str, rules: &str) -> String {
    format!(
        "{}[[pool]]\nname = \"p\"\n{options}\ncheck = \"off\"\n\
         [pool.discover]\nkind = \"file\"\npath = \"$DIR/backends\"\n{rules}\n",
        listener("p", "")
    )
}
