//! [`Site`]: an HTTP/1.1 backend with a page for each way in which a message can be framed, end, wait or break off.
//!
//! Knows nothing of HTTP/2. Invariant: what it says of a body it has read to its last byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::{PATIENCE, eventually};

/// A door that stays shut until it is opened.
#[derive(Clone, Default)]
pub struct Door(Arc<(Mutex<usize>, Condvar)>);

impl Door {
    /// Lets one more through.
    pub fn one(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    /// Lets all through.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = usize::MAX / 2;
        self.0.1.notify_all();
    }

    /// Waits to be let through; false: the connection has ended before.
    fn pass(&self, stream: &TcpStream) -> bool {
        let mut room = self.0.0.lock().unwrap();
        loop {
            if *room > 0 {
                *room -= 1;
                return true;
            }
            room = self.0.1.wait_timeout(room, Duration::from_millis(10)).unwrap().0;
            if has_ended(stream) {
                return false;
            }
        }
    }
}

/// True if the peer has closed or reset.
fn has_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    match seen {
        Ok(n) => n == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// What a site has seen so far.
#[derive(Default)]
struct Seen {
    /// Paths of the requests of each connection, in order.
    connections: Mutex<Vec<Vec<String>>>,
    open: AtomicUsize,
    /// Requests that wait at the door, or wait no more because their connection has ended.
    arrived: AtomicUsize,
    left: AtomicUsize,
}

/// A running site.
pub struct Site {
    backend: Backend,
    /// What `/wait` and `/stall` wait for.
    pub door: Door,
    seen: Arc<Seen>,
    uploads: Mutex<Receiver<Body>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

/// A body that a site has read.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    pub length: usize,
    pub sum: u32,
    /// Lines behind the last chunk.
    pub trailers: Vec<String>,
    /// True for chunks, false for a length or no body.
    pub chunked: bool,
}

/// A connection of a site.
struct Visit<'s> {
    stream: &'s TcpStream,
    reader: BufReader<TcpStream>,
}

impl Site {
    pub fn named(name: &'static str) -> Self {
        let (door, seen, (tell, uploads)) = (Door::default(), Arc::<Seen>::default(), channel());
        let (doors, record, tell) = (door.clone(), Arc::clone(&seen), Mutex::new(tell));
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let open = Arc::clone(&streams);
        let backend = Backend::serving(move |stream| {
            let number = {
                let mut connections = record.connections.lock().unwrap();
                connections.push(Vec::new());
                connections.len() - 1
            };
            // A head and its body are two writes.
            stream.set_nodelay(true)?;
            record.open.fetch_add(1, Relaxed);
            open.lock().unwrap().push(stream.try_clone()?);
            let mut visit = Visit { stream: &stream, reader: BufReader::new(stream.try_clone()?) };
            let end = visit.serve(name, number, &doors, &record, |body| drop(tell.lock().unwrap().send(body)));
            record.open.fetch_sub(1, Relaxed);
            let _ = stream.shutdown(Shutdown::Both);
            end
        });
        Self { backend, door, seen, uploads: Mutex::new(uploads), streams }
    }

    /// Ends as a process that is killed: no connection of it stays, and none is accepted any more.
    pub fn kill(self) {
        let address = self.address();
        drop(self.backend);
        eventually("the backend to be gone", || TcpStream::connect(address).err());
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// Paths of the requests of each connection so far.
    pub fn connections(&self) -> Vec<Vec<String>> {
        self.seen.connections.lock().unwrap().clone()
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.connections().iter().map(Vec::len).sum()
    }

    /// Number of connections that are open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Relaxed)
    }

    /// Waits until so many requests have come to the door, in all.
    pub fn arrived(&self, count: usize) {
        eventually(&format!("{count} requests at the backend's door"), || {
            (self.seen.arrived.load(Relaxed) >= count).then_some(())
        });
    }

    /// Number of requests that have come to the door.
    pub fn arrivals(&self) -> usize {
        self.seen.arrived.load(Relaxed)
    }

