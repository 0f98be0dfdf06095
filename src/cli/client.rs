//! The admin socket for commands: one request, one response, and what to do where there is no response.
//!
//! Speaks no HTTP itself (`admin::client` does). Invariant: a command waits no longer than [`TIMEOUT`], or than its own
//! limit, for each part of a response.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::CommandError;
use crate::admin::client::exchange;
use crate::admin::moved::moved_sockets;

pub(super) use crate::admin::client::{AdminReply, parse};

/// Timeout of a read or write; a reload resolves names and binds sockets before it responds.
const TIMEOUT: Duration = Duration::from_secs(100);

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

/// A text as the value of a query: what has a meaning in a URL, and all but ASCII, as `%XX`.
pub(super) fn query_value(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encode).collect()
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
pub(super) fn request_within(
    socket: &Path,
    method: &str,
    path: &str,
    body: &str,
    most: Duration,
) -> Result<AdminReply, CommandError> {
    exchange(socket, method, path, body, most).map_err(|error| CommandError::Unavailable(unavailable(socket, &error)))
}

fn unavailable(socket: &Path, error: &io::Error) -> String {
    if let (io::ErrorKind::NotFound, Some((pid, moved))) = (error.kind(), moved_sockets(socket).first()) {
        let (socket, moved) = (socket.display(), moved.display());
        return format!("admin socket {socket}: {error}; process {pid} stops, and its admin socket is {moved}");
    }
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "; is sessile running, and is this its admin socket? --socket or --config names another one"
        }
        io::ErrorKind::ConnectionRefused => "; it is left over from a process that has ended",
        io::ErrorKind::PermissionDenied => "; only its owner and group may use it",
        io::ErrorKind::WouldBlock => "; no response in time",
        _ => "",
    };
    format!("admin socket {}: {error}{hint}", socket.display())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use std::os::unix::net::UnixStream;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    #[test]
    fn a_value_of_a_query_has_no_byte_that_ends_it() {
        assert_eq!(query_value("a-b_c.~9"), "a-b_c.~9");
        assert_eq!(query_value("[::1]:80 ü&x=%\r\n"), "%5B%3A%3A1%5D%3A80%20%C3%BC%26x%3D%25%0D%0A");
    }

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
    fn a_process_that_stops_is_named_where_no_other_runs() {
        let folder = tempfile::tempdir().unwrap();
        let moved = folder.path().join("admin.4711.sock");
        std::fs::write(&moved, "").unwrap();
        let Err(CommandError::Unavailable(message)) = request(&folder.path().join("admin.sock"), "GET", "/status")
        else {
            panic!("answered");
        };
        let end = format!("process 4711 stops, and its admin socket is {}", moved.display());
        assert!(message.ends_with(&end), "{message}");
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
