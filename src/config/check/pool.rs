//! Reads one `[[pool]]`: balancing method, key, backends and named ranges.
//!
//! Which listeners reach it is checked in `whole.rs`. Invariant: a pool without errors can place every key: it has a
//! backend of weight above 0 or a source of backends, and the table of its method fits its backends.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ipnet::IpNet;

use super::{Bad, cookie, discover, headers, health, many, queue, request_limits, stick_table, timeouts, tls};
use crate::config::file::Section;
use crate::config::found::RING_POINTS_MAX;
use crate::config::value::{self, DAY, HOUR, MILLISECOND, MINUTE, Resolve, SECOND};
use crate::config::{
    Address, AllDown, Backend, BackendOrigin, Balance, Cookie, KeyPart, OnMarkedDown, Pool, PoolHttp, PoolOrders,
    Range, RangeRule, Resolve as ResolveWhen, keys,
};

/// Most entries of a Maglev table; a prime.
const MAGLEV_SIZE_MAX: u64 = 5_000_011;
/// Words of `all_down`.
const ALL_DOWN: [(&str, AllDown); 2] = [("try", AllDown::Try), ("refuse", AllDown::Refuse)];
/// Words of `on_marked_down`.
const ON_MARKED_DOWN: [(&str, OnMarkedDown); 2] = [("keep", OnMarkedDown::Keep), ("close", OnMarkedDown::Close)];
/// Words of `resolve`.
const RESOLVE: [(&str, ResolveWhen); 2] = [("ttl", ResolveWhen::Ttl), ("load", ResolveWhen::Load)];
const MAX_V4: u8 = 32;
const MAX_V6: u8 = 128;

/// A pool, and the places in the file that later checks report.
pub(super) struct ParsedPool<'d> {
    pub(super) config: Pool,
    pub(super) section: Section<'d>,
    /// Sections of the backends, in the order of `config.backends`.
    pub(super) backends: Vec<Section<'d>>,
}

/// Reads a `[[pool]]` with its backends and ranges.
pub(super) fn pool<'d>(section: Section<'d>, resolve: Resolve<'_>) -> ParsedPool<'d> {
    let sections = section.children("backend", &keys::BACKEND);
    let backends: Vec<_> = sections.iter().map(|section| backend(section, resolve)).collect();
    let balance = balance(&section, &backends);
    let key = key(&section, balance);
    let name = section.required("name", value::name).unwrap_or_default();
    let stick_group = section.read("stick_group", value::name);
    let cookie = cookie::cookie(&section, stick_group.as_ref().unwrap_or(&name), balance, &key);
    let http = section.read("http", value::pool_http).unwrap_or(PoolHttp::Off);
    cookie::needs_http(&section, &key, http.is_read());
    check_backends(&section, &sections, &backends);
    many::check(&section, balance, &backends);
    let (connect_timeout, connect_budget) = connect_times(&section);
    let tls = tls::of_pool(&section, &backends);
    let remembered = stick_table::stick_table(&section, balance, &key, cookie.as_ref());
    let has_key = !key.is_empty() || balance.is_none_or(Balance::keyed);
    let max_idle = cookie.as_ref().and_then(Cookie::max_idle);
    stick_table::app_session_timeout(&section, remembered.as_ref(), max_idle);
    let [request_headers, response_headers] = headers::headers(&section, http.is_read(), cookie.as_ref());
    let limits = section.child("limits", &keys::POOL_LIMITS);
    let discover = discover::discover(&section);
    let config = Pool {
        name,
        http,
        alpn: section.values("alpn", value::alpn),
        balance: balance.unwrap_or(Balance::Hash),
        prefix_v4: section.read("prefix_v4", value::integer(0..=u64::from(MAX_V4))).unwrap_or(32),
        prefix_v6: section.read("prefix_v6", value::integer(0..=u64::from(MAX_V6))).unwrap_or(64),
        stick_table: remembered,
        stick_group,
        when_down: stick_table::when_down(&section),
        load_bound: stick_table::diverts(&section, "load_bound", value::hundredths(105..=10_000), remembered.is_some()),
        slow_start: stick_table::diverts(
            &section,
            "slow_start",
            value::duration(SECOND, HOUR),
            remembered.is_some() || !has_key,
        ),
        on_full: queue::on_full(&section, &backends, discover.as_ref()),
        drain_deadline: section.read("drain_deadline", value::duration(Duration::ZERO, 7 * DAY)).unwrap_or(5 * MINUTE),
        drain_over: section.read("drain_over", value::duration(SECOND, HOUR)).unwrap_or(MINUTE),
        hash_seed: section.read("hash_seed", value::integer(0..=u64::MAX)).unwrap_or(0),
        ranges: ranges(&section, &key, &backends),
        all_down: section.read("all_down", value::word(&ALL_DOWN)).unwrap_or(AllDown::Try),
        resolve: section.read("resolve", value::word(&RESOLVE)).unwrap_or(ResolveWhen::Ttl),
        discover,
        limits: timeouts::of_pool(&limits, http.is_read()),
        request_limits: request_limits::of_pool(&limits, http.is_read()),
        connect_timeout,
        connect_budget,
        sticky_retries: section.read("sticky_retries", value::integer(0..=100)).unwrap_or(1),
        source: section.values("source", value::local_ip),
        proxy: health::proxy(&section),
        check: health::check(&section, tls.as_ref()),
        eject: health::eject(&section, http.is_read()),
        on_marked_down: section.read("on_marked_down", value::word(&ON_MARKED_DOWN)).unwrap_or(OnMarkedDown::Keep),
        tls,
        cookie,
        request_headers,
        response_headers,
        key,
        backends,
        orders: PoolOrders::default(),
    };
    if !may_be_source(&config.key) {
        section.idle_keys(&["prefix_v4", "prefix_v6"], "because source is no part of the key");
    }
    ParsedPool { config, section, backends: sections }
}

