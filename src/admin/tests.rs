//! The interface through its front doors: a real unix socket and a real port, before a control that plays along.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::events::{Event, EventKind};
use crate::metrics::status::{BackendStatus, PoolStatus};
use crate::order::OrderKind;
use crate::server_name::ServerName;

#[derive(Default)]
pub(super) struct Fake {
    not_ready: AtomicBool,
    reloads_begun: AtomicUsize,
    reloads_done: AtomicUsize,
    refuse: AtomicBool,
    pub(super) events: EventRing,
    sampler: PageSampler,
    pub(super) samples: AtomicUsize,
    /// Looks at stick tables, and how long each takes.
    pub(super) looks: AtomicUsize,
    pub(super) look_ms: AtomicU64,
}

#[derive(Serialize)]
pub(super) struct Open {
    id: u64,
    client: &'static str,
    pool: Option<&'static str>,
    backend: Option<&'static str>,
}

impl Open {
    fn of_pool(id: u64, pool: Option<&'static str>) -> Self {
        Self { id, client: "10.0.0.1:4711", pool, backend: None }
    }
}

impl Control for Fake {
    type Connection = Open;

    fn ready(&self) -> Result<(), String> {
        if self.not_ready.load(SeqCst) { Err("stopping".into()) } else { Ok(()) }
    }

    fn status(&self) -> Status {
        let backends =
            ["a", "b"].map(|name| BackendStatus { name: name.into(), weight: 1, ..BackendStatus::default() });
        let pool = PoolStatus { name: "web".into(), backends: backends.into(), ..PoolStatus::default() };
        Status { generation: 4, pools: vec![pool], ..Status::default() }
    }

    fn counted(&self) -> Status {
        self.samples.fetch_add(1, SeqCst);
        let mut status = self.status();
        // A connection for each millisecond.
        status.pools[0].backends[0].totals.connections = crate::clock::unix_ms();
        status
    }

    fn sampler(&self) -> &PageSampler {
        &self.sampler
    }

    fn stick_tables(&self) -> Vec<StickTableView> {
        self.looks.fetch_add(1, SeqCst);
        thread::sleep(Duration::from_millis(self.look_ms.load(SeqCst)));
        let hot = HotKey { key: "10.0.0.1".into(), share: 0.5, share_error: 0.0, backend: Some("a".into()) };
        vec![StickTableView {
            stick_table: status::StickTableStatus { name: "web".into(), ..status::StickTableStatus::default() },
            hottest: vec![hot],
        }]
    }

    async fn explain(&self, question: Question) -> Result<ClientReport, String> {
        let client = question.client.parse().map_err(|_| "no client".to_owned())?;
        let listener = question.traits.cookie.join("|");
        let (sni, live, route, answer) = (question.traits.sni, true, None, None);
        let (cookie, store, refused, explanation) = (None, None, None, None);
        let split = None;
        Ok(ClientReport { client, listener, live, sni, route, answer, split, cookie, store, refused, explanation })
    }

