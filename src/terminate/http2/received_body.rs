//! [`ReceivedBody`]: the body of a stream, of a request or a response, as HTTP/1 has it: as it is, or in chunks, with its
//! trailers.
//!
//! Judges no byte and no trailer: the reader of bodies does. Invariants: the windows are opened again for exactly those
//! bytes that were read from here; what waits for its reader in small frames is joined, by [`ReceivedBody::read_ahead`].

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;

use super::wire::WireNotes;
use crate::http::http2_head::{StreamBody, write_field};

/// The end of the data of a stream: in order, or by an error.
type DataEnd = Result<(), h2::Error>;

/// The body of a stream, in the framing of HTTP/1.
pub struct ReceivedBody {
    stream: RecvStream,
    framing: StreamBody,
    /// Bytes of framing that stand before those of `data`.
    before: Vec<u8>,
    before_read: usize,
    /// Bytes that came, and whether they are a chunk, which ends with a line end.
    data: Bytes,
    is_chunk: bool,
    ended: bool,
    /// Bytes that came behind `data`, out of frames of any size.
    ahead: Vec<u8>,
    /// What came behind `ahead`.
    behind: Option<DataEnd>,
    /// Where to learn that the peer has acknowledged our settings; `None`: nothing waits for that.
    notes: Option<Rc<WireNotes>>,
}

impl ReceivedBody {
    /// The body of a stream behind its head.
    pub fn new(stream: RecvStream, framing: StreamBody) -> Self {
        let ended = framing == StreamBody::None;
        Self {
            stream,
            framing,
            before: Vec::new(),
            before_read: 0,
            data: Bytes::new(),
            is_chunk: false,
            ended,
            ahead: Vec::new(),
            behind: None,
            notes: None,
        }
    }

    /// The body of a stream that may have begun before its client knew our settings.
    pub fn before_settings(self, notes: Rc<WireNotes>) -> Self {
        Self { notes: (!self.ended).then_some(notes), ..self }
    }

    /// True if the stream has ended behind what was read.
    pub fn has_ended(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    /// Reads bytes of the body; `None`: it is complete.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Option<usize>, h2::Error>> {
        let mut read = 0;
        loop {
            read += self.take(&mut into[read..]);
            if read == into.len() || self.ended && read > 0 {
                return Poll::Ready(Ok(Some(read)));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match self.poll_more(cx) {
                Poll::Ready(more) => more?,
                Poll::Pending if read > 0 => return Poll::Ready(Ok(Some(read))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes all data that have come out of their frames. h2 keeps a record of each frame that is not read, many times as
    /// large as a small frame, and takes too many of them for a flood, which a body of small messages would be whenever
    /// its reader pauses.
    pub fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.behind.is_none() && !self.ended {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => self.ahead.extend_from_slice(&data),
                Poll::Ready(Some(Err(error))) => self.behind = Some(Err(error)),
                Poll::Ready(None) => self.behind = Some(Ok(())),
                Poll::Pending => return,
            }
        }
    }

    /// The next data; `None`: trailers or the end follow.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead).into())));
        }
        match &self.behind {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(_)) => Poll::Ready(self.behind.take().and_then(Result::err).map(Err)),
            None => self.stream.poll_data(cx),
        }
    }

    /// Moves bytes that have come, and opens the windows for as many of the peer's.
    fn take(&mut self, into: &mut [u8]) -> usize {
        let framing = (self.before.len() - self.before_read).min(into.len());
        into[..framing].copy_from_slice(&self.before[self.before_read..][..framing]);
        self.before_read += framing;
        let into = &mut into[framing..];
        let count = self.data.len().min(into.len());
        into[..count].copy_from_slice(&self.data.split_to(count));
        if count > 0 {
            // It fails only for a stream that has ended.
            let _ = self.stream.flow_control().release_capacity(count);
        }
        framing + count
    }

    /// Gets the next piece of the body.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let is_chunked = self.framing == StreamBody::Chunked;
        self.before.clear();
        self.before_read = 0;
        if std::mem::take(&mut self.is_chunk) {
            self.before.extend_from_slice(b"\r\n");
        }
        match self.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                self.is_chunk = is_chunked && !data.is_empty();
                if self.is_chunk {
                    self.before.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                }
                self.data = data;
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) if is_chunked => match self.stream.poll_trailers(cx) {
                Poll::Ready(Ok(trailers)) => {
                    self.before.extend_from_slice(&write_end(trailers.as_ref()));
                    self.ended = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.pending(),
            },
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {
                self.look_at_window(cx);
                return self.pending();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Opens the window again that our settings have narrowed. They come into force when the client acknowledges them, and
    /// take as much from the windows of streams that are there (RFC 9113 §6.9.2): what was read by then, and was too
    /// little for an update, may be all that is left. h2 looks at that only when more is read, and the client may have
    /// none to send.
    fn look_at_window(&mut self, cx: &mut Context<'_>) {
        if self.notes.as_ref().is_some_and(|notes| notes.poll_settings(cx).is_ready()) {
            self.notes = None;
            // It fails only for a stream that has ended.
            let _ = self.stream.flow_control().release_capacity(0);
        }
    }

    /// Waits, unless the end of the chunk before can be read.
    fn pending(&self) -> Poll<Result<(), h2::Error>> {
        if self.before.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

/// The end of a body: the last chunk, and the trailers.
pub fn write_end(trailers: Option<&HeaderMap>) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    for (name, value) in trailers.into_iter().flatten() {
        write_field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::http::body::Body;
    use crate::http::{Framing, Refused};

    /// The data that a body holds, and whether it is complete; read in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, bool), Refused> {
        let (mut body, mut data, mut rest) = (Body::new(Framing::Chunked), Vec::new(), bytes);
        while !rest.is_empty() && !body.complete() {
            let opaque = rest.len().min(piece).min(body.opaque() as usize);
            let count = opaque.max(1);
            match opaque {
                0 => body.scan(&rest[..count]).map(drop)?,
                _ => body.pass_by(opaque),
            }
            data.extend_from_slice(&rest[..opaque]);
            rest = &rest[count..];
        }
        assert!(rest.is_empty(), "nothing behind the end");
        Ok((data, body.complete()))
    }

    #[test]
    fn trailers_are_judged_by_the_reader() {
        let trailers = |list: &[(&'static str, &'static str)]| {
            let mut fields = HeaderMap::new();
            for (name, value) in list {
                fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let mut bytes = b"4\r\ndata\r\n".to_vec();
            bytes.extend(write_end(Some(&fields)));
            (String::from_utf8(bytes.clone()).unwrap(), read(&bytes, 1))
        };
        let (text, read) = trailers(&[("grpc-status", "0"), ("x", "a"), ("x", "b")]);
        assert!(text.ends_with("0\r\ngrpc-status: 0\r\nx: a\r\nx: b\r\n\r\n"), "{text}");
        assert_eq!(read, Ok((b"data".to_vec(), true)));
        assert_eq!(trailers(&[("content-length", "4")]).1, Err(Refused::ForbiddenTrailer));
        assert_eq!(trailers(&[("transfer-encoding", "chunked")]).1, Err(Refused::ForbiddenTrailer));
        assert_eq!(trailers(&[("x", " a")]).1, Err(Refused::BadTrailer));
    }
}
