//! What a request costs besides its bytes: allocations, readings of a clock and counted references, with the log and
//! without.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::admission::HeldBytes;
use crate::clock;
use crate::connection::{Carried, ClientInfo};
use crate::snapshot::{Current, Snapshot};
use crate::terminate::runtime::RuntimeContext;
use crate::terminate::serve;
use crate::terminate::state::keep;

const REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// Reads heads of this length and answers each.
fn answer(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut more = [0; 4096];
    while let Ok(n) = stream.read(&mut more) {
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&more[..n]);
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            bytes.drain(..end + 4);
            if stream.write_all(RESPONSE).is_err() {
                return;
            }
        }
    }
}

/// Allocations and readings of a clock on the thread that serves one connection with so many requests.
fn cost_of(requests: usize, logs: bool) -> (u64, u64) {
    let (front, back) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (address, backend) = (front.local_addr().unwrap(), back.local_addr().unwrap());
    thread::spawn(move || back.incoming().flatten().for_each(|stream| drop(thread::spawn(|| answer(stream)))));
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for _ in 0..requests {
            stream.write_all(REQUEST).unwrap();
            stream.read_exact(&mut [0; RESPONSE.len()]).unwrap();
        }
    });
    let text = format!(
        "[log]\nconnections = {logs}\n[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\ntls = \"off\"\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\nhttp = true\ncheck = \"off\"\nbackend = [{{ name = \"b\", address = \"{backend}\" }}]\n"
    );
    let current = Arc::new(Current::new(Snapshot::of_text(&text)));
    let listener = Arc::clone(&current.load().listeners[0]);
    let (socket, source) = front.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let carried = Carried {
        client: socket.into(),
        bytes: HeldBytes::default(),
        permit: listener.state.admit().unwrap(),
        client_info: ClientInfo { source: Some(source), accepted: clock::now(), ..ClientInfo::default() },
        listener,
        refusal: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = clock::readings();
    let counted = allocation_counter::measure(|| {
        tokio::task::LocalSet::new()
            .block_on(&runtime, async move { serve(RuntimeContext::alone(&current), carried).await });
    });
    client.join().unwrap();
    (counted.count_total, clock::readings() - before)
}

/// Allocations and readings of a clock for each request of a kept connection.
fn cost(logs: bool) -> (f64, f64) {
    const FEW: usize = 50;
    const MANY: usize = 550;
    let (few, many) = (cost_of(FEW, logs), cost_of(MANY, logs));
    let each = |few: u64, many: u64| (many as f64 - few as f64) / (MANY - FEW) as f64;
    (each(few.0, many.0), each(few.1, many.1))
}

#[test]
fn a_reference_is_counted_for_the_first_request_alone() {
    let (mut kept, backend, other) = (None, Arc::new(1), Arc::new(1));
    for _ in 0..3 {
        keep(&mut kept, &backend);
        assert_eq!(Arc::strong_count(&backend), 2);
    }
    keep(&mut kept, &other);
    assert_eq!((Arc::strong_count(&backend), Arc::strong_count(&other)), (1, 2), "an equal value is another");
}

#[test]
fn a_request_that_is_not_logged_costs_nothing_for_the_log() {
    let ((off, off_clock), (on, on_clock)) = (cost(false), cost(true));
    println!("allocations: {off:.2} without a log, {on:.2} with it; clock: {off_clock:.2} and {on_clock:.2}");
    // Method, host and path are read from the head; and the time at the beginning, at the end, and of day.
    assert!((2.5..3.5).contains(&(on - off)), "{off} {on}");
    assert!(on_clock - off_clock >= 2.5, "{off_clock} {on_clock}");
}
