//! Splits that know clients by a key: bytes of any protocol and TLS that ends at the backends, through weights, restarts,
//! another instance and the end of the split.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustix::process::Signal;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::backend::{Backend, pool};
use crate::support::sessile::run;
use crate::support::{PATIENCE, Sessile};
use crate::terminate::Front;
use crate::terminate::backend::Recorder;
use crate::terminate::client::{Talk, config, connect};

const CLIENTS: u8 = 200;

/// Two pools behind a split by source, for clients that a PROXY header announces.
struct Site {
    backends: [Backend; 2],
    options: &'static str,
}

impl Site {
    fn new(options: &'static str) -> Self {
        Self { backends: [Backend::named("old"), Backend::named("new")], options }
    }

    fn pools(&self) -> String {
        let pool = |name, at: &Backend| pool(name, self.options, &[at.address]);
        pool("old", &self.backends[0]) + &pool("new", &self.backends[1])
    }

    fn file(&self, old: u16, new: u16) -> String {
        format!(
            "stick_table_file = \"$DIR/stick-table\"\n{}split = \"versions\"\n[[split]]\nname = \"versions\"\nkey = \"source\"\n\
             to = [{{ pool = \"old\", weight = {old} }}, {{ pool = \"new\", weight = {new} }}]\n{}",
            LISTENER,
            self.pools()
        )
    }
}

const LISTENER: &str = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntrust = \"127.0.0.0/8\"\n";

fn address(client: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, client)
}

/// The pool that answers this client.
fn visit(front: SocketAddr, client: u8) -> String {
    let mut stream = TcpStream::connect(front).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let header = format!("PROXY TCP4 {} 192.0.2.255 4711 80\r\nhello\n", address(client));
    stream.write_all(header.as_bytes()).expect("the stream takes bytes");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("an answer");
    line.split(' ').next().unwrap_or_default().to_owned()
}

fn visit_all(sessile: &Sessile) -> Vec<String> {
    let front = sessile.address("l");
    (0..CLIENTS).map(|client| visit(front, client)).collect()
}

fn at_new(pools: &[String]) -> usize {
    pools.iter().filter(|pool| *pool == "new").count()
}

fn accepted(sessile: &Sessile, file: &str) {
    let verdict = sessile.reload(file);
    assert_eq!(verdict["accepted"], true, "{verdict}");
}

