//! [`ResponseTranslator`]: what the bytes of an HTTP/1.1 response are in HTTP/2.
//!
//! Reads with the readers of `http`, which have judged the bytes once: they come from this process, which has written
//! them for a client of HTTP/1.1. Copies no byte of a body, and holds none but those of trailers. Fields of one
//! connection are left out (RFC 9113 §8.2.2), and a switch to a WebSocket is a 200 (RFC 8441 §5).
//!
//! Invariant: the pieces are the same however the bytes were cut, but for the cuts between data; a piece that ends the
//! stream comes once, and only where the response is whole.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::http::body::Body;
use crate::http::field::{FieldRef, KnownField};
use crate::http::head::{self, ResponseReader};
use crate::http::upgrade::{RequestMeta, Upgrade};
use crate::http::{Framing, Method, Progress, Refused, Version};

/// What follows the data of the last chunk where there are no trailers.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// A part of a response, as a stream sends it.
#[derive(Debug)]
pub enum Piece<'b> {
    /// An interim response (1xx).
    Interim(Response<()>),
    /// The final head.
    Head {
        /// Status and fields.
        response: Response<()>,
        /// The stream ends with it.
        ends: bool,
    },
    /// Bytes of the body, at least one.
    Data {
        /// The bytes, without any framing.
        bytes: &'b [u8],
        /// The stream ends with them.
        ends: bool,
    },
    /// Trailers, which end the stream.
    Trailers(HeaderMap),
    /// The end of the stream, behind data that did not end it.
    End,
}

/// Why the bytes of a response cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadResponse(pub Refused);

impl From<Refused> for BadResponse {
    fn from(refused: Refused) -> Self {
        Self(refused)
    }
}

/// Reads the response to one request.
#[derive(Debug)]
pub struct ResponseTranslator {
    state: State,
    asked: RequestMeta,
}

#[derive(Debug)]
enum State {
    /// `None`: no byte has come since the request.
    Head(Option<Box<ResponseReader>>),
    Body {
        body: Body,
        /// The trailer section as far as it has come.
        trailers: Vec<u8>,
    },
    /// Bytes of another protocol, until the connection ends.
    Tunnel,
    Complete,
}

impl ResponseTranslator {
    /// A translator for the response to a HEAD, to an extended CONNECT, or to any other request.
    pub fn new(is_head_request: bool, is_tunnel: bool) -> Self {
        let asked = RequestMeta {
            method: if is_head_request { Method::Head } else { Method::Get },
            version: Version::Http11,
            persists: true,
            upgrade: is_tunnel.then_some(Upgrade::WebSocket),
        };
        Self { state: State::Head(None), asked }
    }

    /// A translator for the body of a message, of a request as well, with its head behind it.
    pub fn of_body(framing: Framing) -> Self {
        let state = match framing.is_empty() {
            true => State::Complete,
            false => State::Body { body: Body::new(framing), trailers: Vec::new() },
        };
        Self { state, ..Self::new(false, false) }
    }

    /// A translator for bytes of another protocol.
    pub fn tunnel() -> Self {
        Self { state: State::Tunnel, ..Self::new(false, false) }
    }

