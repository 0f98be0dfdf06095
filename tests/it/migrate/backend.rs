//! A backend of HTTP that answers with what it has seen: its name, the client that a PROXY header announced, the peer,
//! the server name, and the head of the request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::support::backend::Backend;
use crate::support::eventually;

/// A request for this path is never answered: it ends with its connection.
pub const HOLD: &str = "/hold";

/// A running backend, whose connections end when it is dropped.
pub struct Web {
    backend: Option<Backend>,
    held: Arc<AtomicUsize>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Drop for Web {
    fn drop(&mut self) {
        let address = self.backend.take().map(|backend| backend.address);
        // What the kernel has accepted for it until then is reset.
        eventually("a backend to be gone", || address.is_none_or(|at| TcpStream::connect(at).is_err()).then_some(()));
        for connection in self.connections.lock().unwrap().iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Web {
    /// Serves plain HTTP.
    pub fn plain(name: &str, address: SocketAddr) -> Self {
        Self::start(name, address, None)
    }

    /// Serves TLS, with the certificate in a folder of a site.
    pub fn tls(name: &str, address: SocketAddr, folder: &Path) -> Self {
        Self::start(name, address, Some(tls_config(folder)))
    }

    fn start(name: &str, address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let held = Arc::new(AtomicUsize::new(0));
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (name, counter, open) = (name.to_owned(), Arc::clone(&held), Arc::clone(&connections));
        let serve = move |mut stream: TcpStream| {
            let mut seen = format!("{name}\nannounced: {}\n", announced(&mut stream)?);
            seen += &format!("peer: {}\n", stream.peer_addr()?.ip());
            let Some(tls) = &tls else { return answer(stream, &seen, &counter) };
            let connection = ServerConnection::new(Arc::clone(tls)).map_err(std::io::Error::other)?;
            let mut stream = StreamOwned::new(connection, stream);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            seen += &format!("sni: {}\n", stream.conn.server_name().unwrap_or_default());
            answer(stream, &seen, &counter)
        };
        let backend = Backend::on(address, move |stream| {
            // The list has the connection open, too.
            let end = stream.try_clone()?;
            open.lock().unwrap().push(stream.try_clone()?);
            let served = serve(stream);
            let _ = end.shutdown(Shutdown::Both);
            served
        });
        Self { backend: Some(backend), held, connections }
    }

    /// Requests for [`HOLD`] so far.
    pub fn held(&self) -> usize {
        self.held.load(SeqCst)
    }
}

fn tls_config(folder: &Path) -> Arc<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(folder.join("dev.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("dev-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(certificates, key).unwrap())
}

/// Reads a PROXY header, if there is one; the address that it announces.
fn announced(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut first = [0];
    stream.peek(&mut first)?;
    match first[0] {
        b'P' => {
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                stream.read_exact(&mut first)?;
                line.push(first[0]);
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            Ok(line.split(' ').nth(2).unwrap_or("nothing").to_owned())
        }
        b'\r' => {
            let mut head = [0; 16];
            stream.read_exact(&mut head)?;
            let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
            stream.read_exact(&mut rest)?;
            let source = rest.first_chunk::<4>().map(|source| Ipv4Addr::from(*source).to_string());
            Ok(source.unwrap_or("nothing".to_owned()))
        }
        _ => Ok("nothing".to_owned()),
    }
}

/// Answers requests until the connection ends.
fn answer(stream: impl Read + Write, seen: &str, held: &AtomicUsize) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        if head.split(' ').nth(1) == Some(HOLD) {
            held.fetch_add(1, SeqCst);
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink())?;
        if let Some(key) = field("sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            write!(
                stream.get_mut(),
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )?;
            let mut socket = WebSocket::from_raw_socket(stream.into_inner(), Role::Server, None);
            let name = seen.lines().next().unwrap_or_default();
            let _ = socket.send(Message::text(name));
            while socket.read().is_ok() {}
            return Ok(());
        }
        let cookie = if field("x-set-cookie").is_some() { "Set-Cookie: JSESSIONID=4711; Path=/\r\n" } else { "" };
        let body = format!("{seen}{head}");
        write!(stream.get_mut(), "HTTP/1.1 200 OK\r\n{cookie}Content-Length: {}\r\n\r\n{body}", body.len())?;
        stream.get_mut().flush()?;
    }
}
