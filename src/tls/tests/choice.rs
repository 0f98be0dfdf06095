//! Which certificate is shown, which files are refused, and what a reload changes.

use std::io::{Read, Write};

use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::{AlertDescription, CertificateError, Error, NamedGroup, ProtocolVersion, SignatureScheme};

use super::super::Index;
use super::*;

#[test]
fn the_exact_name_then_one_wildcard_label_then_the_default() {
    let shop = Workshop::new();
    shop.mint("default", &["other.example"]);
    shop.mint("exact", &["www.a.example"]);
    shop.mint("wild", &["*.a.example"]);
    let server = default_of(&shop.load(&site(&["default", "exact", "wild"], ""), None).unwrap());
    for (name, file) in [("www.a.example", "exact"), ("WWW.A.example", "exact"), ("img.a.example", "wild")] {
        assert_eq!(Pair::new(&server, &shop.client(), name).unwrap().shown(), shop.der(file), "{name}");
    }
    // A wildcard stands for one label and not for none; the default has another name, and the client says so.
    for name in ["x.www.a.example", "a.example", "nobody.example"] {
        let refused = Pair::new(&server, &shop.client(), name).err();
        let other_name = |error: &CertificateError| matches!(error, CertificateError::NotValidForNameContext { .. });
        assert!(matches!(refused, Some(Error::InvalidCertificate(error)) if other_name(&error)), "{name}");
    }
    let mut nameless = shop.client();
    nameless.enable_sni = false;
    assert_eq!(Pair::new(&server, &nameless, "other.example").unwrap().shown(), shop.der("default"));
}

#[test]
fn a_name_with_a_dot_at_its_end_is_the_same_name() {
    let shop = Workshop::new();
    shop.mint("default", &["other.example"]);
    shop.mint("exact", &["www.a.example"]);
    shop.mint("wild", &["*.a.example"]);
    let termination = shop.load(&site(&["default", "exact", "wild"], ""), None).unwrap();
    let index = Index::new(termination.certificates(), 0);
    let schemes = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    for (name, file) in [("www.a.example.", "exact"), ("IMG.a.example.", "wild"), ("b.example.", "default")] {
        assert_eq!(index.choose(Some(name), schemes).unwrap().cert[0], shop.der(file), "{name}");
    }
}

#[test]
fn another_than_the_first_may_be_the_default() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    shop.mint("b", &["b.example"]);
    let text = site(&["a", "b"], "").replace("b.pem\"", "b.pem\", default = true");
    let server = default_of(&shop.load(&text, None).unwrap());
    let mut nameless = shop.client();
    nameless.enable_sni = false;
    assert_eq!(Pair::new(&server, &nameless, "b.example").unwrap().shown(), shop.der("b"));
}

