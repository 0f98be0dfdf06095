//! Rules for pools with a source of backends.

use super::{check, config_of, resolve, shown, warnings};
use crate::config::{Discover, DiscoverSource, DnsIdentity, DnsName, DnsRecords, OnEmpty, Vanish};

fn site(pool: &str) -> String {
    format!("[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:80\"\npool = \"app\"\n[[pool]]\nname = \"app\"\n{pool}\n")
}

const FILE: &str = "[pool.discover]\nkind = \"file\"\npath = \"/run/app\"\n";

#[test]
fn a_source_alone_is_enough_and_backends_of_the_file_stand_beside_it() {
    let config = config_of(&site(FILE));
    let whole = Discover {
        source: DiscoverSource::File("/run/app".into()),
        vanish: Vanish::Drain,
        empty: OnEmpty::Keep,
        max_backends: 1_024,
        max_connections: None,
    };
    assert_eq!((config.pools[0].discover.as_ref(), config.pools[0].backends.len()), (Some(&whole), 0));
    let beside = site(&format!(
        "backend = {{ name = \"a\", address = \"10.0.0.1:80\", weight = 0, state = \"drain\" }}\n{FILE}"
    ));
    assert_eq!((config_of(&beside).pools[0].backends.len(), warnings(&beside)), (1, String::new()));
    let all = config_of(&site(&format!(
        "{FILE}vanish = \"down\"\nempty = \"apply\"\nmax_backends = 3\nmax_connections = 9\n"
    )));
    let all = all.pools[0].discover.clone().unwrap();
    assert_eq!((all.vanish, all.empty, all.max_backends), (Vanish::Down, OnEmpty::Apply, 3));
    assert_eq!(all.max_connections, Some(9));
}

#[test]
fn clients_may_wait_for_backends_that_are_found_with_a_limit() {
    let waits = |discover: &str| warnings(&site(&format!("on_full = \"queue\"\n{discover}")));
    let dns = "[pool.discover]\nkind = \"dns\"\nname = \"_http._tcp.web.example\"\n";
    assert!(waits(dns).contains("no client ever waits: no backend has max_connections"));
    assert_eq!(waits(&format!("{dns}max_connections = 100\n")), "");
    assert_eq!(waits(FILE), "", "a file may have it for each backend");
}

#[test]
fn a_range_may_be_pinned_to_what_a_source_names() {
    let pinned = site(&format!("range = {{ name = \"r\", cidr = \"10.0.0.0/8\", pin = [\"x\"] }}\n{FILE}"));
    assert_eq!(warnings(&pinned), "");
}

#[test]
fn each_mistake_is_named_at_its_place() {
    for (pool, problem) in [
        ("[pool.discover]\npath = \"/run/app\"", "7:1: pool \"app\": discover: has no kind"),
        ("[pool.discover]\nkind = \"file\"", "7:1: pool \"app\": discover: has no path"),
        (
            "[pool.discover]\nkind = \"fiel\"\npath = \"x\"",
            "8:8: pool \"app\": discover: kind \"fiel\" is not one of \"file\", \"dns\"",
        ),
        ("discover = \"file\"", "7:12: pool \"app\": discover \"file\" is not a table (hint: write [pool.discover])"),
        (
            &format!("{FILE}max_backends = 0"),
            "10:16: pool \"app\": discover: max_backends 0 is not between 1 and 16384",
        ),
        (
            &format!("{FILE}max_connections = 0"),
            "10:19: pool \"app\": discover: max_connections 0 is not between 1 and 4294967295 (hint: or \"off\")",
        ),
        (&format!("{FILE}vanish = \"drop\""), "10:10: pool \"app\": discover: vanish \"drop\" is not one of"),
        (&format!("stick_group = \"g\"\n{FILE}"), "7:15: pool \"app\": stick_group needs pools with the same backends"),
        ("", "pool \"app\": has no backend"),
    ] {
        let found = shown(&check(&site(pool), &resolve).unwrap_err());
        assert!(found.contains(problem), "{pool}: {found}");
    }
}

