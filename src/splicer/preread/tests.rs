//! What a connection is before it has a backend: bytes in pieces, probes, hellos that are too much.
//!
//! Opens no socket. Invariant: bytes come through `HeldBytes::add`, as from a worker.

use super::*;
use crate::admission::HelloMemory;
use crate::snapshot::Snapshot;

const READS: &str = "tls = \"passthrough\"\npool = \"p\"\nroute = [{ sni = [\"a.test\"], pool = \"p\" }]\n";

/// A listener with these keys, under these limits.
fn listener(limits: &str, keys: &str) -> Arc<Listener> {
    let text = format!(
        "[limits]\n{limits}\n[[pool]]\nname = \"p\"\ncheck = \"off\"\n\
         backend = [{{ name = \"b\", address = \"127.0.0.1:1\" }}]\n\
         [[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\n{keys}\n"
    );
    Arc::clone(&Snapshot::of_text(&text).listeners[0])
}

fn begun(listener: &Arc<Listener>) -> Preread {
    let mut preread = Preread::default();
    let client = ClientInfo { source: Some("192.0.2.1:7".parse().unwrap()), ..ClientInfo::default() };
    preread.begin(Arc::clone(listener), client).unwrap();
    preread
}

/// A ClientHello in one record, with extensions as they are.
fn hello(extensions: &[u8]) -> Vec<u8> {
    let two = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &two(extensions)].concat();
    let message = [&[1, 0], &two(&body)[..]].concat();
    message.chunks(1 << 14).flat_map(|part| [&[22, 3, 1], &two(part)[..]].concat()).collect()
}

/// A ClientHello padded to about this length.
fn padded(length: usize) -> Vec<u8> {
    let padding = vec![0; length.saturating_sub(60)];
    hello(&[&[0, 21][..], &(padding.len() as u16).to_be_bytes(), &padding].concat())
}

/// A ClientHello that offers these protocols.
fn offering<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<u8> {
    let list: Vec<u8> = names.into_iter().flat_map(|name| [&[name.len() as u8], name.as_bytes()].concat()).collect();
    let two = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    hello(&[&[0, 16][..], &two(&two(&list))].concat())
}

/// Reads these bytes as a worker does, in pieces of the size that is asked for, but at most `most`.
fn read(preread: &mut Preread, mut bytes: &[u8], most: usize, memory: &Arc<HelloMemory>) -> Result<(), Ended> {
    loop {
        match preread.look() {
            PrereadProgress::Known => return Ok(()),
            PrereadProgress::Refused(ended) => return Err(ended),
            PrereadProgress::NoHello(refusal) => return Err(refusal.ended()),
            PrereadProgress::Announced => continue,
            PrereadProgress::More => {}
        }
        let piece = preread.read_size().min(most).min(bytes.len());
        assert!(piece > 0, "more is wanted than there is");
        preread.bytes.add(&bytes[..piece], memory)?;
        bytes = &bytes[piece..];
    }
}

#[test]
fn a_hello_of_any_length_is_read_in_pieces_of_any_size() {
    let listener = listener("", READS);
    for length in [200, 5_000, 17_000, 60_000] {
        let wire = padded(length);
        for most in [1, 100, usize::MAX] {
            let (mut preread, memory) = (begun(&listener), Arc::default());
            read(&mut preread, &wire, most, &memory).unwrap();
            assert_eq!(&*preread.bytes, &wire[..], "unchanged");
            preread.clear();
            assert_eq!(memory.held(), 0);
        }
    }
}

#[test]
fn the_configured_length_is_refused_above() {
    let listener = listener("hello_max = \"4 KiB\"", READS);
    let memory = Arc::default();
    read(&mut begun(&listener), &padded(4_000), usize::MAX, &memory).unwrap();
    assert_eq!(read(&mut begun(&listener), &padded(4_200), 9, &memory), Err(Ended::HelloTooLong));
}

#[test]
fn ordinary_hellos_are_read_while_long_ones_have_used_up_the_memory() {
    let (listener, memory) = (listener("", READS), Arc::new(HelloMemory::default()));
    memory.limit(200_000);
    let (wire, mut held) = (padded(60_000), Vec::new());
    let refused = loop {
        assert!(held.len() <= 3, "more than fits is held");
        let mut preread = begun(&listener);
        // All but the last byte: the client goes on holding it.
        let mut sent = 0;
        let result = loop {
            let piece = preread.read_size().min(wire.len() - 1 - sent);
            if piece == 0 {
                break Ok(());
            }
            assert!(matches!(preread.look(), PrereadProgress::More));
            match preread.bytes.add(&wire[sent..sent + piece], &memory) {
                Ok(()) => sent += piece,
                Err(ended) => break Err(ended),
            }
        };
        match result {
            Ok(()) => held.push(preread),
            Err(ended) => break ended,
        }
    };
    assert_eq!(refused, Ended::HelloMemory);
    assert!((1..=3).contains(&held.len()) && memory.held() <= 200_000, "{}", held.len());
    read(&mut begun(&listener), &padded(2_000), usize::MAX, &memory).unwrap();
    drop(held);
    assert_eq!(memory.held(), 0);
    read(&mut begun(&listener), &wire, usize::MAX, &memory).unwrap();
}

