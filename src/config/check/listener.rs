//! One listener and its routes.
//!
//! Whether the pools it names exist is for `whole.rs`. Invariant: a listener binds somewhere and leads somewhere, and
//! what is said about TLS is said of a listener that looks at TLS.

use super::{Bad, tie};
use toml::de::DeValue;

use crate::config::file::Section;
use crate::config::value::{self, Read};
use crate::config::{Bind, Fallback, Listener, ProxyIn, Route, Tls, Untrusted, keys};

/// A listener and where it was written.
pub(super) struct Written<'d> {
    pub(super) meant: Listener,
    pub(super) section: Section<'d>,
    /// Sections of its routes, in the same order.
    pub(super) routes: Vec<Section<'d>>,
    /// Places of its binds, in the same order.
    pub(super) binds: Vec<usize>,
}

impl Written<'_> {
    /// Every pool it names: the section and key that name it, and the name.
    pub(super) fn pools(&self) -> impl Iterator<Item = (&Section<'_>, &'static str, &str)> {
        let meant = &self.meant;
        let own = [
            ("pool", meant.pool.as_deref()),
            ("not_tls", fallback_pool(&meant.not_tls)),
            ("silent", fallback_pool(&meant.silent)),
        ];
        let own = own.into_iter().filter_map(|(key, pool)| pool.map(|pool| (&self.section, key, pool)));
        let routes = self.routes.iter().zip(&meant.routes);
        let routes = routes.map(|(section, route)| (section, "pool", route.pool.as_str()));
        own.chain(routes).filter(|(_, _, pool)| !pool.is_empty())
    }
}

/// Reads a `[[listener]]`.
pub(super) fn listener(section: Section<'_>) -> Written<'_> {
    let name = section.required("name", value::name).unwrap_or_default();
    let tls = section.read("tls", value::word(&[("off", Tls::Off), ("passthrough", Tls::Passthrough)]));
    let is_off = tls == Some(Tls::Off) || !section.has("tls");
    let routes = section.children("route", &keys::ROUTE);
    if !section.has("bind") {
        section.missing("has no bind");
    } else if section.count("bind") == 0 {
        section.error("bind", Bad::new("bind is empty"));
    }
    if !section.has("pool") && routes.is_empty() {
        section.missing("has neither a pool nor a route: every connection would be closed");
    }
    let (binds, bind): (Vec<_>, Vec<_>) = section.list("bind", value::bind).into_iter().unzip();
    let meant = Listener {
        name,
        tls: if is_off { Tls::Off } else { Tls::Passthrough },
        pool: section.read("pool", value::name),
        max_connections: section
            .read("max_connections", value::unless("off", value::integer(1..=u64::from(u32::MAX))))
            .unwrap_or(None),
        backlog: section.read("backlog", value::integer(1..=65_535)).unwrap_or(4096),
        proxy: proxy(&section, &bind),
        not_tls: section.read("not_tls", fallback).unwrap_or(Fallback::Refuse),
        silent: section.read("silent", fallback).unwrap_or(Fallback::Refuse),
        routes: routes.iter().map(route).collect(),
        bind,
    };
    if is_off {
        no_tls_rules(&section, &routes);
    }
    tie::check(&meant.routes, &routes);
    Written { meant, section, routes, binds }
}

fn route(section: &Section<'_>) -> Route {
    if ["sni", "alpn", "source"].iter().all(|key| section.count(key) == 0) {
        let hint = "write its pool as the listener's pool";
        section.error_at(section.start, Bad::new("has no condition").hint(hint));
    }
    Route {
        sni: section.values("sni", value::name_pattern),
        alpn: section.values("alpn", value::alpn),
        source: section.values("source", value::network),
        pool: section.required("pool", value::name).unwrap_or_default(),
    }
}

fn proxy(section: &Section<'_>, bind: &[Bind]) -> Option<ProxyIn> {
    let untrusted = value::word(&[("refuse", Untrusted::Refuse), ("direct", Untrusted::Direct)]);
    let untrusted = section.read("untrusted", untrusted).unwrap_or(Untrusted::Refuse);
    let trust = section.list("trust", value::unless("unix", value::network));
    let may_be_unix = bind.iter().any(|bind| !matches!(bind, Bind::Tcp(_)));
    if let Some((at, _)) = trust.iter().find(|(_, network)| network.is_none() && !may_be_unix) {
        section.error_at(*at, Bad::new("trust \"unix\" is meant for unix sockets; this listener binds none"));
    }
    let trust = trust.into_iter().filter_map(|(_, network)| network).collect();
    (section.count("trust") > 0).then_some(ProxyIn { trust, untrusted })
}

fn fallback(value: &DeValue<'_>) -> Read<Fallback> {
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

/// Rules that only a listener with `tls = "passthrough"` can follow.
fn no_tls_rules(listener: &Section<'_>, routes: &[Section<'_>]) {
    let keys = ["not_tls", "silent"].map(|key| (listener, key));
    let conditions = routes.iter().flat_map(|route| ["sni", "alpn"].map(|key| (route, key)));
    for (section, key) in keys.into_iter().chain(conditions).filter(|(section, key)| section.count(key) > 0) {
        let bad = Bad::new(format!("{key} needs a listener that reads the hello"));
        section.error(key, bad.hint("write tls = \"passthrough\" in the listener"));
    }
}
