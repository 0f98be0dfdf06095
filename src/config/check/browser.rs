//! Checks that browsers keep the balancer's own cookies, each for its own pool.
//!
//! One cookie by itself is checked in `cookie.rs`; here it is compared with the listeners that send it and with the
//! cookies of other pools. Looks at no certificate. Invariant: without an error or warning, every client that a listener
//! sends to a pool may keep its cookie, and no other pool of the same host overwrites it.

use std::collections::{HashMap, HashSet};

use super::Bad;
use super::cookie::needs_secure;
use super::listener::{ParsedListener as Listener, PoolUse};
use super::pool::ParsedPool as Pool;
use super::split::ParsedSplit;
use crate::config::{Cookie, CookieMode, Fallback, InsertRules, Route, SameSite, Secure, Tls};
use crate::server_name::NamePattern;

/// Checks the own cookie of every pool.
pub(super) fn check(listeners: &[Listener<'_>], pools: &[Pool<'_>], splits: &[ParsedSplit<'_>]) {
    for pool in pools {
        let Some((cookie, insert)) = own_cookie(pool) else { continue };
        let of_pool = |use_: &PoolUse<'_>| use_.pool == pool.config.name && use_.tls != Tls::Passthrough;
        let uses: Vec<_> = listeners
            .iter()
            .flat_map(|listener| listener.pool_uses().map(move |use_| (listener, use_)))
            .filter(|(_, use_)| of_pool(use_))
            .collect();
        if insert.secure == Secure::Auto {
            clients_have_tls(&cookie.name, insert, &uses);
        }
        domain_is_of_the_names(insert, uses.iter().map(|(_, use_)| use_));
    }
    for split in splits {
        let Some(cookie @ Cookie { mode: CookieMode::Insert(insert), .. }) = split.config.cookie() else { continue };
        let Some(first) = split.config.to.first() else { continue };
        let of_split = |use_: &PoolUse<'_>| use_.split == Some(split.config.name.as_str()) && use_.pool == first.pool;
        // One use for each place that names the split, under its name.
        let uses: Vec<_> = listeners
            .iter()
            .flat_map(|listener| listener.pool_uses().map(move |use_| (listener, use_)))
            .filter(|(_, use_)| of_split(use_) && use_.tls != Tls::Passthrough)
            .map(|(listener, use_)| (listener, PoolUse { pool: &split.config.name, ..use_ }))
            .collect();
        if insert.secure == Secure::Auto {
            clients_have_tls(&cookie.name, insert, &uses);
        }
        domain_is_of_the_names(insert, uses.iter().map(|(_, use_)| use_));
    }
    names_differ(listeners, pools);
}

fn own_cookie<'p>(pool: &'p Pool<'_>) -> Option<(&'p Cookie, &'p InsertRules)> {
    match pool.config.cookie.as_ref()? {
        cookie @ Cookie { mode: CookieMode::Insert(insert), .. } => Some((cookie, insert)),
        _ => None,
    }
}

/// Reports listeners with clients that have no TLS, to which a cookie is sent without Secure, if browsers then refuse
/// the cookie or lose one of its attributes.
fn clients_have_tls(name: &str, insert: &InsertRules, uses: &[(&Listener<'_>, PoolUse<'_>)]) {
    let need_tls = [
        ("same_site \"none\"", insert.same_site == SameSite::None),
        ("partitioned", insert.partitioned),
        ("cross_site_twin", insert.cross_site_twin),
    ];
    let lost: Vec<_> = need_tls.into_iter().filter_map(|(what, is_set)| is_set.then_some(what)).collect();
    let is_everywhere = uses.iter().all(|(listener, use_)| is_in_clear(listener, use_));
    let hint = "TLS here; or, behind a TLS decoder, client_tls = true here or secure = \"on\" in the cookie";
    for (_, use_) in uses.iter().filter(|(listener, use_)| is_in_clear(listener, use_)) {
        let (key, pool) = (use_.key, use_.pool);
        if needs_secure(name) {
            let why = format!("{key} \"{pool}\" has the cookie \"{name}\", which browsers refuse without TLS");
            let bad = Bad::new(why).hint(hint);
            // A pool that also has clients with TLS sticks for these.
            if is_everywhere { use_.section.error(key, bad) } else { use_.section.warn(key, bad) }
        } else if !lost.is_empty() {
            let lost = lost.join(" and ");
            let why = format!("{key} \"{pool}\" has a cookie with {lost}, which browsers accept only with TLS");
            use_.section.warn(key, Bad::new(format!("{why}: it is sent without here")).hint(hint));
        }
    }
}

