//! Everything that can go wrong with a connection, mixed, two thousand times; and then nothing is left of it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::backend::Backend;
use crate::support::load_support::{Echo, alone, at_rest, descriptors_at_least};
use crate::support::{PATIENCE, Sessile, eventually};

const CONNECTIONS: usize = 2_200;
const THREADS: usize = 44;

/// What clients do, by number.
const KINDS: usize = 12;

/// Free pipes a worker may keep.
const PIPES_KEPT: u64 = 64;

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(stream);
}

/// Backends of every kind; all of them let go when their client does.
fn backends() -> (Vec<SocketAddr>, impl Sized) {
    let echo = Echo::start();
    let resets = Backend::serving(|stream| {
        reset(stream);
        Ok(())
    });
    let resets_later = Backend::serving(|mut stream| {
        let _ = stream.read(&mut [0; 100])?;
        let _ = stream.write(b"half an ans")?;
        reset(stream);
        Ok(())
    });
    let closes = Backend::serving(|_| Ok(()));
    let finishes_first = Backend::serving(|mut stream| {
        stream.write_all(b"bye\n")?;
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(|_| ())
    });
    let floods = Backend::serving(|mut stream| {
        stream.set_write_timeout(Some(PATIENCE))?;
        let block = vec![b'x'; 64 << 10];
        (0..64).try_for_each(|_| stream.write_all(&block))
    });
    let never_reads = Backend::serving(|stream| {
        // Until a reset or an end comes by.
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let gone = || match stream.peek(&mut [0; 1]) {
            Ok(0) => true,
            Ok(_) => SockRef::from(&stream).take_error().is_ok_and(|error| error.is_some()),
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        for _ in 0..100 {
            if gone() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    let refuses = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    refuses.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let refused = refuses.local_addr().expect("an address").as_socket().expect("an address");
    let others = vec![resets, resets_later, closes, finishes_first, floods, never_reads];
    let mut addresses = vec![echo.address, refused];
    addresses.extend(others.iter().map(|backend| backend.address));
    (addresses, (echo, others, refuses))
}

/// Three doors to the same backends; everything ends within seconds.
fn config(addresses: &[SocketAddr]) -> String {
    let mut text = String::from(
        "[limits]\nhello_timeout = \"700ms\"\nidle_timeout = \"1500ms\"\nhalf_close_timeout = \"800ms\"\n\
         max_connections_per_source = 100000\n\
         [[listener]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [[listener]]\nname = \"tls\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\ntls = \"passthrough\"\n\
         [[listener.route]]\nsni = \"*.example\"\npool = \"p\"\n\
         [[listener]]\nname = \"proxied\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\ntrust = [\"127.0.0.0/8\"]\n\
         [[pool]]\nname = \"p\"\nbalance = \"round_robin\"\nconnect_timeout = \"500ms\"\nconnect_budget = \"1s\"\n",
    );
    for (index, address) in addresses.iter().enumerate() {
        text += &format!("[[pool.backend]]\nname = \"b{index}\"\naddress = \"{address}\"\n");
    }
    text + "[pool.check]\nkind = \"off\"\n[pool.eject]\nfailures = 5\nbase = \"50ms\"\nmax = \"100ms\"\n"
}

/// One client's life. What it reads and whether it is reset is not its business.
fn live(kind: usize, doors: &Doors) -> std::io::Result<()> {
    let to = |door: SocketAddr| {
        let stream = TcpStream::connect_timeout(&door, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(Duration::from_millis(300)))?;
        std::io::Result::Ok(stream)
    };
    let to_the_end = |mut stream: TcpStream| std::io::copy(&mut stream, &mut std::io::sink()).map(|_| ());
    match kind {
        0 => {
            let mut stream = to(doors.plain)?;
            stream.write_all(b"hello\n")?;
            let _ = stream.read(&mut [0; 64])?;
        }
        1 => reset(to(doors.plain)?),
        2 => {
            let mut stream = to(doors.plain)?;
            stream.write_all(&[b'x'; 10_000])?;
            let _ = stream.read(&mut [0; 5_000])?;
            reset(stream);
        }
        3 => {
            let mut stream = to(doors.plain)?;
            stream.write_all(b"all I say\n")?;
            stream.shutdown(Shutdown::Write)?;
            to_the_end(stream)?;
        }
        4 => {
            // Sends until the buffers are full, reads nothing, and closes.
            let mut stream = to(doors.plain)?;
            let block = vec![b'x'; 64 << 10];
            let flooded = (0..32).try_for_each(|_| stream.write_all(&block));
            reset(stream);
            flooded?;
        }
        // Sends nothing until the other side ends the connection.
        5 => to_the_end(to(doors.plain)?)?,
        6 => drop(to(doors.plain)?),
        7 => {
            let mut stream = to(doors.tls)?;
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
            to_the_end(stream)?;
        }
        8 | 9 => {
            let mut stream = to(doors.tls)?;
            stream.write_all(&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3])?;
            if kind == 8 {
                reset(stream);
            }
        }
        10 => {
            let mut stream = to(doors.proxied)?;
            stream.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 443\r\nhello\n")?;
            let _ = stream.read(&mut [0; 64])?;
            reset(stream);
        }
        _ => {
            let mut stream = to(doors.proxied)?;
            stream.write_all(b"PROXY TCP4 203.0.")?;
            // Too little, and then nothing, until it is closed.
            to_the_end(stream)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Doors {
    plain: SocketAddr,
    tls: SocketAddr,
    proxied: SocketAddr,
}

fn sum(status: &Value, of: &str) -> u64 {
    status["workers"].as_array().unwrap().iter().map(|worker| worker[of].as_u64().unwrap()).sum()
}

fn leases(status: &Value) -> u64 {
    let backends = status["pools"][0]["backends"].as_array().unwrap();
    backends.iter().map(|backend| backend["leases"].as_u64().unwrap()).sum()
}

#[test]
fn two_thousand_connections_with_every_fault_leave_nothing_over() {
    let _alone = alone();
    descriptors_at_least(0);
    let (addresses, _backends) = backends();
    let sessile = Sessile::start(&config(&addresses));
    let doors =
        Doors { plain: sessile.address("plain"), tls: sessile.address("tls"), proxied: sessile.address("proxied") };
    let before = at_rest(|| sessile.descriptors());
    let run = |thread: usize| {
        thread::spawn(move || {
            for n in 0..CONNECTIONS / THREADS {
                let _ = live((thread * 7 + n) % KINDS, &doors);
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(run).collect();
    let mut pipes_max = 0;
    while threads.iter().any(|thread| !thread.is_finished()) {
        pipes_max = pipes_max.max(sum(&sessile.status(), "pipes"));
        thread::sleep(Duration::from_millis(20));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    eventually("every connection to be gone", || (sessile.status()["admission"]["open"] == 0).then_some(()));
    let status = sessile.status();
    assert_eq!((sum(&status, "connections"), leases(&status)), (0, 0), "{status}");
    assert_eq!(status["admission"]["sources"], 0, "{status}");
    assert_eq!(sum(&status, "panics"), 0);
    let workers = status["workers"].as_array().unwrap().len() as u64;
    let pipes = sum(&status, "pipes");
    assert!(pipes <= workers * PIPES_KEPT, "{pipes} pipes are kept");
    assert_eq!(at_rest(|| sessile.descriptors()), before + 2 * pipes as usize);

    let (mut accepted, mut ended) = (0, BTreeMap::<&str, u64>::new());
    for listener in status["listeners"].as_array().unwrap() {
        assert_eq!(listener["open"], 0, "{listener}");
        accepted += listener["accepted"].as_u64().unwrap();
        for (outcome, count) in listener["ended"].as_object().unwrap() {
            *ended.entry(outcome).or_default() += count.as_u64().unwrap();
        }
    }
    println!("at most {pipes_max} pipes, {pipes} kept; {accepted} accepted: {ended:?}");
    assert_eq!(accepted, CONNECTIONS as u64);
    assert_eq!(ended.values().sum::<u64>(), accepted, "every connection has ended once");
    for outcome in
        ["done", "client_reset", "backend_reset", "idle_timeout", "not_tls", "hello_truncated", "proxy_truncated"]
    {
        assert!(ended.contains_key(outcome), "{outcome} never happened: {ended:?}");
    }
    for outcome in ["panicked", "local_error", "no_descriptor", "no_port", "no_memory"] {
        assert!(!ended.contains_key(outcome), "{ended:?}");
    }
    eventually("a line for every connection", || (sessile.lines().len() == CONNECTIONS).then_some(()));
    assert_eq!(sum(&sessile.status(), "log_dropped"), 0);
}
