//! Clients that misbehave: before they have said what is needed to choose a backend, and after.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::peer::{
    Blackhole, RESET, ask, connect, extension, hear, hello, hello_body, pour, records, reset, rest, say,
};
use super::{Scene, case, run};
use crate::support::PATIENCE;
use crate::support::backend::{Backend, pool};

/// A listener that reads hellos, with one known name.
const KNOWN: &str = "tls = \"passthrough\"\n";
const ROUTE: &str = "[[listener.route]]\nsni = \"known.example\"\npool = \"app\"\n";

fn reading(keys: &str) -> String {
    format!("{KNOWN}{keys}\n{ROUTE}")
}

#[test]
fn clients_that_say_too_little_or_nonsense() {
    let app = Backend::named("b0");
    let greeter = Backend::serving(|mut stream| {
        stream.write_all(b"welcome\n")?;
        let _ = rest(&stream);
        Ok(())
    });
    let tables = "[limits]\nhello_timeout = \"300ms\"\nhello_max = \"16 KiB\"\n".to_owned()
        + &pool("app", "", &[app.address])
        + &pool("greeter", "", &[greeter.address]);
    let whole = hello(Some("known.example"), 400);
    let part = &whole[..100];
    let cut_in_time = |scene: &Scene<'_>| {
        let duration_us = scene.ended()["duration_us"].as_u64().unwrap();
        assert!((300_000..1_000_000).contains(&duration_us), "{}: {duration_us} us", scene.case);
    };
    let cases = vec![
        case("client-goes-silent", &reading(""), |scene| {
            assert_eq!(rest(&connect(scene.address)), Ok(vec![]));
            cut_in_time(scene);
        }),
        case("client-goes-silent-where-that-is-welcome", &reading("silent = \"greeter\""), |scene| {
            assert_eq!(hear(&connect(scene.address)).unwrap(), "welcome\n");
        }),
        case("client-drips-its-hello", &reading(""), |scene| {
            let mut stream = connect(scene.address);
            for byte in &whole {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            cut_in_time(scene);
        }),
        case("client-stops-inside-its-hello", &reading("silent = \"greeter\""), |scene| {
            let streams = [1, 5, 9, whole.len() - 1].map(|length| {
                let stream = connect(scene.address);
                say(&stream, &whole[..length]);
                stream
            });
            for stream in &streams {
                assert_eq!(rest(stream), Ok(vec![]));
            }
        })
        .times(4),
        case("client-resets-before-its-hello", &reading(""), |scene| reset(connect(scene.address))),
        case("client-resets-inside-its-hello", &reading(""), |scene| {
            let stream = connect(scene.address);
            say(&stream, part);
            reset(stream);
        }),
        case("client-closes-before-its-hello", &reading(""), |scene| drop(connect(scene.address))),
        case("client-closes-inside-its-hello", &reading("not_tls = \"app\"\nsilent = \"app\""), |scene| {
            for length in 1..whole.len() {
                say(&connect(scene.address), &whole[..length]);
            }
        })
        .times(whole.len() as u64 - 1),
        case("client-sends-no-tls", &reading("pool = \"app\""), |scene| {
            let streams = ["GET / HTTP/1.1\r\n\r\n", "S", "\x16\x02\x01\x00\x10\x01", "\x15\x03\x01"].map(|text| {
                let stream = connect(scene.address);
                say(&stream, text);
                stream
            });
            streams.iter().for_each(|stream| drop(rest(stream)));
        })
        .times(4),
        case("client-sends-no-tls-where-that-is-welcome", &reading("not_tls = \"app\""), |scene| {
            assert_eq!(ask(&connect(scene.address), "GET /").unwrap(), "b0 GET /\n");
        }),
        case("client-asks-for-an-unknown-name", &reading(""), |scene| {
            for name in [Some("unknown.example"), Some("www.known.example"), None] {
                let stream = connect(scene.address);
                say(&stream, hello(name, 0));
                assert!(rest(&stream).is_ok_and(|answer| answer.is_empty()));
            }
        })
        .times(3),
        case("client-sends-an-endless-hello", &reading("pool = \"app\""), |scene| {
            let stream = connect(scene.address);
            let _ = (&stream).write_all(&hello(Some("known.example"), 17_000));
            let _ = rest(&stream);
        }),
        case("client-sends-a-malformed-hello", &reading("pool = \"app\"\nnot_tls = \"app\""), |scene| {
            for (what, bytes) in malformed() {
                let stream = connect(scene.address);
                say(&stream, bytes);
                assert!(rest(&stream).is_ok_and(|answer| answer.is_empty()), "{what}");
            }
        })
        .times(malformed().len() as u64),
    ];
    run(&tables, cases);
}

