//! [`lower_limits`]: every limit that a new configuration lowers.
//!
//! Reports them without judging: connections above a lowered limit stay open, and new ones wait or are refused.
//! Invariant: every limit on connections and clients is compared, and only lowered ones are reported.

use std::time::Duration;

use crate::config::{self, Config, CookieMode, RequestLimits, RequestRate};

/// Name of a limit, and its value before and after.
type LimitRow<T> = (String, T, T);

/// Limits that are lower in the new configuration, one sentence each: `idle_timeout shrinks: 7200s to 3600s`.
pub fn lower_limits(old: &Config, new: &Config) -> Vec<String> {
    let mut counts = process_counts(&old.limits, &new.limits);
    let mut own = Vec::new();
    for listener in &new.listeners {
        if let Some(was) = old.listeners.iter().find(|was| was.name == listener.name) {
            let name = format!("listener {:?}: max_connections", listener.name);
            counts.push((name, or_unlimited(was.max_connections), or_unlimited(listener.max_connections)));
            own.push((format!("listener {:?}: ", listener.name), was.limits, listener.limits));
        }
    }
    own.extend(
        super::common_pools(old, new).map(|(was, pool)| (format!("pool {:?}: ", pool.name), was.limits, pool.limits)),
    );
    let mut times = connection_times("", &old.limits, &new.limits);
    for (of, was, is) in own.iter().filter(|(_, was, is)| was != is) {
        times.extend(connection_times(of, &old.limits.nearer(was), &new.limits.nearer(is)));
    }
    let mut sizes = Vec::new();
    for (before, after) in super::common_pools(old, new) {
        pool_counts(before, after, &mut counts);
        pool_times(before, after, &mut times);
        let bytes = |pool: &config::Pool| pool.stick_table.map_or(0, |table| table.bytes);
        sizes.push((format!("pool {:?}: stick_table", after.name), bytes(before), bytes(after)));
    }
    let count = |limit: usize| if limit == usize::MAX { "no limit".to_owned() } else { limit.to_string() };
    let time = |limit: Duration| if limit == Duration::MAX { "no limit".to_owned() } else { format!("{limit:?}") };
    let size = |bytes: u64| format!("room for {} clients", bytes / 16);
    let connections = lowered(counts, count).chain(lowered(times, time)).chain(lowered(sizes, size));
    connections.chain(lower_request_limits(old, new)).collect()
}

/// Limits of requests that are lower in the new configuration.
fn lower_request_limits(old: &Config, new: &Config) -> Vec<String> {
    let of = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let mut lower = Vec::new();
    for (object, was, is) in of_requests(old, new) {
        let mut row = |name: &str, limit: fn(&RequestLimits) -> Option<u64>, unit: &str| {
            let show = |limit| if limit == u64::MAX { "no limit".to_owned() } else { format!("{limit}{unit}") };
            lower.extend(lowered(vec![(format!("{object}{name}"), of(limit(&was)), of(limit(&is)))], show));
        };
        row("requests_max", |limits| limits.requests_max.flatten(), "");
        row("body_max", |limits| limits.body_max.flatten(), " bytes");
        row("body_time_max", |limits| limits.body_time_max.flatten().map(|most| most.as_millis() as u64), " ms");
        row("head_max", |limits| limits.head_max.map(|most| most as u64), " bytes");
        row("fields_max", |limits| limits.fields_max.map(|most| most as u64), "");
        row("request_rate", |limits| limits.request_rate.as_ref()?.as_ref().map(RequestRate::per_hour), " an hour");
        let [least_before, least] = [&was, &is].map(|limits| limits.body_rate_min.flatten().unwrap_or(0));
        if least > least_before {
            lower.push(format!("{object}body_rate_min grows: {least_before} to {least} bytes a second"));
        }
    }
    lower
}

fn lowered<T: PartialOrd>(rows: Vec<LimitRow<T>>, show: impl Fn(T) -> String) -> impl Iterator<Item = String> {
    let lower = rows.into_iter().filter(|(_, before, after)| after < before);
    lower.map(move |(name, before, after)| format!("{name} shrinks: {} to {}", show(before), show(after)))
}

