//! [`cases`]: the messages of `corpus.txt`, for tests of the readers, of checks and of the running process.
//!
//! Does not compare: each case has its expected verdict, and the tests compare. Invariant: a line that cannot be read
//! is a panic, never a missing case.

/// One message.
pub struct Case {
    /// A description of the message.
    pub title: &'static str,
    /// A request, or a response to which kind of request.
    pub kind: Kind,
    /// The bytes as the peer sends them.
    pub bytes: Vec<u8>,
    /// The expected verdict of the reader.
    pub verdict: Verdict,
}

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request of a client.
    Request,
    /// The response to a GET in HTTP/1.1.
    Response,
    /// The response to a HEAD in HTTP/1.1.
    ResponseToHead,
    /// The response to a GET in HTTP/1.0.
    ResponseToOld,
    /// The response to a request for a WebSocket.
    ResponseToWebSocket,
}

/// The expected verdict on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// `Refused::word`, and the status that the client gets.
    Refused(&'static str, u16),
    /// How the body is delimited, and how many bytes stand behind it.
    Accepted(&'static str, usize),
    /// How the body is delimited, or `-`; more bytes would be needed.
    Incomplete(&'static str),
}

/// Every case in the order of the file.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in include_str!("corpus.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("== ") {
            Some(head) => cases.push(read_head(head)),
            None => cases.last_mut().expect("a case before its bytes").bytes.extend(unescape(line)),
        }
    }
    cases
}

fn read_head(head: &'static str) -> Case {
    let (words, title) = head.split_once(": ").unwrap_or_else(|| panic!("no title: {head}"));
    let words: Vec<_> = words.split(' ').collect();
    let (kind, verdict) = match words.as_slice() {
        ["request", verdict @ ..] => (Kind::Request, verdict),
        ["response", "head", verdict @ ..] => (Kind::ResponseToHead, verdict),
        ["response", "1.0", verdict @ ..] => (Kind::ResponseToOld, verdict),
        ["response", "websocket", verdict @ ..] => (Kind::ResponseToWebSocket, verdict),
        ["response", verdict @ ..] => (Kind::Response, verdict),
        _ => panic!("not a kind: {head}"),
    };
    let verdict = match verdict {
        ["refused", word, status] => Verdict::Refused(word, status.parse().expect("a status")),
        ["accepted", framing, rest] => Verdict::Accepted(framing, rest.parse().expect("a number of bytes")),
        ["incomplete", framing] => Verdict::Incomplete(framing),
        _ => panic!("not a verdict: {head}"),
    };
    Case { title, kind, bytes: Vec::new(), verdict }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend(&rest.as_bytes()[..at]);
        let escape = rest[at + 1..].chars().next().expect("something behind a backslash");
        rest = &rest[at + 2..];
        match escape {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
            '{' => {
                let (count, repeated) = rest.split_once(':').expect("a colon behind a count");
                let (repeated, after) = split_at_brace(repeated);
                bytes.extend(unescape(repeated).repeat(count.parse().expect("a count")));
                rest = after;
            }
            other => panic!("not an escape: {other:?} in {text}"),
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

/// Splits at the closing brace, past nested pairs.
fn split_at_brace(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'}' if depth == 0 => return (&text[..at], &text[at + 1..]),
            b'}' => depth -= 1,
            b'{' => depth += 1,
            _ => {}
        }
    }
    panic!("a brace that does not close: {text}");
}
