//! What is wrong with a file of certificates or keys is named as such, and what clients refuse is warned of.

use rcgen::{Issuer, SigningKey};

use super::*;

const KEY: &str = "-----BEGIN PRIVATE KEY";

/// The only problem of a listener with this certificate, behind its place.
fn problem(shop: &Workshop, certificate: &str) -> String {
    let text = site(&[], "").replace("certificate = []", &format!("certificate = {certificate}"));
    let problems = shop.load(&text, None).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let folder = shop.folder.path().to_str().unwrap();
    problems[0].replace(folder, "@").strip_prefix("listener \"site\": certificate #1: ").unwrap().to_owned()
}

/// The warnings about a certificate, behind its place.
fn warnings(shop: &Workshop, file: &str) -> Vec<String> {
    let termination = shop.load(&site(&[file], ""), None).unwrap();
    let warnings = termination.warnings(Clock::default().now_s());
    let at = format!("\"{}\"", shop.path(&format!("{file}.pem")).display());
    warnings.iter().map(|warning| warning.message.strip_prefix(&at).unwrap().to_owned()).collect()
}

/// Certificate and key of a file.
fn halves(shop: &Workshop, file: &str) -> (String, String) {
    let text = std::fs::read_to_string(shop.path(file)).unwrap();
    let (certificate, key) = text.split_at(text.find(KEY).unwrap());
    (certificate.to_owned(), key.to_owned())
}

/// One DER element: its tag with its length and content, its content, and what follows.
fn element(der: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (length, head) = match der[1] {
        short @ 0..0x80 => (usize::from(short), 2),
        long => {
            let count = usize::from(long & 0x7f);
            (der[2..2 + count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), 2 + count)
        }
    };
    let (whole, rest) = der.split_at(head + length);
    (whole, &whole[head..], rest)
}

fn with_tag(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length[..], content].concat()
}

/// The certificate as version 1: without version and extensions, and signed anew.
fn as_version_1(der: &[u8], issuer: &KeyPair) -> String {
    let (_, certificate, _) = element(der);
    let (_, mut fields, after) = element(certificate);
    let (algorithm, ..) = element(after);
    let mut kept = Vec::new();
    while !fields.is_empty() {
        let (whole, _, rest) = element(fields);
        // [0] is the version, [3] are the extensions (RFC 5280 §4.1).
        if ![0xa0, 0xa3].contains(&whole[0]) {
            kept.extend_from_slice(whole);
        }
        fields = rest;
    }
    let signed = with_tag(0x30, &kept);
    let signature = with_tag(0x03, &[&[0], &issuer.sign(&signed).unwrap()[..]].concat());
    let der = with_tag(0x30, &[&signed[..], algorithm, &signature].concat());
    let base64 = data_encoding::BASE64.encode(&der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[test]
fn a_certificate_of_version_1_is_named() {
    let shop = Workshop::new();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    shop.write("old.pem", &format!("{}{}", as_version_1(certificate.der(), &key), key.serialize_pem()));
    assert_eq!(
        problem(&shop, "{ cert = \"@/old.pem\" }"),
        "cert \"@/old.pem\": it is an X.509 certificate of version 1, which holds no names: clients refuse it; \
         make one of version 3 with subjectAltName"
    );
}

#[test]
fn a_key_with_a_password_is_named_in_every_form() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let (certificate, _) = halves(&shop, "a.pem");
    let traditional = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                       DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nAAAA\nBBBB\n-----END EC PRIVATE KEY-----\n";
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let advice = "store it without a password, as `openssl pkey -in FILE -out NEW` does";
    for (key, form) in [
        (traditional.to_owned(), "traditional form, Proc-Type: 4,ENCRYPTED"),
        (traditional.replace("EC PRIVATE", "RSA PRIVATE"), "traditional form, Proc-Type: 4,ENCRYPTED"),
        (traditional.replace('\n', "\r\n"), "traditional form, Proc-Type: 4,ENCRYPTED"),
        (pkcs8.to_owned(), "PKCS #8, ENCRYPTED PRIVATE KEY"),
    ] {
        shop.write("cert.pem", &certificate);
        shop.write("key.pem", &key);
        shop.write("after.pem", &format!("{certificate}{key}"));
        shop.write("before.pem", &format!("{key}{certificate}"));
        let expected =
            |key: &str, file: &str| format!("{key} \"@/{file}.pem\": its key is encrypted ({form}): {advice}");
        let beside = problem(&shop, "{ cert = \"@/cert.pem\", key = \"@/key.pem\" }");
        assert_eq!(beside, expected("key", "key"));
        for file in ["after", "before"] {
            assert_eq!(problem(&shop, &format!("{{ cert = \"@/{file}.pem\" }}")), expected("cert", file));
        }
    }
}

#[test]
fn the_problems_of_certificate_and_key_are_told_together() {
    let shop = Workshop::new();
    let text = site(&[], "").replace("[]", "[{ cert = \"@/no.pem\", key = \"@/no-key.pem\" }]");
    let problems = shop.load(&text, None).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains(": cert \"") && problems[1].contains(": key \""), "{problems:?}");
}

