//! One generation of rules judges a connection.

use super::*;
use crate::snapshot::Snapshot;

/// The listener of a file with these keys and the pools `p` and `q`.
fn listener(keys: &str) -> Arc<Listener> {
    let text = format!(
        "[[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{{ name = \"b\", address = \"127.0.0.1:1\" }}]\n\
         [[pool]]\nname = \"q\"\ncheck = \"off\"\nbackend = [{{ name = \"b\", address = \"127.0.0.1:2\" }}]\n\
         [[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\n{keys}\n"
    );
    Arc::clone(&Snapshot::of_text(&text).listeners[0])
}

const OFF: &str = "pool = \"p\"";
const SNI: &str = "tls = \"passthrough\"\nroute = [{ sni = [\"a.test\"], pool = \"q\" }]\n";

fn client() -> ClientInfo {
    ClientInfo { source: Some("192.0.2.1:7".parse().unwrap()), ..ClientInfo::default() }
}

/// True if the rules in force judge a client that was read by others.
fn in_force_judges(client: &ClientInfo, read_by: &str, in_force: &str) -> bool {
    let (read_by, in_force) = (listener(read_by), listener(in_force));
    let judge = client.judged_by(Some(&in_force), &read_by);
    assert!(Arc::ptr_eq(judge, &in_force) || Arc::ptr_eq(judge, &read_by));
    assert!(client.route(judge, 0).is_some() || client.route(&read_by, 0).is_none(), "no client is lost by a reload");
    Arc::ptr_eq(judge, &in_force)
}

#[test]
fn routes_by_name_judge_only_a_connection_whose_hello_was_read() {
    assert!(!in_force_judges(&client(), OFF, SNI));
    let named = ClientInfo { hello_read: true, sni: ServerName::parse("a.test"), ..client() };
    assert!(in_force_judges(&named, SNI, &SNI.replace("\"q\"", "\"p\"")));
    assert!(!in_force_judges(&named, SNI, OFF), "its name would count in the key of a pool that reads none");
    assert!(in_force_judges(&client(), OFF, "pool = \"q\""));
}

#[test]
fn a_verdict_meets_only_rules_that_have_a_pool_for_it() {
    for (entry, key) in [(Entry::Silent, "silent"), (Entry::NotTls, "not_tls")] {
        let client = ClientInfo { entry, ..client() };
        let (with, without) = (format!("{SNI}{key} = \"p\"\n"), SNI);
        assert!(in_force_judges(&client, &with, &with.replace("= \"p\"", "= \"q\"")), "{key}");
        assert!(!in_force_judges(&client, &with, without), "{key}");
        assert!(!in_force_judges(&client, &with, OFF), "{key}: nothing is read ahead there");
    }
}

#[test]
fn a_proxy_header_meets_only_rules_that_would_have_read_it() {
    let trust = |network: &str| format!("{OFF}\ntrust = [\"{network}\"]\nuntrusted = \"direct\"\n");
    let (decoder, other) = (trust("192.0.2.0/24"), trust("198.51.100.0/24"));
    let header = Header::Proxied {
        source: "203.0.113.5:9".parse().unwrap(),
        destination: "203.0.113.1:443".parse().unwrap(),
        tlvs: Box::default(),
    };
    let mut announced = client();
    announced.learn_header(header, &listener(&decoder));
    let mut local = client();
    local.learn_header(Header::Local, &listener(&decoder));
    for client in [announced, local] {
        assert!(in_force_judges(&client, &decoder, &decoder));
        assert!(!in_force_judges(&client, &decoder, &other));
        assert!(!in_force_judges(&client, &decoder, OFF));
    }
    assert!(in_force_judges(&client(), &other, &trust("203.0.113.0/24")), "direct before and after");
    assert!(!in_force_judges(&client(), OFF, &other), "its first bytes were not looked at for a signature");
    assert!(!in_force_judges(&client(), OFF, &decoder));
}

/// Of a long list only those protocols are kept that the rules name by which it was read.
#[test]
fn a_part_of_the_protocols_meets_only_rules_that_look_at_no_others() {
    let rules =
        |alpn: &str| format!("tls = \"passthrough\"\npool = \"p\"\nroute = [{{ alpn = [{alpn}], pool = \"q\" }}]\n");
    let (both, one, other) = (rules("\"h2\", \"mqtt\""), rules("\"h2\""), rules("\"h2\", \"smtp\""));
    let whole = ClientInfo { hello_read: true, alpn: b"\x02h2".to_vec().into(), ..client() };
    assert!(in_force_judges(&whole, &both, &other));
    let part = ClientInfo { alpn_is_part: true, ..whole };
    assert!(in_force_judges(&part, &both, &both));
    assert!(in_force_judges(&part, &both, &one));
    assert!(!in_force_judges(&part, &both, &other), "whether it offers smtp is not known any more");
}

#[test]
fn request_ids_are_unique_and_say_nothing_of_counts() {
    let mut seen = std::collections::HashSet::new();
    let (mut near, mut pairs) = (0, 0);
    for connection in (1..=200).chain((1 << 48) + 1..=(1 << 48) + 200) {
        let mut last: Option<u128> = None;
        for request in 1..=20 {
            let id = request_id(connection, request).to_string();
            assert_eq!(id.len(), 32);
            let number = u128::from_str_radix(&id, 16).unwrap();
            if let Some(last) = last.replace(number) {
                // Bits that change from one request to the next: about half of them, as between random numbers.
                near += u64::from((last ^ number).count_ones());
                pairs += 1;
            }
            assert!(seen.insert(id));
        }
    }
    assert!((62..=66).contains(&(near / pairs)), "{}", near as f64 / pairs as f64);
    assert_eq!(request_id(1, 1), request_id(1, 1), "the log and the reply agree");
}

/// A pool by a TLV meets a connection only if it was read with that TLV in mind, or all of them were kept.
#[test]
fn a_part_of_the_tlvs_meets_only_rules_that_look_at_no_others() {
    let tlv = |kind: u8, length: u16| [&[kind][..], &length.to_be_bytes(), &vec![7; usize::from(length)]].concat();
    let header = |tlvs: &[u8]| Header::Proxied {
        source: "203.0.113.5:9".parse().unwrap(),
        destination: "203.0.113.1:443".parse().unwrap(),
        tlvs: tlvs.into(),
    };
    let keyed = |kinds: &str| {
        format!(
            "{OFF}\ntrust = [\"192.0.2.0/24\"]\n[[pool]]\nname = \"k\"\ncheck = \"off\"\nkey = [{kinds}]\nbackend = [{{ name = \"b\", address = \"127.0.0.1:3\" }}]\n"
        )
    };
    let (both, other) = (keyed("\"tlv:0xe0\", \"source\""), keyed("\"tlv:0xe1\""));
    let short = [tlv(0xe0, 3), tlv(0x04, 100)].concat();
    let long = [tlv(0x04, 3_000), tlv(0xe0, 3), tlv(0x20, 5), tlv(0xe1, 9), tlv(0xe0, 3)].concat();
    for (tlvs, kept, judged) in [(&short, short.clone(), true), (&long, [tlv(0xe0, 3), tlv(0x20, 5)].concat(), false)] {
        let mut client = client();
        client.learn_header(header(tlvs), &listener(&both));
        assert_eq!(*client.tlvs, *kept);
        assert!(in_force_judges(&client, &both, &both));
        assert_eq!(in_force_judges(&client, &both, &other), judged);
    }
}
