//! Urgent bytes (RFC 6093) are left out of a stream, and nothing that stands around them is lost or waits for more.
//!
//! Each round sends everything at once, so that bytes, urgent byte and end come between an event and a read now and then.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::net::{SendFlags, send};

use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile};
use crate::terminate::client as tls_client;

const ROUNDS: usize = 150;

/// A backend that answers with the number of bytes that came before the end.
fn counting() -> Backend {
    Backend::serving(|mut stream| {
        let count = std::io::copy(&mut stream, &mut std::io::sink())?;
        stream.write_all(count.to_string().as_bytes())
    })
}

fn urgent(client: &TcpStream) {
    assert_eq!(send(client, b"!", SendFlags::OOB), Ok(1));
}

#[test]
fn bytes_between_an_urgent_byte_and_the_end_pass() {
    const BULK: usize = 600_000;
    const BEHIND: usize = 5_000;
    let backend = counting();
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let address = sessile.address("l");
    for round in 0..ROUNDS {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // Enough to be spliced; then the rest in one go.
        client.write_all(&vec![1; BULK + round]).unwrap();
        urgent(&client);
        client.write_all(&[2; BEHIND]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut count = String::new();
        client.read_to_string(&mut count).unwrap();
        assert_eq!(count, (BULK + round + BEHIND).to_string(), "round {round}");
    }
}

#[test]
fn a_record_behind_an_urgent_byte_is_read_though_nothing_follows() {
    let (authority, dir, backend) =
        (crate::support::authority::Authority::new(), tempfile::tempdir().unwrap(), Backend::named("b0"));
    authority.mint("a.test").write(dir.path(), "a");
    let tls = format!(
        "tls = \"terminate\"\n[[listener.certificate]]\ncert = \"{}\"\nkey = \"{}\"\n",
        dir.path().join("a.pem").display(),
        dir.path().join("a.key").display()
    );
    let sessile = Sessile::start(&(listener("p", &tls) + &pool("p", "", &[backend.address])));
    let mut client = tls_client::connect(sessile.address("l"), &tls_client::config(&authority), "a.test");
    for round in 0..ROUNDS {
        // Two records with an urgent byte between them, and then silence until both are answered.
        for half in [format!("first {round} "), format!("second {round}\n")] {
            client.write_all(half.as_bytes()).unwrap();
            client.flush().unwrap();
            if half.starts_with("first") {
                urgent(&client.sock);
            }
        }
        let wanted = format!("b0 first {round} second {round}\n");
        let mut answer = vec![0; wanted.len()];
        client.read_exact(&mut answer).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(String::from_utf8_lossy(&answer), wanted);
    }
}
