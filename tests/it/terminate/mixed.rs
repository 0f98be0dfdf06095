//! Many users at once, several behind each connection, among failures of every kind: each response belongs to its
//! request, and comes from the user's own backend.
//!
//! Each request names its user and itself, in its path, in a cookie and in its body; the backend repeats all three.
//! Invariant: every byte that a client reads is compared with the only right response to its request.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::Front;
use super::client::config;
use super::load::{Asked, Backends, Head, Line, Wire, connect, connect_tls, run};
use crate::support::backend::{listener, pool};
use crate::support::eventually;
use crate::support::load_support::alone;
use crate::support::rng::Rng;

const REQUESTS: usize = 100_000;
/// Client connections at a time; each eighth one has TLS.
const LINES: usize = 48;
/// Users behind each connection, in turn.
const USERS: usize = 3;
const BACKENDS: usize = 4;

/// The kind of a request, and what it does to its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Chunked,
    Interim,
    Late,
    Empty,
    NotModified,
    UntilClose,
    Fails,
    Missing,
    /// The backend replies, keeps the connection by its response, and closes it.
    Leaves,
    /// The backend replies before it has read the body, and closes.
    Early,
    /// The backend replies, and sends another response without a request.
    Babbles,
    /// The backend closes without a response.
    Silent,
    Resets,
    /// The backend closes inside the head, or the body, of its response.
    HalfHead,
    HalfBody,
    Nonsense,
    /// The client closes in the middle of its body, or before its response.
    Abort,
    Leave,
}

use Kind::{
    Abort, Babbles, Chunked, Early, Empty, Fails, HalfBody, HalfHead, Interim, Late, Leave, Leaves, Missing, Nonsense,
    NotModified, Plain, Resets, Silent, UntilClose,
};

/// Most requests are of these kinds.
pub const GOOD: [Kind; 10] = [Plain, Chunked, Interim, Late, Empty, NotModified, Fails, Missing, Plain, Chunked];
/// Kinds that end a connection of HTTP/1.1.
pub const BAD: [Kind; 11] =
    [UntilClose, Leaves, Early, Babbles, Silent, Resets, HalfHead, HalfBody, Nonsense, Abort, Leave];

/// One request that was sent.
struct Ask {
    kind: Kind,
    method: &'static str,
    path: String,
    user: usize,
    body: String,
}

/// Body of a complete response, unique among all responses.
pub fn text(path: &str, user: &str, body: usize) -> String {
    let line = format!("{path} of {user} with {body}\n");
    let number: usize = path.rsplit('/').next().unwrap().parse().unwrap();
    line.repeat(if number.is_multiple_of(97) { 900 } else { 1 + number % 23 })
}

pub fn path_of(kind: Kind, user: &str, number: usize) -> String {
    format!("/{kind:?}/{user}/{number}")
}