#[test]
fn clients_that_say_much_or_name_no_host() {
    let (app, long) = (Backend::named("b0"), hello(Some("known.example"), 64 * 1024));
    let sent = long.clone();
    let whole = Backend::serving(move |mut stream| {
        let mut heard = vec![0; sent.len()];
        stream.read_exact(&mut heard)?;
        assert!(heard == sent, "the hello arrives unchanged");
        stream.write_all(b"whole\n")
    });
    let tables = pool("app", "", &[app.address]) + &pool("whole", "", &[whole.address]);
    let names = ["known.example:443", "[::1]", "*.known.example", "b\u{fc}cher.example", "a\nb=c", "192.0.2.1", ""];
    let logged = |scene: &Scene<'_>| {
        for name in names {
            scene.sessile.line(name, |line| line["listener"] == scene.case && line["sni"] == name);
        }
    };
    let route = format!("{KNOWN}[[listener.route]]\nsni = \"known.example\"\npool = \"whole\"\n");
    let cases = vec![
        case("client-sends-a-long-hello", &route, |scene| {
            let stream = connect(scene.address);
            say(&stream, &long);
            assert_eq!(hear(&stream).unwrap(), "whole\n");
        }),
        case("client-asks-for-what-is-no-name", &reading("pool = \"app\""), |scene| {
            for name in names {
                let stream = connect(scene.address);
                say(&stream, [&hello(Some(name), 0)[..], b"\n"].concat());
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(rest(&stream).unwrap()[..3], *b"b0 ", "{name:?}");
            }
            logged(scene);
        })
        .times(names.len() as u64),
        case("client-asks-for-what-is-no-name-without-a-default", &reading(""), |scene| {
            for name in names {
                let stream = connect(scene.address);
                say(&stream, hello(Some(name), 0));
                assert!(rest(&stream).is_ok_and(|answer| answer.is_empty()), "{name:?}");
            }
            logged(scene);
        })
        .times(names.len() as u64),
    ];
    run(&tables, cases);
}

/// Hellos that break RFC 8446 §4.1.2.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let entry = [&[0, 0, 9][..], b"a.example"].concat();
    let two_names = extension(0, &[&[0, 2 * entry.len() as u8][..], &entry, &entry].concat());
    let (ciphers, compressions) = (&[0x13, 0x01][..], &[0][..]);
    let good = hello_body(&[], ciphers, compressions, &[]);
    let whole = |body: &[u8]| records(body, 1 << 14);
    vec![
        ("a session id of 33 bytes", whole(&hello_body(&[1; 33], ciphers, compressions, &[]))),
        ("half a cipher suite", whole(&hello_body(&[], &[0x13, 0x01, 0x13], compressions, &[]))),
        ("no cipher suite", whole(&hello_body(&[], &[], compressions, &[]))),
        ("no compression method", whole(&hello_body(&[], ciphers, &[], &[]))),
        ("nothing after the random", whole(&good[..34])),
        ("half a random", whole(&good[..20])),
        ("an extension longer than all of them", whole(&hello_body(&[], ciphers, compressions, &[0, 23, 0, 9, 1]))),
        ("bytes behind the extensions", whole(&[&good[..], &[0]].concat())),
        ("two names", whole(&hello_body(&[], ciphers, compressions, &two_names))),
        ("no name in the list", whole(&hello_body(&[], ciphers, compressions, &extension(0, &[0, 0])))),
        ("an empty record inside", {
            let mut bytes = records(&good, 10);
            bytes.splice(15..15, [22, 3, 1, 0, 0]);
            bytes
        }),
        ("another record inside", {
            let mut bytes = records(&good, 10);
            bytes[15] = 23;
            bytes
        }),
    ]
}

/// A backend that tells how each of its connections ended for it, after greeting and echoing a line.
fn witness() -> (Backend, Receiver<Result<Vec<u8>, ErrorKind>>) {
    let (tell, told) = channel();
    let backend = Backend::serving(move |stream| {
        let line = hear(&stream)?;
        say(&stream, line);
        let _ = tell.send(rest(&stream));
        stream.shutdown(Shutdown::Both)
    });
    (backend, told)
}

#[test]
fn clients_that_leave_badly() {
    let blackhole = Blackhole::new();
    let (resets, told_of_reset) = witness();
    let half = Backend::serving(|stream| {
        let all = rest(&stream).expect("an end");
        say(&stream, all);
        say(&stream, "and bye");
        Ok(())
    });
    let pouring = Backend::serving(|stream| pour(&stream));
    let tables = "[limits]\nuser_timeout = \"1s\"\n".to_owned()
        + &pool("blackhole", "", &[blackhole.address])
        + &pool("resets", "", &[resets.address])
        + &pool("half", "", &[half.address])
        + &pool("pouring", "", &[pouring.address]);
    let bulk = |stream: &TcpStream| {
        let mut got = 0;
        let mut buffer = vec![0; 1 << 16];
        while got < 4 << 20 {
            got += (&*stream).read(&mut buffer).expect("bytes");
        }
    };
    let cases = vec![
        case("client-resets-while-we-connect", "pool = \"blackhole\"", |scene| {
            let stream = connect(scene.address);
            scene.open(1);
            reset(stream);
        }),
        case("client-resets-midstream", "pool = \"resets\"", move |scene| {
            let stream = connect(scene.address);
            assert_eq!(ask(&stream, "hello").unwrap(), "hello\n");
            reset(stream);
            assert_eq!(told_of_reset.recv_timeout(PATIENCE).unwrap(), RESET, "the backend sees the reset");
        }),
        case("client-resets-in-bulk", "pool = \"pouring\"", |scene| {
            let stream = connect(scene.address);
            bulk(&stream);
            reset(stream);
        }),
        case("client-half-closes", "pool = \"half\"", |scene| {
            let stream = connect(scene.address);
            say(&stream, "all I have; ");
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&stream).unwrap(), b"all I have; and bye");
        }),
        case("client-stops-reading", "pool = \"pouring\"", |scene| {
            let stream = connect(scene.address);
            scene.ended();
            drop(stream);
        }),
    ];
    run(&tables, cases);
}