fn explained(arguments: &[&str]) -> Value {
    let said = run(&[&["explain", "--json"], arguments].concat());
    serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

#[test]
fn clients_of_bytes_stay_through_weights_a_restart_and_the_end_of_the_split() {
    let site = Site::new("");
    let mut one = Sessile::start(&site.file(9, 1));
    let homes = visit_all(&one);
    assert!((5..45).contains(&at_new(&homes)), "{} of {CLIENTS}", at_new(&homes));
    for (old, new) in [(1, 1), (0, 1), (1, 0)] {
        accepted(&one, &site.file(old, new));
        assert_eq!(visit_all(&one), homes, "weights {old} and {new}");
    }
    one.signal(Signal::TERM);
    assert!(one.wait().success());
    one.restart();
    assert_eq!(visit_all(&one), homes, "a restart");
    let by = |by: &str| one.sum("sessile_split_requests_total", &[&format!("by=\"{by}\"")]);
    assert_eq!([by("stick_table"), by("key"), by("weight")], [f64::from(CLIENTS), 0.0, 0.0]);
    // Where the split ends, the pool that takes its place gets all.
    accepted(&one, &format!("stick_table_file = \"$DIR/stick-table\"\n{LISTENER}pool = \"new\"\n{}", site.pools()));
    assert_eq!(at_new(&visit_all(&one)), usize::from(CLIENTS));
}

#[test]
fn without_a_stick_table_only_the_share_that_changes_moves_and_instances_agree() {
    let site = Site::new("stick_table = \"0\"");
    let (one, two) = (Sessile::start(&site.file(3, 1)), Sessile::start(&site.file(3, 1)));
    let homes = visit_all(&one);
    assert_eq!(visit_all(&two), homes, "another instance");
    accepted(&one, &site.file(1, 1));
    let after = visit_all(&one);
    let gone = homes.iter().zip(&after).filter(|(home, after)| home != after);
    assert!(gone.clone().all(|(home, after)| (&**home, &**after) == ("old", "new")));
    assert!((25..80).contains(&gone.count()), "a quarter of {CLIENTS}");
    accepted(&one, &site.file(3, 1));
    assert_eq!(visit_all(&one), homes, "as before");
    accepted(&two, &site.file(1, 1));
    assert_eq!(visit_all(&two), after, "the other instance");
}

#[test]
fn the_log_and_explain_name_the_split_and_the_pool() {
    let site = Site::new("");
    let sessile = Sessile::start(&site.file(1, 1));
    let (socket, file) = (sessile.admin(), sessile.file());
    let (socket, file) = (socket.to_str().expect("words"), file.to_str().expect("words"));
    for client in 0..6 {
        let address = address(client).to_string();
        let foretold = explained(&["--config", file, "--client", &address]);
        let before = explained(&["--live", "--socket", socket, "--client", &address]);
        let got = visit(sessile.address("l"), client);
        let after = explained(&["--live", "--socket", socket, "--client", &address]);
        for (report, by) in [(&foretold, "key"), (&before, "key"), (&after, "stick_table")] {
            assert_eq!(
                (&report["split"]["pool"], &report["split"]["by"]),
                (&Value::from(&*got), &Value::from(by)),
                "{report}"
            );
            assert_eq!(report["pool"], got, "{report}");
        }
        let line = sessile.line("the connection", |line| {
            line["kind"] == "connection"
                && line["client"].as_str().is_some_and(|seen| seen.starts_with(&format!("{address}:")))
        });
        let said = (&line["split"], &line["split_by"], &line["pool"]);
        assert_eq!(said, (&"versions".into(), &"key".into(), &Value::from(&*got)), "{line}");
    }
}

/// A backend that ends TLS by itself, and answers a byte with its own name.
fn secure(name: &'static str, rules: &Arc<ServerConfig>) -> Backend {
    let rules = Arc::clone(rules);
    Backend::serving(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&rules)).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.read_exact(&mut [0; 1])?;
        stream.write_all(name.as_bytes())
    })
}

fn rules_of_backends(authority: &Authority) -> Arc<ServerConfig> {
    let folder = tempfile::tempdir().expect("a scratch directory");
    let (certificate, key) = authority.mint("a.test").write(folder.path(), "a");
    let certificates = CertificateDer::pem_file_iter(certificate).expect("PEM").collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(key).expect("PEM");
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has these versions");
    let rules = builder.with_no_client_auth().with_single_cert(certificates.expect("certificates"), key);
    Arc::new(rules.expect("a certificate with its key"))
}

#[test]
fn names_inside_tls_that_passes_through_stay_while_weights_change() {
    let authority = Authority::new();
    let rules = rules_of_backends(&authority);
    let (old, new) = (secure("old", &rules), secure("new", &rules));
    let file = |weights: [u16; 2]| {
        format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntls = \"passthrough\"\n\
             route = {{ sni = \"*.a.test\", split = \"versions\" }}\n[[split]]\nname = \"versions\"\nkey = \"sni\"\n\
             to = [{{ pool = \"old\", weight = {} }}, {{ pool = \"new\", weight = {} }}]\n{}{}",
            weights[0],
            weights[1],
            pool("old", "key = \"sni\"", &[old.address]),
            pool("new", "key = \"sni\"", &[new.address])
        )
    };
    let sessile = Sessile::start(&file([1, 1]));
    let client = config(&authority);
    let visit = |name: &str| {
        let mut tls = connect(sessile.address("l"), &client, name);
        tls.write_all(b"x").expect("TLS to the backend");
        let mut name = [0; 3];
        tls.read_exact(&mut name).expect("an answer");
        String::from_utf8_lossy(&name).into_owned()
    };
    let names: Vec<_> = (0..24).map(|number| format!("site-{number}.a.test")).collect();
    let homes: Vec<_> = names.iter().map(|name| visit(name)).collect();
    assert!((4..=20).contains(&at_new(&homes)), "{homes:?}");
    accepted(&sessile, &file([0, 1]));
    assert_eq!(names.iter().map(|name| visit(name)).collect::<Vec<_>>(), homes, "known ones");
    assert!((24..48).all(|number| visit(&format!("site-{number}.a.test")) == "new"), "new ones");
    let line = sessile.line("a connection", |line| line["sni"] == "site-0.a.test" && line["split_by"] == "key");
    assert_eq!((&line["split"], &line["pool"]), (&"versions".into(), &Value::from(&*homes[0])), "{line}");
}

