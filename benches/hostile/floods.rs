//! Backends that attack: they answer any request with interim responses, or with one-byte chunks, without end.
//!
//! Bounded by their clients, which leave. Invariant: a flood ends when its connection does.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::Result;

/// First argument of the role.
pub const ROLE: &str = "flood";
/// What backends send; also the names of their listeners.
pub const KINDS: [&str; 2] = ["interim", "chunks"];
/// Bytes of one write.
const PIECE: usize = 64 << 10;

/// The role: prints its address and serves until it is killed.
pub fn serve(kind: &str) -> Result<()> {
    // The lowest priority: an attacker takes nothing from the clients that are measured beside it.
    let _ = rustix::process::nice(19);
    let (head, unit) = match kind {
        "interim" => ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        "chunks" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"),
        other => return Err(format!("no flood of {other}").into()),
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let piece = unit.repeat(PIECE / unit.len());
    for stream in listener.incoming() {
        let (mut stream, piece) = (stream?, piece.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            if stream.read(&mut buffer).is_ok_and(|read| read > 0) && stream.write_all(head.as_bytes()).is_ok() {
                while stream.write_all(piece.as_bytes()).is_ok() {}
            }
        });
    }
    Ok(())
}
