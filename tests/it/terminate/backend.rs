//! An HTTP backend that records every byte it receives.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::support::backend::Backend;

/// A backend that records its connections.
pub struct Recorder {
    backend: Backend,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    answered: Arc<AtomicUsize>,
}

impl Recorder {
    /// Replies to each request with 200 and a text: its name, the number of the connection, the number of the request
    /// on the connection, and the head as received.
    pub fn named(name: &'static str) -> Self {
        Self::answering(name, |_| None)
    }

    /// Replies to each head with the bytes that `answer` returns, unchanged; no bytes close the connection.
    pub fn answering(name: &'static str, answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let answered: Arc<AtomicUsize> = Arc::default();
        let (record, count_up) = (Arc::clone(&seen), Arc::clone(&answered));
        let backend = Backend::serving(move |stream| {
            let connection = {
                let mut seen = record.lock().unwrap();
                seen.push(Vec::new());
                seen.len() - 1
            };
            let note = |bytes: &[u8]| record.lock().unwrap()[connection].extend_from_slice(bytes);
            serve(&stream, note, |head, body, count| {
                count_up.fetch_add(1, Relaxed);
                let close = head.to_ascii_lowercase().contains("connection: close");
                match answer(head) {
                    Some(answer) if answer.is_empty() => false,
                    Some(answer) => (&stream).write_all(&answer).is_ok() && !close,
                    None => {
                        let text = format!("{name} {connection} {count} {}\n{head}", body.len());
                        let status = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
                        let sent = format!("{status}Content-Length: {}\r\n\r\n{text}", text.len());
                        let head_only = head.starts_with("HEAD ");
                        let sent = if head_only {
                            sent.split_once("\r\n\r\n").unwrap().0.to_owned() + "\r\n\r\n"
                        } else {
                            sent
                        };
                        (&stream).write_all(sent.as_bytes()).is_ok() && !close
                    }
                }
            });
            Ok(())
        });
        Self { backend, seen, answered }
    }

    pub fn address(&self) -> SocketAddr {
        self.backend.address
    }

    /// All bytes of all connections so far.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }

    /// Number of complete requests.
    pub fn answered(&self) -> usize {
        self.answered.load(Relaxed)
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// Reads requests until the end, or until `answer` returns false.
fn serve(mut stream: &TcpStream, note: impl Fn(&[u8]), mut answer: impl FnMut(&str, &[u8], usize) -> bool) {
    let (mut bytes, mut piece) = (Vec::new(), [0; 16 * 1024]);
    for count in 0.. {
        let mut read = |bytes: &mut Vec<u8>| match stream.read(&mut piece) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                note(&piece[..n]);
                bytes.extend_from_slice(&piece[..n]);
                true
            }
        };
        let length = loop {
            match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if !read(&mut bytes) => return,
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&bytes.drain(..length).collect::<Vec<_>>()).into_owned();
        let lower = head.to_ascii_lowercase();
        let mut body = Vec::new();
        if let Some(rest) = lower.split("\r\ncontent-length: ").nth(1) {
            let length: usize = rest.split("\r\n").next().unwrap().parse().unwrap();
            while bytes.len() < length {
                if !read(&mut bytes) {
                    return;
                }
            }
            body.extend(bytes.drain(..length));
        } else if lower.contains("\r\ntransfer-encoding: chunked") {
            let mut trailers = false;
            loop {
                let end = loop {
                    match bytes.windows(2).position(|window| window == b"\r\n") {
                        Some(at) => break at + 2,
                        None if !read(&mut bytes) => return,
                        None => {}
                    }
                };
                let line: Vec<u8> = bytes.drain(..end).collect();
                body.extend_from_slice(&line);
                if trailers {
                    if line == b"\r\n" {
                        break;
                    }
                    continue;
                }
                let text = String::from_utf8_lossy(&line).into_owned();
                let size = usize::from_str_radix(text.split(';').next().unwrap().trim(), 16).unwrap();
                trailers = size == 0;
                while !trailers && bytes.len() < size + 2 {
                    if !read(&mut bytes) {
                        return;
                    }
                }
                if !trailers {
                    body.extend(bytes.drain(..size + 2));
                }
            }
        }
        if !answer(&head, &body, count) {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}
