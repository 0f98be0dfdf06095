//! Which clients the routes of small files lead elsewhere, and how a plan counts them.

use super::*;
use crate::config;
use crate::plan::{Ask, ListedClient, Plan};

const POOLS: &str = "[[pool]]\nname = \"p\"\nbackend = [{ name = \"a\", address = \"127.0.0.1:1\" }]\n\
                     [[pool]]\nname = \"q\"\nbackend = [{ name = \"b\", address = \"127.0.0.1:2\" }]\n";

/// A file with one listener of TLS that has these keys, these routes and a default pool.
fn config(keys: &str, routes: &[&str]) -> Config {
    let listener = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:443\"\ntls = \"passthrough\"\n";
    let route = |route: &&str| format!("[[listener.route]]\n{}\n", route.replace("; ", "\n"));
    let text = format!("{listener}{keys}\n{}{POOLS}", routes.iter().map(route).collect::<String>());
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    checked.unwrap_or_else(|problems| panic!("{text}: {problems:?}")).config
}

/// Every move, as `ROUTE: FROM > TO`.
fn moves(old: &Config, new: &Config) -> Vec<String> {
    let moves = Ways::new(old, new).moves().into_iter();
    moves.map(|it| format!("{}: {} > {}", it.route, it.from, it.to.as_deref().unwrap_or("-"))).collect()
}

#[test]
fn a_route_that_leads_elsewhere_is_named_and_no_other() {
    let to_p = |routes: &[&str]| config("pool = \"p\"", routes);
    let plain = to_p(&[]);
    let api = to_p(&["sni = \"api.test\"; pool = \"q\""]);
    assert_eq!(moves(&plain, &plain), [""; 0]);
    assert_eq!(moves(&plain, &api), ["sni api.test: p > q"]);
    assert_eq!(moves(&api, &plain), ["sni api.test: q > p"]);
    let named = to_p(&["sni = \"api.test\"; pool = \"p\""]);
    assert_eq!(moves(&plain, &named), [""; 0], "the same pool by another rule");
    // What a narrower rule leads elsewhere is told apart from what the wider one does.
    let below = to_p(&["sni = \"*.test\"; pool = \"q\"", "sni = \"api.test\"; pool = \"p\""]);
    assert_eq!(moves(&plain, &below), ["sni *.test: p > q"]);
    assert_eq!(moves(&below, &api), ["sni *.test: q > p", "sni api.test: p > q"]);
    let by_source = to_p(&["source = \"10.0.0.0/8\"; pool = \"q\""]);
    assert_eq!(moves(&plain, &by_source), ["source 10.0.0.0/8: p > q"]);
    let by_alpn = to_p(&["sni = [\"a.test\", \"b.test\"]; alpn = \"h2\"; pool = \"q\""]);
    assert_eq!(moves(&plain, &by_alpn), ["sni a.test b.test, alpn h2: p > q"]);
    // A combination of the conditions of two rules.
    let name_first = to_p(&["source = \"10.0.0.0/8\"; pool = \"q\"", "sni = \"a.test\"; pool = \"p\""]);
    assert_eq!(moves(&by_source, &name_first), ["sni a.test: q > p"]);
}

#[test]
fn a_route_of_requests_that_leads_elsewhere_is_named_too() {
    let http = |routes: &[&str]| {
        let route = |route: &&str| format!("[[listener.route]]\n{}\n", route.replace("; ", "\n"));
        let listener = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:80\"\npool = \"p\"\n";
        let pools = POOLS.replace("name = \"p\"\n", "name = \"p\"\nhttp = true\n");
        let pools = pools.replace("name = \"q\"\n", "name = \"q\"\nhttp = true\n");
        let text = format!("{listener}{}{pools}", routes.iter().map(route).collect::<String>());
        let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        checked.unwrap_or_else(|problems| panic!("{text}: {problems:?}")).config
    };
    let plain = http(&[]);
    let by_path = http(&["host = \"a.test\"; path = \"/api\"; pool = \"q\""]);
    assert_eq!(moves(&plain, &by_path), ["host a.test, path /api: p > q"]);
    assert_eq!(moves(&by_path, &plain), ["host a.test, path /api: q > p"]);
    assert_eq!(moves(&by_path, &by_path), [""; 0]);
    let by_field = http(&["method = \"POST\"; header = { X-A = \"1\" }; pool = \"q\""]);
    assert_eq!(moves(&plain, &by_field), ["method POST, header x-a=1: p > q"]);
    let denied = http(&["path = \"=/admin\"; respond = { status = 403 }"]);
    assert_eq!(moves(&plain, &denied), ["path =/admin: p > -"]);
    let told = Plan::new(&plain, &denied, Ask::about(&[])).routes[0].to_string();
    let expected =
        "clients of route \"path =/admin\" of listener \"l\" no longer come to pool \"p\": the route answers them";
    assert_eq!(told, expected);
}

