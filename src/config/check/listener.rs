//! Reads one `[[listener]]` and its routes.
//!
//! Whether the pools that it names exist is checked in `whole.rs`. Invariant: a listener without errors has an address
//! to bind and a pool or route; keys about TLS appear only on a listener that looks at TLS.

use std::rc::Rc;

use super::{Bad, request_limits, route, tie, timeouts, tls};
use toml::de::DeValue;

use crate::config::file::Section;
use crate::config::value::{self, Resolve, ValueResult};
use crate::config::{Bind, Fallback, Forwarded, Listener, ProxyIn, Route, Split, Tls, Untrusted, keys};
use crate::server_name::NamePattern;

/// Words of the key `unknown_names`: whether such clients are refused.
const UNKNOWN_NAMES: [(&str, bool); 2] = [("default", false), ("refuse", true)];

/// A listener, and the places in the file that later checks report.
pub(super) struct ParsedListener<'d> {
    pub(super) config: Listener,
    pub(super) section: Section<'d>,
    /// Sections of the routes, in the order of `config.routes`.
    pub(super) routes: Vec<Section<'d>>,
    /// Byte offsets of the addresses, in the order of `config.bind`; one value may stand for two addresses.
    pub(super) binds: Vec<usize>,
    /// Every split of the file.
    splits: Rc<[Split]>,
}

/// One place where a listener names a pool.
pub(super) struct PoolUse<'w> {
    /// Section that names the pool; `key` is the key in it.
    pub(super) section: &'w Section<'w>,
    pub(super) key: &'static str,
    pub(super) pool: &'w str,
    /// Name of the split by which the listener names it; `None`: it names the pool itself.
    pub(super) split: Option<&'w str>,
    /// TLS mode of connections that reach the pool this way.
    pub(super) tls: Tls,
    /// True for `silent`: only clients that wait for the server to send first.
    pub(super) silent: bool,
    /// True if the route decides about requests alone.
    pub(super) requests: bool,
    /// True if clients may speak HTTP/2 there.
    pub(super) http2: bool,
    /// ALPN condition of the route; empty: no condition.
    pub(super) alpn: &'w [String],
    /// Server names or hosts of the route; empty: any name.
    pub(super) hosts: &'w [NamePattern],
}

impl ParsedListener<'_> {
    /// Every place where the listener or one of its routes names a pool.
    pub(super) fn pool_uses(&self) -> impl Iterator<Item = PoolUse<'_>> {
        let config = &self.config;
        let fallbacks = [("not_tls", fallback_pool(&config.not_tls)), ("silent", fallback_pool(&config.silent))];
        let fallbacks = fallbacks.into_iter().filter_map(|(key, pool)| Some((key, pool?, None, Tls::Off)));
        let default = self.led_to(config.pool.as_deref(), config.split.as_deref());
        let own = default.map(|(key, pool, split)| (key, pool, split, config.tls)).chain(fallbacks);
        let own = own.map(|(key, pool, split, tls)| PoolUse {
            section: &self.section,
            key,
            pool,
            split,
            tls,
            silent: key == "silent",
            requests: false,
            http2: config.http2,
            alpn: &[],
            hosts: &[],
        });
        let routes = self.routes.iter().zip(&config.routes).flat_map(|(section, route)| {
            self.led_to(route.pool(), route.split()).map(move |(key, pool, split)| PoolUse {
                section,
                key,
                pool,
                split,
                tls: route.tls,
                silent: false,
                requests: route.is_of_requests(),
                http2: route.http2,
                alpn: &route.alpn,
                hosts: route.hosts(),
            })
        });
        own.chain(routes).filter(|use_| !use_.pool.is_empty())
    }

    /// Key, pool and split of every pool that a default or a route leads to, by itself or as one of a split.
    pub(super) fn led_to<'w>(
        &'w self,
        pool: Option<&'w str>,
        split: Option<&'w str>,
    ) -> impl Iterator<Item = (&'static str, &'w str, Option<&'w str>)> {
        let of_name = |name: &'w str| self.splits.iter().filter(move |split| split.name == name);
        let of_split =
            move |name: &'w str| of_name(name).flat_map(Split::pools).map(move |pool| ("split", pool, Some(name)));
        pool.map(|pool| ("pool", pool, None)).into_iter().chain(split.into_iter().flat_map(of_split))
    }

    /// The split of this name.
    pub(super) fn split(&self, name: &str) -> Option<&Split> {
        self.splits.iter().find(|split| split.name == name)
    }

    /// Section, key and name of every split that the listener names.
    pub(super) fn splits_named(&self) -> impl Iterator<Item = (&Section<'_>, &'static str, &str)> {
        let own = self.config.split.as_deref().map(|split| (&self.section, "split", split));
        let routes = self.routes.iter().zip(&self.config.routes);
        let routes = routes.filter_map(|(section, route)| Some((section, "split", route.split()?)));
        own.into_iter().chain(routes).filter(|(.., name)| !name.is_empty())
    }

    /// Section, key and name of every pool that the listener names.
    pub(super) fn pools(&self) -> impl Iterator<Item = (&Section<'_>, &'static str, &str)> {
        self.pool_uses().map(|use_| (use_.section, use_.key, use_.pool))
    }

    /// True if the listener or one of its routes terminates TLS.
    pub(super) fn terminates(&self) -> bool {
        self.config.terminates()
    }
}

