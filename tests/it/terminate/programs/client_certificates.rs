//! Certificates of clients and for backends, with real programs: openssl and curl show a revoked one, nginx demands one.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::reload::accepted;
use crate::support::authority::{Authority, Minted};
use crate::support::backend::pool;
use crate::support::program::{Program, find, free_address, nginx, output};
use crate::support::sessile::run;
use crate::support::{Sessile, eventually, has};
use crate::terminate::backend::Recorder;

/// A listener that requires certificates of an authority with a revocation list, and two clients.
struct Guarded {
    dir: tempfile::TempDir,
    clients: Authority,
    ann: Minted,
    text: String,
    sessile: Sessile,
}

impl Guarded {
    /// `options`: those of the pool.
    fn start(options: &str, backends: &[SocketAddr]) -> Self {
        let (dir, authority, clients) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
        authority.mint("a.test").write(dir.path(), "a");
        for (name, text) in [("ca.pem", authority.pem()), ("clients.pem", clients.pem())] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let [ann, bob] = ["ann", "bob"].map(|name| clients.mint(name));
        ann.write(dir.path(), "ann");
        bob.write(dir.path(), "bob");
        std::fs::write(dir.path().join("clients.crl"), clients.revocation_list(&[], 3000)).unwrap();
        let listener = "pool = \"p\"\n\
            client_certificate = { ca = \"$FILES/clients.pem\", crl = \"$FILES/clients.crl\" }\n";
        let pools = pool("p", &format!("http = true\n{options}"), backends);
        let text = crate::terminate::config(&dir, "", listener, &pools);
        let sessile = Sessile::start(&text);
        Self { dir, clients, ann, text, sessile }
    }

    /// Puts another text in the place of the list; the verdict of a reload.
    fn publish(&self, list: &str) -> Value {
        std::fs::write(self.dir.path().join("clients.crl"), list).unwrap();
        self.sessile.reload(&self.text)
    }

    /// Output of openssl as this client, which sends one request.
    fn ask(&self, client: &str, version: &str, options: &[&str]) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-servername", "a.test", version, "-ign_eof", "-CAfile", "ca.pem"]).args(options);
        openssl.args(["-cert", &format!("{client}.pem"), "-key", &format!("{client}.key")]);
        openssl.args(["-connect", &self.sessile.address("l").to_string()]).current_dir(self.dir.path());
        let mut child = openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A client closes after a failed handshake without reading its input.
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), request);
        let said = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr)
    }

    /// What curl gets as this client by a version of HTTP; `Err`: its exit code.
    fn fetch(&self, client: &str, version: &str) -> Result<String, Option<i32>> {
        let port = self.sessile.address("l").port();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", "--max-time", "60", version, "--cacert", "ca.pem"]);
        curl.args(["--cert", &format!("{client}.pem"), "--key", &format!("{client}.key")]);
        curl.args(["--resolve", &format!("a.test:{port}:127.0.0.1"), &format!("https://a.test:{port}/")]);
        let said = curl.current_dir(self.dir.path()).output().unwrap();
        let body = || String::from_utf8_lossy(&said.stdout).into_owned();
        if said.status.success() { Ok(body()) } else { Err(said.status.code()) }
    }
}

