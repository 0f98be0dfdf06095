//! What a step of a connection costs besides the kernel: a worker over imitated sockets.
//!
//! Compare one build with another: the imitation is part of the measurement. Real sockets are raced in
//! `benches/compare`. Invariant: every byte sent is received.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use divan::Bencher;
use sessile::splicer::worker::WorkerShared;
use sessile::{config, fault, socket, splicer};

use self::rig::Rig;

mod rig;

#[path = "../src/random.rs"]
#[allow(dead_code, reason = "the imitation uses a part of it")]
mod random;

const FILE: &str = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n\
    [[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{ name = \"b\", address = \"192.0.2.1:1\" }]\n";

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000);

fn main() {
    divan::main();
}

fn rig() -> Rig {
    let checked = config::check(FILE, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
    Rig::new(&Arc::new(WorkerShared::alone(config, 64)), 0)
}

/// A hundred bytes up, a hundred down.
#[divan::bench]
fn a_request_and_its_answer(bencher: Bencher<'_, '_>) {
    let mut rig = rig();
    let (client, backend) = rig.connect(CLIENT);
    bencher.bench_local(|| {
        rig.say(client, backend);
        rig.say(backend, client);
    });
}

/// Accepted, placed, connected, one request and its answer, closed by both. The imitation remembers every socket it
/// ever made, so a rig serves a thousand.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn a_thousand_connections(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(rig).bench_local_values(|mut rig| (0..1_000).for_each(|_| rig.connection(CLIENT)));
}
