//! Five hundred users behind fifty connections, many streams at once, among failures of every kind: each response
//! belongs to its stream, and comes from the user's own backend.
//!
//! Half of the connections are those of a proxy in front that the listener trusts: there, too, every user keeps a
//! backend of its own. Requests, backends and texts are those of HTTP/1.1's test. `SESSILE_TEST_HTTP2_STREAMS` is the
//! number of streams. Invariant: every byte that a client reads is compared with the only right response to its
//! request, and no failure of a stream ends its connection.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::http::{Request, Response};
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use tokio::task::spawn_local;

use super::client::{only, tls};
use super::site::counts;
use super::{INSERT, told};
use crate::support::backend::{listener, pool};
use crate::support::load_support::alone;
use crate::support::rng::Rng;
use crate::support::{PATIENCE, eventually};
use crate::terminate::Front;
use crate::terminate::load::{Backends, Wire, connect, connect_tls, run};
use crate::terminate::mixed::{BAD, GOOD, Kind, path_of, play, text};

/// Streams in the tree's own runs.
const STREAMS: usize = 10_000;
/// Client connections, each second one of a proxy in front.
const LINES: usize = 50;
/// Streams of each connection at a time.
const AT_ONCE: usize = 8;
const USERS: usize = 500;
const BACKENDS: usize = 4;

/// One user, known by a cookie.
struct User {
    name: String,
    cookie: String,
    home: String,
}

/// What all clients share.
struct World {
    streams: usize,
    users: Vec<User>,
    sent: Cell<usize>,
    fates: RefCell<BTreeMap<&'static str, usize>>,
}

/// One request.
struct Ask {
    kind: Kind,
    method: &'static str,
    path: String,
    user: usize,
    body: String,
}

/// Waits for a step.
async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step).await.expect("the step takes place")
}

/// Opens the connection of this number.
async fn open(number: usize, front: &Front) -> SendRequest<Bytes> {
    if number.is_multiple_of(2) {
        let mut line = connect(front.sessile.address("proxied")).await;
        let header = format!("PROXY TCP4 198.51.100.{number} 192.0.2.1 4096 443\r\n");
        line.send(header).await.expect("the stream takes bytes");
        return begin(line.stream).await;
    }
    begin(connect_tls(front.address(), &tls(&front.authority, &["h2"])).await.stream).await
}

async fn begin(stream: impl Wire + 'static) -> SendRequest<Bytes> {
    let mut builder = Builder::new();
    builder.initial_connection_window_size(8 << 20);
    let (sender, connection) = soon(builder.handshake(stream)).await.expect("a connection");
    spawn_local(async move { connection.await.expect("a connection that ends in good order") });
    sender
}

/// One of the streams that a connection carries at a time.
struct Lane {
    line: String,
    sender: SendRequest<Bytes>,
    rng: Rng,
    world: Rc<World>,
}

impl Lane {
    async fn run(mut self) {
        while self.world.sent.get() < self.world.streams {
            self.world.sent.update(|sent| sent + 1);
            let ask = self.choose();
            let fate = self.stream(&ask).await;
            *self.world.fates.borrow_mut().entry(fate).or_default() += 1;
        }
    }

    fn choose(&mut self) -> Ask {
        let kinds = if self.rng.below(8) == 0 { &BAD[..] } else { &GOOD[..] };
        let kind = kinds[self.rng.below(kinds.len())];
        let method = match kind {
            Kind::Abort | Kind::Early => "POST",
            Kind::UntilClose | Kind::HalfBody => ["GET", "POST"][self.rng.below(2)],
            _ => ["GET", "GET", "HEAD", "POST", "PUT"][self.rng.below(5)],
        };
        let user = self.rng.below(USERS);
        let path = path_of(kind, &self.world.users[user].name, self.rng.below(1_000_000));
        let length = match (method, kind) {
            ("POST" | "PUT", Kind::Abort | Kind::Early) => 200_000,
            ("POST" | "PUT", _) => [0, 10, 5_000, 70_000][self.rng.below(4)],
            _ => 0,
        };
        let body = path.repeat(length / path.len() + 1)[..length].to_owned();
        Ask { kind, method, path, user, body }
    }

