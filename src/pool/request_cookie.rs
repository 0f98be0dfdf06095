//! [`ReadCookie`]: what the cookies of a request say, ready for a pick.
//!
//! Reads a head and changes nothing. Both the terminated half and `explain` read cookies here. Invariant: a backend
//! that is named by its index belongs to the pool that was given.

use super::Pool;
use crate::config::KeyPart;
use crate::http::cookie;
use crate::http::field::Fields;
use crate::sticky::cookie::{CookieRule, CookieVerdict, Mode, RememberedValue};

/// What the pool's cookie says in one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCookie<'v> {
    /// What the cookie is worth; `None` = the request has none, or the pool wants none.
    pub verdict: Option<CookieVerdict>,
    /// Value of the application's cookie, in mode `learn`.
    pub value: Option<&'v [u8]>,
}

impl<'v> ReadCookie<'v> {
    /// Reads the pool's cookie among the fields of a request; `now_s` is in seconds since 1970, `now_ms` in
    /// milliseconds of the process's clock.
    pub fn new(pool: &Pool, fields: Fields<'v>, now_s: u64, now_ms: u64) -> Self {
        let Some(rule) = pool.cookie() else { return Self::default() };
        let values = || cookie::find(fields, rule.name().as_bytes()).map(|pair| pair.value);
        let learned = matches!(rule.mode(), Mode::Learn);
        let value = values().find(|value| learned && !value.is_empty());
        let lookup = |value: &[u8]| pool.table().map(|table| table.lookup_value(value, now_ms));
        let verdict = rule.read(values(), now_s, |value| lookup(value).unwrap_or(RememberedValue::Unknown));
        Self { verdict, value }
    }

    /// Index of the backend that a valid cookie names.
    pub fn backend(&self) -> Option<usize> {
        self.verdict.and_then(CookieVerdict::backend)
    }
}

/// Cookies of a request that the pool's key consists of, by name.
pub fn cookies_of_key<'v>(pool: &'v Pool, fields: Fields<'v>) -> Vec<(&'v str, &'v [u8])> {
    let own = pool.config().key.iter();
    let names = own.chain(pool.cookie().map_or(&[][..], CookieRule::key)).filter_map(|part| match part {
        KeyPart::Cookie(name) => Some(&**name),
        KeyPart::Source | KeyPart::Sni | KeyPart::Tlv(_) => None,
    });
    names.filter_map(|name| Some((name, cookie::find(fields, name.as_bytes()).next()?.value))).collect()
}