/// Reads the balancing method and its table size; `None`: an unknown word.
fn balance(section: &Section<'_>, backends: &[Backend]) -> Option<Balance> {
    const METHODS: [(&str, Balance); 7] = [
        ("hash", Balance::Hash),
        ("ring", Balance::Ring { points: 160 }),
        ("maglev", Balance::Maglev { table_size: 65_537 }),
        ("round_robin", Balance::RoundRobin),
        ("least_connections", Balance::LeastConnections),
        ("two_choices", Balance::TwoChoices),
        ("random", Balance::Random),
    ];
    let method =
        section.read("balance", value::word(&METHODS)).or((!section.has("balance")).then_some(Balance::Hash))?;
    let points = section.read("ring_points", value::integer(1..=RING_POINTS_MAX));
    let size = section.read("maglev_size", value::integer(1..=MAGLEV_SIZE_MAX));
    let why = format!("with balance = \"{}\"", method.word());
    match method {
        Balance::Ring { points: default } => {
            section.idle_keys(&["maglev_size"], &why);
            Some(ring(section, points.unwrap_or(default), backends))
        }
        Balance::Maglev { table_size: default } => {
            section.idle_keys(&["ring_points"], &why);
            Some(maglev(section, size.unwrap_or(default), backends))
        }
        other => {
            section.idle_keys(&["ring_points", "maglev_size"], &why);
            Some(other)
        }
    }
}

fn ring(section: &Section<'_>, points: u32, backends: &[Backend]) -> Balance {
    let balance = Balance::Ring { points };
    if let Err(why) = balance.holds(backends) {
        let weight: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        section.error("ring_points", Bad::new(why).hint(format!("at most {}", RING_POINTS_MAX / weight.max(1))));
    }
    balance
}

