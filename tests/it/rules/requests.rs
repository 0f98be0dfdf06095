//! Random clients and the requests that they send: to any host and path, with fields, cookies that they got and cookies
//! that they made up.
//!
//! Invariant: a request is known whole before it is sent, so that `explain` can be asked about it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use form_urlencoded::Serializer;

use super::draw::{COOKIES, PLACES, once_in, pick};
use crate::support::rng::Rng;

/// A client: its address, what is announced of it, and the cookies that it has.
#[derive(Debug)]
pub struct Visitor {
    source: SocketAddr,
    tlv: Option<String>,
    certificate: Option<String>,
    jar: BTreeMap<String, String>,
    session: Option<String>,
}

/// One request.
#[derive(Debug)]
pub struct Sent {
    pub method: &'static str,
    pub host: String,
    pub target: String,
    /// Fields without Host.
    pub fields: Vec<(String, String)>,
    cookies: Vec<(String, String)>,
    pub http2: bool,
}

impl Visitor {
    pub fn draw(rng: &mut Rng, number: usize) -> Self {
        let address: IpAddr = match rng.below(6) {
            0 => format!("10.1.2.{}", number % 256).parse(),
            1 => format!("10.1.{}.{}", number % 8, number % 256).parse(),
            2 => format!("2001:db8:{number:x}::1").parse(),
            3 => format!("2001:0:{number:x}::1").parse(),
            _ => format!("192.0.2.{}", number % 256).parse(),
        }
        .expect("an address");
        Self {
            source: SocketAddr::new(address, 1_000 + number as u16),
            tlv: once_in(rng, 2).then(|| format!("tenant-{}", number % 7)),
            certificate: once_in(rng, 3).then(|| format!("user-{}", number % 9)),
            jar: BTreeMap::new(),
            session: None,
        }
    }

    /// PROXY header of version 2 that announces it.
    pub fn announced(&self) -> Vec<u8> {
        let mut body = match self.source.ip() {
            IpAddr::V4(source) => [&source.octets()[..], &[192, 0, 2, 1]].concat(),
            IpAddr::V6(source) => [&source.octets()[..], &[0; 15], &[1]].concat(),
        };
        body.extend(self.source.port().to_be_bytes());
        body.extend(80_u16.to_be_bytes());
        let entry = |kind: u8, value: &[u8]| [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat();
        if let Some(value) = &self.tlv {
            body.extend(entry(0xe0, value.as_bytes()));
        }
        if let Some(name) = &self.certificate {
            // TLS with a certificate on this connection, verified.
            let inner = [entry(0x21, b"TLSv1.3"), entry(0x22, name.as_bytes())].concat();
            body.extend(entry(0x20, &[&[7, 0, 0, 0, 0][..], &inner].concat()));
        }
        let family = if self.source.is_ipv4() { 0x11 } else { 0x21 };
        [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family], &(body.len() as u16).to_be_bytes(), &body].concat()
    }

    /// The next request of it.
    pub fn ask(&self, rng: &mut Rng) -> Sent {
        const HOSTS: [&str; 9] =
            ["a.test", "A.Test", "a.test:8080", "a.test.", "x.a.test", "y.x.a.test", "b.test", "c.test", "127.0.0.1"];
        let method = pick(rng, &["GET", "GET", "GET", "POST", "PUT", "DELETE"]);
        let mut sent = Sent {
            method,
            host: pick(rng, &HOSTS).to_owned(),
            target: target(rng),
            fields: Vec::new(),
            cookies: self.cookies(rng),
            http2: once_in(rng, 3),
        };
        let mut field = |name: &str, value: String| sent.fields.push((name.to_owned(), value));
        if once_in(rng, 2) {
            field(pick(rng, &["X-User", "x-user"]), pick(rng, &["", "ann", "bob", "cid", "dora"]).to_owned());
        }
        for (name, values) in [("X-Version", ["1", "2", "2"]), ("X-Kind", ["a", "b", "b"])] {
            (0..pick(rng, &[0, 0, 1, 1, 2])).for_each(|_| field(name, pick(rng, &values).to_owned()));
        }
        if once_in(rng, 3) {
            field("Mcp-Session-Id", self.session.clone().unwrap_or_else(|| format!("id-{}", rng.below(12))));
        }
        (0..pick(rng, &[0, 0, 0, 1, 1, 2])).for_each(|_| field("X-Answer", answer(rng)));
        if once_in(rng, 12) {
            field("X-Answer", "404".into());
        }
        sent
    }

