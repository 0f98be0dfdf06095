//! Plans of small files, each for one thing.

use super::*;

fn config(text: &str) -> Config {
    let text =
        format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n{text}");
    config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_or_else(|e| panic!("{e:?}")).config
}

fn backends(names: &[&str]) -> String {
    let one = |(n, name): (usize, &&str)| format!("{{ name = \"{name}\", address = \"127.0.0.1:{}\" }}", n + 1);
    format!("backend = [{}]\n", names.iter().enumerate().map(one).collect::<Vec<_>>().join(", "))
}

#[test]
fn nothing_moves_where_nothing_changes() {
    let same = config(&backends(&["a", "b", "c"]));
    let plan = Plan::new(&same, &same, Ask::about(&[]));
    assert_eq!((plan.too_much(0.0), plan.pools[0].new_keys, plan.changes.len()), (vec![], 0.0, 0));
}

#[test]
fn one_of_four_takes_a_fourth_from_each_and_only_of_new_clients() {
    let (old, new) = (config(&backends(&["a", "b", "c"])), config(&backends(&["a", "b", "c", "d"])));
    let pool = Plan::new(&old, &new, Ask::about(&[])).pools.remove(0);
    assert!((pool.new_keys - 0.25).abs() < 0.005, "{pool:?}");
    assert_eq!(pool.known_keys, 0.0);
    assert!(pool.moves.len() == 3 && pool.moves.iter().all(|row| row.to.as_deref() == Some("d")), "{pool:?}");
    let forgetful = |names: &[&str]| config(&("stick_table = \"0\"\n".to_owned() + &backends(names)));
    let plan = Plan::new(&forgetful(&["a", "b", "c"]), &forgetful(&["a", "b", "c", "d"]), Ask::about(&[]));
    assert!((plan.pools[0].moving() - 0.25).abs() < 0.005);
    assert_eq!(plan.too_much(0.2).len(), 1);
    assert_eq!(plan.too_much(0.3).len(), 0);
}

#[test]
fn clients_of_a_removed_backend_move_known_or_not() {
    let (old, new) = (config(&backends(&["a", "b", "c"])), config(&backends(&["a", "b"])));
    let pool = Plan::new(&old, &new, Ask::about(&[])).pools.remove(0);
    assert!((pool.known_keys - 1.0 / 3.0).abs() < 0.005 && pool.known_keys == pool.new_keys, "{pool:?}");
}

#[test]
fn who_is_known_at_a_draining_backend_stays_there() {
    let drained = backends(&["a", "b"]).replacen(" }", ", state = \"drain\" }", 1);
    let pool = Plan::new(&config(&backends(&["a", "b"])), &config(&drained), Ask::about(&[])).pools.remove(0);
    assert!((pool.new_keys - 0.5).abs() < 0.005 && pool.known_keys == 0.0, "{pool:?}");
}

#[test]
fn where_load_places_new_clients_known_ones_are_told_and_nothing_is_foretold_of_the_rest() {
    let load =
        |names: &[&str]| config(&("balance = \"least_connections\"\nkey = \"source\"\n".to_owned() + &backends(names)));
    let clients: Vec<_> = (1..=40_u8).map(|n| ListedClient { source: [192, 0, 2, n].into(), sni: None }).collect();
    let plan = |old: &Config, new: &Config| Plan::new(old, new, Ask::about(&clients)).pools.remove(0);
    let names = ["a", "b", "c"];
    let grown = plan(&load(&names), &load(&["a", "b", "c", "d"]));
    assert!(grown.sticks && grown.by_load && grown.listed.is_none(), "{grown:?}");
    assert_eq!((grown.new_keys, grown.known_keys, grown.moves.len()), (0.0, 0.0, 0));
    let removed = plan(&load(&names), &load(&["a", "b"]));
    assert!((removed.known_keys - 1.0 / 3.0).abs() < 0.005 && removed.new_keys == 0.0, "{removed:?}");
    let moves: Vec<_> = removed.moves.iter().map(|row| (row.from.as_str(), row.to.as_deref())).collect();
    assert_eq!(moves, [("c", Some(BY_LOAD))]);
    // Another method keeps who is known, and where the others would have gone is not known.
    let hash = |names: &[&str]| config(&backends(names));
    let changed = plan(&hash(&names), &load(&names));
    let listed = changed.listed.as_ref().unwrap();
    assert_eq!((changed.known_keys, listed.known, listed.new), (0.0, 0, 0), "{changed:?}");
    assert!(listed.each.iter().all(|client| client.new_to.as_deref() == Some(BY_LOAD) && client.to == client.from));
    let listed = plan(&hash(&names), &load(&["a", "b"])).listed.unwrap();
    let gone = |client: &Foreseen| client.from.as_deref() == Some("c");
    assert_eq!(listed.known, listed.each.iter().filter(|client| gone(client)).count());
    assert!(listed.known > 0 && listed.each.iter().filter(|c| gone(c)).all(|c| c.to.as_deref() == Some(BY_LOAD)));
    let back = plan(&load(&names), &hash(&names));
    assert!(back.by_load && back.known_keys == 0.0 && back.new_keys == 0.0 && back.moves.is_empty(), "{back:?}");
}

