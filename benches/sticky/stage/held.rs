//! Connections that last longer than `remember`: their clients are known as long as they are open, and when they come
//! back at once.
//!
//! The stick table dates by the minute, so only holding for minutes proves that open connections are refreshed.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backends::Backends;
use super::clients::{connect, run as block_on, settle};
use super::table::Table;
use super::truth::Truth;
use super::{Row, Scale, breaks, reload};
use crate::support::Sessile;

const FIRST: usize = 2;
const GROWN: usize = 10;
const CLIENTS: u32 = 200;

/// On a relay, and as WebSockets on a pool with `http = true`, side by side.
pub fn run(scale: &Scale) -> Vec<Row> {
    std::thread::scope(|scope| {
        let rows = [false, true].map(|web_socket| scope.spawn(move || one(scale, web_socket)));
        rows.map(|row| row.join().expect("no panic")).into()
    })
}

fn one(scale: &Scale, web_socket: bool) -> Row {
    let backends = Backends::start(GROWN);
    let mut table = Table::new(&backends.addresses, FIRST, 1_024);
    table.options += "remember = \"2s\"\n";
    if web_socket {
        table.options += "http = true\n";
    }
    let sessile = Sessile::start(&table.text());
    let front = sessile.address("l");
    let sources = || scale.sources().take(CLIENTS as usize);
    let mut truth = Truth::new(&backends.log);
    block_on(async {
        let mut open = Vec::new();
        for source in sources() {
            open.push(begin(source, front, web_socket).await.expect("a connection"));
        }
        reload(&sessile, &table.with(GROWN).text());
        tokio::time::sleep(scale.hold).await;
        for (mut stream, source) in open.into_iter().zip(sources()) {
            // It still speaks, and once it is closed its client is back at once.
            stream.write_all(b"x").await.expect("an open connection");
            assert_eq!(stream.read_u8().await.expect("an echo"), b'x');
            drop(stream);
            begin(source, front, web_socket).await.expect("a connection");
        }
    });
    let step = truth.step();
    let (way, held) = (if web_socket { "WebSocket" } else { "relay" }, scale.hold.as_secs());
    let mut row = Row::new(format!("{way} held {held} s, remember 2 s"), step.arrivals.len() as u64);
    row.counted = breaks(&sessile);
    row.by_logs = step.breaks.len() as u64;
    row.exactly(None);
    let placement = table.with(GROWN).placement();
    let elsewhere = sources()
        .filter(|key| truth.home(u64::from(*key)).is_some_and(|home| home.backend != placement((*key).into())));
    row.note = format!("placement would have moved {}", elsewhere.count());
    row
}

async fn begin(source: u32, front: SocketAddr, web_socket: bool) -> std::io::Result<TcpStream> {
    if !web_socket {
        return Ok(settle(source, front, b"h").await?.0);
    }
    let mut stream = connect(source, front).await?;
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    // The backend's own letter is the first that comes through.
    stream.read_u8().await?;
    Ok(stream)
}
