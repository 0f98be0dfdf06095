//! Random configurations of all rules of requests, and thousands of random requests: what `explain` says of a request
//! just before it is sent is what then becomes of it.
//!
//! Between requests backends die and come back, are drained by command, and a reload changes pools. A seed draws the same
//! configuration and requests in every run, and a failure shows both. Invariant: one request at a time, so that nothing
//! changes between the question and the request.

mod draw;
mod requests;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use self::draw::{Drawn, PLACES, pick};
use self::requests::{Sent, Visitor};
use crate::http2::client::Client;
use crate::support::backend::Backend;
use crate::support::http::unix_get;
use crate::support::program::free_local_address;
use crate::support::rng::Rng;
use crate::support::sessile::run;
use crate::support::{PATIENCE, Sessile, eventually};
use crate::terminate::client::Talk;

/// Requests that one configuration gets, and those between two changes.
const REQUESTS: usize = 200;
const CALM: usize = 20;
const VISITORS: usize = 25;

/// Number of configurations if no other is asked for; of 100 configurations come 20,000 requests.
const CONFIGURATIONS: u64 = 12;
const CONFIGURATIONS_VARIABLE: &str = "SESSILE_TEST_CONFIGURATIONS";

#[test]
fn explain_foretells_every_request_under_random_configurations() {
    let wanted = std::env::var(CONFIGURATIONS_VARIABLE).ok();
    let (first, count) = match wanted.as_deref().map(|text| text.split_once("..").unwrap_or(("0", text))) {
        Some((first, end)) => (first.parse().unwrap(), end.parse::<u64>().unwrap()),
        None => (0, CONFIGURATIONS),
    };
    let mut failures = BTreeMap::new();
    let (mut fates, mut requests) = (BTreeMap::<String, usize>::new(), 0);
    for seed in first..count {
        let mut site = Site::start(seed);
        let asked = site.ask_all();
        requests += asked.len();
        site.judge(&asked, &mut fates, &mut failures);
    }
    println!("{requests} requests: {fates:?}");
    // One of each kind.
    let shown: String = failures.values().map(|(count, first)| format!("{count} times as this: {first}\n")).collect();
    let count: usize = failures.values().map(|(count, _)| count).sum();
    assert!(failures.is_empty(), "{count} of {requests} requests did something else than was said\n{shown}");
    // The configurations of the suite are worth their time: each of these has happened.
    for fate in ["answer", "any", "cookie", "stick_table", "placement", "moved down", "refused no_route"] {
        let has_happened = fates.keys().any(|known| known.starts_with(fate));
        assert!(has_happened || wanted.is_some(), "no {fate} in {fates:?}");
    }
}

/// Requests that did something else than was said: what differs, how often, and the first one.
type Failures = BTreeMap<&'static str, (usize, String)>;

/// A request, what was said of it, and what became of it.
struct Asked {
    sent: Sent,
    client: usize,
    report: Value,
    got: Got,
    /// The configuration in force.
    text: String,
}

/// A response.
#[derive(Debug)]
struct Got {
    status: u16,
    fields: Vec<(String, String)>,
}