/// Replies as the backend that the request has reached.
pub async fn play(backend: usize, line: &mut Line<TcpStream>, asked: &Asked) -> io::Result<bool> {
    let path = asked.path();
    let mut words = path.split('/').skip(1);
    let (kind, user) = (words.next().unwrap(), words.next().unwrap());
    let own = asked.head.cookie("who") == Some(user)
        && asked.head.fields("cookie").all(|cookies| !cookies.contains("SESSILE"))
        && asked.body.chunks(path.len()).all(|part| path.as_bytes().starts_with(part));
    // A connection to a backend serves one client connection only.
    let carrier = asked.head.field("x-line").expect("a line");
    if line.owner.is_empty() {
        line.owner = carrier.to_owned();
    }
    let who = if own && line.owner == carrier { path } else { "/mixed/up/0" };
    let head = format!("X-Who: {who}\r\nX-Backend: {backend}\r\n");
    let text = text(path, user, asked.body.len());
    let status = match kind {
        "Fails" => "503 Not Now",
        "Missing" => "404 Not Found",
        _ => "200 OK",
    };
    let sized = format!("HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n", text.len());
    let body = if asked.method() == "HEAD" { "" } else { &*text };
    match kind {
        "Chunked" if asked.method() != "HEAD" => {
            let mut all = format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n");
            for piece in body.as_bytes().chunks(1_000) {
                all += &format!("{:x};of={user}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap());
            }
            line.send(all + "0\r\nX-Trailer: of-all\r\n\r\n").await?;
        }
        "Interim" => {
            line.send(format!("HTTP/1.1 103 Early Hints\r\nX-Who: {who}\r\n\r\n{sized}{body}")).await?;
        }
        "Late" => {
            tokio::time::sleep(Duration::from_millis(body.len() as u64 % 7)).await;
            line.send(sized).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            line.send(body).await?;
        }
        "Empty" => line.send(format!("HTTP/1.1 204 No Content\r\n{head}\r\n")).await?,
        "NotModified" => line.send(format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n")).await?,
        "UntilClose" => {
            line.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}")).await?;
            return Ok(false);
        }
        "Leaves" => {
            line.send(sized + body).await?;
            return Ok(false);
        }
        "Babbles" => {
            let more = "HTTP/1.1 200 OK\r\nX-Who: /nobody/asked/0\r\nContent-Length: 0\r\n\r\n";
            line.send(sized + body + more).await?;
        }
        "Silent" => return Ok(false),
        "Resets" => {
            line.reset_when_dropped();
            return Ok(false);
        }
        "HalfHead" => {
            line.send(&sized[..sized.len() / 2]).await?;
            return Ok(false);
        }
        "HalfBody" => {
            line.send(sized + &body[..body.len() / 2]).await?;
            return Ok(false);
        }
        "Nonsense" => line.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n??").await?,
        _ => line.send(sized + body).await?,
    }
    Ok(true)
}

/// One user: name, cookie and backend.
#[derive(Default)]
struct User {
    name: String,
    cookie: Option<String>,
    home: Option<String>,
}

/// Counts of what has become of all requests.
#[derive(Default)]
struct Tally {
    sent: Cell<usize>,
    fates: RefCell<BTreeMap<&'static str, usize>>,
}

impl Tally {
    fn count(&self, fate: &'static str) {
        *self.fates.borrow_mut().entry(fate).or_default() += 1;
    }
}

/// Opens one client connection after the other, with the same users behind each.
struct Carrier {
    number: usize,
    front: [std::net::SocketAddr; 2],
    tls: Arc<rustls::ClientConfig>,
    users: Vec<User>,
    rng: Rng,
    tally: Rc<Tally>,
}

impl Carrier {
    async fn run(mut self) {
        let mut turn = 0;
        while self.tally.sent.get() < REQUESTS {
            turn += 1;
            let mut line = self.connect().await;
            line.owner = format!("{}.{turn}", self.number);
            while self.tally.sent.get() < REQUESTS && self.round(&mut line).await {}
        }
    }

    async fn connect(&mut self) -> Line<Box<dyn Wire>> {
        if self.number.is_multiple_of(8) {
            return connect_tls(self.front[0], &self.tls).await.boxed();
        }
        let line = connect(self.front[1]).await;
        if self.rng.below(2) == 0 {
            line.reset_when_dropped();
        }
        line.boxed()
    }

    /// Sends one request, or several before the first response; returns whether the connection goes on.
    async fn round(&mut self, line: &mut Line<Box<dyn Wire>>) -> bool {
        let count = if self.rng.below(4) == 0 { 2 + self.rng.below(4) } else { 1 };
        let mut asks: Vec<_> = (0..count).map(|_| self.choose()).collect();
        // A user without a backend gets one first, by a single request.
        if let Some(homeless) = self.users.iter().position(|user| user.cookie.is_none()) {
            asks = vec![self.ask(homeless, Plain, "GET")];
        }
        // No request follows after the client has closed.
        if let Some(last) = asks.iter().position(|ask| matches!(ask.kind, Abort | Leave)) {
            asks.truncate(last + 1);
        }
        let bytes: String = asks.iter().map(|ask| self.written(ask, &line.owner)).collect();
        self.tally.sent.update(|sent| sent + asks.len());
        // An earlier request may have closed the connection while the later ones are written.
        let _ = line.send(bytes).await;
        for ask in &asks {
            if matches!(ask.kind, Abort | Leave) {
                self.tally.count("left by the client");
                return false;
            }
            if !self.hear(line, ask).await {
                return false;
            }
        }
        true
    }

    fn choose(&mut self) -> Ask {
        let user = self.rng.below(USERS);
        let kinds = if self.rng.below(8) == 0 { &BAD[..] } else { &GOOD[..] };
        let kind = kinds[self.rng.below(kinds.len())];
        let method = match kind {
            Abort | Early => "POST",
            UntilClose | HalfBody => ["GET", "POST"][self.rng.below(2)],
            _ => ["GET", "GET", "HEAD", "POST", "PUT"][self.rng.below(5)],
        };
        self.ask(user, kind, method)
    }

    fn ask(&mut self, user: usize, kind: Kind, method: &'static str) -> Ask {
        let path = path_of(kind, &self.users[user].name, self.rng.below(1_000_000));
        let length = match (method, kind) {
            ("POST" | "PUT", Abort | Early) => 200_000,
            ("POST" | "PUT", _) => [0, 10, 5_000, 70_000][self.rng.below(4)],
            _ => 0,
        };
        let body = path.repeat(length / path.len() + 1)[..length].to_owned();
        Ask { kind, method, path, user, body }
    }

    fn written(&mut self, ask: &Ask, line: &str) -> String {
        let user = &self.users[ask.user];
        let cookie = user.cookie.as_deref().unwrap_or("none=here");
        let quoted = || cookie.split_once('=').map(|(name, value)| format!("{name}=\"{value}\"")).unwrap();
        let cookies = match self.rng.below(4) {
            0 => format!("Cookie: who={}; {cookie}\r\n", user.name),
            1 => format!("Cookie: a=b; {cookie}\r\nCookie: who={}; c=d\r\n", user.name),
            2 => format!("Cookie: SESSILE-p=made-up; {cookie}; who={}\r\n", user.name),
            _ => format!("cookie: {}; who={}\r\n", quoted(), user.name),
        };
        let head = format!("{} {} HTTP/1.1\r\nHost: a.test\r\nX-Line: {line}\r\n{cookies}", ask.method, ask.path);
        if ask.method == "GET" || ask.method == "HEAD" {
            return head + "\r\n";
        }
        if ask.kind == Abort {
            return format!("{head}Content-Length: {}\r\n\r\n{}", ask.body.len(), &ask.body[..ask.body.len() / 3]);
        }
        if self.rng.below(2) == 0 || ask.body.is_empty() {
            return format!("{head}Content-Length: {}\r\n\r\n{}", ask.body.len(), ask.body);
        }
        let mut chunked = head + "Transfer-Encoding: chunked\r\n\r\n";
        for piece in ask.body.as_bytes().chunks(9_000) {
            chunked += &format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap());
        }
        chunked + "0\r\n\r\n"
    }

    /// Reads the response to a request; returns whether the connection goes on.
    async fn hear(&mut self, line: &mut Line<Box<dyn Wire>>, ask: &Ask) -> bool {
        let head = loop {
            match line.head().await {
                Ok(head) if head.status() == 103 => assert_eq!(head.field("x-who"), Some(&*ask.path)),
                Ok(head) => break head,
                Err(error) => {
                    // A request that may not be sent twice fails if its kept connection was closed meanwhile.
                    let may_be_lost = matches!(ask.method, "POST" | "PUT") || ask.kind == Early;
                    assert!(may_be_lost, "{} {} was not answered: {error}", ask.method, ask.path);
                    self.tally.count("closed without an answer");
                    return false;
                }
            }
        };
        let Some(who) = head.field("x-who") else {
            let theirs = matches!(ask.kind, Silent | Resets | HalfHead | Nonsense | Early);
            assert!(theirs && head.status() == 502 && head.closes(), "{} {}: {head:?}", ask.method, ask.path);
            let _ = line.end().await;
            self.tally.count("502 for the backend");
            return false;
        };
        assert_eq!(who, ask.path, "somebody else's answer: {head:?}");
        self.settle(ask, &head);
        let bodiless = ask.method == "HEAD" || matches!(head.status(), 204 | 304);
        let body = if bodiless { Ok(Vec::new()) } else { line.body(&head).await };
        let whole = text(&ask.path, &self.users[ask.user].name, ask.body.len());
        match body {
            Ok(body) => {
                assert!(ask.kind != HalfBody || bodiless, "what was cut looks whole: {ask:?}", ask = ask.path);
                assert!(bodiless || body == whole.as_bytes(), "another body for {}", ask.path);
                self.tally.count("answered");
            }
            Err(_) => {
                assert!(matches!(ask.kind, HalfBody | Early), "{} {} was cut", ask.method, ask.path);
                self.tally.count("cut in its body");
                return false;
            }
        }
        if head.closes() {
            let rest = line.end().await.unwrap_or_default();
            assert!(rest.is_empty(), "behind the last answer: {:?}", String::from_utf8_lossy(&rest));
            return false;
        }
        true
    }

    /// Compares the backend of a response with the user's own.
    fn settle(&mut self, ask: &Ask, head: &Head) {
        let user = &mut self.users[ask.user];
        let backend = head.field("x-backend").expect("a backend");
        if let Some(cookie) = head.set_cookie() {
            assert!(user.cookie.is_none(), "sent only when new or due");
            (user.cookie, user.home) = (Some(cookie), Some(backend.to_owned()));
        }
        assert_eq!(user.home.as_deref(), Some(backend), "{}", ask.path);
    }
}

