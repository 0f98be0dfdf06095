//! HAProxy as the proxy that terminates TLS in front of sessile, and as a backend behind it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{base, curl};
use crate::support::backend::{listener, pool};
use crate::support::program::{Program, find, free_address, output};
use crate::support::{Sessile, has};
use crate::terminate::Front;
use crate::terminate::backend::Recorder;

/// Starts HAProxy with these sections; one of them listens at `address`.
fn haproxy(program: &Path, address: SocketAddr, sections: &str) -> Program {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("haproxy.cfg");
    let defaults = "defaults\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n";
    std::fs::write(&file, format!("global\n maxconn 1000\n{defaults}{sections}")).unwrap();
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(file);
    Program::start(dir, command, address)
}

/// Writes a certificate and its key into one file, the form that HAProxy reads.
fn bundle(front: &Front) -> String {
    let parts = ["a.pem", "a.key"].map(|name| std::fs::read_to_string(front.file(name)).unwrap());
    std::fs::write(front.file("bundle.pem"), parts.concat()).unwrap();
    front.file("bundle.pem").display().to_string()
}

#[test]
fn haproxy_decodes_in_front_and_tells_who_comes_with_which_certificate() {
    let test = "haproxy_decodes_in_front_and_tells_who_comes_with_which_certificate";
    let Some(program) = find(test, "haproxy").filter(|_| has(test, "curl")) else { return };
    let backends = [Recorder::named("x"), Recorder::named("y")];
    let addresses = backends.each_ref().map(Recorder::address);
    // This instance is only there for its certificates.
    let front = Front::start("", "", &addresses);
    let keys = front.file("cookie.keys").display().to_string();
    let cookie = format!("cookie = {{ mode = \"insert\", keys = \"{keys}\" }}\n");
    let sessile = Sessile::start(
        &(listener("p", "trust = [\"127.0.0.0/8\"]\n")
            + &pool("p", &format!("http = true\nbalance = \"round_robin\"\n{cookie}"), &addresses)),
    );
    let [secure, plain] = [free_address(), free_address()];
    let clients = front.file("clients.pem").display().to_string();
    let server = format!("server s {} send-proxy-v2-ssl-cn", sessile.address("l"));
    let _haproxy = haproxy(
        &program,
        secure,
        &format!(
            "listen secure\n mode tcp\n bind {secure} ssl crt {} ca-file {clients} verify optional\n {server}\n\
             listen plain\n mode tcp\n bind {plain}\n {server}\n",
            bundle(&front)
        ),
    );
    let ask = |options: &[&str]| {
        let mut curl = curl(&front);
        curl.args(["--resolve", &format!("a.test:{}:{}", secure.port(), secure.ip()), "--include"]);
        curl.args(options).current_dir(front.dir.path());
        output(curl.arg(format!("https://a.test:{}/", secure.port())))
    };

    let said = ask(&["--cert", "ann.pem", "--key", "ann.key"]);
    assert!(said.contains("X-Forwarded-Proto: https\r\n") && said.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{said}");
    assert!(said.contains("X-Client-Certificate-Subject: CN=ann\r\n"), "{said}");
    let set = said.split("Set-Cookie: ").nth(1).expect("a cookie").split("\r\n").next().unwrap();
    assert!(set.contains("; Secure"), "{set}");
    let line = sessile.line("a request", |line| line["subject"] == "CN=ann");
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");

    // Each request goes to the backend of its cookie, whichever other users share the connection.
    let name = |said: &str| said.split("\r\n\r\n").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let cookie = set.split(';').next().unwrap();
    for _ in 0..6 {
        let again = ask(&["--header", &format!("Cookie: {cookie}")]);
        assert_eq!(name(&again), name(&said));
        assert!(!again.contains("X-Client-Certificate-Subject"), "{again}");
    }

    // Without TLS, no cookie is marked Secure.
    let mut curl = curl(&front);
    let said = output(curl.arg("--include").arg(format!("http://{plain}/")));
    assert!(said.contains("X-Forwarded-Proto: http\r\n") && said.contains("Set-Cookie: SESSILE-"), "{said}");
    assert!(!said.contains("; Secure"), "{said}");
}

#[test]
fn haproxy_learns_from_our_header_who_the_client_is() {
    let test = "haproxy_learns_from_our_header_who_the_client_is";
    let Some(program) = find(test, "haproxy").filter(|_| has(test, "curl")) else { return };
    let site = free_address();
    let facts = "%[src] %[fc_pp_authority] %[fc_pp_unique_id,hex] %[req.hdr(x-client-certificate-subject)] %[dst_port]";
    let say = format!("http-request return status 200 content-type text/plain lf-string \"{facts}\"");
    let _haproxy = haproxy(&program, site, &format!("frontend f\n mode http\n bind {site} accept-proxy\n {say}\n"));
    let tlvs = "send_proxy_tlvs = [\"alpn\", \"authority\", \"unique_id\", \"ssl\", \"crc32c\"]\n";
    let options = format!("http = true\nsend_proxy = \"v2\"\n{tlvs}");
    let ask = "pool = \"p\"\nclient_certificate = { ca = \"$FILES/clients.pem\", required = true }\n";
    let front = Front::with("", ask, &pool("p", &options, &[site]));
    let mut curl = curl(&front);
    curl.args(["--interface", "127.0.0.9", "--cert", "ann.pem", "--key", "ann.key"]).current_dir(front.dir.path());
    let url = base(&front) + "/";
    let said = output(curl.args([&url, &url]));
    let words: Vec<_> = said.split(' ').collect();
    assert_eq!((words[0], words[1], words[3]), ("127.0.0.9", "a.test", "CN=ann"), "{said}");
    assert_eq!(words[2].len(), 32, "{said}");
    assert!(said.ends_with(&format!(" {}", front.address().port())), "{said}");
}