    /// The head of a request. The cookie stands among others, in one field or in several.
    fn head(&mut self, ask: &Ask) -> Request<()> {
        let User { name, cookie, .. } = &self.world.users[ask.user];
        let (known, value) = cookie.split_once('=').expect("a cookie");
        let cookies = match self.rng.below(4) {
            0 => vec![format!("who={name}"), cookie.clone()],
            1 => vec![format!("a=b; {cookie}"), format!("who={name}"), "c=d".to_owned()],
            2 => vec![format!("SESSILE-p=made-up; {cookie}; who={name}")],
            _ => vec![format!("{known}=\"{value}\""), String::new(), format!("who={name}")],
        };
        let request = Request::builder().method(ask.method).uri(format!("http://a.test{}", ask.path));
        let request = cookies
            .into_iter()
            .fold(request.header("x-line", &self.line), |request, cookie| request.header("cookie", cookie));
        let sized = !ask.body.is_empty() && self.rng.below(2) == 0;
        let request = if sized { request.header("content-length", ask.body.len()) } else { request };
        request.body(()).expect("a request")
    }

    /// Sends one request, and says what has become of it.
    async fn stream(&mut self, ask: &Ask) -> &'static str {
        let request = self.head(ask);
        self.sender = soon(self.sender.clone().ready()).await.expect("a connection that goes on");
        let has_body = matches!(ask.method, "POST" | "PUT");
        let (response, mut upload) = self.sender.send_request(request, !has_body).expect("a stream");
        match ask.kind {
            Kind::Abort => {
                let _ = send(&mut upload, &ask.body.as_bytes()[..ask.body.len() / 3], false).await;
                upload.send_reset(Reason::CANCEL);
                "reset by the client in its body"
            }
            Kind::Leave if self.rng.below(2) == 0 => {
                tokio::time::sleep(Duration::from_millis(self.rng.below(3) as u64)).await;
                upload.send_reset(Reason::CANCEL);
                "reset by the client before its response"
            }
            Kind::Leave => {
                // Between the head of the response and its end; where that is behind the head, too late.
                if has_body {
                    let _ = send(&mut upload, ask.body.as_bytes(), true).await;
                }
                if let Ok(response) = soon(response).await {
                    self.is_own(ask, &response.map(drop));
                }
                upload.send_reset(Reason::CANCEL);
                "reset by the client behind the head"
            }
            _ => {
                let sends = async {
                    if has_body {
                        // A response may come before all of it was taken.
                        let _ = send(&mut upload, ask.body.as_bytes(), true).await;
                    }
                };
                tokio::join!(sends, self.hear(ask, response)).1
            }
        }
    }

    /// Reads the response to a request.
    async fn hear(&self, ask: &Ask, mut response: ResponseFuture) -> &'static str {
        while let Some(early) = soon(poll_fn(|cx| response.poll_informational(cx))).await {
            let Ok(early) = early else { break };
            assert_eq!(only(early.headers(), "x-who"), Some(&*ask.path));
        }
        // A request that may not be sent twice fails if its kept connection was closed meanwhile.
        let may_be_lost = matches!(ask.method, "POST" | "PUT");
        let (head, mut body) = match soon(response).await {
            Ok(response) => response.into_parts(),
            Err(error) => {
                // The reset of a response that is cut may overtake its head.
                let theirs = may_be_lost || ask.kind == Kind::HalfBody;
                assert!(error.is_reset() && theirs, "{} {} was not answered: {error}", ask.method, ask.path);
                return "reset without a response";
            }
        };
        let head = Response::from_parts(head, ());
        let status = head.status().as_u16();
        if head.headers().get("x-who").is_none() {
            let theirs = matches!(ask.kind, Kind::Silent | Kind::Resets | Kind::HalfHead | Kind::Nonsense);
            assert!(status == 502 && (theirs || may_be_lost), "{} {}: {head:?}", ask.method, ask.path);
            return "502 for the backend";
        }
        self.is_own(ask, &head);
        let bodiless = ask.method == "HEAD" || matches!(status, 204 | 304);
        match whole(&mut body).await {
            Ok(body) => {
                assert!(ask.kind != Kind::HalfBody || bodiless, "what was cut looks whole: {}", ask.path);
                let wanted = text(&ask.path, &self.world.users[ask.user].name, ask.body.len());
                assert!(if bodiless { body.is_empty() } else { body == wanted.as_bytes() }, "{}: {body:?}", ask.path);
                "answered"
            }
            Err(error) => {
                assert!(error.is_reset(), "{}: {error}", ask.path);
                assert!(matches!(ask.kind, Kind::HalfBody | Kind::Early), "{} {} was cut", ask.method, ask.path);
                "cut in its body"
            }
        }
    }

    /// Compares the head of a response with its request, and its backend with the user's own.
    fn is_own(&self, ask: &Ask, head: &Response<()>) {
        let Some(who) = only(head.headers(), "x-who") else {
            assert_eq!(head.status(), 502, "{head:?}");
            return;
        };
        assert_eq!(who, ask.path, "another stream's response: {head:?}");
        let user = &self.world.users[ask.user];
        assert_eq!(only(head.headers(), "x-backend"), Some(&*user.home), "{} of {}", ask.path, user.name);
        assert_eq!(only(head.headers(), "set-cookie"), None, "sent only when new or due");
    }
}

