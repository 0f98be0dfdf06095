//! Clients: curl for HTTP, and one with TLS that may send a PROXY header first.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::Site;
use crate::support::PATIENCE;
use crate::support::program::output;

/// What a client got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Lines of the head behind the first one.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.head, name)
    }

    /// What a backend of a test has seen, by name: a field of the request, or one of its own.
    pub fn seen(&self, name: &str) -> Option<&str> {
        find(&self.body, name)
    }

    /// The backend of a test.
    pub fn backend(&self) -> &str {
        self.body.lines().next().unwrap_or_default()
    }
}

fn find<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// curl that asks at an address, whatever its URL says, and trusts the authority of a site.
pub fn curl(site: &Site, address: SocketAddr, arguments: &[&str], url: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--include", "--cacert"]);
    curl.arg(site.path().join("dev-ca.pem")).args(["--connect-to", &format!("::{address}")]).args(arguments).arg(url);
    curl
}

/// The answer that curl gets.
pub fn ask(site: &Site, address: SocketAddr, arguments: &[&str], url: &str) -> Answer {
    let text = output(&mut curl(site, address, arguments, url));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{url}: {text}"));
    let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A connection from an address of this machine.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// True once the other side has ended a connection, by an end or a reset; false if it is open until the test gives up.
pub fn is_ended(mut stream: impl Read) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// A connection with TLS, behind the bytes `before`; by default its name is that of the host.
pub fn tls(
    folder: &Path,
    stream: TcpStream,
    name: &str,
    before: &str,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    let authority = fs::read(folder.join("dev-ca.pem"))?;
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    stream.sock.write_all(before.as_bytes())?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The answer to one request inside a connection, which it leaves open.
pub fn get(stream: &mut (impl Read + Write)) -> std::io::Result<Answer> {
    write!(stream, "GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n")?;
    stream.flush()?;
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        text.push(char::from(byte[0]));
    }
    let (line, head) = text.split_once("\r\n").expect("a head");
    let length = find(head, "content-length").and_then(|length| length.parse().ok()).expect("a length");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Ok(Answer { status, head: head.to_owned(), body: String::from_utf8_lossy(&body).into_owned() })
}
