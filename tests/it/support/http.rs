//! Small HTTP/1.0 exchanges.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Status and body of a GET over a unix socket; `None` without a whole answer.
pub fn unix_get(socket: &Path, path: &str) -> Option<(u16, String)> {
    exchange(UnixStream::connect(socket).ok()?, "GET", path)
}

/// Status and body of a POST over a unix socket; `None` without a whole answer.
pub fn unix_post(socket: &Path, path: &str) -> Option<(u16, String)> {
    exchange(UnixStream::connect(socket).ok()?, "POST", path)
}

/// One exchange over any stream.
pub fn exchange(mut stream: impl Read + Write, method: &str, path: &str) -> Option<(u16, String)> {
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}
