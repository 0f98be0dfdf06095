//! Tests of `defer_accept`: where it is read, refused and without effect.

use super::{config_of, resolve, shown, warnings};
use crate::config::check;

/// A file with these keys in its listener.
fn file(keys: &str) -> String {
    let pool =
        "[[pool]]\nname = \"p\"\nbalance = \"random\"\nbackend = [{ name = \"a\", address = \"10.0.0.1:80\" }]\n";
    format!("[[listener]]\nname = \"l\"\npool = \"p\"\n{keys}\n{pool}")
}

fn seconds(value: &str) -> Option<u32> {
    config_of(&file(&format!("bind = \"127.0.0.1:0\"\n{value}"))).listeners[0].defer_accept_s
}

fn problems(keys: &str) -> String {
    shown(&check(&file(keys), &resolve).expect_err(keys))
}

#[test]
fn it_is_off_or_a_number_of_whole_seconds() {
    for (value, expected) in [("", None), ("defer_accept = \"off\"", None), ("defer_accept = \"1s\"", Some(1))] {
        assert_eq!(seconds(value), expected, "{value}");
    }
    assert_eq!(seconds("defer_accept = \"1m\""), Some(60));
    for (value, why) in
        [("500ms", "not between 1s and 1m"), ("61s", "not between"), ("1500ms", "whole number of seconds")]
    {
        let found = problems(&format!("bind = \"127.0.0.1:0\"\ndefer_accept = \"{value}\""));
        assert!(found.contains(why) && found.contains("defer_accept"), "{value}: {found}");
    }
}

#[test]
fn it_is_refused_for_clients_that_wait_for_the_server_and_for_unix_sockets() {
    let on = "defer_accept = \"5s\"";
    let waiting = format!("bind = \"127.0.0.1:0\"\n{on}\ntls = \"passthrough\"\nsilent = \"p\"");
    let route = "\n[[listener.route]]\nsni = \"a.example\"\npool = \"p\"";
    assert!(problems(&(waiting + route)).contains("they send nothing first"));
    let unix = problems(&format!("bind = [\"127.0.0.1:0\", \"unix:/run/a.sock\"]\n{on}"));
    assert!(unix.contains("is an option of TCP") && unix.contains("unix:/run/a.sock"), "{unix}");
}

#[test]
fn it_has_no_effect_on_sockets_of_systemd_alone() {
    let on = "defer_accept = \"5s\"";
    assert!(warnings(&file(&format!("bind = \"systemd:web\"\n{on}"))).contains("DeferAcceptSec="));
    assert_eq!(warnings(&file(&format!("bind = [\"systemd:web\", \"127.0.0.1:0\"]\n{on}"))), "");
}