#[test]
fn a_default_a_fallback_and_a_listener_that_go_are_told() {
    let (p, q) = (config("pool = \"p\"", &[]), config("pool = \"q\"", &[]));
    assert_eq!(moves(&p, &q), ["default: p > q"]);
    assert_eq!(moves(&p, &config("", &["sni = \"a.test\"; pool = \"p\""])), ["default: p > -"]);
    let silent = config("pool = \"p\"\nsilent = \"p\"", &["sni = \"a.test\"; pool = \"q\""]);
    let elsewhere = config("pool = \"p\"\nsilent = \"q\"", &["sni = \"a.test\"; pool = \"q\""]);
    assert_eq!(moves(&silent, &elsewhere), ["silent: p > q"]);
    // Under another name it is the same listener, as long as clients reach it at the same address.
    let mut renamed = p.clone();
    renamed.listeners[0].name = "m".into();
    assert_eq!(moves(&p, &renamed), [""; 0]);
    renamed.listeners[0].bind = vec!["127.0.0.1:444".parse().unwrap()];
    assert_eq!(moves(&p, &renamed), ["default: p > -"]);
}

#[test]
fn a_pool_that_no_route_leads_to_any_more_loses_all_clients_and_one_of_several_routes_some() {
    let away = |old: &Config, new: &Config, pool: &str| {
        let Away { routed, to } = Ways::new(old, new).away_from(pool);
        (routed, to)
    };
    let (p, q) = (config("pool = \"p\"", &[]), config("pool = \"q\"", &[]));
    assert_eq!(away(&p, &q, "p"), (RoutedAway::All, Some(Some("q".to_owned()))));
    assert_eq!(away(&p, &q, "q"), (RoutedAway::None, None), "it gets clients, and loses none");
    let api = config("pool = \"p\"", &["sni = \"api.test\"; pool = \"q\""]);
    assert_eq!(away(&p, &api, "p"), (RoutedAway::Some, None));
    assert_eq!(away(&api, &p, "q"), (RoutedAway::All, Some(Some("p".to_owned()))));
    // A pool with the same stick table knows the clients of the other one.
    let grouped = |mut config: Config| {
        config.pools.iter_mut().for_each(|pool| pool.stick_group = Some("g".into()));
        config
    };
    assert_eq!(away(&grouped(p), &grouped(q), "p"), (RoutedAway::None, None));
}

#[test]
fn a_plan_of_two_files_counts_what_only_routes_move() {
    let (p, q) = (config("pool = \"p\"", &[]), config("pool = \"q\"", &[]));
    let all = Plan::new(&p, &q, Ask::about(&[]));
    assert_eq!((all.pools[0].moving(), all.pools[1].moving(), all.too_much(0.5).len()), (1.0, 0.0, 1));
    assert_eq!(
        all.routes[0].to_string(),
        "clients of route \"default\" of listener \"l\" go to pool \"q\" instead of \"p\""
    );
    let api = config("pool = \"p\"", &["sni = \"api.test\"; pool = \"q\""]);
    let some = Plan::new(&p, &api, Ask::about(&[]));
    assert_eq!((some.pools[0].routed_away, some.pools[0].moving()), (RoutedAway::Some, 0.0), "how many is not known");
    // Of a list it is known.
    let client = |sni: &str| ListedClient { source: "192.0.2.1".parse().unwrap(), sni: Some(sni.to_owned()) };
    let listed = [client("www.test"), client("api.test")];
    let some = Plan::new(&p, &api, Ask::about(&listed));
    let told = some.pools[0].listed.as_ref().unwrap();
    assert_eq!((told.known, told.new), (1, 1), "{told:?}");
    assert_eq!((told.each[0].to.as_deref(), told.each[1].to.as_deref()), (Some("a"), Some("pool q")));
}
