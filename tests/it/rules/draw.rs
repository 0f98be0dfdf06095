//! [`Drawn`]: a random configuration of the rules of requests, which may change while it is in force.
//!
//! Draws only what is valid: no two routes tie, and a pool has what its keys need. Invariant: a seed always draws the same.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::SocketAddr;

use crate::support::rng::Rng;

/// Places at which backends listen; the backend at place `n` is named `sn` in every pool that has it.
pub const PLACES: usize = 9;

/// Names of cookies of applications; the last one is only a part of keys.
pub const COOKIES: [&str; 4] = ["SID", "JSESSIONID", "UID", "KID"];

/// One of these.
pub fn pick<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.below(all.len())]
}

/// True once in so many draws.
pub fn once_in(rng: &mut Rng, draws: usize) -> bool {
    rng.below(draws) == 0
}

/// A listener with its routes, and pools.
pub struct Drawn {
    listener: String,
    pub pools: Vec<DrawnPool>,
}

/// A pool: its keys as they are written, and its backends.
pub struct DrawnPool {
    pub name: String,
    keys: String,
    ranges: String,
    pub backends: Vec<DrawnBackend>,
}

/// A backend of one pool.
pub struct DrawnBackend {
    pub place: usize,
    weight: usize,
    drains: bool,
    backup: bool,
    location: &'static str,
}

impl Drawn {
    pub fn draw(rng: &mut Rng) -> Self {
        let pools: Vec<_> = (0..2 + rng.below(4)).map(|number| DrawnPool::draw(rng, number)).collect();
        let mut listener =
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntrust = \"127.0.0.0/8\"\nrequest_id = \"X-Id\"\n"
                .to_owned();
        if !once_in(rng, 4) {
            let _ = writeln!(listener, "pool = \"{}\"", pools[0].name);
        }
        // Where the last route stands, with which no other one may tie.
        let mut taken = HashSet::from([("", "", 1)]);
        let routes: Vec<_> = (0..1 + rng.below(9)).filter_map(|_| route(rng, &pools, &mut taken)).collect();
        // A listener without a pool needs a route.
        let last = "[[listener.route]]\nheader = { X-Last = \"1\" }\nrespond = { status = 299 }\n".to_owned();
        listener.extend(routes.into_iter().chain([last]));
        Self { listener, pools }
    }

    /// The file, with these addresses for the places.
    pub fn text(&self, addresses: &[SocketAddr]) -> String {
        self.listener.clone() + &self.pools.iter().map(|pool| pool.text(addresses)).collect::<String>()
    }

    /// Changes a backend of some pool, adds one or removes one, as a reload may.
    pub fn change(&mut self, rng: &mut Rng) {
        let at = rng.below(self.pools.len());
        let pool = &mut self.pools[at];
        let one = rng.below(pool.backends.len());
        match rng.below(4) {
            0 if pool.backends.len() > 2 && pool.ranges.is_empty() => drop(pool.backends.remove(one)),
            0 | 1 => pool.add(rng),
            2 => pool.backends[one].drains ^= true,
            _ => pool.backends[one].weight = rng.below(5),
        }
        pool.repair();
    }
}

impl DrawnPool {
    fn draw(rng: &mut Rng, number: usize) -> Self {
        let mut pool =
            Self { name: format!("p{number}"), keys: String::new(), ranges: String::new(), backends: Vec::new() };
        let cookie = cookie(rng);
        let placed = cookie.contains("\"hash\"") || rng.below(3) > 0;
        let (balance, size) = match placed {
            true => pick(rng, &[("hash", ""), ("ring", "ring_points = 20\n"), ("maglev", "maglev_size = 251\n")]),
            false => (pick(rng, &["round_robin", "least_connections", "two_choices", "random"]), ""),
        };
        let keyed = placed || (balance != "random" && once_in(rng, 2));
        pool.keys = format!("http = true\nbalance = \"{balance}\"\n{size}");
        if keyed {
            let key = key(rng, cookie.contains("header = "));
            let has_source = key.contains("source");
            let _ = writeln!(pool.keys, "key = {key}");
            if has_source {
                let _ =
                    writeln!(pool.keys, "prefix_v4 = {}\nprefix_v6 = {}", pick(rng, &[24, 32]), pick(rng, &[48, 64]));
            }
            pool.draw_table(rng, placed && !cookie.contains("\"learn\""), placed);
        }
        if once_in(rng, 3) {
            pool.keys += "all_down = \"refuse\"\n";
        }
        let _ = writeln!(pool.keys, "{cookie}");
        (0..2 + rng.below(4)).for_each(|_| pool.add(rng));
        pool.repair();
        if pool.keys.contains("source") && rng.below(2) == 0 {
            pool.draw_ranges(rng);
        }
        pool
    }