/// Sends a whole body; an error: its stream or its connection takes no more.
async fn send(upload: &mut SendStream<Bytes>, body: &[u8], end: bool) -> Result<(), h2::Error> {
    let mut body = Bytes::copy_from_slice(body);
    if body.is_empty() && end {
        return upload.send_data(body, true);
    }
    while !body.is_empty() {
        upload.reserve_capacity(body.len());
        let room = soon(poll_fn(|cx| upload.poll_capacity(cx))).await;
        let Some(room) = room.transpose()? else { return Err(Reason::STREAM_CLOSED.into()) };
        let piece = body.split_to(room.min(body.len()));
        upload.send_data(piece, end && body.is_empty())?;
    }
    Ok(())
}

/// Reads a body to its end.
async fn whole(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = soon(body.data()).await {
        let piece = piece?;
        all.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok(all)
}

/// Gives each user a cookie: one stream without any, all of them over one connection of the proxy.
async fn settle(sender: &SendRequest<Bytes>) -> Vec<User> {
    let mut users = Vec::new();
    for number in 0..USERS {
        let name = format!("u{number}");
        let path = path_of(Kind::Plain, &name, number);
        let request = Request::get(format!("http://a.test{path}"));
        let request = request.header("x-line", "settling").header("cookie", format!("who={name}")).body(()).unwrap();
        let mut sender = soon(sender.clone().ready()).await.expect("a connection that goes on");
        let response = soon(sender.send_request(request, true).expect("a stream").0).await.expect("a response");
        let (head, mut body) = response.into_parts();
        assert_eq!(only(&head.headers, "x-who"), Some(&*path));
        assert!(whole(&mut body).await.expect("a body") == text(&path, &name, 0).as_bytes());
        let cookie = only(&head.headers, "set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
        let home = only(&head.headers, "x-backend").expect("a backend").to_owned();
        users.push(User { name, cookie, home });
    }
    users
}

#[test]
fn mixed_streams_of_five_hundred_users_and_no_response_goes_astray() {
    let _alone = alone();
    let backends = Backends::start(BACKENDS, None, play);
    let proxied = listener("p", "trust = [\"127.0.0.0/8\"]\n").replace("\"l\"", "\"proxied\"");
    let log = "[log]\nformat = \"json\"\nconnections = false\n";
    // Backends reset connections here on purpose, one after another: none of them is to be left out for it.
    let options = INSERT.to_owned() + "eject = { early_close = false }\n";
    let front = Front::with(log, "pool = \"p\"\n", &(proxied + &pool("p", &options, &backends.addresses)));
    let began = Instant::now();
    let world = run(async {
        let settling = open(0, &front).await;
        let users = settle(&settling).await;
        let homes = counts(users.iter().map(|user| &user.home));
        assert_eq!(homes.into_values().collect::<Vec<_>>(), [USERS / BACKENDS; BACKENDS], "each is placed by itself");
        assert_eq!(counts(users.iter().map(|user| &user.cookie)).len(), USERS, "each has a cookie of its own");
        let streams = told("HTTP2_STREAMS", STREAMS);
        let world = Rc::new(World { streams, users, sent: Cell::default(), fates: RefCell::default() });
        let mut lanes = Vec::new();
        for number in 0..LINES {
            let sender = open(number, &front).await;
            for lane in 0..AT_ONCE {
                let (line, rng) = (format!("line {number}"), Rng((number * AT_ONCE + lane) as u64));
                let lane = Lane { line, sender: sender.clone(), rng, world: Rc::clone(&world) };
                lanes.push(spawn_local(lane.run()));
            }
        }
        for lane in lanes {
            lane.await.expect("a client that is content");
        }
        world
    });
    println!("{} streams in {:.1?}: {:?}", world.sent.get(), began.elapsed(), world.fates.borrow());
    assert!(world.sent.get() >= world.streams);
    let answered = world.fates.borrow()["answered"];
    assert!(answered > world.streams * 3 / 4, "{answered}");
    eventually("every connection to be gone", || (front.sessile.status()["admission"]["open"] == 0).then_some(()));
}