#[test]
fn a_hundred_thousand_mixed_requests_and_nobody_gets_anothers_answer() {
    let _alone = alone();
    let backends = Backends::start(BACKENDS, None, play);
    // Backends reset connections here on purpose, one after another: none of them is to be left out for it.
    let options = "http = true\nbalance = \"round_robin\"\neject = { early_close = false }\n\
                   cookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";
    let pools = listener("p", "").replace("\"l\"", "\"plain\"") + &pool("p", options, &backends.addresses);
    let log = "[log]\nformat = \"json\"\nconnections = false\n";
    let front = Front::with(log, "pool = \"p\"\n", &pools);
    let addresses = [front.address(), front.sessile.address("plain")];
    let tls = config(&front.authority);
    let (tally, began) = (Rc::new(Tally::default()), Instant::now());
    run(async {
        let lines: Vec<_> = (0..LINES)
            .map(|number| {
                let user = |n| User { name: format!("u{number}-{n}"), ..User::default() };
                let users = (0..USERS).map(user).collect();
                let (tls, tally) = (Arc::clone(&tls), Rc::clone(&tally));
                spawn_local(Carrier { number, front: addresses, tls, users, rng: Rng(number as u64), tally }.run())
            })
            .collect();
        for line in lines {
            line.await.expect("a client that is content");
        }
    });
    println!("{} requests in {:.1?}: {:?}", tally.sent.get(), began.elapsed(), tally.fates.borrow());
    assert!(tally.sent.get() >= REQUESTS);
    let answered = tally.fates.borrow()["answered"];
    assert!(answered > REQUESTS * 3 / 4, "{answered}");
    eventually("every connection to be gone", || (front.sessile.status()["admission"]["open"] == 0).then_some(()));
}