    /// Most of the cookies that it has, and some that it never got.
    fn cookies(&self, rng: &mut Rng) -> Vec<(String, String)> {
        let mut cookies: Vec<_> = self.jar.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        cookies.retain(|_| !once_in(rng, 5));
        if once_in(rng, 4) {
            cookies.push((
                pick(rng, &COOKIES).to_owned(),
                named(rng).replace("{name}", &format!("s{}", rng.below(PLACES))),
            ));
        }
        if let Some((name, value)) = self.jar.first_key_value().filter(|_| once_in(rng, 8)) {
            cookies.push((name.clone(), value.replacen(['A', 'b', 'v'], "w", 1)));
        }
        if cookies.len() > 1 && once_in(rng, 2) {
            let last = cookies.len() - 1;
            cookies.swap(0, last);
        }
        cookies
    }

    /// Keeps what a response sets.
    pub fn keep(&mut self, set_cookies: &[String], session: Option<&str>) {
        for line in set_cookies {
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let Some((name, value)) = pair.split_once('=') else { continue };
            if attributes.contains("Max-Age=0") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        self.session = session.map(str::to_owned).or_else(|| self.session.take());
    }

    /// The question of `explain` about a request of it.
    pub fn question(&self, sent: &Sent) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("client", &self.source.ip().to_string()).append_pair("listener", "l");
        query.append_pair("host", &sent.host).append_pair("path", &sent.target).append_pair("method", sent.method);
        for (name, value) in &sent.fields {
            query.append_pair("header", &format!("{name}: {value}"));
        }
        for (name, value) in &sent.cookies {
            query.append_pair("cookie", &format!("{name}={value}"));
        }
        if let Some(value) = &self.tlv {
            query.append_pair("tlv", &format!("0xE0={value}"));
        }
        if let Some(name) = &self.certificate {
            query.append_pair("certificate", &format!("CN={name}"));
        }
        query.finish()
    }
}

impl Sent {
    /// Value of its Cookie field; `None`: it brings no cookie.
    pub fn cookie(&self) -> Option<String> {
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Its head in HTTP/1.1.
    pub fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(value) = self.cookie() {
            head += &format!("Cookie: {value}\r\n");
        }
        if ["POST", "PUT"].contains(&self.method) {
            head += "Content-Length: 0\r\n";
        }
        head + "\r\n"
    }
}

/// A path, with parameters and a query.
fn target(rng: &mut Rng) -> String {
    const PATHS: [&str; 14] = [
        "/",
        "/app",
        "/app/",
        "/app/v1",
        "/app/v1/x",
        "/app/v1x",
        "/apps",
        "/login",
        "/login/",
        "/api",
        "/api/v1",
        "//app",
        "/%61pp",
        "/t/7/list",
    ];
    let mut target = pick(rng, &PATHS).to_owned();
    if once_in(rng, 4) {
        target += &format!(";jsessionid={}", named(rng).replace("{name}", &format!("s{}", rng.below(PLACES))));
    }
    match rng.below(4) {
        0 => target += &format!("?user=u{}", rng.below(9)),
        1 if once_in(rng, 3) => target += "?user=&user=v&path=/app",
        _ => {}
    }
    target
}

/// What the application adds to its response, with its own name in it; as it is asked in the field X-Answer.
fn answer(rng: &mut Rng) -> String {
    match rng.below(8) {
        0 => format!("Set-Cookie: {}=; Max-Age=0", pick(rng, &COOKIES)),
        1 | 2 => format!("Mcp-Session-Id: id-{}", rng.below(12)),
        _ => format!("Set-Cookie: {}={}; Path=/", pick(rng, &COOKIES), named(rng)),
    }
}

/// A value of an application, of which `{name}` is the backend's part.
fn named(rng: &mut Rng) -> String {
    let value = format!("v{}", rng.below(12));
    match rng.below(5) {
        0 => format!("{value}.{{name}}"),
        1 => format!("{value}!{{name}}"),
        2 => format!("{{name}}-{value}"),
        3 => format!("{value}-{{name}}"),
        _ => value,
    }
}
