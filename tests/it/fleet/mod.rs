//! Stick tables and orders of several real instances that agree through a real redis-server, and its failures.
//!
//! Clients are source addresses of loopback; each comes through an instance at random. Invariant: each answer names its
//! backend, and each client compares it with the one that it had.

mod access;
mod away;
mod crowd;
mod hopping;
mod joining;
mod orders;
mod orders_away;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use tempfile::TempDir;

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::rng::Rng;
use crate::support::{Sessile, eventually};
use crate::terminate::store::redis::Redis;

/// Clients of a test, in networks of 250.
const CLIENTS: u16 = 250;

/// Backends, a store, and instances in front of them.
struct Fleet {
    redis: Redis,
    /// Named as in the file: `b0`, `b1` and so on; `None`: it is dead.
    backends: Vec<Option<Backend>>,
    addresses: Vec<SocketAddr>,
    instances: Vec<Sessile>,
    secret: TempDir,
    options: String,
    /// More keys of the store, with what is shared.
    store: String,
}

/// Where clients were served last.
type Homes = BTreeMap<u16, String>;

impl Fleet {
    /// `count` instances with three backends in force; `None`: there is no redis-server.
    fn start(test: &str, count: usize, options: &str) -> Option<Self> {
        let redis = Redis::start(test)?;
        let backends: Vec<_> = (0..5).map(|index| Some(Backend::named(&format!("b{index}")))).collect();
        let addresses = backends.iter().flatten().map(|backend| backend.address).collect();
        let secret = tempfile::tempdir().unwrap();
        std::fs::write(secret.path().join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let options = options.to_owned();
        let store = "share = [\"cookies\", \"displaced\"]\n".to_owned();
        let mut fleet = Self { redis, backends, addresses, instances: Vec::new(), secret, options, store };
        (0..count).for_each(|_| fleet.join(3, ""));
        fleet.knows_all();
        Some(fleet)
    }

    /// The configuration with so many of the backends, and more keys of the first one.
    fn config(&self, backends: usize, first: &str) -> String {
        let secret = self.secret.path().join("secret");
        let store = format!(
            "[store]\nkind = \"redis\"\nurl = \"{}\"\nsecret_file = \"{}\"\n{}",
            self.redis.url(),
            secret.display(),
            self.store
        );
        let pool = pool("p", &self.options, &self.addresses[..backends]);
        store + &listener("p", "") + &pool.replacen("name = \"b0\"\n", &format!("name = \"b0\"\n{first}\n"), 1)
    }

    /// Another instance starts.
    fn join(&mut self, backends: usize, first: &str) {
        self.instances.push(Sessile::start(&self.config(backends, first)));
    }

    /// Waits until each instance knows all others.
    fn knows_all(&self) {
        for instance in &self.instances {
            eventually("all instances to be known", || {
                let fleet = &instance.status()["fleet"];
                let known = fleet["instances"].as_array().unwrap().len();
                (fleet["state"] == "working" && known >= self.instances.len()).then_some(())
            });
        }
    }

    /// The backend that serves a client through an instance.
    fn ask(&self, instance: usize, client: u16) -> String {
        let front = self.instances[instance].address("l");
        served(front, client)
    }

    /// Every client comes once, through an instance at random; how many were served elsewhere than before by a backend
    /// that was to be kept. `lost`: a backend that clients may leave.
    fn hop(&self, rng: &mut Rng, homes: &mut Homes, lost: Option<&str>) -> usize {
        let fronts: Vec<_> = self.instances.iter().map(|instance| instance.address("l")).collect();
        let mut breaks = 0;
        for client in 0..CLIENTS {
            let home = served(fronts[rng.below(fronts.len())], client);
            let before = homes.insert(client, home.clone());
            breaks += usize::from(before.is_some_and(|before| before != home && Some(&*before) != lost));
        }
        breaks
    }

    /// Reloads one instance.
    fn reload(&self, instance: usize, backends: usize, first: &str) {
        let verdict = self.instances[instance].reload(&self.config(backends, first));
        assert_eq!(verdict["accepted"], true, "{verdict}");
    }

    /// Kills a backend; connections to it are refused from here on.
    fn kill(&mut self, backend: usize) {
        self.backends[backend] = None;
        eventually("the backend to be gone", || {
            std::net::TcpStream::connect(self.addresses[backend]).is_err().then_some(())
        });
    }

    /// Starts a backend again at its address.
    fn revive(&mut self, backend: usize) {
        let name = format!("b{backend}");
        let serve = move |stream: std::net::TcpStream| crate::support::backend::echo(&name, &stream);
        self.backends[backend] = Some(Backend::on(self.addresses[backend], serve));
    }
}

/// The backend that serves a client through an address.
fn served(front: SocketAddr, client: u16) -> String {
    let [high, low] = client.to_be_bytes();
    let source: IpAddr = [127, 2 + high, low, 9].into();
    Client::connect_from(source, front).ask("x").split(' ').next().unwrap().to_owned()
}

/// A number of the fleet as an instance shows it; 0 before it shows any.
fn number(instance: &Sessile, of: &str) -> u64 {
    let fleet = &instance.status()["fleet"];
    fleet[of].as_u64().or_else(|| fleet["received"][of].as_u64()).unwrap_or(0)
}
