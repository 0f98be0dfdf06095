//! Keys of a pool that say what it remembers of its clients.
//!
//! Invariant: a size is kept only for a pool that has keys to remember.

use std::time::Duration;

use toml::de::DeValue;

use super::Bad;
use crate::config::file::Section;
use crate::config::value::{self, HOUR, MILLISECOND, MINUTE, SECOND, ValueResult};
use crate::config::{Balance, Cookie, CookieMode, OnAdd, OnDown, OnReturn, StickTableRules};

/// The size where none is written: room for 262,144 keys.
const DEFAULT_BYTES: u64 = 4 << 20;
/// The longest `remember`.
const REMEMBER_MOST: Duration = Duration::from_secs(30 * 86_400);
/// How long a client waits where no other time is written.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// Keys that say something about a stick table alone.
const OF_MEMORY: [&str; 3] = ["remember", "on_add", "on_return"];

/// Reads the keys of the stick table; `None` = none. `balance` is `None` where it was not understood.
pub(super) fn stick_table(
    pool: &Section<'_>,
    balance: Option<Balance>,
    cookie: Option<&Cookie>,
) -> Option<StickTableRules> {
    let bytes = pool.read("stick_table", value::bytes(1 << 36));
    let stick_table = StickTableRules {
        bytes: bytes.unwrap_or(DEFAULT_BYTES),
        remember: pool.read("remember", value::duration(SECOND, REMEMBER_MOST)).unwrap_or(3 * HOUR),
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
            Bad::new("stick_table \"0\" leaves no room for what [pool.cookie] mode \"learn\" learns"),
        );
    }
    let why = match balance.filter(|balance| !balance.keyed() && !learns) {
        Some(balance) => format!("with balance = \"{}\", which hashes no key", balance.word()),
        None if stick_table.bytes == 0 => "with stick_table = \"0\"".to_owned(),
        None => return Some(stick_table),
    };
    pool.idle_keys(&OF_MEMORY, &why);
    if stick_table.bytes > 0 {
        pool.idle_keys(&["stick_table"], &why);
    }
    None
}

/// Reads `on_down` and `wait_max`.
pub(super) fn when_down(pool: &Section<'_>) -> OnDown {
    const WORDS: [(&str, OnDown); 3] =
        [("rehash", OnDown::Rehash), ("wait", OnDown::Wait(WAIT_MAX)), ("reject", OnDown::Reject)];
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

/// Reads a key that steers new clients away from where placement puts them: they must be remembered, or would move back.
pub(super) fn steers<T>(
    pool: &Section<'_>,
    key: &'static str,
    read: impl Fn(&DeValue<'_>) -> ValueResult<T>,
    stick_table: Option<&StickTableRules>,
) -> Option<T> {
    let steers = pool.read(key, value::unless("off", read))??;
    if stick_table.is_none() {
        pool.error(key, Bad::new(format!("{key} needs a stick table: whom it steers elsewhere must be found again")));
    }
    Some(steers)
}

/// The longest that the application's own sessions live; `check` warns of what forgets sooner.
pub(super) fn app_session_timeout(
    pool: &Section<'_>,
    stick_table: Option<&StickTableRules>,
    max_idle: Option<Duration>,
) {
    let Some(lives) = pool.read("app_session_timeout", value::duration(SECOND, REMEMBER_MOST)) else { return };
    let kept = [("remember", stick_table.map(|stick_table| stick_table.remember)), ("max_idle", max_idle)];
    for (key, time) in kept.into_iter().filter_map(|(key, time)| Some((key, time?))).filter(|(_, time)| *time < lives) {
        let (time, lives) = (value::show_duration(time), value::show_duration(lives));
        let why = format!("{key} \"{time}\" is shorter than the application's sessions live: \"{lives}\"");
        pool.warn(
            "app_session_timeout",
            Bad::new(why).hint("clients that pause longer may lose a session that is still there"),
        );
    }
}
