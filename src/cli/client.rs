//! A client for the admin socket: one request, one answer.
//!
//! HTTP/1.0, so that an answer ends where the connection does; no other server is ever spoken to. Invariant: an
//! answer larger than [`ANSWER_MAX`] or slower than [`PATIENCE`] is an error, never a partial result.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::CommandError;

const ANSWER_MAX: u64 = 256 << 20;
/// A reload resolves names and binds sockets before it answers.
const PATIENCE: Duration = Duration::from_secs(100);

/// What the admin interface answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AdminReply {
    /// The HTTP status code.
    pub(super) code: u16,
    /// The body.
    pub(super) body: String,
}

impl AdminReply {
    /// Reads the body as JSON, if the code is one of `codes`.
    pub(super) fn json<T: DeserializeOwned>(&self, codes: &[u16]) -> Result<T, CommandError> {
        if !codes.contains(&self.code) {
            let message = format!("the admin interface answered {}: {}", self.code, self.body.trim_end());
            return Err(CommandError::Internal(message));
        }
        serde_json::from_str(&self.body).map_err(|error| {
            CommandError::Internal(format!("the admin interface sent what is not understood: {error}"))
        })
    }
}

/// Asks for `path` with `method`.
pub(super) fn request(socket: &Path, method: &str, path: &str) -> Result<AdminReply, CommandError> {
    request_with(socket, method, path, "")
}

/// The same with a body, which is JSON.
pub(super) fn request_with(socket: &Path, method: &str, path: &str, body: &str) -> Result<AdminReply, CommandError> {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // In one piece: whoever has answered and gone after the first half would break the second.
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        if stream.take(ANSWER_MAX + 1).read_to_string(&mut answer)? as u64 > ANSWER_MAX {
            return Err(io::Error::other("the answer is too large"));
        }
        parse(&answer).ok_or_else(|| io::Error::other("that is not an HTTP answer"))
    };
    ask().map_err(|error: io::Error| CommandError::Unavailable(unavailable(socket, &error)))
}

fn unavailable(socket: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; is sessile running, and is this its admin socket?",
        io::ErrorKind::ConnectionRefused => "; a process that is gone has left it behind",
        io::ErrorKind::PermissionDenied => "; its owner and group may use it",
        io::ErrorKind::WouldBlock => "; it does not answer",
        _ => "",
    };
    format!("admin socket {}: {error}{hint}", socket.display())
}

/// Takes a whole HTTP answer apart; `None` if it is none or was cut short.
pub(super) fn parse(answer: &str) -> Option<AdminReply> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // Shorter than announced: the server went away in the middle.
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