    async fn connections(&self, filter: ConnectionFilter) -> (usize, Vec<Open>) {
        let open = |id: u64| Open {
            backend: Some(if id.is_multiple_of(2) { "a" } else { "b" }),
            ..Open::of_pool(id, Some("web"))
        };
        let mut all: Vec<_> = (0..3_000).map(open).collect();
        all.push(Open::of_pool(3_000, None));
        let wanted = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|name| is == Some(name));
        all.retain(|open| wanted(&filter.pool, open.pool) && wanted(&filter.backend, open.backend));
        (all.len(), all.into_iter().take(filter.limit).collect())
    }

    async fn reopen_log(&self) -> Result<String, String> {
        if self.refuse.load(SeqCst) { Err("to standard output".into()) } else { Ok("/a.log".into()) }
    }

    async fn reload(&self, _max_move: Option<f64>) -> ReloadVerdict {
        self.reloads_begun.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.reloads_done.fetch_add(1, SeqCst);
        let accepted = !self.refuse.load(SeqCst);
        ReloadVerdict { accepted, generation: 5, digest: "00ff".into(), ..ReloadVerdict::default() }
    }

    async fn plan(&self, asked: PlanRequest) -> Result<Plan, Vec<String>> {
        if asked.text.is_empty() {
            Err(vec![asked.file])
        } else {
            let (routes, splits, warnings, pools) = (vec![], vec![], vec![], vec![]);
            Ok(Plan { changes: vec![asked.text], routes, splits, warnings, pools, headline: None })
        }
    }

    fn events(&self) -> &EventRing {
        &self.events
    }

    async fn why(&self, what: String) -> WhyReport {
        WhyReport { answer: what, ..WhyReport::default() }
    }

    async fn upgrade(self: Arc<Self>, binary: Option<std::path::PathBuf>) -> UpgradeVerdict {
        UpgradeVerdict { accepted: binary.is_some(), ..UpgradeVerdict::default() }
    }

    async fn order(&self, order: BackendOrder, max_move: Option<f64>) -> Result<String, OrderRefusal> {
        let BackendOrder { pool, backend, kind } = order;
        match &*pool {
            "web" if max_move == Some(0.0) => Err(OrderRefusal::Refused("too much".to_owned())),
            "web" => Ok(format!("{pool}/{backend}: {kind:?}")),
            _ => Err(OrderRefusal::Unknown(format!("no pool {pool}"))),
        }
    }

    fn orders(&self) -> Vec<BackendOrder> {
        vec![BackendOrder { pool: "web".into(), backend: "d".into(), kind: OrderKind::Remove { now: false } }]
    }

    async fn followed(self: Arc<Self>, stage: SuccessorStage) -> Result<HeldAddresses, String> {
        self.ready().err().ok_or_else(|| "not stopping".to_owned())?;
        Ok(HeldAddresses { listening: vec![format!("{stage:?}")] })
    }

    #[cfg(debug_assertions)]
    async fn panic(&self, _id: u64) {}
}

/// The interface, served by a thread of its own.
pub(super) struct TestAdmin {
    pub(super) control: Arc<Fake>,
    pub(super) socket: PathBuf,
    pub(super) http: SocketAddr,
    pub(super) stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl TestAdmin {
    /// An interface with a port that names clients.
    pub(super) fn start() -> Self {
        Self::with(true)
    }

    pub(super) fn with(clients: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let config = config::Admin {
            socket: Some(socket.clone()),
            mode: 0o660,
            group: None,
            http: Some("127.0.0.1:0".parse().unwrap()),
            allow: vec![],
            clients,
            names: vec![ServerName::parse("metrics.test").unwrap()],
        };
        let mut sockets = Sockets::bind(&config).unwrap();
        let http = sockets.http_address().unwrap();
        let port = sockets.take_http().unwrap();
        let control = Arc::new(Fake::default());
        let (stop, stopped) = watch::channel(false);
        let served = Arc::clone(&control);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let over_unix = sockets.serve(Arc::clone(&served), stopped.clone());
            runtime.block_on(async { tokio::try_join!(over_unix, port.serve(served, stopped)) }).unwrap();
        });
        Self { control, socket, http, stop, thread: Some(thread), _folder: folder }
    }

    pub(super) fn over_unix(&self, method: &str, path: &str) -> (u16, String) {
        exchange(UnixStream::connect(&self.socket).unwrap(), method, path)
    }

    pub(super) fn over_http(&self, method: &str, path: &str) -> (u16, String) {
        exchange(TcpStream::connect(self.http).unwrap(), method, path)
    }

    fn json(&self, path: &str) -> Value {
        let (code, body) = self.over_unix("GET", path);
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for TestAdmin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let joined = self.thread.take().unwrap().join();
        if !thread::panicking() {
            joined.unwrap();
            assert!(!self.socket.exists(), "the socket file stays behind");
        }
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> (u16, String) {
    write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.into())
}

