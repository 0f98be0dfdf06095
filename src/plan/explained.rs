//! [`ClientReport`]: where one client goes and why, by a configuration alone or by the process as it is now.
//!
//! Routes and picks with what connections route and pick with. Writes nothing: no entry, no lease, no count. Invariant:
//! what a report about the living process says is what the client's next connection gets, as long as nothing changes
//! before it comes. The process asks the shared store in between: [`AskedStore::of`] says what to ask, and
//! [`StoreAnswers`] brings what it said.

use std::borrow::Borrow;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::explanation::{Explanation, LiveCookie};
use super::question::{AskedAt, AskedClient, ClientTraits, Question, find_down, find_listener};
use super::split::{SplitReport, choice_of};
use crate::answers::{Answered, location};
use crate::config::{self, RouteGoal, Tls};
use crate::http::answer::ID_FIELD;
use crate::outcome::Ended;
use crate::pool::request_cookie::ReadCookie;
use crate::pool::request_key::values_of_key;
use crate::pool::{PickScene, Pool};
use crate::route::requests::RequestFacts;
use crate::route::{RouteFacts, RouteMatch, RouteTable};
use crate::server_name::{NAME_MAX, ServerName};
use crate::snapshot::Snapshot;
use crate::split::ListenerSplits;
use crate::sticky::Facts;
use crate::sticky::cookie::CookieVerdict;
use crate::store::{KnownHere, StoredValue};

/// What is said about one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientReport {
    /// Address of the client.
    pub client: IpAddr,
    /// Name of the listener.
    pub listener: String,
    /// True if the running process was asked; false if the configuration alone was read.
    pub live: bool,
    /// Server name in the client's hello.
    pub sni: Option<String>,
    /// Number of the route that decides, in its listener, from 1; `None`: the default pool, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<usize>,
    /// The answer of that route: its status, and of a redirect its Location; `None`: it leads to a pool or a split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The split that the route leads to; `None`: it leads to a pool, or answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitReport>,
    /// Verdict on the cookie of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// What the shared store said of the cookie: `known`, `unknown`, or `not_reached`; `None`: it need not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Ending of a connection or request that no backend gets.
    pub refused: Option<String>,
    /// The pool and its pick; `None`: no route leads to a pool, or a split has not chosen one yet.
    #[serde(flatten)]
    pub explanation: Option<Explanation>,
}

/// A listener with its routes, and the pools that they lead to.
#[derive(Debug)]
pub struct AskedListener<'a, P> {
    /// The listener as configured.
    pub config: &'a config::Listener,
    /// Its routes, by index of the pool.
    pub routes: &'a RouteTable,
    /// Every pool.
    pub pools: &'a [P],
    /// The splits that its routes lead to.
    pub splits: &'a ListenerSplits,
    /// Names of the backends that are supposed to be down, by pool.
    pub down: &'a [Vec<String>],
    /// True if the pools are those of the running process.
    pub live: bool,
}

/// What the shared store is to be asked for one client.
#[derive(Debug)]
pub struct AskedStore {
    /// Pool of the client.
    pub pool: Arc<Pool>,
    /// Values of the pool's cookie; at least one.
    pub values: Vec<Box<[u8]>>,
}

/// What the shared store has answered.
#[derive(Debug, Default)]
pub struct StoreAnswers {
    /// Values that the store has, in the order in which they were asked for.
    pub found: Vec<(Box<[u8]>, StoredValue)>,
    /// The store has answered everything; a connection would wait no longer than that either.
    pub is_reached: bool,
}

impl AskedStore {
    /// What a request of this client would ask the store; `None`: nothing.
    pub fn of(snapshot: &Snapshot, question: &Question, at: AskedAt) -> Result<Option<Self>, String> {
        on_listener(snapshot, question, |asked, client, traits| {
            let found = asked.route(&asked.facts(client, traits), traits).ok()?;
            let index = match asked.splits.of(found.route).filter(|_| found.pool.is_none()) {
                Some(split) => {
                    let facts = asked.facts(client, traits);
                    choice_of(split, (asked.pools, asked.down), (&facts, traits), at).1?
                }
                None => found.pool?,
            };
            let (pool, down) = (&snapshot.pools[index], &asked.down[index]);
            let cookie = ReadCookie::new(pool, &traits.request(), at.unix_s, at.now_ms);
            let facts = asked.facts(client, traits);
            let here = KnownHere::new(pool, cookie.verdict, can_have(pool, &facts, down, at.now_ms));
            let values: Vec<_> = here.to_find(cookie.value, cookie.unknown).map(Box::from).collect();
            (!values.is_empty()).then(|| Self { pool: Arc::clone(pool), values })
        })
    }
}

