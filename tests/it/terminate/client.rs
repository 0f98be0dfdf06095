//! A TLS client that sends HTTP byte by byte as the test wants it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::Front;
use crate::support::PATIENCE;
use crate::support::authority::Authority;

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Configuration of a client with TLS 1.2 and 1.3.
pub fn config(authority: &Authority) -> Arc<ClientConfig> {
    Arc::new(authority.client(&[&TLS13, &TLS12], &[kx_group::X25519]))
}

pub fn config_of(authority: &Authority, old: bool) -> Arc<ClientConfig> {
    let version = if old { &TLS12 } else { &TLS13 };
    Arc::new(authority.client(&[version], &[kx_group::X25519]))
}

/// Connects; the handshake is made with the first write.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Tls {
    over(TcpStream::connect(address).expect("the listener accepts"), config, name)
}

/// Begins TLS on a connection.
pub fn over(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Tls {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    let name = name.to_owned().try_into().expect("a host name");
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a client"), stream)
}

/// A response, head and body as received.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// Value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One client connection, with TLS.
pub struct Talk<S> {
    pub stream: S,
    rest: Vec<u8>,
}

impl Talk<Tls> {
    pub fn with(front: &Front) -> Self {
        Self::new(connect(front.address(), &config(&front.authority), "a.test"))
    }
}

impl<S: Read + Write> Talk<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, rest: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the stream takes bytes");
        self.stream.flush().expect("the stream takes bytes");
    }

    /// Sends a GET with further fields, each with its line end, and reads the response.
    pub fn get(&mut self, path: &str, fields: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
        self.response().expect("a response")
    }

    /// Reads the next head and its body; `None`: the stream ended or broke before.
    pub fn response(&mut self) -> Option<Response> {
        self.response_to("GET")
    }

    pub fn response_to(&mut self, method: &str) -> Option<Response> {
        let length = loop {
            match self.rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more()?,
            }
        };
        let head = String::from_utf8(self.rest.drain(..length).collect()).expect("a head of text");
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut response = Response { status, head, body: Vec::new() };
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if bodiless {
            return Some(response);
        }
        if let Some(length) = response.field("content-length").map(|length| length.parse::<usize>().expect("a length"))
        {
            while self.rest.len() < length {
                self.more()?;
            }
            response.body = self.rest.drain(..length).collect();
        } else if response.field("transfer-encoding").is_some() {
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).expect("a size");
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    break;
                }
                while self.rest.len() < size + 2 {
                    self.more()?;
                }
                response.body.extend(self.rest.drain(..size));
                self.rest.drain(..2);
            }
        } else {
            while self.more().is_some() {}
            response.body = std::mem::take(&mut self.rest);
        }
        Some(response)
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.rest.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.rest.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Option<()> {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) | Err(_) => None,
            Ok(n) => {
                self.rest.extend_from_slice(&piece[..n]);
                Some(())
            }
        }
    }

    /// Reads all bytes until the end; true if that was a clean one.
    pub fn end(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = std::mem::take(&mut self.rest);
        let clean = self.stream.read_to_end(&mut bytes).is_ok();
        (bytes, clean)
    }
}