#[test]
fn of_one_name_each_client_gets_what_it_can_verify() {
    let shop = Workshop::new();
    shop.mint_rsa("rsa", &["a.example"]);
    shop.mint("ecdsa", &["a.example"]);
    let termination = shop.load(&site(&["rsa", "ecdsa"], ""), None).unwrap();
    let server = default_of(&termination);
    assert_eq!(Pair::new(&server, &shop.client(), "a.example").unwrap().shown(), shop.der("ecdsa"), "the cheaper one");

    let mut only_rsa = provider();
    only_rsa.cipher_suites = vec![cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let mut nameless = shop.client_with(only_rsa.clone());
    nameless.enable_sni = false;
    for client in [shop.client_with(only_rsa), nameless] {
        let pair = Pair::new(&server, &client, "a.example").unwrap();
        assert_eq!(pair.shown(), shop.der("rsa"));
        assert_eq!(pair.server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    }

    let index = Index::new(termination.certificates(), 0);
    let rsa = &[SignatureScheme::RSA_PSS_SHA256];
    assert_eq!(index.choose(Some("a.example"), rsa).unwrap().cert[0], shop.der("rsa"));
    assert_eq!(index.choose(None, rsa).unwrap().cert[0], shop.der("rsa"));
    // The client finds out by handshake_failure, which says more than a server without a certificate could.
    assert_eq!(index.choose(Some("a.example"), &[SignatureScheme::ED25519]).unwrap().cert[0], shop.der("ecdsa"));
}

#[test]
fn a_client_with_nothing_in_common_gets_handshake_failure_whatever_its_name() {
    let shop = Workshop::new();
    shop.mint("ecdsa", &["a.example"]);
    shop.mint_rsa("rsa", &["b.example"]);
    shop.mint("wild", &["*.c.example"]);
    let server = default_of(&shop.load(&site(&["ecdsa", "rsa", "wild"], ""), None).unwrap());
    let old = |suite| {
        let mut old = provider();
        old.cipher_suites = vec![suite];
        shop.client_with(old)
    };
    // TLS 1.3, and signatures of one kind only.
    let verifying = |rsa: bool| {
        let mut modern = provider();
        let algorithms = &mut modern.signature_verification_algorithms;
        let name = |scheme: &SignatureScheme| scheme.as_str().unwrap_or_default().starts_with("RSA");
        algorithms.mapping =
            algorithms.mapping.iter().filter(|(scheme, _)| name(scheme) == rsa).copied().collect::<Vec<_>>().leak();
        shop.client_with(modern)
    };
    let (only_rsa, only_ecdsa) = (
        [old(cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), verifying(true)],
        [old(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), verifying(false)],
    );
    for (clients, names) in
        [(only_rsa, ["a.example", "x.c.example", "unknown.example"]), (only_ecdsa, ["b.example"; 3])]
    {
        for (client, name) in clients.iter().flat_map(|client| names.map(|name| (client, name))) {
            let server_name = rustls::pki_types::ServerName::try_from(name).unwrap();
            let mut client = ClientConnection::new(Arc::new(client.clone()), server_name).unwrap();
            let mut server = ServerConnection::new(server.clone()).unwrap();
            let (mut hello, mut answer) = (Vec::new(), Vec::new());
            client.write_tls(&mut hello).unwrap();
            server.read_tls(&mut &hello[..]).unwrap();
            let error = server.process_new_packets().unwrap_err();
            assert!(matches!(error, Error::PeerIncompatible(_)), "{name}: {error}");
            server.write_tls(&mut answer).unwrap();
            let told = client.read_tls(&mut &answer[..]).map(|_| client.process_new_packets().unwrap_err());
            assert_eq!(told.unwrap(), Error::AlertReceived(AlertDescription::HandshakeFailure), "{name}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_all_at_once() {
    let shop = Workshop::new();
    for name in ["a", "b", "unnamed"] {
        shop.mint(name, if name == "unnamed" { &[] } else { &["a.example"] });
    }
    let read = |file: &str| std::fs::read_to_string(shop.path(file)).unwrap();
    let (first, second) = (read("a.pem"), read("b.pem"));
    let key_of = |pem: &str| pem[pem.find("-----BEGIN PRIVATE KEY").unwrap()..].to_owned();
    let certificate_of = |pem: &str| pem[..pem.find("-----BEGIN PRIVATE KEY").unwrap()].to_owned();
    shop.write("mixed.pem", &format!("{}{}", certificate_of(&first), key_of(&second)));
    shop.write("chain.pem", &format!("{}{}{}", certificate_of(&first), certificate_of(&second), key_of(&first)));
    shop.write("good.pem", &format!("{}{}{}", certificate_of(&first), read("ca.pem"), key_of(&first)));
    shop.write("short.pem", &first[..first.len() / 3]);
    shop.write("nothing.pem", "# nothing\n");
    shop.write("nokey.pem", &certificate_of(&first));
    shop.write("secret.pem", &first.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    shop.write("noise.pem", &format!("{noise}{}", key_of(&first)));
    let files = ["mixed", "chain", "good", "short", "nothing", "nokey", "secret", "noise", "missing", "unnamed"];
    let problems = shop.load(&site(&files, ""), None).unwrap_err();
    let folder = shop.folder.path().to_str().unwrap();
    let found: Vec<_> = problems.iter().map(|problem| problem.replace(folder, "@")).collect();
    let expected = [
        (1, "mixed", "the key in \"@/mixed.pem\" is not this certificate's"),
        (2, "chain", "certificate #2 in it did not sign #1"),
        (4, "short", "a section has no end: the file may be cut short"),
        (5, "nothing", "there is no certificate in it"),
        (6, "nokey", "there is no key in it, only CERTIFICATE"),
        (
            7,
            "secret",
            "its key is encrypted (PKCS #8, ENCRYPTED PRIVATE KEY): store it without a password, \
             as `openssl pkey -in FILE -out NEW` does",
        ),
        (8, "noise", "certificate #1 in it is malformed"),
        (9, "missing", "No such file or directory (os error 2)"),
        (10, "unnamed", "it has no names and is not the default: no client would get it"),
    ];
    let at = |(number, file, what)| format!("listener \"site\": certificate #{number}: cert \"@/{file}.pem\": {what}");
    assert_eq!(found, expected.map(at));
}

#[test]
fn new_content_under_an_old_name_is_shown_to_new_clients_only() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let text = site(&["a"], "");
    let old = shop.load(&text, None).unwrap();
    let old_certificate = shop.der("a");
    let mut living = Pair::new(&default_of(&old), &shop.client(), "a.example").unwrap();
    assert!(shop.load(&text, Some(&old)).unwrap().changes(&old).is_empty());

    shop.mint("a", &["a.example"]);
    let new = shop.load(&text, Some(&old)).unwrap();
    assert_eq!(new.changes(&old), [format!("file \"{}\" changed", shop.path("a.pem").display())]);
    drop(old);
    let server = default_of(&new);
    assert_eq!(Pair::new(&server, &shop.client(), "a.example").unwrap().shown(), shop.der("a"));

    assert_eq!(living.shown(), old_certificate);
    living.client.writer().write_all(b"still here").unwrap();
    living.settle().unwrap();
    let mut heard = [0; 10];
    living.server.reader().read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
}

#[test]
fn certificates_that_end_are_warned_of() {
    let shop = Workshop::new();
    let clock = Clock::default();
    let at = |days: i64| {
        let second = clock.now_s() as i64 + days * 86_400;
        x509_parser::time::ASN1Time::from_timestamp(second).unwrap().to_datetime()
    };
    for (name, from, until) in [("good", -1, 30), ("soon", -1, 2), ("over", -9, -1), ("early", 2, 30)] {
        shop.mint_with(name, &["a.example"], &KeyPair::generate().unwrap(), |params| {
            (params.not_before, params.not_after) = (at(from), at(until));
        });
    }
    let termination = shop.load(&site(&["good", "soon", "over", "early"], ""), None).unwrap();
    let found = termination.warnings(clock.now_s());
    let of_time = found.iter().filter(|warning| !warning.message.contains("its chain is not complete"));
    let words: Vec<_> = of_time.map(|warning| (&*warning.object, warning.message.split("pem\" ").nth(1))).collect();
    assert_eq!(
        words,
        [
            ("listener \"site\": certificate #2", Some("expires in 48 hours")),
            ("listener \"site\": certificate #3", Some("has expired: clients will refuse it")),
            ("listener \"site\": certificate #4", Some("is not good yet: clients will refuse it")),
        ]
    );
}

#[test]
fn keys_that_anybody_can_read_are_warned_of() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    shop.write("ring", &"ab".repeat(32));
    let text = format!("tls.ticket_keys = \"@/ring\"\n{}", site(&["a"], ""));
    let now_s = Clock::default().now_s();
    let exposed = || {
        let warnings = shop.load(&text, None).unwrap().warnings(now_s);
        let exposed = warnings.iter().filter(|warning| warning.message.contains("every user"));
        exposed.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(exposed().is_empty());
    let files = [("tls: ticket_keys", "ring"), ("listener \"site\": certificate #1: cert", "a.pem")];
    files.iter().for_each(|(_, file)| shop.set_mode(file, 0o644));
    let expected = files.map(|(key, file)| {
        format!("{key} \"{}\": it holds a key, and every user can read it", shop.path(file).display())
    });
    assert_eq!(exposed(), expected);
}

#[test]
fn only_what_is_spoken_is_agreed_on() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let http = default_of(&shop.load(&site(&["a"], ""), None).unwrap());
    let http1 = default_of(&shop.load(&site(&["a"], "http2 = false"), None).unwrap());
    let relay = site(&["a"], "").replace("http = true", "alpn = [\"mqtt\", \"x-mqtt\"]");
    let relay = default_of(&shop.load(&relay, None).unwrap());
    let silent = default_of(&shop.load(&site(&["a"], "").replace("http = true", ""), None).unwrap());
    for (server, offered, agreed) in [
        (&http, &["h2", "http/1.1"][..], Ok(Some("h2"))),
        (&http, &["http/1.1", "h2"], Ok(Some("h2"))),
        (&http1, &["h2", "http/1.1"], Ok(Some("http/1.1"))),
        (&http1, &["h2"], Err(())),
        (&http, &[], Ok(None)),
        (&http, &["http/1.0"], Ok(Some("http/1.0"))),
        (&http, &["http/1.0", "http/1.1"], Ok(Some("http/1.1"))),
        (&http, &["http/0.9"], Err(())),
        (&http, &["h2"], Ok(Some("h2"))),
        (&relay, &["x-mqtt", "mqtt"], Ok(Some("mqtt"))),
        (&relay, &["http/1.1"], Err(())),
        (&silent, &["h2"], Ok(None)),
    ] {
        let mut client = shop.client();
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let found = Pair::new(server, &client, "a.example");
        match (found, agreed) {
            (Ok(pair), Ok(agreed)) => assert_eq!(pair.server.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}"),
            (Err(error), Err(())) => assert_eq!(error, Error::NoApplicationProtocol, "{offered:?}"),
            (found, _) => panic!("{offered:?} {:?}", found.err()),
        }
    }
}

#[test]
fn a_route_offers_http2_by_its_own_word() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let mut client = shop.client();
    client.alpn_protocols = ["h2", "http/1.1"].map(Vec::from).to_vec();
    for (own, route) in [("http/1.1", "h2"), ("h2", "http/1.1")] {
        let [own_word, word] = [own, route].map(|agreed| agreed == "h2");
        let rule = "[[listener.route]]\nsni = \"a.example\"\npool = \"site\"";
        let text = site(&["a"], &format!("http2 = {own_word}\n{rule}\nhttp2 = {word}"));
        let termination = shop.load(&text, None).unwrap();
        for (index, agreed) in [(None, own), (Some(0), route)] {
            let server = termination.server("site", index).unwrap().config();
            let pair = Pair::new(&server, &client, "a.example").unwrap();
            assert_eq!(pair.server.alpn_protocol(), Some(agreed.as_bytes()), "{text}");
        }
    }
}

#[test]
fn versions_and_key_exchanges_are_those_of_the_file() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let group = |rules: &str, client: &ClientConfig| {
        let server = default_of(&shop.load(&format!("{rules}\n{}", site(&["a"], "")), None).unwrap());
        Pair::new(&server, client, "a.example").map(|pair| pair.server.negotiated_key_exchange_group().unwrap().name())
    };
    let mut hybrid = provider();
    hybrid.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
    let client = shop.client_with(hybrid);
    assert_eq!(group("", &client), Ok(NamedGroup::X25519MLKEM768));
    assert_eq!(group("tls.groups = \"x25519\"", &client), Ok(NamedGroup::X25519));
    assert!(group("tls.groups = \"secp384r1\"", &client).is_err());

    let mut old = provider();
    old.cipher_suites = vec![cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    let old = shop.client_with(old);
    assert_eq!(group("", &old).map(|_| ()), Ok(()));
    assert!(group("tls.min_version = \"1.3\"", &old).is_err());
}
