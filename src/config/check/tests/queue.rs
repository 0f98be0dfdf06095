//! What becomes of clients of a full backend: `on_full` and the bounds of the lines.

use std::time::Duration;

use super::{config_of, resolve, shown};
use crate::config::{OnFull, QueueRules, check};

/// A pool with these keys; the backend has a limit.
fn pool(keys: &str) -> String {
    format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n{keys}\n\
         backend = [{{ name = \"a\", address = \"127.0.0.1:2\", max_connections = 10 }}]\n"
    )
}

#[test]
fn a_queue_has_a_most_and_an_end_whatever_the_file_says() {
    let rules = |keys: &str| config_of(&pool(keys)).pools[0].on_full;
    assert_eq!(rules(""), OnFull::Overflow);
    let usual = QueueRules { most: 1_000, timeout: Duration::from_secs(10) };
    assert_eq!(rules("on_full = \"queue\""), OnFull::Queue(usual));
    let own = QueueRules { most: 5, timeout: Duration::from_millis(200) };
    assert_eq!(rules("on_full = \"queue\"\nqueue_max = 5\nqueue_timeout = \"200ms\""), OnFull::Queue(own));
    for (keys, place) in [
        ("on_full = \"queue\"\nqueue_max = 0", "8:13"),
        ("on_full = \"queue\"\nqueue_max = 100001", "8:13"),
        ("on_full = \"queue\"\nqueue_timeout = \"off\"", "8:17"),
        ("on_full = \"queue\"\nqueue_timeout = \"11m\"", "8:17"),
        ("on_full = \"wait\"", "7:11"),
    ] {
        let problems = check(&pool(keys), &resolve).unwrap_err();
        assert!(problems.len() == 1 && shown(&problems).contains(place), "{keys}: {}", shown(&problems));
    }
}

#[test]
fn bounds_of_no_queue_and_a_queue_of_no_limit_are_warned_of() {
    let warned = |text: &str| shown(&check(text, &resolve).unwrap().warnings);
    let idle = warned(&pool("queue_max = 5\nqueue_timeout = \"1s\""));
    for key in ["queue_max", "queue_timeout"] {
        assert!(idle.contains(&format!("{key} has no effect without on_full = \"queue\"")), "{idle}");
    }
    let endless = warned(&pool("on_full = \"queue\"").replace(", max_connections = 10", ""));
    assert!(endless.contains("no client ever waits"), "{endless}");
}
