//! [`ReadCookie`]: what the cookies of a request say, ready for a pick.
//!
//! Reads a head and changes nothing. Both the terminated half and `explain` read cookies here. Invariant: a backend
//! that is named by its index belongs to the pool that was given.

use super::Pool;
use crate::http::head::Request;
use crate::http::{cookie, parts};
use crate::sticky::cookie::{CookieRule, CookieVerdict, Mode, VALUES_MAX, is_learnable};
use crate::sticky::table::{EntryKind, TableLookup};

/// What the pool's cookie says in one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadCookie<'v> {
    /// What the cookie is worth; `None` = the request has none, or the pool wants none.
    pub verdict: Option<CookieVerdict>,
    /// Value of the application's cookie, in mode `learn`: the one that counts, else the first that can be learned.
    pub value: Option<&'v [u8]>,
    /// True if the request brought `value` and no other value of this cookie.
    pub is_only_value: bool,
    /// Other values that the stick table does not have, unless `value` is one that a backend has set: a shared store may
    /// know that a backend has set one of them.
    pub unknown: Vec<&'v [u8]>,
    /// Value of a balancer behind this one with a cookie of the same name, in mode `insert`.
    pub inner: Option<&'v [u8]>,
}

impl<'v> ReadCookie<'v> {
    /// Reads the pool's cookie in a request; `now_s` is in seconds since 1970, `now_ms` in
    /// milliseconds of the process's clock.
    pub fn new(pool: &Pool, request: &Request<'v>, now_s: u64, now_ms: u64) -> Self {
        let Some(rule) = pool.cookie() else { return Self::default() };
        let values = || values_of(rule, request);
        let lookup = |value: &[u8]| {
            let table = pool.table().filter(|_| is_learnable(value));
            table.map_or(TableLookup::Unknown, |table| table.lookup_value(value, now_ms))
        };
        let read = rule.read(values(), now_s, lookup);
        let mut cookie = Self { verdict: read.map(|read| read.verdict), ..Self::default() };
        match rule.mode() {
            Mode::Insert(_) => cookie.inner = read.and_then(|read| read.inner()),
            Mode::Learn => {
                cookie.value = read.map(|read| read.value).or_else(|| values().find(|value| is_learnable(value)));
                let is_other = |value: &&[u8]| !value.is_empty() && cookie.value != Some(value);
                cookie.is_only_value = cookie.value.is_some() && !values().any(|value| is_other(&value));
                let is_set = |value| matches!(lookup(value), TableLookup::At(_, EntryKind::Learned));
                if !cookie.is_only_value && !cookie.value.is_some_and(is_set) {
                    let others = values().filter(is_other).take(VALUES_MAX);
                    let is_unknown = |value: &&[u8]| is_learnable(value) && lookup(value) == TableLookup::Unknown;
                    cookie.unknown = others.filter(is_unknown).collect();
                }
            }
            Mode::Prefix | Mode::Route(_) | Mode::Hash => {}
        }
        cookie
    }

    /// Index of the backend that a valid cookie names.
    pub fn backend(&self) -> Option<usize> {
        self.verdict.and_then(CookieVerdict::backend)
    }
}

