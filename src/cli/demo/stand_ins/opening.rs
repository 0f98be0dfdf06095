//! [`Opening`]: the begin of a connection, by which a stand-in finds out what its client speaks.
//!
//! Sends only the greeting of a server that speaks first. Invariant: bytes that were read here are read again from
//! [`Opening::whole`], but for those of a PROXY header.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::progress::Progress;
use crate::proxy_protocol::{self, Header};

/// Longest first line in bytes; a longer one is no request.
pub(super) const LINE_MAX: usize = 8 << 10;
/// Time after which a client that sends nothing is greeted. Every client that speaks first has sent by then.
const SILENCE: Duration = Duration::from_secs(1);

/// A stream of any kind.
pub(super) trait DemoIo: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> DemoIo for T {}

/// A connection, plain or with TLS.
pub(super) type DemoStream = Box<dyn DemoIo>;

/// A connection with its first bytes.
pub(super) struct Opening {
    stream: DemoStream,
    read: Vec<u8>,
    /// Client that a PROXY header has announced.
    pub(super) client: Option<SocketAddr>,
}

impl Opening {
    /// An opening of which nothing is read yet.
    pub(super) fn new(stream: DemoStream, client: Option<SocketAddr>) -> Self {
        Self { stream, read: Vec::new(), client }
    }

    /// First byte, which stays; a client that is silent gets the greeting. `None`: the client has closed.
    pub(super) async fn first_byte(&mut self, greeting: &str) -> io::Result<Option<u8>> {
        if self.read.is_empty() {
            match timeout(SILENCE, self.more()).await {
                Ok(read) => read?,
                Err(_silence) => {
                    self.stream.write_all(greeting.as_bytes()).await?;
                    self.stream.flush().await?;
                    self.more().await?
                }
            };
        }
        Ok(self.read.first().copied())
    }

    /// Takes a PROXY header off, if there is one.
    pub(super) async fn take_proxy_header(&mut self) -> io::Result<()> {
        loop {
            match proxy_protocol::opens_with_signature(&self.read) {
                Some(false) => return Ok(()),
                Some(true) => match proxy_protocol::parse(&self.read) {
                    Progress::Done((header, length)) => {
                        self.read.drain(..length);
                        self.client = match header {
                            Header::Proxied { source, .. } => Some(source),
                            Header::Local => None,
                        };
                        return Ok(());
                    }
                    Progress::More => {}
                    Progress::No(_) => return Err(io::ErrorKind::InvalidData.into()),
                },
                None => {}
            }
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// True if the first line is the request line of HTTP/1.
    pub(super) async fn is_request(&mut self) -> io::Result<bool> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read) {
                let line = self.read[..end].trim_ascii_end();
                return Ok(line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"));
            }
            if self.read.len() > LINE_MAX || !self.more().await? {
                return Ok(false);
            }
        }
    }

    /// The connection from its first byte on.
    pub(super) fn whole(self) -> DemoStream {
        let (reader, writer) = tokio::io::split(self.stream);
        Box::new(tokio::io::join(Cursor::new(self.read).chain(reader), writer))
    }

    /// Reads more bytes; false: the client has closed.
    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }
}
