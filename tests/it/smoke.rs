//! The product's one promise at its smallest: a client comes back to its backend.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::support::Sessile;
use crate::support::backend::{Backend, listener, pool};

#[test]
fn a_client_stays_where_it_settled() {
    let backends = [Backend::named("b0"), Backend::named("b1"), Backend::named("b2")];
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &addresses)));
    let ask = || {
        let mut stream = BufReader::new(TcpStream::connect(sessile.address("l")).unwrap());
        stream.get_mut().write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        answer
    };
    let first = ask();
    assert!(first.ends_with(" hello\n"), "{first}");
    for _ in 0..20 {
        assert_eq!(ask(), first);
    }
    let line = sessile.ended("l", "done");
    assert_eq!(line["backend"].as_str(), first.split(' ').next());
}