    /// What a pool with a key remembers, and for how long it obeys that.
    fn draw_table(&mut self, rng: &mut Rng, may_be_without: bool, placed: bool) {
        let _ = writeln!(self.keys, "hash_seed = {}", rng.below(3));
        if may_be_without && once_in(rng, 5) {
            self.keys += "stick_table = \"0\"\n";
            return;
        }
        let word = pick(rng, &["rehash", "rehash", "rehash", "reject"]);
        let _ = writeln!(self.keys, "on_down = \"{word}\"");
        if placed {
            let (add, back) = (pick(rng, &["stay", "stay", "move"]), pick(rng, &["stay", "stay", "return"]));
            let _ = writeln!(self.keys, "on_add = \"{add}\"\non_return = \"{back}\"");
        }
    }

    /// Rules for networks of clients: one inside another, one that is pinned to the first two backends.
    fn draw_ranges(&mut self, rng: &mut Rng) {
        let pins: Vec<_> =
            self.backends.iter().take(1 + rng.below(2)).map(|one| format!("\"s{}\"", one.place)).collect();
        let pinned = format!("pin = [{}]\nstrict = {}", pins.join(", "), once_in(rng, 2));
        let rules = ["one = true".to_owned(), "prefix = 28".to_owned(), pinned];
        for (name, cidr) in [("wide", "10.1.0.0/16"), ("narrow", "10.1.2.0/24")] {
            let rule = &rules[rng.below(rules.len())];
            let _ = writeln!(self.ranges, "[[pool.range]]\nname = \"{name}\"\ncidr = \"{cidr}\"\n{rule}");
        }
    }

    fn add(&mut self, rng: &mut Rng) {
        let free: Vec<_> = (0..PLACES).filter(|place| self.backends.iter().all(|one| one.place != *place)).collect();
        if free.is_empty() {
            return;
        }
        self.backends.push(DrawnBackend {
            place: pick(rng, &free),
            weight: pick(rng, &[0, 1, 1, 1, 2, 4]),
            drains: once_in(rng, 6),
            backup: once_in(rng, 6),
            location: pick(rng, &["", "", "dc1/h1", "dc1/h2", "dc2/h1", "dc2"]),
        });
    }

    /// Gives the pool a backend for new clients.
    fn repair(&mut self) {
        if !self.backends.iter().any(|one| one.weight > 0 && !one.drains && !one.backup) {
            let first = &mut self.backends[0];
            (first.weight, first.drains, first.backup) = (1, false, false);
        }
    }

    fn text(&self, addresses: &[SocketAddr]) -> String {
        let mut text = format!("[[pool]]\nname = \"{}\"\n{}", self.name, self.keys);
        text += "check = { interval = \"40ms\", timeout = \"2s\", rise = 1, fall = 1, flap_damping = \"off\" }\n";
        for DrawnBackend { place, weight, drains, backup, location } in &self.backends {
            let (address, state) = (addresses[*place], if *drains { "drain" } else { "active" });
            let _ = writeln!(
                text,
                "[[pool.backend]]\nname = \"s{place}\"\naddress = \"{address}\"\nweight = {weight}\nstate = \"{state}\"\n\
                 backup = {backup}\nlocation = \"{location}\""
            );
        }
        text + &self.ranges
    }
}

/// The cookie of a pool, as it is written; empty: it has none.
fn cookie(rng: &mut Rng) -> String {
    let name = pick(rng, &COOKIES[..3]);
    match rng.below(9) {
        0 | 1 => String::new(),
        2 => "cookie = { mode = \"insert\", keys = \"$KEYS\" }".into(),
        3 => "cookie = { mode = \"insert\", name = \"OURS\", keys = \"$KEYS\", max_idle = \"1h\" }".into(),
        4 => format!("cookie = {{ mode = \"learn\", name = \"{name}\" }}"),
        5 => "cookie = { mode = \"learn\", header = \"Mcp-Session-Id\", end_on_404 = true }".into(),
        6 => format!("cookie = {{ mode = \"prefix\", name = \"{name}\" }}"),
        7 => {
            let (separator, side) = (pick(rng, &[".", "!", "-"]), pick(rng, &["suffix", "suffix", "prefix"]));
            let parameter = pick(rng, &["", ", path_parameter = \"jsessionid\""]);
            format!(
                "cookie = {{ mode = \"route\", name = \"{name}\", separator = \"{separator}\", side = \"{side}\"{parameter} }}"
            )
        }
        _ => format!("cookie = {{ mode = \"hash\", name = \"{name}\" }}"),
    }
}

