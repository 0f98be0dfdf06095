//! The gRPC check: one call of the standard health service, over HTTP/2.
//!
//! Calls `grpc.health.v1.Health/Check` (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>) as
//! "gRPC over HTTP2" has it (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>); frames, HPACK and
//! windows are those of the crate `h2`, messages those of [`message`]. Opens no connection, and keeps no time: the
//! caller has one timeout for the whole check, which the server is told.
//!
//! Invariants: a check passes only if the call ends with grpc-status 0 and the service is SERVING; a reply takes no
//! more memory than a header list of [`HEADER_LIST_MAX`] bytes and one message of [`MESSAGE_MAX`].

mod message;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Method, Request, StatusCode, Version};

use self::message::{MESSAGE_MAX, PREFIX, ServingStatus};
use super::{CheckFailure, CheckStream};

/// Longest list of header fields of a reply, as RFC 9113 §6.5.2 counts it.
const HEADER_LIST_MAX: u32 = 16 * 1024;

/// The method, as a path.
const PATH: &str = "/grpc.health.v1.Health/Check";

/// What a check asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct HealthCall<'a> {
    /// `:authority` of the request.
    pub(super) authority: &'a str,
    /// True on a connection with TLS.
    pub(super) secure: bool,
    /// The service; empty: the server as a whole.
    pub(super) service: &'a str,
    /// Time limit of the check.
    pub(super) timeout: Duration,
}

impl HealthCall<'_> {
    fn request(&self) -> Result<Request<()>, CheckFailure> {
        let scheme = if self.secure { "https" } else { "http" };
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("{scheme}://{}{PATH}", self.authority))
            .header("te", "trailers")
            .header("grpc-timeout", format!("{}m", self.timeout.as_millis()))
            .header("content-type", "application/grpc")
            .header("user-agent", "sessile");
        let complain = |_| CheckFailure::Backend(format!("request: {} cannot be sent as a host", self.authority));
        request.body(()).map_err(complain)
    }
}

/// Why a call has failed.
enum CallFailure {
    /// HTTP/2 failed.
    Http2(h2::Error),
    /// The reply is not a good one; the complaint.
    Reply(String),
}

impl From<h2::Error> for CallFailure {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

/// Makes the call. `Ok`: the service is up.
pub(super) async fn call(stream: Box<dyn CheckStream>, health: HealthCall<'_>) -> Result<(), CheckFailure> {
    let request = health.request()?;
    let handshake = Builder::new().enable_push(false).max_header_list_size(HEADER_LIST_MAX).handshake(stream);
    let (sender, connection) = handshake.await.map_err(http2_failure)?;
    let mut connection = pin!(connection);
    let mut ended = None;
    let result = {
        let mut judged = pin!(judge(sender, request, message::request(health.service).into()));
        // A reply that came whole counts, also where the backend has ended the connection behind it.
        poll_fn(|cx| {
            if ended.is_none()
                && let Poll::Ready(end) = connection.as_mut().poll(cx)
            {
                ended = Some(end);
            }
            judged.as_mut().poll(cx)
        })
        .await
    };
    if ended.is_none() {
        // Says goodbye, if the socket takes it at once.
        let _ = connection.as_mut().now_or_never();
    }
    result.map_err(|failure| match (failure, ended) {
        (CallFailure::Reply(complaint), _) => CheckFailure::Backend(complaint),
        // The error of the connection says more than that of its stream.
        (CallFailure::Http2(_), Some(Err(error))) | (CallFailure::Http2(error), _) => http2_failure(error),
    })
}

/// Sends the request and judges the reply.
async fn judge(sender: SendRequest<Bytes>, request: Request<()>, message: Bytes) -> Result<(), CallFailure> {
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(message, true)?;
    let (head, body) = response.await?.into_parts();
    judge_head(head.status, &head.headers).map_err(CallFailure::Reply)?;
    // A reply of trailers alone has its status in the head.
    let is_over = head.headers.contains_key("grpc-status");
    let (bytes, trailers) = read_body(body).await?;
    let trailers = if is_over { head.headers } else { trailers };
    judge_trailers(&trailers).map_err(CallFailure::Reply)?;
    match message::read_reply(&bytes) {
        Ok(ServingStatus::SERVING) => Ok(()),
        Ok(status) => Err(CallFailure::Reply(format!("status {status}, expected SERVING"))),
        Err(what) => Err(CallFailure::Reply(format!("the response {what}"))),
    }
}

/// Reads a body and its trailers.
async fn read_body(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), CallFailure> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        if bytes.len() + piece.len() > PREFIX + MESSAGE_MAX {
            return Err(CallFailure::Reply(format!("the response has a message of more than {MESSAGE_MAX} bytes")));
        }
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    Ok((bytes, body.trailers().await?.unwrap_or_default()))
}

/// Judges what every gRPC response has. `Err`: the complaint.
fn judge_head(status: StatusCode, fields: &HeaderMap) -> Result<(), String> {
    const TYPE: &str = "application/grpc";
    if status != StatusCode::OK {
        return Err(format!("HTTP status {}, expected 200", status.as_u16()));
    }
    let Some(written) = fields.get("content-type") else {
        return Err(format!("no content-type, expected {TYPE}"));
    };
    let written = String::from_utf8_lossy(written.as_bytes());
    // As in `application/grpc+proto`.
    let is_good = written.split_at_checked(TYPE.len()).is_some_and(|(begin, rest)| {
        begin.eq_ignore_ascii_case(TYPE) && (rest.is_empty() || rest.starts_with(['+', ';', ' ']))
    });
    if is_good { Ok(()) } else { Err(format!("content-type {written}, expected {TYPE}")) }
}

/// Judges how the call has ended. `Err`: the complaint.
fn judge_trailers(fields: &HeaderMap) -> Result<(), String> {
    let status = fields.get("grpc-status").map(|status| String::from_utf8_lossy(status.as_bytes()));
    match status.as_deref() {
        Some("0") => Ok(()),
        None => Err("the response has no grpc-status".to_owned()),
        Some(status) => {
            let mut complaint = format!("grpc-status {status}");
            if let Some(name) = status.parse().ok().and_then(|code: usize| CODES.get(code)) {
                complaint += &format!(" ({name})");
            }
            if let Some(text) = fields.get("grpc-message").filter(|text| !text.is_empty()) {
                complaint += &format!(": {}", percent_decoded(text.as_bytes()));
            }
            Err(complaint)
        }
    }
}

/// Names of status codes (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A message as gRPC writes it in a field, `%` and two digits for bytes that are not printable ASCII. What cannot be
/// decoded stays, as the protocol asks.
fn percent_decoded(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                bytes.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn http2_failure(error: h2::Error) -> CheckFailure {
    if let Some(reason) = error.reason() {
        let what = match (error.is_remote(), error.is_go_away()) {
            (true, true) => "the backend has ended the connection",
            (true, false) => "the backend has reset the stream",
            (false, _) => "the backend breaks the protocol",
        };
        return CheckFailure::Backend(format!("HTTP/2: {what}: {}", reason.description()));
    }
    let text = error.to_string();
    match error.into_io() {
        Some(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) => {
            CheckFailure::Backend("response: closed before it was complete".to_owned())
        }
        Some(error) => CheckFailure::from_io("response", error),
        None => CheckFailure::Backend(format!("HTTP/2: {text}")),
    }
}

#[cfg(test)]
mod tests;
