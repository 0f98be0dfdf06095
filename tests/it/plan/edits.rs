//! Random configurations, and random edits of them. The same seed makes the same file.

use std::fmt::Write;
use std::net::IpAddr;

use sessile::plan::ListedClient;

/// Networks that ranges are made of.
const NETWORKS: [&str; 7] =
    ["127.0.0.0/8", "127.1.0.0/16", "127.2.0.0/16", "127.1.1.0/24", "127.1.2.0/24", "127.2.3.0/24", "127.1.1.128/25"];

/// Backends that a file may have, each with its own address.
pub const SLOTS: usize = 16;

use crate::support::rng::Rng;

/// One of these.
fn of<T: Copy>(rng: &mut Rng, these: &[T]) -> T {
    these[rng.below(these.len())]
}

/// What the pools of a file may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes behind a plain listener: what a test can connect to without more ado.
    Plain,
    /// Everything: server names, requests, cookies.
    Any,
}

#[derive(Clone)]
pub struct File {
    kind: Kind,
    pub pools: Vec<Pool>,
}

#[derive(Clone)]
pub struct Pool {
    pub name: String,
    http: bool,
    balance: &'static str,
    key: &'static str,
    prefix: usize,
    seed: usize,
    stick_table: &'static str,
    on_add: &'static str,
    on_return: &'static str,
    cookie: Option<&'static str>,
    pub backends: Vec<Backend>,
    ranges: Vec<Range>,
    listener: &'static str,
}

#[derive(Clone)]
pub struct Backend {
    pub name: String,
    pub slot: usize,
    weight: usize,
    drains: bool,
    location: &'static str,
    backup: bool,
}

#[derive(Clone)]
struct Range {
    network: &'static str,
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    One,
    Prefix(usize),
    Pin(Vec<String>, bool),
}

impl File {
    pub fn new(rng: &mut Rng, kind: Kind) -> Self {
        let mut file = Self { kind, pools: Vec::new() };
        for _ in 0..1 + rng.below(2) {
            file.add_pool(rng);
        }
        file
    }

    /// Does some of what operators do.
    pub fn edit(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(self.pools.len());
            match rng.below(14) {
                0 if self.pools.len() > 1 && rng.below(3) == 0 => drop(self.pools.remove(at)),
                0 if rng.below(2) == 0 => self.add_pool(rng),
                0 | 1 => self.pools[at].listener = of(rng, &["", "max_connections = 4000\n", "backlog = 1000\n"]),
                2..=4 => {
                    let backend = self.free_slot(rng).map(|slot| Backend::new(rng, slot));
                    self.pools[at].backends.extend(backend);
                }
                _ => {
                    let kind = self.kind;
                    self.pools[at].edit(rng, kind);
                }
            }
        }
    }

    fn add_pool(&mut self, rng: &mut Rng) {
        let http = self.kind == Kind::Any && rng.below(3) == 0;
        let name = format!("p{}", rng.below(1_000));
        let mut pool = Pool {
            name,
            http,
            balance: of(rng, &["hash", "hash", "ring", "maglev"]),
            key: "\"source\"",
            prefix: of(rng, &[32, 32, 24, 16]),
            seed: rng.below(2),
            stick_table: of(rng, &["1 MiB", "1 MiB", "4 MiB", "0"]),
            on_add: of(rng, &["stay", "stay", "move"]),
            on_return: of(rng, &["stay", "return"]),
            cookie: None,
            backends: Vec::new(),
            ranges: Vec::new(),
            listener: "",
        };
        self.pools.push(pool.clone());
        for _ in 0..2 + rng.below(4) {
            if let Some(slot) = self.free_slot(rng) {
                pool.backends.push(Backend::new(rng, slot));
            }
            if let Some(last) = self.pools.last_mut() {
                *last = pool.clone();
            }
        }
        for _ in 0..rng.below(3) {
            pool.change_ranges(rng);
        }
        if http {
            pool.change_cookie(rng);
        }
        if let Some(last) = self.pools.last_mut() {
            *last = pool;
        }
    }

    fn free_slot(&self, rng: &mut Rng) -> Option<usize> {
        let taken = |slot: usize| self.pools.iter().flat_map(|pool| &pool.backends).any(|b| b.slot == slot);
        let free: Vec<_> = (0..SLOTS).filter(|slot| !taken(*slot)).collect();
        (!free.is_empty()).then(|| of(rng, &free))
    }

    /// The text; `address` of a slot, `keys` the file that cookies are sealed with.
    pub fn text(&self, address: impl Fn(usize) -> String, keys: &str) -> String {
        let mut text = String::new();
        for pool in &self.pools {
            let tls = if self.kind == Kind::Any && !pool.http { "passthrough" } else { "off" };
            let Pool { name, listener, .. } = pool;
            let _ = write!(
                text,
                "[[listener]]\nname = \"l-{name}\"\nbind = \"127.0.0.1:0\"\ntls = \"{tls}\"\npool = \"{name}\"\n{listener}"
            );
        }
        self.pools.iter().for_each(|pool| pool.write(&mut text, &address, keys));
        text
    }
}

impl Backend {
    fn new(rng: &mut Rng, slot: usize) -> Self {
        Self {
            name: format!("b{slot}x{}", rng.below(100)),
            slot,
            weight: of(rng, &[1, 1, 1, 2, 5, 100]),
            drains: rng.below(12) == 0,
            location: of(rng, &["", "", "", "dc1", "dc1/h1", "dc2"]),
            backup: rng.below(12) == 0,
        }
    }
}

