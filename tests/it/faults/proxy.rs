//! PROXY headers: cut at every byte, made up, damaged, or saying nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::peer::{ask, connect, connect_from, hear, hello, reset, rest, say};
use super::{Case, Scene, case, run};
use crate::support::backend::{Backend, pool};
use crate::support::{Sessile, eventually};

/// The client that headers here announce.
const ANNOUNCED: &str = "192.0.2.7:4711";

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\r\n";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A v2 header with a command, family and transport, and whatever follows its length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

/// A v2 header with TCP over IPv4 and TLVs.
fn proxied(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 192, 0, 2, 8, 0x12, 0x67, 0x01, 0xbb];
    v2(0x21, 0x11, &[&addresses[..], tlvs].concat())
}

/// A v2 header with a CRC32C TLV, which is wrong by `damage`.
fn checked(damage: u32) -> Vec<u8> {
    let mut bytes = proxied(&[3, 0, 4, 0, 0, 0, 0]);
    let sum = crc32c(&bytes).wrapping_add(damage);
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// CRC32C (Castagnoli), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

fn headers() -> [Vec<u8>; 4] {
    [V1.to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), checked(0), v2(0x20, 0x00, &[])]
}

/// Every header cut after every byte, but for nothing and all.
fn cuts() -> Vec<Vec<u8>> {
    headers().iter().flat_map(|header| (1..header.len()).map(|length| header[..length].to_vec())).collect()
}

/// A listener that trusts this host.
const TRUSTING: &str = "pool = \"app\"\ntrust = [\"127.0.0.0/8\"]";

fn tables(app: &Backend) -> String {
    "[limits]\nhello_timeout = \"600ms\"\n".to_owned() + &pool("app", "", &[app.address])
}

#[test]
fn headers_that_do_not_come_whole() {
    let app = Backend::named("b0");
    let within_one_timeout = |scene: &Scene<'_>| {
        let duration_us = scene.ended()["duration_us"].as_u64().unwrap();
        assert!((600_000..1_100_000).contains(&duration_us), "{}: {duration_us} us", scene.case);
    };
    let all = cuts().len() as u64;
    let cases = vec![
        case("proxy-peer-only-looks", TRUSTING, |scene| drop(connect(scene.address))),
        case("proxy-peer-goes-silent", TRUSTING, |scene| {
            assert_eq!(rest(&connect(scene.address)), Ok(vec![]));
            within_one_timeout(scene);
        }),
        case(
            "proxy-peer-says-local-and-nothing-more",
            &format!("tls = \"passthrough\"\n{TRUSTING}\n{ROUTE}"),
            |scene| {
                let (late, closed) = (connect(scene.address), connect(scene.address));
                let aborted = connect(scene.address);
                for stream in [&late, &closed, &aborted] {
                    say(stream, v2(0x20, 0x00, &[]));
                }
                drop(closed);
                reset(aborted);
                assert_eq!(rest(&late), Ok(vec![]));
            },
        )
        .times(3),
        case("proxy-header-is-cut-by-a-close", TRUSTING, |scene| {
            for cut in cuts() {
                say(&connect(scene.address), cut);
            }
        })
        .times(all),
        case("proxy-header-is-cut-by-time", TRUSTING, |scene| {
            let open = |cut: Vec<u8>| {
                let stream = connect(scene.address);
                say(&stream, cut);
                stream
            };
            let streams: Vec<_> = cuts().into_iter().map(open).collect();
            for stream in &streams {
                assert_eq!(rest(stream), Ok(vec![]));
            }
        })
        .times(all),
        case("proxy-header-is-cut-by-a-reset", TRUSTING, |scene| {
            let stream = connect(scene.address);
            say(&stream, &V1[..20]);
            reset(stream);
        }),
        case("proxy-header-drips", TRUSTING, |scene| {
            let mut stream = connect(scene.address);
            for byte in V1 {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(40));
            }
            within_one_timeout(scene);
        }),
        // One deadline, from accept, for header and hello.
        case("proxy-header-and-then-silence", &format!("tls = \"passthrough\"\n{TRUSTING}\n{ROUTE}"), |scene| {
            let stream = connect(scene.address);
            thread::sleep(Duration::from_millis(500));
            say(&stream, V1);
            assert_eq!(rest(&stream), Ok(vec![]));
            within_one_timeout(scene);
        }),
    ];
    run(&tables(&app), cases);
}

const ROUTE: &str = "[[listener.route]]\nsni = \"known.example\"\npool = \"app\"";

