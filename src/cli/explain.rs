//! `sessile explain`: where clients go, from the configuration alone.
//!
//! Builds the same route tables and pools that serve, and asks them; connects nowhere and asks no running process, so
//! health is what `--down` says. Invariant: one client in, one answer out, in the same order; stick table does not grow
//! with the number of clients.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

use super::{CommandError, load, print_json};
use crate::clock;
use crate::config::{self, Config};
use crate::http::Progress;
use crate::http::head::RequestReader;
use crate::outcome::Ended;
use crate::pool::{Explanation, Pool};
use crate::route::{RouteFacts, RouteTable};
use crate::server::cookie_keys;
use crate::server_name::ServerName;
use crate::snapshot::Rings;
use crate::sticky::Facts;
use crate::terminate::{RequestCookie, cookies_of_key};

/// The command.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A client: address, with or without port. Without any, or with `-`, clients are read from standard input, one
    /// `ADDR [SNI]` a line.
    #[arg(long, value_name = "ADDR")]
    client: Vec<String>,
    /// The listener they connect to; needed when there are several.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The server name they ask for.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// A protocol they offer.
    #[arg(long, value_name = "PROTO")]
    alpn: Vec<String>,
    /// A TLV of their PROXY header, as in `0xE0=value`.
    #[arg(long, value_name = "0xNN=VALUE")]
    tlv: Vec<String>,
    /// A cookie of their requests.
    #[arg(long, value_name = "NAME=VALUE")]
    cookie: Vec<String>,
    /// A field of their requests.
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// A backend that is down, in one pool or in every pool that has it.
    #[arg(long, value_name = "[POOL/]NAME")]
    down: Vec<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Reads clients and prints answers.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let config = load::load(&self.config)?.config;
        let question = Question::new(self, &config)?;
        let given: Vec<_> = self.client.iter().filter(|client| *client != "-").collect();
        for client in &given {
            self.print(out, &question.answer(&ExplainedClient::parse(client, question.sni.as_ref())?))?;
        }
        if given.is_empty() || given.len() < self.client.len() {
            self.answer_lines(&question, io::stdin().lock(), out)?;
        }
        Ok(0)
    }

    fn answer_lines(
        &self,
        question: &Question<'_>,
        input: impl Read,
        out: &mut impl Write,
    ) -> Result<(), CommandError> {
        let mut input = BufReader::new(input);
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            if input.read_line(&mut line).map_err(|e| CommandError::Usage(format!("standard input: {e}")))? == 0 {
                break;
            }
            if !line.trim().is_empty() {
                let client = ExplainedClient::parse(line.trim(), question.sni.as_ref())
                    .map_err(|failure| CommandError::Usage(format!("line {number}: {failure}")))?;
                self.print(out, &question.answer(&client))?;
            }
            if input.buffer().is_empty() {
                out.flush()?; // whoever writes may be waiting for the answer
            }
        }
        Ok(())
    }

    fn print(&self, out: &mut impl Write, answer: &ExplainReport<'_>) -> Result<(), CommandError> {
        if self.json {
            return print_json(out, answer);
        }
        write!(out, "client {} at listener {}", answer.client, answer.listener)?;
        if let Some(sni) = &answer.sni {
            write!(out, " for {sni}")?;
        }
        if let Some(cookie) = answer.cookie {
            write!(out, " with a cookie that is {cookie}")?;
        }
        match &answer.explanation {
            Some(explanation) => writeln!(out, ": {explanation}")?,
            None => writeln!(out, ": no route matches and there is no default pool")?,
        }
        Ok(())
    }
}

/// One client.
#[derive(Debug, PartialEq, Eq)]
struct ExplainedClient {
    source: IpAddr,
    sni: Option<ServerName>,
}

impl ExplainedClient {
    /// `ADDR [SNI]`; without a name, the one given for all.
    fn parse(text: &str, sni: Option<&ServerName>) -> Result<Self, CommandError> {
        let mut words = text.split_whitespace();
        let address = words.next().unwrap_or_default();
        let source = address.parse().or_else(|_| address.parse().map(|address: SocketAddr| address.ip()));
        let source = source.map_err(|_| CommandError::Usage(format!("client {address:?} is not an address")))?;
        let sni = words.next().map(server_name).transpose()?.or_else(|| sni.cloned());
        match words.next() {
            Some(more) => Err(CommandError::Usage(format!("client {address}: {more:?} follows the server name"))),
            None => Ok(Self { source: source.to_canonical(), sni }),
        }
    }
}

/// One answer; `refused` where nobody gets the client.
#[derive(Serialize)]
struct ExplainReport<'a> {
    client: IpAddr,
    listener: &'a str,
    sni: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<&'static str>,
    refused: Option<&'static str>,
    #[serde(flatten)]
    explanation: Option<Explanation>,
}

