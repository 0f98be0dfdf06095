//! nginx with two certificates, routed by server name on one port: every client gets the certificate of the backend it
//! asked for and completes its handshake with it, however its hello is sized and cut.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::crypto::aws_lc_rs::kx_group;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, StreamOwned, SupportedProtocolVersion};
use tempfile::TempDir;

use crate::support::authority::{Authority, Minted, hello};
use crate::support::backend::pool;
use crate::support::program::{self, Program, find, free_address};
use crate::support::{PATIENCE, Sessile, eventually, has};

/// The length of a padded hello: the handshake message, without record headers.
const PADDED: usize = 15 * 1024;

/// A padding extension (RFC 7685).
const PADDING: u16 = 21;

#[test]
fn curl_sees_the_backend_it_asked_for() {
    let test = "curl_sees_the_backend_it_asked_for";
    let Some(site) = Site::start(test).filter(|_| has(test, "curl")) else { return };
    for name in ["a.test", "b.test", "x.b.test"] {
        for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
            for http in ["--http1.1", "--http2"] {
                let answer = site.curl(name).args(version).arg(http).output().unwrap();
                let seen = String::from_utf8(answer.stdout).unwrap();
                let wanted = format!("{} {name} {}", &name[name.len() - 6..], &http[6..]);
                assert_eq!(seen, wanted, "{name} {version:?} {http}: {}", String::from_utf8_lossy(&answer.stderr));
            }
        }
    }
    let stranger = site.curl("c.test").output().unwrap();
    assert!(!stranger.status.success());
    site.sessile.ended("l", "no_route");
}

#[test]
fn openssl_sees_the_certificate_of_the_backend_it_asked_for() {
    let test = "openssl_sees_the_certificate_of_the_backend_it_asked_for";
    let Some(site) = Site::start(test).filter(|_| has(test, "openssl")) else { return };
    for (name, minted) in &site.minted {
        for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let mut client = Command::new("openssl");
            client.args(["s_client", "-verify_return_error", "-servername", name, "-verify_hostname", name, option]);
            client.arg("-connect").arg(site.address.to_string()).arg("-CAfile").arg(site.dir.path().join("ca.pem"));
            let seen = program::output(client.stdin(Stdio::null()));
            assert!(seen.contains(&format!("New, {version}, Cipher is")), "{seen}");
            let shown =
                seen.split("-----").skip_while(|part| *part != "BEGIN CERTIFICATE").nth(1).expect("a certificate");
            assert_eq!(shown.trim(), minted.pem.split("-----").nth(2).unwrap().trim(), "{name} {version}");
        }
    }
}

#[test]
fn a_hello_of_any_size_in_any_pieces_is_completed_by_the_backend_it_names() {
    let test = "a_hello_of_any_size_in_any_pieces_is_completed_by_the_backend_it_names";
    let Some(site) = Site::start(test) else { return };
    thread::scope(|scope| {
        for versions in [&TLS12, &TLS13] {
            for long in [false, true] {
                let (site, config) = (&site, site.client(versions, long));
                scope.spawn(move || {
                    for cut in Cut::all() {
                        for (name, minted) in &site.minted {
                            let visit = site.visit(&config, name, cut);
                            assert_eq!(visit.certificate, minted.der, "{name} {cut:?}");
                            assert_eq!(visit.body, *name, "{name} {cut:?}");
                        }
                    }
                });
            }
        }
    });
}

#[test]
fn a_hello_padded_to_15_kib_reaches_the_backend_it_names() {
    let Some(site) = Site::start("a_hello_padded_to_15_kib_reaches_the_backend_it_names") else { return };
    let [old, new] = [&TLS12, &TLS13].map(|version| site.client(version, false));
    for cut in Cut::all() {
        for (name, minted) in &site.minted {
            // The client cannot go on, as it knows nothing of the padding; an old server shows its certificate at once,
            // a new one hides it.
            let answer = site.answer(&pad(&hello(&old, name).1), cut, |seen| contains(seen, &minted.der));
            assert!(contains(&answer, &minted.der), "{name} {cut:?}: {} bytes of answer", answer.len());
            let answer = site.answer(&pad(&hello(&new, name).1), cut, |seen| seen.len() > 5);
            assert_eq!((answer[0], answer[5]), (22, 2), "{name} {cut:?}: not a ServerHello");
        }
    }
    let lines = eventually("a line for every hello", || {
        let lines = site.sessile.lines();
        (lines.len() == Cut::all().count() * 4).then_some(lines)
    });
    let astray = lines.iter().find(|line| line["sni"] != format!("{}.test", line["pool"].as_str().unwrap()));
    assert!(astray.is_none(), "{astray:?}");
}

#[test]
fn a_client_that_no_route_takes_is_logged_with_the_name_it_asked_for() {
    let sessile = Sessile::start(
        &("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntls = \"passthrough\"\n".to_owned()
            + "[[listener.route]]\nsni = \"a.test\"\npool = \"a\"\n"
            + &pool("a", "", &["127.0.0.1:1".parse().unwrap()])),
    );
    let client = Arc::new(Authority::new().client(&[&TLS13], &[kx_group::X25519]));
    let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.write_all(&hello(&client, "c.test").1).unwrap();
    assert_eq!(sessile.ended("l", "no_route")["sni"], "c.test");
}