#[test]
fn who_has_a_cookie_stays_where_nobody_is_remembered() {
    let shop = |names: &[&str]| {
        let more = "http = true\nstick_table = \"0\"\ncookie = { mode = \"route\", name = \"SID\" }\n";
        config(&(more.to_owned() + &backends(names)))
    };
    let pool = Plan::new(&shop(&["a", "b", "c"]), &shop(&["a", "b", "c", "d"]), Ask::about(&[])).pools.remove(0);
    assert!((pool.new_keys - 0.25).abs() < 0.005 && pool.known_keys == 0.0, "{pool:?}");
    let pool = Plan::new(&shop(&["a", "b", "c"]), &shop(&["a", "b"]), Ask::about(&[])).pools.remove(0);
    assert!((pool.known_keys - 1.0 / 3.0).abs() < 0.005, "{pool:?}");
}

#[test]
fn a_pool_that_is_removed_takes_all_its_clients_with_it() {
    let (old, mut new) = (config(&backends(&["a"])), config(&backends(&["a"])));
    new.pools[0].name = "q".into();
    let plan = Plan::new(&old, &new, Ask::about(&[]));
    assert_eq!(plan.pools.len(), 1);
    assert!(plan.pools[0].removed && plan.pools[0].moving() == 1.0);
}

#[test]
fn keys_of_every_kind_are_sampled() {
    for (listener, key) in [
        ("tls = \"passthrough\"", "\"sni\""),
        ("tls = \"passthrough\"", "[\"source\", \"sni\"]"),
        ("trust = [\"192.0.2.0/24\"]", "\"tlv:0xE0\""),
    ] {
        let with = |names: &[&str]| {
            let start = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n{listener}\n");
            let text = format!("{start}[[pool]]\nname = \"p\"\nkey = {key}\n{}", backends(names));
            config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()))
                .unwrap_or_else(|e| panic!("{e:?}"))
                .config
        };
        let plan = Plan::new(&with(&["a"]), &with(&["a", "b"]), Ask::about(&[]));
        assert!((plan.pools[0].new_keys - 0.5).abs() < 0.005, "{key}: {plan:?}");
    }
}

#[test]
fn smaller_limits_are_told() {
    let with = |pool: &str, limits: &str| config(&format!("{pool}{}[limits]\n{limits}\n", backends(&["a"])));
    let (wide, narrow) = (
        with("stick_table = \"1 MiB\"\n", "max_connections = 100\nlifetime = \"off\"\nidle_timeout = \"1h\""),
        with("stick_table = \"64 KiB\"\n", "max_connections = 50\nlifetime = \"1h\"\nidle_timeout = \"2h\""),
    );
    assert_eq!(
        Plan::new(&wide, &narrow, Ask::about(&[])).warnings,
        [
            "max_connections shrinks: 100 to 50",
            "lifetime shrinks: no limit to 3600s",
            "pool \"p\": stick_table shrinks: room for 65536 clients to room for 4096 clients",
        ]
    );
    assert_eq!(Plan::new(&narrow, &wide, Ask::about(&[])).warnings, ["idle_timeout shrinks: 7200s to 3600s"]);
    let own = config(&format!("{}[pool.limits]\nidle_timeout = \"1m\"\n", backends(&["a"])));
    let none = config(&backends(&["a"]));
    let expected = "pool \"p\": idle_timeout shrinks: 3600s to 60s";
    assert_eq!(Plan::new(&none, &own, Ask::about(&[])).warnings, [expected]);
    assert!(Plan::new(&own, &none, Ask::about(&[])).warnings.is_empty());
}

