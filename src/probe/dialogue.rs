//! [`Dialogue`]: what a check sends and what the backend answers, up to [`ANSWER_MAX`] bytes.
//!
//! Knows no protocol and keeps no time: the caller has one timeout for the whole check. Invariants: no more than
//! [`ANSWER_MAX`] bytes are held, and what a backend has sent is quoted in printable ASCII, at most [`QUOTED_MAX`] bytes
//! of it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CheckFailure, CheckStream};
use crate::remote_text;

/// Most bytes of an answer that are read.
pub(super) const ANSWER_MAX: usize = 16 << 10;
/// Most bytes of an answer, and of what was expected, that a complaint shows.
const QUOTED_MAX: usize = 100;

/// One check's side of a conversation with a backend.
pub(super) struct Dialogue<'s> {
    stream: &'s mut dyn CheckStream,
    /// Bytes that were received and that no reader has taken yet. They outlive a check that its timeout has ended.
    heard: &'s mut Vec<u8>,
}

impl<'s> Dialogue<'s> {
    pub(super) fn new(stream: &'s mut dyn CheckStream, heard: &'s mut Vec<u8>) -> Self {
        Self { stream, heard }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), CheckFailure> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| CheckFailure::from_io("request", error))
    }

    /// Bytes that were received and not taken.
    pub(super) fn heard(&self) -> &[u8] {
        self.heard
    }

    /// Receives more bytes. False: there are no more, because the backend has closed or because [`ANSWER_MAX`] are held.
    pub(super) async fn hear(&mut self) -> Result<bool, CheckFailure> {
        let room = ANSWER_MAX.saturating_sub(self.heard.len()) as u64;
        let read = (&mut *self.stream).take(room).read_buf(self.heard).await;
        Ok(read.map_err(|error| CheckFailure::from_io("answer", error))? > 0)
    }

    /// Receives until there are so many bytes that no reader has taken.
    pub(super) async fn at_least(&mut self, count: usize) -> Result<(), CheckFailure> {
        while self.heard.len() < count {
            self.need().await?;
        }
        Ok(())
    }

    /// Takes the next bytes.
    pub(super) async fn take(&mut self, count: usize) -> Result<Vec<u8>, CheckFailure> {
        self.at_least(count).await?;
        Ok(self.heard.drain(..count).collect())
    }

    /// Takes the next line, without its end.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, CheckFailure> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                return Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
            }
            self.need().await?;
        }
    }

    /// Takes the next line, which the end of the connection may end.
    pub(super) async fn last_line(mut self) -> Result<Vec<u8>, CheckFailure> {
        while !self.heard.contains(&b'\n') && self.hear().await? {}
        let line = self.heard.split(|byte| *byte == b'\n').next().unwrap_or_default();
        Ok(line.trim_ascii().to_vec())
    }

    /// Receives more bytes, which have to come.
    async fn need(&mut self) -> Result<(), CheckFailure> {
        if self.hear().await? {
            return Ok(());
        }
        let what = if self.heard.len() < ANSWER_MAX { "closed the connection" } else { "the answer is too long" };
        Err(CheckFailure::Backend(format!("{what}: {}", answered(self.heard))))
    }

    /// Sends last words and ends the stream. The check is decided: a failure here changes nothing.
    pub(super) async fn end(mut self, last_words: &[u8]) {
        if self.send(last_words).await.is_ok() {
            self.stream.shutdown().await.ok();
        }
    }
}

/// Sends bytes, if there are any, and receives until the answer contains others.
pub(super) async fn talk(mut dialogue: Dialogue<'_>, send: &[u8], expect: &[u8]) -> Result<(), CheckFailure> {
    if !send.is_empty() {
        dialogue.send(send).await?;
    }
    let mut search = Search::new(expect);
    loop {
        if search.finds(dialogue.heard()) {
            dialogue.end(b"").await;
            return Ok(());
        }
        if !dialogue.hear().await? {
            return Err(CheckFailure::Backend(unlike(dialogue.heard(), expect)));
        }
    }
}

/// Looks for bytes in others that grow.
pub(super) struct Search<'e> {
    part: &'e [u8],
    /// Where the next match could begin.
    from: usize,
}

impl<'e> Search<'e> {
    pub(super) fn new(part: &'e [u8]) -> Self {
        Self { part, from: 0 }
    }

    /// True if the bytes contain what is looked for. They are those of the last call, and more.
    pub(super) fn finds(&mut self, bytes: &[u8]) -> bool {
        let length = self.part.len().max(1);
        let found = bytes[self.from..].windows(length).any(|window| window == self.part);
        self.from = (bytes.len() + 1).saturating_sub(length);
        found
    }
}

/// The complaint about a check that has not ended in time; `heard` is what the backend has sent, `expect` what a good
/// answer contains, if the check knows.
pub(super) fn late(after: Duration, heard: &[u8], expect: Option<&[u8]>) -> String {
    let timeout = format!("timeout after {after:?}");
    match expect {
        Some(expect) => format!("{timeout}: {}", unlike(heard, expect)),
        None if heard.is_empty() => timeout,
        None => format!("{timeout}: {}", answered(heard)),
    }
}

/// Says what a backend has answered instead of what was expected.
pub(super) fn unlike(heard: &[u8], expect: &[u8]) -> String {
    format!("{}, expected \"{}\"", answered(heard), remote_text::shown_bytes(expect, QUOTED_MAX))
}

/// Says what a backend has answered.
pub(super) fn answered(heard: &[u8]) -> String {
    let heard = heard.trim_ascii_end();
    match heard.len() {
        0 => "no answer".to_owned(),
        length => {
            let more = if length > QUOTED_MAX { "…" } else { "" };
            format!("answered \"{}{more}\"", remote_text::shown_bytes(heard, QUOTED_MAX))
        }
    }
}
