//! [`start`]: binds the address of a stand-in and serves whatever its clients speak.
//!
//! HTTP, WebSockets at `/ws` and lines, each also in TLS, each also after a PROXY header. Reads no configuration.
//! Invariant: every connection is a task of its own, so that none waits for another.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::serve::Listener;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::opening::{DemoStream, LINE_MAX, Opening};
use super::plan::StandIn;
use super::{identity, web};
use crate::cli::certs::authority::Authority;
use crate::cli::demo::backends;
use crate::config::Address;
use crate::socket::{self, unix_file::UnixFile};

/// First byte of a TLS record with a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// HTTP connections that may wait for the HTTP server.
const WAITING_MAX: usize = 64;

/// A running stand-in; its tasks end with the runtime.
struct StandInServer {
    stand_in: Arc<StandIn>,
    tls: TlsAcceptor,
    /// Connections for the HTTP server.
    web: mpsc::Sender<Opening>,
}

/// Binds the address and serves it from here on. Returns the file of a unix socket.
pub(super) fn start(stand_in: StandIn, authority: &Arc<Authority>) -> io::Result<Option<UnixFile>> {
    let tls = identity::server(authority, &stand_in.address).map_err(io::Error::other)?;
    let (web, connections) = mpsc::channel(WAITING_MAX);
    let stand_in = Arc::new(stand_in);
    let server = Arc::new(StandInServer { stand_in: Arc::clone(&stand_in), tls: Arc::new(tls).into(), web });
    let file = match &stand_in.address {
        Address::Tcp(address) => {
            tokio::spawn(accept(TcpListener::from_std(backends::listen(*address)?)?, server));
            None
        }
        Address::Unix(path) => {
            let listener = listen_unix(path)?;
            let file = UnixFile::bound(path)?;
            tokio::spawn(accept(listener, server));
            Some(file)
        }
        Address::Name(name) => return Err(io::Error::other(format!("{name} has no address"))),
    };
    tokio::spawn(web::serve(stand_in, connections));
    Ok(file)
}

/// Makes the folder of the socket, and replaces the socket of a process that has ended.
fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    socket::remove_stale(path)?;
    UnixListener::bind(path)
}

async fn accept(mut listener: impl Listener, server: Arc<StandInServer>) {
    loop {
        let (stream, _) = listener.accept().await;
        let server = Arc::clone(&server);
        // An error ends this connection alone.
        tokio::spawn(async move { server.serve(Box::new(stream)).await });
    }
}

impl StandInServer {
    async fn serve(&self, stream: DemoStream) -> io::Result<()> {
        let mut opening = Opening::new(stream, None);
        opening.first_byte(&self.greeting(None)).await?;
        opening.take_proxy_header().await?;
        let client = opening.client;
        let greeting = self.greeting(client);
        if opening.first_byte(&greeting).await? == Some(TLS_HANDSHAKE) {
            opening = Opening::new(Box::new(self.tls.accept(opening.whole()).await?), client);
            opening.first_byte(&greeting).await?;
        }
        if opening.is_request().await? {
            let _ = self.web.send(opening).await; // fails only at the end of the process
            return Ok(());
        }
        self.echo(opening).await
    }

    /// Sends every line back, after the name of this backend.
    async fn echo(&self, opening: Opening) -> io::Result<()> {
        let name = self.called(opening.client);
        let (reader, mut writer) = tokio::io::split(opening.whole());
        let mut reader = BufReader::new(reader);
        loop {
            let mut answer = format!("{name}: ").into_bytes();
            let named = answer.len();
            (&mut reader).take(LINE_MAX as u64).read_until(b'\n', &mut answer).await?;
            if answer.len() == named {
                return writer.shutdown().await;
            }
            if answer.last() != Some(&b'\n') {
                answer.push(b'\n');
            }
            writer.write_all(&answer).await?;
            writer.flush().await?;
        }
    }

    fn greeting(&self, client: Option<SocketAddr>) -> String {
        self.called(client) + "\n"
    }

    /// Name of this backend, and the client that a PROXY header has announced.
    fn called(&self, client: Option<SocketAddr>) -> String {
        let name = &self.stand_in.name;
        client.map_or_else(|| format!("backend {name}"), |client| format!("backend {name}, client {}", client.ip()))
    }
}

#[cfg(test)]
mod tests;