impl Got {
    fn all<'g>(&'g self, name: &'g str) -> impl Iterator<Item = &'g str> {
        self.fields.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A balancer with one configuration, its backends and its visitors.
struct Site {
    seed: u64,
    rng: Rng,
    drawn: Drawn,
    addresses: Vec<SocketAddr>,
    backends: Vec<Option<Backend>>,
    visitors: Vec<Visitor>,
    sessile: Sessile,
    keys: tempfile::TempDir,
}

impl Site {
    fn start(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let drawn = Drawn::draw(&mut rng);
        let addresses: Vec<_> = (0..PLACES).map(|_| free_local_address()).collect();
        let backends =
            addresses.iter().enumerate().map(|(place, address)| Some(application(place, *address))).collect();
        let visitors = (0..VISITORS).map(|number| Visitor::draw(&mut rng, number)).collect();
        let keys = tempfile::tempdir().expect("a scratch directory");
        std::fs::write(keys.path().join("cookie.keys"), "00112233445566778899aabbccddeeff".repeat(2) + "\n").unwrap();
        let text = with_keys(&drawn.text(&addresses), &keys);
        let checked = sessile::config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        assert!(checked.is_ok(), "seed {seed}: {:?}\n{text}", checked.err());
        let sessile = Sessile::start(&text);
        let site = Self { seed, rng, drawn, addresses, backends, visitors, sessile, keys };
        site.settle();
        site
    }

    fn text(&self) -> String {
        with_keys(&self.drawn.text(&self.addresses), &self.keys)
    }

    /// Waits until checks have seen of each backend whether it lives, also of one that a reload has just added.
    fn settle(&self) {
        eventually(&format!("seed {}: checks to have seen all backends", self.seed), || {
            let backends = self.sessile.json("/backends");
            let seen = |backend: &Value| {
                let place: usize = backend["name"].as_str()?[1..].parse().ok()?;
                Some((backend["up"] == true) == self.backends[place].is_some())
            };
            backends.as_array()?.iter().all(|backend| seen(backend) == Some(true)).then_some(())
        });
    }

    /// Asks about each request and sends it; now and then something changes.
    fn ask_all(&mut self) -> Vec<Asked> {
        let mut all = Vec::with_capacity(REQUESTS);
        while all.len() < REQUESTS {
            if !all.is_empty() {
                self.disturb();
            }
            let text = self.text();
            for _ in 0..CALM {
                all.extend(self.visit(&text));
            }
        }
        all
    }

    /// One to three requests of a visitor on one connection.
    fn visit(&mut self, text: &str) -> Vec<Asked> {
        let client = self.rng.below(VISITORS);
        let address = self.sessile.address("l");
        let count = pick(&mut self.rng, &[1, 1, 2, 3]);
        let first = self.visitors[client].announced();
        let mut talk: Option<Talk<TcpStream>> = None;
        let mut asked = Vec::new();
        for _ in 0..count {
            let sent = self.visitors[client].ask(&mut self.rng);
            let query = format!("/explain?{}", self.visitors[client].question(&sent));
            let (code, body) = unix_get(&self.sessile.admin(), &query).expect("the admin socket answers");
            assert_eq!(code, 200, "seed {}: {body}\n{sent:?}\n{text}", self.seed);
            let report = serde_json::from_str(&body).expect("JSON");
            let got = if sent.http2 {
                over_http2(address, &first, &sent)
            } else {
                over_http1(address, &first, &sent, &mut talk)
            };
            let set: Vec<_> = got.all("set-cookie").map(str::to_owned).collect();
            self.visitors[client].keep(&set, got.field("mcp-session-id"));
            asked.push(Asked { sent, client, report, got, text: text.to_owned() });
        }
        asked
    }

    /// Changes what is in force: a backend dies or comes back, is drained or made ready, or a reload changes a pool.
    fn disturb(&mut self) {
        match self.rng.below(6) {
            0 | 1 => match self.backends.iter().position(Option::is_none) {
                Some(dead) => self.backends[dead] = Some(application(dead, self.addresses[dead])),
                None => drop(self.backends[self.rng.below(PLACES)].take()),
            },
            2 => self.order("drain"),
            3 => self.order("ready"),
            _ => {
                self.drawn.change(&mut self.rng);
                let text = self.text();
                let verdict = self.sessile.reload(&text);
                assert_eq!(verdict["accepted"], true, "seed {}: {verdict}\n{text}", self.seed);
            }
        }
        self.settle();
    }

    /// Gives an order about one backend that lives.
    fn order(&mut self, order: &str) {
        let pool = &self.drawn.pools[self.rng.below(self.drawn.pools.len())];
        let place = pool.backends[self.rng.below(pool.backends.len())].place;
        if self.backends[place].is_none() {
            return;
        }
        let (socket, name) = (self.sessile.admin(), format!("{}/s{place}", pool.name));
        let said = run(&[order, &name, "--socket", socket.to_str().expect("words")]);
        assert!(said.status.success(), "seed {}: {order} {name}: {said:?}", self.seed);
    }

    /// Counts what became of requests; those that did something else than was said by what differs, with all that is known
    /// of the first one.
    fn judge(&self, asked: &[Asked], fates: &mut BTreeMap<String, usize>, failures: &mut Failures) {
        let lines = eventually("a line of every request", || {
            let lines = self.sessile.lines().into_iter();
            let lines = lines.filter_map(|line| Some((line["request"].as_str()?.to_owned(), line)));
            let lines: BTreeMap<_, _> = lines.collect();
            (lines.len() >= asked.len()).then_some(lines)
        });
        for Asked { sent, client, report, got, text } in asked {
            let id = got.field("x-id").or(got.field("x-request-id")).expect("an id");
            let line = &lines[id];
            match agree(report, got, line) {
                Ok(fate) => *fates.entry(fate).or_default() += 1,
                Err((what, why)) => {
                    let told = format!(
                        "seed {}: {what} {why}\n{sent:?} of {:?}\nsaid {report}\nlogged {line}\n{text}",
                        self.seed, self.visitors[*client]
                    );
                    failures.entry(what).or_insert((0, told)).0 += 1;
                }
            }
        }
    }
}

fn with_keys(text: &str, keys: &tempfile::TempDir) -> String {
    text.replace("$KEYS", &keys.path().join("cookie.keys").display().to_string())
}

/// Compares what was said with what became of a request: its fate in words, or what differs and how.
fn agree(report: &Value, got: &Got, line: &Value) -> Result<String, (&'static str, String)> {
    let same = |what: &'static str, said: &Value, seen: &Value| match said == seen {
        true => Ok(()),
        false => Err((what, format!("is {seen}, and {said} was said"))),
    };
    same("route", &report["route"], &line["route"])?;
    if let Some(answer) = report["answer"].as_str() {
        let location = got.field("location").map_or(String::new(), |place| format!(" {place}"));
        same("answer", &answer.into(), &format!("{}{location}", got.status).into())?;
        same("ending", &"answered".into(), &line["ended"])?;
        return Ok(format!("answer {}", got.status));
    }
    if let Some(word) = report["refused"].as_str() {
        same("refusal", &word.into(), &line["ended"])?;
        return Ok(format!("refused {word}"));
    }
    same("pool", &report["pool"], &line["pool"])?;
    same("verdict on the cookie", &report["cookie"], &line["cookie"])?;
    // A backend that was tried and is dead gives no response.
    let reached = match (got.field("x-backend"), got.status) {
        (None, 502 | 503) => line["backend"].clone(),
        (answered, _) => answered.map_or(Value::Null, Into::into),
    };
    if report["any"] == true {
        let rows = report["candidates"].as_array().expect("candidates");
        // The last resort is a backend that is not usable otherwise.
        let may_be = |row: &Value| row["usable"] == true || report["reason"] == "last_resort";
        let is_among = rows.iter().any(|row| row["backend"] == reached && may_be(row));
        same("that the backend is a usable candidate", &true.into(), &is_among.into())?;
        if report["balance"] == "round_robin" && report["in_turn"].is_string() {
            same("backend in turn", &report["in_turn"], &reached)?;
        }
    } else {
        same("backend", &report["choice"], &reached)?;
        same("backend in the log", &report["choice"], &line["backend"])?;
        same("reason", &report["reason"], &line["reason"])?;
    }
    same("cause of a move", &report["moved"], &line["moved"])?;
    same("backend before a move", &report["from"], &line["from"])?;
    Ok(match line["moved"].as_str() {
        Some(cause) => format!("moved {cause}"),
        None if report["any"] == true => "any".to_owned(),
        None => line["reason"].as_str().unwrap_or("none").to_owned(),
    })
}

/// Sends a request over HTTP/1.1, on the connection of the one before if there is one.
fn over_http1(address: SocketAddr, first: &[u8], sent: &Sent, kept: &mut Option<Talk<TcpStream>>) -> Got {
    let mut talk = kept.take().unwrap_or_else(|| {
        let mut stream = TcpStream::connect(address).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        stream.write_all(first).expect("the stream takes bytes");
        Talk::new(stream)
    });
    talk.send(sent.head());
    let response = talk.response_to(sent.method).unwrap_or_else(|| panic!("no response: {sent:?}"));
    if response.field("connection") != Some("close") {
        *kept = Some(talk);
    }
    let fields = response.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Got { status: response.status, fields }
}

/// Sends a request over HTTP/2, on a connection of its own.
fn over_http2(address: SocketAddr, first: &[u8], sent: &Sent) -> Got {
    let mut client = Client::behind(address, first);
    client.base = format!("http://{}", sent.host);
    let cookie = sent.cookie().map(|value| ("cookie".to_owned(), value));
    let fields: Vec<_> = sent.fields.iter().cloned().chain(cookie).collect();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let request = client.request(sent.method, &sent.target, &fields);
    let reply = client.begin(request, true).and_then(crate::http2::client::Exchange::reply);
    let reply = reply.unwrap_or_else(|error| panic!("{error}: {sent:?}"));
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields = reply.fields.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
    Got { status: reply.status, fields }
}

/// A backend that answers as it is asked in the fields X-Answer.
fn application(place: usize, address: SocketAddr) -> Backend {
    let name = format!("s{place}");
    Backend::on(address, move |mut stream: TcpStream| {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let (mut status, mut more, mut line) = ("200 OK", String::new(), String::new());
            while reader.read_line(&mut line)? > 0 && line != "\r\n" {
                match line.trim_end().split_once(": ") {
                    Some((field, "404")) if field.eq_ignore_ascii_case("x-answer") => status = "404 Not Found",
                    Some((field, asked)) if field.eq_ignore_ascii_case("x-answer") => {
                        more += &format!("{}\r\n", asked.replace("{name}", &name));
                    }
                    _ => {}
                }
                line.clear();
            }
            if line.is_empty() {
                return Ok(());
            }
            stream.write_all(
                format!("HTTP/1.1 {status}\r\nX-Backend: {name}\r\n{more}Content-Length: 0\r\n\r\n").as_bytes(),
            )?;
        }
    })
}
