//! Streams with and without TLS over a pair of sockets: what leaves in one record, and when.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::terminate::socket::sends;
use crate::terminate::tickets::TICKETS_WAIT;
use std::time::Duration;

/// A client of TLS at the other end of a stream.
struct Client {
    tls: ClientConnection,
    socket: UnixStream,
}

impl Client {
    /// What the stream has sent, to its end in good order.
    fn response(&mut self) -> String {
        while self.tls.read_tls(&mut self.socket).unwrap() > 0 {
            self.tls.process_new_packets().unwrap();
        }
        let mut text = String::new();
        self.tls.reader().read_to_string(&mut text).expect("a clean end");
        text
    }

    /// Connects to a stream of this process, and makes the handshake with it.
    async fn connected() -> (Self, Stream) {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let server = server.unwrap().with_no_client_auth();
        let server = Arc::new(server.with_single_cert(vec![certificate.clone()], key.into()).unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("a.test").unwrap();
        let tls = ClientConnection::new(Arc::new(client), name).unwrap();

        let (socket, other) = UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        let other = Socket::new(OwnedFd::from(other)).unwrap();
        let mut stream = Stream::with_client(other, server, &AlertNote::default()).unwrap();
        let mut client = Self { tls, socket };
        client.send();
        stream.socket.readable().await.unwrap();
        stream.take_in_more().await.unwrap();
        stream.flush().await.unwrap();
        while client.tls.is_handshaking() {
            client.tls.read_tls(&mut client.socket).unwrap();
            client.tls.process_new_packets().unwrap();
        }
        client.send();
        (client, stream)
    }

    fn send(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).unwrap();
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).unwrap();
        self.send();
    }
}

/// Completes the handshake, so that tickets wait to be sent.
async fn complete(stream: &mut Stream) {
    stream.socket.readable().await.unwrap();
    stream.take_in_more().await.unwrap();
    assert!(!stream.is_handshaking());
    stream.hold_tickets();
}

#[tokio::test]
async fn tickets_leave_with_the_first_write_and_close_notify_with_the_last() {
    let (mut client, mut stream) = Client::connected().await;
    complete(&mut stream).await;
    let before = sends();
    stream.flush().await.unwrap();
    let written = std::future::poll_fn(|cx| stream.poll_write(cx, b"response")).await;
    assert_eq!((written, sends() - before), (Ok(8), 0));
    std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
    assert_eq!(sends() - before, 1);
    assert_eq!((client.response().as_str(), client.tls.tls13_tickets_received()), ("response", 2));
}

#[tokio::test]
async fn buffers_that_are_written_together_leave_in_one_record() {
    let (mut client, mut stream) = Client::connected().await;
    complete(&mut stream).await;
    let slices = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b" and payload")];
    let written = std::future::poll_fn(|cx| stream.poll_write_vectored(cx, &slices)).await;
    let before = sends();
    std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
    assert_eq!((written, sends() - before), (Ok(16), 1));
    let mut records = Vec::new();
    client.socket.read_to_end(&mut records).unwrap();
    let mut lengths = Vec::new();
    let mut rest = &records[..];
    while let [_, _, _, high, low, behind @ ..] = rest {
        lengths.push(usize::from(u16::from_be_bytes([*high, *low])));
        rest = &behind[lengths[lengths.len() - 1]..];
    }
    // Behind the tickets: 16 bytes and close_notify, each with a byte of its type and a tag.
    assert!(lengths.ends_with(&[16 + 17, 2 + 17]), "{lengths:?}");
    let mut unread = &records[..];
    while client.tls.read_tls(&mut unread).unwrap() > 0 {
        client.tls.process_new_packets().unwrap();
    }
    let mut text = String::new();
    client.tls.reader().read_to_string(&mut text).unwrap();
    assert_eq!(text, "head and payload");
}

#[tokio::test]
async fn a_socket_without_tls_gets_several_buffers_with_one_call() {
    let (mut socket, other) = UnixStream::pair().unwrap();
    other.set_nonblocking(true).unwrap();
    let mut stream = Stream::plain(Socket::new(OwnedFd::from(other)).unwrap());
    let slices = [IoSlice::new(b"head"), IoSlice::new(b" and payload")];
    let before = sends();
    let written = std::future::poll_fn(|cx| stream.poll_write_vectored(cx, &slices)).await;
    assert_eq!((written, sends() - before), (Ok(16), 1));
    std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(text, "head and payload");
}