/// Reads a `[[listener]]` with its routes and certificates.
pub(super) fn listener<'d>(section: Section<'d>, resolve: Resolve<'_>, splits: &Rc<[Split]>) -> ParsedListener<'d> {
    let name = section.required("name", value::name).unwrap_or_default();
    let sections = section.children("route", &keys::ROUTE);
    has_bind_and_pool(&section, &sections);
    let tls = mode(&section);
    let http2 = section.read("http2", value::boolean).unwrap_or(true);
    let asked = tls::client_certificate(&section, &keys::CLIENT_CERTIFICATE);
    let client_certificate = asked.clone().flatten();
    let routes: Vec<_> = sections
        .iter()
        .map(|section| {
            let route = route::route(section, tls, http2);
            let own = tls::client_certificate(section, &keys::ROUTE_CLIENT_CERTIFICATE);
            if own.is_some() && !route.terminates() && !route.is_of_requests() {
                section.error("client_certificate", Bad::new("client_certificate needs tls = \"terminate\""));
            }
            let inherited = own.unwrap_or_else(|| client_certificate.clone());
            Route { client_certificate: inherited.filter(|_| route.terminates()), ..route }
        })
        .collect();
    let certificates = tls::certificates(&section);
    if !terminates(tls, &routes) {
        if asked.is_some() {
            let bad = Bad::new("client_certificate needs a listener or route that terminates TLS");
            section.error("client_certificate", bad.hint("write tls = \"terminate\""));
        }
    } else if certificates.is_empty() && section.count("certificate") == 0 {
        let hint = "write [[listener.certificate]] with cert and key";
        section.error("tls", Bad::new("terminates TLS and has no certificate").hint(hint));
    }
    let (binds, bind) = binds(&section, resolve);
    let forwarded =
        value::word(&[("append", Forwarded::Append), ("replace", Forwarded::Replace), ("off", Forwarded::Off)]);
    let limits = section.child("limits", &keys::LISTENER_LIMITS);
    let config = Listener {
        name,
        mode: section.read("mode", value::mode),
        group: section.read("group", value::group),
        tls,
        certificates,
        client_certificate: client_certificate.filter(|_| tls == Tls::Terminate),
        client_tls: section.read("client_tls", value::boolean).unwrap_or(false),
        http2,
        forwarded: section.read("forwarded", forwarded).unwrap_or(Forwarded::Replace),
        request_id: section.read("request_id", value::unless("off", value::id_header)).unwrap_or(None),
        pool: section.read("pool", value::name),
        split: section.read("split", value::name),
        max_connections: section
            .read("max_connections", value::unless("off", value::integer(1..=u64::from(u32::MAX))))
            .unwrap_or(None),
        backlog: section.read("backlog", value::integer(1..=65_535)).unwrap_or(4096),
        defer_accept_s: section.read("defer_accept", value::unless("off", seconds)).unwrap_or(None),
        limits: timeouts::of_listener(&limits),
        request_limits: request_limits::of_listener(&limits),
        proxy: proxy(&section, &bind),
        not_tls: section.read("not_tls", fallback).unwrap_or(Fallback::Refuse),
        silent: section.read("silent", fallback).unwrap_or(Fallback::Refuse),
        refuses_unknown_names: section.read("unknown_names", value::word(&UNKNOWN_NAMES)).unwrap_or(false),
        routes,
        error_pages: route::error_pages(&section),
        bind,
    };
    if tls == Tls::Off {
        no_hello_keys(&section, &sections);
    }
    judge(&section, &config);
    tie::check(&config.routes, &sections);
    ParsedListener { config, section, routes: sections, binds, splits: Rc::clone(splits) }
}

/// Reports keys that do not fit each other.
fn judge(section: &Section<'_>, config: &Listener) {
    if !config.bind.iter().any(|bind| matches!(bind, Bind::Unix(_))) {
        section.idle_keys(&["mode", "group"], "because the listener binds no unix socket of its own");
    }
    silent_clients_may_wait(section, config);
    names_may_be_unknown(section, config);
}

/// Reads a time of `defer_accept`, which the kernel counts in seconds.
fn seconds(value: &DeValue<'_>) -> ValueResult<u32> {
    let duration = value::duration(value::SECOND, value::MINUTE)(value)?;
    let whole = (duration.subsec_nanos() == 0).then(|| u32::try_from(duration.as_secs()).ok()).flatten();
    whole.ok_or_else(|| Bad::new("is not a whole number of seconds"))
}

