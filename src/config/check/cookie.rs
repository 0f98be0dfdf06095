//! Reads `[pool.cookie]`: the cookie that keeps a client at its backend.
//!
//! Opens no key file. Invariant: a cookie that browsers would reject is refused here, and a key of the table is used
//! only by its own mode.

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::Bad;
use crate::config::file::Section;
use crate::config::value::{self, DAY, HOUR, SECOND, ValueResult};
use crate::config::{
    Balance, Carrier, Cookie, CookieLifetime, CookieMode, InsertRules, KeyPart, RouteRules, SameSite, Secure,
    Separator, Side, keys, own_name,
};
use crate::server_name::ServerName;

/// Folder of the file of keys that is made, where the file has no `stick_table_file`.
const STATE_FOLDER: &str = "/var/lib/sessile";
/// Name of the file of keys that is made.
const KEY_FILE: &str = "cookie.keys";
/// Longest `max_idle`: 7 days, as AWS balancers allow.
const MAX_IDLE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Longest `max_life`: browsers keep no cookie longer than 400 days (RFC 6265bis §5.5).
const MAX_LIFE_MAX: Duration = Duration::from_secs(400 * 86_400);
/// Longest `remember` of mode `learn`: 30 days.
const REMEMBER_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Reads `[pool.cookie]` of a pool that sticks under this name, its own or its group's; `None`: the pool has no cookie.
/// `balance` is `None` for an unknown word.
pub(super) fn cookie(pool: &Section<'_>, sticks_as: &str, balance: Option<Balance>, key: &[KeyPart]) -> Option<Cookie> {
    const MODES: [&str; 5] = ["insert", "learn", "prefix", "route", "hash"];
    if !pool.has("cookie") {
        return None;
    }
    let section = pool.child_unless_off("cookie", &keys::COOKIE)?;
    let mode = section.required("mode", value::word(&MODES.map(|mode| (mode, mode))));
    let insert = insert(&section, mode == Some("insert"));
    let remember = section.read("remember", whole_seconds(REMEMBER_MAX)).unwrap_or(3 * HOUR);
    let route = route(&section);
    let (name, carrier) = named(&section, mode, sticks_as);
    let mode = match mode? {
        "insert" => CookieMode::Insert(insert),
        "learn" => CookieMode::Learn { remember, carrier },
        "prefix" => CookieMode::Prefix,
        "route" => CookieMode::Route(route),
        _ => CookieMode::Hash,
    };
    keys_of_other_modes(&section, &mode);
    if mode == CookieMode::Hash
        && let Some(balance) = balance.filter(|balance| !balance.keyed())
    {
        let hint = "write balance = \"hash\", \"ring\" or \"maglev\" in the pool";
        let why = format!("mode \"hash\" has no effect: balance \"{}\" uses no key", balance.word());
        section.error("mode", Bad::new(why).hint(hint));
    }
    let cookie = Cookie { name: name?, mode };
    not_in_key(&section, &cookie, key);
    Some(cookie)
}

/// Reads `[split.cookie]` of a split of this name; without it, everything has its default.
pub(super) fn of_split(split: &Section<'_>, name: &str) -> Cookie {
    let section = split.child("cookie", &keys::SPLIT_COOKIE);
    let own = |value: &DeValue<'_>| value::cookie_name(value::text(value)?).map(str::to_owned);
    let name = section.read("name", own).unwrap_or_else(|| own_name(name));
    Cookie { name, mode: CookieMode::Insert(insert(&section, true)) }
}

/// Reports a cookie of the pool's key that is the pool's own cookie, or its twin.
fn not_in_key(section: &Section<'_>, cookie: &Cookie, key: &[KeyPart]) {
    for name in cookie.names_in_browsers() {
        if key.iter().any(|part| part.may_be(&KeyPart::Cookie(name.as_str().into()))) {
            let why = format!("name \"{name}\" is also the cookie of the pool's key: only one of the two may use it");
            section.error("name", Bad::new(why));
        }
    }
    let name = &cookie.name;
    let is_header = cookie.carrier() != Carrier::Cookie;
    if is_header && key.iter().any(|part| part.may_be(&KeyPart::Header(name.as_str().into()))) {
        let why = format!("header \"{name}\" is also part of the pool's key: only one of the two may use it");
        section.error("header", Bad::new(why));
    }
}

