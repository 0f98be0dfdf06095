//! Reads `[pool.request_headers]` and `[pool.response_headers]`.
//!
//! Invariant: each name has one rule in a table, and no rule takes a cookie away that the pool sticks by.

use super::Bad;
use crate::config::file::Section;
use crate::config::keys::{self, TableKeys};
use crate::config::{Cookie, CookieMode, HeaderRules, HeaderValue, RequestFact, ValuePart, value};

/// Reads the rules for requests and those for responses; `http`: the pool reads both.
pub(super) fn headers(pool: &Section<'_>, http: bool, cookie: Option<&Cookie>) -> [HeaderRules; 2] {
    let tables: [(&'static str, &'static TableKeys, &str); 2] = [
        ("request_headers", &keys::REQUEST_HEADERS, "Cookie"),
        ("response_headers", &keys::RESPONSE_HEADERS, "Set-Cookie"),
    ];
    tables.map(|(key, keys, cookie_field)| {
        let section = pool.child(key, keys);
        let rules = rules(&section, cookie_field);
        if pool.has(key) && !http {
            let bad = Bad::new(format!("{key} needs a pool that reads requests"));
            pool.error(key, bad.hint("write http = true in the pool"));
        }
        let is_stuck_by = |cookie: &&Cookie| !matches!(cookie.mode, CookieMode::Insert(_));
        if let Some(cookie) = cookie.filter(is_stuck_by)
            && rules.remove.iter().any(|name| value::is_like(name, cookie_field))
        {
            let why =
                format!("remove \"{cookie_field}\" takes the cookie \"{}\" away, by which clients stay", cookie.name);
            section.error("remove", Bad::new(why));
        }
        rules
    })
}

fn rules(section: &Section<'_>, cookie_field: &str) -> HeaderRules {
    let name = |written: &str| match written {
        _ if value::is_like(written, cookie_field) => {
            Err(Bad::new("cannot be set: one line would take the place of all cookies"))
        }
        _ => value::header_name(written),
    };
    let mut set: Vec<(String, HeaderValue)> = Vec::new();
    for (at, name, written) in section.entries("set", name, value::header_value) {
        if set.iter().any(|(known, _)| value::is_like(known, &name)) {
            section.error_at(at, Bad::new(format!("set \"{name}\" stands twice: case and signs make no difference")));
        }
        if name.eq_ignore_ascii_case("host") && !is_host(&written) {
            let bad = Bad::new(format!("set \"{name}\" is not a host, with a port or without"));
            section.error_at(at, bad.hint("\"www.example.org\" or \"{host}\""));
        }
        set.push((name, written));
    }
    let removed = section.list("remove", value::removed_header);
    for (at, name) in &removed {
        if let Some((known, _)) = set.iter().find(|(known, _)| value::is_like(known, name)) {
            let why = format!("remove \"{name}\" has no effect: set \"{known}\" replaces all lines of that name");
            section.error_at(*at, Bad::new(why));
        }
        if name.eq_ignore_ascii_case("host") {
            section.error_at(*at, Bad::new("remove \"Host\" leaves a request that no server may accept"));
        }
    }
    HeaderRules { set, remove: removed.into_iter().map(|(_, name)| name).collect() }
}

/// True for one host, or the place of the request's own.
fn is_host(written: &HeaderValue) -> bool {
    match &written.0[..] {
        [ValuePart::Text(text)] => value::is_host_with_port(text),
        [ValuePart::Fact(fact)] => *fact == RequestFact::Host,
        _ => false,
    }
}
