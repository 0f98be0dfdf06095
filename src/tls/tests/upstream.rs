//! Backends that are believed, and those that are not.

use rustls::server::{ParsedCertificate, WebPkiClientVerifier};

use super::*;
use crate::config::Address;
use crate::tls::Upstream;
use crate::tls::pem::sha256;

/// A backend with the certificate in a file.
fn backend(shop: &Workshop, file: &str) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_file(shop.path(&format!("{file}.pem"))).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![shop.der(file)], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"mqtt".to_vec()];
    Arc::new(config)
}

fn pool(tls: &str) -> String {
    format!(
        "[[listener]]\nname = \"site\"\nbind = \"127.0.0.1:0\"\npool = \"site\"\n\
         [[pool]]\nname = \"site\"\ntls = {{ {tls} }}\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\n"
    )
}

fn upstream(shop: &Workshop, tls: &str) -> Arc<Upstream> {
    shop.load(&pool(tls), None).unwrap().upstream("site").unwrap().clone()
}

fn reach(upstream: &Upstream, backend: &Arc<ServerConfig>) -> Result<Pair, rustls::Error> {
    let address = Address::Tcp("127.0.0.1:1".parse().unwrap());
    Pair::of(ServerConnection::new(backend.clone()).unwrap(), upstream.connect(&address, None).unwrap())
}

fn pin(shop: &Workshop, file: &str) -> String {
    let key = ParsedCertificate::try_from(&shop.der(file)).unwrap().subject_public_key_info().to_vec();
    let hash: String = sha256(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

#[test]
fn only_backends_that_prove_themselves_are_reached() {
    let (shop, elsewhere) = (Workshop::new(), Workshop::new());
    shop.mint("named", &["in.example"]);
    shop.mint("addressed", &["127.0.0.1"]);
    elsewhere.mint("named", &["in.example"]);
    shop.write("stranger.pem", &std::fs::read_to_string(elsewhere.path("named.pem")).unwrap());
    let [named, addressed, stranger] = ["named", "addressed", "stranger"].map(|file| backend(&shop, file));
    let (good, bad) = (pin(&shop, "named"), pin(&shop, "addressed"));
    let cases = [
        ("ca = \"@/ca.pem\", sni = \"in.example\"".to_owned(), [true, false, false]),
        ("ca = \"@/ca.pem\"".to_owned(), [false, true, false]),
        (format!("pin = \"{good}\""), [true, false, false]),
        (format!("pin = [\"{bad}\", \"{good}\"]"), [true, true, false]),
        (format!("ca = \"@/ca.pem\", sni = \"in.example\", pin = \"{good}\""), [true, false, false]),
        (format!("ca = \"@/ca.pem\", sni = \"in.example\", pin = \"{bad}\""), [false, false, false]),
        ("verify = false".to_owned(), [true, true, true]),
    ];
    for (tls, expected) in cases {
        let upstream = upstream(&shop, &tls);
        let found = [&named, &addressed, &stranger].map(|backend| reach(&upstream, backend).is_ok());
        assert_eq!(found, expected, "{tls}");
    }
}

#[test]
fn a_name_is_sent_and_an_address_is_not() {
    let shop = Workshop::new();
    shop.mint("any", &["in.example", "127.0.0.1"]);
    let backend = backend(&shop, "any");
    let sent = |tls: &str| reach(&upstream(&shop, tls), &backend).unwrap().server.server_name().map(str::to_owned);
    assert_eq!(sent("ca = \"@/ca.pem\", sni = \"in.example\"").as_deref(), Some("in.example"));
    assert_eq!(sent("ca = \"@/ca.pem\""), None);
    let unix = Address::Unix("/run/a.sock".into());
    assert!(upstream(&shop, "verify = false").connect(&unix, None).is_ok());
}

#[test]
fn backends_are_offered_what_the_client_agreed_on() {
    let shop = Workshop::new();
    shop.mint("any", &["127.0.0.1"]);
    let text = pool("verify = false").replace("tls = {", "http = true\ntls = {");
    let upstream = shop.load(&text, None).unwrap().upstream("site").unwrap().clone();
    let address = Address::Tcp("127.0.0.1:1".parse().unwrap());
    for (alpn, agreed) in [(Some(&b"http/1.1"[..]), Some(&b"http/1.1"[..])), (Some(b"mqtt"), None), (None, None)] {
        let client = upstream.connect(&address, alpn).unwrap();
        let pair = Pair::of(ServerConnection::new(backend(&shop, "any")).unwrap(), client).unwrap();
        assert_eq!(pair.client.alpn_protocol(), agreed, "{alpn:?}");
    }
}

#[test]
fn sessions_with_backends_go_on_through_reloads_that_change_nothing() {
    let shop = Workshop::new();
    shop.mint("any", &["127.0.0.1"]);
    let (text, backend) = (pool("ca = \"@/ca.pem\""), backend(&shop, "any"));
    let first = shop.load(&text, None).unwrap();
    let same = shop.load(&text, Some(&first)).unwrap();
    let ca = std::fs::read_to_string(shop.path("ca.pem")).unwrap();
    shop.write("ca.pem", &format!("{ca}{}", Workshop::new().authority.pem()));
    let other = shop.load(&text, Some(&same)).unwrap();
    let [first, same, other] = [&first, &same, &other].map(|termination| termination.upstream("site").unwrap());
    assert!(first == same && Arc::ptr_eq(first, same) && first != other);
    assert_eq!([first, same, other].map(|upstream| reach(upstream, &backend).unwrap().resumed()), [false, true, false]);
}

#[test]
fn files_that_are_no_authorities_are_refused() {
    let shop = Workshop::new();
    shop.write("empty.pem", "");
    let problems = shop.load(&pool("ca = \"@/empty.pem\""), None).unwrap_err();
    let expected = format!("pool \"site\": tls: ca \"{}\": it is empty", shop.path("empty.pem").display());
    assert_eq!(problems, [expected]);
    shop.write("noise.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let problems = shop.load(&pool("ca = \"@/noise.pem\""), None).unwrap_err();
    assert!(
        problems[0].ends_with("certificate #1 in it is no authority's: the certificate is malformed"),
        "{problems:?}"
    );
}

/// A backend that serves no client without a certificate of the authority.
fn demanding(shop: &Workshop, file: &str) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_file(shop.path(&format!("{file}.pem"))).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(shop.authority.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider())).build().unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_client_cert_verifier(verifier);
    Arc::new(builder.with_single_cert(vec![shop.der(file)], key).unwrap())
}

