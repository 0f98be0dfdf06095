//! [`Question`]: a question about one client, as an operator or a page writes it, and what it means.
//!
//! Decides nothing: `explained.rs` does. Invariant: a mistake in the description of a client is found before any pool is
//! asked, and a name or value that is empty counts as not given.

use std::net::{IpAddr, SocketAddr};

use crate::config::{self, Config};
use crate::http::Progress;
use crate::http::head::{Request, RequestReader};
use crate::server_name::ServerName;

/// A question about one client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Address of the client, with or without a port.
    pub client: String,
    /// Listener that the client connects to; `None`: the only one.
    pub listener: Option<String>,
    /// What the client brings besides its address.
    pub traits: WrittenTraits,
    /// Backends that are supposed to be down, as `[POOL/]NAME`.
    pub down: Vec<String>,
}

/// Time of a question, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct AskedAt {
    /// Milliseconds of the process's clock.
    pub now_ms: u64,
    /// Seconds since 1970.
    pub unix_s: u64,
}

/// What clients bring besides their address, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WrittenTraits {
    /// Server name in the hello.
    pub sni: Option<String>,
    /// Host of the request; the server name, too, where none is given.
    pub host: Option<String>,
    /// Path of the request.
    pub path: Option<String>,
    /// Method of the request; GET where none is given.
    pub method: Option<String>,
    /// Protocols that the hello offers.
    pub alpn: Vec<String>,
    /// TLVs of the PROXY header, as `0xNN=VALUE`.
    pub tlv: Vec<String>,
    /// Cookies of the request, as `NAME=VALUE`.
    pub cookie: Vec<String>,
    /// Header fields of the request, as `NAME: VALUE` or `NAME=VALUE`.
    pub header: Vec<String>,
    /// Subject of the client's verified certificate.
    pub certificate: Option<String>,
}

impl Question {
    /// Reads the parameters of a request; the error names one that is not known.
    pub fn read(parameters: Vec<(String, String)>) -> Result<Self, String> {
        let mut question = Self::default();
        for (name, value) in parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
            let traits = &mut question.traits;
            match name.as_str() {
                "client" => question.client = value,
                "listener" => question.listener = Some(value),
                "down" => question.down.push(value),
                "sni" => traits.sni = Some(value),
                "host" => traits.host = Some(value),
                "path" => traits.path = Some(value),
                "method" => traits.method = Some(value),
                "alpn" => traits.alpn.push(value),
                "tlv" => traits.tlv.push(value),
                "cookie" => traits.cookie.push(value),
                "header" => traits.header.push(value),
                "certificate" => traits.certificate = Some(value),
                _ => return Err(format!("there is no parameter {name:?}")),
            }
        }
        Ok(question)
    }

    /// The parameters that [`read`](Self::read) reads.
    pub fn parameters(&self) -> Vec<(&'static str, &str)> {
        let WrittenTraits { sni, host, path, method, alpn, tlv, cookie, header, certificate } = &self.traits;
        let client = [("sni", sni), ("host", host), ("path", path), ("method", method), ("certificate", certificate)];
        let once = [("listener", &self.listener)].into_iter().chain(client);
        let many = [("down", &self.down), ("alpn", alpn), ("tlv", tlv), ("cookie", cookie), ("header", header)];
        let once = once.filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let many = many.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value.as_str())));
        [("client", self.client.as_str())].into_iter().chain(once).chain(many).collect()
    }
}

/// What clients bring besides their address.
#[derive(Debug)]
pub struct ClientTraits {
    sni: Option<ServerName>,
    /// The protocols as a ClientHello has them: length and name of each.
    pub alpn: Vec<u8>,
    /// The TLVs as a PROXY header has them: kind, length and value of each.
    pub tlvs: Vec<u8>,
    /// Subject of the client's verified certificate.
    pub certificate: Option<String>,
    /// True if the request names a host: its connection has to lead to the same pool.
    pub names_host: bool,
    head: Vec<u8>,
    reader: RequestReader,
}

impl ClientTraits {
    /// Reads what is written; the error names what is not understood.
    pub fn read(written: &WrittenTraits) -> Result<Self, String> {
        let names_host = written.host.is_some() || written.header.iter().any(|line| is_host(line));
        let (head, reader) = read_head(written)?;
        let request = reader.request(&head);
        let host = request.host().filter(|_| names_host);
        let name_of_host = host.and_then(|host| ServerName::parse(std::str::from_utf8(host.name).ok()?));
        let sni = written.sni.as_deref().map(server_name).transpose()?.or(name_of_host);
        let (alpn, tlvs, certificate) = (alpn(&written.alpn)?, tlvs(&written.tlv)?, written.certificate.clone());
        Ok(Self { sni, alpn, tlvs, certificate, names_host, head, reader })
    }