/// The values of a pool's cookie in a request, in the order of its head: those of the cookie, then those of its twin; or
/// those of the header field in its place. Those of its parameter of the path come last, as Tomcat has it.
pub fn values_of<'v>(rule: &CookieRule, request: &Request<'v>) -> impl Iterator<Item = &'v [u8]> {
    let fields = request.fields;
    let cookies =
        rule.cookie_names().flat_map(move |name| cookie::find(fields, name.as_bytes()).map(|pair| pair.value));
    let path = parts::path(request.target);
    let parameters = rule.path_parameter().into_iter().flat_map(move |name| parts::parameters(path, name));
    cookies.chain(rule.header().into_iter().flat_map(move |name| fields.named(name))).chain(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Address, CookieMode};
    use crate::http::Progress;
    use crate::http::head::RequestReader;
    use crate::pool::StickTables;
    use crate::sticky::cookie::{KeyRing, LEARNED_MAX};
    use crate::sticky::table::Secret;
    use std::time::Duration;

    fn learning() -> Pool {
        let mode = CookieMode::Learn { remember: Duration::from_secs(3600), carrier: config::Carrier::Cookie };
        learning_by(config::Cookie { name: "SID".to_owned(), mode })
    }

    fn learning_by(cookie: config::Cookie) -> Pool {
        let names = ["a", "b"];
        let rule = CookieRule::new(&cookie, "web", names, |_| Err::<std::sync::Arc<KeyRing>, _>(())).unwrap();
        let backends = names.map(|name| config::Backend::of_test(name, Address::Unix("/run/x".into())));
        let rules = config::StickTableRules {
            bytes: 1 << 16,
            remember: Duration::from_secs(3600),
            on_add: config::OnAdd::Stay,
            on_return: config::OnReturn::Stay,
        };
        let config = config::Pool {
            http: config::PoolHttp::Http1,
            cookie: Some(cookie),
            stick_table: Some(rules),
            ..config::Pool::of_test(backends.into())
        };
        let pool = Pool::new(&config, None, 1).with_cookie(Some(rule));
        StickTables::new(None, &Secret::new([7; 16]), 0).give(pool)
    }

    /// What a request with this Cookie line says.
    fn of_request<T>(pool: &Pool, cookies: &str, then: impl FnOnce(ReadCookie<'_>) -> T) -> T {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n");
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)));
        then(ReadCookie::new(pool, &reader.request(head.as_bytes()), 1, 0))
    }

    fn text(value: &[u8]) -> String {
        String::from_utf8_lossy(value).into_owned()
    }

    /// Backend, value and whether it is the only one.
    fn read(pool: &Pool, cookies: &str) -> (Option<usize>, Option<String>, bool) {
        of_request(pool, cookies, |read| (read.backend(), read.value.map(text), read.is_only_value))
    }

    fn unknown(pool: &Pool, cookies: &str) -> Vec<String> {
        of_request(pool, cookies, |read| read.unknown.into_iter().map(text).collect())
    }

    #[test]
    fn a_value_that_a_backend_has_set_counts_before_one_that_clients_brought() {
        let pool = learning();
        let (table, [a, b]) = (pool.table().unwrap(), [0, 1].map(|index| &pool.backends()[index]));
        table.settle(table.remember_value(b"guest").unwrap(), a, 0);
        table.learn(b"session", b, 0);
        let some = |text: &str| Some(text.to_owned());
        for order in ["SID=guest; SID=session", "SID=session; SID=guest", "SID=new; SID=guest; SID=session"] {
            assert_eq!(read(&pool, order), (Some(1), some("session"), false), "{order}");
        }
        assert_eq!(read(&pool, "SID=guest"), (Some(0), some("guest"), true));
        assert_eq!(unknown(&pool, "SID=guest; SID=new; SID=; SID=newer"), ["new", "newer"]);
        assert_eq!(unknown(&pool, "SID=new; SID=newer"), ["newer"]);
        assert!(unknown(&pool, "SID=guest; SID=session; SID=new").is_empty(), "nothing counts more");
        assert_eq!(read(&pool, "SID=; SID=new; a=b"), (None, some("new"), true));
        assert_eq!(read(&pool, "SID=new; SID=\"new\""), (None, some("new"), true), "the same value twice");
        assert_eq!(read(&pool, "SID=new; SID=newer"), (None, some("new"), false));
    }

    #[test]
    fn a_header_field_is_read_in_the_place_of_a_cookie() {
        let carrier = config::Carrier::Header { end_on_404: false };
        let mode = CookieMode::Learn { remember: Duration::from_secs(3600), carrier };
        let pool = learning_by(config::Cookie { name: "mcp-session-id".to_owned(), mode });
        pool.table().unwrap().learn(b"1f2e", &pool.backends()[1], 0);
        let of = |fields: &str| {
            let head = format!("POST /mcp HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let mut reader = RequestReader::new();
            assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)));
            let read = ReadCookie::new(&pool, &reader.request(head.as_bytes()), 1, 0);
            (read.backend(), read.value.map(text), read.is_only_value)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of("Mcp-Session-Id: 1f2e\r\n"), (Some(1), some("1f2e"), true));
        assert_eq!(of("MCP-SESSION-ID:new\r\nmcp-session-id: 1f2e\r\n"), (Some(1), some("1f2e"), false));
        assert_eq!(of("Cookie: mcp-session-id=1f2e\r\nMcp-Session-Id:\r\n"), (None, None, false));
    }

    #[test]
    fn a_value_above_4_kib_is_neither_looked_up_nor_kept() {
        let pool = learning();
        let (table, b) = (pool.table().unwrap(), &pool.backends()[1]);
        let [longest, longer] = [LEARNED_MAX, LEARNED_MAX + 1].map(|length| "x".repeat(length));
        table.learn(longest.as_bytes(), b, 0);
        table.learn(longer.as_bytes(), b, 0);
        assert_eq!(table.stats(0).known, 1);
        assert!(table.remember_value(longer.as_bytes()).is_none());
        assert_eq!(read(&pool, &format!("SID={longest}")), (Some(1), Some(longest), true));
        assert_eq!(read(&pool, &format!("SID={longer}")), (None, None, false));
        assert_eq!(read(&pool, &format!("SID={longer}; SID=s")), (None, Some("s".to_owned()), false));
    }
}