#[test]
fn a_file_of_another_kind_is_named() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let (certificate, key) = halves(&shop, "a.pem");
    shop.write("key.pem", &key);
    shop.write("empty.pem", "\n");
    std::fs::write(shop.path("binary.pem"), [0x30, 0x82, 1, 2]).unwrap();
    shop.write("request.pem", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    for (file, what) in [
        ("empty", "it is empty"),
        ("binary", "it is binary (DER or PKCS #12) and not PEM"),
        ("request", "there is no certificate in it, only CERTIFICATE REQUEST"),
        ("key", "there is no certificate in it, only PRIVATE KEY"),
    ] {
        let found = problem(&shop, &format!("{{ cert = \"@/{file}.pem\", key = \"@/key.pem\" }}"));
        assert_eq!(found, format!("cert \"@/{file}.pem\": {what}"));
    }
    shop.write("cert.pem", &certificate);
    let swapped = problem(&shop, "{ cert = \"@/a.pem\", key = \"@/cert.pem\" }");
    assert_eq!(swapped, "key \"@/cert.pem\": there is no key in it, only CERTIFICATE");
}

/// A certificate below an authority that is below the one of the shop, with or without that one, as PEM.
fn below_two(shop: &Workshop, change: impl FnOnce(&mut CertificateParams)) -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "between");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let between = params.signed_by(&key, &shop.authority).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    (leaf.pem(), between.pem(), leaf_key.serialize_pem())
}

#[test]
fn a_chain_that_is_not_complete_is_warned_of() {
    let shop = Workshop::new();
    let (leaf, between, key) = below_two(&shop, |_| {});
    shop.write("alone.pem", &format!("{leaf}{key}"));
    shop.write("whole.pem", &format!("{leaf}{between}{key}"));
    let alone = warnings(&shop, "alone");
    let expected = ": its chain is not complete: without the certificate of its issuer CN=between, clients refuse it";
    assert!(alone.len() == 1 && alone[0].starts_with(expected), "{alone:?}");
    assert!(warnings(&shop, "whole").is_empty(), "authorities need not be sent");
    let own_key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&own_key).unwrap();
    shop.write("own.pem", &format!("{}{}", own.pem(), own_key.serialize_pem()));
    assert!(warnings(&shop, "own").is_empty(), "it is its own issuer");
}

#[test]
fn an_issuer_that_has_expired_is_warned_of() {
    let shop = Workshop::new();
    let at = |days: i64| {
        let second = Clock::default().now_s() as i64 + days * 86_400;
        x509_parser::time::ASN1Time::from_timestamp(second).unwrap().to_datetime()
    };
    let (leaf, between, key) = below_two(&shop, |params| (params.not_before, params.not_after) = (at(-9), at(-1)));
    shop.write("whole.pem", &format!("{leaf}{between}{key}"));
    assert_eq!(warnings(&shop, "whole"), [": certificate #2 in it has expired: clients will refuse it"]);
}