fn process_counts(before: &config::Limits, after: &config::Limits) -> Vec<LimitRow<usize>> {
    let small = |limit: Option<u32>| or_unlimited(limit.map(|limit| limit as usize));
    let row = |name: &str, before, after| (name.to_owned(), before, after);
    vec![
        row("max_connections", or_unlimited(before.max_connections), or_unlimited(after.max_connections)),
        row(
            "max_connections_per_source",
            small(before.max_connections_per_source),
            small(after.max_connections_per_source),
        ),
        row(
            "connection_rate_per_source",
            small(before.connection_rate_per_source),
            small(after.connection_rate_per_source),
        ),
        row("max_handshakes", or_unlimited(before.max_handshakes), or_unlimited(after.max_handshakes)),
        row("hello_max", before.hello_max, after.hello_max),
        row("hello_memory", before.hello_memory, after.hello_memory),
        row("http2_streams", before.http2_streams as usize, after.http2_streams as usize),
        row("http2_backend_connections", before.http2_backend_connections, after.http2_backend_connections),
    ]
}

/// Limits of requests before and after: of all, and of those of one listener or pool with other ones of its own.
fn of_requests(old: &Config, new: &Config) -> Vec<(String, RequestLimits, RequestLimits)> {
    let was = |name: &str| old.listeners.iter().find(|was| was.name == name);
    let listeners = new.listeners.iter().filter_map(|listener| {
        let name = format!("listener {:?}: ", listener.name);
        Some((name, &was(&listener.name)?.request_limits, &listener.request_limits))
    });
    let pools = super::common_pools(old, new)
        .map(|(was, pool)| (format!("pool {:?}: ", pool.name), &was.request_limits, &pool.request_limits));
    let (before, after) = (&old.limits.requests, &new.limits.requests);
    let own = listeners.chain(pools).filter(|(_, was, is)| was != is);
    let own = own.map(|(of, was, is)| (of, was.over(before), is.over(after)));
    [(String::new(), before.clone(), after.clone())].into_iter().chain(own).collect()
}

/// Timeouts of connections: of all, or of those of one listener or pool.
fn connection_times(of: &str, before: &config::Limits, after: &config::Limits) -> Vec<LimitRow<Duration>> {
    let row = |name: &str, limit: fn(&config::Limits) -> Option<Duration>| {
        (format!("{of}{name}"), or_forever(limit(before)), or_forever(limit(after)))
    };
    vec![
        row("hello_timeout", |limits| Some(limits.hello_timeout)),
        row("keepalive_timeout", |limits| limits.keepalive_timeout),
        row("response_timeout", |limits| limits.response_timeout),
        row("body_timeout", |limits| limits.body_timeout),
        row("idle_timeout", |limits| limits.idle_timeout),
        row("half_close_timeout", |limits| limits.half_close_timeout),
        row("lifetime", |limits| limits.lifetime),
        row("user_timeout", |limits| limits.user_timeout),
    ]
}

fn pool_counts(before: &config::Pool, after: &config::Pool, rows: &mut Vec<LimitRow<usize>>) {
    if let (Some(was), Some(queue)) = (before.on_full.queue(), after.on_full.queue()) {
        rows.push((format!("pool {:?}: queue_max", after.name), was.most as usize, queue.most as usize));
    }
    for backend in &after.backends {
        if let Some(was) = before.backends.iter().find(|was| was.name == backend.name) {
            let most = |backend: &config::Backend| or_unlimited(backend.max_connections.map(|most| most as usize));
            rows.push((
                format!("backend \"{}/{}\": max_connections", after.name, backend.name),
                most(was),
                most(backend),
            ));
        }
    }
}

fn pool_times(before: &config::Pool, after: &config::Pool, rows: &mut Vec<LimitRow<Duration>>) {
    let name = |what: &str| format!("pool {:?}: {what}", after.name);
    if let (Some(was), Some(table)) = (before.stick_table, after.stick_table) {
        rows.push((name("remember"), was.remember, table.remember));
    }
    if let (Some(was), Some(cookie)) = (&before.cookie, &after.cookie) {
        let life = |cookie: &config::Cookie| match &cookie.mode {
            CookieMode::Insert(insert) => or_forever(insert.max_life),
            _ => Duration::MAX,
        };
        rows.push((name("cookie: max_idle"), or_forever(was.max_idle()), or_forever(cookie.max_idle())));
        rows.push((name("cookie: max_life"), life(was), life(cookie)));
    }
    if let (Some(was), Some(queue)) = (before.on_full.queue(), after.on_full.queue()) {
        rows.push((name("queue_timeout"), was.timeout, queue.timeout));
    }
    rows.push((name("connect_timeout"), before.connect_timeout, after.connect_timeout));
    rows.push((name("connect_budget"), before.connect_budget, after.connect_budget));
}

fn or_unlimited(limit: Option<usize>) -> usize {
    limit.unwrap_or(usize::MAX)
}

fn or_forever(limit: Option<Duration>) -> Duration {
    limit.unwrap_or(Duration::MAX)
}
