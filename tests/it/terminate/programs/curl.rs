//! curl: kept connections, uploads, 100-continue, parallel transfers, and HTTP/2 where curl has it.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use super::{base, curl};
use crate::support::backend::{Backend, listener, pool};
use crate::support::program::{find, free_address, nginx, output};
use crate::support::{Sessile, has};
use crate::terminate::Front;
use crate::terminate::backend::Recorder;

const GIB: usize = 1 << 30;

#[test]
fn curl_asks_uploads_and_waits_for_100() {
    let test = "curl_asks_uploads_and_waits_for_100";
    let Some(program) = find(test, "nginx").filter(|_| has(test, "curl")) else { return };
    let site = free_address();
    let root = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..8_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    std::fs::write(root.path().join("big"), &bytes).unwrap();
    let server = format!(
        "server {{ listen {site}; root {root}; location /up {{ dav_methods PUT; client_max_body_size 100m; }} \
         location /say {{ return 200 \"$http_x_forwarded_proto $http_host\\n\"; }} }}",
        root = root.path().display()
    );
    std::fs::create_dir(root.path().join("up")).unwrap();
    let _nginx = nginx(&program, site, &server);
    let front = Front::start("", "http = true\n", &[site]);
    let base = base(&front);
    for http in [&["--http1.1"][..], &["--http2"], &["--http1.0"], &["--http1.0", "--no-alpn"]] {
        let said = output(curl(&front).args(http).args([&format!("{base}/say"), &format!("{base}/say")]));
        assert_eq!(said, format!("https a.test:{0}\nhttps a.test:{0}\n", front.address().port()), "{http:?}");
    }
    let got = root.path().join("got");
    output(curl(&front).arg(format!("{base}/big")).arg("-o").arg(&got));
    assert!(std::fs::read(&got).unwrap() == bytes);
    output(curl(&front).arg("-T").arg(&got).args(["-H", "Expect: 100-continue"]).arg(format!("{base}/up/one")));
    assert!(std::fs::read(root.path().join("up/one")).unwrap() == bytes);
    output(curl(&front).arg("-T").arg(&got).args(["-H", "Transfer-Encoding: chunked"]).arg(format!("{base}/up/two")));
    assert!(std::fs::read(root.path().join("up/two")).unwrap() == bytes);
}

#[test]
fn a_gibibyte_goes_down_and_another_up_unchanged() {
    let test = "a_gibibyte_goes_down_and_another_up_unchanged";
    if !has(test, "curl") {
        return;
    }
    let warehouse = warehouse();
    let front = Front::start("", "http = true\n", &[warehouse.address]);
    let url = base(&front) + "/gib";

    let mut child = curl(&front).arg(&url).stdout(Stdio::piped()).spawn().unwrap();
    let (length, sum) = summed(child.stdout.as_mut().unwrap());
    assert!(child.wait().unwrap().success());
    assert_eq!((length, sum), (GIB, sum_of_a_gibibyte()));

    let mut child = curl(&front).args(["-T", "-", &url]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    write_a_gibibyte(&mut child.stdin.take().unwrap()).expect("curl takes it all");
    let said = child.wait_with_output().unwrap();
    assert!(said.status.success());
    assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("{GIB} {sum}"));
}

#[test]
fn http2_is_spoken_where_tls_passes_through_and_where_it_ends_unless_a_route_is_without() {
    let test = "http2_is_spoken_where_tls_passes_through_and_where_it_ends_unless_a_route_is_without";
    let Some(program) = find(test, "nginx").filter(|_| has(test, "curl")) else { return };
    let [inside, behind] = [free_address(), free_address()];
    let route = "pool = \"p\"\n[[listener.route]]\nsni = \"through.a.test\"\ntls = \"passthrough\"\npool = \"q\"\n\
                 [[listener.route]]\nsni = \"without.a.test\"\nhttp2 = false\npool = \"p\"\n";
    let pools = pool("p", "http = true\n", &[inside]) + &pool("q", "", &[behind]);
    let front = Front::with("", route, &pools);
    let (certificate, key) = (front.file("a.pem"), front.file("a.key"));
    let say = "location / { return 200 \"$server_protocol $server_port\"; }";
    let _nginx = nginx(
        &program,
        inside,
        &format!(
            "server {{ listen {inside}; {say} }}\nserver {{ listen {behind} ssl http2; ssl_certificate {}; \
             ssl_certificate_key {}; {say} }}",
            certificate.display(),
            key.display()
        ),
    );
    let port = front.address().port();
    let ask = |name: &str, http: &str| {
        let mut curl = curl(&front);
        curl.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), http, "--write-out", " %{http_version}"]);
        output(curl.arg(format!("https://{name}:{port}/")))
    };
    for _ in 0..3 {
        assert_eq!(ask("through.a.test", "--http2"), format!("HTTP/2.0 {} 2", behind.port()));
        assert_eq!(ask("a.test", "--http2"), format!("HTTP/1.1 {} 2", inside.port()));
        assert_eq!(ask("a.test", "--http1.1"), format!("HTTP/1.1 {} 1.1", inside.port()));
        assert_eq!(ask("through.a.test", "--http1.1"), format!("HTTP/1.1 {} 1.1", behind.port()));
    }
    // A client that offers no other protocol than a route takes fails in the handshake, not later.
    let mut only = std::process::Command::new("openssl");
    only.args(["s_client", "-alpn", "h2", "-servername", "without.a.test", "-connect", &front.address().to_string()]);
    let said = only.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("no application protocol"), "{said}");
}

