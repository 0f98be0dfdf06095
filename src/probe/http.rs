//! The HTTP check: one request, the status of its final response, and what its body contains.
//!
//! [`ResponseReader`] and [`Body`], the readers of the data path, judge the response: a head for which a client would get
//! a 502 fails the check, and the complaint has the reader's word. Interim responses (1xx) are passed over, as many as
//! there. Reads a body only to find `expect` in it, without the frames of its chunks and in the coding in which it comes.
//! Keeps no time: the caller has one timeout for the whole check.
//!
//! Invariant: the buffer holds at most one head of [`HEAD_MAX`](crate::http::head::HEAD_MAX) bytes and one read behind
//! it, because the reader never needs more bytes than that, and [`BODY_MAX`] bytes of a body and one read.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dialogue::{Search, unlike};
use super::{CheckFailure, CheckStream};
use crate::config::HttpCheck;
use crate::http::body::Body;
use crate::http::head::ResponseReader;
use crate::http::upgrade::RequestMeta;
use crate::http::{Framing, Method, Progress, Refused, Version};

/// Bytes of a body in which `expect` is looked for.
const BODY_MAX: usize = 64 << 10;

/// Sends the request, and fails unless status and body are as the check wants them.
pub(super) async fn ask(stream: &mut dyn CheckStream, check: &HttpCheck, host: &str) -> Result<(), CheckFailure> {
    let failed = |error: io::Error| CheckFailure::from_io("request", error);
    stream.write_all(request(check, host).as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut bytes = Vec::with_capacity(1024);
    let (status, framing) = read_head(stream, &mut bytes, meta_of(check)).await?;
    let HttpCheck { status_min, status_max, expect, .. } = check;
    if !(*status_min..=*status_max).contains(&status) {
        return Err(CheckFailure::Backend(format!("status {status}, expected {status_min}-{status_max}")));
    }
    if expect.is_empty() { Ok(()) } else { find(stream, bytes, framing, expect).await }
}

fn request(check: &HttpCheck, host: &str) -> String {
    let HttpCheck { method, path, headers, .. } = check;
    let names_itself = headers.iter().any(|line| line.to_ascii_lowercase().starts_with("user-agent:"));
    let agent = if names_itself { "" } else { "User-Agent: sessile\r\n" };
    let length = if *method == "POST" { "Content-Length: 0\r\n" } else { "" };
    let further: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{agent}{further}{length}Connection: close\r\n\r\n")
}

/// The request, as far as the response depends on it.
fn meta_of(check: &HttpCheck) -> RequestMeta {
    let method = if check.method == "HEAD" { Method::Head } else { Method::Get };
    RequestMeta { method, version: Version::Http11, persists: false, upgrade: None }
}

/// Reads until the head of the final response is complete, and leaves what has come behind it.
async fn read_head(
    stream: &mut dyn CheckStream,
    bytes: &mut Vec<u8>,
    asked: RequestMeta,
) -> Result<(u16, Framing), CheckFailure> {
    let mut reader = Box::new(ResponseReader::new());
    // `head`: where the head that is being read begins. Interim heads before it go with the next read, all at once.
    let mut head = 0;
    loop {
        match reader.read(&bytes[head..], asked) {
            Progress::More => {
                bytes.drain(..head);
                head = 0;
                if read(stream, bytes).await? == 0 {
                    return Err(CheckFailure::Backend("response: closed before its head was complete".to_owned()));
                }
            }
            Progress::Done(length) => {
                let response = reader.response(&bytes[head..]);
                if !response.is_interim() {
                    let found = (response.status, response.framing);
                    bytes.drain(..head + length);
                    return Ok(found);
                }
                head += length;
                reader.pass_interim().map_err(complain)?;
            }
            Progress::No(refused) => return Err(complain(refused)),
        }
    }
}

/// Reads the body until it contains what is expected. `bytes` are those of the body that came with the head.
async fn find(
    stream: &mut dyn CheckStream,
    mut bytes: Vec<u8>,
    framing: Framing,
    expect: &[u8],
) -> Result<(), CheckFailure> {
    let (mut body, mut content, mut search) = (Body::new(framing), Vec::new(), Search::new(expect));
    loop {
        decode(&mut body, framing, &bytes, &mut content).map_err(complain)?;
        if search.finds(&content) {
            return Ok(());
        }
        bytes.clear();
        if body.complete() || content.len() >= BODY_MAX || read(stream, &mut bytes).await? == 0 {
            return Err(CheckFailure::Backend(format!("body: {}", unlike(&content, expect))));
        }
    }
}

/// Appends what the bytes hold of the content: all but the frames of chunks and trailers.
fn decode(body: &mut Body, framing: Framing, bytes: &[u8], content: &mut Vec<u8>) -> Result<(), Refused> {
    if framing == Framing::UntilClose {
        content.extend_from_slice(bytes);
        return Ok(());
    }
    let mut rest = bytes;
    while let Some(first) = rest.get(..1).filter(|_| !body.complete()) {
        let opaque = usize::try_from(body.opaque()).unwrap_or(usize::MAX).min(rest.len());
        if opaque > 0 {
            content.extend_from_slice(&rest[..opaque]);
            body.pass_by(opaque);
        } else {
            body.scan(first)?;
        }
        rest = &rest[opaque.max(1)..];
    }
    Ok(())
}

async fn read(stream: &mut dyn CheckStream, bytes: &mut Vec<u8>) -> Result<usize, CheckFailure> {
    stream.read_buf(bytes).await.map_err(|error| CheckFailure::from_io("response", error))
}

fn complain(refused: Refused) -> CheckFailure {
    CheckFailure::Backend(format!("response refused: {}: {}", refused.word(), refused.meaning()))
}

#[cfg(test)]
mod tests;