#[test]
fn a_backend_that_requests_a_certificate_is_shown_that_of_the_pool() {
    let shop = Workshop::new();
    for (file, names) in [("any", &["127.0.0.1"][..]), ("own", &[]), ("renewed", &[])] {
        shop.mint(file, names);
    }
    let backend = demanding(&shop, "any");
    assert!(reach(&upstream(&shop, "ca = \"@/ca.pem\""), &backend).is_err());
    let text = pool("ca = \"@/ca.pem\", cert = \"@/own.pem\"");
    let first = shop.load(&text, None).unwrap();
    let same = shop.load(&text, Some(&first)).unwrap();
    let own = shop.der("own");
    std::fs::copy(shop.path("renewed.pem"), shop.path("own.pem")).unwrap();
    let other = shop.load(&text, Some(&same)).unwrap();
    assert!(other.changes(&same)[0].ends_with("own.pem\" changed"));
    let [first, same, other] = [&first, &same, &other].map(|termination| termination.upstream("site").unwrap());
    assert!(Arc::ptr_eq(first, same) && first != other);
    // A session of the certificate before is not resumed with the renewed one.
    for (upstream, shown, resumed) in [(first, &own, false), (same, &own, true), (other, &shop.der("renewed"), false)] {
        let pair = reach(upstream, &backend).unwrap();
        assert_eq!((&pair.server.peer_certificates().unwrap()[0], pair.resumed()), (shown, resumed));
    }
}

#[test]
fn a_certificate_for_backends_has_the_rules_of_one_for_clients() {
    let shop = Workshop::new();
    for file in ["own", "stranger"] {
        shop.mint(file, &[]);
    }
    let problems = |more: &str| shop.load(&pool(&format!("verify = false, {more}")), None).unwrap_err();
    let at = |file: &str| shop.path(file).display().to_string();
    let expected = format!(
        "pool \"site\": tls: cert \"{}\": the key in \"{}\" is not this certificate's",
        at("own.pem"),
        at("stranger.pem")
    );
    assert_eq!(problems("cert = \"@/own.pem\", key = \"@/stranger.pem\""), [expected]);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    shop.write("locked.pem", encrypted);
    let found = problems("cert = \"@/own.pem\", key = \"@/locked.pem\"");
    let expected = format!("pool \"site\": tls: key \"{}\": its key is encrypted", at("locked.pem"));
    assert!(found[0].starts_with(&expected), "{found:?}");
    // Old enough that backends refuse it, and open to every user.
    let past = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    };
    shop.mint_with("old", &[], &KeyPair::generate().unwrap(), past);
    shop.set_mode("old.pem", 0o644);
    let loaded = shop.load(&pool("verify = false, cert = \"@/old.pem\""), None).unwrap();
    let warnings: Vec<_> = loaded.warnings(UnixTime::now().as_secs()).iter().map(ToString::to_string).collect();
    let expected = format!("pool \"site\": tls: cert \"{}\" has expired: backends will refuse it", at("old.pem"));
    assert_eq!(warnings[0], expected);
    assert!(warnings[1].contains("every user can read it"), "{warnings:?}");
    assert!(loaded.ends().is_empty() && loaded.certificates().is_empty(), "no listener shows it");
}
