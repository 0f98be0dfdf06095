//! A change of a split in words.

use super::*;
use crate::config::check;

fn config(split: &str, to: &str) -> Config {
    let pool = |name: &str| format!("[[pool]]\nname = \"{name}\"\nhttp = true\nbackend = \"127.0.0.1:2\"\n");
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\nsplit = \"{split}\"\n[[split]]\nname = \"{split}\"\n{to}\n{}{}",
        pool("a"),
        pool("b")
    );
    check(&text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap_or_else(|problems| panic!("{problems:?}")).config
}

#[test]
fn a_plan_says_what_new_clients_get_and_that_known_ones_stay() {
    let with = |a: u16, b: u16| {
        config("web", &format!("to = [{{ pool = \"a\", weight = {a} }}, {{ pool = \"b\", weight = {b} }}]"))
    };
    let said =
        |old: &Config, new: &Config| -> Vec<_> { SplitPlan::all(old, new).iter().map(ToString::to_string).collect() };
    assert!(said(&with(9, 1), &with(9, 1)).is_empty());
    assert_eq!(
        said(&with(9, 1), &with(3, 1)),
        ["split \"web\": new clients: a 75.0 %, b 25.0 % instead of a 90.0 %, b 10.0 %; no known client moves"]
    );
    let alone = config("web", "to = { pool = \"b\" }");
    assert_eq!(
        said(&with(0, 1), &alone),
        [
            "split \"web\": new clients: b 100.0 % instead of a 0.0 %, b 100.0 %; clients of a get another pool, others stay"
        ]
    );
    let named = config("web", "to = { pool = \"b\" }\ncookie = { name = \"AT\" }");
    assert_eq!(
        said(&alone, &named),
        ["split \"web\": new clients as before; its cookie has another name: every client is new"]
    );
    let other = config("shop", "to = { pool = \"b\" }");
    assert_eq!(
        said(&alone, &other),
        ["split \"shop\": added, new clients: b 100.0 %", "split \"web\": removed, its cookie says nothing any more",]
    );
}
