//! Client certificates: asked for, required, refused, and who they name.

use super::*;
use crate::proxy_protocol::ssl::{Shown, Ssl};
use crate::tls::{CertificateExpired, Identity, TlsFacts};

fn asking(required: bool) -> String {
    site(&["a"], &format!("client_certificate = {{ ca = \"@/ca.pem\", required = {required} }}"))
}

fn shop() -> Workshop {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    shop.mint_with("ann", &[], &KeyPair::generate().unwrap(), |params| {
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc");
        params.serial_number = Some(vec![0x12, 0xab].into());
    });
    shop
}

fn identity(termination: &Termination, client: &ClientConfig) -> Result<Option<Identity>, rustls::Error> {
    let server = termination.server("site", None).unwrap();
    let pair = Pair::new(&server.config(), client, "a.example")?;
    Ok(server.identity(&pair.server, UnixTime::now().as_secs()).unwrap())
}

#[test]
fn a_client_is_who_its_certificate_says() {
    let shop = shop();
    let ann = Identity {
        subject: "O=Example\\, Inc,CN=ann".to_owned(),
        common_name: Some("ann".to_owned()),
        serial: "12ab".to_owned(),
    };
    for required in [true, false] {
        let termination = shop.load(&asking(required), None).unwrap();
        let client = shop.client_as("ann");
        for _ in ["full", "resumed"] {
            assert_eq!(identity(&termination, &client).unwrap(), Some(ann.clone()));
        }
    }
}

#[test]
fn a_client_without_a_certificate_is_served_only_where_none_is_required() {
    let shop = shop();
    assert_eq!(identity(&shop.load(&asking(false), None).unwrap(), &shop.client()), Ok(None));
    assert!(identity(&shop.load(&asking(true), None).unwrap(), &shop.client()).is_err());
    assert_eq!(identity(&shop.load(&site(&["a"], ""), None).unwrap(), &shop.client_as("ann")), Ok(None));
}

#[test]
fn a_certificate_of_another_authority_is_refused_even_where_none_is_required() {
    let (here, elsewhere) = (shop(), shop());
    here.write("stranger.pem", &std::fs::read_to_string(elsewhere.path("ann.pem")).unwrap());
    for required in [true, false] {
        let termination = here.load(&asking(required), None).unwrap();
        assert!(identity(&termination, &here.client_as("stranger")).is_err());
    }
}

#[test]
fn a_session_does_not_outlive_the_certificate_that_began_it() {
    let shop = shop();
    let clock = Clock::default();
    let ends_s = clock.now_s() + 3600;
    shop.mint_with("brief", &[], &KeyPair::generate().unwrap(), |params| {
        params.not_after = x509_parser::time::ASN1Time::from_timestamp(ends_s as i64).unwrap().to_datetime();
    });
    let termination = shop.load_at(&asking(true), None, &clock).unwrap();
    let server = termination.server("site", None).unwrap();
    let client = shop.client_as("brief");
    Pair::new(&server.config(), &client, "a.example").unwrap();
    clock.pass(3601);
    let pair = Pair::new(&server.config(), &client, "a.example").unwrap();
    assert!(pair.resumed());
    assert_eq!(server.identity(&pair.server, clock.now_s()), Err(CertificateExpired));
}

#[test]
fn other_authorities_end_sessions() {
    let shop = shop();
    let client = shop.client_as("ann");
    let old = shop.load(&asking(true), None).unwrap();
    let same = shop.load(&asking(true), Some(&old)).unwrap();
    let ca = std::fs::read_to_string(shop.path("ca.pem")).unwrap();
    shop.write("ca.pem", &format!("{ca}{}", Workshop::new().authority.pem()));
    let new = shop.load(&asking(true), Some(&old)).unwrap();
    let [old, same, new] = [old, same, new].map(|termination| default_of(&termination));
    assert!(resumes(&old, &same, &client, "a.example"));
    assert!(!resumes(&old, &new, &client, "a.example"));
}

#[test]
fn the_facts_of_a_handshake_are_told() {
    let shop = shop();
    let server = default_of(&shop.load(&site(&["a"], ""), None).unwrap());
    let mut client = shop.client();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let fresh = ServerConnection::new(server.clone()).unwrap();
    assert_eq!(TlsFacts::of(&fresh), None);
    for resumed in [false, true] {
        let pair = Pair::new(&server, &client, "a.example").unwrap();
        let facts = TlsFacts::of(&pair.server).unwrap();
        let expected = TlsFacts { version: "TLSv1.3", cipher: facts.cipher, alpn: Some(b"http/1.1"), resumed };
        assert_eq!(facts, expected);
        let told = facts.ssl_tlv(None);
        let told = Ssl::read(&told).unwrap();
        assert_eq!((told.tls, told.certificate, told.version), (true, Shown::No, Some(&b"TLSv1.3"[..])));
        assert!(told.cipher.unwrap().starts_with(b"TLS_AES_"), "{:?}", facts.cipher);
        let ann = Identity { subject: String::new(), common_name: Some("ann".to_owned()), serial: String::new() };
        let told = facts.ssl_tlv(Some(&ann));
        let shown = if resumed { Shown::InSession } else { Shown::Now };
        assert_eq!(Ssl::read(&told).map(|told| (told.certificate, told.verified)), Some((shown, true)));
        assert_eq!(Ssl::read(&told).unwrap().common_name, Some(&b"ann"[..]));
    }
}
