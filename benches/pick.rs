//! How long it takes to choose a backend: `cargo bench --bench pick`.
//!
//! Measures the whole pick as a connection makes it, the snapshot's load included.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use divan::{Bencher, black_box};
use sessile::admission::Admission;
use sessile::config;
use sessile::snapshot::{Current, Snapshot};
use sessile::sticky::Facts;

fn main() {
    divan::main();
}

const METHODS: [&str; 7] = ["hash", "ring", "maglev", "round_robin", "least_connections", "two_choices", "random"];

#[divan::bench(args = METHODS)]
fn among_3(bencher: Bencher<'_, '_>, method: &str) {
    pick(bencher, method, 3, "");
}

#[divan::bench(args = METHODS)]
fn among_100(bencher: Bencher<'_, '_>, method: &str) {
    pick(bencher, method, 100, "");
}

#[divan::bench(args = METHODS)]
fn among_1000(bencher: Bencher<'_, '_>, method: &str) {
    pick(bencher, method, 1000, "");
}

#[divan::bench]
fn among_3_with_10000_ranges(bencher: Bencher<'_, '_>) {
    let range = |n: u32| {
        let network = Ipv4Addr::from(0x1400_0000 + (n << 8));
        format!("[[pool.range]]\nname = \"r{n}\"\ncidr = \"{network}/24\"\none = true\n")
    };
    pick(bencher, "hash", 3, &(0..10_000).map(range).collect::<String>());
}

#[divan::bench]
fn snapshot_load(bencher: Bencher<'_, '_>) {
    let current = current("hash", 3, "");
    bencher.bench(|| black_box(current.load().generation));
}

fn pick(bencher: Bencher<'_, '_>, method: &str, backends: usize, more: &str) {
    let current = current(method, backends, more);
    let mut client = 0x1400_0000u32;
    bencher.bench_local(|| {
        client = client.wrapping_add(0x9e37);
        let facts = Facts { source: Some(IpAddr::V4(client.into())), ..Facts::default() };
        black_box(current.load().pools[0].pick(&facts, &[], 1))
    });
}

fn current(method: &str, backends: usize, more: &str) -> Current {
    let mut text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\nbalance = \"{method}\"\n"
    );
    for n in 0..backends {
        text += &format!("[[pool.backend]]\nname = \"b{n}\"\naddress = \"127.0.0.1:{}\"\n", 1000 + n);
    }
    let checked = config::check(&(text + more), &|_| Err(std::io::ErrorKind::NotFound.into()));
    let config = checked.expect("a good configuration").config;
    Current::new(Snapshot::build(config, sessile::snapshot::Loaded::default(), None, 1, &Arc::new(Admission::new(1))))
}
