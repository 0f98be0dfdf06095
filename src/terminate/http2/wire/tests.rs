//! A stream of scripted reads, and a conversation of h2 with itself.

use std::collections::VecDeque;

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that reads what a test has put down, and keeps what is written.
#[derive(Default)]
struct Script {
    reads: VecDeque<Result<Vec<u8>, Result<Got, Fault>>>,
    written: Vec<u8>,
    /// Calls of write, flush and finish.
    calls: Vec<&'static str>,
    /// The next write or flush fails.
    broken: Option<Fault>,
}

impl Script {
    fn of(reads: impl IntoIterator<Item = Vec<u8>>, end: Result<Got, Fault>) -> Self {
        let mut script = Self { reads: reads.into_iter().map(Ok).collect(), ..Self::default() };
        script.reads.push_back(Err(end));
        script
    }
}

impl ByteStream for Script {
    fn poll_read(&mut self, _: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        match self.reads.front_mut() {
            Some(Ok(bytes)) => {
                let count = bytes.len().min(into.len());
                into[..count].copy_from_slice(&bytes[..count]);
                bytes.drain(..count);
                if bytes.is_empty() {
                    self.reads.pop_front();
                }
                Poll::Ready(Ok(Got::Bytes(count)))
            }
            Some(Err(end)) => Poll::Ready(*end),
            None => Poll::Pending,
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        self.calls.push("write");
        self.written.extend_from_slice(from);
        Poll::Ready(self.broken.map_or(Ok(from.len()), Err))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.calls.push("flush");
        Poll::Ready(self.broken.map_or(Ok(()), Err))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.calls.push("finish");
        Poll::Ready(self.broken.map_or(Ok(()), Err))
    }
}

fn wire(stream: Script, unread: &[u8]) -> (Wire<Script>, Rc<WireNotes>) {
    let notes = Rc::default();
    (Wire::new(stream, Buffer::holding(unread.to_vec()), Rc::clone(&notes)), notes)
}

#[tokio::test]
async fn bytes_that_were_read_before_come_first_and_the_end_is_an_end() {
    for (end, truncated) in [(Got::End, false), (Got::Truncated, true)] {
        let (mut wire, notes) = wire(Script::of([PREFACE[5..].to_vec()], Ok(end)), &PREFACE[..5]);
        let mut first = [0; 3];
        assert_eq!(wire.read(&mut first).await.unwrap(), 3);
        let mut rest = Vec::new();
        wire.read_to_end(&mut rest).await.unwrap();
        assert_eq!([&first[..], &rest].concat(), PREFACE);
        assert_eq!((notes.truncated.get(), notes.fault.get(), notes.excess.get()), (truncated, None, None));
        assert_eq!(wire.read(&mut []).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_fault_is_noted_on_every_way() {
    let (mut reads, notes) = wire(Script::of([PREFACE.to_vec()], Err(Fault::Tls)), b"");
    let mut got = Vec::new();
    let error = reads.read_to_end(&mut got).await.unwrap_err();
    assert_eq!((error.kind(), notes.fault.get()), (ErrorKind::InvalidData, Some(Fault::Tls)));
    assert_eq!(got, PREFACE, "what came before it");
    for call in ["write", "flush", "finish"] {
        let broken = Script { broken: Some(Fault::Reset), ..Script::default() };
        let (mut wire, notes) = wire(broken, b"");
        let error = match call {
            "write" => wire.write(b"x").await.map(drop),
            "flush" => wire.flush().await,
            _ => wire.shutdown().await,
        };
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!((notes.fault.get(), &wire.stream.calls[..]), (Some(Fault::Reset), &[call][..]));
    }
}

#[tokio::test]
async fn a_flood_ends_the_reading_and_says_what_it_was() {
    let reset: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    let ping: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    for (frame, most, excess) in [(reset, 1_000, Excess::Resets), (ping, 1_000, Excess::Flood)] {
        // Time brings a few more tokens while the test runs.
        let settings = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
        let begin = [PREFACE, &settings].concat();
        let reads = [begin.clone()].into_iter().chain(std::iter::repeat_n(frame.to_vec(), 3 * most));
        let (mut wire, notes) = wire(Script::of(reads, Ok(Got::End)), b"");
        let mut got = Vec::new();
        while notes.excess.get().is_none() {
            let mut piece = [0; 4_096];
            let mut into = ReadBuf::new(&mut piece);
            // Pending: other tasks have a turn, or nothing more is read.
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut wire).poll_read(cx, &mut into))).await;
            got.extend_from_slice(into.filled());
        }
        assert_eq!(notes.excess.get(), Some(excess));
        let frames = (got.len() - begin.len()) / frame.len();
        // SETTINGS have taken ten.
        assert!(frames >= most - 10 && got.len() == begin.len() + frames * frame.len(), "{frames}");
        let mut piece = [0; 100];
        let again = poll_fn(|cx| Poll::Ready(Pin::new(&mut wire).poll_read(cx, &mut ReadBuf::new(&mut piece)))).await;
        assert!(again.is_pending(), "nothing behind it is read");
    }
}

/// What one turn brings, until other tasks have theirs, and the largest read of it.
async fn turn(wire: &mut Wire<Script>) -> (usize, usize) {
    let (mut all, mut largest) = (0, 0);
    loop {
        let mut piece = vec![0; 2 * BUFFER];
        let mut into = ReadBuf::new(&mut piece);
        if poll_fn(|cx| Poll::Ready(Pin::new(&mut *wire).poll_read(cx, &mut into))).await.is_pending() {
            return (all, largest);
        }
        (all, largest) = (all + into.filled().len(), largest.max(into.filled().len()));
    }
}

#[tokio::test]
async fn a_turn_ends_behind_few_small_frames_and_behind_many_bytes_of_large_ones() {
    let begin = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let head_of_16_kib: &[u8] = &[0, 0x40, 0, 0, 0, 0, 0, 0, 1];
    let large = [head_of_16_kib, &[7; 0x4000]].concat().repeat(40);
    // Heads of requests, of which each could begin a stream.
    let small = [&[0, 0, 21, 1, 5, 0, 0, 0, 1][..], &[0x82; 21]].concat();
    let each = small.len();
    let reads = [begin, large, small.repeat(5_000)];
    let (mut wire, notes) = wire(Script::of(reads, Ok(Got::End)), b"");
    let first = turn(&mut wire).await;
    assert_eq!(first.1, BUFFER, "the reads grow with the frames");
    assert!(first.0 > 4 * BUFFER, "{first:?}");
    assert_eq!(turn(&mut wire).await, (READS * BUFFER, BUFFER));
    while turn(&mut wire).await.1 == BUFFER {}
    // The first of these turns began with the end of the large frames.
    for _ in 0..3 {
        let (bytes, read) = turn(&mut wire).await;
        assert!(read <= SMALL_READ && bytes / each <= FRAMES as usize + SMALL_READ / each, "{bytes} {read}");
    }
    assert_eq!(notes.excess.get(), None);
}

#[tokio::test]
async fn buffers_are_written_together_where_the_stream_can_do_that() {
    let (mut wire, _) = wire(Script::default(), b"");
    assert!(wire.is_write_vectored());
    let slices = [IoSlice::new(b""), IoSlice::new(b"head"), IoSlice::new(b"payload")];
    // This stream takes one buffer at a time.
    assert_eq!(wire.write_vectored(&slices).await.unwrap(), 4);
    assert_eq!(wire.write_vectored(&slices[2..]).await.unwrap(), 7);
    wire.shutdown().await.unwrap();
    assert_eq!(
        (&wire.stream.written[..], &wire.stream.calls[..]),
        (&b"headpayload"[..], &["write", "write", "finish"][..])
    );
}

/// A duplex of the runtime as a stream.
struct Duplex(tokio::io::DuplexStream);

fn reset(_: io::Error) -> Fault {
    Fault::Reset
}

impl ByteStream for Duplex {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        let mut buf = ReadBuf::new(into);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf)).map_err(reset)?;
        let count = buf.filled().len();
        Poll::Ready(Ok(if count > 0 { Got::Bytes(count) } else { Got::End }))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        Pin::new(&mut self.0).poll_write(cx, from).map_err(reset)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(reset)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Pin::new(&mut self.0).poll_shutdown(cx).map_err(reset)
    }
}

#[tokio::test]
async fn h2_serves_a_long_body_over_it() {
    const LENGTH: usize = 1_000_000;
    let (client, server) = tokio::io::duplex(1_000);
    let notes = Rc::default();
    let wire = Wire::new(Duplex(server), Buffer::default(), Rc::clone(&notes));
    let serves = async {
        let mut connection = h2::server::handshake(wire).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(bytes::Bytes::from(vec![7; LENGTH]), true).unwrap();
        // Until the client is gone.
        while let Some(Ok(_)) = connection.accept().await {}
    };
    let asks = async {
        let (mut requests, connection) = h2::client::handshake(client).await.unwrap();
        let reads = async {
            let request = http::Request::get("http://a.test/").body(()).unwrap();
            let mut body = requests.send_request(request, true).unwrap().0.await.unwrap().into_body();
            let mut length = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                length += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            length
        };
        tokio::select! {
            length = reads => length,
            ended = connection => panic!("{ended:?}"),
        }
    };
    let ((), length) = tokio::join!(serves, asks);
    assert_eq!((length, notes.excess.get()), (LENGTH, None));
}