#[test]
fn tls_that_ends_here_leads_to_a_split_of_bytes() {
    let backends = [Backend::named("old"), Backend::named("new")];
    let pools = pool("old", "", &[backends[0].address]) + &pool("new", "", &[backends[1].address]);
    let split = "[[split]]\nname = \"versions\"\nkey = \"source\"\nto = [{ pool = \"old\" }, { pool = \"new\" }]\n";
    let front = Front::with("", "split = \"versions\"\n", &(split.to_owned() + &pools));
    let mut tls = connect(front.address(), &config(&front.authority), "a.test");
    tls.write_all(b"x\n").expect("TLS");
    let mut answer = [0; 6];
    tls.read_exact(&mut answer).expect("an answer");
    drop(tls);
    let line = front.sessile.line("the connection", |line| line["split"] == "versions" && line["kind"] == "connection");
    assert_eq!(line["split_by"], "key", "{line}");
    assert!(answer.starts_with(line["pool"].as_str().expect("a pool").as_bytes()), "{line}");
    assert_eq!(front.sessile.sum("sessile_split_requests_total", &["by=\"key\""]), 1.0);
}

#[test]
fn requests_go_by_a_field_whatever_connection_brings_them() {
    let [old, new] = ["old", "new"].map(Recorder::named);
    let (options, split) = (
        "http = true\nkey = \"header:X-User\"",
        "[[split]]\nname = \"versions\"\nkey = \"header:X-User\"\nto = [{ pool = \"old\" }, { pool = \"new\" }]\n",
    );
    let pools = pool("old", options, &[old.address()]) + &pool("new", options, &[new.address()]);
    let sessile = Sessile::start(&format!("{}split = \"versions\"\n{split}{pools}", listener_of_requests()));
    let mut talk = open(&sessile);
    let visit = |talk: &mut Talk<TcpStream>, user: u32| {
        let body = talk.get("/", &format!("X-User: {user}\r\n")).text();
        body.split(' ').next().unwrap_or_default().to_owned()
    };
    let homes: Vec<_> = (0..40).map(|user| visit(&mut talk, user)).collect();
    assert!((8..=32).contains(&at_new(&homes)), "{homes:?}");
    for user in 0..40 {
        assert_eq!(visit(&mut open(&sessile), user), homes[user as usize], "another connection");
    }
    let turns: Vec<_> = (0..8).map(|_| open(&sessile).get("/", "").text().starts_with("new ")).collect();
    assert!(turns.contains(&true) && turns.contains(&false), "without the field: {turns:?}");
    let by = |by: &str| sessile.sum("sessile_split_requests_total", &[&format!("by=\"{by}\"")]);
    assert_eq!([by("key"), by("stick_table"), by("weight"), by("cookie")], [40.0, 40.0, 8.0, 0.0]);
}

fn listener_of_requests() -> &'static str {
    "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n"
}

fn open(sessile: &Sessile) -> Talk<TcpStream> {
    let stream = TcpStream::connect(sessile.address("l")).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    Talk::new(stream)
}