/// What is asked about every client.
struct Question<'a> {
    listener: &'a str,
    routes: RouteTable,
    pools: Vec<Pool>,
    /// By pool, the names of what is down in it.
    down: Vec<Vec<String>>,
    sni: Option<ServerName>,
    alpn: Vec<u8>,
    tlvs: Vec<u8>,
    request: ExplainedHead,
}

/// The head of a request, read as from a client.
struct ExplainedHead {
    bytes: Vec<u8>,
    reader: RequestReader,
}

impl<'a> Question<'a> {
    fn new(asked: &Explain, config: &'a Config) -> Result<Self, CommandError> {
        let listener = find_listener(config, asked.listener.as_deref())?;
        let index = |name: &str| config.pools.iter().position(|pool| pool.name == name).unwrap_or(usize::MAX);
        Ok(Self {
            listener: &listener.name,
            routes: RouteTable::new(&listener.routes, listener.pool.as_deref(), index),
            pools: pools(config, !(asked.cookie.is_empty() && asked.header.is_empty()))?,
            down: find_down(config, &asked.down)?,
            sni: asked.sni.as_deref().map(server_name).transpose()?,
            alpn: alpn(&asked.alpn)?,
            tlvs: tlvs(&asked.tlv)?,
            request: ExplainedHead::of(&asked.cookie, &asked.header)?,
        })
    }

    fn answer(&self, client: &ExplainedClient) -> ExplainReport<'a> {
        let (source, sni) = (Some(client.source), client.sni.as_ref().map(ServerName::as_str));
        let pool = self.routes.find(&RouteFacts { sni, alpn: &self.alpn, source });
        let explanation = pool.map(|pool| {
            let (down, pool) = (&self.down[pool], &self.pools[pool]);
            let fields = self.request.reader.request(&self.request.bytes).fields;
            let settled = RequestCookie::read(pool, fields, clock::unix_s());
            let cookies = cookies_of_key(pool, fields);
            let facts = Facts { source, sni, tlvs: &self.tlvs, cookies: &cookies };
            let explanation = pool.explain_settled(settled.backend(), &facts, down);
            (settled.word(), explanation)
        });
        let (cookie, explanation) = explanation.map_or((None, None), |(cookie, found)| (cookie, Some(found)));
        let refused = match &explanation {
            None => Some(Ended::NoRoute.word()),
            Some(explanation) => explanation.reason.is_none().then_some(Ended::NoBackend.word()),
        };
        let sni = sni.map(str::to_owned);
        ExplainReport { client: client.source, listener: self.listener, sni, cookie, refused, explanation }
    }
}

impl ExplainedHead {
    fn of(cookies: &[String], headers: &[String]) -> Result<Self, CommandError> {
        let mut head = "GET / HTTP/1.1\r\n".to_owned();
        for line in headers {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| CommandError::Usage(format!("--header {line:?} is not like Name: value")))?;
            head += &format!("{name}: {}\r\n", value.trim());
        }
        if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
            head += "Host: localhost\r\n";
        }
        for cookie in cookies {
            head += &format!("Cookie: {cookie}\r\n");
        }
        head += "\r\n";
        let (mut reader, bytes) = (RequestReader::new(), head.into_bytes());
        match reader.read(&bytes) {
            Progress::Done(_) => Ok(Self { bytes, reader }),
            Progress::No(refused) => {
                Err(CommandError::Usage(format!("such a request is refused: {}", refused.meaning())))
            }
            Progress::More => Err(CommandError::Usage("such a request would not end".to_owned())),
        }
    }
}

/// The pools that serve. Keys of cookies are needed only by those who ask about cookies.
fn pools(config: &Config, with_cookies: bool) -> Result<Vec<Pool>, CommandError> {
    let rings = match cookie_keys(config) {
        Ok(rings) => rings,
        Err(problems) if with_cookies => return Err(CommandError::Usage(problems.join("; "))),
        Err(_) => Rings::default(),
    };
    let pool = |pool: &config::Pool| Pool::new(pool, None, 1).with_cookie(rings.rule(pool));
    Ok(config.pools.iter().map(pool).collect())
}

fn find_listener<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a config::Listener, CommandError> {
    let names = || config.listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.listeners.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(CommandError::Usage(format!("--listener is needed; there are: {}", names()))),
        (Some(name), listeners) => listeners
            .iter()
            .find(|listener| listener.name == name)
            .ok_or_else(|| CommandError::Usage(format!("--listener {name}: no such listener; there are: {}", names()))),
    }
}