/// A key, as it is written: a part, a chain of parts, or a list of both. `learns_header`: the pool learns the header of
/// sessions, which cannot be a part then.
fn key(rng: &mut Rng, learns_header: bool) -> String {
    let mut parts = vec![
        "source",
        "header:X-User",
        "header:mcp-session-id",
        "query:user",
        "path:1",
        "path:2",
        "path_parameter:jsessionid",
        "cookie:KID",
        "tlv:0xE0",
        "client_certificate",
    ];
    parts.retain(|part| !learns_header || *part != "header:mcp-session-id");
    let mut chain = |rng: &mut Rng| {
        let length = pick(rng, &[1, 1, 2, 3]);
        let mut chosen: Vec<_> = (0..length).map(|_| parts.remove(rng.below(parts.len()))).collect();
        // What every client has stands last, and so does what every request has.
        chosen.sort_by_key(|part| (*part == "source", part.starts_with("path:")));
        format!("\"{}\"", chosen.join(" or "))
    };
    match rng.below(4) {
        0 => "\"source\"".into(),
        1 | 2 => chain(rng),
        _ => format!("[{}, {}]", chain(rng), chain(rng)),
    }
}

/// A route, as it is written; `None`: it could tie with one of those before it.
fn route(
    rng: &mut Rng,
    pools: &[DrawnPool],
    taken: &mut HashSet<(&'static str, &'static str, usize)>,
) -> Option<String> {
    const HOSTS: [&str; 6] = ["a.test", "b.test", "*.a.test", "*.x.a.test", "*.test", ""];
    const PATHS: [&str; 8] = ["/app", "/app/v1", "=/app", "=/login", "/api", "/", "=/", ""];
    let some = |rng: &mut Rng, all: &[&'static str]| {
        let chosen: HashSet<_> = (0..1 + rng.below(3)).map(|_| pick(rng, all)).collect();
        // Any host or path stands alone.
        if chosen.contains("") { HashSet::from([""]) } else { chosen }
    };
    let (hosts, paths) = (some(rng, &HOSTS), some(rng, &PATHS));
    let mut text = "[[listener.route]]\n".to_owned();
    let mut conditions = 0;
    let mut add = |text: &mut String, written: &str, count: usize| {
        *text += written;
        conditions += count;
    };
    match rng.below(4) {
        0 => add(&mut text, "method = [\"POST\", \"PUT\"]\n", 1),
        1 if once_in(rng, 2) => add(&mut text, "method = \"GET\"\n", 1),
        _ => {}
    }
    match rng.below(6) {
        0 => add(&mut text, "header = { X-Version = \"2\" }\n", 1),
        1 => add(&mut text, "header = { x-version = \"1\", X-Kind = \"b\" }\n", 2),
        _ => {}
    }
    if once_in(rng, 4) {
        add(&mut text, "source = [\"10.1.0.0/16\", \"2001:db8::/32\", \"10.1.2.0/25\"]\n", 1);
    }
    if hosts.contains("") && paths.contains("") && conditions == 0 {
        return None;
    }
    let places: Vec<_> =
        hosts.iter().flat_map(|host| paths.iter().map(move |path| (*host, *path, conditions))).collect();
    if places.iter().any(|place| taken.contains(place)) {
        return None;
    }
    taken.extend(places);
    let sorted = |all: HashSet<&'static str>| {
        let mut all: Vec<_> = all.into_iter().filter(|one| !one.is_empty()).collect();
        all.sort_unstable();
        all
    };
    for (key, values) in [("host", sorted(hosts)), ("path", sorted(paths))] {
        if !values.is_empty() {
            let _ = writeln!(text, "{key} = {values:?}");
        }
    }
    let pool = &pools[rng.below(pools.len())].name;
    text += &match rng.below(8) {
        0 => "redirect = \"https\"\n".to_owned(),
        1 => "redirect = { to = \"https://new.test/to{path}{query}\", status = 307 }\n".to_owned(),
        2 => format!("respond = {{ status = {} }}\n", pick(rng, &[200, 403, 404])),
        _ => format!("pool = \"{pool}\"\n"),
    };
    Some(text)
}
