//! A client for the admin socket: one request, one response.
//!
//! Speaks HTTP/1.0, so that a response ends with the connection, and only to sessile's own admin interface. Invariant: a
//! response larger than [`RESPONSE_MAX`] or slower than [`TIMEOUT`] is an error, never a partial result.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};

use super::CommandError;

/// Largest response in bytes: 256 MiB.
const RESPONSE_MAX: u64 = 256 << 20;
/// Timeout of a read or write; a reload resolves names and binds sockets before it responds.
const TIMEOUT: Duration = Duration::from_secs(100);

/// Response of the admin interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AdminReply {
    /// Status code of the HTTP response.
    pub(super) code: u16,
    /// Body of the HTTP response.
    pub(super) body: String,
}

impl AdminReply {
    /// Parses the body as JSON; an error unless the code is one of `codes`.
    pub(super) fn json<T: DeserializeOwned>(&self, codes: &[u16]) -> Result<T, CommandError> {
        if !codes.contains(&self.code) {
            let message = format!("the admin interface returned {}: {}", self.code, self.body.trim_end());
            return Err(CommandError::Internal(message));
        }
        serde_json::from_str(&self.body).map_err(|error| {
            CommandError::Internal(format!("the response of the admin interface cannot be parsed: {error}"))
        })
    }
}

/// Sends a request without a body.
pub(super) fn request(socket: &Path, method: &str, path: &str) -> Result<AdminReply, CommandError> {
    request_with(socket, method, path, "")
}

/// Sends a request with a JSON body.
pub(super) fn request_with(socket: &Path, method: &str, path: &str, body: &str) -> Result<AdminReply, CommandError> {
    request_within(socket, method, path, body, TIMEOUT)
}

/// Sends a request; no step takes longer than `most`.
fn request_within(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
    most: Duration,
) -> Result<AdminReply, CommandError> {
    let exchange = || {
        let connecting = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        connecting.set_read_timeout(Some(most))?;
        // Before the connect, which waits for room in the queue of a process that accepts nothing.
        connecting.set_write_timeout(Some(most))?;
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
    };
    exchange().map_err(|error: io::Error| CommandError::Unavailable(unavailable(socket, &error)))
}

fn unavailable(socket: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; is sessile running, and is this its admin socket?",
        io::ErrorKind::ConnectionRefused => "; it is left over from a process that has ended",
        io::ErrorKind::PermissionDenied => "; only its owner and group may use it",
        io::ErrorKind::WouldBlock => "; no response in time",
        _ => "",
    };
    format!("admin socket {}: {error}{hint}", socket.display())
}

/// Parses a whole HTTP response; `None`: malformed, or shorter than its `Content-Length`.
pub(super) fn parse(response: &str) -> Option<AdminReply> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // A body shorter than announced: the server closed in the middle.
    (length.is_none_or(|length| length == body.len())).then(|| AdminReply { code, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = parse("HTTP/1.0 409 Conflict\r\nContent-Length: 3\r\n\r\n{}\n").unwrap();
        assert_eq!(answer, AdminReply { code: 409, body: "{}\n".into() });
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n").unwrap().body, "");
        for bad in ["", "HTTP/1.0 200 OK\r\n", "HTTP/1.0 xyz\r\n\r\n", "220 ready\r\n\r\n"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer_cut_short_is_no_answer() {
        assert_eq!(parse("HTTP/1.0 200 OK\r\ncontent-length: 10\r\n\r\n{\"a\":"), None);
    }

    #[test]
    fn a_socket_that_is_not_there_is_named() {
        let Err(CommandError::Unavailable(message)) = request(Path::new("/nonexistent/admin.sock"), "GET", "/status")
        else {
            panic!("answered");
        };
        assert!(message.starts_with("admin socket /nonexistent/admin.sock: No such file"), "{message}");
    }

    #[test]
    fn a_process_that_accepts_nothing_is_no_wait_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let short = Duration::from_millis(100);
        let ask = || match request_within(&path, "GET", "/status", "", short) {
            Err(CommandError::Unavailable(message)) => message,
            other => panic!("{other:?}"),
        };
        // The first one finds room in the queue, where it stays.
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(ask().ends_with("; no response in time"), "{}", ask());
    }

    #[test]
    fn a_request_is_sent_in_one_piece() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..200 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                assert!(request[..length].ends_with(b"\r\n\r\n"), "{:?}", String::from_utf8_lossy(&request[..length]));
                stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
            }
        });
        for _ in 0..200 {
            assert_eq!(request(&socket, "GET", "/status").unwrap().code, 200);
        }
        server.join().unwrap();
    }
}
