//! Stand-ins with real clients on loopback.

use std::net::Ipv4Addr;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::Socket;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::plan::AppCookie;
use super::*;
use crate::cli::demo::clients;
use crate::cli::demo::websocket::WebSocket;
use crate::config::{ProxyOut, ProxyTlv, ProxyVersion};
use crate::proxy_protocol::{self, Announce};

const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const REQUEST: &str = "GET /any/path HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n";

/// A running stand-in with the name `x`, its authority, and the port that is kept for it.
struct Started {
    address: SocketAddr,
    authority: Arc<Authority>,
    _port: Socket,
}

impl Started {
    fn new(cookies: Vec<AppCookie>) -> Self {
        let port = backends::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let authority = Arc::new(Authority::unsaved().unwrap());
        start(stand_in(Address::Tcp(address), cookies), &authority).unwrap();
        Self { address, authority, _port: port }
    }

    /// Sends bytes in pieces and returns everything that comes back. A client of HTTP leaves the end to the server.
    async fn exchange(&self, pieces: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        if pieces.last().is_some_and(|piece| !piece.ends_with(b"\r\n\r\n")) {
            stream.shutdown().await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn stand_in(address: Address, cookies: Vec<AppCookie>) -> StandIn {
    StandIn { address, name: "x".to_owned(), known_as: vec!["p/x".to_owned()], cookies }
}

#[tokio::test]
async fn http_and_websockets_are_those_of_every_backend_of_the_demo() {
    let started = Started::new(vec![]);
    for count in 1..=2 {
        let answer = clients::ask(CLIENT, started.address).await.unwrap();
        assert_eq!((&*answer.backend, answer.count), ("x", count));
    }
    assert!(started.exchange(&[REQUEST.as_bytes()]).await.ends_with("backend x, answer 3 since it started\n"));
    let mut websocket = WebSocket::open(CLIENT, started.address).await.unwrap();
    assert!(websocket.backend() == "x" && websocket.echoes().await);
}

#[tokio::test]
async fn lines_come_back_with_the_name_also_those_that_only_look_like_http() {
    let started = Started::new(vec![]);
    let answer = started.exchange(&[b"GET /\nhel", b"lo\nend"]).await;
    assert_eq!(answer, "backend x: GET /\nbackend x: hello\nbackend x: end\n");
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_greeted_and_then_heard() {
    let started = Started::new(vec![]);
    let mut stream = BufReader::new(TcpStream::connect(started.address).await.unwrap());
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "backend x\n");
    stream.write_all(b"hello\n").await.unwrap();
    line.clear();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "backend x: hello\n");
}

#[tokio::test]
async fn a_proxy_header_is_taken_off_and_its_client_named() {
    let started = Started::new(vec![]);
    let addresses = Some(("10.1.2.3:4".parse().unwrap(), "10.0.0.1:80".parse().unwrap()));
    let announce = Announce { addresses, unique_id: Some(b"id"), ..Announce::default() };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    proxy_protocol::write(&mut first, &ProxyOut { version: ProxyVersion::V1, tlvs: vec![] }, &announce);
    let of_v2 = ProxyOut { version: ProxyVersion::V2, tlvs: vec![ProxyTlv::UniqueId, ProxyTlv::Crc32c] };
    proxy_protocol::write(&mut second, &of_v2, &announce);
    for header in [first, second] {
        let (begin, end) = header.split_at(header.len() / 2);
        let answer = started.exchange(&[begin, end, REQUEST.as_bytes()]).await;
        assert!(answer.contains("\r\nx-client: 10.1.2.3\r\n"), "{answer}");
        assert_eq!(started.exchange(&[&header, b"hello\n"]).await, "backend x, client 10.1.2.3: hello\n");
    }
    assert!(!started.exchange(&[REQUEST.as_bytes()]).await.contains("x-client"));
    assert_eq!(started.exchange(&[b"PROXY nonsense\r\n"]).await, "");
}

#[tokio::test]
async fn tls_has_a_certificate_for_every_name_and_for_the_address() {
    let started = Started::new(vec![]);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(started.authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"acme-tls/1".to_vec()];
    let client = TlsConnector::from(Arc::new(client));
    for name in ["bank.example.org", "127.0.0.1"] {
        for (said, heard) in [(REQUEST, "backend x, answer "), ("hello\n", "backend x: hello\n")] {
            let stream = TcpStream::connect(started.address).await.unwrap();
            let mut stream = client.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), None, "no protocol is refused");
            stream.write_all(said.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\n") || !String::from_utf8_lossy(&answer).contains(heard) {
                assert!(
                    stream.read_buf(&mut answer).await.unwrap() > 0,
                    "{name}: {}",
                    String::from_utf8_lossy(&answer)
                );
            }
        }
    }
}

#[tokio::test]
async fn cookies_of_the_application_are_set_once() {
    let cookie = |name: &str, is_routed| AppCookie { name: name.to_owned(), is_routed };
    let started = Started::new(vec![cookie("SID", false), cookie("J", true)]);
    let answer = started.exchange(&[REQUEST.as_bytes()]).await;
    let cookies: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).collect();
    let [sid, route] = cookies[..] else { panic!("{answer}") };
    assert!(sid.starts_with("SID=") && sid.len() > 36 && sid.ends_with("; Path=/; HttpOnly"), "{sid}");
    assert!(route.starts_with("J=") && route.contains(".x; "), "{route}");
    let known = REQUEST.replace("Host", "Cookie: other=1; SID=a\r\nHost");
    let answer = started.exchange(&[known.as_bytes()]).await;
    assert!(!answer.contains("SID=") && answer.contains("J="), "{answer}");
}

#[tokio::test]
async fn a_unix_socket_gets_its_folder_and_replaces_only_what_no_process_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/x.sock");
    let authority = Arc::new(Authority::unsaved().unwrap());
    let start = || start(stand_in(Address::Unix(path.clone()), vec![]), &authority);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let file = start().unwrap().unwrap();
    assert_eq!(start().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "backend x: hello\n");
    file.remove();
    assert!(!path.exists());
}