fn find_down(config: &Config, wanted: &[String]) -> Result<Vec<Vec<String>>, CommandError> {
    let mut down = vec![Vec::new(); config.pools.len()];
    for wanted in wanted {
        let (pool_name, name) = match wanted.split_once('/') {
            Some((pool, name)) => (Some(pool), name),
            None => (None, wanted.as_str()),
        };
        let mut found = false;
        for (pool, down) in config.pools.iter().zip(&mut down) {
            let here = pool_name.is_none_or(|wanted| wanted == pool.name);
            if here && pool.backends.iter().any(|backend| backend.name == name) {
                down.push(name.to_owned());
                found = true;
            }
        }
        if !found {
            return Err(CommandError::Usage(format!("--down {wanted}: no pool has such a backend")));
        }
    }
    Ok(down)
}

fn server_name(text: &str) -> Result<ServerName, CommandError> {
    ServerName::parse(text).ok_or_else(|| CommandError::Usage(format!("server name {text:?} is not a host name")))
}

/// The list as a ClientHello carries it: length and name, again and again.
fn alpn(names: &[String]) -> Result<Vec<u8>, CommandError> {
    let mut list = Vec::new();
    for name in names {
        match u8::try_from(name.len()) {
            Ok(length @ 1..) => list.push(length),
            _ => return Err(CommandError::Usage(format!("--alpn {name:?} is not 1 to 255 bytes long"))),
        }
        list.extend_from_slice(name.as_bytes());
    }
    Ok(list)
}

