//! [`KeptPlaces`]: places of files that no argument names, which a process gives on to the next one of an upgrade.
//!
//! Chooses none (the command line does, for the first process). Invariant: a process that an upgrade has started without
//! a file has its admin socket and the keys of its cookie where the process before has them.

use std::ffi::OsString;
use std::path::PathBuf;

use super::ENVIRONMENT;
use crate::config::{Config, CookieMode, Split};

/// Variable in the environment of the new process: path of the admin socket; empty: there is none.
const SOCKET: &str = "SESSILE_UPGRADE_SOCKET";
/// Variable in the environment of the new process: file with the keys of the cookie; empty: there is none.
const COOKIE_KEYS: &str = "SESSILE_UPGRADE_COOKIE_KEYS";

/// Places that the arguments of `run` may leave open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptPlaces {
    /// Path of the admin socket; `None`: there is none.
    pub socket: Option<PathBuf>,
    /// File with the keys of the cookie; `None`: no pool has a cookie of sessile.
    pub cookie_keys: Option<PathBuf>,
}

impl KeptPlaces {
    /// The places of a configuration in force.
    pub(in crate::server) fn of(config: &Config) -> Self {
        let of_splits = config.splits.iter().filter_map(Split::cookie);
        let mut cookies = config.pools.iter().filter_map(|pool| pool.cookie.as_ref()).chain(of_splits);
        let cookie_keys = cookies.find_map(|cookie| match &cookie.mode {
            CookieMode::Insert(insert) => Some(insert.keys.clone()),
            _ => None,
        });
        Self { socket: config.process.admin.socket.clone(), cookie_keys }
    }

    /// The places that the process before has given on; `None`: no upgrade has started this process.
    pub fn of_environment() -> Option<Self> {
        Self::of_variables(|name| std::env::var_os(name))
    }

    fn of_variables(value: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        value(ENVIRONMENT)?;
        let place = |name| Some(value(name)?).filter(|path| !path.is_empty()).map(PathBuf::from);
        value(SOCKET).map(|_| Self { socket: place(SOCKET), cookie_keys: place(COOKIE_KEYS) })
    }

    /// The variables that give the places on.
    pub(super) fn variables(&self) -> [(&'static str, OsString); 2] {
        let text = |path: &Option<PathBuf>| path.clone().unwrap_or_default().into_os_string();
        [(SOCKET, text(&self.socket)), (COOKIE_KEYS, text(&self.cookie_keys))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_gives_on_is_what_the_next_one_has() {
        let both = KeptPlaces { socket: Some("/run/a.sock".into()), cookie_keys: Some("/var/lib/keys".into()) };
        for places in [both.clone(), KeptPlaces { cookie_keys: None, ..both.clone() }, KeptPlaces::default()] {
            let variables = places.variables();
            let value = |name: &str| {
                let given = variables.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone());
                given.or_else(|| (name == ENVIRONMENT).then(|| "1".into()))
            };
            assert_eq!(KeptPlaces::of_variables(value), Some(places));
        }
        let variables = both.variables();
        let find = |name: &str| variables.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone());
        assert_eq!(KeptPlaces::of_variables(find), None, "no upgrade");
        assert_eq!(
            KeptPlaces::of_variables(|name| (name == ENVIRONMENT).then(|| "1".into())),
            None,
            "a file is served"
        );
    }

    #[test]
    fn the_places_are_those_of_the_configuration_in_force() {
        let text = "[admin]\nsocket = '/run/a.sock'\n[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\npool = 'p'\n\
                    [[pool]]\nname = 'p'\nhttp = true\ncookie = { mode = 'insert', keys = '/k' }\n\
                    backend = ['127.0.0.1:1']\n";
        let of = |text: &str| {
            let no_names = |_: &str| Err(std::io::Error::other("no names"));
            KeptPlaces::of(&crate::config::check(text, &no_names).unwrap().config)
        };
        let both = KeptPlaces { socket: Some("/run/a.sock".into()), cookie_keys: Some("/k".into()) };
        assert_eq!(of(text), both);
        let off = text.replace("'/run/a.sock'", "'off'").replace("cookie = { mode = 'insert', keys = '/k' }\n", "");
        assert_eq!(of(&off), KeptPlaces::default());
    }
}
