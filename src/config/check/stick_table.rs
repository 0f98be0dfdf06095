//! Reads the keys of a pool about its stick table and about known clients.
//!
//! Builds no table; `sticky::table` does. Invariant: only a pool with entries to store gets a stick table.

use std::time::Duration;

use toml::de::DeValue;

use super::Bad;
use crate::config::file::Section;
use crate::config::value::{self, HOUR, MILLISECOND, MINUTE, SECOND, ValueResult};
use crate::config::{Balance, Cookie, CookieMode, KeyPart, OnAdd, OnDown, OnReturn, StickTableRules};

/// Default size: room for 262,144 entries.
const DEFAULT_BYTES: u64 = 4 << 20;
/// Longest `remember` and `app_session_timeout`: 30 days.
const REMEMBER_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Default of `wait_max`: three seconds.
const WAIT_DEFAULT: Duration = Duration::from_secs(3);
/// Keys without effect in a pool without a stick table.
const TABLE_KEYS: [&str; 3] = ["remember", "on_add", "on_return"];

/// Reads the keys of the stick table; `None`: the pool has none. `balance` is `None` for an unknown word.
pub(super) fn stick_table(
    pool: &Section<'_>,
    balance: Option<Balance>,
    key: &[KeyPart],
    cookie: Option<&Cookie>,
) -> Option<StickTableRules> {
    let bytes = pool.read("stick_table", value::bytes(1 << 36));
    let stick_table = StickTableRules {
        bytes: bytes.unwrap_or(DEFAULT_BYTES),
        remember: pool.read("remember", value::duration(SECOND, REMEMBER_MAX)).unwrap_or(3 * HOUR),
        on_add: pool
            .read("on_add", value::word(&[("stay", OnAdd::Stay), ("move", OnAdd::Move)]))
            .unwrap_or(OnAdd::Stay),
        on_return: pool
            .read("on_return", value::word(&[("stay", OnReturn::Stay), ("return", OnReturn::Return)]))
            .unwrap_or(OnReturn::Stay),
    };
    let learns = cookie.is_some_and(|cookie| matches!(cookie.mode, CookieMode::Learn { .. }));
    if learns && stick_table.bytes == 0 {
        pool.error(
            "stick_table",
            Bad::new("stick_table \"0\" leaves no room for the values that [pool.cookie] mode \"learn\" stores"),
        );
    }
    let by_load = balance.filter(|balance| balance.may_remember() && !key.is_empty());
    if let Some(balance) = by_load {
        check_by_load(pool, balance, &stick_table);
    }
    let why = match balance.filter(|balance| !balance.keyed() && by_load.is_none() && !learns) {
        Some(balance) if balance.may_remember() => {
            format!("with balance = \"{}\" and without a key, for example key = \"source\"", balance.word())
        }
        Some(balance) => format!("with balance = \"{}\", which hashes no key", balance.word()),
        None if stick_table.bytes == 0 => "with stick_table = \"0\"".to_owned(),
        None => return Some(stick_table),
    };
    pool.idle_keys(&TABLE_KEYS, &why);
    if stick_table.bytes > 0 {
        pool.idle_keys(&["stick_table"], &why);
    }
    None
}

/// Reports rules that a pool cannot keep in which load places new keys: the stick table alone brings a key back, and no
/// backend is the one where the key belongs.
fn check_by_load(pool: &Section<'_>, balance: Balance, rules: &StickTableRules) {
    let word = balance.word();
    if rules.bytes == 0 {
        let why =
            format!("key needs a stick table: with balance = \"{word}\" nothing else finds a client's backend again");
        let hint = "delete stick_table = \"0\", or write balance = \"hash\", \"ring\" or \"maglev\"";
        pool.error("key", Bad::new(why).hint(hint));
    }
    let goes_home =
        [("on_add", "move", rules.on_add == OnAdd::Move), ("on_return", "return", rules.on_return == OnReturn::Return)];
    for (key, value, _) in goes_home.into_iter().filter(|(.., is_set)| *is_set) {
        let why = format!("{key} \"{value}\" leads nowhere: with balance = \"{word}\" no key belongs to a backend");
        pool.error(key, Bad::new(why).hint("write \"stay\", or balance = \"hash\", \"ring\" or \"maglev\""));
    }
}

/// Reads `on_down` and `wait_max`.
pub(super) fn when_down(pool: &Section<'_>) -> OnDown {
    const WORDS: [(&str, OnDown); 3] =
        [("rehash", OnDown::Rehash), ("wait", OnDown::Wait(WAIT_DEFAULT)), ("reject", OnDown::Reject)];
    let when_down = pool.read("on_down", value::word(&WORDS)).unwrap_or(OnDown::Rehash);
    let wait = pool.read("wait_max", value::duration(100 * MILLISECOND, MINUTE));
    match (when_down, wait) {
        (OnDown::Wait(default), wait) => OnDown::Wait(wait.unwrap_or(default)),
        (other, _) => {
            pool.idle_keys(&["wait_max"], "without on_down = \"wait\"");
            other
        }
    }
}

/// Reads a key that sends new clients elsewhere than placement does. Where clients stay by a key it needs a stick table:
/// without an entry the next connection of such a client would go to the backend that placement names.
pub(super) fn diverts<T>(
    pool: &Section<'_>,
    key: &'static str,
    read: impl Fn(&DeValue<'_>) -> ValueResult<T>,
    can_stay: bool,
) -> Option<T> {
    let setting = pool.read(key, value::unless("off", read))??;
    if !can_stay {
        pool.error(
            key,
            Bad::new(format!("{key} needs a stick table: clients that it sends elsewhere must stay there")),
        );
    }
    Some(setting)
}

/// Reads `app_session_timeout`, and warns of shorter `remember` and `max_idle`: they would forget a client too early.
pub(super) fn app_session_timeout(
    pool: &Section<'_>,
    stick_table: Option<&StickTableRules>,
    max_idle: Option<Duration>,
) {
    let Some(session) = pool.read("app_session_timeout", value::duration(SECOND, REMEMBER_MAX)) else { return };
    let kept = [("remember", stick_table.map(|stick_table| stick_table.remember)), ("max_idle", max_idle)];
    for (key, time) in kept.into_iter().filter_map(|(key, time)| Some((key, time?))).filter(|(_, time)| *time < session)
    {
        let (time, session) = (value::show_duration(time), value::show_duration(session));
        let why = format!("{key} \"{time}\" is shorter than app_session_timeout \"{session}\"");
        pool.warn(
            "app_session_timeout",
            Bad::new(why).hint("a client that pauses longer may reach another backend while its session still exists"),
        );
    }
}
