//! Reports about clients of a small shop, by the file and by the store.

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
        assert_eq!((asked, report.store, report.cookie), (vec!["v".into(), "w".into()], some("known"), some("fresh")));
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