#[test]
fn an_upgrade_to_http2_is_not_passed_on() {
    let test = "an_upgrade_to_http2_is_not_passed_on";
    if !has(test, "curl") {
        return;
    }
    let backend = Recorder::named("b");
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "http = true\n", &[backend.address()])));
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--http2", "--write-out"]);
    let said = output(curl.arg(" %{http_version}").arg(format!("http://{}/", sessile.address("l"))));
    assert!(said.starts_with("b 0 0 0\nGET / HTTP/1.1\r\n") && said.ends_with(" 1.1"), "{said}");
    let lower = said.to_ascii_lowercase();
    assert!(!lower.contains("upgrade") && !lower.contains("http2-settings") && !lower.contains("h2c"), "{said}");
}

#[test]
fn a_tunnel_is_refused() {
    let test = "a_tunnel_is_refused";
    if !has(test, "curl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    let mut curl = curl(&front);
    curl.args(["--noproxy", "", "--proxytunnel", "--proxy", &base(&front), "--proxy-cacert"]).arg(front.file("ca.pem"));
    let said = curl.args(["--write-out", "%{http_connect}", "http://elsewhere.test/"]).output().unwrap();
    assert!(!said.status.success());
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "501");
    front.sessile.ended("l", "request_refused");
    assert_eq!(backend.connections(), 0);
}

/// A backend that sends a gibibyte, and replies with length and checksum of a chunked upload.
fn warehouse() -> Backend {
    Backend::serving(|stream| {
        let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let mut stream = &stream;
        if head.starts_with("GET ") {
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n").as_bytes())?;
            return write_a_gibibyte(&mut stream);
        }
        assert!(head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        let (mut length, mut sum, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            match usize::from_str_radix(line.trim_end(), 16).expect("a size") {
                0 => break,
                size => {
                    let mut chunk = vec![0; size];
                    reader.read_exact(&mut chunk)?;
                    (length, sum) = (length + size, crc32c::crc32c_append(sum, &chunk));
                    reader.read_exact(&mut [0; 2])?;
                }
            }
        }
        let said = format!("{length} {sum}");
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len()).as_bytes())
    })
}

/// Pieces that differ from their neighbours, so that a lost, doubled or misplaced one is noticed.
fn pieces() -> impl Iterator<Item = Vec<u8>> {
    const PIECE: usize = 1 << 16;
    let noise: Vec<u8> = (0..2 * PIECE as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    (0..GIB / PIECE).map(move |index| {
        let mut piece = noise[index % PIECE..][..PIECE].to_vec();
        piece[..8].copy_from_slice(&index.to_be_bytes());
        piece
    })
}

fn write_a_gibibyte(to: &mut impl Write) -> std::io::Result<()> {
    pieces().try_for_each(|piece| to.write_all(&piece))
}

fn sum_of_a_gibibyte() -> u32 {
    pieces().fold(0, |sum, piece| crc32c::crc32c_append(sum, &piece))
}

/// Length and checksum of all bytes up to the end.
fn summed(from: &mut impl Read) -> (usize, u32) {
    let (mut length, mut sum, mut piece) = (0, 0, vec![0; 1 << 16]);
    loop {
        match from.read(&mut piece).expect("bytes") {
            0 => return (length, sum),
            n => (length, sum) = (length + n, crc32c::crc32c_append(sum, &piece[..n])),
        }
    }
}