const DNS: &str = "[pool.discover]\nkind = \"dns\"\nname = \"_HTTP._tcp.web.example.\"\n";

/// The name whose records are the backends of the pool.
fn dns_name(keys: &str) -> DnsName {
    match config_of(&site(&format!("{DNS}{keys}"))).pools[0].discover.clone().unwrap().source {
        DiscoverSource::Dns(name) => name,
        DiscoverSource::File(path) => panic!("{path:?}"),
    }
}

#[test]
fn a_name_has_services_or_with_a_port_addresses() {
    let name = "_http._tcp.web.example".to_owned();
    let services = |identity| DnsName { name: name.clone(), records: DnsRecords::Services(identity) };
    assert_eq!(dns_name(""), services(DnsIdentity::Target));
    assert_eq!(dns_name("identity = \"address\""), services(DnsIdentity::Address));
    assert_eq!(dns_name("port = 8080").records, DnsRecords::Addresses(8080));
    assert_eq!(dns_name("port = 8080").to_string(), "dns _http._tcp.web.example port 8080");
    let idle = warnings(&site(&format!("{DNS}path = \"/run/app\"\nport = 80\nidentity = \"address\"")));
    assert!(idle.contains("path has no effect with kind = \"dns\""), "{idle}");
    assert!(idle.contains("identity has no effect with port: every address is a backend"), "{idle}");
    let idle = warnings(&site(&format!("{FILE}name = \"web.example\"")));
    assert!(idle.contains("name has no effect with kind = \"file\""), "{idle}");
}

#[test]
fn each_mistake_of_a_name_or_a_name_server_is_named_at_its_place() {
    let long = format!("{}.example", "a".repeat(64));
    for (keys, problem) in [
        ("kind = \"dns\"", "discover: has no name"),
        ("kind = \"dns\"\nname = \"a b\"", "9:8: pool \"app\": discover: name \"a b\" is not a name in DNS"),
        ("kind = \"dns\"\nname = \"a..b\"", "name \"a..b\" is not a name in DNS"),
        (&format!("kind = \"dns\"\nname = \"{long}\""), "is not a name in DNS"),
        ("kind = \"dns\"\nname = \"10.0.0.1\"", "name \"10.0.0.1\" is an address, not a name"),
        (
            "kind = \"dns\"\nname = \"a.example\"\nport = 0",
            "10:8: pool \"app\": discover: port 0 is not between 1 and 65535",
        ),
        (
            "kind = \"dns\"\nname = \"a.example\"\nidentity = \"pod\"",
            "identity \"pod\" is not one of \"target\", \"address\"",
        ),
    ] {
        let found = shown(&check(&site(&format!("[pool.discover]\n{keys}")), &resolve).unwrap_err());
        assert!(found.contains(problem), "{keys}: {found}");
    }
    for (servers, problem) in [
        ("\"dns.example\"", "resolvers \"dns.example\" is not the address of a name server"),
        ("\"0.0.0.0:53\"", "resolvers \"0.0.0.0:53\" is not an address that can be connected to"),
        ("[\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"10.0.0.4\"]", "resolvers has 4 name servers; the most is 3"),
    ] {
        let text = format!("[discovery]\nresolvers = {servers}\n{}", site(DNS));
        let found = shown(&check(&text, &resolve).unwrap_err());
        assert!(found.contains(problem), "{servers}: {found}");
    }
    let servers = config_of(&format!("[discovery]\nresolvers = [\"10.0.0.1\", \"[::1]:5353\"]\n{}", site(DNS)));
    assert_eq!(servers.process.resolvers, ["10.0.0.1:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
}

/// The file in `config/kubernetes.yaml`, without its indentation.
#[test]
fn the_configuration_for_kubernetes_is_good() {
    let manifest = include_str!("../../../../config/kubernetes.yaml");
    let (_, file) = manifest.split_once("sessile.toml: |\n").unwrap();
    let (file, _) = file.split_once("\n---\n").unwrap();
    let file: String = file.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect();
    assert_eq!(warnings(&file), "");
    let config = config_of(&file);
    assert!(config.pools[0].discover.is_some() && config.store.is_some(), "{config:?}");
}