impl ClientReport {
    /// Answers a question about the running process; `store`: what the store has answered, if it was asked.
    pub fn now(
        snapshot: &Snapshot,
        question: &Question,
        at: AskedAt,
        store: Option<&StoreAnswers>,
    ) -> Result<Self, String> {
        on_listener(snapshot, question, |asked, client, traits| asked.report(client, traits, at, store))
    }
}

/// Finds the listener of a question in the running process, and reads the client.
fn on_listener<T>(
    snapshot: &Snapshot,
    question: &Question,
    then: impl FnOnce(&AskedListener<'_, Arc<Pool>>, &AskedClient, &ClientTraits) -> T,
) -> Result<T, String> {
    let config = find_listener(&snapshot.config, question.listener.as_deref())?;
    let listener = snapshot.listener(&config.name).ok_or("the listener has just been removed")?;
    let traits = ClientTraits::read(&question.traits)?;
    let client = AskedClient::parse(&question.client, &traits)?;
    let down = find_down(&snapshot.config, &question.down)?;
    let asked = AskedListener {
        config: &listener.config,
        routes: &listener.routes,
        pools: &snapshot.pools,
        splits: &listener.splits,
        down: &down,
        live: true,
    };
    Ok(then(&asked, &client, &traits))
}

/// Whether a backend of the living pool can have the client now, with these backends down, too.
fn can_have<'a>(
    pool: &'a Pool,
    facts: &'a Facts<'a>,
    down: &[String],
    now_ms: u64,
) -> impl Fn(usize) -> bool + use<'a> {
    let down: Vec<usize> = down.iter().filter_map(|name| pool.index_of(name)).collect();
    move |index| pool.can_have(index, &PickScene::asked(facts, None, &down, now_ms))
}

