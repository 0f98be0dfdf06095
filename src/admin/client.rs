//! [`exchange`]: one request to an admin socket, and its response.
//!
//! Speaks HTTP/1.0, so that a response ends with the connection, and only to sessile's own admin interface. Invariant: a
//! response larger than 256 MiB or slower than its timeout is an error, never a partial result.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Largest response in bytes: 256 MiB.
const RESPONSE_MAX: u64 = 256 << 20;

/// Response of the admin interface.
#[derive(Debug, PartialEq, Eq)]
pub struct AdminReply {
    /// Status code of the HTTP response.
    pub code: u16,
    /// Body of the HTTP response.
    pub body: String,
}

/// Sends a request with a JSON body, which may be empty. `timeout`: the longest time of a read or a write.
pub fn exchange(socket: &Path, method: &str, path: &str, body: &str, timeout: Duration) -> io::Result<AdminReply> {
    let connecting = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    connecting.set_read_timeout(Some(timeout))?;
    // Before the connect, which waits for room in the queue of a process that accepts nothing.
    connecting.set_write_timeout(Some(timeout))?;
    connecting.connect(&SockAddr::unix(socket)?)?;
    let mut stream = UnixStream::from(connecting);
    // One write: a server that responds and closes after the first part would make a second write fail.
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    if stream.take(RESPONSE_MAX + 1).read_to_string(&mut response)? as u64 > RESPONSE_MAX {
        return Err(io::Error::other("the response is too large"));
    }
    parse(&response).ok_or_else(|| io::Error::other("not an HTTP response"))
}

/// Parses a whole HTTP response; `None`: malformed, or shorter than its `Content-Length`.
pub fn parse(response: &str) -> Option<AdminReply> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // A body shorter than announced: the server closed in the middle.
    (length.is_none_or(|length| length == body.len())).then(|| AdminReply { code, body: body.to_owned() })
}