/// The TLVs as a PROXY header carries them: kind, length, value, again and again.
fn tlvs(written: &[String]) -> Result<Vec<u8>, CommandError> {
    let mut list = Vec::new();
    for tlv in written {
        let (kind, value) = tlv
            .strip_prefix("0x")
            .and_then(|tlv| tlv.split_once('='))
            .and_then(|(kind, value)| Some((u8::from_str_radix(kind, 16).ok()?, value)))
            .ok_or_else(|| CommandError::Usage(format!("--tlv {tlv:?} is not like 0xE0=value")))?;
        let length = u16::try_from(value.len());
        let length = length.map_err(|_| CommandError::Usage(format!("--tlv 0x{kind:02x}: the value is too long")))?;
        list.push(kind);
        list.extend_from_slice(&length.to_be_bytes());
        list.extend_from_slice(value.as_bytes());
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[listener]]
name = "front"
bind = "127.0.0.1:4433"
tls = "passthrough"
pool = "web"
[[listener.route]]
sni = "api.example.org"
pool = "api"
[[listener.route]]
alpn = "special"
source = "192.0.2.0/24"
pool = "api"
[[listener]]
name = "bare"
bind = "127.0.0.1:4434"
tls = "passthrough"
[[listener.route]]
sni = "api.example.org"
pool = "api"
[[pool]]
name = "web"
backend = [
    { name = "a", address = "127.0.0.1:1" },
    { name = "b", address = "127.0.0.1:2" },
    { name = "c", address = "127.0.0.1:3" },
]
[[pool]]
name = "api"
key = "sni"
all_down = "refuse"
backend = [{ name = "a", address = "127.0.0.1:1" }]
[[listener]]
name = "shop"
bind = "127.0.0.1:4435"
pool = "shop"
[[pool]]
name = "shop"
http = true
cookie = { mode = "route", name = "SID" }
backend = [{ name = "a", address = "127.0.0.1:1" }, { name = "b", address = "127.0.0.1:2" }]
"#;

    /// What the command prints for these arguments and this input.
    fn explain(arguments: &str, input: &str) -> Result<String, CommandError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sessile.toml");
        std::fs::write(&file, FILE).unwrap();
        let line = format!("sessile explain --config {} {arguments}", file.display());
        let super::super::Command::Explain(asked) = super::super::tests::parse(&line).unwrap() else {
            panic!("{line}");
        };
        let config = load::load(&file)?.config;
        let question = Question::new(&asked, &config)?;
        let mut out = Vec::new();
        if asked.client.is_empty() {
            asked.answer_lines(&question, input.as_bytes(), &mut out)?;
        } else {
            asked.run(&mut out)?;
        }
        Ok(String::from_utf8(out).unwrap())
    }

    fn json(arguments: &str) -> serde_json::Value {
        serde_json::from_str(&explain(&format!("--json {arguments}"), "").unwrap()).unwrap()
    }

    fn refusal(arguments: &str, input: &str) -> String {
        explain(arguments, input).unwrap_err().to_string()
    }

    #[test]
    fn routes_are_followed_as_by_connections() {
        let pool = |arguments: &str| json(&format!("--listener front {arguments}"))["pool"].clone();
        assert_eq!(pool("--client 192.0.2.1"), "web");
        assert_eq!(pool("--client 192.0.2.1 --sni API.example.org"), "api");
        assert_eq!(pool("--client 192.0.2.1 --alpn other --alpn special"), "api");
        assert_eq!(pool("--client 198.51.100.1 --alpn special"), "web");
        let none = json("--listener bare --client 192.0.2.1");
        assert_eq!((&none["refused"], none.get("pool")), (&"no_route".into(), None));
    }

    #[test]
    fn what_is_down_is_passed_over_in_its_pool_only() {
        let choice = |down: &str| json(&format!("--listener front --client 192.0.2.7 {down}"))["choice"].clone();
        let (first, next) = (choice(""), json("--listener front --client 192.0.2.7")["next"].clone());
        let name = first.as_str().unwrap();
        assert_eq!(choice(&format!("--down {name}")), next);
        assert_eq!(choice(&format!("--down web/{name}")), next);
        assert_eq!(choice("--down api/a"), first);
        let refused = json("--listener front --client 192.0.2.7 --sni api.example.org --down api/a");
        assert_eq!(refused["refused"], "no_backend");
    }

    #[test]
    fn a_cookie_is_obeyed_while_its_backend_is_up() {
        let asked = |more: &str| json(&format!("--listener shop --client 192.0.2.7 {more}"));
        for name in ["a", "b"] {
            for how in [format!("--cookie x=y --cookie SID=1234.{name}"), format!("--header Cookie:SID=1234.{name}")] {
                let answer = asked(&how);
                assert_eq!((&answer["choice"], &answer["reason"]), (&name.into(), &"cookie".into()), "{how}");
                let moved = asked(&format!("{how} --down {name}"));
                assert_ne!(moved["choice"], name, "{how}");
                assert_eq!(moved["reason"], "placement", "{how}");
            }
        }
        let gone = asked("--cookie SID=1234.gone");
        assert_eq!((&gone["cookie"], &gone["choice"]), (&"removed".into(), &asked("")["choice"]));
        assert!(refusal("--listener shop --client 192.0.2.7 --header nonsense", "").contains("not like"));
    }

    #[test]
    fn mapped_addresses_and_ports_make_no_difference() {
        let plain = json("--listener front --client 192.0.2.9");
        assert_eq!(json("--listener front --client ::ffff:192.0.2.9"), plain);
        assert_eq!(json("--listener front --client 192.0.2.9:4711"), plain);
        assert_eq!(json("--listener front --client [::ffff:192.0.2.9]:4711"), plain);
    }

    #[test]
    fn twenty_thousand_clients_are_answered_line_by_line_at_once() {
        let clients: Vec<_> = (0..20_000u32).map(|n| std::net::Ipv4Addr::from(n * 977).to_string()).collect();
        let start = std::time::Instant::now();
        let answers = explain("--listener front --json", &clients.join("\n")).unwrap();
        println!("20,000 clients in {:?}", start.elapsed());
        let answered: Vec<_> = answers
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["client"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(answered, clients);
        assert!(start.elapsed().as_secs_f64() < 5.0);
    }

    #[test]
    fn a_line_may_name_the_server() {
        let answers = explain("--listener front --json", "192.0.2.1\n\n192.0.2.1 api.example.org\n").unwrap();
        let pools: Vec<_> = answers
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["pool"].clone())
            .collect();
        assert_eq!(pools, ["web", "api"]);
    }

    #[test]
    fn people_read_sentences() {
        let text = explain("--listener front --client 192.0.2.1", "").unwrap();
        assert!(
            text.starts_with("client 192.0.2.1 at listener front: pool web, hash: key source 192.0.2.1/32"),
            "{text}"
        );
        let text = explain("--listener bare --client 192.0.2.1", "").unwrap();
        assert_eq!(text, "client 192.0.2.1 at listener bare: no route matches and there is no default pool\n");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(refusal("--client 192.0.2.1", ""), "--listener is needed; there are: front, bare, shop");
        let front = |arguments: &str| refusal(&format!("--listener front {arguments}"), "192.0.2.1\nnobody\n");
        assert_eq!(front(""), "line 2: client \"nobody\" is not an address");
        assert_eq!(front("--client 192.0.2.300"), "client \"192.0.2.300\" is not an address");
        assert_eq!(front("--client ::1 --sni a..b"), "server name \"a..b\" is not a host name");
        assert_eq!(front("--client ::1 --down web/z"), "--down web/z: no pool has such a backend");
        assert_eq!(front("--client ::1 --tlv E0=x"), "--tlv \"E0=x\" is not like 0xE0=value");
        assert_eq!(tlvs(&["0xe0=ab".into()]).unwrap(), [0xe0, 0, 2, b'a', b'b']);
    }
}
