//! Certificates of clients that their authority has revoked, and lists that cannot be used or say nothing any more.

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevokedCertParams, SigningKey};
use rustls::{CertificateError, Error};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::*;
use crate::tls::{CertificateExpired, CertificateTrouble, in_words};

const HOUR_S: i64 = 3600;
const YEAR_S: i64 = 365 * 24 * HOUR_S;

fn asking() -> String {
    site(&["a"], "client_certificate = { ca = \"@/ca.pem\", crl = \"@/clients.crl\", required = false }")
}

/// A list of certificates, good from now on until a time in seconds since 1970.
fn list(
    issuer: &Issuer<'_, impl SigningKey>,
    revoked: &[CertificateDer<'_>],
    until_s: i64,
) -> rcgen::CertificateRevocationList {
    let time = |at_s| ASN1Time::from_timestamp(at_s).unwrap().to_datetime();
    let now_s = i64::try_from(UnixTime::now().as_secs()).unwrap();
    let revoked = revoked.iter().map(|der| RevokedCertParams {
        serial_number: X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec().into(),
        revocation_time: time(now_s - HOUR_S),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: time(now_s - HOUR_S),
        next_update: time(until_s),
        crl_number: vec![1].into(),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap()
}

/// A folder with two certificates of clients, and a list in which these of them are.
fn shop(revoked: &[&str]) -> Workshop {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    for client in ["ann", "bob"] {
        shop.mint(client, &[]);
    }
    publish(&shop, revoked, &Clock::default(), YEAR_S);
    shop
}

/// Writes another list, good for so many seconds.
fn publish(shop: &Workshop, revoked: &[&str], clock: &Clock, life_s: i64) {
    let revoked: Vec<_> = revoked.iter().map(|file| shop.der(file)).collect();
    let until_s = i64::try_from(clock.now_s()).unwrap() + life_s;
    shop.write("clients.crl", &list(&shop.authority, &revoked, until_s).pem().unwrap());
}

fn enters(shop: &Workshop, termination: &Termination, client: &str) -> Result<(), Error> {
    Pair::new(&default_of(termination), &shop.client_as(client), "a.example").map(|_| ())
}

/// Warnings about lists.
fn warnings(termination: &Termination, clock: &Clock) -> Vec<String> {
    let all = termination.warnings(clock.now_s()).into_iter().map(|warning| warning.to_string());
    all.filter(|warning| warning.contains(": client_certificate: crl ")).collect()
}

fn problem(shop: &Workshop) -> String {
    let problems = shop.load(&asking(), None).unwrap_err();
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    let file = format!("listener \"site\": client_certificate: crl \"{}\": ", shop.path("clients.crl").display());
    problem.strip_prefix(&file).unwrap_or_else(|| panic!("{problem}")).to_owned()
}

#[test]
fn a_revoked_certificate_is_refused_and_another_of_its_authority_is_not() {
    let shop = shop(&["ann"]);
    let in_pem = shop.load(&asking(), None).unwrap();
    let until_s = i64::try_from(Clock::default().now_s()).unwrap() + YEAR_S;
    std::fs::write(shop.path("clients.crl"), list(&shop.authority, &[shop.der("ann")], until_s).der()).unwrap();
    let in_der = shop.load(&asking(), None).unwrap();
    for termination in [in_pem, in_der] {
        assert_eq!(enters(&shop, &termination, "ann"), Err(Error::InvalidCertificate(CertificateError::Revoked)));
        assert_eq!(enters(&shop, &termination, "bob"), Ok(()));
        assert_eq!(warnings(&termination, &Clock::default()), [""; 0]);
    }
}

#[test]
fn a_session_is_resumed_under_the_same_list_and_refused_once_its_certificate_is_revoked() {
    let shop = shop(&["bob"]);
    let client = shop.client_as("ann");
    let old = shop.load(&asking(), None).unwrap();
    let same = shop.load(&asking(), Some(&old)).unwrap();
    publish(&shop, &["ann"], &Clock::default(), YEAR_S);
    let new = shop.load(&asking(), Some(&same)).unwrap();
    let [old, same, new] = [old, same, new].map(|termination| default_of(&termination));
    assert!(!Pair::new(&old, &client, "a.example").unwrap().resumed());
    assert!(Pair::new(&same, &client, "a.example").unwrap().resumed());
    let refused = Pair::new(&new, &client, "a.example").map(|_| ()).unwrap_err();
    assert_eq!(refused, Error::InvalidCertificate(CertificateError::Revoked));
}

#[test]
fn an_expired_list_ends_sessions_and_refuses_every_certificate_of_its_authority() {
    let (shop, clock) = (shop(&[]), Clock::default());
    publish(&shop, &[], &clock, 40 * HOUR_S);
    let termination = shop.load_at(&asking(), None, &clock).unwrap();
    let server = termination.server("site", None).unwrap();
    let client = shop.client_as("ann");
    Pair::new(&server.config(), &client, "a.example").unwrap();
    assert!(termination.troubles(clock.now_s()).is_empty());

    clock.pass(31 * HOUR_S as u64);
    let about = format!("revocation list of CN=the authority of a test in \"{}\"", shop.path("clients.crl").display());
    let refused = "every certificate of this authority is refused";
    let soon = format!(" expires in less than 10 hours: then {refused}");
    assert_eq!(termination.troubles(clock.now_s()), [(about.clone(), CertificateTrouble::Hours, soon)]);
    let begun = shop.client_as("bob");
    Pair::new(&server.config(), &begun, "a.example").unwrap();

    clock.pass(9 * HOUR_S as u64);
    let expired = (about, CertificateTrouble::Expired, format!(" has expired: {refused}"));
    assert_eq!(termination.troubles(clock.now_s()), [expired]);
    assert!(
        warnings(&termination, &clock)[0]
            .ends_with(&format!(".crl\": the list of CN=the authority of a test has expired: {refused}"))
    );
    let resumed = Pair::new(&server.config(), &begun, "a.example").unwrap();
    assert!(resumed.resumed());
    assert_eq!(server.identity(&resumed.server, clock.now_s()), Err(CertificateExpired));
    let full = Pair::new(&server.config(), &shop.client_as("ann"), "a.example").map(|_| ()).unwrap_err();
    assert!(in_words(&full).ends_with("with a revocation list that has expired"), "{full:?}");
}

#[test]
fn lists_that_cannot_be_used_are_refused_in_words() {
    let shop = shop(&[]);
    let good = std::fs::read_to_string(shop.path("clients.crl")).unwrap();
    let until_s = i64::try_from(Clock::default().now_s()).unwrap() + YEAR_S;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "another");
    let another = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let namesake = Workshop::new();
    let ca = shop.path("ca.pem").display().to_string();
    let name = "CN=the authority of a test";
    for (text, expected) in [
        (
            list(&another, &[], until_s).pem().unwrap(),
            format!("list #1 in it is of CN=another, which is no authority in \"{ca}\""),
        ),
        (
            good.clone() + &list(&namesake.authority, &[], until_s).pem().unwrap(),
            format!("list #2 in it is not signed by {name}, the authority of its name"),
        ),
        (good.repeat(2), format!("list #2 in it is of {name}, as #1 is: only one list of an authority counts")),
        (String::new(), "it is empty".to_owned()),
        (shop.authority.pem(), "there is no revocation list in it, only CERTIFICATE".to_owned()),
        ("0 is no DER".to_owned(), "it is binary, and not a revocation list in DER".to_owned()),
        (
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned(),
            "list #1 in it is malformed".to_owned(),
        ),
    ] {
        shop.write("clients.crl", &text);
        assert_eq!(problem(&shop), expected);
    }
    std::fs::remove_file(shop.path("clients.crl")).unwrap();
    assert!(problem(&shop).starts_with("No such file"));
}

#[test]
fn an_authority_without_a_list_is_warned_of_and_its_certificates_are_refused() {
    let shop = shop(&[]);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "another");
    let another = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let eve = CertificateParams::default().signed_by(&key, &another).unwrap();
    shop.write("eve.pem", &format!("{}{}", eve.pem(), key.serialize_pem()));
    shop.write("ca.pem", &format!("{}{}", shop.authority.pem(), another.pem()));
    let termination = shop.load(&asking(), None).unwrap();
    let warnings = warnings(&termination, &Clock::default());
    assert!(warnings[0].contains("there is no list of CN=another in it, an authority in"), "{warnings:?}");
    let unknown = Err(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus));
    assert_eq!((enters(&shop, &termination, "ann"), enters(&shop, &termination, "eve")), (Ok(()), unknown));
}