impl Pool {
    fn edit(&mut self, rng: &mut Rng, kind: Kind) {
        let at = rng.below(self.backends.len());
        match rng.below(13) {
            0 if self.backends.len() > 1 => {
                let gone = self.backends.remove(at).name;
                self.rename_in_pins(&gone, None);
            }
            1 => {
                let old = self.backends[at].name.clone();
                let new = format!("r{}", rng.below(10_000));
                self.backends[at].name.clone_from(&new);
                self.rename_in_pins(&old, Some(&new));
            }
            2 => self.backends[at].weight = of(rng, &[0, 1, 2, 3, 7, 256]),
            3 => self.backends[at].drains = !self.backends[at].drains,
            4 => self.backends[at].location = of(rng, &["", "dc1", "dc1/h1", "dc1/h2", "dc2"]),
            5 => self.balance = of(rng, &["hash", "ring", "maglev"]),
            6 if kind == Kind::Any && !self.http => {
                self.key = of(rng, &["\"source\"", "\"sni\"", "[\"source\", \"sni\"]"]);
            }
            6 | 7 => self.prefix = of(rng, &[32, 28, 24, 16, 9]),
            8 => self.seed = rng.below(3),
            9 => self.stick_table = of(rng, &["1 MiB", "2 MiB", "4 MiB", "0"]),
            10 => (self.on_add, self.on_return) = (of(rng, &["stay", "move"]), of(rng, &["stay", "return"])),
            11 if self.http => self.change_cookie(rng),
            _ => self.change_ranges(rng),
        }
    }

    fn change_cookie(&mut self, rng: &mut Rng) {
        self.cookie = of(rng, &[None, Some("insert"), Some("learn"), Some("prefix"), Some("route"), Some("hash")]);
    }

    fn change_ranges(&mut self, rng: &mut Rng) {
        let network = of(rng, &NETWORKS);
        self.ranges.retain(|range| range.network != network);
        let own: usize = network.split('/').nth(1).and_then(|bits| bits.parse().ok()).unwrap_or(32);
        let rule = match rng.below(5) {
            0 => return,
            1 => Rule::One,
            2 => Rule::Prefix((own + rng.below(33 - own)).max(own)),
            _ => {
                let mut pinned: Vec<_> = self.backends.iter().map(|backend| backend.name.clone()).collect();
                while pinned.len() > 1 && rng.below(3) > 0 {
                    pinned.remove(rng.below(pinned.len()));
                }
                Rule::Pin(pinned, rng.below(3) == 0)
            }
        };
        self.ranges.push(Range { network, rule });
    }

    fn rename_in_pins(&mut self, old: &str, new: Option<&str>) {
        for range in &mut self.ranges {
            if let Rule::Pin(names, _) = &mut range.rule {
                *names = names
                    .iter()
                    .filter_map(|name| if name == old { new.map(str::to_owned) } else { Some(name.clone()) })
                    .collect();
            }
        }
        self.ranges.retain(|range| !matches!(&range.rule, Rule::Pin(names, _) if names.is_empty()));
    }

    /// True if two clients with one key may belong to different backends: then their order matters.
    pub fn keys_cross_pins(&self) -> bool {
        let pins = self.ranges.iter().any(|range| matches!(range.rule, Rule::Pin(..)));
        let wide = self.prefix < 32 || self.ranges.iter().any(|range| !matches!(range.rule, Rule::Pin(..)));
        pins && wide
    }

    fn write(&self, text: &mut String, address: impl Fn(usize) -> String, keys: &str) {
        let Self { name, http, balance, key, prefix, seed, stick_table, on_add, on_return, .. } = self;
        let _ = write!(
            text,
            "[[pool]]\nname = \"{name}\"\nhttp = {http}\nbalance = \"{balance}\"\nkey = {key}\nprefix_v4 = {prefix}\n\
             hash_seed = {seed}\nstick_table = \"{stick_table}\"\non_add = \"{on_add}\"\non_return = \"{on_return}\"\ncheck = \"off\"\n"
        );
        for Backend { name, slot, weight, drains, location, backup } in &self.backends {
            let (address, state) = (address(*slot), if *drains { "drain" } else { "active" });
            let _ = write!(
                text,
                "[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nweight = {weight}\nstate = \"{state}\"\n\
                 location = \"{location}\"\nbackup = {backup}\n"
            );
        }
        for (number, Range { network, rule }) in self.ranges.iter().enumerate() {
            let _ = write!(text, "[[pool.range]]\nname = \"r{number}\"\ncidr = \"{network}\"\n");
            let _ = match rule {
                Rule::One => writeln!(text, "one = true"),
                Rule::Prefix(prefix) => writeln!(text, "prefix = {prefix}"),
                Rule::Pin(names, strict) => writeln!(text, "pin = {names:?}\nstrict = {strict}"),
            };
        }
        if let Some(mode) = self.cookie {
            let more = if mode == "insert" {
                format!("keys = \"{keys}\"\nsecure = \"off\"\n")
            } else {
                format!("name = \"SID-{mode}\"\n")
            };
            let _ = write!(text, "[pool.cookie]\nmode = \"{mode}\"\n{more}");
        }
    }
}

/// Clients from a few networks, so that ranges and prefixes matter; some come twice, as do people behind one address.
pub fn clients(rng: &mut Rng, count: usize, with_names: bool) -> Vec<ListedClient> {
    let client = |_| {
        let source = IpAddr::from([127, 1 + rng.below(2) as u8, rng.below(5) as u8, 1 + rng.below(250) as u8]);
        let sni = with_names.then(|| format!("host{}.example.org", rng.below(40)));
        ListedClient { source, sni }
    };
    (0..count).map(client).collect()
}