#[test]
fn a_client_chooses_no_memory_that_stays_with_its_connection() {
    let keys = READS.replace("sni = [\"a.test\"]", "alpn = [\"h2\", \"mqtt\"]");
    let listener = listener("", &keys);
    let odd: Vec<_> = (0..6_000).map(|n| format!("p{n:06}")).collect();
    let names = odd.iter().map(String::as_str);
    let wire = offering(["first"].into_iter().chain(names).chain(["h2", "mqtt", "h2"]));
    let mut preread = begun(&listener);
    read(&mut preread, &wire, usize::MAX, &Arc::default()).unwrap();
    assert_eq!(&*preread.client_info.alpn, b"\x05first\x02h2\x04mqtt");
    assert!(preread.client_info.alpn_is_part);
    assert!(preread.client_info.route(&listener, 0).unwrap().route.is_some(), "the condition still sees what decides");

    let list = [&[0, 0][..], &60_000u16.to_be_bytes(), &59_998u16.to_be_bytes(), &[0], &59_995u16.to_be_bytes()];
    let name = hello(&[&list.concat()[..], &[b':'; 59_995]].concat());
    let mut preread = begun(&listener);
    read(&mut preread, &name, usize::MAX, &Arc::default()).unwrap();
    assert!(preread.client_info.sni.is_none());
    assert_eq!(preread.client_info.odd_name.as_deref(), Some(&*":".repeat(100)));
}

const TRUSTS: &str = "trust = [\"192.0.2.0/24\"]\n";

#[test]
fn a_trusted_peer_that_says_nothing_is_a_probe() {
    let (v1, local) = (&b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n"[..], &b"PROXY UNKNOWN\r\n"[..]);
    let (silent, part) = (Ended::Silent, &v1[..9]);
    for (sent, closed, late) in [
        (&b""[..], Ended::Probe, Ended::Probe),
        (part, Ended::ProxyTruncated, Ended::ProxyTruncated),
        (local, Ended::Probe, Ended::Probe),
        (v1, Ended::ClientLeft, silent),
        (&[local, b"\x16"].concat()[..], Ended::HelloTruncated, Ended::HelloTimeout),
    ] {
        let mut preread = begun(&listener("", &format!("{TRUSTS}{READS}")));
        preread.bytes.add(sent, &Arc::default()).unwrap();
        while let PrereadProgress::Announced = preread.look() {}
        assert_eq!(preread.cut_short(), closed, "{}", sent.escape_ascii());
        assert_eq!(preread.timed_out(), Err(late), "{}", sent.escape_ascii());
    }
}

#[test]
fn a_silent_client_is_its_own_fault_and_a_silent_pool_serves_probes_too() {
    let plain = listener("", READS);
    assert_eq!(begun(&plain).timed_out(), Err(Ended::Silent));
    assert_eq!(begun(&plain).cut_short(), Ended::ClientLeft);
    let welcome = listener("", &format!("silent = \"p\"\n{TRUSTS}{READS}"));
    let mut preread = begun(&welcome);
    assert_eq!(preread.timed_out(), Err(Ended::Probe), "its header may still say which client it is");
    preread.bytes.add(b"PROXY UNKNOWN\r\n", &Arc::default()).unwrap();
    while let PrereadProgress::Announced = preread.look() {}
    assert_eq!(preread.timed_out(), Ok(()));
}

#[test]
fn a_refused_header_is_shown_and_nothing_else() {
    let mut preread = begun(&listener("", &format!("{TRUSTS}pool = \"p\"\n")));
    preread.bytes.add(b"PROXY TCP4 ::1 ::1 1 2\r\n", &Arc::default()).unwrap();
    let PrereadProgress::Refused(ended) = preread.look() else { panic!("TCP4 has no IPv6 addresses") };
    assert_eq!(ended, Ended::ProxyMalformed);
    assert_eq!(preread.refused_header(ended).as_deref(), Some("PROXY TCP4 ::1 ::1 1 2"));
    assert_eq!(preread.refused_header(Ended::ClientReset), None);
}
