//! [`WebSocket`]: a minimal client that opens a WebSocket, reads the backend's name, and tests an echo.
//!
//! Supports neither fragments nor pings and skips the handshake's hash: the peer is always [`super::backends`].
//! Invariant: every frame sent or accepted is one whole, short text.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::clients::{self, TIMEOUT};
use crate::cli::CommandError;

/// First byte of a text frame with FIN (RFC 6455 §5.2).
const TEXT: u8 = 0x81;
/// Mask bit, which frames of clients need; a mask of zeros leaves the text as it is.
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0; 4];
/// Longest payload with a length of one byte.
const LENGTH_MAX: u8 = 125;
const ECHOED: &str = "are you still there?";

/// An open WebSocket of one client.
#[derive(Debug)]
pub(super) struct WebSocket {
    client: Ipv4Addr,
    stream: BufReader<TcpStream>,
    backend: String,
}

impl WebSocket {
    /// Opens a WebSocket from the address `client`.
    pub(super) async fn open(client: Ipv4Addr, address: SocketAddr) -> Result<Self, CommandError> {
        let opened = timeout(TIMEOUT, Self::shake_hands(client, address)).await.unwrap_or_else(|late| Err(late.into()));
        opened.map_err(|error| CommandError::Internal(format!("WebSocket of {client} at {address}: {error}")))
    }

    async fn shake_hands(client: Ipv4Addr, address: SocketAddr) -> io::Result<Self> {
        let mut stream = BufReader::new(clients::connect(client, address).await?);
        let request = "GET /ws HTTP/1.1\r\nHost: demo\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2Vzc2lsZSBzdGF5cyBvaw==\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if !line.starts_with("HTTP/1.1 101 ") {
            return Err(io::Error::other(format!("not upgraded: {}", line.trim_end())));
        }
        while !line.trim_end().is_empty() {
            line.clear();
            stream.read_line(&mut line).await?;
        }
        let backend = read(&mut stream).await?;
        Ok(Self { client, stream, backend })
    }

    /// Address of the client.
    pub(super) fn client(&self) -> Ipv4Addr {
        self.client
    }

    /// Name of the backend, from its first message.
    pub(super) fn backend(&self) -> &str {
        &self.backend
    }

    /// True if an echo comes back in time.
    pub(super) async fn echoes(&mut self) -> bool {
        let answered = timeout(TIMEOUT, self.exchange()).await;
        matches!(answered, Ok(Ok(text)) if text == ECHOED)
    }

    async fn exchange(&mut self) -> io::Result<String> {
        let mut frame = vec![TEXT, MASKED | ECHOED.len() as u8];
        frame.extend(MASK);
        frame.extend(ECHOED.as_bytes());
        self.stream.write_all(&frame).await?;
        read(&mut self.stream).await
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let [TEXT, length @ 0..=LENGTH_MAX] = head else {
        return Err(io::Error::other("not a short text"));
    };
    let mut text = vec![0; length.into()];
    stream.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(io::Error::other)
}
