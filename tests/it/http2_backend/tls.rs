//! HTTP/2 by TLS: what is offered, and what a backend has to agree on.

use std::time::Instant;

use h2::server::Builder;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::site::Http2Site;
use super::{H2, plain};
use crate::http2::client::{Client, only};
use crate::support::authority::Authority;
use crate::support::backend::{listener, pool};
use crate::support::{PATIENCE, Sessile, eventually};

/// TLS of a backend that agrees on one of these protocols; none: on none.
fn tls(alpn: &[&str]) -> ServerConfig {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = Authority::new().mint("a.test").write(dir.path(), "a");
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

const VERIFY_OFF: &str = "[pool.tls]\nverify = false\n";

#[test]
fn a_backend_agrees_on_http2_by_alpn() {
    let site = Http2Site::with(Builder::new(), Some(tls(&["http/1.1", "h2"])));
    let sessile = plain("", &format!("{H2}{VERIFY_OFF}"), &[site.address]);
    let reply = Client::plain(sessile.address("l")).get("/x", &[]);
    assert_eq!((reply.status, reply.text()), (200, "GET https a.test /x".to_owned()));
    assert_eq!(only(&reply.fields, "x-connection"), Some("1"));
}

/// Protocols of backends that do not speak HTTP/2: one agrees on nothing, the other refuses by an alert.
const WITHOUT_HTTP2: [&[&str]; 2] = [&[], &["http/1.1"]];

#[test]
fn a_backend_that_does_not_agree_is_passed_over_and_ejected() {
    for alpn in WITHOUT_HTTP2 {
        let other = Http2Site::with(Builder::new(), Some(tls(alpn)));
        let site = Http2Site::with(Builder::new(), Some(tls(&["h2"])));
        let options = format!("{H2}balance = \"round_robin\"\nkey = \"none\"\n{VERIFY_OFF}");
        let sessile = plain("", &options, &[other.address, site.address]);
        for _ in 0..12 {
            assert_eq!(Client::plain(sessile.address("l")).get("/", &[]).status, 200);
        }
        assert_eq!((other.seen().connections, site.seen().connections), (0, 12));
        assert_eq!(sessile.status()["pools"][0]["backends"][0]["state"], "ejected", "{alpn:?}");
        let alone = plain("", &format!("{H2}{VERIFY_OFF}"), &[other.address]);
        let began = Instant::now();
        assert_eq!(Client::plain(alone.address("l")).get("/", &[]).status, 502);
        assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
        let line = alone.line("the request", |line| line["kind"] == "request");
        assert_eq!(line["ended"], "backend_no_http2", "{line}");
    }
}

#[test]
fn a_check_by_tls_asks_for_what_the_pool_speaks() {
    let state = |alpn: &[&str]| {
        let site = Http2Site::with(Builder::new(), Some(tls(alpn)));
        let check = "kind = \"tls\"\ninterval = \"50ms\"\nrise = 1\nfall = 1\n";
        let sessile = Sessile::start(
            &(listener("p", "") + &pool("p", H2, &[site.address]).replace("kind = \"off\"", check) + VERIFY_OFF),
        );
        eventually("a check", || {
            let backend = sessile.status()["pools"][0]["backends"][0].clone();
            (backend["state"] != "unchecked").then(|| (backend["state"].clone(), backend["complaint"].clone()))
        })
    };
    assert_eq!(state(&["h2"]).0, "up");
    for alpn in WITHOUT_HTTP2 {
        let (state, complaint) = state(alpn);
        assert_eq!((state, complaint), ("down".into(), "TLS: the backend does not choose \"h2\" by ALPN".into()));
    }
}