fn maglev(section: &Section<'_>, size: u32, backends: &[Backend]) -> Balance {
    if !is_prime(size) {
        let next = (size..).find(|number| is_prime(*number)).unwrap_or(size);
        section.error("maglev_size", Bad::new(format!("maglev_size {size} is not prime")).hint(format!("{next} is")));
    }
    let balance = Balance::Maglev { table_size: size };
    if let Err(why) = balance.holds(backends) {
        section.error("maglev_size", Bad::new(why));
    }
    balance
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

/// Reads the key, and reports one that does not fit the method; `balance` is `None` for an unknown word.
fn key(section: &Section<'_>, balance: Option<Balance>) -> Vec<KeyPart> {
    let parts = section.list("key", value::key_part);
    let all_valid = parts.len() == section.count("key");
    let key: Vec<_> = parts.iter().filter_map(|(_, part)| part.clone()).collect();
    let keyed = balance.is_none_or(Balance::keyed);
    let method = balance.map_or("", Balance::word);
    match (section.has("key"), all_valid, keyed) {
        (false, _, true) => return vec![KeyPart::Source],
        (false, _, false) | (_, false, _) => {}
        _ if parts.is_empty() => section.error("key", Bad::new("key is empty").hint("write \"none\" for no key")),
        _ if !key.is_empty() && key.len() < parts.len() => {
            section.error("key", Bad::new("key names \"none\" together with other parts"));
        }
        (_, _, true) if key.is_empty() && balance.is_some() => {
            let hint = "with no key, choose \"round_robin\", \"least_connections\", \"two_choices\" or \"random\"";
            section
                .error("key", Bad::new(format!("key \"none\" leaves balance \"{method}\" nothing to hash")).hint(hint));
        }
        // The stick table needs the key of such a pool.
        (_, _, false) if balance.is_some_and(Balance::may_remember) => {}
        (_, _, false) if !key.is_empty() => {
            let hint = "keys need balance = \"hash\", \"ring\" or \"maglev\", or, with a stick table, \
                        \"round_robin\", \"least_connections\" or \"two_choices\"";
            section.error("key", Bad::new(format!("key has no effect: balance \"{method}\" uses no key")).hint(hint));
        }
        _ => {}
    }
    key
}

/// True if the client's address is part of the key, at least for some clients.
fn may_be_source(key: &[KeyPart]) -> bool {
    key.iter().any(|part| part.may_be(&KeyPart::Source))
}

fn connect_times(section: &Section<'_>) -> (Duration, Duration) {
    let timeout = section.read("connect_timeout", value::duration(10 * MILLISECOND, MINUTE)).unwrap_or(2 * SECOND);
    let budget = section.read("connect_budget", value::duration(10 * MILLISECOND, 10 * MINUTE)).unwrap_or(6 * SECOND);
    if timeout > budget {
        let key = if section.has("connect_timeout") { "connect_timeout" } else { "connect_budget" };
        let (timeout, budget) = (value::show_duration(timeout), value::show_duration(budget));
        let why = format!("connect_timeout \"{timeout}\" is longer than connect_budget \"{budget}\"");
        section.error(key, Bad::new(why));
    }
    (timeout, budget)
}

fn backend(section: &Section<'_>, resolve: Resolve<'_>) -> Backend {
    // Takes the place of an invalid address; a configuration with an error is never used.
    let placeholder = || Address::Unix("/".into());
    let weight = section.read("weight", value::integer(0..=256)).unwrap_or(1);
    let drains = section.read("state", value::word(&[("active", false), ("drain", true)])).unwrap_or(false);
    if weight == 0 && !drains {
        section.warn("weight", Bad::new("weight 0 takes no new clients").hint("write state = \"drain\" instead"));
    }
    let address = section.required("address", value::address(resolve)).unwrap_or_else(placeholder);
    let host = if let Address::Name(host) = &address { Some(host.clone()) } else { None };
    Backend {
        name: section.required("name", value::name).unwrap_or_default(),
        address,
        host,
        weight: if drains { 0 } else { weight },
        location: section.read("location", value::location).unwrap_or_default(),
        backup: section.read("backup", value::boolean).unwrap_or(false),
        max_connections: section
            .read("max_connections", value::unless("off", value::integer(1..=u64::from(u32::MAX))))
            .unwrap_or(None),
        origin: BackendOrigin::Written,
    }
}

/// Checks the backends of a pool together: different names, and, where no source names others, one of weight above 0.
fn check_backends(pool: &Section<'_>, sections: &[Section<'_>], backends: &[Backend]) {
    let is_found = pool.has("discover");
    if sections.is_empty() {
        if !is_found && (!pool.has("backend") || pool.count("backend") == 0) {
            pool.missing("has no backend");
        }
        return;
    }
    unique_names(sections.iter().zip(backends.iter().map(|backend| backend.name.as_str())));
    if !is_found && backends.iter().all(|backend| backend.weight == 0) {
        pool.error_at(pool.start, Bad::new("every backend has weight 0"));
    }
}