    /// Returns the next piece of the bytes, and how many of them it takes; `most` is the longest data. Without a piece,
    /// these bytes were framing. A head takes nothing until it is whole: the next call gets its bytes again, with more.
    /// Once the response is complete, nothing is taken.
    pub fn next<'b>(&mut self, bytes: &'b [u8], most: usize) -> Result<(usize, Option<Piece<'b>>), BadResponse> {
        match &mut self.state {
            State::Head(_) => self.head(bytes),
            State::Body { .. } => self.body(bytes, most),
            State::Tunnel => Ok(data(&bytes[..bytes.len().min(most)], 0, false)),
            State::Complete => Ok((0, None)),
        }
    }

    /// The connection has ended. Returns the end of a response that this delimits; `None`: the response was complete
    /// before, or is cut.
    pub fn end(&mut self) -> Option<Piece<'static>> {
        let delimits = match &self.state {
            State::Tunnel => true,
            State::Body { body, .. } => body.may_end_here(),
            State::Head(_) | State::Complete => false,
        };
        delimits.then(|| {
            self.state = State::Complete;
            Piece::End
        })
    }

    /// True once the piece that ends the stream was returned.
    #[cfg(test)]
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    fn head(&mut self, bytes: &[u8]) -> Result<(usize, Option<Piece<'static>>), BadResponse> {
        let State::Head(reader) = &mut self.state else { return Ok((0, None)) };
        let reader = reader.get_or_insert_with(Box::default);
        let length = match reader.read(bytes, self.asked) {
            Progress::Done(length) => length,
            Progress::More => return Ok((0, None)),
            Progress::No(refused) => return Err(refused.into()),
        };
        let head = reader.response(bytes);
        let mut response = translate(&head)?;
        if head.is_interim() {
            reader.pass_interim()?;
            return Ok((length, Some(Piece::Interim(response))));
        }
        let (ends, next) = if head.switches() {
            *response.status_mut() = StatusCode::OK;
            (false, State::Tunnel)
        } else if head.framing.is_empty() {
            (true, State::Complete)
        } else {
            (false, State::Body { body: Body::new(head.framing), trailers: Vec::new() })
        };
        self.state = next;
        Ok((length, Some(Piece::Head { response, ends })))
    }

    fn body<'b>(&mut self, bytes: &'b [u8], most: usize) -> Result<(usize, Option<Piece<'b>>), BadResponse> {
        let State::Body { body, trailers } = &mut self.state else { return Ok((0, None)) };
        if body.may_end_here() {
            return Ok(data(&bytes[..bytes.len().min(most)], 0, false));
        }
        let mut at = 0;
        while at < bytes.len() {
            let opaque = usize::try_from(body.opaque()).unwrap_or(usize::MAX);
            if opaque > 0 {
                let piece = &bytes[at..][..opaque.min(most).min(bytes.len() - at)];
                body.pass_by(piece.len());
                at += piece.len();
                // The client learns of the end with the last data, and not from a frame of its own.
                if !body.complete() && body.opaque() == 0 && bytes[at..].starts_with(LAST_CHUNK) {
                    at += body.scan(LAST_CHUNK)?.length;
                }
                let ends = body.complete();
                if ends {
                    self.state = State::Complete;
                }
                return Ok(data(piece, at - piece.len(), ends));
            }
            if body.is_in_trailers() {
                trailers.push(bytes[at]);
            }
            body.scan(&bytes[at..=at])?;
            at += 1;
            if body.complete() {
                let fields = read_trailers(trailers)?;
                self.state = State::Complete;
                let piece = if fields.is_empty() { Piece::End } else { Piece::Trailers(fields) };
                return Ok((at, Some(piece)));
            }
        }
        Ok((at, None))
    }
}

/// Data behind or before bytes of framing; no piece if there is no data.
fn data(bytes: &[u8], framing: usize, ends: bool) -> (usize, Option<Piece<'_>>) {
    (framing + bytes.len(), (!bytes.is_empty()).then_some(Piece::Data { bytes, ends }))
}

/// The head without what concerns the connection.
fn translate(head: &head::Response<'_>) -> Result<Response<()>, BadResponse> {
    let mut response = Response::new(());
    *response.version_mut() = http::Version::HTTP_2;
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| Refused::BadStatusLine)?;
    for field in head.fields.iter().filter(|field| passes(head, field)) {
        response.headers_mut().append(name(field.name)?, value(field.value)?);
    }
    Ok(response)
}

/// True if a field of a response is passed on.
fn passes(head: &head::Response<'_>, field: &FieldRef<'_>) -> bool {
    let is_named = |field: &FieldRef<'_>| {
        field.known == KnownField::Other
            && head.fields.tokens(KnownField::Connection).any(|option| option.eq_ignore_ascii_case(field.name))
    };
    match field.known {
        KnownField::TransferEncoding => false,
        KnownField::ContentLength => !head.switches(),
        known if known.is_hop_by_hop() => false,
        _ if head.switches() && field.name.eq_ignore_ascii_case(b"sec-websocket-accept") => false,
        _ => !is_named(field),
    }
}

/// The fields of a trailer section that the reader of the body has accepted.
fn read_trailers(section: &[u8]) -> Result<HeaderMap, BadResponse> {
    let mut trailers = HeaderMap::new();
    for line in section.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line).ok_or(Refused::BadTrailer)?;
        trailers.append(name(&line[..colon])?, value(line[colon + 1..].trim_ascii())?);
    }
    Ok(trailers)
}

fn name(bytes: &[u8]) -> Result<HeaderName, Refused> {
    HeaderName::from_bytes(bytes).map_err(|_| Refused::BadFieldName)
}

fn value(bytes: &[u8]) -> Result<HeaderValue, Refused> {
    HeaderValue::from_bytes(bytes).map_err(|_| Refused::BadFieldValue)
}

#[cfg(test)]
mod tests;