/// Reports a cookie, and a key of what requests have, in a pool without `http = true`.
pub(super) fn needs_http(pool: &Section<'_>, key: &[KeyPart], http: bool) {
    if http {
        return;
    }
    let by_request = key.iter().any(KeyPart::needs_request).then_some("key");
    for key in ["cookie"].into_iter().chain(by_request).filter(|key| pool.has(key)) {
        pool.error(
            key,
            Bad::new(format!("{key} needs a pool that reads requests")).hint("write http = true in the pool"),
        );
    }
}

/// Name of the cookie, or of the header field in its place.
fn named(section: &Section<'_>, mode: Option<&str>, sticks_as: &str) -> (Option<String>, Carrier) {
    let header = section.read("header", |value| value::field_name(value::text(value)?));
    let end_on_404 = section.read("end_on_404", value::boolean).unwrap_or(false);
    if mode.is_some_and(|mode| mode != "learn") {
        // Reported with the keys of other modes.
    } else if section.has("header") {
        if section.has("name") {
            section.error("header", Bad::new("header and name exclude each other: write one of them"));
        }
        return (header, Carrier::Header { end_on_404 });
    } else {
        section.idle_keys(&["end_on_404"], "without header");
    }
    (name(section, mode, sticks_as), Carrier::Cookie)
}

fn name(section: &Section<'_>, mode: Option<&str>, sticks_as: &str) -> Option<String> {
    let own = |value: &DeValue<'_>| value::cookie_name(value::text(value)?).map(str::to_owned);
    let of_application = |value: &DeValue<'_>| value::application_cookie(value::text(value)?).map(str::to_owned);
    match mode {
        Some("insert") if section.has("name") => section.read("name", own),
        Some("insert") => Some(own_name(sticks_as)),
        None => section.read("name", own),
        Some(_) => section.required("name", of_application),
    }
}

fn keys_of_other_modes(section: &Section<'_>, mode: &CookieMode) {
    let why = format!("with mode = \"{}\"", mode.word());
    if !matches!(mode, CookieMode::Insert(_)) {
        // Every mode has a name.
        section.idle_keys(&keys::INSERT[1..], &why);
    }
    if !matches!(mode, CookieMode::Learn { .. }) {
        section.idle_keys(&["remember", "header", "end_on_404"], &why);
    }
    if !matches!(mode, CookieMode::Route(_)) {
        section.idle_keys(&["separator", "side", "path_parameter"], &why);
    }
}

fn route(section: &Section<'_>) -> RouteRules {
    let separator = value::word(&[(".", Separator::Dot), ("!", Separator::Mark), ("-", Separator::Dash)]);
    let side = value::word(&[("suffix", Side::Suffix), ("prefix", Side::Prefix)]);
    RouteRules {
        separator: section.read("separator", separator).unwrap_or_default(),
        side: section.read("side", side).unwrap_or_default(),
        path_parameter: section
            .read("path_parameter", |value| value::parameter_name(value::text(value)?).map(str::to_owned)),
    }
}

/// Sets the file of keys in cookies that name none: beside the stick-table file, which is also kept over a restart.
pub(super) fn name_key_file<'c>(cookies: impl Iterator<Item = &'c mut Cookie>, stick_table_file: Option<&Path>) {
    let folder = stick_table_file.and_then(Path::parent).unwrap_or(Path::new(STATE_FOLDER));
    for cookie in cookies {
        if let CookieMode::Insert(insert) = &mut cookie.mode
            && insert.makes_keys
        {
            insert.keys = folder.join(KEY_FILE);
        }
    }
}