fn texts(verdict: &Value, key: &str) -> Vec<String> {
    verdict[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_certificate_that_is_revoked_by_a_reload_is_refused_by_name_and_its_session_not_resumed() {
    let test = "a_certificate_that_is_revoked_by_a_reload_is_refused_by_name_and_its_session_not_resumed";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let guarded = Guarded::start("", &[backend.address()]);
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(guarded.ask("ann", version, &["-sess_out", &version[1..]]).contains("New, TLSv1"));
        assert!(guarded.ask("ann", version, &["-sess_in", &version[1..]]).contains("Reused, TLSv1"));
    }
    let verdict = guarded.publish(&guarded.clients.revocation_list(&[&guarded.ann], 3000));
    let changed = format!("file \"{}\" changed", guarded.dir.path().join("clients.crl").display());
    assert_eq!(texts(accepted(&verdict), "changes"), [changed]);
    for version in ["-tls1_2", "-tls1_3"] {
        for options in [&[][..], &["-sess_in", &version[1..]]] {
            let said = guarded.ask("ann", version, options);
            assert!(said.contains("certificate revoked") && !said.contains("HTTP/1.1 200"), "{said}");
        }
        assert!(guarded.ask("bob", version, &[]).contains("HTTP/1.1 200 OK"));
    }
    let line = guarded.sessile.ended("l", "certificate_revoked");
    assert_eq!((&line["alert"], &line["fault"]), (&"sent:certificate_revoked".into(), &"client".into()), "{line}");
    let refused = "sessile_connections_refused_total{listener=\"l\",reason=\"certificate_revoked\"}";
    eventually("the count", || (guarded.sessile.metric(refused) == 4.0).then_some(()));
    assert_eq!(backend.answered(), 6, "four of ann before the reload, two of bob behind it");
}

#[test]
fn lists_that_say_nothing_are_warned_of_or_refused_and_the_old_ones_stay() {
    let test = "lists_that_say_nothing_are_warned_of_or_refused_and_the_old_ones_stay";
    if !has(test, "openssl") {
        return;
    }
    let backend = Recorder::named("b");
    let guarded = Guarded::start("", &[backend.address()]);
    let verdict = guarded.publish(&Authority::new().revocation_list(&[], 3000));
    let [problem] = &texts(&verdict, "problems")[..] else { panic!("{verdict}") };
    assert!(problem.contains(": listener \"l\": client_certificate: crl \""), "{problem}");
    assert!(problem.ends_with("is not signed by CN=the authority of a test, the authority of its name"), "{problem}");
    assert!(guarded.ask("ann", "-tls1_3", &[]).contains("HTTP/1.1 200 OK"), "the old list is in force");
    let checked = run(&["check", guarded.sessile.file().to_str().unwrap(), "--json"]);
    assert_eq!(checked.status.code(), Some(64));
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let line = std::fs::read_to_string(guarded.sessile.file()).unwrap();
    let at = line.lines().position(|line| line.contains("clients.crl")).unwrap() + 1;
    assert_eq!(report["problems"][0]["line"], at, "{report}");

    // One that has expired is taken with a warning, and refuses every certificate.
    let verdict = guarded.publish(&guarded.clients.revocation_list(&[], 2021));
    let warnings = texts(accepted(&verdict), "warnings").join("\n");
    assert!(warnings.contains("has expired: every certificate of this authority is refused"), "{warnings}");
    let said = guarded.ask("ann", "-tls1_3", &[]);
    assert!(said.contains("unknown ca") && !said.contains("HTTP/1.1"), "{said}");
    assert_eq!(guarded.sessile.ended("l", "handshake_failed")["alert"], "sent:unknown_ca");
    guarded.sessile.says("revocation list of CN=the authority of a test in");
}

#[test]
fn the_key_of_a_certificate_holds_by_both_versions_of_http_until_it_is_revoked() {
    let test = "the_key_of_a_certificate_holds_by_both_versions_of_http_until_it_is_revoked";
    if !has(test, "curl") {
        return;
    }
    let backends: Vec<_> = ["b0", "b1", "b2"].map(Recorder::named).into();
    let addresses: Vec<_> = backends.iter().map(Recorder::address).collect();
    let guarded = Guarded::start("key = \"client_certificate\"\n", &addresses);
    let asked = |client: &str| ["--http1.1", "--http2"].map(|version| guarded.fetch(client, version).unwrap());
    let home = |client: &str| {
        for _ in 0..4 {
            asked(client);
        }
        guarded.sessile.line("a request of the client", |line| line["subject"] == format!("CN={client}"))["backend"]
            .clone()
    };
    let (ann, bob) = (home("ann"), home("bob"));
    let of_ann =
        guarded.sessile.lines().into_iter().filter(|line| line["subject"] == "CN=ann" && line["status"] == 200);
    assert!(of_ann.map(|line| line["backend"].clone()).all(|backend| backend == ann));
    accepted(&guarded.publish(&guarded.clients.revocation_list(&[&guarded.ann], 3000)));
    for version in ["--http1.1", "--http2"] {
        assert!(guarded.fetch("ann", version).is_err());
    }
    assert_eq!(home("bob"), bob);
}

/// nginx with TLS that demands a certificate of an authority, and says what it was shown.
struct Demanding {
    dir: tempfile::TempDir,
    inside: Authority,
    address: SocketAddr,
    _nginx: Program,
}

impl Demanding {
    fn start(test: &str) -> Option<Self> {
        let program = find(test, "nginx").filter(|_| has(test, "curl"))?;
        let (dir, inside, address) = (tempfile::tempdir().unwrap(), Authority::new(), free_address());
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, inside.pem()).unwrap();
        let (certificate, key) = inside.mint("inside.test").write(dir.path(), "inside");
        let nginx = nginx(
            &program,
            address,
            &format!(
                "server {{ listen {address} ssl http2; ssl_certificate {}; ssl_certificate_key {}; \
                 ssl_client_certificate {}; ssl_verify_client on; \
                 location / {{ return 200 \"$ssl_client_s_dn $server_protocol\n\"; }} }}",
                certificate.display(),
                key.display(),
                ca.display()
            ),
        );
        Some(Self { dir, inside, address, _nginx: nginx })
    }

    /// A configuration with a pool for each version of HTTP, both with checks.
    fn text(&self) -> String {
        let folder = self.dir.path().display();
        let pool = |name: &str, http: &str| {
            format!(
                "[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{name}\"\n\
                 [[pool]]\nname = \"{name}\"\nhttp = {http}\nbackend = [{{ name = \"n\", address = \"{}\" }}]\n\
                 check = {{ kind = \"https\", path = \"/\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1 }}\n\
                 [pool.tls]\nca = \"{folder}/ca.pem\"\nsni = \"inside.test\"\n\
                 cert = \"{folder}/own.pem\"\nkey = \"{folder}/own.key\"\n",
                self.address
            )
        };
        pool("one", "true") + &pool("two", "\"h2\"")
    }
}

