//! A Redis Cluster of real servers on loopback: its slots are moved, its nodes stopped and started again.
//!
//! Every node may fail without the others (`cluster-require-full-coverage no`). Invariant: a cluster is returned only when
//! each of its nodes serves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::redis::Redis;
use crate::support::eventually;
use crate::support::program::{Program, find, free_address, free_local_address};

/// The user of sessile, with no right that it does not need.
pub const USER: &str = "sessile on >hunter2hunter2 ~sessile:* ~{sessile}:* +mget +get +set +del +pexpire +eval +ping \
    +time +xadd +xread +xtrim +xlen +cluster|slots +asking";

/// Slots of a cluster.
const SLOTS: usize = 16_384;

/// Primaries with equal parts of the slots, in order, and replicas of the first one.
pub struct RedisCluster {
    pub nodes: Vec<RedisNode>,
}

/// One server of a cluster.
pub struct RedisNode {
    redis: Redis,
    bus: u16,
    folder: TempDir,
    server: PathBuf,
    more: Vec<String>,
    /// Port for TLS, by which sessile connects then.
    tls: Option<u16>,
}

impl RedisCluster {
    /// Starts it; `None`: redis-server is not installed, and the test says that it skips. `more`: options of each node.
    pub fn start(test: &str, primaries: usize, replicas: usize, more: &[&str]) -> Option<Self> {
        Self::start_as(test, (primaries, replicas), more, false)
    }

    /// Starts one that speaks TLS and knows its nodes by the name `localhost`. `more`: certificate, key and authority.
    pub fn start_with_tls(test: &str, primaries: usize, more: &[&str]) -> Option<Self> {
        Self::start_as(test, (primaries, 0), more, true)
    }

    fn start_as(test: &str, (primaries, replicas): (usize, usize), more: &[&str], has_tls: bool) -> Option<Self> {
        let server = find(test, "redis-server")?;
        find(test, "redis-cli")?;
        let node = |_| RedisNode::start(&server, more, has_tls);
        let cluster = Self { nodes: (0..primaries + replicas).map(node).collect() };
        let (masters, others) = cluster.nodes.split_at(primaries);
        for (number, node) in masters.iter().enumerate() {
            node.cli(&["cluster", "set-config-epoch", &(number + 1).to_string()]);
            let (from, to) = (number * SLOTS / primaries, (number + 1) * SLOTS / primaries - 1);
            assert_eq!(node.cli(&["cluster", "addslotsrange", &from.to_string(), &to.to_string()]), "OK\n");
        }
        let first = &masters[0];
        for node in &cluster.nodes[1..] {
            let (ip, port) = (node.address().ip().to_string(), node.address().port().to_string());
            assert_eq!(first.cli(&["cluster", "meet", &ip, &port, &node.bus.to_string()]), "OK\n");
        }
        for node in others {
            let id = first.id();
            eventually("the replica to know its primary", || {
                (node.cli(&["cluster", "replicate", &id]) == "OK\n").then_some(())
            });
            eventually("the replica to follow", || {
                node.cli(&["info", "replication"]).contains("master_link_status:up").then_some(())
            });
        }
        cluster.is_whole();
        Some(cluster)
    }