/// True if no client that comes this way can have TLS, to this process or to a proxy in front of it.
fn is_in_clear(listener: &Listener<'_>, use_: &PoolUse<'_>) -> bool {
    use_.tls == Tls::Off && !listener.config.client_tls && listener.config.proxy.is_none()
}

/// Warns of routes with a server name outside of the cookie's domain: browsers refuse the cookie there.
fn domain_is_of_the_names<'u>(insert: &InsertRules, uses: impl Iterator<Item = &'u PoolUse<'u>>) {
    let Some(domain) = insert.domain.as_ref().map(|domain| domain.as_str()) else { return };
    for use_ in uses {
        let is_outside = |pattern: &&NamePattern| match pattern {
            NamePattern::Exact(name) => !is_in(name.as_str(), domain),
            NamePattern::Below(above) => !is_in(above.as_str(), domain) && !is_in(domain, above.as_str()),
        };
        if let Some(pattern) = use_.hosts.iter().find(is_outside) {
            let key = if use_.requests { "host" } else { "sni" };
            let what = if use_.split.is_some() { "split" } else { "pool" };
            let why = format!(
                "{key} \"{pattern}\" is not in the domain \"{domain}\" of the cookie of {what} \"{}\"",
                use_.pool
            );
            use_.section.warn(key, Bad::new(format!("{why}: browsers refuse the cookie there")));
        }
    }
}

