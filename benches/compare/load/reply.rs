//! The answer of a backend as it comes through a proxy that may write its own head around it.
//!
//! Invariant: an answer is complete only if its status, its length and every byte of its body are those of the
//! backend.

use std::io::{self, ErrorKind};

use super::http::{BODY, COOKIE};

/// Fields in a head.
const FIELDS_MAX: usize = 32;

/// What has come.
#[derive(Debug, Default)]
pub struct Reply {
    bytes: Vec<u8>,
    head: Option<Head>,
}

/// What a head says.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status of the response.
    pub status: u16,
    /// The number of the backend that answered; the greatest there is where none says so.
    pub backend: usize,
    /// The cookie that sticks the client, as it is sent back.
    pub cookie: Option<Vec<u8>>,
    /// Bytes of the head.
    pub length: usize,
    /// Bytes of the body, as far as the head says so.
    pub body_length: Option<usize>,
}

impl Reply {
    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.head.is_none() {
            self.head = parse(&self.bytes)?;
            if self.head.as_ref().is_some_and(|head| head.backend > 1) {
                return Err(not_the_answer(&self.bytes));
            }
        }
        Ok(())
    }

    /// The head, if it is there.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// What has come behind the head.
    pub fn body(&self) -> &[u8] {
        self.head.as_ref().map_or(&[], |head| &self.bytes[head.length..])
    }

    /// Whether the small answer is there, and nothing else.
    pub fn is_complete(&self) -> io::Result<bool> {
        let Some(head) = &self.head else { return Ok(false) };
        let body = self.body();
        let wrong = head.status != 200 || head.body_length != Some(BODY.len()) || !BODY.as_bytes().starts_with(body);
        if wrong { Err(not_the_answer(&self.bytes)) } else { Ok(body.len() == BODY.len()) }
    }

    /// Gets ready for the next.
    pub fn reset(&mut self) {
        self.bytes.clear();
        self.head = None;
    }
}

/// The head of a response, once it is whole.
pub fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let mut head =
        Head { status: response.code.unwrap_or(0), backend: usize::MAX, cookie: None, length, body_length: None };
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
    for field in response.headers {
        match field.name {
            name if name.eq_ignore_ascii_case("backend") => head.backend = number(field.value).unwrap_or(usize::MAX),
            name if name.eq_ignore_ascii_case("content-length") => head.body_length = number(field.value),
            name if name.eq_ignore_ascii_case("set-cookie") && field.value.starts_with(COOKIE.as_bytes()) => {
                head.cookie = field.value.split(|byte| *byte == b';').next().map(<[u8]>::to_vec);
            }
            _ => {}
        }
    }
    Ok(Some(head))
}

fn not_the_answer(bytes: &[u8]) -> io::Error {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    io::Error::new(ErrorKind::InvalidData, format!("not the answer: {}", line.escape_ascii()))
}
