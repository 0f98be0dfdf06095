//! Tests of limits of requests in `[limits]`, of a listener and of a pool.

use super::{SMALL, config_of, resolve, shown, warnings};
use crate::config::{KeyPart, RequestRate, check};

/// `SMALL`, whose pool reads HTTP, with limits of its listener, of its pool and of all.
fn small(listener: &str, pool: &str, limits: &str) -> String {
    let text = SMALL.replace("pool = \"app\"", &format!("pool = \"app\"\n[listener.limits]\n{listener}"));
    let text = text.replace("name = \"app\"", "name = \"app\"\nhttp = true");
    format!("{text}\n[pool.limits]\n{pool}\n[limits]\n{limits}\n")
}

#[test]
fn the_nearest_limit_of_requests_counts() {
    let config = config_of(&small("body_max = \"off\"", "body_max = \"1 MiB\"", "body_max = \"1 GiB\""));
    let (all, listener, pool) =
        (&config.limits.requests, &config.listeners[0].request_limits, &config.pools[0].request_limits);
    assert_eq!((all.body_max, listener.over(all).body_max), (Some(Some(1 << 30)), Some(None)));
    assert_eq!(pool.over(listener).over(all).body_max, Some(Some(1 << 20)));
    let none = config_of(SMALL);
    assert_eq!((none.limits.requests.body_max, none.pools[0].request_limits.body_max), (Some(None), None));
}

#[test]
fn a_rate_of_requests_is_read_with_the_keys_beside_it() {
    let of = |keys: &str| config_of(&small("", keys, "")).pools[0].request_limits.request_rate.clone();
    let rate = |count, per_s, burst, by| Some(Some(RequestRate { count, per_s, burst, by }));
    assert_eq!(of("request_rate = \"10/m\""), rate(10, 60, 10, KeyPart::Source));
    let whole = "request_rate = \"100/s\"\nrequest_burst = 200\nrequest_key = \"header:X-User\"";
    assert_eq!(of(whole), rate(100, 1, 200, KeyPart::Header("x-user".into())));
    assert_eq!((of("request_rate = \"off\""), of("")), (Some(None), None));
    let refused = |keys: &str| shown(&check(&small("", keys, ""), &resolve).unwrap_err());
    for (keys, wanted) in [
        ("request_rate = 5", "request_rate 5 is not a rate"),
        ("request_rate = \"5/d\"", "request_rate \"5/d\" is not a rate"),
        ("request_rate = \"0/s\"", "request_rate \"0/s\" is not a rate of 1 to 1000000"),
        ("request_rate = \"5/s\"\nrequest_burst = 0", "request_burst 0 is not between 1 and 1000000"),
        ("request_rate = \"5/s\"\nrequest_key = \"none\"", "request_key \"none\" names no client"),
        ("request_rate = \"5/s\"\nrequest_key = \"user\"", "request_key \"user\" is not a key"),
    ] {
        assert!(refused(keys).contains(&format!("pool \"app\": limits: {wanted}")), "{}", refused(keys));
    }
    let idle = warnings(&small("request_rate = \"5/s\"", "request_burst = 9\nrequest_key = \"source\"", ""));
    for key in ["request_burst", "request_key"] {
        assert!(idle.contains(&format!("limits: {key} has no effect without a request_rate beside it")), "{idle}");
    }
    assert_eq!(idle.lines().count(), 2);
}

#[test]
fn slow_bodies_and_long_connections_are_bounded_everywhere_by_one_rule() {
    let keys = "body_rate_min = \"4 KiB/s\"\nbody_time_max = \"5m\"";
    let config = config_of(&small(&format!("{keys}\nrequests_max = 7"), keys, keys));
    let pool = &config.pools[0].request_limits;
    for limits in [&config.limits.requests, &config.listeners[0].request_limits, pool] {
        let time = Some(Some(std::time::Duration::from_secs(300)));
        assert_eq!((limits.body_rate_min, limits.body_time_max), (Some(Some(4 << 10)), time));
    }
    assert_eq!((config.listeners[0].request_limits.requests_max, pool.requests_max), (Some(Some(7)), None));
    let none = config_of(SMALL).limits.requests;
    assert_eq!((none.body_rate_min, none.body_time_max, none.requests_max), (Some(None), Some(None), Some(None)));
    let refused = |keys: &str| shown(&check(&small(keys, "", ""), &resolve).unwrap_err());
    for (keys, wanted) in [
        ("body_rate_min = 500", "body_rate_min 500 is not a size a second"),
        ("body_rate_min = \"0/s\"", "body_rate_min \"0/s\" is not between 1 KiB/s and 1 GiB/s"),
        ("body_time_max = \"1\"", "body_time_max \"1\" is not a duration"),
        ("requests_max = 0", "requests_max 0 is not between 1 and 1000000000"),
    ] {
        assert!(refused(keys).contains(&format!("listener \"web\": limits: {wanted}")), "{}", refused(keys));
    }
    let of_pool = shown(&check(&small("", "requests_max = 7", ""), &resolve).unwrap_err());
    assert!(of_pool.contains("pool \"app\": limits: unknown key \"requests_max\""), "{of_pool}");
    let bytes = small("", keys, "").replace("http = true", "");
    assert_eq!(warnings(&bytes).lines().filter(|line| line.ends_with("has no effect without http = true")).count(), 2);
}

#[test]
fn limits_of_requests_have_the_same_bounds_everywhere_and_need_http() {
    let refused = shown(&check(&small("body_max = 5", "body_max = \"1\"", "body_max = \"0\""), &resolve).unwrap_err());
    let [listener, pool, all] = refused.lines().collect::<Vec<_>>()[..] else { panic!("{refused}") };
    assert!(listener.contains("listener \"web\": limits: body_max 5 "), "{listener}");
    assert!(pool.contains("pool \"app\": limits: body_max \"1\" is not a size"), "{pool}");
    assert!(all.contains("limits: body_max \"0\" is not between 1 KiB and 1024 GiB"), "{all}");
    let bytes = small("", "body_max = \"1 KiB\"", "").replace("http = true", "");
    let heads = shown(
        &check(&small("head_max = \"1 KiB\"\nfields_max = 129", "head_max = \"8 KiB\"", ""), &resolve).unwrap_err(),
    );
    assert!(heads.contains("listener \"web\": limits: head_max \"1 KiB\" is not between 4 KiB and 32 KiB"), "{heads}");
    assert!(heads.contains("fields_max 129 is not between 32 and 128"), "{heads}");
    assert!(heads.contains("pool \"app\": limits: unknown key \"head_max\""), "{heads}");
    assert!(warnings(&bytes).ends_with("body_max has no effect without http = true\n"), "{}", warnings(&bytes));
}