#[test]
fn a_cookie_that_its_holders_lose_counts_as_a_move_of_all_of_them() {
    use crate::snapshot::Rings;
    use crate::sticky::cookie::KeyRing;
    use std::sync::Arc;

    const OLD: &str = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
    const NEW: &str = "1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c";
    let ring = |keys: &[&str]| Arc::new(KeyRing::parse(&keys.join("\n")).unwrap());
    let rings = |files: &[(&str, &[&str])]| {
        let mut rings = Rings::default();
        files.iter().for_each(|(path, keys)| rings.add((*path).into(), ring(keys), None));
        rings
    };
    let shop = |keys: &str, more: &str| {
        let cookie = format!("cookie = {{ mode = \"insert\", name = \"S\", keys = \"{keys}\" }}\n");
        config(&format!("http = true\nbalance = \"round_robin\"\n{cookie}{more}{}", backends(&["a", "b"])))
    };
    let moving = |old: &Config, new: &Config, before: &Rings, after: &Rings| {
        let ask = Ask { keys: CookieKeys::new(before, after), ..Ask::about(&[]) };
        let plan = Plan::new(old, new, ask);
        (plan.pools[0].moving(), plan.too_much(0.99).len(), plan.warnings.len())
    };
    let (one, two) = (shop("/one", ""), shop("/two", ""));
    let of = |keys: &[&str]| (rings(&[("/one", keys)]), rings(&[("/two", keys)]));
    let ((old, old_in_two), (new, new_in_two), (both, both_in_two)) = (of(&[OLD]), of(&[NEW]), of(&[NEW, OLD]));
    assert_eq!(moving(&one, &one, &old, &old), (0.0, 0, 0));
    assert_eq!(moving(&one, &two, &old, &old_in_two), (0.0, 0, 0), "another file with the same keys");
    assert_eq!(moving(&one, &two, &old, &both_in_two), (0.0, 0, 0), "and one with a new key before the old one");
    assert_eq!(moving(&one, &two, &old, &new_in_two), (1.0, 1, 1));
    assert_eq!(moving(&one, &one, &old, &new), (1.0, 1, 1), "other keys in the same file");
    assert_eq!(moving(&one, &one, &both, &new), (0.0, 0, 1), "a key that does not seal any more is dropped");
    // Where the keys are not there, files are told apart by their names.
    assert_eq!(Plan::new(&one, &two, Ask::about(&[])).too_much(0.99).len(), 1);
    assert_eq!(Plan::new(&one, &one, Ask::about(&[])).too_much(0.0).len(), 0);
    // A pool that goes takes its cookie along, whatever it is called next.
    let mut renamed = one.clone();
    renamed.pools[0].name = "q".into();
    let plan = Plan::new(&one, &renamed, Ask::about(&[]));
    assert_eq!(
        plan.too_much(0.99),
        ["pool \"p\": all holders of cookie \"S\" would move, and 99.0 % is allowed: the pool is removed"]
    );
    // A first cookie takes none away.
    let none = config(&format!("http = true\nbalance = \"round_robin\"\n{}", backends(&["a", "b"])));
    assert_eq!(Plan::new(&none, &one, Ask::about(&[])).too_much(0.0).len(), 0);
    // In mode `hash` the value is the key: another name is another key.
    let hash = |name: &str| {
        config(&format!("http = true\ncookie = {{ mode = \"hash\", name = \"{name}\" }}\n{}", backends(&["a", "b"])))
    };
    assert_eq!(Plan::new(&hash("A"), &hash("A"), Ask::about(&[])).too_much(0.0).len(), 0);
    assert_eq!(Plan::new(&hash("A"), &hash("B"), Ask::about(&[])).too_much(0.99).len(), 1);
}
