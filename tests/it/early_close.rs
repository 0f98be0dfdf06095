//! A backend that accepts and ends every connection without a byte: it is ejected, and its clients go to others.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::backend::{Backend, pool};
use crate::support::{PATIENCE, Sessile};
use crate::terminate::{Front, client};

const CLIENTS: u8 = 90;
const BALANCES: [&str; 7] = ["hash", "ring", "maglev", "round_robin", "least_connections", "two_choices", "random"];

/// Two backends that answer a request, behind one that resets every connection, or closes it, once it was sent something.
fn backends(resets: bool) -> Vec<Backend> {
    let good = || {
        Backend::serving(|stream| {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        })
    };
    let bad = Backend::serving(move |mut stream| {
        // A reset before that could come before the connection stands, and be a failed connect.
        let _read = stream.read(&mut [0; 1024])?;
        if resets { SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)) } else { Ok(()) }
    });
    vec![bad, good(), good()]
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}

/// A pool for each balance, with a listener of the same name.
fn pools(options: &str, addresses: &[SocketAddr]) -> String {
    let one = |balance: &&str| {
        format!("[[listener]]\nname = \"{balance}\"\nbind = \"127.0.0.1:0\"\npool = \"{balance}\"\n")
            + &pool(balance, &format!("balance = \"{balance}\"\n{options}"), addresses)
    };
    BALANCES.iter().map(one).collect()
}

/// A connection from an address that each number has of its own.
fn connect(address: SocketAddr, number: u8) -> TcpStream {
    let source: IpAddr = Ipv4Addr::new(127, 0, 11, number).into();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(source, 0).into()).expect("a loopback address");
    socket.connect(&address.into()).expect("the listener accepts");
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// True if a client gets its answer. Each has an address of its own.
fn is_served(address: SocketAddr, number: u8) -> bool {
    answers(connect(address, number))
}

fn answers(mut stream: impl Read + Write) -> bool {
    let mut answer = Vec::new();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_end(&mut answer)).ok();
    answer.starts_with(b"HTTP/1.1 200")
}

fn lost(address: SocketAddr) -> usize {
    (1..=CLIENTS).filter(|number| !is_served(address, *number)).count()
}

fn state(sessile: &Sessile, pool: &str) -> Value {
    let backends = sessile.json("/backends");
    let is_bad = |backend: &&Value| backend["pool"] == pool && backend["name"] == "b0";
    backends.as_array().unwrap().iter().find(is_bad).expect("the backend")["state"].clone()
}

/// No balance loses more than ten clients at the bad backend.
fn loses_few(options: &str, backends: &[Backend]) {
    let sessile = Sessile::start(&pools(options, &addresses(backends)));
    for balance in BALANCES {
        let lost = lost(sessile.address(balance));
        assert!(lost <= 10, "{balance} {options}: {lost} of {CLIENTS}");
        assert!(lost == 0 || state(&sessile, balance) == "ejected", "{balance} {options}");
    }
}

#[test]
fn a_backend_that_resets_loses_few_clients_under_every_balance() {
    let backends = backends(true);
    loses_few("http = true", &backends);
    loses_few("eject = { early_close = true }", &backends);
}

#[test]
fn a_backend_that_closes_without_an_answer_loses_few_clients_under_every_balance() {
    let backends = backends(false);
    loses_few("http = true", &backends);
    loses_few("eject = { early_close = true }", &backends);
}

#[test]
fn connections_without_an_answer_do_not_count_where_the_pool_says_so_or_reads_no_http() {
    let backends = backends(true);
    for options in ["http = true\neject = { early_close = false }", ""] {
        let sessile = Sessile::start(&pools(options, &addresses(&backends)));
        assert_eq!(lost(sessile.address("round_robin")), usize::from(CLIENTS) / 3, "{options}");
    }
}

#[test]
fn a_client_that_sends_nothing_or_leaves_first_is_no_failure_of_the_backend() {
    let backends = backends(false);
    let options = "eject = { failures = 1, early_close = true }";
    let sessile = Sessile::start(&pools(options, &addresses(&backends)));
    let address = sessile.address("round_robin");
    for _ in 0..9 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    assert_eq!(state(&sessile, "round_robin"), "unchecked");
}

#[test]
fn bytes_behind_tls_are_judged_alike() {
    let backends = backends(true);
    let options = "balance = \"round_robin\"\neject = { early_close = true }";
    let front = Front::start("", options, &addresses(&backends));
    let config = client::config(&front.authority);
    let is_served = |number| answers(client::over(connect(front.address(), number), &config, "a.test"));
    let lost = (1..=30).filter(|number| !is_served(*number)).count();
    assert!((1..=4).contains(&lost), "{lost} of 30");
    assert_eq!(state(&front.sessile, "p"), "ejected");
}

/// Backends that end what they do not understand without a byte, as servers of databases do.
fn picky() -> Vec<Backend> {
    let one = || {
        Backend::serving(|stream| {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if !line.starts_with("GET ") {
                return Ok(());
            }
            while line.len() > 2 {
                line.clear();
                reader.read_line(&mut line)?;
            }
            (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n")
        })
    };
    vec![one(), one(), one()]
}

#[test]
fn a_client_that_makes_backends_close_cannot_take_them_from_others() {
    let backends = picky();
    let options = "eject = { failures = 1, early_close = true }";
    let sessile = Sessile::start(&pools(options, &addresses(&backends)));
    for balance in ["hash", "round_robin"] {
        let attack = |number: u8| {
            let mut stream = connect(sessile.address(balance), number);
            stream.write_all(b"garbage\r\n").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        };
        let none_is_ejected = || {
            let backends = sessile.json("/backends");
            let own = backends.as_array().unwrap().iter().filter(|backend| backend["pool"] == balance);
            let states: Vec<_> = own.map(|backend| backend["state"].as_str().unwrap().to_owned()).collect();
            assert_eq!(states, ["unchecked"; 3], "{balance}");
        };
        for _ in 0..60 {
            attack(1);
            attack(2);
        }
        none_is_ejected();
        // A first byte for any other client begins anew.
        for number in 3..=CLIENTS {
            assert!(is_served(sessile.address(balance), number), "{balance}");
        }
        attack(3);
        none_is_ejected();
    }
}

#[test]
fn requests_of_one_client_that_a_backend_does_not_answer_do_not_eject_it() {
    let backends = backends(true);
    let options = "http = true\neject = { failures = 1 }";
    let sessile = Sessile::start(&pools(options, &addresses(&backends)));
    let address = sessile.address("round_robin");
    let lost = (0..30).filter(|_| !is_served(address, 1)).count();
    assert_eq!((lost, state(&sessile, "round_robin")), (10, "unchecked".into()));
    assert!((0..30).filter(|number| !is_served(address, 2 + number % 2)).count() <= 3);
    assert_eq!(state(&sessile, "round_robin"), "ejected");
}