/// Reports `defer_accept` where a client may wait for the server to send first, and where the kernel has no such option.
fn silent_clients_may_wait(section: &Section<'_>, config: &Listener) {
    if config.defer_accept_s.is_none() {
        return;
    }
    if let Some(pool) = fallback_pool(&config.silent) {
        let why =
            format!("defer_accept keeps the clients back that silent = \"{pool}\" serves: they send nothing first");
        section.error("defer_accept", Bad::new(why).hint("delete one of the two"));
    }
    if let Some(bind) = config.bind.iter().find(|bind| matches!(bind, Bind::Unix(_))) {
        let why = format!("defer_accept is an option of TCP, and bind \"{bind}\" is a unix socket");
        section.error("defer_accept", Bad::new(why).hint("give the unix socket a listener of its own"));
    }
    if config.bind.iter().all(|bind| matches!(bind, Bind::Systemd(_))) {
        section.idle_keys(&["defer_accept"], "on sockets of systemd: their unit has DeferAcceptSec=");
    }
}

/// Reports `unknown_names` where no certificate is shown to clients with a name that no route has.
fn names_may_be_unknown(section: &Section<'_>, config: &Listener) {
    if !section.has("unknown_names") {
        return;
    }
    let takes_any = |route: &Route| !route.is_of_requests() && route.sni.is_empty();
    if config.tls != Tls::Terminate {
        let hint = "without a pool of the listener, names that no route has are refused";
        section.error("unknown_names", Bad::new("unknown_names needs tls = \"terminate\"").hint(hint));
    } else if config.pool.is_none() && !config.takes_requests_alone() && !config.routes.iter().any(takes_any) {
        section.idle_keys(&["unknown_names"], "without a pool: names that no route has are refused");
    }
}

/// Reads `bind`: the byte offset of the value, for each address that it stands for, and the address.
fn binds(section: &Section<'_>, resolve: Resolve<'_>) -> (Vec<usize>, Vec<Bind>) {
    let values = section.list("bind", value::bind(resolve));
    values.into_iter().flat_map(|(at, addresses)| addresses.into_iter().map(move |address| (at, address))).unzip()
}

fn has_bind_and_pool(section: &Section<'_>, routes: &[Section<'_>]) {
    if !section.has("bind") {
        section.missing("has no bind");
    } else if section.count("bind") == 0 {
        section.error("bind", Bad::new("bind is empty"));
    }
    if section.has("pool") && section.has("split") {
        section.error("split", Bad::new("split is another goal than pool: a listener has one default"));
    }
    if !section.has("pool") && !section.has("split") && routes.is_empty() {
        section.missing("has neither a pool nor a route: every connection would be closed");
    }
}

/// Reads `tls`. An unknown word counts as "passthrough", so that it causes no further errors about the ClientHello.
fn mode(section: &Section<'_>) -> Tls {
    let default = if section.has("tls") { Tls::Passthrough } else { Tls::Off };
    section.read("tls", value::word(&tls::WORDS)).unwrap_or(default)
}

fn terminates(tls: Tls, routes: &[Route]) -> bool {
    tls == Tls::Terminate || routes.iter().any(Route::terminates)
}

fn proxy(section: &Section<'_>, bind: &[Bind]) -> Option<ProxyIn> {
    let untrusted = value::word(&[("refuse", Untrusted::Refuse), ("direct", Untrusted::Direct)]);
    let untrusted = section.read("untrusted", untrusted).unwrap_or(Untrusted::Refuse);
    let trust = section.list("trust", value::unless("unix", value::network));
    let may_be_unix = bind.iter().any(|bind| !matches!(bind, Bind::Tcp(_)));
    if let Some((at, _)) = trust.iter().find(|(_, network)| network.is_none() && !may_be_unix) {
        section.error_at(*at, Bad::new("trust \"unix\" is for unix sockets; this listener binds none"));
    }
    let trust = trust.into_iter().filter_map(|(_, network)| network).collect();
    (section.count("trust") > 0).then_some(ProxyIn { trust, untrusted })
}

fn fallback(value: &DeValue<'_>) -> ValueResult<Fallback> {
    Ok(match value::name(value)? {
        refuse if refuse == "refuse" => Fallback::Refuse,
        pool => Fallback::Pool(pool),
    })
}

fn fallback_pool(fallback: &Fallback) -> Option<&str> {
    match fallback {
        Fallback::Refuse => None,
        Fallback::Pool(pool) => Some(pool),
    }
}

/// Reports keys that need the ClientHello on a listener with `tls = "off"`.
fn no_hello_keys(listener: &Section<'_>, routes: &[Section<'_>]) {
    let keys = ["not_tls", "silent"].map(|key| (listener, key));
    let conditions = routes.iter().flat_map(|route| ["sni", "alpn"].map(|key| (route, key)));
    let modes = routes.iter().filter(|route| mode(route) != Tls::Off).map(|route| (route, "tls"));
    for (section, key) in
        keys.into_iter().chain(conditions).chain(modes).filter(|(section, key)| section.count(key) > 0)
    {
        let bad = Bad::new(format!("{key} needs a listener that reads the ClientHello"));
        section.error(key, bad.hint("write tls = \"passthrough\" or \"terminate\" in the listener"));
    }
}
