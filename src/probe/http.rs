//! The HTTP check: one GET, and the status of its final response.
//!
//! [`ResponseReader`], the reader of the data path, judges the response: a head for which a client would get a 502
//! fails the check, and the complaint has the reader's word. Interim responses (1xx) are passed over, as many as there.
//! Does not read the body, does not judge the status, and keeps no time: the caller has one timeout for the whole
//! check.
//!
//! Invariant: the buffer holds at most one head of [`HEAD_MAX`](crate::http::head::HEAD_MAX) bytes and one read behind
//! it, because the reader never needs more bytes than that.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CheckFailure, CheckStream};
use crate::http::head::ResponseReader;
use crate::http::upgrade::RequestMeta;
use crate::http::{Method, Progress, Refused, Version};

/// The request of a check, as far as the response depends on it.
const REQUEST: RequestMeta =
    RequestMeta { method: Method::Get, version: Version::Http11, persists: false, upgrade: None };

/// Sends the request and returns the status of the final response.
pub(super) async fn get(stream: &mut dyn CheckStream, path: &str, host: &str) -> Result<u16, CheckFailure> {
    let failed = |error: io::Error| CheckFailure::from_io("request", error);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sessile\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    read_status(stream).await
}

async fn read_status(stream: &mut dyn CheckStream) -> Result<u16, CheckFailure> {
    let mut reader = Box::new(ResponseReader::new());
    // `head`: where the head that is being read begins. Interim heads before it go with the next read, all at once.
    let (mut bytes, mut head) = (Vec::with_capacity(1024), 0);
    loop {
        match reader.read(&bytes[head..], REQUEST) {
            Progress::More => {
                bytes.drain(..head);
                head = 0;
                let read = stream.read_buf(&mut bytes).await;
                if read.map_err(|error| CheckFailure::from_io("response", error))? == 0 {
                    return Err(CheckFailure::Backend("response: closed before its head was complete".to_owned()));
                }
            }
            Progress::Done(length) => {
                let response = reader.response(&bytes[head..]);
                if !response.is_interim() {
                    return Ok(response.status);
                }
                head += length;
                reader.pass_interim().map_err(complain)?;
            }
            Progress::No(refused) => return Err(complain(refused)),
        }
    }
}

fn complain(refused: Refused) -> CheckFailure {
    CheckFailure::Backend(format!("response refused: {}: {}", refused.word(), refused.meaning()))
}

#[cfg(test)]
mod tests;
