//! A site behind a proxy that ends TLS: what it does with a request is in the path.
//!
//! `/keep` and `/once` are small answers, `/keep/0` only of the first backend; `/download` and `/upload` are bodies
//! without end, `/blob/9` and `/blob` bodies of a length, `/echo` becomes a WebSocket.
//! Invariant: what was asked of it and is not its own business (a body that was changed on the way, a frame that is not
//! whole) ends the connection, which its client counts as an error.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::conversation::{BULK, Next};
use crate::Result;
use crate::load::frames::{echo, granted};
use crate::load::http::answer;
use crate::load::pattern;
use crate::load::transfer::{LENGTH, check};

/// Fields in a head.
const FIELDS_MAX: usize = 32;
/// What a backend says to what should have come to the other one.
const ELSEWHERE: &str = "HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n";
/// Bytes of an upload read at once.
const CHUNK: usize = 256 * 1024;

/// One connection.
#[derive(Debug, Default)]
pub struct Site {
    doing: Doing,
    read: Vec<u8>,
}

#[derive(Debug, Default)]
enum Doing {
    #[default]
    Requests,
    Download,
    Upload(Vec<u8>),
    /// Sends the bytes from a place on up to an end.
    Giving {
        place: u64,
        end: u64,
    },
    /// Takes them.
    Taking {
        place: u64,
        end: u64,
        into: Vec<u8>,
    },
    Frames,
}

/// What a request asks for.
struct Asked {
    path: String,
    close: bool,
    /// Bytes of the head.
    length: usize,
    /// Bytes of the body, as far as the head says so.
    body: u64,
}

impl Site {
    /// Reads or writes once.
    pub fn turn(&mut self, socket: &mut TcpStream, backend: usize) -> Result<Next> {
        match &mut self.doing {
            Doing::Requests | Doing::Frames => {
                let mut bytes = [0; 4096];
                let n = socket.read(&mut bytes)?;
                self.read.extend_from_slice(&bytes[..n]);
                if n == 0 {
                    return Ok(Next::Close);
                }
                if matches!(self.doing, Doing::Frames) { self.frames(socket) } else { self.request(socket, backend) }
            }
            Doing::Download => socket.write(&BULK).map(|_| Next::Write).or_else(|error| match error {
                full if full.kind() == ErrorKind::WouldBlock => Ok(Next::Write),
                other => Err(other.into()),
            }),
            Doing::Upload(into) => {
                let n = socket.read(into)?;
                check(&into[..n])?;
                Ok(if n == 0 { Next::Close } else { Next::Read })
            }
            Doing::Giving { place, end } => {
                match socket.write(pattern::from(*place, *end - *place)) {
                    Ok(n) => *place += n as u64,
                    Err(full) if full.kind() == ErrorKind::WouldBlock => {}
                    Err(other) => return Err(other.into()),
                }
                if place < end {
                    return Ok(Next::Write);
                }
                self.doing = Doing::Requests;
                Ok(Next::ReadAgain)
            }
            Doing::Taking { place, end, into } => {
                let most = into.len().min((*end - *place) as usize);
                let n = socket.read(&mut into[..most])?;
                pattern::check(*place, &into[..n])?;
                *place += n as u64;
                let whole = place == end;
                if whole {
                    self.doing = Doing::Requests;
                    socket.write_all(&answer(backend))?;
                }
                Ok(if n == 0 && !whole { Next::Close } else { Next::Read })
            }
        }
    }

    fn request(&mut self, socket: &mut TcpStream, backend: usize) -> Result<Next> {
        let Some(Asked { path, close, length, body }) = parse(&self.read)? else { return Ok(Next::Read) };
        self.read.drain(..length);
        if path.strip_prefix("/keep/").is_some_and(|which| which != backend.to_string()) {
            socket.write_all(ELSEWHERE.as_bytes())?;
            return Ok(Next::Read);
        }
        if let Some(end) = path.strip_prefix("/blob/") {
            let end = end.parse()?;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {end}\r\nBackend: {backend}\r\n\r\n");
            socket.write_all(head.as_bytes())?;
            self.doing = Doing::Giving { place: 0, end };
            return Ok(Next::Write);
        }
        match path.as_str() {
            "/download" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nBackend: {backend}\r\n\r\n");
                socket.write_all(head.as_bytes())?;
                self.doing = Doing::Download;
                Ok(Next::Write)
            }
            "/upload" => {
                check(&self.read)?;
                self.doing = Doing::Upload(vec![0; CHUNK]);
                Ok(Next::Read)
            }
            "/blob" => {
                let begun = std::mem::take(&mut self.read);
                pattern::check(0, &begun)?;
                self.doing = Doing::Taking { place: begun.len() as u64, end: body, into: vec![0; CHUNK] };
                Ok(Next::Read)
            }
            "/echo" => {
                socket.write_all(&granted(backend))?;
                self.doing = Doing::Frames;
                self.frames(socket)
            }
            _ => {
                socket.write_all(&answer(backend))?;
                Ok(if close { Next::Close } else { Next::Read })
            }
        }
    }

    fn frames(&mut self, socket: &mut TcpStream) -> Result<Next> {
        while let Some(frame) = echo(&mut self.read)? {
            socket.write_all(&frame)?;
        }
        Ok(Next::Read)
    }
}

/// The first request with a whole head; `None` before its last line.
fn parse(read: &[u8]) -> Result<Option<Asked>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(read)? else { return Ok(None) };
    let path = request.path.unwrap_or_default().to_owned();
    let close = request
        .headers
        .iter()
        .any(|field| field.name.eq_ignore_ascii_case("connection") && field.value.eq_ignore_ascii_case(b"close"));
    let said = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let body = said.map_or(Ok(0), |field| std::str::from_utf8(field.value)?.parse().map_err(crate::Error::from))?;
    Ok(Some(Asked { path, close, length, body }))
}