#[test]
fn headers_that_are_wrong() {
    let app = Backend::named("b0");
    let turned_away = |scene: &Scene<'_>, bytes: &[u8]| {
        let stream = connect(scene.address);
        let _ = (&stream).write_all(bytes);
        assert!(!rest(&stream).is_ok_and(|answer| !answer.is_empty()), "{bytes:?} is answered");
    };
    let malformed: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        hello(Some("known.example"), 0),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 4711\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443 1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 65536\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.256 192.0.2.8 4711 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 192.0.2.8 4711 443\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.7 192.0.2.8 4711 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 443\nhi\n".to_vec(),
        [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat(),
        v2(0x11, 0x11, &[0; 12]),
        v2(0x22, 0x11, &[0; 12]),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 35]),
        proxied(&[1, 0, 9, b'h']),
        proxied(&[3, 0, 3, 0, 0, 0]),
    ];
    let long = v2(0x21, 0x11, &[0; 4096]);
    let good = [checked(0), b"hi\n".to_vec()].concat();
    let cases = vec![
        case("proxy-header-is-none", TRUSTING, |scene| {
            malformed.iter().for_each(|bytes| turned_away(scene, bytes));
        })
        .times(malformed.len() as u64),
        case("proxy-header-is-too-long", TRUSTING, |scene| {
            turned_away(scene, &long);
            turned_away(scene, &long[..16]); // the length alone says so
        })
        .times(2),
        case("proxy-header-has-a-bad-checksum", TRUSTING, |scene| {
            let cases = [1, u32::MAX, 1 << 31];
            cases.iter().for_each(|damage| turned_away(scene, &[&checked(*damage)[..], b"hi\n"].concat()));
            let mut flipped = good.clone();
            flipped[19] ^= 1; // an address
            turned_away(scene, &flipped);
        })
        .times(4),
        case("proxy-header-has-a-good-checksum", TRUSTING, |scene| {
            let stream = connect(scene.address);
            say(&stream, &good);
            assert_eq!(hear(&stream).unwrap(), "b0 hi\n");
            drop(stream);
            let line = scene.ended();
            assert_eq!((line["client"].as_str(), line["backend"].as_str()), (Some(ANNOUNCED), Some("b0")));
            assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        }),
    ];
    run(&tables(&app), cases);
}

