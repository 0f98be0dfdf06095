//! HTTP/2 by TLS: what is offered, and what a backend has to agree on.

use h2::server::Builder;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::site::Http2Site;
use super::{H2, plain};
use crate::http2::client::{Client, only};
use crate::support::authority::Authority;

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

#[test]
fn a_backend_that_does_not_agree_is_passed_over() {
    let (other, site) =
        (Http2Site::with(Builder::new(), Some(tls(&[]))), Http2Site::with(Builder::new(), Some(tls(&["h2"]))));
    let options = format!("{H2}balance = \"round_robin\"\nkey = \"none\"\n{VERIFY_OFF}");
    let sessile = plain("", &options, &[other.address, site.address]);
    for _ in 0..4 {
        assert_eq!(Client::plain(sessile.address("l")).get("/", &[]).status, 200);
    }
    assert_eq!((other.seen().connections, site.seen().connections), (0, 4));
    let alone = plain("", &format!("{H2}{VERIFY_OFF}"), &[other.address]);
    assert_eq!(Client::plain(alone.address("l")).get("/", &[]).status, 502);
    let line = alone.line("the request", |line| line["kind"] == "request");
    assert_eq!(line["ended"], "backend_no_http2");
}
