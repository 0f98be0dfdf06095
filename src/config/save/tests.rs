//! Texts before and after orders, in every form in which backends can be written.

use super::*;
use crate::config::{self, Config};

const TABLES: &str = r#"# the site
[[listener]]
name = "l"
bind = "127.0.0.1:1"
pool = "web"

[[pool]]
name = "web"   # the shop
check = "tcp"

[[pool.backend]]
name = "a"
address = "10.0.0.1:80"  # rack 1

# the second one
[[pool.backend]]
name = "b"
address = "10.0.0.2:80"
state = "drain"

[[pool.range]]
name = "office"
cidr = "10.0.0.0/8"
pin = ["a", "b"]

[[pool]]
name = "api"
backend = ["10.0.1.1:80"]
"#;

const LISTS: &str = r#"
listener = [{ name = "l", bind = "127.0.0.1:1", pool = "web" }]
[[pool]]
name = "web"
backend = [
    { name = "a", address = "10.0.0.1:80", weight = 3 },  # old
    { name = "b", address = "10.0.0.2:80" },              # new
]
"#;

fn order(backend: &str, kind: OrderKind) -> BackendOrder {
    BackendOrder { pool: "web".into(), backend: backend.into(), kind }
}

fn add(backend: &str) -> BackendOrder {
    order(backend, OrderKind::Add(NewBackend { weight: 2, ..NewBackend::at("10.0.0.9:80") }))
}

fn weight(backend: &str, weight: u16) -> BackendOrder {
    order(backend, OrderKind::Weight { weight: Some(weight) })
}

fn address(backend: &str) -> BackendOrder {
    order(backend, OrderKind::Address { address: Some("10.0.0.7:80".into()) })
}

fn remove(backend: &str) -> BackendOrder {
    order(backend, OrderKind::Remove { now: false })
}

fn saved(text: &str, orders: &[BackendOrder]) -> String {
    let saved = save_orders(text, orders).unwrap();
    assert!(saved.left_out.is_empty() && !saved.is_rewritten, "{saved:?}");
    checked(&saved.text);
    saved.text
}

fn checked(text: &str) -> Config {
    let checked = config::check(text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    checked.unwrap_or_else(|problems| panic!("{problems:?}\n{text}")).config
}

#[test]
fn tables_of_backends_change_in_place_and_comments_stay() {
    let orders = [add("d"), weight("a", 7), weight("b", 5), address("a")];
    let expected = TABLES
        .replace("address = \"10.0.0.1:80\"  # rack 1", "address = \"10.0.0.7:80\"  # rack 1\nweight = 7")
        .replace(
            "state = \"drain\"\n",
            "state = \"active\"\nweight = 5\n\n[[pool.backend]]\nname = \"d\"\naddress = \"10.0.0.9:80\"\nweight = 2\n",
        );
    assert_eq!(saved(TABLES, &orders), expected);
    let without_b = TABLES
        .replace("\n[[pool.backend]]\nname = \"b\"\naddress = \"10.0.0.2:80\"\nstate = \"drain\"\n", "\n")
        .replace("pin = [\"a\", \"b\"]", "pin = [\"a\"]");
    assert_eq!(saved(TABLES, &[remove("b")]), without_b);
}

#[test]
fn lists_of_backends_change_in_place() {
    let expected = LISTS
        .replace("weight = 3", "weight = 1")
        .replace("\"10.0.0.2:80\" },", "\"10.0.0.7:80\", weight = 0 },")
        .replace("# new\n", "# new\n    { name = \"d\", address = \"10.0.0.9:80\", weight = 2 },\n");
    let orders = [weight("a", 1), address("b"), weight("b", 0), add("d")];
    assert_eq!(saved(LISTS, &orders), expected);
    let without_a = LISTS.replace("    { name = \"a\", address = \"10.0.0.1:80\", weight = 3 },  # old\n", "");
    assert_eq!(saved(LISTS, &[remove("a")]), without_a);
    let without_b = LISTS.replace("    { name = \"b\", address = \"10.0.0.2:80\" },              # new\n", "");
    assert_eq!(saved(LISTS, &[remove("b")]), without_b);
}

#[test]
fn one_line_and_addresses_alone_change_in_place() {
    let text = |list: &str| {
        format!(
            "listener = {{ name = \"l\", bind = \"127.0.0.1:1\", pool = \"web\" }}\n[[pool]]\nname = \"web\"\nbackend = {list}\n"
        )
    };
    let before = text("[\"10.0.0.1:80\", \"10.0.0.2:80\"]");
    let new = "{ name = \"d\", address = \"10.0.0.9:80\", weight = 2 }";
    assert_eq!(saved(&before, &[add("d")]), text(&format!("[\"10.0.0.1:80\", \"10.0.0.2:80\", {new}]")));
    assert_eq!(saved(&before, &[remove("10.0.0.1-80")]), text("[\"10.0.0.2:80\"]"));
    assert_eq!(saved(&before, &[remove("10.0.0.2-80")]), text("[\"10.0.0.1:80\"]"));
    let table = "{ name = \"10.0.0.2-80\", address = \"10.0.0.2:80\", weight = 4 }";
    assert_eq!(saved(&before, &[weight("10.0.0.2-80", 4)]), text(&format!("[\"10.0.0.1:80\", {table}]")));
    let lines = text("[\n  \"10.0.0.1:80\",\n  \"10.0.0.2:80\"\n]");
    assert_eq!(saved(&lines, &[add("d")]), text(&format!("[\n  \"10.0.0.1:80\",\n  \"10.0.0.2:80\",\n  {new}\n]")));
    assert_eq!(saved(&lines, &[remove("10.0.0.2-80")]), text("[\n  \"10.0.0.1:80\",\n]"));
}

#[test]
fn a_pool_with_a_source_gets_its_first_table() {
    let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"web\"\n\n[[pool]]\nname = \"web\"\n\n\
                [pool.discover]\nkind = \"file\"\npath = \"/run/backends\" # by the sidecar\n\n[[pool]]\nname = \"api\"\n\
                backend = [\"10.0.1.1:80\"]\n";
    let table = "[[pool.backend]]\nname = \"d\"\naddress = \"10.0.0.9:80\"\nweight = 2\n";
    let expected = text.replace("# by the sidecar\n", &format!("# by the sidecar\n\n{table}"));
    assert_eq!(saved(text, &[add("d")]), expected);
    let found = save_orders(text, &[weight("pod-1", 3)]).unwrap();
    assert_eq!((found.text.as_str(), found.left_out.len()), (text, 1), "its source names it");
}

#[test]
fn what_cannot_be_changed_in_place_is_written_anew_and_means_the_same() {
    let text = "listener = { name = \"l\", bind = \"127.0.0.1:1\", pool = \"web\" }\n\
                pool = [{ name = \"web\", discover = { kind = \"file\", path = \"/run/b\" } }] # one line\n";
    let after = save_orders(text, &[add("d")]).unwrap();
    assert!(after.is_rewritten && !after.text.contains("one line"), "{after:?}");
    assert_eq!(checked(&after.text).pools[0].backends[0].address.to_string(), "10.0.0.9:80");
    assert!(save_orders("", &[add("d")]).is_err());
    assert_eq!(save_orders(TABLES, &[]).unwrap().text, TABLES);
    assert_eq!(save_orders(TABLES, &[add("a"), remove("z")]).unwrap().left_out.len(), 2);
}