    /// Waits until so many requests have ended before they were let through, in all.
    pub fn left(&self, count: usize) {
        eventually(&format!("{count} exchanges to be broken off"), || {
            (self.seen.left.load(Relaxed) >= count).then_some(())
        });
    }

    /// The next body that has come whole.
    pub fn upload(&self) -> Body {
        self.uploads.lock().unwrap().recv_timeout(PATIENCE).expect("a body")
    }
}

impl Visit<'_> {
    /// Serves requests until the end.
    fn serve(
        &mut self,
        name: &str,
        number: usize,
        door: &Door,
        seen: &Seen,
        tell: impl Fn(Body),
    ) -> std::io::Result<()> {
        while let Some(head) = self.head()? {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            seen.connections.lock().unwrap()[number].push(path.clone());
            let parts: Vec<_> = path.split('?').next().unwrap_or_default().split('/').skip(1).collect();
            match parts[..] {
                ["wait", ..] => {
                    seen.arrived.fetch_add(1, Relaxed);
                    if !door.pass(self.stream) {
                        seen.left.fetch_add(1, Relaxed);
                        return Ok(());
                    }
                }
                ["stall", ..] => {
                    // Not a byte more is read.
                    seen.arrived.fetch_add(1, Relaxed);
                    door.pass_blindly(self.stream);
                }
                // The reply comes first; of the body nothing is read.
                ["refuse"] => {
                    self.say(b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!")?;
                    self.stream.shutdown(Shutdown::Write)?;
                    self.sleep(Duration::from_secs(1));
                    return Ok(());
                }
                ["eager"] => {
                    self.say(b"HTTP/1.1 202 X\r\nContent-Length: 2\r\n\r\nok")?;
                    tell(self.body(&head)?);
                    continue;
                }
                _ => {}
            }
            if head.to_ascii_lowercase().contains("\r\nexpect: 100-continue\r\n") {
                self.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let body = self.body(&head)?;
            let up = format!("{} {:08x} {} {}", body.length, body.sum, body.chunked, body.trailers.join(","));
            let page = parts.first().copied().unwrap_or_default();
            if page == "up" || page == "stall" {
                tell(body);
            }
            let begins = format!("{name} {number}\n");
            let text = if page == "up" { up } else { begins + &head };
            if !self.respond(&parts, &head, &text)? {
                break;
            }
        }
        Ok(())
    }

    /// Writes the response; false: the connection ends behind it.
    fn respond(&mut self, parts: &[&str], head: &str, text: &str) -> std::io::Result<bool> {
        let number = |part: &str| part.parse::<usize>().expect("a number");
        let is_head = head.starts_with("HEAD ");
        match *parts {
            ["down", framing, length] => return self.down(framing, &pattern(number(length)), is_head),
            ["status", "204"] => self.say(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")?,
            ["status", "304"] => self.say(b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 7\r\n\r\n")?,
            ["login", cookie] => {
                let name = text.split(' ').next().unwrap_or_default();
                let fields = format!("Set-Cookie: {cookie}; Path=/\r\nContent-Length: {}\r\n\r\n", name.len());
                self.say(format!("HTTP/1.1 200 OK\r\n{fields}{name}").as_bytes())?;
            }
            ["status", code] => self.say(format!("HTTP/1.1 {code} X\r\nContent-Length: 2\r\n\r\nno").as_bytes())?,
            ["early"] => {
                self.say(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
                self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
            ["trailers"] => {
                self.say(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                self.say(b"5\r\nhello\r\n0\r\nX-Sum: 7\r\nX-More: yes\r\n\r\n")?;
            }
            ["hops"] => {
                self.say(b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n")?;
                self.say(b"Set-Cookie: A=1\r\nSet-Cookie: B=2\r\nX-Stays: Yes\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                self.say(b"2\r\nok\r\n0\r\n\r\n")?;
            }
            ["cut", framing, length] => {
                match framing {
                    "length" => self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")?,
                    _ => self.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n")?,
                }
                self.say(&pattern(number(length)))?;
                return Ok(false);
            }
            ["half", seconds] => {
                self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!")?;
                self.sleep(Duration::from_secs(number(seconds) as u64));
                self.say(b"whole")?;
            }
            ["silent"] => {
                self.sleep(PATIENCE);
                return Ok(false);
            }
            ["nonsense"] => {
                self.say(b"what?\r\n\r\n")?;
                return Ok(false);
            }
            ["close"] => return Ok(false),
            ["endless"] => {
                self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
                loop {
                    self.say(&[7; 1 << 16])?;
                }
            }
            _ => {
                self.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len()).as_bytes())?;
                if !is_head {
                    self.say(text.as_bytes())?;
                }
            }
        }
        Ok(true)
    }

    fn down(&mut self, framing: &str, body: &[u8], is_head: bool) -> std::io::Result<bool> {
        let fields = match framing {
            "length" => format!("Content-Length: {}\r\n", body.len()),
            "chunked" => "Transfer-Encoding: chunked\r\n".to_owned(),
            _ => String::new(),
        };
        self.say(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes())?;
        if is_head {
            return Ok(framing != "close");
        }
        if framing != "chunked" {
            self.say(body)?;
            return Ok(framing != "close");
        }
        for chunk in body.chunks(60_001) {
            self.say(format!("{:x};a=b\r\n", chunk.len()).as_bytes())?;
            self.say(chunk)?;
            self.say(b"\r\n")?;
        }
        self.say(b"0\r\n\r\n")?;
        Ok(true)
    }

    fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits, but not for a connection that has ended.
    fn sleep(&self, time: Duration) {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end && !has_ended(self.stream) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn head(&mut self) -> std::io::Result<Option<String>> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(head))
    }

    fn body(&mut self, head: &str) -> std::io::Result<Body> {
        let lower = head.to_ascii_lowercase();
        let chunked = lower.contains("\r\ntransfer-encoding: chunked\r\n");
        let mut body = Body { length: 0, sum: 0, trailers: Vec::new(), chunked };
        if let Some((_, rest)) = lower.split_once("\r\ncontent-length: ") {
            let length = rest.lines().next().and_then(|length| length.parse().ok()).expect("a length");
            assert!(!chunked, "two framings: {head}");
            self.take(length, &mut body)?;
        }
        if chunked {
            self.chunks(&mut body)?;
        }
        Ok(body)
    }

    fn chunks(&mut self, body: &mut Body) -> std::io::Result<()> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().map(str::trim).unwrap_or_default();
            match usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no size: {line:?}")) {
                0 => break,
                size => self.take(size, body)?,
            }
            assert_eq!(self.line()?, "");
        }
        loop {
            match self.line()? {
                line if line.is_empty() => return Ok(()),
                line => body.trailers.push(line),
            }
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches("\r\n").to_owned())
    }

    fn take(&mut self, length: usize, body: &mut Body) -> std::io::Result<()> {
        let mut piece = vec![0; length.min(1 << 16)];
        let mut left = length;
        while left > 0 {
            let n = left.min(piece.len());
            self.reader.read_exact(&mut piece[..n])?;
            body.sum = crc32c::crc32c_append(body.sum, &piece[..n]);
            left -= n;
        }
        body.length += length;
        Ok(())
    }
}

impl Door {
    /// Waits to be let through, or for the other side to break the connection.
    fn pass_blindly(&self, stream: &TcpStream) {
        let mut room = self.0.0.lock().unwrap();
        while *room == 0 {
            room = self.0.1.wait_timeout(room, Duration::from_millis(10)).unwrap().0;
            if rustix::net::sockopt::socket_error(stream).is_ok_and(|error| error.is_err()) {
                return;
            }
        }
        *room -= 1;
    }
}

/// Bytes that differ from their neighbours, so that a lost, doubled or misplaced piece is noticed.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// What a site says of a body that has come whole.
pub fn verdict(body: &[u8]) -> String {
    format!("{} {:08x}", body.len(), crc32c::crc32c(body))
}

/// The name of the site that has sent a head back.
pub fn name_of(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// How often each value comes.
pub fn counts<T: std::hash::Hash + Eq>(values: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts
}
