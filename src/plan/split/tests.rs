//! A change of a split in words.

use super::*;
use crate::config::check;
use crate::plan::{Ask, Plan};

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
        [
            "split \"shop\": added, new clients: b 100.0 %",
            "split \"web\": removed, what it knew of its clients says nothing any more",
        ]
    );
    // Half of its clients have lost their pool, which an allowance of less than all has to stop.
    let both = with(1, 1);
    let stopped = |old: &Config, new: &Config, most| Plan::new(old, new, Ask::about(&[])).too_much(most);
    assert_eq!(
        stopped(&both, &alone, 0.05),
        ["split \"web\": all clients of pool \"a\" would move, and 5.0 % is allowed"]
    );
    assert_eq!(stopped(&both, &alone, 1.0), stopped(&with(1, 1), &with(0, 1), 0.0));
    assert_eq!(stopped(&alone, &named, 0.5), ["split \"web\": every client would be new, and 50.0 % is allowed"]);
    assert_eq!(
        stopped(&both, &other, 0.5),
        ["split \"web\": all clients of pool \"a\" would move, and 50.0 % is allowed"]
    );
}

#[test]
fn a_plan_says_how_many_clients_of_a_split_with_a_key_get_another_pool() {
    let with = |a: u16, more: &str| {
        config("web", &format!("to = [{{ pool = \"a\", weight = {a} }}, {{ pool = \"b\" }}]\n{more}"))
    };
    let said = |old: &Config, new: &Config| SplitPlan::all(old, new)[0].to_string();
    let text = said(&with(9, "key = \"source\""), &with(4, "key = \"source\""));
    assert!(
        text.starts_with("split \"web\": new clients: a 80.0 %, b 20.0 % instead of a 90.0 %, b 10.0 %; "),
        "{text}"
    );
    let plan = SplitPlan::all(&with(9, "key = \"source\""), &with(4, "key = \"source\""));
    let moved = plan[0].moved_keys.unwrap();
    assert!((moved - 0.1).abs() < 0.01, "{moved}");
    assert!(text.ends_with(" of those that no stick table remembers get another pool"), "{text}");
    let stopped = |old: &Config, new: &Config, most| Plan::new(old, new, Ask::about(&[])).too_much(most);
    let by = |more: &str| with(3, &format!("key = \"source\"{more}"));
    assert_eq!(stopped(&by(""), &with(1, "key = \"source\""), 0.01), [""; 0], "stick tables keep them");
    let bare = |a: u16| {
        let mut config = with(a, "key = \"source\"");
        config.pools.iter_mut().for_each(|pool| pool.stick_table = None);
        config
    };
    assert_eq!((stopped(&bare(3), &bare(1), 0.2).len(), stopped(&bare(3), &bare(1), 0.3).len()), (1, 0));
    let all = "split \"web\": new clients as before; 100.0 % of those that no stick table remembers get another pool";
    assert_eq!(said(&with(1, "key = \"source\""), &with(1, "key = \"header:X-User\"")), all);
    assert_eq!(said(&with(1, ""), &with(1, "key = \"source\"")), all);
    let alone = config("web", "to = { pool = \"b\" }\nkey = \"source\"");
    assert!(said(&with(1, "key = \"source\""), &alone).ends_with("get another pool, and all clients of a"));
}
