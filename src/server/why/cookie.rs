//! What the cookie of a question is worth, judged as that of a request would be.
//!
//! Learns nothing and asks no store. Invariant: the verdict is that of the pool's own rule, at the present time.

use super::question::AskedCookie;
use crate::admin::WhyCookie;
use crate::clock;
use crate::http::date::rfc3339;
use crate::pool::Pool;
use crate::snapshot::Snapshot;
use crate::split::Split;
use crate::sticky::cookie::{CookieRule, CookieVerdict, Mode, is_learnable};
use crate::sticky::table::TableLookup;
use crate::sticky::{Had, Left};

/// A cookie with its verdict.
pub(super) struct JudgedCookie {
    /// The cookie as it is shown.
    pub(super) shown: WhyCookie,
    /// True if it leads its client to a backend.
    pub(super) is_valid: bool,
}

/// Judges a cookie by the pool or split to which it belongs; `None`: none has a cookie of its kind.
pub(super) fn judge(cookie: &AskedCookie, snapshot: &Snapshot) -> Option<JudgedCookie> {
    let of_name = |rule: &CookieRule| cookie.name.as_deref().is_none_or(|name| rule.is_named(name));
    let rules = snapshot.pools.iter().filter_map(|pool| Some((pool, pool.cookie().filter(|rule| of_name(rule))?)));
    let of_pools = rules.map(|(pool, rule)| judge_for(pool, rule, cookie.value.as_bytes()));
    let rules = snapshot.splits.iter().filter_map(|split| Some((split, split.cookie().filter(|rule| of_name(rule))?)));
    let of_splits = rules.map(|(split, rule)| judge_for_split(split, rule, cookie.value.as_bytes()));
    // What it is worth most for: of several pools and splits, a value is sealed for one.
    of_pools.chain(of_splits).min_by_key(|(rank, _)| *rank).map(|(_, it)| it)
}

/// The verdict of one split, with its rank.
fn judge_for_split(split: &Split, rule: &CookieRule, value: &[u8]) -> (usize, JudgedCookie) {
    let now_s = clock::unix_s();
    let verdict = rule.read([value], now_s, |_| TableLookup::Unknown).map(|read| read.verdict);
    let sealed_s = sealed_at(rule, value);
    let named = verdict.and_then(CookieVerdict::backend).and_then(|member| split.members().get(member));
    let shown = WhyCookie {
        pool: named.map_or_else(String::new, |member| member.name.to_string()),
        split: Some(split.name().to_string()),
        name: rule.name().to_owned(),
        verdict: verdict.map_or("not_known", CookieVerdict::word).to_owned(),
        backend: None,
        sealed: sealed_s.map(|sealed_s| rfc3339(sealed_s.saturating_mul(1_000))),
        meaning: meaning(verdict, rule, ("split", "pool"), sealed_s.is_some_and(|sealed_s| sealed_s > now_s)),
    };
    (rank(verdict), JudgedCookie { shown, is_valid: named.is_some() })
}

/// When a value of ours was sealed, in seconds since 1970; `None`: no key opens it, or it is the application's.
fn sealed_at(rule: &CookieRule, value: &[u8]) -> Option<u64> {
    match rule.mode() {
        Mode::Insert(insert) => insert.sealed_at(value),
        Mode::Learn | Mode::Prefix | Mode::Route(_) | Mode::Hash => None,
    }
}

/// Lower says more.
fn rank(verdict: Option<CookieVerdict>) -> usize {
    match verdict {
        Some(CookieVerdict::OtherPool | CookieVerdict::Forged) => 9,
        Some(verdict) => verdict.number(),
        None => 8,
    }
}

/// The verdict of one pool, with its rank: lower says more.
fn judge_for(pool: &Pool, rule: &CookieRule, value: &[u8]) -> (usize, JudgedCookie) {
    let (now_s, now_ms) = (clock::unix_s(), clock::now_ms());
    let recall = |value: &[u8]| {
        let table = pool.table().filter(|_| is_learnable(value));
        table.map_or(TableLookup::Unknown, |table| table.lookup_value(value, now_ms))
    };
    let verdict = rule.read([value], now_s, recall).map(|read| read.verdict);
    let sealed_s = sealed_at(rule, value);
    let named = verdict.and_then(CookieVerdict::backend);
    let had = verdict.and_then(CookieVerdict::left).and_then(|Left { had, .. }| match had {
        Had::Backend(index) => Some(index),
        Had::Former(_) | Had::Nameless => None,
    });
    let backend = named.or(had).and_then(|index| pool.backends().get(index));
    let shown = WhyCookie {
        pool: pool.name().to_owned(),
        split: None,
        name: rule.name().to_owned(),
        verdict: verdict.map_or("not_known", CookieVerdict::word).to_owned(),
        backend: backend.map(|backend| backend.name().to_owned()),
        sealed: sealed_s.map(|sealed_s| rfc3339(sealed_s.saturating_mul(1_000))),
        meaning: meaning(verdict, rule, ("pool", "backend"), sealed_s.is_some_and(|sealed_s| sealed_s > now_s)),
    };
    (rank(verdict), JudgedCookie { shown, is_valid: named.is_some() })
}

/// A verdict in words. `owner`: what has the cookie; `one`: what it names. `is_ahead`: the value was sealed later than now.
fn meaning(verdict: Option<CookieVerdict>, rule: &CookieRule, (owner, one): (&str, &str), is_ahead: bool) -> String {
    let words: &str = match verdict {
        Some(CookieVerdict::OtherPool) => &format!("it was sealed for another {owner}"),
        Some(CookieVerdict::FormerPool { .. }) => &format!("it was sealed for a {owner} that was renamed or removed"),
        Some(CookieVerdict::Removed { .. }) => &format!("it names a {one} that has left the {owner}"),
        Some(CookieVerdict::Unknown) => &format!("it names a {one} that the {owner} is not known to have had"),
        Some(CookieVerdict::Fresh { .. } | CookieVerdict::Due { .. }) => "it is valid",
        Some(CookieVerdict::Expired { .. }) if is_ahead => "it is dated too far in the future to count",
        Some(CookieVerdict::Expired { .. }) => "it was unused for too long, or is too old",
        Some(CookieVerdict::Forged) => "no key in force opens it: it was sealed with other keys, or made up",
        None if matches!(rule.mode(), Mode::Learn) => "the stick table has no entry for it",
        None if matches!(rule.mode(), Mode::Hash) => "it is the key of placement and names no backend",
        None => &format!("it names no {one}"),
    };
    let ahead = if is_ahead { "; it was sealed by a machine with a clock that is ahead of this one's" } else { "" };
    format!("{words}{ahead}")
}
