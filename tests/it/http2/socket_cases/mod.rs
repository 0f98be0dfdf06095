//! A WebSocket is the same for both ends over one stream of HTTP/2, over HTTP/1.1, and without sessile.
//!
//! Each of the [`cases`] is played against a server of Python's `websockets`: directly, through sessile over HTTP/1.1,
//! and through sessile by an extended CONNECT (RFC 8441). Invariant: what a client has seen, byte by byte, and what the
//! server says of what it has seen are equal on all three ways.

mod cases;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use self::cases::{Case, Step, cases};
use super::client::{Begun, Client};
use super::socket_frames::take;
use super::web_socket::open;
use super::{HTTP, plain};
use crate::support::PATIENCE;
use crate::support::program::{Program, free_address};
use crate::terminate::programs::{python, run};

/// The other end of a WebSocket, on its way.
trait Socket {
    /// Fields of the response that opened it, as `name: value`.
    fn fields(&self) -> Vec<String>;
    fn send(&mut self, bytes: &[u8]);
    /// The next bytes; `None`: the end, an error: a reset.
    fn read(&mut self) -> Option<Result<Vec<u8>, String>>;
    /// Ends this side.
    fn finish(&mut self);
}

/// A WebSocket over HTTP/1.1 in the clear.
struct Upgraded {
    stream: TcpStream,
    head: String,
    rest: Vec<u8>,
}

impl Upgraded {
    fn open(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{fields}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let (mut rest, mut piece) = (Vec::new(), [0; 1 << 16]);
        let end = loop {
            if let Some(at) = rest.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut piece).unwrap() {
                0 => panic!("{path}: no response"),
                n => rest.extend_from_slice(&piece[..n]),
            }
        };
        let head: Vec<u8> = rest.drain(..end).collect();
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{path}: {head}");
        Self { stream, head, rest }
    }
}