#[test]
fn both_doors_show_the_same() {
    let served = TestAdmin::start();
    for path in
        ["/metrics", "/healthz", "/readyz", "/status", "/pools", "/backends", "/stick-table", "/connections?limit=2"]
    {
        let (code, body) = served.over_unix("GET", path);
        assert_eq!(code, 200, "{path}");
        let (code, other) = served.over_http("GET", path);
        assert_eq!((code, other.len()), (200, body.len()), "{path}");
    }
    assert!(served.over_unix("GET", "/metrics").1.contains("\nsessile_generation 4\n"));
    assert_eq!(served.over_unix("GET", "/nothing").0, 404);
}

#[test]
fn views_show_what_they_are_named_for() {
    let served = TestAdmin::start();
    assert_eq!(served.json("/status")["generation"], 4);
    assert_eq!(served.json("/pools")[0]["backends"][1]["name"], "b");
    let stick_table = &served.json("/stick-table")[0];
    assert_eq!((&stick_table["name"], &stick_table["hottest"][0]["key"]), (&"web".into(), &"10.0.0.1".into()));
    let backends = served.json("/backends");
    assert_eq!((&backends[1]["pool"], &backends[1]["name"]), (&"web".into(), &"b".into()));
}

#[test]
fn connections_are_filtered_counted_and_limited() {
    let served = TestAdmin::start();
    let shown = |path: &str| {
        let answer = served.json(path);
        assert_eq!(answer["connections"].as_array().unwrap().len(), answer["shown"]);
        (answer["open"].as_u64().unwrap(), answer["shown"].as_u64().unwrap())
    };
    assert_eq!(shown("/connections"), (3_001, ConnectionFilter::LIMIT as u64));
    assert_eq!(shown("/connections?limit=5000"), (3_001, 3_001));
    assert_eq!(shown("/connections?pool=web&limit=0"), (3_000, 0));
    assert_eq!(shown("/connections?pool=web&backend=a&limit=7"), (1_500, 7));
    assert_eq!(shown("/connections?pool=other"), (0, 0));
    for bad in ["/connections?limit=many", "/connections?pol=web"] {
        assert_eq!(served.over_unix("GET", bad).0, 400, "{bad}");
    }
}

#[test]
fn a_question_about_a_client_comes_whole_and_by_both_doors() {
    let served = TestAdmin::start();
    let path = "/explain?client=192.0.2.7&sni=a.test&host=&cookie=SID%3D1%3B+x%3D2&cookie=y%3D%263";
    let report = served.json(path);
    let read = [&report["client"], &report["sni"], &report["listener"]];
    assert_eq!(read, ["192.0.2.7", "a.test", "SID=1; x=2|y=&3"], "the listener repeats the cookies");
    assert_eq!((&report["live"], served.over_http("GET", path).0), (&true.into(), 200));
    assert_eq!(served.over_http("GET", "/explain?client=nobody"), (400, "no client\n".into()));
    let (code, why) = served.over_unix("GET", "/explain?client=::1&tea=green");
    assert_eq!((code, &*why), (400, "there is no parameter \"tea\"\n"));
    assert_eq!(served.over_unix("POST", path).0, 405);
}

#[test]
fn not_ready_says_why() {
    let served = TestAdmin::start();
    served.control.not_ready.store(true, SeqCst);
    assert_eq!(served.over_http("GET", "/readyz"), (503, "not ready: stopping\n".into()));
    assert_eq!(served.over_http("GET", "/healthz").0, 200);
}

#[test]
fn the_log_is_opened_anew_by_the_unix_socket_only() {
    let served = TestAdmin::start();
    assert_eq!(served.over_unix("POST", "/log/reopen"), (200, "/a.log\n".to_owned()));
    served.control.refuse.store(true, SeqCst);
    assert_eq!(served.over_unix("POST", "/log/reopen"), (409, "to standard output\n".to_owned()));
    assert_eq!(served.over_http("POST", "/log/reopen").0, 404);
}