/// Reports every name that an earlier object of the same kind already has.
pub(super) fn unique_names<'s, 'd: 's>(named: impl Iterator<Item = (&'s Section<'d>, &'s str)>) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (section, name) in named.filter(|(_, name)| !name.is_empty()) {
        match first.entry(name) {
            Entry::Vacant(vacant) => {
                vacant.insert(section.at("name"));
            }
            Entry::Occupied(earlier) => {
                let line = section.line(*earlier.get());
                let bad = Bad::new(format!("name \"{name}\" is taken by an earlier one, in line {line}"));
                let made = if section.is_made() { ": write [[pool.backend]] with name and address" } else { "" };
                section.error("name", bad.hint(format!("each needs a name of its own{made}")));
            }
        }
    }
}

fn ranges(pool: &Section<'_>, key: &[KeyPart], backends: &[Backend]) -> Vec<Range> {
    let names: HashSet<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
    let sections = pool.children("range", &keys::RANGE);
    let finds = pool.has("discover");
    let read: Vec<_> = sections.iter().map(|section| (section, range(section, key, &names, finds))).collect();
    unique_names(read.iter().map(|(section, range)| (*section, range.name.as_str())));
    let mut networks = HashMap::new();
    for (section, range) in read.iter().filter(|(section, _)| section.has("cidr")) {
        if let Some(earlier) = networks.insert(range.cidr, range.name.as_str()) {
            let why = format!("cidr \"{}\" is already the network of range \"{earlier}\"", range.cidr);
            section.error("cidr", Bad::new(why));
        }
    }
    read.into_iter().map(|(_, range)| range).collect()
}

/// Reads a range. `finds`: a source may name other backends than those of the file.
fn range(section: &Section<'_>, key: &[KeyPart], backends: &HashSet<&str>, finds: bool) -> Range {
    let cidr = section.required("cidr", value::network);
    let rules = ["one", "prefix", "pin"].into_iter().filter(|rule| section.has(rule)).count();
    if rules != 1 {
        let hint = "write one = true, prefix = N, or pin = [\"BACKEND\"]";
        let count = if rules == 0 { "no rule" } else { "more than one rule" };
        section.error_at(section.start, Bad::new(format!("has {count}")).hint(hint));
    }
    if section.has("strict") && !section.has("pin") {
        section.error("strict", Bad::new("strict needs pin"));
    }
    if !may_be_source(key) {
        section.idle_keys(&["one", "prefix"], "because source is no part of the pool's key");
    }
    Range {
        name: section.required("name", value::name).unwrap_or_default(),
        rule: rule(section, cidr, backends, finds),
        cidr: cidr.unwrap_or_default(),
    }
}

fn rule(section: &Section<'_>, cidr: Option<IpNet>, backends: &HashSet<&str>, finds: bool) -> RangeRule {
    if section.read("one", value::boolean) == Some(false) {
        section.error("one", Bad::new("one false has no effect").hint("delete the line"));
    }
    let strict = section.read("strict", value::boolean).unwrap_or(false);
    if section.has("pin") {
        let pins = section.list("pin", value::name);
        if section.count("pin") == 0 {
            section.error("pin", Bad::new("pin names no backend"));
        }
        // A source may name any backend.
        let unknown = |(_, name): &&(usize, String)| !finds && !backends.contains(name.as_str());
        for (at, name) in pins.iter().filter(unknown) {
            let bad = Bad::new(format!("pin \"{name}\" is not a backend of this pool"));
            let near = keys::nearest(name, backends.iter().copied());
            section.error_at(*at, Bad { hint: near.map(|near| format!("did you mean \"{near}\"?")), ..bad });
        }
        return RangeRule::Pin { backends: pins.into_iter().map(|(_, name)| name).collect(), strict };
    }
    // A prefix shorter than the range's own would give clients inside the range the key of addresses outside it.
    let (least, most) = cidr.map_or((0, MAX_V6), |cidr| (cidr.prefix_len(), cidr.max_prefix_len()));
    let prefix = section.read("prefix", value::integer(u64::from(least)..=u64::from(most)));
    prefix.map_or(RangeRule::One, RangeRule::Prefix)
}
