//! Tests of timeouts of a listener and a pool.

use std::time::Duration;

use super::{SMALL, config_of, resolve, shown, warnings};
use crate::config::check;

/// `SMALL` with tables behind it, the last of which may be `[pool.limits]`.
fn small(listener: &str, pool: &str, limits: &str) -> String {
    let text = SMALL.replace("pool = \"app\"", &format!("pool = \"app\"\n[listener.limits]\n{listener}"));
    format!("{text}\n[pool.limits]\n{pool}\n[limits]\n{limits}\n")
}

#[test]
fn the_nearest_timeout_counts_and_off_is_one() {
    let all = "idle_timeout = \"9m\"\nlifetime = \"9h\"\nhalf_close_timeout = \"9s\"\nkeepalive_timeout = \"90s\"";
    let config = config_of(&small("idle_timeout = \"off\"\nlifetime = \"2h\"", "lifetime = \"1h\"", all));
    let of_listener = config.limits.nearer(&config.listeners[0].limits);
    let of_pool = of_listener.nearer(&config.pools[0].limits);
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    assert_eq!((config.limits.idle_timeout, of_listener.idle_timeout), (Some(Duration::from_secs(540)), None));
    assert_eq!((config.limits.lifetime, of_listener.lifetime, of_pool.lifetime), (hours(9), hours(2), hours(1)));
    assert_eq!(of_pool.half_close_timeout, Some(Duration::from_secs(9)), "neither has one");
    assert_eq!((of_pool.idle_timeout, of_pool.keepalive_timeout), (None, Some(Duration::from_secs(90))));
}

#[test]
fn the_rules_of_a_timeout_are_those_of_limits() {
    let refused = |listener: &str, pool: &str| shown(&check(&small(listener, pool, ""), &resolve).unwrap_err());
    let found = refused("idle_timeout = \"1ms\"", "lifetime = 5\nhello_timeout = \"1s\"");
    let [listener, lifetime, hello] = found.lines().collect::<Vec<_>>()[..] else { panic!("{found}") };
    assert!(listener.contains("listener \"web\": limits: idle_timeout \"1ms\" "), "{listener}");
    assert!(lifetime.contains("pool \"app\": limits: lifetime "), "{lifetime}");
    assert!(hello.contains("unknown key \"hello_timeout\""), "{hello}");
    let long = warnings(&small("hello_timeout = \"2m\"", "", ""));
    assert!(long.contains("hello_timeout \"2m\" lets clients that send nothing hold a connection"), "{long}");
    let of_requests = warnings(&small("", "response_timeout = \"1s\"\nidle_timeout = \"1s\"", ""));
    assert!(of_requests.ends_with("response_timeout has no effect without http = true\n"), "{of_requests}");
    assert_eq!(of_requests.lines().count(), 1);
}
