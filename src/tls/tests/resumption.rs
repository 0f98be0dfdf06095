//! Where a session goes on, and where it does not.

use rustls::crypto::aws_lc_rs::cipher_suite;

use super::*;
use crate::tls::LIFETIME_S;

const KEYS: [&str; 3] = ["1", "2", "3"];

fn ring(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("{}\n", key.repeat(64))).collect()
}

fn with_ring(text: &str) -> String {
    format!("tls.ticket_keys = \"@/ring\"\n{text}")
}

/// A client of each version.
fn clients(shop: &Workshop) -> [ClientConfig; 2] {
    let mut old = provider();
    old.cipher_suites = vec![cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    [shop.client(), shop.client_with(old)]
}

#[test]
fn a_session_goes_on_at_another_instance_with_the_same_keys() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    shop.write("ring", &ring(&KEYS));
    let text = with_ring(&site(&["a"], ""));
    let one = default_of(&shop.load(&text, None).unwrap());
    // Another certificate does not end it.
    shop.mint("a", &["a.example"]);
    let two = default_of(&shop.load(&text, None).unwrap());
    shop.write("ring", &format!("# other keys\n\n{}", ring(&["4", "5"])));
    let stranger = default_of(&shop.load(&text, None).unwrap());
    let forgetful = default_of(&shop.load(&site(&["a"], ""), None).unwrap());
    for client in clients(&shop) {
        assert!(resumes(&one, &two, &client, "a.example"));
        assert!(!resumes(&one, &stranger, &client, "a.example"));
        assert!(!resumes(&one, &forgetful, &client, "a.example"));
        assert!(resumes(&forgetful, &forgetful, &client, "a.example"));
    }
}

#[test]
fn a_session_never_goes_on_under_another_name_or_route() {
    let shop = Workshop::new();
    shop.mint("both", &["a.example", "b.example", "c.example"]);
    shop.write("ring", &ring(&KEYS));
    let routes = "client_certificate = { ca = \"@/ca.pem\", required = false }\n\
        [[listener.route]]\nsni = \"b.example\"\nclient_certificate = \"off\"\npool = \"site\"\n\
        [[listener.route]]\nsni = [\"b.example\", \"c.example\"]\nalpn = \"http/1.1\"\nclient_certificate = \"off\"\npool = \"site\"\n\
        [[listener.route]]\nsni = \"c.example\"\npool = \"site\"\nclient_certificate.ca = \"@/ca.pem\"\n";
    let termination = shop.load(&with_ring(&site(&["both"], routes)), None).unwrap();
    let default = default_of(&termination);
    let routes: Vec<_> = (0..3).map(|route| termination.server("site", Some(route)).unwrap().config()).collect();
    for client in clients(&shop) {
        assert!(resumes(&default, &default, &client, "a.example"));
        // Optional and none and other names: each is another route.
        assert!(!resumes(&default, &routes[0], &client, "b.example"));
        assert!(!resumes(&routes[0], &default, &client, "b.example"));
        assert!(!resumes(&routes[0], &routes[1], &client, "b.example"));
        let mut alike = client.clone();
        alike.resumption = Resumption::in_memory_sessions(8);
        // A ticket for one name, shown by a client that asks for another on the same route.
        let first = Pair::new(&routes[1], &alike, "b.example").unwrap();
        assert!(!first.resumed());
        assert!(!Pair::new(&routes[1], &alike, "c.example").unwrap().resumed());
        // Where a certificate is required, no session of a client without one is accepted.
        Pair::new(&default, &alike, "c.example").unwrap();
        assert!(Pair::new(&routes[2], &alike, "c.example").is_err());
    }
}

/// A client that mixes up names: it shows every server the session of `b.example`.
#[derive(Debug)]
struct Confused(Arc<dyn rustls::client::ClientSessionStore>);

impl Confused {
    fn always() -> ServerName<'static> {
        ServerName::try_from("b.example").unwrap()
    }
}

