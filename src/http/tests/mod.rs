//! Heads, bodies and cookies: the corpus, properties, and what is written.
//!
//! Opens no connection. Invariant: every message goes through the readers as it would arrive, in pieces.

mod answer;
mod body;
mod connection;
mod cookie;
mod corpus;
mod edit;
mod head;
mod http2_head;
mod http2_response;
mod work;

use super::body::Body;
use super::head::{RequestReader, ResponseReader};
use super::upgrade::RequestMeta;
use super::upgrade::Upgrade;
use super::{Framing, Method, Progress, Refused, Version};

/// What a GET in HTTP/1.1 leaves to its response.
const ASKED: RequestMeta = RequestMeta { method: Method::Get, version: Version::Http11, persists: true, upgrade: None };
const ASKED_HEAD: RequestMeta = RequestMeta { method: Method::Head, ..ASKED };
const ASKED_OLD: RequestMeta = RequestMeta { version: Version::Http10, persists: false, ..ASKED };
const ASKED_WEB_SOCKET: RequestMeta = RequestMeta { upgrade: Some(Upgrade::WebSocket), ..ASKED };

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused(Refused),
    /// Where it ends.
    Whole(Framing, usize),
    /// In its head, or in its body.
    Partial(Option<Framing>),
}

/// A message that arrives in pieces which end where `stops` say, and at its end; `None` = a request.
fn arrive(bytes: &[u8], stops: impl IntoIterator<Item = usize>, asked: Option<RequestMeta>) -> Outcome {
    let (mut request, mut response) = (RequestReader::new(), ResponseReader::new());
    let mut body: Option<(Framing, Body, usize)> = None;
    // Where the head that is being read begins: behind interim responses.
    let mut head = 0;
    for stop in stops.into_iter().chain([bytes.len()]) {
        let (framing, scanner, seen) = match &mut body {
            Some(body) => body,
            None => {
                let progress = match asked {
                    Some(asked) => read_final(&mut response, bytes, &mut head, stop, asked),
                    None => request.read(&bytes[..stop]),
                };
                let length = match progress {
                    Progress::Done(length) => length,
                    Progress::More => continue,
                    Progress::No(refused) => return Outcome::Refused(refused),
                };
                let framing = match asked {
                    Some(_) => response.response(&bytes[head..]).framing,
                    None => request.request(bytes).framing,
                };
                body.insert((framing, Body::new(framing), head + length))
            }
        };
        match scanner.scan(&bytes[*seen..stop.max(*seen)]) {
            Ok(scanned) => *seen += scanned.length,
            Err(refused) => return Outcome::Refused(refused),
        }
        if scanner.complete() {
            return Outcome::Whole(*framing, *seen);
        }
    }
    match body {
        Some((framing, scanner, seen)) if scanner.may_end_here() => Outcome::Whole(framing, seen),
        Some((framing, ..)) => Outcome::Partial(Some(framing)),
        None => Outcome::Partial(None),
    }
}

/// Reads on to the head of the final response, as far as the bytes have come; `head` is where it begins.
fn read_final(
    reader: &mut ResponseReader,
    bytes: &[u8],
    head: &mut usize,
    stop: usize,
    asked: RequestMeta,
) -> Progress<usize, Refused> {
    loop {
        let progress = reader.read(&bytes[*head..stop], asked);
        let Progress::Done(length) = progress else { return progress };
        if !reader.response(&bytes[*head..]).is_interim() {
            return progress;
        }
        *head += length;
        if let Err(refused) = reader.pass_interim() {
            return Progress::No(refused);
        }
    }
}

/// A request's reader, after a head that is whole and good.
fn read_request(bytes: &[u8]) -> RequestReader {
    let mut reader = RequestReader::new();
    let progress = reader.read(bytes);
    assert!(matches!(progress, Progress::Done(_)), "{progress:?}: {}", bytes.escape_ascii());
    reader
}

/// A response's reader, after a head that is whole and good.
fn read_response(bytes: &[u8], asked: RequestMeta) -> ResponseReader {
    let mut reader = ResponseReader::new();
    let progress = reader.read(bytes, asked);
    assert!(matches!(progress, Progress::Done(_)), "{progress:?}: {}", bytes.escape_ascii());
    reader
}

#[test]
fn refusals_have_distinct_words_and_whole_sentences() {
    let words: std::collections::HashSet<_> = Refused::ALL.iter().map(|refused| refused.word()).collect();
    assert_eq!(words.len(), Refused::ALL.len());
    assert!(Refused::ALL.iter().all(|refused| refused.meaning().ends_with('.')));
}