#[test]
fn reload_answers_with_the_verdict_on_the_unix_socket_only() {
    let served = TestAdmin::start();
    let (code, body) = served.over_unix("POST", "/reload");
    let verdict: ReloadVerdict = serde_json::from_str(&body).unwrap();
    assert_eq!((code, verdict.accepted, verdict.generation), (200, true, 5));
    served.control.refuse.store(true, SeqCst);
    assert_eq!(served.over_unix("POST", "/reload").0, 409);
    assert_eq!(served.over_unix("GET", "/reload").0, 405);
    assert_eq!(served.over_http("POST", "/reload").0, 404);
    assert_eq!(served.control.reloads_begun.load(SeqCst), 2);
}

#[test]
fn the_next_process_reports_itself_on_the_unix_socket_only_and_to_a_process_that_stops() {
    let served = TestAdmin::start();
    assert_eq!(served.over_unix("POST", "/successor/starting"), (409, "not stopping\n".into()));
    served.control.not_ready.store(true, SeqCst);
    assert_eq!(served.over_unix("POST", "/successor/starting"), (200, r#"{"listening":["Starting"]}"#.into()));
    assert_eq!(served.over_unix("POST", "/successor/serving"), (200, r#"{"listening":["Serving"]}"#.into()));
    assert_eq!(served.over_unix("POST", "/successor/other").0, 400);
    assert_eq!(served.over_unix("GET", "/successor/starting").0, 405);
    assert_eq!(served.over_http("POST", "/successor/starting").0, 404);
}

#[test]
#[cfg(debug_assertions)]
fn a_connection_is_asked_to_panic_on_the_unix_socket_only() {
    let served = TestAdmin::start();
    assert_eq!(served.over_unix("POST", "/connections/7/panic").0, 202);
    assert_eq!(served.over_unix("POST", "/connections/seven/panic").0, 400);
    assert_eq!(served.over_unix("GET", "/connections/7/panic").0, 405);
    assert_eq!(served.over_http("POST", "/connections/7/panic").0, 404);
}

#[test]
fn a_reload_is_finished_though_its_client_goes_away() {
    let served = TestAdmin::start();
    let mut client = UnixStream::connect(&served.socket).unwrap();
    client.write_all(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while served.control.reloads_begun.load(SeqCst) == 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    drop(client);
    while served.control.reloads_done.load(SeqCst) == 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(served.control.reloads_done.load(SeqCst), 1);
}

#[test]
fn a_flood_of_header_bytes_is_refused() {
    let served = TestAdmin::start();
    let mut client = UnixStream::connect(&served.socket).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let _ = client.write_all(b"GET /healthz HTTP/1.1\r\nX: ");
    let mut sent = 0;
    while sent < 16 << 20 && client.write_all(&[b'a'; 64 << 10]).is_ok() {
        sent += 64 << 10;
    }
    assert!(sent < 4 << 20, "{sent} bytes of header were taken");
}

/// Status of a GET with these header lines.
fn status_with(mut stream: impl Read + Write, fields: &str) -> u16 {
    write!(stream, "GET /healthz HTTP/1.1\r\n{fields}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_port_serves_no_foreign_site() {
    let served = TestAdmin::start();
    let (port, unix) = (served.http, &served.socket);
    let over_http = |fields: &str| status_with(TcpStream::connect(port).unwrap(), fields);
    let over_unix = |fields: &str| status_with(UnixStream::connect(unix).unwrap(), fields);
    for known in [format!("Host: {port}\r\n"), "Host: localhost:1\r\n".into(), "Host: metrics.test\r\n".into()] {
        assert_eq!(over_http(&known), 200, "{known}");
    }
    assert_eq!(over_http("Host: rebound.attacker.test\r\n"), 421);
    assert_eq!(over_unix("Host: whatever\r\n"), 200, "no name leads to a unix socket");
    let origin = |origin: &str| format!("Host: {port}\r\nOrigin: {origin}\r\n");
    assert_eq!(over_http(&origin(&format!("http://{port}"))), 200);
    for foreign in ["http://attacker.test", "null"] {
        assert_eq!((over_http(&origin(foreign)), over_unix(&origin(foreign))), (403, 403), "{foreign}");
    }
}

#[test]
fn every_reply_tells_a_browser_what_it_is_and_that_nothing_from_elsewhere_runs_in_it() {
    let served = TestAdmin::start();
    for (method, path, fields, code) in [
        ("GET", "/metrics", "Host: localhost", 200),
        ("GET", "/nothing", "Host: localhost", 404),
        ("POST", "/status", "Host: localhost", 405),
        ("GET", "/connections?limit=x", "Host: localhost", 400),
        ("GET", "/status", "Host: localhost\r\nSec-Fetch-Site: cross-site", 403),
        ("GET", "/status", "Host: attacker.test", 421),
    ] {
        let mut stream = TcpStream::connect(served.http).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let head = reply.split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {code} ")), "{path}: {head}");
        assert!(head.contains("\r\nx-content-type-options: nosniff"), "{path}: {head}");
        let policy = "\r\ncontent-security-policy: default-src 'none'; script-src 'self'; ";
        assert!(head.contains(policy) && head.contains("frame-ancestors 'none'"), "{path}: {head}");
    }
}

#[test]
fn the_port_names_clients_only_where_the_configuration_says_so() {
    for (clients, key, address) in [(false, "hidden", "hidden"), (true, "10.0.0.1", "10.0.0.1:4711")] {
        let served = TestAdmin::with(clients);
        let view = |path: &str| serde_json::from_str::<Value>(&served.over_http("GET", path).1).unwrap();
        let hottest = view("/stick-table")[0]["hottest"][0].clone();
        assert_eq!((&hottest["key"], &hottest["share"], &hottest["backend"]), (&key.into(), &0.5.into(), &"a".into()));
        let connections = view("/connections?limit=2");
        assert_eq!((&connections["open"], &connections["shown"]), (&3_001.into(), &2.into()));
        let first = &connections["connections"][0];
        assert_eq!((&first["client"], &first["id"], &first["pool"]), (&address.into(), &0.into(), &"web".into()));
        assert_eq!(served.json("/connections?limit=1")["connections"][0]["client"], "10.0.0.1:4711", "the socket does");
        assert_eq!(served.json("/stick-table")[0]["hottest"][0]["key"], "10.0.0.1");
    }
}

#[test]
fn half_sent_requests_stop_neither_door() {
    let served = TestAdmin::start();
    let half = |stream: &mut dyn Write| drop(stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"));
    let mut over_unix: Vec<_> = (0..100).map(|_| UnixStream::connect(&served.socket).unwrap()).collect();
    let mut over_http: Vec<_> = (0..100).map(|_| TcpStream::connect(served.http).unwrap()).collect();
    let bodies: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = UnixStream::connect(&served.socket).unwrap();
            let fields = "Host: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n";
            write!(stream, "POST /plan HTTP/1.1\r\n{fields}\r\n{{").unwrap();
            stream
        })
        .collect();
    over_unix.iter_mut().for_each(|stream| half(stream));
    over_http.iter_mut().for_each(|stream| half(stream));
    let begun = Instant::now();
    for path in ["/healthz", "/metrics", "/status"] {
        assert_eq!((served.over_unix("GET", path).0, served.over_http("GET", path).0), (200, 200), "{path}");
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "before the time of a head is over: {:?}", begun.elapsed());
    drop(bodies);
}

/// An interface without a door.
fn nothing() -> config::Admin {
    config::Admin { socket: None, mode: 0o660, group: None, http: None, allow: vec![], clients: false, names: vec![] }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = config::Admin { http: Some(address), ..nothing() };
    let error = Sockets::bind(&config).unwrap_err().to_string();
    assert!(error.starts_with(&format!("admin: cannot listen on {address}: ")), "{error}");
}

#[tokio::test]
async fn serving_that_is_cut_short_leaves_no_socket_behind() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let config = config::Admin { socket: Some(socket.clone()), ..nothing() };
    let sockets = Sockets::bind(&config).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(sockets.serve(Arc::new(Fake::default()), stopped));
    tokio::task::yield_now().await;
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert!(!socket.exists());
}

#[test]
fn events_are_read_from_a_number_on_by_kind_and_by_pool_also_over_the_port() {
    let admin = TestAdmin::start();
    for (at, (kind, pool)) in
        [(EventKind::Down, "web"), (EventKind::Up, "web"), (EventKind::Down, "mail")].into_iter().enumerate()
    {
        admin.control.events.note(1_000 + at as u64, Event::new(kind, "text").of_backend(pool, "a"));
    }
    let ids = |path: &str| {
        let page = admin.json(path);
        let ids: Vec<_> =
            page["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect();
        (ids, page["next"].as_u64().unwrap())
    };
    assert_eq!(ids("/events"), (vec![1, 2, 3], 3));
    assert_eq!(ids("/events?after=1"), (vec![2, 3], 3));
    assert_eq!(ids("/events?kind=down&pool=web"), (vec![1], 3));
    assert_eq!(ids("/events?kind=down,up&after=1&wait=20"), (vec![2, 3], 3), "what is there is not waited for");
    let page = admin.json("/events?after=2");
    let expected = r#"{"time":"1970-01-01T00:00:01.002Z","id":3,"unix_ms":1002,"kind":"down","pool":"mail","backend":"a","text":"text"}"#;
    assert_eq!(page["events"][0], serde_json::from_str::<Value>(expected).unwrap());
    assert_eq!(admin.over_http("GET", "/events").0, 200);
    assert_eq!(admin.over_unix("GET", "/events?bogus=1").0, 400);
}

#[test]
fn a_request_for_events_waits_for_one_that_is_wanted_and_no_longer_than_it_says() {
    let admin = TestAdmin::start();
    admin.control.events.note(1, Event::new(EventKind::Down, "first"));
    let began = Instant::now();
    assert_eq!(admin.json("/events?after=1&wait=1")["events"].as_array().map(Vec::len), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    // A number of another process: its reader begins again, at once.
    assert_eq!(admin.json("/events?after=9&wait=20")["next"], 1);
    thread::scope(|scope| {
        let waits = scope.spawn(|| admin.json("/events?after=1&kind=up&wait=20"));
        admin.control.events.note(2, Event::new(EventKind::Down, "another kind"));
        admin.control.events.note(3, Event::new(EventKind::Up, "wanted"));
        assert_eq!(waits.join().unwrap()["events"][0]["text"], "wanted");
    });
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn requests_that_wait_for_events_leave_places_for_others() {
    let admin = TestAdmin::start();
    let wait = || {
        let mut waiting = UnixStream::connect(&admin.socket).unwrap();
        waiting.write_all(b"GET /events?after=0&wait=20 HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        waiting
    };
    let _waiting: Vec<_> = (0..40).map(|_| wait()).collect();
    let began = Instant::now();
    assert_eq!(admin.over_unix("GET", "/healthz").0, 200);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn what_happened_to_a_client_is_told_over_the_unix_socket_alone() {
    let admin = TestAdmin::start();
    assert_eq!(admin.json("/why?what=SID%3Da%2Bb%3B%20x")["answer"], "SID=a+b; x");
    assert_eq!(admin.over_http("GET", "/why?what=192.0.2.1").0, 404);
    assert_eq!(admin.over_unix("GET", "/why").0, 400);
}