impl<P: Borrow<Pool>> AskedListener<'_, P> {
    /// What is known of the client before its request is read.
    fn facts<'c>(&self, client: &'c AskedClient, traits: &'c ClientTraits) -> Facts<'c> {
        let reads_tls = self.config.tls != Tls::Off;
        let sni = client.sni.as_ref().map(ServerName::as_str).filter(|_| reads_tls);
        Facts { source: Some(client.source), sni, tlvs: &traits.tlvs, values: &[] }
    }

    /// Routes the client and explains the pick of its pool; `store` as for [`ClientReport::now`].
    pub fn report(
        &self,
        client: &AskedClient,
        traits: &ClientTraits,
        at: AskedAt,
        store: Option<&StoreAnswers>,
    ) -> ClientReport {
        let facts = self.facts(client, traits);
        let mut report = ClientReport {
            client: client.source,
            listener: self.config.name.clone(),
            live: self.live,
            sni: facts.sni.map(str::to_owned),
            route: None,
            answer: None,
            split: None,
            cookie: None,
            store: None,
            refused: None,
            explanation: None,
        };
        match self.route(&facts, traits) {
            Ok(RouteMatch { pool, route }) => {
                report.route = route.map(|route| route + 1);
                let split = self.splits.of(route).filter(|_| pool.is_none());
                let choice = |split| choice_of(split, (self.pools, self.down), (&facts, traits), at);
                let (said, chosen) = split.map(|split| choice(split)).unzip();
                report.split = said;
                match pool.or(chosen.flatten()) {
                    Some(pool) => self.explain(pool, &facts, (traits, at, store), &mut report),
                    None => report.answer = route.and_then(|route| self.answer(route, &facts, traits)),
                }
            }
            Err(ended) => report.refused = Some(ended.word().to_owned()),
        }
        report
    }

    /// Where the routes send the client: its connection, or, where that is read as HTTP, its request.
    fn route(&self, facts: &Facts<'_>, traits: &ClientTraits) -> Result<RouteMatch, Ended> {
        let connection = RouteFacts { sni: facts.sni, alpn: &traits.alpn, source: facts.source };
        let found = self.routes.find_route(&connection).ok_or(Ended::NoRoute)?;
        let tls = self.config.rules_of(found.route).tls;
        let reads_http = |found: RouteMatch| match found.pool {
            Some(pool) => self.pools[pool].borrow().config().http.is_read(),
            None => self.splits.of(found.route).is_none_or(|split| split.is_of_requests()),
        };
        if tls == Tls::Passthrough || !reads_http(found) {
            return Ok(found);
        }
        let request = traits.request();
        let host = request.host().filter(|_| traits.names_host);
        if let Some(host) = host.filter(|_| tls == Tls::Terminate)
            && !self.routes.belongs(self.config, (found, &connection), host, reads_http)
        {
            return Err(Ended::Misdirected);
        }
        let mut buffer = [0; NAME_MAX];
        let asked = RequestFacts::of(&request, connection, &mut buffer);
        let asked = if host.is_some() { asked } else { RequestFacts { host: facts.sni, ..asked } };
        let found = self.routes.find_by_request(&asked).ok_or(Ended::NoRoute)?;
        if reads_http(found) { Ok(found) } else { Err(Ended::Misdirected) }
    }

    /// The answer of a route, in words.
    fn answer(&self, route: usize, facts: &Facts<'_>, traits: &ClientTraits) -> Option<String> {
        let request = traits.request();
        let secure = self.config.tls != Tls::Off || self.config.client_tls;
        let host = request.host().filter(|_| traits.names_host || facts.sni.is_none());
        let (sni, target) = (facts.sni, request.target);
        let to = Answered { secure, host, sni, target, id: (ID_FIELD, ""), to_head: false, close: false };
        Some(match &self.config.routes.get(route)?.goal {
            RouteGoal::Pool(_) | RouteGoal::Split(_) => return None,
            RouteGoal::Redirect(redirect) => format!("{} {}", redirect.status, location(redirect, &to)?),
            RouteGoal::Respond(respond) => respond.status.to_string(),
        })
    }

    fn explain(
        &self,
        pool: usize,
        facts: &Facts<'_>,
        (traits, at, store): (&ClientTraits, AskedAt, Option<&StoreAnswers>),
        report: &mut ClientReport,
    ) {
        let (down, pool) = (&self.down[pool], self.pools[pool].borrow());
        let request = traits.request();
        let cookie = ReadCookie::new(pool, &request, at.unix_s, at.now_ms);
        let values = values_of_key(pool, &request, traits.certificate.as_deref());
        let facts = Facts { values: &values, ..*facts };
        let mut live = LiveCookie { verdict: cookie.verdict, ..LiveCookie::default() };
        if let Some(answers) = store {
            report.store = Some(answers.judge(pool, &mut live, can_have(pool, &facts, down, at.now_ms), at).to_owned());
        }
        let verdict = live.verdict;
        let explanation = match self.live {
            true => Explanation::now(pool, &facts, live, down, at.now_ms),
            false => Explanation::new(pool, &facts, cookie.backend(), down),
        };
        report.cookie = verdict.map(|verdict| CookieVerdict::word(verdict).to_owned());
        report.refused = match (&explanation.reason, explanation.wait_ms, &explanation.line) {
            (_, Some(0), _) => Some(Ended::SettledDown.word().to_owned()),
            (None, _, Some(line)) => line.full.then(|| Ended::QueueFull.word().to_owned()),
            (None, _, None) => {
                Some(if self.live { pool.why_nobody(at.now_ms) } else { Ended::NoBackend }.word().to_owned())
            }
            (Some(_), ..) => None,
        };
        report.explanation = Some(explanation);
    }
}

impl StoreAnswers {
    /// Adds to the cookie what the answers mean; the word of the report.
    fn judge(
        &self,
        pool: &Pool,
        cookie: &mut LiveCookie,
        can_have: impl Fn(usize) -> bool,
        at: AskedAt,
    ) -> &'static str {
        let here = KnownHere::new(pool, cookie.verdict, &can_have);
        let counts = here.counts(self.found.iter().map(|(value, stored)| (value, stored.clone())));
        if let Some(found) = counts.and_then(|(_, stored)| here.judge(&stored, at.unix_s, &can_have)) {
            *cookie = LiveCookie { verdict: Some(found.verdict), left: found.left, gone: found.gone };
        }
        match (self.found.is_empty(), self.is_reached) {
            (false, _) => "known",
            (true, true) => "unknown",
            (true, false) => "not_reached",
        }
    }
}

#[cfg(test)]
mod tests;