#[tokio::test]
async fn tickets_leave_in_time_where_no_write_comes() {
    let (mut client, mut stream) = Client::connected().await;
    complete(&mut stream).await;
    let (before, mut into) = (sends(), [0]);
    let began = clock::now();
    let sent = std::future::poll_fn(|cx| match stream.poll_read(cx, &mut into) {
        Poll::Pending if sends() > before => Poll::Ready(()),
        Poll::Pending => Poll::Pending,
        Poll::Ready(got) => panic!("{got:?}"),
    });
    tokio::time::timeout(Duration::from_secs(10), sent).await.expect("the tickets leave");
    assert!(clock::now() - began >= TICKETS_WAIT.as_micros() as u64);
    client.tls.read_tls(&mut client.socket).unwrap();
    client.tls.process_new_packets().unwrap();
    assert_eq!((client.tls.tls13_tickets_received(), sends() - before), (2, 1));
}

#[tokio::test]
async fn tickets_leave_in_time_while_a_backend_is_looked_for_or_connected_to() {
    for looks in [false, true] {
        tickets_leave_before_the_response(looks).await;
    }
}

async fn tickets_leave_before_the_response(looks: bool) {
    let (mut client, mut stream) = Client::connected().await;
    complete(&mut stream).await;
    let (before, began, long) = (sends(), clock::now(), TICKETS_WAIT * 20);
    // What a conversation does with the client's stream until it has a backend.
    if looks {
        stream.meanwhile(tokio::time::sleep(long)).await;
    } else {
        assert!(tokio::time::timeout(long, stream.broken()).await.is_err(), "the client is there");
    }
    client.tls.read_tls(&mut client.socket).unwrap();
    client.tls.process_new_packets().unwrap();
    assert_eq!((client.tls.tls13_tickets_received(), sends() - before), (2, 1));
    assert!(clock::now() - began >= TICKETS_WAIT.as_micros() as u64);
    // The response is sent behind them, and they are not sent again.
    std::future::poll_fn(|cx| stream.poll_write(cx, b"response")).await.unwrap();
    std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
    assert_eq!((client.response().as_str(), client.tls.tls13_tickets_received()), ("response", 2));
}

#[tokio::test]
async fn a_peer_that_takes_a_little_at_a_time_gets_tickets_and_response_whole() {
    let (mut client, mut stream) = Client::connected().await;
    complete(&mut stream).await;
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, 1).unwrap();
    let bytes: Vec<u8> = (0..200_000).map(|n| (n / 3) as u8).collect();
    let sent = async {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let count = std::future::poll_fn(|cx| stream.poll_write(cx, rest)).await.unwrap();
            rest = &rest[count..];
            std::future::poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
        }
        std::future::poll_fn(|cx| stream.poll_finish(cx)).await.unwrap();
    };
    let reads = tokio::task::spawn_blocking(move || {
        let mut got = Vec::new();
        while client.tls.read_tls(&mut (&client.socket).take(100)).unwrap() > 0 {
            client.tls.process_new_packets().unwrap();
            let _ = client.tls.reader().read_to_end(&mut got);
        }
        (got, client.tls.tls13_tickets_received())
    });
    sent.await;
    let (got, tickets) = reads.await.unwrap();
    assert!(got == bytes && tickets == 2, "{} bytes, {tickets} tickets", got.len());
}

async fn read(stream: &mut Stream, into: &mut [u8]) -> Result<Got, Fault> {
    std::future::poll_fn(|cx| stream.poll_read(cx, into)).await
}

#[tokio::test]
async fn a_buffer_for_more_than_one_record_is_filled_from_several() {
    let (mut client, mut stream) = Client::connected().await;
    let bytes: Vec<_> = (0..BULK).map(|n| (n / 3) as u8).collect();
    client.write(&bytes);
    let mut into = vec![0; BULK];
    assert_eq!(read(&mut stream, &mut into).await, Ok(Got::Bytes(BULK)));
    assert!(into == bytes);
    client.write(&bytes);
    assert_eq!(read(&mut stream, &mut into[..BUFFER]).await, Ok(Got::Bytes(BUFFER)));
    assert_eq!(read(&mut stream, &mut into[..BUFFER]).await, Ok(Got::Bytes(BUFFER)));
}

#[tokio::test]
async fn a_fault_or_an_end_is_reported_behind_the_bytes_before_it() {
    let mut into = vec![0; BULK];
    let (mut client, mut stream) = Client::connected().await;
    client.write(&[7; 20_000]);
    client.socket.write_all(b"no record at all").unwrap();
    assert_eq!(read(&mut stream, &mut into).await, Ok(Got::Bytes(20_000)));
    assert_eq!(read(&mut stream, &mut into).await, Err(Fault::Tls));

    for (announced, end) in [(true, Got::End), (false, Got::Truncated)] {
        let (mut client, mut stream) = Client::connected().await;
        client.write(&[7; 20_000]);
        if announced {
            client.tls.send_close_notify();
            client.send();
        }
        drop(client);
        assert_eq!(read(&mut stream, &mut into).await, Ok(Got::Bytes(20_000)));
        assert_eq!(read(&mut stream, &mut into).await, Ok(end));
        assert_eq!(read(&mut stream, &mut into).await, Ok(end), "it stays the end");
    }
}