/// nginx as two backends with a certificate each, and the balancer before them.
struct Site {
    dir: TempDir,
    authority: Authority,
    minted: Vec<(&'static str, Minted)>,
    sessile: Sessile,
    address: SocketAddr,
    _nginx: Program,
}

impl Site {
    fn start(test: &str) -> Option<Self> {
        let nginx = find(test, "nginx")?;
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let (nginx, backends, minted) = serve(&nginx, &dir, &authority);
        let route = |name: &str, pool: &str| format!("[[listener.route]]\nsni = {name}\npool = \"{pool}\"\n");
        let sessile = Sessile::start(
            &("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntls = \"passthrough\"\n".to_owned()
                + &route("\"a.test\"", "a")
                + &route("[\"b.test\", \"*.b.test\"]", "b")
                + &pool("a", "", &backends[..1])
                + &pool("b", "", &backends[1..])),
        );
        let address = sessile.address("l");
        Some(Self { dir, authority, minted, sessile, address, _nginx: nginx })
    }

    fn curl(&self, name: &str) -> Command {
        curl(name, self.address, self.dir.path())
    }

    /// A client of one version; its hello is long because it offers many protocols, and a post-quantum key share.
    fn client(&self, version: &'static SupportedProtocolVersion, long: bool) -> Arc<ClientConfig> {
        let groups = [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
        let mut config = self.authority.client(&[version], &groups[usize::from(!long)..]);
        if long {
            config.alpn_protocols = (0..52).map(|n| format!("{n:0>250}").into_bytes()).collect();
            config.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Arc::new(config)
    }

    /// A whole visit with a ClientHello that is sent in pieces.
    fn visit(&self, config: &Arc<ClientConfig>, name: &str, cut: Cut) -> Visit {
        let (connection, bytes) = hello(config, name);
        let mut stream = self.connect();
        cut.send(&bytes, &mut stream);
        let mut stream = StreamOwned::new(connection, stream);
        write!(stream, "GET / HTTP/1.0\r\nHost: {name}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").expect("an answer").1.to_owned();
        let certificates = stream.conn.peer_certificates().expect("a certificate");
        Visit { certificate: certificates[0].clone().into_owned(), body }
    }

    /// What the server answers to a hello, until that is enough.
    fn answer(&self, hello: &[u8], cut: Cut, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut stream = self.connect();
        cut.send(hello, &mut stream);
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !enough(&answer) {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                n => answer.extend_from_slice(&buffer[..n]),
            }
        }
        answer
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// A client that trusts `ca.pem` and prints the answering site, the name it asked for, and the version of HTTP.
pub fn curl(name: &str, address: SocketAddr, dir: &Path) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--cacert"]).arg(dir.join("ca.pem"));
    curl.args(["--connect-to", &format!("{name}:443:{address}"), "--write-out", " %{http_version}"]);
    curl.arg(format!("https://{name}/host"));
    curl
}

struct Visit {
    certificate: CertificateDer<'static>,
    body: String,
}

/// nginx, where its two servers are, and their names and certificates.
pub type Served = (Program, [SocketAddr; 2], Vec<(&'static str, Minted)>);

/// Two HTTPS servers that answer their own name, and at `/host` the name they were asked for, too. Clients find the
/// certificate to trust in `ca.pem`.
pub fn serve(nginx: &Path, dir: &TempDir, authority: &Authority) -> Served {
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).expect("the file is written");
    let names = ["a.test", "b.test"];
    let backends = names.map(|_| free_address());
    let mut servers = String::new();
    let mut minted = Vec::new();
    for (name, address) in names.into_iter().zip(backends) {
        let certificate = authority.mint(name);
        let (file, key) = certificate.write(dir.path(), name);
        servers += &format!(
            "server {{ listen {address} ssl http2; ssl_protocols TLSv1.2 TLSv1.3;\n\
             ssl_certificate {}; ssl_certificate_key {};\n\
             location / {{ return 200 '{name}'; }}\nlocation /host {{ return 200 '{name} $host'; }} }}\n",
            file.display(),
            key.display()
        );
        minted.push((name, certificate));
    }
    (program::nginx(nginx, backends[0], &servers), backends, minted)
}

/// How a hello goes over the wire.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    /// One write a byte.
    Bytes,
    /// A hello split into this many TLS records.
    Records(usize),
}

impl Cut {
    fn all() -> impl Iterator<Item = Self> {
        [Self::Whole, Self::Bytes].into_iter().chain((1..=40).map(Self::Records))
    }

    /// Sends a hello that is one record.
    fn send(self, hello: &[u8], stream: &mut TcpStream) {
        match self {
            Self::Whole => stream.write_all(hello).unwrap(),
            Self::Bytes => hello.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap()),
            Self::Records(count) => {
                let message = &hello[5..];
                let mut records = Vec::new();
                for n in 0..count {
                    let part = &message[message.len() * n / count..message.len() * (n + 1) / count];
                    records.extend_from_slice(&hello[..3]);
                    records.extend((part.len() as u16).to_be_bytes());
                    records.extend_from_slice(part);
                }
                stream.write_all(&records).unwrap();
            }
        }
    }
}

/// Adds a padding extension to a hello.
fn pad(hello: &[u8]) -> Vec<u8> {
    let mut message = hello[5..].to_vec();
    let missing = PADDED - message.len();
    // Type, length, version and random; then session id, cipher suites and compression methods, each behind its length.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(message[at]);
    at += 2 + usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    at += 1 + usize::from(message[at]);
    message.extend(PADDING.to_be_bytes());
    message.extend((missing as u16 - 4).to_be_bytes());
    message.resize(PADDED, 0);
    let extensions = (message.len() - at - 2) as u16;
    message[at..at + 2].copy_from_slice(&extensions.to_be_bytes());
    let length = (message.len() as u32 - 4).to_be_bytes();
    message[1..4].copy_from_slice(&length[1..]);
    let mut record = hello[..3].to_vec();
    record.extend((message.len() as u16).to_be_bytes());
    record.extend(message);
    record
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