impl rustls::client::ClientSessionStore for Confused {
    fn set_kx_hint(&self, _: ServerName<'static>, group: rustls::NamedGroup) {
        self.0.set_kx_hint(Self::always(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.0.kx_hint(&Self::always())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::always(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::always())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::always());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::always(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::always())
    }
}

#[test]
fn a_ticket_that_names_b_is_noise_where_a_is_asked_for() {
    let shop = Workshop::new();
    shop.mint("both", &["a.example", "b.example"]);
    let server = default_of(&shop.load(&site(&["both"], ""), None).unwrap());
    for mut client in clients(&shop) {
        let store = Confused(Arc::new(rustls::client::ClientSessionMemoryCache::new(8)));
        client.resumption = Resumption::store(Arc::new(store));
        assert!(!Pair::new(&server, &client, "b.example").unwrap().resumed());
        assert!(Pair::new(&server, &client, "b.example").unwrap().resumed());
        assert!(!Pair::new(&server, &client, "a.example").unwrap().resumed());
    }
}

#[test]
fn keys_change_live_and_no_session_breaks() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let text = with_ring(&site(&["a"], ""));
    let instance = |keys: &[&str]| {
        shop.write("ring", &ring(keys));
        default_of(&shop.load(&text, None).unwrap())
    };
    // One instance is always a step ahead of the other.
    let steps = [vec!["1"], vec!["1", "2"], vec!["2", "1"], vec!["2"]].map(|keys| instance(&keys));
    for client in clients(&shop) {
        for (before, after) in steps.iter().zip(&steps[1..]) {
            if !Arc::ptr_eq(before, &steps[2]) {
                assert!(resumes(before, after, &client, "a.example"));
            }
            assert!(resumes(after, before, &client, "a.example") || Arc::ptr_eq(after, &steps[3]));
        }
        assert!(resumes(&steps[2], &steps[3], &client, "a.example"));
        assert!(!resumes(&steps[0], &steps[3], &client, "a.example"));
    }
}

#[test]
fn random_keys_turn_and_live_through_reloads() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let clock = Clock::default();
    let text = site(&["a"], "");
    let old = shop.load_at(&text, None, &clock).unwrap();
    let new = shop.load_at(&text, Some(&old), &clock).unwrap();
    let (before, after) = (default_of(&old), default_of(&new));
    for client in clients(&shop) {
        assert!(resumes(&before, &after, &client, "a.example"));
        let mut patient = client.clone();
        for (pause_s, resumed) in [(0, false), (5 * 3600, true), (6 * 3600, true), (u64::from(LIFETIME_S), false)] {
            // Only the server's clock goes on: the client would not even try.
            patient.time_provider = Arc::new(Clock::default());
            clock.pass(pause_s);
            assert_eq!(Pair::new(&after, &patient, "a.example").unwrap().resumed(), resumed, "{pause_s}");
        }
    }
}

#[test]
fn a_ticket_ends_with_its_time_also_under_a_key_of_a_file() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    shop.write("ring", &ring(&KEYS));
    for (passed_s, resumed) in [(u64::from(LIFETIME_S) - 1, true), (u64::from(LIFETIME_S), false)] {
        let clock = Clock::default();
        let server = default_of(&shop.load_at(&with_ring(&site(&["a"], "")), None, &clock).unwrap());
        for client in clients(&shop) {
            assert!(!Pair::new(&server, &client, "a.example").unwrap().resumed());
            clock.pass(passed_s);
            assert_eq!(Pair::new(&server, &client, "a.example").unwrap().resumed(), resumed, "{passed_s}");
        }
    }
}

#[test]
fn a_client_gets_one_ticket_and_no_early_data() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    let server = default_of(&shop.load(&site(&["a"], ""), None).unwrap());
    let mut client = shop.client();
    client.enable_early_data = true;
    let mut pair = Pair::new(&server, &client, "a.example").unwrap();
    assert_eq!(pair.client.tls13_tickets_received(), 1);
    assert!(pair.client.early_data().is_none());
    let name = ServerName::try_from("a.example").unwrap();
    let mut again = ClientConnection::new(Arc::new(client), name).unwrap();
    assert!(again.early_data().is_none(), "the ticket promises none");
    pair.settle().unwrap();
}

#[test]
fn a_ring_that_is_not_one_is_refused() {
    let shop = Workshop::new();
    shop.mint("a", &["a.example"]);
    for (content, expected) in [
        ("# nothing\n".to_owned(), "there is no key in it"),
        (format!("{}\n\nzz\n", "1".repeat(64)), "line 3: not a key: 64 hexadecimal digits"),
        (ring(&["1", "1"]), "line 2: this key is there twice"),
        ((10..40).map(|n| format!("{n:064}\n")).collect(), "30 keys are too many; the most is 16"),
    ] {
        shop.write("ring", &content);
        let problems = shop.load(&with_ring(&site(&["a"], "")), None).unwrap_err();
        assert_eq!(problems, [format!("tls: ticket_keys \"{}\": {expected}", shop.path("ring").display())]);
    }
}
