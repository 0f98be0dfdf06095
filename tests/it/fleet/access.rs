//! The user of the store in the example of several balancers: what it may do is enough.

use serde_json::Value;

use super::orders::{all_have, draining, order};
use super::{Fleet, number};
use crate::support::{Sessile, eventually};

/// The words for redis-cli in the example.
fn example() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/shared-store.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| !line.contains("ACL SETUSER"));
    let lines = lines.take_while(|line| line.starts_with("#   "));
    let words = lines.flat_map(|line| line.trim_start_matches('#').split_whitespace());
    words.map(|word| word.replace("PASSWORD", "12345")).collect()
}

#[test]
fn the_user_of_the_example_may_do_all_that_is_needed() {
    let options = "http = true\nbalance = \"least_connections\"\ncookie = { mode = \"learn\", name = \"S\" }\n";
    let Some(mut fleet) = Fleet::start("the_user_of_the_example_may_do_all_that_is_needed", 0, options) else { return };
    let command = example();
    let words: Vec<_> = command.iter().map(String::as_str).collect();
    assert_eq!(words[..3], ["ACL", "SETUSER", "sessile"]);
    assert_eq!(fleet.redis.cli(&words).trim(), "OK");
    let share = "share = [\"cookies\", \"displaced\", \"orders\"]\n";
    fleet.store = format!("user = \"sessile\"\npassword = \"12345\"\nbudget = \"1s\"\n{share}");
    (0..2).for_each(|_| fleet.join(3, ""));
    fleet.knows_all();
    order(&fleet.instances[0], "b0", "drain");
    all_have(&fleet, &[draining(), Value::Null, Value::Null]);
    for instance in &fleet.instances {
        let working = |instance: &Sessile| {
            let status = instance.status();
            let is_well = |of: &str| {
                status[of]["state"] == "working" && status[of]["complaint"].as_str().unwrap_or_default().is_empty()
            };
            (is_well("store") && is_well("fleet")).then_some(())
        };
        eventually("both to work", || working(instance));
        assert_eq!((number(instance, "refused"), number(instance, "lost")), (0, 0));
    }
    let refused = fleet.redis.cli(&["ACL", "LOG"]);
    assert_eq!(refused.trim(), "", "commands that the server has refused");
}