/// LOCAL and UNKNOWN are served under the peer's own address, by a pick without a key.
#[test]
fn headers_that_announce_nobody() {
    let backends: Vec<_> = (0..8).map(|n| Backend::named(&format!("b{n}"))).collect();
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let nobody: [(&str, Vec<u8>); 6] = [
        ("LOCAL", v2(0x20, 0x00, &[])),
        ("LOCAL with addresses", v2(0x20, 0x11, &[192, 0, 2, 7, 192, 0, 2, 8, 0, 1, 0, 2])),
        ("UNSPEC", v2(0x21, 0x00, &[])),
        ("UNIX", v2(0x21, 0x31, &[0; 216])),
        ("UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec()),
        ("UNKNOWN with addresses", b"PROXY UNKNOWN 2001:db8::1 2001:db8::2 1 2\r\n".to_vec()),
    ];
    const EACH: usize = 8;
    let cases = vec![
        case("proxy-header-says-local", "pool = \"app\"\ntrust = [\"127.0.0.0/8\"]", |scene| {
            let mut answers = std::collections::BTreeSet::new();
            for (what, header) in nobody.iter().flat_map(|one| [one; EACH]) {
                let stream = connect_from(([127, 0, 0, 5], 0).into(), scene.address);
                let own = stream.local_addr().unwrap().to_string();
                say(&stream, header);
                answers.insert(ask(&stream, "hi").unwrap());
                drop(stream);
                let line = scene.sessile.line(what, |line| line["client"] == own.as_str());
                assert!(line["peer"].is_null(), "{what}: {line}");
            }
            // 48 connections from one address, 8 backends: with a key it would be one.
            assert!(answers.len() > 3, "{answers:?}");
        })
        .times((nobody.len() * EACH) as u64),
    ];
    let sessile = run(&pool("app", "", &addresses), cases);
    assert_eq!(keyless(&sessile), (nobody.len() * EACH) as f64);
}

/// A proxy with an IPv6 client on an IPv4 socket, or the reverse, writes TCP6 with the IPv4 address as it is.
#[test]
fn headers_that_mix_families() {
    let app = Backend::named("b0");
    let lines = [
        ("PROXY TCP6 2001:db8::7 192.0.2.8 4711 443\r\n", "[2001:db8::7]:4711"),
        ("PROXY TCP6 192.0.2.7 2001:db8::8 4711 443\r\n", "192.0.2.7:4711"),
        ("PROXY TCP6 192.0.2.9 192.0.2.8 4711 443\r\n", "192.0.2.9:4711"),
    ];
    let cases = vec![
        case("proxy-header-mixes-families", TRUSTING, |scene| {
            for (line, client) in lines {
                let stream = connect(scene.address);
                say(&stream, line);
                assert_eq!(ask(&stream, "hi").unwrap(), "b0 hi\n");
                drop(stream);
                scene.sessile.line(client, |logged| logged["client"] == client);
            }
        })
        .times(lines.len() as u64),
    ];
    run(&tables(&app), cases);
}

#[test]
fn a_refused_header_stands_in_the_log_at_debug() {
    let app = Backend::named("b0");
    let start = |level: &str| {
        let log = format!("[log]\nformat = \"json\"\nlevel = \"{level}\"\n");
        let listener = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n{TRUSTING}\n");
        let sessile = Sessile::start(&(log + &pool("app", "", &[app.address]) + &listener));
        for bytes in [&b"PROXY TCP4 ::1 ::1 4711 443\r\nsecret\r\n"[..], b"\x1b[2J\xff and what follows\n"] {
            let stream = connect(sessile.address("l"));
            say(&stream, bytes);
            let _ = rest(&stream);
        }
        let both = || sessile.lines().iter().filter(|line| line["ended"] == "proxy_malformed").count() == 2;
        eventually("both endings", || both().then_some(()));
        sessile
    };
    let sessile = start("debug");
    let said =
        eventually("both headers", || Some(sessile.said()).filter(|said| said.matches("PROXY header").count() == 2));
    assert!(said.contains("PROXY TCP4 ::1 ::1 4711 443") && said.contains("x1b[2J"), "{said}");
    assert!(!said.contains("secret") && !said.contains('\x1b'), "{said}");
    let quiet = start("info");
    assert!(!quiet.said().contains("PROXY header"), "{}", quiet.said());
}

fn keyless(sessile: &Sessile) -> f64 {
    let page = sessile.metrics();
    let listeners = page.lines().filter_map(|line| line.strip_prefix("sessile_keyless_connections_total{"));
    listeners.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Peers outside `trust`.
#[test]
fn strangers() {
    let app = Backend::named("b0");
    let outside = "pool = \"app\"\ntrust = [\"10.0.0.0/8\", \"127.0.0.99\"]";
    let direct = format!("{outside}\nuntrusted = \"direct\"");
    let reading = format!("tls = \"passthrough\"\nnot_tls = \"app\"\n{direct}\n{ROUTE}");
    let spoofs = || [V1.to_vec(), b"PROXY UNKNOWN\r\n".to_vec(), proxied(&[]), v2(0x20, 0x00, &[])];
    let cases: Vec<Case<'_>> = vec![
        case("proxy-peer-is-a-stranger", outside, |scene| {
            for bytes in [V1, b"hi\n", b""] {
                let stream = connect(scene.address);
                let _ = (&stream).write_all(bytes);
                assert!(!rest(&stream).is_ok_and(|answer| !answer.is_empty()));
            }
        })
        .times(3),
        case("proxy-header-from-a-stranger", &reading, |scene| {
            for bytes in spoofs() {
                let whole = connect(scene.address);
                let _ = (&whole).write_all(&[&bytes[..], &hello(Some("known.example"), 0)].concat());
                assert!(!rest(&whole).is_ok_and(|answer| !answer.is_empty()));
                let bit_by_bit = connect(scene.address);
                bit_by_bit.set_nodelay(true).unwrap();
                for byte in &bytes {
                    if (&bit_by_bit).write_all(&[*byte]).is_err() {
                        break;
                    }
                }
                assert!(!rest(&bit_by_bit).is_ok_and(|answer| !answer.is_empty()));
            }
        })
        .times(8),
        // Without preread the backend receives the bytes unchanged, under the address of the peer.
        case("proxy-header-from-a-stranger-unread", &direct, |scene| {
            let stream = connect(scene.address);
            let own: SocketAddr = stream.local_addr().unwrap();
            assert_eq!(ask(&stream, "PROXY UNKNOWN\r").unwrap(), "b0 PROXY UNKNOWN\r\n");
            drop(stream);
            assert_eq!(scene.ended()["client"], own.to_string());
        }),
        case("stranger-without-a-header", &reading, |scene| {
            let stream = connect(scene.address);
            assert_eq!(ask(&stream, "PROXIMATE").unwrap(), "b0 PROXIMATE\n");
            let stream = connect(scene.address);
            say(&stream, hello(Some("known.example"), 0));
            assert_eq!(ask(&stream, "").unwrap().as_bytes()[..3], *b"b0 ");
        })
        .times(2),
    ];
    run(&tables(&app), cases);
}