impl Socket for Upgraded {
    fn fields(&self) -> Vec<String> {
        self.head.lines().map(str::to_owned).collect()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn read(&mut self) -> Option<Result<Vec<u8>, String>> {
        if !self.rest.is_empty() {
            return Some(Ok(std::mem::take(&mut self.rest)));
        }
        let mut piece = vec![0; 1 << 16];
        match self.stream.read(&mut piece) {
            Ok(0) => None,
            Ok(n) => Some(Ok(piece[..n].to_vec())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing comes, and it does not end")
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }

    fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

impl Socket for Begun {
    fn fields(&self) -> Vec<String> {
        let fields = self.head.headers().iter();
        fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.write(bytes, false).unwrap();
    }

    fn read(&mut self) -> Option<Result<Vec<u8>, String>> {
        let piece = self.piece()?;
        Some(piece.map(|piece| piece.to_vec()).map_err(|error| error.to_string()))
    }

    fn finish(&mut self) {
        let _ = self.write(&[], true);
    }
}

/// A frame of the server, as a line.
fn line((first, payload): (u8, Vec<u8>)) -> String {
    let shown = if payload.len() <= 125 { format!(" {}", payload.escape_ascii()) } else { String::new() };
    format!("{first:02x} {} {:08x}{shown}", payload.len(), crc32c::crc32c(&payload))
}

/// Takes part in a WebSocket as the case says, up to its end; what was seen.
fn play(case: &Case, socket: &mut dyn Socket) -> Vec<String> {
    let agreed =
        |field: &String| field.starts_with("sec-websocket-protocol:") || field.starts_with("sec-websocket-extensions:");
    let mut seen: Vec<String> = socket.fields().into_iter().filter(agreed).collect();
    let (mut rest, mut over) = (Vec::new(), None);
    let mut frame = |socket: &mut dyn Socket| loop {
        if let Some(frame) = take(&mut rest) {
            return Ok(frame);
        }
        if let Some(end) = over.take() {
            let left = if rest.is_empty() { String::new() } else { format!(" inside a frame of {} bytes", rest.len()) };
            return Err(format!("{end}{left}"));
        }
        match socket.read() {
            Some(Ok(piece)) => rest.extend_from_slice(&piece),
            Some(Err(error)) => over = Some(format!("broken: {error}")),
            None => over = Some("the end".to_owned()),
        }
    };
    for step in &case.steps {
        match step {
            Step::Send(bytes) => socket.send(bytes),
            Step::Frames(count) => {
                for _ in 0..*count {
                    match frame(socket) {
                        Ok(frame) => seen.push(line(frame)),
                        Err(end) => {
                            seen.push(format!("too early: {end}"));
                            return seen;
                        }
                    }
                }
            }
        }
    }
    loop {
        match frame(socket) {
            Ok(frame) => seen.push(line(frame)),
            Err(end) => {
                seen.push(end);
                socket.finish();
                return seen;
            }
        }
    }
}

/// Plays all cases on one way; what each client has seen, and what the server says of it.
fn transcripts(
    cases: &[Case],
    way: &str,
    server: SocketAddr,
    mut connect: impl FnMut(&str, &[(&str, &str)]) -> Box<dyn Socket>,
) -> Vec<Vec<String>> {
    let all = cases.iter().enumerate().map(|(number, case)| {
        // What the server does of itself is in the path.
        let path = case.path.map_or_else(|| format!("/{way}-{number}"), str::to_owned);
        let mut seen = {
            let mut socket = connect(&path, case.fields);
            play(case, &mut *socket)
        };
        if case.path.is_none() {
            let mut asks = Upgraded::open(server, &format!("/of{path}"), &[]);
            let mut told = Vec::new();
            let said = loop {
                match take(&mut told) {
                    Some((_, said)) => break said,
                    None => told.extend(asks.read().expect("what the server has seen").unwrap()),
                }
            };
            seen.push(String::from_utf8(said).unwrap());
        }
        seen
    });
    all.collect()
}

#[test]
fn a_websocket_is_the_same_directly_over_http_1_1_and_over_a_stream_of_http_2() {
    let test = "a_websocket_is_the_same_directly_over_http_1_1_and_over_a_stream_of_http_2";
    let Some(python) = python(test, "websockets") else { return };
    let server = free_address();
    let mut command = run(&python, "websockets_server.py");
    command.args([&server.ip().to_string(), &server.port().to_string()]);
    let _server = Program::start(tempfile::tempdir().unwrap(), command, server);
    let sessile = plain("", HTTP, &[server]);
    let (cases, front) = (&cases(), sessile.address("l"));
    let [direct, upgraded, stream] = thread::scope(|scope| {
        let upgrades = |way: &'static str, to: SocketAddr| {
            scope.spawn(move || {
                transcripts(cases, way, server, |path, fields| Box::new(Upgraded::open(to, path, fields)))
            })
        };
        let ways = [
            upgrades("direct", server),
            upgrades("upgraded", front),
            scope.spawn(move || {
                let client = Client::plain(front);
                transcripts(cases, "stream", server, |path, fields| {
                    let socket = open(&client, path, fields);
                    assert_eq!(socket.head.status(), 200, "{path}");
                    Box::new(socket)
                })
            }),
        ];
        ways.map(|way| way.join().unwrap())
    });
    let mut wrong = String::new();
    for (number, case) in cases.iter().enumerate() {
        let (direct, ways) = (&direct[number], [("HTTP/1.1", &upgraded[number]), ("HTTP/2", &stream[number])]);
        let early = direct.iter().any(|line| line.starts_with("too early"));
        if early || case.ends.is_some_and(|ends| !direct.iter().any(|line| line.starts_with(ends))) {
            wrong += &format!("{}: the server itself: {direct:#?}\n", case.name);
        }
        for (way, seen) in ways {
            if seen != direct {
                wrong += &format!("{} over {way}: {seen:#?} instead of {direct:#?}\n", case.name);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    println!("{} cases, the same on three ways", cases.len());
}