    /// The request that every client sends.
    pub fn request(&self) -> Request<'_> {
        self.reader.request(&self.head)
    }
}

/// A client to explain.
#[derive(Debug, PartialEq, Eq)]
pub struct AskedClient {
    /// Address of the client, canonical.
    pub source: IpAddr,
    /// Server name in its hello.
    pub sni: Option<ServerName>,
}

impl AskedClient {
    /// Reads `ADDR [SNI]`; a client without a name has that of the traits.
    pub fn parse(text: &str, traits: &ClientTraits) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let address = words.next().unwrap_or_default();
        let source: Result<IpAddr, _> =
            address.parse().or_else(|_| address.parse().map(|address: SocketAddr| address.ip()));
        let source = source.map_err(|_| format!("client {address:?} is not an address"))?;
        let sni = words.next().map(server_name).transpose()?.or_else(|| traits.sni.clone());
        match words.next() {
            Some(more) => Err(format!("client {address}: {more:?} follows the server name")),
            None => Ok(Self { source: source.to_canonical(), sni }),
        }
    }
}

/// The listener that a question is about.
pub fn find_listener<'c>(config: &'c Config, name: Option<&str>) -> Result<&'c config::Listener, String> {
    let names = || config.listeners.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.listeners.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(format!("--listener is needed; there are: {}", names())),
        (Some(name), listeners) => listeners
            .iter()
            .find(|listener| listener.name == name)
            .ok_or_else(|| format!("--listener {name}: no such listener; there are: {}", names())),
    }
}

/// Names of the backends that are supposed to be down, by pool.
pub fn find_down(config: &Config, wanted: &[String]) -> Result<Vec<Vec<String>>, String> {
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
            return Err(format!("--down {wanted}: no pool has such a backend"));
        }
    }
    Ok(down)
}

fn is_host(line: &str) -> bool {
    name_and_value(line).is_some_and(|(name, _)| name.eq_ignore_ascii_case("host"))
}

/// Splits `NAME: VALUE` or `NAME=VALUE`.
fn name_and_value(line: &str) -> Option<(&str, &str)> {
    line.split_once([':', '='])
}

/// The head of the request, and the reader that has read it.
fn read_head(written: &WrittenTraits) -> Result<(Vec<u8>, RequestReader), String> {
    let method = written.method.as_deref().unwrap_or("GET");
    let mut head = format!("{method} {} HTTP/1.1\r\n", written.path.as_deref().unwrap_or("/"));
    for line in &written.header {
        let (name, value) = name_and_value(line).ok_or_else(|| format!("--header {line:?} is not like Name: value"))?;
        head += &format!("{name}: {}\r\n", value.trim());
    }
    match &written.host {
        Some(host) => head += &format!("Host: {host}\r\n"),
        None if written.header.iter().any(|line| is_host(line)) => {}
        None => head += "Host: localhost\r\n",
    }
    for cookie in &written.cookie {
        head += &format!("Cookie: {cookie}\r\n");
    }
    head += "\r\n";
    let (mut reader, bytes) = (RequestReader::new(), head.into_bytes());
    match reader.read(&bytes) {
        // A line end in a value would begin a field, or end the head.
        Progress::Done(length) if length == bytes.len() => Ok((bytes, reader)),
        Progress::Done(_) => Err("such a request has more than one head".to_owned()),
        Progress::No(refused) => Err(format!("such a request is refused: {}", refused.meaning())),
        Progress::More => Err("such a request would not end".to_owned()),
    }
}

/// Encodes the names as a ClientHello does: length and name of each.
fn alpn(names: &[String]) -> Result<Vec<u8>, String> {
    let mut list = Vec::new();
    for name in names {
        match u8::try_from(name.len()) {
            Ok(length @ 1..) => list.push(length),
            _ => return Err(format!("--alpn {name:?} is not 1 to 255 bytes long")),
        }
        list.extend_from_slice(name.as_bytes());
    }
    Ok(list)
}

