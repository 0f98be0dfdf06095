//! Differences of files, key by key.

use super::*;
use crate::config::keys::{self, TableKeys};
use crate::config::{Address, check, diff};

/// Keys of the process that a reload puts in force; all others of their tables are among those of another time.
const AT_ONCE: [(&str, &str); 13] = [
    ("", "watch"),
    ("", "stop_grace"),
    ("", "stop_deadline"),
    ("", "upgrade_deadline"),
    ("", "stick_table_file"),
    ("", "stick_table_interval"),
    ("log", "format"),
    ("log", "connections"),
    ("log", "output"),
    ("log", "fields"),
    ("log", "sample"),
    ("metrics", "pools"),
    ("discovery", "resolvers"),
];

/// A file in which this key of this table has this value; tables of a list have names, where they may have one.
fn file(of: &TableKeys, key: &str, value: Value) -> Table {
    let path: Vec<_> = of.table.trim_matches(['[', ']']).split('.').filter(|name| !name.is_empty()).collect();
    let mut inner = Table::from_iter([(key.to_owned(), value)]);
    for depth in (0..path.len()).rev() {
        let full = path[..=depth].join(".");
        let list = keys::ALL.iter().find(|known| known.table == format!("[[{full}]]"));
        if list.is_some_and(|known| known.keys.contains(&"name")) && !inner.contains_key("name") {
            inner.insert("name".to_owned(), Value::from("x"));
        }
        let inner_value = if list.is_some() { Value::Array(vec![Value::Table(inner)]) } else { Value::Table(inner) };
        inner = Table::from_iter([(path[depth].to_owned(), inner_value)]);
    }
    inner
}

#[test]
fn every_key_that_a_file_may_have_is_named_when_it_changes() {
    for of in keys::ALL {
        for key in of.keys {
            let (old, new) = (file(of, key, Value::from("old")), file(of, key, Value::from("new")));
            let lines: Vec<_> = changed(&old, &new).iter().map(ToString::to_string).collect();
            if *key == "name" && of.table.starts_with("[[") {
                // Another name is another object.
                assert!(
                    lines.len() == 2 && lines[0].ends_with(" added") && lines[1].ends_with(" removed"),
                    "{lines:?}"
                );
                continue;
            }
            let word = format!("{key} changed, takes effect ");
            assert!(lines.len() == 1 && lines[0].contains(&word), "{} {key}: {lines:?}", of.table);
            assert!(changed(&old, &old).is_empty());
            // Written in one of the files only.
            let without = file(of, "another", Value::from("same"));
            let mut with = file(of, "another", Value::from("same"));
            add(&mut with, &file(of, key, Value::from("new")));
            for (before, after) in [(&without, &with), (&with, &without)] {
                let lines: Vec<_> = changed(before, after).iter().map(ToString::to_string).collect();
                assert!(lines.len() == 1 && lines[0].contains(&format!("{key} ")), "{} {key}: {lines:?}", of.table);
            }
        }
    }
}

/// Adds the keys of one file to those of another that has the same objects.
fn add(to: &mut Table, more: &Table) {
    for (key, value) in more {
        match (to.get_mut(key), value) {
            (Some(Value::Table(to)), Value::Table(more)) => add(to, more),
            (Some(Value::Array(to)), Value::Array(more)) => {
                let pair = to[0].as_table_mut().zip(more[0].as_table());
                pair.into_iter().for_each(|(to, more)| add(to, more));
            }
            _ => drop(to.insert(key.clone(), value.clone())),
        }
    }
}