/// What a listener without TLS answers.
fn get(sessile: &Sessile, listener: &str) -> String {
    let url = format!("http://{}/", sessile.address(listener));
    output(Command::new("curl").args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", &url]))
}

#[test]
fn a_backend_that_demands_a_certificate_is_shown_it_by_clients_and_checks_and_a_reload_renews_it() {
    let test = "a_backend_that_demands_a_certificate_is_shown_it_by_clients_and_checks_and_a_reload_renews_it";
    let Some(demanding) = Demanding::start(test) else { return };
    demanding.inside.mint("first").write(demanding.dir.path(), "own");
    let text = demanding.text();
    let sessile = Sessile::start(&text);
    let up = || {
        let pools = sessile.status()["pools"].as_array().unwrap().clone();
        pools.iter().all(|pool| pool["backends"][0]["state"] == "up").then_some(())
    };
    eventually("good checks", up);
    let shown = |subject: &str| [format!("CN={subject} HTTP/1.1\n"), format!("CN={subject} HTTP/2.0\n")];
    assert_eq!(["one", "two"].map(|listener| get(&sessile, listener)), shown("first"));

    // A key of another certificate changes nothing, and its place is named.
    let (_, key) = demanding.inside.mint("second").write(demanding.dir.path(), "next");
    std::fs::copy(&key, demanding.dir.path().join("own.key")).unwrap();
    let verdict = sessile.reload(&text);
    let problems = texts(&verdict, "problems");
    assert_eq!((verdict["accepted"].as_bool(), problems.len()), (Some(false), 2), "{verdict}");
    assert!(problems[0].contains(": pool \"one\": tls: cert \""), "{problems:?}");
    assert!(problems[0].ends_with("own.key\" is not this certificate's"), "{problems:?}");
    assert_eq!(get(&sessile, "one"), shown("first")[0]);

    std::fs::copy(demanding.dir.path().join("next.pem"), demanding.dir.path().join("own.pem")).unwrap();
    assert_eq!(texts(accepted(&sessile.reload(&text)), "changes").len(), 2, "both files");
    assert_eq!(["one", "two"].map(|listener| get(&sessile, listener)), shown("second"));
    eventually("good checks", up);

    // Without the certificate neither clients nor checks are served: nginx answers 400 behind the handshake.
    accepted(&sessile.reload(&text.replace("cert = \"", "# ").replace("key = \"", "# ")));
    assert!(get(&sessile, "one").contains("No required SSL certificate was sent"));
    eventually("bad checks", || {
        let pools = sessile.status()["pools"].as_array().unwrap().clone();
        pools.iter().all(|pool| pool["backends"][0]["state"] == "down").then_some(())
    });
}
