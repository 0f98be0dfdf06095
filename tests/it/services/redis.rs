//! Redis: many small exchanges, pipelines and long values.

use std::process::Command;

use crate::support::backend::{listener, pool};
use crate::support::program::{self, Program, find, free_address};
use crate::support::{Sessile, has};

#[test]
fn redis_benchmark_meets_no_error() {
    let test = "redis_benchmark_meets_no_error";
    let Some(server) = find(test, "redis-server") else { return };
    if !has(test, "redis-benchmark") || !has(test, "redis-cli") {
        return;
    }
    let addresses = [free_address(), free_address()];
    let _servers = addresses.map(|address| {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(&server);
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--protected-mode", "no", "--save", "", "--dir"]).arg(dir.path());
        Program::start(dir, command, address)
    });
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &addresses)));
    let port = sessile.address("l").port().to_string();
    let cli = |port: &str, host: &str, words: &[&str]| {
        program::output(Command::new("redis-cli").args(["-h", host, "-p", port]).args(words))
    };

    // A client that comes back finds what it left, though the two servers know nothing of each other.
    assert_eq!(cli(&port, "127.0.0.1", &["set", "left", "here"]), "OK\n");
    assert_eq!(cli(&port, "127.0.0.1", &["get", "left"]), "here\n");

    let benchmark = |options: &str| {
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q"]).args(options.split(' '));
        let said = program::output(&mut command);
        assert!(!said.to_lowercase().contains("error"), "{said}");
    };
    benchmark("-c 50 -n 10000 -t ping,set,get,incr,lpush,lrange_100,mset");
    benchmark("-c 20 -n 20000 -P 32 -t set,get");
    benchmark("-c 10 -n 1000 -d 300000 -t set,get");

    let errors: Vec<_> = addresses
        .map(|address| cli(&address.port().to_string(), &address.ip().to_string(), &["info", "stats"]))
        .map(|stats| stats.lines().find(|line| line.starts_with("total_error_replies")).unwrap().to_owned())
        .into();
    assert_eq!(errors, ["total_error_replies:0", "total_error_replies:0"]);
    let lines = sessile.lines_of_all();
    let blamed: Vec<_> =
        lines.iter().filter(|line| !["none", "client"].contains(&line["fault"].as_str().unwrap())).collect();
    assert!(blamed.is_empty(), "{blamed:?}");
    let backends: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line["backend"].as_str().unwrap().to_owned()).collect();
    assert_eq!(backends.len(), 1, "one client, one backend: {backends:?}");
}
