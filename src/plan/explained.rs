//! [`ClientReport`]: where one client goes and why, by a configuration alone or by the process as it is now.
//!
//! Routes and picks with what connections route and pick with. Writes nothing: no entry, no lease, no count. Invariant:
//! what a report about the living process says is what the client's next connection gets, as long as nothing changes
//! before it comes; the shared store is not asked.

use std::borrow::Borrow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::explanation::Explanation;
use super::question::{AskedClient, ClientTraits, Question, find_down, find_listener};
use crate::config::{self, Tls};
use crate::outcome::Ended;
use crate::pool::Pool;
use crate::pool::request_cookie::{ReadCookie, cookies_of_key};
use crate::route::{RouteFacts, RouteMatch, RouteTable};
use crate::server_name::ServerName;
use crate::snapshot::Snapshot;
use crate::sticky::Facts;
use crate::sticky::cookie::CookieVerdict;

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
    /// Verdict on the cookie of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
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

impl ClientReport {
    /// Answers a question about the running process.
    pub fn now(snapshot: &Snapshot, question: &Question, at: AskedAt) -> Result<Self, String> {
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
        Ok(asked.report(&client, &traits, at))
    }
}

impl<P: Borrow<Pool>> AskedListener<'_, P> {
    /// Routes the client and explains the pick of its pool.
    pub fn report(&self, client: &AskedClient, traits: &ClientTraits, at: AskedAt) -> ClientReport {
        let reads_tls = self.config.tls != Tls::Off;
        let sni = client.sni.as_ref().map(ServerName::as_str).filter(|_| reads_tls);
        let mut report = ClientReport {
            client: client.source,
            listener: self.config.name.clone(),
            live: self.live,
            sni: sni.map(str::to_owned),
            cookie: None,
            refused: None,
            explanation: None,
        };
        let facts = Facts { source: Some(client.source), sni, tlvs: &traits.tlvs, cookies: &[] };
        match self.route(&facts, traits) {
            Ok(found) => self.explain(found.pool, &facts, traits, at, &mut report),
            Err(ended) => report.refused = Some(ended.word().to_owned()),
        }
        report
    }

    /// Where the routes send the client. A request must belong where its connection belongs.
    fn route(&self, facts: &Facts<'_>, traits: &ClientTraits) -> Result<RouteMatch, Ended> {
        let by_name = |sni| self.routes.find_route(&RouteFacts { sni, alpn: &traits.alpn, source: facts.source });
        let found = by_name(facts.sni).ok_or(Ended::NoRoute)?;
        let tls =
            found.route.and_then(|route| self.config.routes.get(route)).map_or(self.config.tls, |route| route.tls);
        let is_http = self.pools[found.pool].borrow().config().http;
        let request = traits.request();
        let host = request.host().filter(|_| traits.names_host && is_http && tls == Tls::Terminate);
        if let Some(host) = host {
            let name = std::str::from_utf8(host.name).ok();
            let name = name.map(|name| name.strip_suffix('.').unwrap_or(name)).and_then(ServerName::parse);
            let is_odd = name.is_none() && !host.is_address();
            if is_odd || by_name(name.as_ref().map(ServerName::as_str)) != Some(found) {
                return Err(Ended::Misdirected);
            }
        }
        Ok(found)
    }

    fn explain(&self, pool: usize, facts: &Facts<'_>, traits: &ClientTraits, at: AskedAt, report: &mut ClientReport) {
        let (down, pool) = (&self.down[pool], self.pools[pool].borrow());
        let fields = traits.request().fields;
        let cookie = ReadCookie::new(pool, fields, at.unix_s, at.now_ms);
        let cookies = cookies_of_key(pool, fields);
        let facts = Facts { cookies: &cookies, ..*facts };
        let explanation = match self.live {
            true => Explanation::now(pool, &facts, cookie.verdict, down, at.now_ms),
            false => Explanation::new(pool, &facts, cookie.backend(), down),
        };
        report.cookie = cookie.verdict.map(|verdict| CookieVerdict::word(verdict).to_owned());
        report.refused = match (&explanation.reason, explanation.wait_ms) {
            (_, Some(0)) => Some(Ended::SettledDown.word().to_owned()),
            (None, _) => Some(if self.live { pool.why_nobody(at.now_ms) } else { Ended::NoBackend }.word().to_owned()),
            (Some(_), _) => None,
        };
        report.explanation = Some(explanation);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admission::Admission;
    use crate::plan::WrittenTraits;
    use crate::pool::AdminState;
    use crate::snapshot::LoadedFiles;

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

    fn snapshot(text: &str) -> Snapshot {
        let checked = config::check(text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
        Snapshot::build(config, LoadedFiles::default(), None, 1, &Arc::new(Admission::new(1)))
    }

    fn ask(snapshot: &Snapshot, listener: &str, traits: WrittenTraits) -> Result<ClientReport, String> {
        let listener = Some(listener.to_owned()).filter(|name| !name.is_empty());
        let question = Question { client: "192.0.2.7:4711".into(), listener, traits, down: Vec::new() };
        ClientReport::now(snapshot, &question, AskedAt { now_ms: 1_000, unix_s: 1_700_000_000 })
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_request_is_routed_by_its_host_and_not_where_its_connection_does_not_belong() {
        let snapshot = snapshot(FILE);
        let pool = |listener: &str, sni: Option<&str>, host: &str| {
            let traits = WrittenTraits { sni: sni.map(str::to_owned), host: some(host), ..WrittenTraits::default() };
            let report = ask(&snapshot, listener, traits).unwrap();
            (report.explanation.map(|explanation| explanation.pool), report.refused, report.sni)
        };
        assert_eq!(pool("shop", None, "api.example.org"), (some("api"), None, some("api.example.org")));
        assert_eq!(pool("shop", None, "www.example.org:443"), (some("web"), None, some("www.example.org")));
        let elsewhere = pool("shop", Some("www.example.org"), "api.example.org");
        assert_eq!(elsewhere, (None, some("misdirected"), some("www.example.org")));
        assert_eq!(pool("plain", None, "api.example.org"), (some("web"), None, None), "there is no hello");
        let refusal = ask(&snapshot, "", WrittenTraits::default()).unwrap_err();
        assert_eq!(refusal, "--listener is needed; there are: shop, plain");
    }

    #[test]
    fn a_cookie_is_explained_with_the_backend_that_it_had_to_leave() {
        let snapshot = snapshot(FILE);
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

    #[test]
    fn a_client_that_no_backend_serves_is_refused_with_the_ending_of_its_connection() {
        let text = FILE.replace("127.0.0.1:5\" }", "127.0.0.1:5\", max_connections = 1 }");
        let snapshot = snapshot(&text.replace("name = \"api\"\n", "name = \"api\"\non_full = \"reject\"\n"));
        let to_api = || WrittenTraits { host: some("api.example.org"), ..WrittenTraits::default() };
        assert_eq!(ask(&snapshot, "shop", to_api()).unwrap().refused, None);
        let _full = crate::pool::Lease::new(&snapshot.pools[1].backends()[0]);
        let report = ask(&snapshot, "shop", to_api()).unwrap();
        assert_eq!((report.refused.as_deref(), report.live), (Some("backend_full"), true));
        let nowhere = serde_json::to_value(ClientReport { explanation: None, ..report }).unwrap();
        assert_eq!(nowhere.get("pool"), None, "{nowhere}");
    }
}