fn insert(section: &Section<'_>, is_used: bool) -> InsertRules {
    let life = value::unless("off", whole_seconds(MAX_LIFE_MAX));
    let lifetime = value::word(&[("idle", CookieLifetime::Idle), ("session", CookieLifetime::Session)]);
    let secure = value::word(&[("auto", Secure::Auto), ("on", Secure::On), ("off", Secure::Off)]);
    let same_site = value::word(&[("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)]);
    let insert = InsertRules {
        keys: section.read("keys", value::file).unwrap_or_default(),
        makes_keys: !section.has("keys"),
        max_idle: section.read("max_idle", whole_seconds(MAX_IDLE_MAX)).unwrap_or(DAY),
        max_life: section.read("max_life", life).unwrap_or(None),
        lifetime: section.read("lifetime", lifetime).unwrap_or(CookieLifetime::Idle),
        domain: section.read("domain", domain),
        path: section.read("path", path).unwrap_or_else(|| "/".to_owned()),
        secure: section.read("secure", secure).unwrap_or(Secure::Auto),
        http_only: section.read("http_only", value::boolean).unwrap_or(true),
        same_site: section.read("same_site", same_site).unwrap_or(SameSite::Lax),
        partitioned: section.read("partitioned", value::boolean).unwrap_or(false),
        cross_site_twin: section.read("cross_site_twin", value::boolean).unwrap_or(false),
    };
    if is_used {
        check_browser_rules(section, &insert);
    }
    insert
}

/// Reports combinations that browsers reject (RFC 6265bis §4.1.3 and §5.6).
fn check_browser_rules(section: &Section<'_>, insert: &InsertRules) {
    if insert.secure == Secure::Off {
        let need_secure = [
            ("same_site", insert.same_site == SameSite::None),
            ("partitioned", insert.partitioned),
            ("cross_site_twin", insert.cross_site_twin),
        ];
        for (key, is_set) in need_secure {
            if is_set {
                let why = format!("{key} needs a secure cookie: browsers reject it otherwise");
                section.error(key, Bad::new(why).hint("write secure = \"auto\" or \"on\""));
            }
        }
    }
    if insert.cross_site_twin && insert.same_site == SameSite::None {
        section.idle_keys(&["cross_site_twin"], "with same_site = \"none\": the cookie itself goes with every request");
    }
    let Some(name) = section.read("name", |value| Ok(value::text(value).unwrap_or_default().to_ascii_lowercase()))
    else {
        return;
    };
    let is_host = name.starts_with("__host-");
    if needs_secure(&name) && insert.secure == Secure::Off {
        section.error("secure", Bad::new("a name that begins with __Host- or __Secure- needs a secure cookie"));
    }
    if (name.starts_with("__http-") || name.starts_with("__host-http-")) && !insert.http_only {
        section.error("http_only", Bad::new("a name that begins with __Http- or __Host-Http- needs http_only = true"));
    }
    if is_host && (insert.domain.is_some() || insert.path != "/") {
        let key = if insert.domain.is_some() { "domain" } else { "path" };
        section.error(key, Bad::new("a name that begins with __Host- allows no domain and no path but \"/\""));
    }
}

/// True for a name that browsers accept only with `Secure`; they ignore the case of its beginning (RFC 6265bis §5.7).
pub(super) fn needs_secure(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["__secure-", "__host-", "__http-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Reads a duration of whole seconds, from one second to `most`.
fn whole_seconds(most: Duration) -> impl Fn(&DeValue<'_>) -> ValueResult<Duration> {
    move |value| {
        let duration = value::duration(SECOND, most)(value)?;
        let whole = duration.subsec_nanos() == 0;
        whole.then_some(duration).ok_or_else(|| Bad::new("is not a number of whole seconds"))
    }
}

fn domain(value: &DeValue<'_>) -> ValueResult<ServerName> {
    let written = value::text(value)?;
    let bad = || Bad::new("is not a domain");
    ServerName::parse(written).ok_or_else(|| match written.strip_prefix('.') {
        Some(bare) => bad().hint(format!("without the dot: \"{bare}\"")),
        None => bad(),
    })
}

/// Reads a `path-value` (RFC 6265 §4.1.1) that starts with '/', as browsers ignore others.
fn path(value: &DeValue<'_>) -> ValueResult<String> {
    let written = value::text(value)?;
    let good = written.starts_with('/') && written.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
    good.then(|| written.to_owned()).ok_or_else(|| Bad::new("is not a path: '/' first, no spaces, no ';'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::Document;
    use crate::config::problem::Problems;

    #[test]
    fn a_cookie_and_a_key_of_cookies_need_a_pool_that_reads_requests() {
        let text = "[[pool]]\nname = \"app\"\nkey = \"cookie:SID\"\n[pool.cookie]\nmode = \"route\"\nname = \"AT\"\n";
        let problems = |http| {
            let problems = Problems::new(text);
            let document = Document::parse(text, &problems);
            let pool = document.top(&problems).children("pool", &keys::POOL).remove(0);
            needs_http(&pool, &[KeyPart::Cookie("SID".into())], http);
            problems.finish().err().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let hint = "needs a pool that reads requests (hint: write http = true in the pool)";
        assert_eq!(
            problems(false),
            [format!("3:7: pool \"app\": key {hint}"), format!("4:1: pool \"app\": cookie {hint}")]
        );
        assert!(problems(true).is_empty());
    }
}
