//! nginx as a backend with TLS: its certificate is verified, and the handshake carries the server name it expects.

use std::net::SocketAddr;
use std::process::Command;

use super::{base, curl};
use crate::support::authority::Authority;
use crate::support::has;
use crate::support::program::{Program, find, free_address, nginx, output};
use crate::terminate::Front;

/// Certificate authority of the backends, with the certificates it has signed.
struct Inside {
    dir: tempfile::TempDir,
    address: SocketAddr,
    _nginx: Program,
}

impl Inside {
    fn start(test: &str) -> Option<Self> {
        let program = find(test, "nginx").filter(|_| has(test, "curl") && has(test, "openssl"))?;
        let (dir, authority, address) = (tempfile::tempdir().unwrap(), Authority::new(), free_address());
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(dir.path().join("other.pem"), Authority::new().pem()).unwrap();
        let (certificate, key) = authority.mint("inside.test").write(dir.path(), "inside");
        let say = "$ssl_server_name $ssl_protocol $ssl_session_reused $connection_requests";
        let nginx = nginx(
            &program,
            address,
            &format!(
                "server {{ listen {address} ssl http2; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {}; \
                 ssl_certificate_key {}; location / {{ return 200 \"{say}\\n\"; }} }}",
                certificate.display(),
                key.display()
            ),
        );
        Some(Self { dir, address, _nginx: nginx })
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A listener with a pool that connects to nginx by TLS, by these rules.
    fn front(&self, rules: &str) -> Front {
        Front::start("", &format!("http = true\ntls = {{ {rules} }}\n"), &[self.address])
    }

    /// The public key's pin in the form of a configuration, computed by openssl.
    fn pin(&self) -> String {
        let script = "openssl x509 -in \"$0\" -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256";
        let said = output(Command::new("sh").args(["-c", script]).arg(self.file("inside.pem")));
        format!("sha256:{}", said.trim().rsplit(' ').next().unwrap())
    }
}

#[test]
fn backends_that_prove_who_they_are_are_spoken_to_in_tls() {
    let Some(inside) = Inside::start("backends_that_prove_who_they_are_are_spoken_to_in_tls") else { return };
    let (ca, pin) = (inside.file("ca.pem"), inside.pin());
    for rules in [
        format!("ca = \"{ca}\", sni = \"inside.test\""),
        format!("ca = \"{ca}\", sni = \"inside.test\", pin = \"{pin}\""),
        format!("pin = \"{pin}\", sni = \"inside.test\""),
        "verify = false, sni = \"inside.test\"".to_owned(),
    ] {
        let front = inside.front(&rules);
        let url = base(&front) + "/";
        let said = output(curl(&front).args([&url, &url, &url]));
        let lines: Vec<_> = said.lines().collect();
        let expected = ["1", "2", "3"].map(|count| format!("inside.test TLSv1.3 . {count}"));
        assert_eq!(lines, expected, "one connection, kept: {rules}");
        // The next client's connection to the backend resumes the TLS session.
        assert_eq!(output(curl(&front).arg(&url)), "inside.test TLSv1.3 r 1\n", "{rules}");
    }
}

#[test]
fn backends_that_prove_nothing_are_told_nothing() {
    let Some(inside) = Inside::start("backends_that_prove_nothing_are_told_nothing") else { return };
    let (ca, other, pin) = (inside.file("ca.pem"), inside.file("other.pem"), inside.pin());
    let wrong = format!("sha256:{}", "5f".repeat(32));
    for rules in [
        format!("ca = \"{other}\", sni = \"inside.test\""),
        format!("ca = \"{ca}\", sni = \"elsewhere.test\""),
        // The certificate names no IP address.
        format!("ca = \"{ca}\""),
        format!("pin = \"{wrong}\""),
        format!("ca = \"{other}\", sni = \"inside.test\", pin = \"{pin}\""),
    ] {
        let front = inside.front(&rules);
        let said = output(curl(&front).args(["--write-out", "%{http_code}", "--output", "-"]).arg(base(&front) + "/"));
        assert!(said.ends_with("502") && !said.contains("TLSv1"), "{rules}: {said}");
        let line = front.sessile.line("backend_tls", |line| line["ended"] == "backend_tls");
        assert_eq!(line["backend"], "b0", "{rules}");
    }
}
