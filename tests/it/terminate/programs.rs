//! Clients and backends that others have written.

use std::process::{Command, Stdio};

use super::Front;
use super::backend::Recorder;
use crate::support::backend::pool;
use crate::support::has;
use crate::support::program::{find, free_address, nginx, output};

fn curl(front: &Front) -> Command {
    let mut curl = Command::new("curl");
    let port = front.address().port();
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(front.file("ca.pem"));
    curl.args(["--resolve", &format!("a.test:{port}:127.0.0.1")]);
    curl
}

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
    let front = Front::with("", "pool = \"p\"\n", &pool("p", "http = true\n", &[site]));
    let base = format!("https://a.test:{}", front.address().port());
    for http in [&["--http1.1"][..], &["--http2"], &["--http1.0", "--no-alpn"]] {
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
fn openssl_resumes_its_session_and_sees_the_certificate() {
    let test = "openssl_resumes_its_session_and_sees_the_certificate";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    for version in ["-tls1_2", "-tls1_3"] {
        let session = front.file(&format!("session{version}"));
        let client = |more: [&str; 1]| {
            let mut client = Command::new("openssl");
            client.args([
                "s_client",
                "-verify_return_error",
                "-servername",
                "a.test",
                "-verify_hostname",
                "a.test",
                version,
            ]);
            client.args(["-ign_eof", more[0]]).arg(&session).arg("-connect").arg(front.address().to_string());
            client
                .arg("-CAfile")
                .arg(front.file("ca.pem"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = client.spawn().unwrap();
            use std::io::Write;
            let ask = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            child.stdin.as_mut().unwrap().write_all(ask).unwrap();
            String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
        };
        let first = client(["-sess_out"]);
        assert!(first.contains("HTTP/1.1 200 OK") && first.contains("New, TLSv1."), "{first}");
        let second = client(["-sess_in"]);
        assert!(second.contains("HTTP/1.1 200 OK") && second.contains("Reused, TLSv1."), "{second}");
    }
}
