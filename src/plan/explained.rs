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
use super::question::{AskedClient, ClientTraits, Question, find_down, find_listener};
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
use crate::sticky::Facts;
use crate::sticky::cookie::CookieVerdict;
use crate::store::{KnownHere, StoredValue};

/// What is said about one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The answer of that route: its status, and of a redirect its Location; `None`: it leads to a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Verdict on the cookie of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// What the shared store said of the cookie: `known`, `unknown`, or `not_reached`; `None`: it need not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Ending of a connection or request that no backend gets.
    pub refused: Option<String>,
    /// The pool and its pick; `None`: no route leads to a pool.
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
    /// Names of the backends that are supposed to be down, by pool.
    pub down: &'a [Vec<String>],
    /// True if the pools are those of the running process.
    pub live: bool,
}

/// Time of a question, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct AskedAt {
    /// Milliseconds of the process's clock.
    pub now_ms: u64,
    /// Seconds since 1970.
    pub unix_s: u64,
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
            let (pool, down) = (&snapshot.pools[found.pool?], &asked.down[found.pool?]);
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
            cookie: None,
            store: None,
            refused: None,
            explanation: None,
        };
        match self.route(&facts, traits) {
            Ok(RouteMatch { pool, route }) => {
                report.route = route.map(|route| route + 1);
                match pool {
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
        let reads_http =
            |found: RouteMatch| found.pool.is_none_or(|pool| self.pools[pool].borrow().config().http.is_read());
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
            RouteGoal::Pool(_) => return None,
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
        report.refused = match (&explanation.reason, explanation.wait_ms) {
            (_, Some(0)) => Some(Ended::SettledDown.word().to_owned()),
            (None, _) => Some(if self.live { pool.why_nobody(at.now_ms) } else { Ended::NoBackend }.word().to_owned()),
            (Some(_), _) => None,
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
mod tests {
    use super::*;
    use crate::plan::WrittenTraits;
    use crate::pool::AdminState;

    const FILE: &str = r#"
[[listener]]
name = "shop"
bind = "127.0.0.1:1"
tls = "terminate"
certificate = { cert = "/c.pem", key = "/k.pem" }
pool = "web"
[[listener.route]]
sni = "api.example.org"
pool = "api"
[[listener.route]]
sni = "partner.example.org"
client_certificate = "/ca.pem"
pool = "api"
[[listener]]
name = "plain"
bind = "127.0.0.1:2"
pool = "web"
[[pool]]
name = "web"
http = true
cookie = { mode = "route", name = "SID" }
backend = [{ name = "a", address = "127.0.0.1:3" }, { name = "b", address = "127.0.0.1:4" }]
[[pool]]
name = "api"
http = true
backend = [{ name = "c", address = "127.0.0.1:5" }]
"#;

    const AT: AskedAt = AskedAt { now_ms: 1_000, unix_s: 1_700_000_000 };

    fn ask(snapshot: &Snapshot, listener: &str, traits: WrittenTraits) -> Result<ClientReport, String> {
        let listener = Some(listener.to_owned()).filter(|name| !name.is_empty());
        let question = Question { client: "192.0.2.7:4711".into(), listener, traits, down: Vec::new() };
        ClientReport::now(snapshot, &question, AT, None)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_request_is_routed_by_its_host_and_not_where_its_connection_does_not_belong() {
        let snapshot = Snapshot::of_text(FILE);
        let pool = |listener: &str, sni: Option<&str>, host: &str| {
            let traits = WrittenTraits { sni: sni.map(str::to_owned), host: some(host), ..WrittenTraits::default() };
            let report = ask(&snapshot, listener, traits).unwrap();
            (report.explanation.map(|explanation| explanation.pool), report.refused, report.sni)
        };
        assert_eq!(pool("shop", None, "api.example.org"), (some("api"), None, some("api.example.org")));
        assert_eq!(pool("shop", None, "www.example.org:443"), (some("web"), None, some("www.example.org")));
        let other_name = pool("shop", Some("www.example.org"), "api.example.org");
        assert_eq!(other_name, (some("api"), None, some("www.example.org")), "with the same rules of TLS");
        let elsewhere = pool("shop", Some("www.example.org"), "partner.example.org");
        assert_eq!(elsewhere, (None, some("misdirected"), some("www.example.org")));
        assert_eq!(pool("plain", None, "api.example.org"), (some("web"), None, None), "there is no hello");
        let refusal = ask(&snapshot, "", WrittenTraits::default()).unwrap_err();
        assert_eq!(refusal, "--listener is needed; there are: shop, plain");
    }

    #[test]
    fn a_name_that_the_listener_does_not_know_is_refused_and_a_request_for_one_misdirected() {
        let refusing = "tls = \"terminate\"\nunknown_names = \"refuse\"\n";
        for (file, [unknown, misdirected]) in [
            (FILE.to_owned(), [None, None]),
            (FILE.replace("tls = \"terminate\"\n", refusing), [some("no_route"), some("misdirected")]),
        ] {
            let snapshot = Snapshot::of_text(&file);
            let refused = |sni: Option<&str>, host: Option<&str>| {
                let [sni, host] = [sni, host].map(|name| name.map(str::to_owned));
                ask(&snapshot, "shop", WrittenTraits { sni, host, ..WrittenTraits::default() }).unwrap().refused
            };
            assert_eq!(refused(Some("www.example.org"), None), unknown);
            assert_eq!(refused(Some("api.example.org"), Some("www.example.org")), misdirected);
            assert_eq!(refused(Some("api.example.org"), Some("api.example.org")), None);
            assert_eq!(refused(None, None), None, "a client without a name");
        }
    }

    #[test]
    fn a_cookie_is_explained_with_the_backend_that_it_had_to_leave() {
        let snapshot = Snapshot::of_text(FILE);
        let cookie = |value: &str| {
            let traits = WrittenTraits { cookie: vec![format!("SID={value}")], ..WrittenTraits::default() };
            let report = ask(&snapshot, "plain", traits).unwrap();
            let json = serde_json::to_string(&report).unwrap();
            assert_eq!(serde_json::from_str::<ClientReport>(&json).unwrap(), report, "{json}");
            let explanation = report.explanation.unwrap();
            (report.cookie.unwrap(), explanation.choice.unwrap(), explanation.moved, explanation.from)
        };
        assert_eq!(cookie("1234.b"), ("fresh".into(), "b".into(), None, None));
        assert!(snapshot.pools[0].order("b", AdminState::Close, 500));
        assert_eq!(cookie("1234.b"), ("fresh".into(), "a".into(), some("drain"), some("b")));
        assert_eq!(cookie("1234.z"), ("unknown".into(), "a".into(), None, None));
    }

    /// What a request with these values would ask the store, and what the report says once that has answered.
    fn with_store(snapshot: &Snapshot, cookie: &str, answers: &StoreAnswers) -> (Vec<String>, ClientReport) {
        let traits = WrittenTraits { cookie: vec![cookie.to_owned()], ..WrittenTraits::default() };
        let question = Question { client: "192.0.2.7".into(), listener: some("plain"), traits, down: Vec::new() };
        let asked = AskedStore::of(snapshot, &question, AT).unwrap();
        let values = asked.into_iter().flat_map(|asked| asked.values);
        let report = ClientReport::now(snapshot, &question, AT, Some(answers)).unwrap();
        (values.map(|value| String::from_utf8(value.into()).unwrap()).collect(), report)
    }

    #[test]
    fn a_cookie_that_only_the_store_knows_leads_where_the_next_request_would_go() {
        let snapshot = Snapshot::of_text(&FILE.replace("mode = \"route\"", "mode = \"learn\""));
        let answered = |value: &str, backend: &str| {
            let stored = StoredValue { backend: backend.into(), is_set: true };
            StoreAnswers { found: vec![(value.as_bytes().into(), stored)], is_reached: true }
        };
        let pool = &snapshot.pools[0];
        for name in ["a", "b"] {
            let (asked, report) = with_store(&snapshot, "SID=v; SID=w", &answered("v", name));
            assert_eq!(
                (asked, report.store, report.cookie),
                (vec!["v".into(), "w".into()], some("known"), some("fresh"))
            );
            let said = report.explanation.unwrap();
            assert_eq!((said.choice, said.reason, said.moved), (some(name), some("cookie"), None));
        }
        // The store names a backend that has left the pool: the client was moved from there.
        let said = with_store(&snapshot, "SID=v", &answered("v", "web9")).1.explanation.unwrap();
        assert_eq!((said.moved, said.from), (some("removed"), some("web9")));
        // Without an answer the pick places it, and the report says so.
        for (is_reached, word) in [(true, "unknown"), (false, "not_reached")] {
            let answers = StoreAnswers { found: Vec::new(), is_reached };
            let report = with_store(&snapshot, "SID=v", &answers).1;
            assert_eq!((report.store, report.cookie), (some(word), None));
            assert_ne!(report.explanation.unwrap().reason, some("cookie"));
        }
        // What is known here is not asked for, and one whose backend cannot have it is.
        pool.table().unwrap().learn(b"v", &pool.backends()[0], AT.now_ms);
        assert!(with_store(&snapshot, "SID=v", &StoreAnswers::default()).0.is_empty());
        assert!(pool.order("a", AdminState::Close, AT.now_ms - 500));
        let (asked, report) = with_store(&snapshot, "SID=v", &answered("v", "b"));
        let said = report.explanation.unwrap();
        assert_eq!((asked.len(), said.choice, said.moved, said.from), (1, some("b"), some("drain"), some("a")));
        // Nothing was learned by asking.
        assert_eq!(with_store(&snapshot, "SID=w", &StoreAnswers::default()).0, ["w"]);
    }

    #[test]
    fn a_client_that_no_backend_serves_is_refused_with_the_ending_of_its_connection() {
        let text = FILE.replace("127.0.0.1:5\" }", "127.0.0.1:5\", max_connections = 1 }");
        let snapshot = Snapshot::of_text(&text.replace("name = \"api\"\n", "name = \"api\"\non_full = \"reject\"\n"));
        let to_api = || WrittenTraits { host: some("api.example.org"), ..WrittenTraits::default() };
        assert_eq!(ask(&snapshot, "shop", to_api()).unwrap().refused, None);
        let _full = crate::pool::Lease::new(&snapshot.pools[1].backends()[0]);
        let report = ask(&snapshot, "shop", to_api()).unwrap();
        assert_eq!((report.refused.as_deref(), report.live), (Some("backend_full"), true));
        let nowhere = serde_json::to_value(ClientReport { explanation: None, ..report }).unwrap();
        assert_eq!(nowhere.get("pool"), None, "{nowhere}");
    }
}