/// True if the name is the domain or below it.
fn is_in(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Warns of two pools with cookies that take each other's place in a browser: equal in name, domain and path.
fn names_differ(listeners: &[Listener<'_>], pools: &[Pool<'_>]) {
    let mut earlier: HashMap<String, Vec<&Pool<'_>>> = HashMap::new();
    for (pool, cookie) in pools.iter().filter_map(|pool| Some((pool, pool.config.cookie.as_ref()?))) {
        let meets = |other: &&&Pool<'_>| share_a_place(other, pool) && share_a_host(listeners, other, pool);
        let mut met = None;
        for name in cookie.names_in_browsers() {
            let same_name = earlier.entry(name.clone()).or_default();
            met = met.or_else(|| Some((name, *same_name.iter().find(meets)?)));
            same_name.push(pool);
        }
        let Some((name, other)) = met else { continue };
        let why = format!(
            "the cookie \"{name}\" is also that of pool \"{}\", and one host can reach both: each overwrites the other\'s",
            other.config.name
        );
        pool.section.warn("cookie", Bad::new(why).hint("another name, or one stick_group for both pools"));
    }
}

/// True if a browser keeps only one of two cookies of one name for a host that reaches both pools, and the pools do not
/// understand each other's.
fn share_a_place(one: &Pool<'_>, other: &Pool<'_>) -> bool {
    if one.config.stick_group.is_some() && one.config.stick_group == other.config.stick_group {
        return false;
    }
    match (own_cookie(one), own_cookie(other)) {
        (Some((_, one)), Some((_, other))) => (&one.domain, &one.path) == (&other.domain, &other.path),
        // Domain and path of an application's cookie are not known.
        (Some(_), None) | (None, Some(_)) => true,
        (None, None) => false,
    }
}

/// True if requests to one host name can reach both pools: on one listener or on two, because neither ports nor schemes
/// separate cookies.
fn share_a_host(listeners: &[Listener<'_>], one: &Pool<'_>, other: &Pool<'_>) -> bool {
    let domain = |pool: &Pool<'_>| own_cookie(pool).and_then(|(_, insert)| insert.domain.clone());
    if domain(one).is_some() && domain(one) == domain(other) {
        return true;
    }
    let reached =
        |host: &str| listeners.iter().flat_map(|listener| pools_of_host(listener, host)).collect::<HashSet<_>>();
    hosts(listeners).iter().any(|host| {
        let reached = reached(host);
        [one, other].iter().all(|pool| reached.contains(pool.config.name.as_str()))
    })
}

/// One host for each way in which the routes of the file can treat a name. A `*` is no part of a real name, so `*.d`
/// stands for all names below `d` that no route names more precisely, and `*` for all others.
fn hosts(listeners: &[Listener<'_>]) -> HashSet<String> {
    let patterns = listeners.iter().flat_map(|listener| &listener.config.routes).flat_map(Route::hosts);
    patterns.map(NamePattern::to_string).chain(["*".to_owned()]).collect()
}

/// Pools that connections to a host can reach on a listener. Conditions besides the name may hold or fail.
fn pools_of_host<'l>(listener: &'l Listener<'_>, host: &str) -> Vec<&'l str> {
    let config = &listener.config;
    let mut routes: Vec<_> = config
        .routes
        .iter()
        .filter_map(|route| Some((precision(route, host)?, is_conditional(route), route)))
        .collect();
    routes.sort_by_key(|(precision, is_conditional, _)| std::cmp::Reverse((*precision, *is_conditional)));
    let certain = routes.iter().position(|(_, is_conditional, _)| !is_conditional);
    let reached = &routes[..certain.map_or(routes.len(), |at| at + 1)];
    let named = reached.iter().flat_map(|(.., route)| listener.led_to(route.pool(), route.split()));
    let default = listener.led_to(config.pool.as_deref(), config.split.as_deref()).filter(|_| certain.is_none());
    let named = named.chain(default).map(|(_, pool, _)| pool);
    let not_tls = match &config.not_tls {
        Fallback::Pool(pool) => Some(pool.as_str()),
        Fallback::Refuse => None,
    };
    named.chain(not_tls).collect()
}

/// Length of the longest name of the route that matches the host; `None`: no name does. A route without names matches
/// with 0, and an exact name is longer than any pattern.
fn precision(route: &Route, host: &str) -> Option<usize> {
    let length = |pattern: &NamePattern| match pattern {
        NamePattern::Exact(name) => (name.as_str() == host).then_some(usize::MAX),
        NamePattern::Below(domain) => {
            (host != domain.as_str() && is_in(host, domain.as_str())).then(|| domain.as_str().len())
        }
    };
    let hosts = route.hosts();
    if hosts.is_empty() { Some(0) } else { hosts.iter().filter_map(length).max() }
}

fn is_conditional(route: &Route) -> bool {
    route.conditions() > 0 || !route.request.path.is_empty()
}

#[cfg(test)]
mod tests {
    use crate::config::check;

    fn problems(text: &str) -> Vec<String> {
        let checked = check(text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let found = checked.map_or_else(|problems| problems, |checked| checked.warnings);
        found.iter().map(ToString::to_string).collect()
    }

    fn listener(name: &str, keys: &str) -> String {
        format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\n{keys}\n")
    }

    fn pool(name: &str, cookie: &str) -> String {
        let backend = "backend = [{ name = \"a\", address = \"10.0.0.1:80\" }]";
        format!("[[pool]]\nname = \"{name}\"\nhttp = true\n{backend}\n{cookie}\n")
    }

    fn own(keys: &str) -> String {
        format!("cookie = {{ mode = \"insert\", keys = \"k\"{keys} }}")
    }

    const TLS: &str = "tls = \"terminate\"\ncertificate = [{ cert = \"c\" }]\n";

    #[test]
    fn a_cookie_is_named_after_its_pool_or_group() {
        let text =
            listener("l", "pool = \"a\"") + &pool("a", &own("")) + &pool("b", &(own("") + "\nstick_group = \"g\""));
        let checked = check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let names: Vec<_> =
            checked.config.pools.iter().map(|pool| pool.cookie.as_ref().unwrap().name.as_str()).collect();
        assert_eq!(names, ["SESSILE-a", "SESSILE-g"]);
    }

    #[test]
    fn a_name_that_needs_secure_is_refused_where_no_client_has_tls() {
        let secret = pool("p", &own(", name = \"__host-at\""));
        let plain = listener("plain", "pool = \"p\"");
        let why = "4:8: listener \"plain\": pool \"p\" has the cookie \"__host-at\", which browsers refuse without TLS (hint: ";
        let starts = |text: String, expected: &[&str]| {
            let found = problems(&text);
            assert_eq!(found.len(), expected.len(), "{text}\n{found:?}");
            assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:?}");
        };
        starts(plain.clone() + &secret, &[why]);
        // The same text for a warning: the pool also has clients with TLS.
        let both = plain.clone() + &listener("secure", &(TLS.to_owned() + "pool = \"p\"")) + &secret;
        starts(both.clone(), &[why]);
        assert!(check(&both, &|_| Err(std::io::ErrorKind::NotFound.into())).is_ok());
        assert!(check(&(plain + &secret), &|_| Err(std::io::ErrorKind::NotFound.into())).is_err());
        // A decoder in front may have decrypted TLS.
        for keys in [
            "pool = \"p\"\nclient_tls = true",
            "pool = \"p\"\ntrust = \"10.0.0.0/8\"",
            &(TLS.to_owned() + "pool = \"p\""),
        ] {
            starts(listener("l", keys) + &secret, &[]);
        }
        starts(listener("l", "pool = \"p\"") + &pool("p", &own(", name = \"__Secure-at\", secure = \"on\"")), &[]);
        let script = pool("p", &own(", name = \"__Host-Http-at\", secure = \"on\", http_only = false"));
        starts(listener("l", "pool = \"p\"") + &script, &["9:"]);
    }

    #[test]
    fn attributes_that_need_secure_are_warned_of_by_listener() {
        let text = listener("one", "pool = \"p\"")
            + &listener("two", &(TLS.to_owned() + "pool = \"p\""))
            + &pool("p", &own(", same_site = \"none\", partitioned = true"));
        let found = problems(&text);
        let why = "4:8: listener \"one\": pool \"p\" has a cookie with same_site \"none\" and partitioned, which browsers accept only \
                   with TLS: it is sent without here (hint: TLS here";
        assert!(found.len() == 1 && found[0].starts_with(why), "{found:?}");
    }

    #[test]
    fn a_domain_has_to_hold_the_names_of_its_routes() {
        let route = |sni: &str| format!("[[listener.route]]\nsni = {sni}\npool = \"p\"\n");
        let warned = |sni: &str| {
            let text = listener("l", TLS) + &route(sni) + &pool("p", &own(", domain = \"example.org\""));
            problems(&text)
        };
        for sni in ["\"example.org\"", "\"a.b.example.org\"", "\"*.example.org\"", "\"*.org\""] {
            assert!(warned(sni).is_empty(), "{sni}: {:?}", warned(sni));
        }
        for sni in ["\"example.net\"", "[\"example.org\", \"notexample.org\"]", "\"*.example.net\""] {
            assert_eq!(warned(sni).len(), 1, "{sni}");
            assert!(warned(sni)[0].contains("is not in the domain \"example.org\" of the cookie of pool \"p\""));
        }
    }

    /// Whether the second pool is warned of, for these keys of listeners and of both cookies.
    fn overwrites(listeners: &str, one: &str, other: &str) -> bool {
        let text = listeners.to_owned() + &pool("p", one) + &pool("q", other);
        let found = problems(&text);
        let why = "pool \"q\": the cookie \"AT\" is also that of pool \"p\", and one host can reach both";
        assert!(found.len() <= 1 && found.iter().all(|problem| problem.contains(why)), "{text}\n{found:?}");
        !found.is_empty()
    }

    #[test]
    fn pools_that_one_host_reaches_are_told_when_they_overwrite_each_others_cookie() {
        let two_ports = listener("l", "pool = \"p\"") + &listener("m", "pool = \"q\"");
        let at = |keys: &str| own(&format!(", name = \"AT\"{keys}"));
        assert!(overwrites(&two_ports, &at(""), &at("")));
        assert!(!overwrites(&two_ports, &own(""), &own("")), "each has the name of its pool");
        assert!(!overwrites(&two_ports, &at(""), &at(", path = \"/shop\"")));
        assert!(!overwrites(&two_ports, &at(""), &at(", domain = \"example.org\"")), "a browser keeps both");
        assert!(overwrites(&two_ports, &at(", domain = \"example.org\""), &at(", domain = \"example.org\"")));
        let group = "\nstick_group = \"g\"";
        assert!(!overwrites(&two_ports, &(at("") + group), &(at("") + group)));
        let other_keys = (at("") + group).replace("\"k\"", "\"l\"");
        let text = two_ports.clone() + &pool("p", &(at("") + group)) + &pool("q", &other_keys);
        assert!(problems(&text)[0].ends_with("the pool differs from pool \"p\" in keys of the cookie"));
        assert!(overwrites(&two_ports, &at(""), "cookie = { mode = \"route\", name = \"AT\" }"));
        assert!(!overwrites(
            &two_ports,
            "cookie = { mode = \"learn\", name = \"AT\" }",
            "cookie = { mode = \"route\", name = \"AT\" }"
        ));
        let networks = "[[listener.route]]\nsource = \"10.0.0.0/8\"\npool = \"q\"";
        assert!(overwrites(&listener("l", &format!("pool = \"p\"\n{networks}")), &at(""), &at("")));
    }

    #[test]
    fn a_twin_needs_tls_and_a_name_of_its_own_like_its_cookie() {
        let twin = |more: &str| own(&format!(", name = \"A\", cross_site_twin = true{more}"));
        let found = problems(&(listener("l", "pool = \"p\"") + &pool("p", &twin(""))));
        let why = "pool \"p\" has a cookie with cross_site_twin, which browsers accept only with TLS: it is sent without here";
        assert!(found.len() == 1 && found[0].contains(why), "{found:?}");
        let secure = listener("l", &format!("{TLS}pool = \"p\""));
        assert!(problems(&(secure.clone() + &pool("p", &twin("")))).is_empty());
        let none = problems(&(secure.clone() + &pool("p", &twin(", same_site = \"none\""))));
        assert!(none.len() == 1 && none[0].contains("cross_site_twin has no effect with same_site"), "{none:?}");
        let off = problems(&(secure + &pool("p", &twin(", secure = \"off\""))));
        assert!(off.len() == 1 && off[0].contains("cross_site_twin needs a secure cookie"), "{off:?}");
        let two =
            listener("l", &format!("{TLS}pool = \"p\"\n[[listener.route]]\nsource = \"10.0.0.0/8\"\npool = \"q\""));
        let found = problems(&(two + &pool("p", &twin("")) + &pool("q", &own(", name = \"ACORS\""))));
        assert!(found.len() == 1 && found[0].contains("the cookie \"ACORS\" is also that of pool \"p\""), "{found:?}");
        let key = pool("p", &twin("")).replace("http = true", "http = true\nkey = \"cookie:ACORS\"");
        let found = problems(&(listener("l", &format!("{TLS}pool = \"p\"")) + &key));
        assert!(found.len() == 1 && found[0].contains("\"ACORS\" is also the cookie of the pool's key"), "{found:?}");
    }

    #[test]
    fn pools_of_different_hosts_do_not_overwrite_each_others_cookie() {
        let at = own(", name = \"AT\"");
        let by_name = |more: &str, sni: &str, more_of_route: &str| {
            let route = format!("[[listener.route]]\nsni = {sni}\npool = \"q\"\n{more_of_route}");
            overwrites(&listener("l", &format!("{TLS}{more}\n{route}")), &at, &at)
        };
        assert!(!by_name("pool = \"p\"", "\"q.example\"", ""));
        assert!(!by_name("pool = \"p\"", "\"*.example\"", ""));
        assert!(by_name("pool = \"p\"", "\"q.example\"", "alpn = \"http/1.1\""), "the default if the condition fails");
        let route_of_p = |sni: &str| format!("[[listener.route]]\nsni = {sni}\npool = \"p\"");
        assert!(!by_name(&route_of_p("\"a.example\""), "\"*.example\"", ""), "the exact name wins");
        let other_port = listener("m", "pool = \"p\"");
        let route = format!("{TLS}[[listener.route]]\nsni = \"q.example\"\npool = \"q\"");
        assert!(overwrites(&(listener("l", &route) + &other_port), &at, &at), "every host reaches the other port");
    }
}
