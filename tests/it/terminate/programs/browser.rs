//! Chromium reloads a page with its cookies and a WebSocket, again and again, while certificate, ticket keys and
//! configuration change: the same backend serves every load.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get, post};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::script;
use crate::support::authority::Minted;
use crate::support::backend::pool;
use crate::support::chromium::Chromium;
use crate::support::eventually;
use crate::support::program::find;
use crate::terminate::{Front, config};

const LOADS: usize = 50;

/// Number of reloads of sessile meanwhile.
const CHANGES: usize = 8;

#[test]
fn chromium_stays_where_it_is_while_everything_changes() {
    let test = "chromium_stays_where_it_is_while_everything_changes";
    let Some(chromium) = find(test, "chromium") else { return };
    let seen = Arc::new(Seen::default());
    let applications = ["x", "y", "z"].map(|name| Application::start(name, &seen));
    let addresses = applications.each_ref().map(|application| application.address);
    let top = "[tls]\nticket_keys = \"$FILES/ticket.keys\"\n";
    let pools = |weight: usize| {
        let cookie = "cookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";
        let pools = pool("p", &format!("http = true\nbalance = \"round_robin\"\n{cookie}"), &addresses);
        let last = format!("name = \"b{}\"\n", addresses.len() - 1);
        pools.replace(&last, &format!("{last}weight = {weight}\n"))
    };
    // Over HTTP/2 the browser would stay on one connection, and see one certificate.
    let listener = "pool = \"p\"\nhttp2 = false\n";
    let front = Front::with(top, listener, &pools(1));
    let certificates: Vec<_> = (0..=CHANGES).map(|_| front.authority.mint("a.test")).collect();
    certificates[0].write(front.dir.path(), "a");
    assert_eq!(front.sessile.reload(&config(&front.dir, top, listener, &pools(2)))["accepted"], true);
    // The browser trusts only these certificates and resolves only `a.test`.
    let trusted = certificates.iter().map(key_hash).collect::<Vec<_>>().join(",");
    let trusted = format!("--ignore-certificate-errors-spki-list={trusted}");
    let page = format!("https://a.test:{}/", front.address().port());
    let _chromium = Chromium::start(&chromium, "MAP a.test 127.0.0.1, MAP * ~NOTFOUND", &[trusted, page]);

    eventually("the first visit", || (seen.pages.load(Relaxed) > 0).then_some(()));
    for (change, certificate) in certificates.iter().enumerate().skip(1) {
        eventually("more visits", || (seen.pages.load(Relaxed) > change * LOADS / (CHANGES + 1)).then_some(()));
        certificate.write(front.dir.path(), "a");
        // No TLS session is resumed, so the browser sees each certificate.
        std::fs::write(front.file("ticket.keys"), format!("{change:064x}\n")).unwrap();
        let verdict = front.sessile.reload(&config(&front.dir, top, listener, &pools(2 + change)));
        assert_eq!(verdict["accepted"], true, "{verdict}");
    }
    let result = eventually("the end", || seen.result.lock().unwrap().take());

    let visits = result.as_array().expect("visits");
    let name = visits[0][0].as_str().and_then(|title| title.split(' ').next()).expect("a name");
    let expected: Vec<_> =
        (1..=LOADS).map(|count| json!([format!("{name} {count}"), format!("{name} {count}"), 1000])).collect();
    assert_eq!(visits, &expected);
    assert_eq!(front.counted("upgrades"), LOADS as u64);
    assert!(front.counted("handshakes") - front.counted("resumed") >= CHANGES as u64);
    front.sessile.lines_of_all();
    let elsewhere = front.requests().into_iter().skip(1).find(|line| line["reason"] != "cookie");
    assert!(elsewhere.is_none(), "{elsewhere:?}");
}

/// Counts of all applications together.
#[derive(Default)]
struct Seen {
    pages: AtomicUsize,
    result: Mutex<Option<Value>>,
}

/// An application that serves the page and counts visits by its own cookie; dropping it ends it.
struct Application {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Application {
    fn start(name: &'static str, seen: &Arc<Seen>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let router = router(name, seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    ended = axum::serve(listener, router) => ended.expect("it serves"),
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.stop.take();
        let _ = self.thread.take().expect("it runs").join();
    }
}

fn router(name: &'static str, seen: &Arc<Seen>) -> Router {
    let template = std::fs::read_to_string(script("page.html")).expect("a page").replace("LOADS", &LOADS.to_string());
    let visits: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let (counts, pages, results) = (Arc::clone(&visits), Arc::clone(seen), Arc::clone(seen));
    let page = move |headers: HeaderMap| async move {
        let mut counts = counts.lock().unwrap();
        let known = session(&headers).filter(|session| counts.contains_key(session));
        let session = known.unwrap_or_else(|| format!("{name}{}", counts.len()));
        let count = counts.entry(session.clone()).or_default();
        *count += 1;
        let page = template.replace("NAME", name).replace("COUNT", &count.to_string());
        pages.pages.fetch_add(1, Relaxed);
        ([(SET_COOKIE, format!("SID={session}; HttpOnly"))], Html(page)).into_response()
    };
    let socket = move |headers: HeaderMap, upgrade: WebSocketUpgrade| async move {
        let count = session(&headers).and_then(|session| visits.lock().unwrap().get(&session).copied());
        upgrade.on_upgrade(async move |mut socket| {
            let _ = socket.send(Message::text(format!("{name} {}", count.unwrap_or(0)))).await;
            while let Some(Ok(_)) = socket.recv().await {}
        })
    };
    let result = async move |text: String| -> Response {
        *results.result.lock().unwrap() = Some(serde_json::from_str(&text).expect("JSON"));
        "".into_response()
    };
    Router::new().route("/", get(page)).route("/socket", any(socket)).route("/result", post(result))
}

fn session(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split("; ")).find_map(|pair| pair.strip_prefix("SID=")).map(str::to_owned)
}

/// SHA-256 of a certificate's key (SubjectPublicKeyInfo), in base64.
fn key_hash(certificate: &Minted) -> String {
    let (_, parsed) = X509Certificate::from_der(&certificate.der).expect("a certificate");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, parsed.public_key().raw);
    data_encoding::BASE64.encode(hash.as_ref())
}