/// A new key of the process must be given its time here, or the log says something untrue of it.
#[test]
fn every_key_of_the_process_has_its_time() {
    for of in [&keys::TOP, &keys::ADMIN, &keys::LOG, &keys::METRICS, &keys::DISCOVERY] {
        let table = of.table.trim_matches(['[', ']']);
        let tables = ["admin", "log", "metrics", "discovery", "tls", "limits", "store", "listener", "pool", "split"];
        for key in of.keys.iter().filter(|key| !table.is_empty() || !tables.contains(*key)) {
            let times = AT_ONCE.iter().chain(&NEXT_START).filter(|known| **known == (table, *key)).count();
            assert_eq!(times, 1, "[{table}] {key}: when does a change take effect?");
        }
    }
    let known = |table: &str, key: &str| {
        let of = |of: &&&TableKeys| of.table.trim_matches(['[', ']']) == table && of.keys.contains(&key);
        keys::ALL.iter().any(|keys| of(&keys))
    };
    assert!(NEXT_START.iter().all(|(table, key)| known(table, key)));
}

const POOLS: &str = "[[listener]]\nname = 'l'\nbind = '127.0.0.1:1'\npool = 'p'\n\
                     [[pool]]\nname = 'p'\nbackend = [{ name = 'a', address = '127.0.0.1:2' }]\n";

