//! [`Explainer`]: routes and pools of a configuration file, and where they send one client.
//!
//! Builds the same route tables and pools that serve; `plan` asks them. Invariant: a mistake in the arguments is found
//! before the first client is explained.

use crate::cli::{CommandError, load};
use crate::clock;
use crate::config::{self, Config, FileProblem};
use crate::plan::{
    AskedAt, AskedClient, AskedListener, ClientReport, ClientTraits, Question, find_down, find_listener,
};
use crate::pool::Pool;
use crate::route::RouteTable;
use crate::server::cookie_keys;
use crate::server_name::NamePattern;
use crate::snapshot::Rings;
use crate::split::ListenerSplits;
use crate::tls::Termination;

/// Explains clients of one listener.
pub(super) struct Explainer<'a> {
    listener: &'a config::Listener,
    routes: RouteTable,
    pools: Vec<Pool>,
    splits: ListenerSplits,
    /// Names of the backends that are down, by pool.
    down: Vec<Vec<String>>,
    traits: ClientTraits,
}

impl<'a> Explainer<'a> {
    /// Builds the routes and pools of the configuration, for clients like that of the question.
    pub(super) fn new(question: &Question, config: &'a Config) -> Result<Self, CommandError> {
        let listener = find_listener(config, question.listener.as_deref()).map_err(CommandError::Usage)?;
        let index = |name: &str| config.pools.iter().position(|pool| pool.name == name).unwrap_or(usize::MAX);
        let with_cookies = !(question.traits.cookie.is_empty() && question.traits.header.is_empty());
        let rings = rings(config, with_cookies)?;
        let pool = |pool: &config::Pool| Pool::new(pool, None, 1).with_cookie(rings.rule(pool));
        let splits = rings.splits(config, index, &[], 1);
        Ok(Self {
            listener,
            routes: RouteTable::of(listener, index).knowing(listener, &certificate_names(listener, config)?),
            pools: config.pools.iter().map(pool).collect(),
            splits: ListenerSplits::new(listener, &splits),
            down: find_down(config, &question.down).map_err(CommandError::Usage)?,
            traits: ClientTraits::read(&question.traits).map_err(CommandError::Usage)?,
        })
    }

    /// Routes a client, written as `ADDR [SNI]`, and explains the pick of its pool.
    pub(super) fn explain(&self, client: &str) -> Result<ClientReport, CommandError> {
        let client = AskedClient::parse(client, &self.traits).map_err(CommandError::Usage)?;
        let Self { listener: config, routes, pools, splits, down, .. } = self;
        let asked = AskedListener { config, routes, pools, splits, down, live: false };
        let at = AskedAt { now_ms: clock::now() / 1_000, unix_s: clock::unix_s() };
        Ok(asked.report(&client, &self.traits, at, None))
    }
}

/// The names in the certificates of a listener, where they decide about clients.
fn certificate_names(listener: &config::Listener, config: &Config) -> Result<Vec<NamePattern>, CommandError> {
    if !listener.refuses_unknown_names {
        return Ok(Vec::new());
    }
    let of_thread = config.clone();
    let loaded = load::in_time(move || Termination::load(&of_thread, None, clock::now_ms))?;
    loaded.map(|tls| tls.names(&listener.name).to_vec()).map_err(|problems| unreadable(&problems))
}

/// The problems of files that have to be read.
fn unreadable(problems: &[FileProblem]) -> CommandError {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    CommandError::Usage(problems.join("; "))
}

/// Reads the keys of cookies, which have to be readable only for clients with cookies.
fn rings(config: &Config, with_cookies: bool) -> Result<Rings, CommandError> {
    let of_thread = config.clone();
    match load::in_time(move || cookie_keys(&of_thread))? {
        Ok(rings) => Ok(rings),
        Err(problems) if with_cookies => Err(unreadable(&problems)),
        Err(_) => Ok(Rings::default()),
    }
}
