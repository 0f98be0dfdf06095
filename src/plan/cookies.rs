//! [`LostCookie`]: cookies that a change takes from their holders, and why.
//!
//! A process keeps no list of the holders of its cookies, so a cookie that is lost counts for all of them. Compares
//! settings and key files; picks nothing. Invariant: a cookie that is not lost names the same backend after the change
//! as before.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{self, Carrier, Config, CookieMode, InsertRules, RouteRules, diff};
use crate::snapshot::Rings;

/// A pool's cookie that its holders lose: they are placed anew, as clients that never came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostCookie {
    /// Name of the cookie before the change.
    pub name: String,
    /// Mode of the cookie before the change.
    pub mode: String,
    /// What takes the cookie from its holders.
    pub why: String,
    /// Number of holders, where the stick table knows it: of a learned cookie in a running process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<u64>,
}

/// The keys of cookies before and after a change; without them, key files are compared by their names.
#[derive(Debug, Clone, Copy, Default)]
pub struct CookieKeys<'k>(Option<(&'k Rings, &'k Rings)>);

impl<'k> CookieKeys<'k> {
    /// Keys of both configurations, so that key files are compared by what is in them.
    pub fn new(old: &'k Rings, new: &'k Rings) -> Self {
        Self(Some((old, new)))
    }

    /// True if the cookies that the old file seals are opened by the new one.
    fn stay_open(self, old: &Path, new: &Path) -> bool {
        let rings = self.0.and_then(|(before, after)| before.of(old).zip(after.of(new)));
        rings.map_or(old == new, |(before, after)| after.opens_what_seals(before))
    }

    /// Number of keys that only open cookies in the old file and are not in the new one.
    fn dropped(self, old: &Path, new: &Path) -> usize {
        let rings = self.0.and_then(|(before, after)| before.of(old).zip(after.of(new)));
        rings.map_or(0, |(before, after)| if after.opens_what_seals(before) { after.lacks(before) } else { 0 })
    }
}

impl LostCookie {
    /// The cookie of a pool that its holders lose; `after` is `None` if the pool is removed. The result is `None` if
    /// there was no cookie, or its holders keep it.
    pub(super) fn of(before: &config::Pool, after: Option<&config::Pool>, keys: CookieKeys<'_>) -> Option<Self> {
        let cookie = before.cookie.as_ref()?;
        let why = match after {
            None => Some("the pool is removed".to_owned()),
            Some(after) => misread(before, after, keys).or_else(|| elsewhere(before, after)),
        };
        let (name, mode) = (cookie.name.clone(), cookie.mode.word().to_owned());
        why.map(|why| Self { name, mode, why, holders: None })
    }

    /// The holders in words: `all 12 holders of cookie "SID"`.
    pub fn holders(&self) -> String {
        let count = self.holders.map_or(String::new(), |holders| format!("{holders} "));
        format!("all {count}holders of cookie {:?}", self.name)
    }
}

/// Warnings about cookies that their holders lose, and about keys that are dropped.
pub fn cookie_warnings(old: &Config, new: &Config, keys: CookieKeys<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (before, after) in diff::common_pools(old, new) {
        let name = &after.name;
        if let Some(lost) = LostCookie::of(before, Some(after), keys) {
            warnings.push(format!("pool {name:?}: {} lose it and are placed anew: {}", lost.holders(), lost.why));
        }
        if let (Some((cookie, old)), Some((_, new))) = (insert(before), insert(after))
            && let count @ 1.. = keys.dropped(&old.keys, &new.keys)
        {
            let keys =
                if count == 1 { "a key is dropped: cookies that it" } else { "keys are dropped: cookies that they" };
            warnings.push(format!(
                "pool {name:?}: cookie {cookie:?}: {keys} sealed are lost, if they were sent within the last max_idle"
            ));
        }
    }
    for removed in old.pools_without(new) {
        if let Some(lost) = LostCookie::of(removed, None, keys) {
            let name = &removed.name;
            warnings.push(format!("pool {name:?}: {} lose it and are placed anew: {}", lost.holders(), lost.why));
        }
    }
    warnings
}

/// Why the pool does not understand the cookies that it has given out; `None`: it does.
pub(super) fn misread(before: &config::Pool, after: &config::Pool, keys: CookieKeys<'_>) -> Option<String> {
    let old = before.cookie.as_ref()?;
    let Some(new) = &after.cookie else { return Some("the pool has no cookie any more".to_owned()) };
    if old.mode.word() != new.mode.word() {
        return Some(format!("its mode {:?} becomes {:?}", old.mode.word(), new.mode.word()));
    }
    if old.name != new.name {
        return Some(format!("its name becomes {:?}", new.name));
    }
    if (old.carrier() == Carrier::Cookie) != (new.carrier() == Carrier::Cookie) {
        let place = if new.carrier() == Carrier::Cookie { "cookie" } else { "header field" };
        return Some(format!("it is looked for in a {place} of its name"));
    }
    if let (CookieMode::Insert(old), CookieMode::Insert(new)) = (&old.mode, &new.mode) {
        if before.sticks_as() != after.sticks_as() {
            return Some("the pool changes its stick_group, for which cookies are sealed".to_owned());
        }
        if !keys.stay_open(&old.keys, &new.keys) {
            return Some(format!("the key that sealed it is not in \"{}\"", new.keys.display()));
        }
    }
    if let (CookieMode::Route(old), CookieMode::Route(new)) = (&old.mode, &new.mode)
        && let Some(key) = reread(old, new)
    {
        return Some(format!("its {key} changes"));
    }
    let learns = matches!(old.mode, CookieMode::Learn { .. });
    (learns && after.stick_table.is_none()).then(|| "the pool has no stick table any more".to_owned())
}

/// Key by which values that name their backend are read in another way, or not any more.
fn reread(old: &RouteRules, new: &RouteRules) -> Option<&'static str> {
    if old.separator != new.separator {
        Some("separator")
    } else if old.side != new.side {
        Some("side")
    } else {
        (old.path_parameter.is_some() && old.path_parameter != new.path_parameter).then_some("path_parameter")
    }
}

/// Why browsers keep the old cookie beside the new one; `None`: the new one replaces it.
fn elsewhere(before: &config::Pool, after: &config::Pool) -> Option<String> {
    let ((_, old), (_, new)) = insert(before).zip(insert(after))?;
    let domain = |rules: &InsertRules| rules.domain.as_ref().map(ToString::to_string);
    let key = match (old.path == new.path, domain(old) == domain(new)) {
        (true, true) => return None,
        (false, _) => "path",
        (true, false) => "domain",
    };
    Some(format!("its {key} changes, so browsers hold the old one beside the new one"))
}

/// Name and rules of the balancer's own cookie.
fn insert(pool: &config::Pool) -> Option<(&str, &InsertRules)> {
    match pool.cookie.as_ref().map(|cookie| (&*cookie.name, &cookie.mode))? {
        (name, CookieMode::Insert(insert)) => Some((name, insert)),
        _ => None,
    }
}