    /// Waits until each node that runs knows all others and serves.
    pub fn is_whole(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.nodes.len());
        for node in self.nodes.iter().filter(|node| node.redis.program.is_some()) {
            eventually("the cluster to serve", || {
                let info = node.cli(&["cluster", "info"]);
                let serves = info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384\r");
                (serves && info.contains(&known)).then_some(())
            });
        }
    }

    /// The value of `cluster` in `[store]`, with an address that nothing listens at before those of the nodes.
    pub fn urls(&self) -> String {
        let url = |node: &RedisNode| match node.tls {
            Some(port) => format!("\"rediss://localhost:{port}\""),
            None => format!("\"redis://{}\"", node.address()),
        };
        let mut urls: Vec<_> = self.nodes.iter().map(url).collect();
        let nowhere = free_local_address().port();
        let beside_first = urls[0].rsplit_once(':').map(|(host, _)| format!("{host}:{nowhere}\""));
        urls.splice(0..0, beside_first);
        format!("[{}]", urls.join(", "))
    }

    /// Keys of the table `[store]`.
    pub fn store(&self, budget: &str) -> String {
        let urls = self.urls();
        format!(
            "[store]\nkind = \"redis\"\ncluster = {urls}\nuser = \"sessile\"\npassword = \"hunter2hunter2\"\n\
             budget = \"{budget}\"\n"
        )
    }

    /// Every key of every primary that runs, with its node.
    pub fn keys(&self) -> Vec<(usize, String)> {
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.redis.program.is_some());
        let primaries = nodes.filter(|(_, node)| node.cli(&["role"]).starts_with("master"));
        let keys = primaries.flat_map(|(number, node)| {
            let keys = node.cli(&["keys", "*"]);
            keys.lines().filter(|key| !key.is_empty()).map(|key| (number, key.to_owned())).collect::<Vec<_>>()
        });
        keys.collect()
    }

    /// Begins to move the slot of a key to another node, with the key itself.
    pub fn begin_to_move(&self, key: &str, from: usize, to: usize) {
        let [source, target] = [from, to].map(|node| &self.nodes[node]);
        let slot = source.cli(&["cluster", "keyslot", key]).trim().to_owned();
        assert_eq!(target.cli(&["cluster", "setslot", &slot, "importing", &source.id()]), "OK\n");
        assert_eq!(source.cli(&["cluster", "setslot", &slot, "migrating", &target.id()]), "OK\n");
        migrate(source, target, key);
    }

    /// Ends the move of a key's slot, with all other keys that it has.
    pub fn end_move(&self, key: &str, from: usize, to: usize) {
        let [source, target] = [from, to].map(|node| &self.nodes[node]);
        let slot = target.cli(&["cluster", "keyslot", key]).trim().to_owned();
        let keys = source.cli(&["cluster", "getkeysinslot", &slot, "1000"]);
        keys.lines().filter(|key| !key.is_empty()).for_each(|key| migrate(source, target, key));
        let primaries = self.nodes.iter().filter(|node| node.cli(&["role"]).starts_with("master"));
        for node in [target].into_iter().chain(primaries) {
            assert_eq!(node.cli(&["cluster", "setslot", &slot, "node", &target.id()]), "OK\n");
        }
    }
}

/// Moves a key.
fn migrate(source: &RedisNode, target: &RedisNode, key: &str) {
    let (ip, port) = (target.address().ip().to_string(), target.address().port().to_string());
    assert_eq!(source.cli(&["migrate", &ip, &port, key, "0", "5000"]), "OK\n");
}

impl RedisNode {
    fn start(server: &Path, more: &[&str], has_tls: bool) -> Self {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let address = if has_tls { free_local_address() } else { free_address() };
        let redis = Redis::at(address, server);
        let more = more.iter().map(|option| (*option).to_owned()).collect();
        let (bus, tls) = (free_local_address().port(), has_tls.then(|| free_local_address().port()));
        let mut node = Self { redis, bus, folder, server: server.to_owned(), more, tls };
        node.run();
        node
    }

    /// Starts it, or starts it again as the node that it was, without keys.
    pub fn run(&mut self) {
        let (dir, address) = (tempfile::tempdir().expect("a scratch directory"), self.address());
        let (ip, port, bus) = (address.ip().to_string(), address.port().to_string(), self.bus.to_string());
        let mut command = Command::new(&self.server);
        command.args(["--bind", &ip, "--port", &port, "--protected-mode", "no", "--save", "", "--dir"]);
        command.arg(self.folder.path()).args(["--cluster-enabled", "yes", "--cluster-port", &bus]);
        command.args(["--cluster-announce-ip", &ip, "--cluster-require-full-coverage", "no"]);
        command.args(["--repl-diskless-sync-delay", "0", "--user"]).args(USER.split_whitespace()).args(&self.more);
        if let Some(tls) = self.tls {
            command.args(["--tls-port", &tls.to_string(), "--tls-cluster", "yes", "--tls-auth-clients", "no"]);
            command.args(["--cluster-announce-hostname", "localhost"]);
            command.args(["--cluster-preferred-endpoint-type", "hostname"]);
        }
        self.redis.program = Some(Program::start(dir, command, address));
    }

    pub fn stop(&mut self) {
        self.redis.stop();
    }

    pub fn program(&self) -> &Program {
        self.redis.program()
    }

    pub fn address(&self) -> SocketAddr {
        self.redis.address
    }

    /// Runs redis-cli; returns what it prints.
    pub fn cli(&self, words: &[&str]) -> String {
        self.redis.cli(words)
    }

    fn id(&self) -> String {
        self.cli(&["cluster", "myid"]).trim().to_owned()
    }
}