fn config(text: &str) -> Config {
    check(text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_or_else(|e| panic!("{text}\n{e:?}")).config
}

fn changes(old: &str, new: &str) -> Vec<String> {
    diff::changes(&config(old), &config(new))
}

#[test]
fn a_line_says_which_key_of_what_and_when() {
    let with = |top: &str, more: &str| format!("{top}\n{POOLS}{more}\n");
    for (old, new, line) in [
        (with("", ""), with("stop_deadline = '1s'", ""), "stop_deadline changed, takes effect at once"),
        (with("workers = 1", ""), with("", ""), "workers changed, takes effect at the next start"),
        (with("", ""), with("[log]\nlevel = 'warn'", ""), "log.level changed, takes effect at the next start"),
        (
            with("[log]\nformat = 'text'", ""),
            with("[log]\nformat = 'json'", ""),
            "log.format changed, takes effect at once",
        ),
        (
            with("[limits]\nidle_timeout = '1m'", ""),
            with("[limits]\nidle_timeout = '2m'", ""),
            "limits.idle_timeout changed, takes effect at once",
        ),
        (with("", ""), with("[limits]\nkeepalive = '2m'", ""), "limits.keepalive changed, takes effect at once"),
        (with("", ""), with("", "remember = '1h'"), "pool \"p\": remember changed, takes effect at once"),
        (with("", ""), with("", "[pool.eject]\nfailures = 9"), "pool \"p\": eject added, takes effect at once"),
        (
            with("", "[pool.eject]\nfailures = 9"),
            with("", "[pool.eject]\nfailures = 8"),
            "pool \"p\": eject.failures changed, takes effect at once",
        ),
        (
            with("", "[[pool.range]]\nname = 'r'\ncidr = '10.0.0.0/8'\none = true"),
            with("", "[[pool.range]]\nname = 'r'\ncidr = '10.0.0.0/9'\none = true"),
            "range \"p/r\": cidr changed, takes effect at once",
        ),
        (with("", ""), with("", "[[pool.range]]\nname = 'r'\ncidr = '10.0.0.0/8'\none = true"), "range \"p/r\" added"),
        (
            with("", ""),
            with("", "").replace("'127.0.0.1:2' }", "'127.0.0.1:2', weight = 2 }"),
            "backend \"p/a\": weight changed, takes effect at once",
        ),
        (
            with("", ""),
            with("", "").replace("pool = 'p'", "pool = 'p'\nbacklog = 9"),
            "listener \"l\": backlog changed, takes effect at once",
        ),
        (with("", ""), with("watch = false", ""), "watch changed, without effect"),
        (
            with("", "remember = '1d'"),
            with("", "remember = '1d'\napp_session_timeout = '1h'"),
            "pool \"p\": app_session_timeout changed, without effect",
        ),
    ] {
        assert_eq!(changes(&old, &new), [line]);
        assert!(changes(&new, &new).is_empty());
    }
}

#[test]
fn routes_are_compared_by_position_while_there_are_as_many() {
    let route = |name: &str| format!("[[listener.route]]\nsource = '{name}'\npool = 'p'\n");
    let with = |routes: &[&str]| {
        let routes: String = routes.iter().map(|name| route(name)).collect();
        POOLS.replace("[[pool]]", &format!("{routes}[[pool]]"))
    };
    assert_eq!(
        changes(&with(&["10.0.0.0/8", "11.0.0.0/8"]), &with(&["10.0.0.0/8", "12.0.0.0/8"])),
        ["route \"l/#2\": source changed, takes effect at once"]
    );
    assert_eq!(
        changes(&with(&["10.0.0.0/8"]), &with(&["9.0.0.0/8", "10.0.0.0/8"])),
        ["listener \"l\": route changed, takes effect at once"]
    );
}

#[test]
fn a_name_that_resolves_to_another_address_is_a_change_of_its_backend() {
    let text = POOLS.replace("127.0.0.1:2", "app.example:2");
    let at = |address: &str| {
        let mut config = config(&text);
        let backend = config.pools[0].backends.iter_mut().find(|backend| backend.host.is_some());
        backend.unwrap().address = Address::Tcp(address.parse().unwrap());
        config
    };
    assert_eq!(diff::changes(&at("10.0.0.1:2"), &at("10.0.0.2:2")), ["backend \"p/a\" changed"]);
    assert!(diff::changes(&at("10.0.0.1:2"), &at("10.0.0.1:2")).is_empty());
}

#[test]
fn what_needs_a_start_is_said_until_there_is_one() {
    let with = |top: &str| config(&format!("{top}\n{POOLS}"));
    let (started, next) = (with("workers = 1"), with("workers = 2"));
    let warning = ["workers: changed in the file; takes effect at the next start"];
    assert_eq!(diff::warnings(&started, &started, &next), warning);
    assert_eq!(diff::warnings(&started, &next, &next), warning, "the next reload does not forget");
    assert!(diff::warnings(&started, &next, &started).is_empty(), "back to what is in force");
}

#[test]
fn stick_tables_are_shared_from_the_next_start_on_and_the_rest_at_once() {
    let with = |share: &str| {
        let store = "[store]\nkind = 'redis'\nurl = 'redis://h:1'\nsecret_file = '/s'\n";
        format!("{store}share = [{share}]\n{POOLS}remember = '1h'\n")
    };
    let (orders, all) = (with("'orders'"), with("'orders', 'displaced'"));
    let at_once = "store.share changed, takes effect at once";
    let in_part = format!("{at_once}, but \"displaced\" at the next start");
    assert_eq!(changes(&with("'cookies'"), &orders), [at_once]);
    assert_eq!(changes(&orders, &all), [&*in_part]);
    assert_eq!(changes(&all, &orders), [at_once]);
    let other = all.replace("'/s'", "'/other'");
    assert_eq!(changes(&all, &other), [in_part.replace("share", "secret_file")]);
    assert_eq!(changes(&orders, &orders.replace("'/s'", "'/other'")), [at_once.replace("share", "secret_file")]);
    let added = changes(&format!("{POOLS}remember = '1h'\n"), &all);
    assert_eq!(added, ["store added, takes effect at once, but \"displaced\" at the next start"]);
    let warnings = |started: &str| diff::warnings(&config(started), &config(&orders), &config(&all));
    assert_eq!(warnings(&orders), ["store.share: changed in the file; \"displaced\" takes effect at the next start"]);
    assert!(warnings(&all).is_empty(), "back to what the process was started with");
}

#[test]
fn no_value_is_shown() {
    let store = |password: &str| format!("[store]\nkind = 'redis'\nurl = 'redis://h:1'\npassword = '{password}'\n");
    let learn = POOLS.replace("name = 'p'\nb", "name = 'p'\nhttp = true\ncookie = { mode = 'learn', name = 'S' }\nb");
    let (old, new) = (store("first-secret") + &learn, store("other-secret") + &learn);
    let (old, new) = (config(&old), config(&new));
    assert_eq!(diff::changes(&old, &new), ["store.password changed, takes effect at once"]);
    let shown = format!("{old:?}{new:?}");
    assert!(!shown.contains("first-secret") && !shown.contains("other-secret"), "nor by Debug");
}