/// Encodes TLVs as a PROXY header does: kind, length and value of each.
fn tlvs(written: &[String]) -> Result<Vec<u8>, String> {
    let mut list = Vec::new();
    for tlv in written {
        let (kind, value) = tlv
            .strip_prefix("0x")
            .and_then(|tlv| tlv.split_once('='))
            .and_then(|(kind, value)| Some((u8::from_str_radix(kind, 16).ok()?, value)))
            .ok_or_else(|| format!("--tlv {tlv:?} is not like 0xE0=value"))?;
        let length = u16::try_from(value.len()).map_err(|_| format!("--tlv 0x{kind:02x}: the value is too long"))?;
        list.push(kind);
        list.extend_from_slice(&length.to_be_bytes());
        list.extend_from_slice(value.as_bytes());
    }
    Ok(list)
}

/// Reads a server name.
fn server_name(text: &str) -> Result<ServerName, String> {
    ServerName::parse(text).ok_or_else(|| format!("server name {text:?} is not a host name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(change: impl FnOnce(&mut WrittenTraits)) -> WrittenTraits {
        let mut written = WrittenTraits::default();
        change(&mut written);
        written
    }

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let traits = WrittenTraits {
            sni: Some("a.example.org".into()),
            host: Some("b.example.org:8443".into()),
            path: Some("/x?y=1".into()),
            method: Some("POST".into()),
            alpn: vec!["h2".into(), "http/1.1".into()],
            tlv: vec!["0xE0=a&b".into()],
            cookie: vec!["SID=1; x=2".into(), "y=3".into()],
            header: vec!["X: y".into()],
            certificate: Some("CN=ann,O=Example".into()),
        };
        let listener = Some("front".into());
        let asked = Question { client: "::1".into(), listener, traits, down: vec!["web/a".into(), "b".into()] };
        let parameters = asked.parameters().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(Question::read(parameters.collect()), Ok(asked));
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        assert_eq!(Question::read(pair("sni", "")), Ok(Question::default()), "an empty field of a form");
        assert_eq!(Question::read(pair("tea", "green")), Err("there is no parameter \"tea\"".into()));
    }

    #[test]
    fn a_host_is_the_server_name_where_none_is_given() {
        let of = |written: &WrittenTraits| {
            let traits = ClientTraits::read(written).unwrap();
            let client = AskedClient::parse("192.0.2.1", &traits).unwrap();
            (client.sni.map(|name| name.as_str().to_owned()), traits.names_host)
        };
        let host = |host: &str| written(|written| written.host = Some(host.to_owned()));
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(of(&host("Shop.example.org:8443")), (some("shop.example.org"), true));
        assert_eq!(of(&written(|written| written.header = vec!["host: b.org".into()])), (some("b.org"), true));
        assert_eq!(of(&host("192.0.2.7")), (None, true));
        assert_eq!(of(&WrittenTraits { sni: some("a.org"), ..host("b.org") }), (some("a.org"), true));
        assert_eq!(of(&WrittenTraits::default()), (None, false));
    }

    #[test]
    fn what_is_no_client_is_named() {
        let refusal = |written: &WrittenTraits| ClientTraits::read(written).unwrap_err();
        let header = written(|written| written.header = vec!["nonsense".into()]);
        assert_eq!(refusal(&header), "--header \"nonsense\" is not like Name: value");
        let cookie = written(|written| written.cookie = vec!["a=b\r\n\r\nGET / HTTP/1.1".into()]);
        assert_eq!(refusal(&cookie), "such a request has more than one head");
        let path = written(|written| written.path = Some("no path".into()));
        assert!(refusal(&path).starts_with("such a request is refused: "), "{}", refusal(&path));
        assert_eq!(
            refusal(&written(|written| written.tlv = vec!["E0=x".into()])),
            "--tlv \"E0=x\" is not like 0xE0=value"
        );
        let tlv = ClientTraits::read(&written(|written| written.tlv = vec!["0xe0=ab".into()])).unwrap();
        assert_eq!(tlv.tlvs, [0xe0, 0, 2, b'a', b'b']);
        let traits = ClientTraits::read(&WrittenTraits::default()).unwrap();
        let refusal = |text: &str| AskedClient::parse(text, &traits).unwrap_err();
        assert_eq!(refusal("192.0.2.300"), "client \"192.0.2.300\" is not an address");
        assert_eq!(refusal("::1 a..b"), "server name \"a..b\" is not a host name");
        assert_eq!(refusal("::1 a b"), "client ::1: \"b\" follows the server name");
    }
}
