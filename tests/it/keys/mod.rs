//! Clients that are known by what their requests carry: headers, queries, paths, parameters and certificates; and by the
//! session ids that applications give out in a header.
//!
//! Invariant: what a request carries decides alone; the connection on which it comes, and its protocol, do not.

mod clients;
mod learned_header;
mod requests;
mod routes;

use std::net::SocketAddr;

use crate::support::backend::pool;
use crate::support::{Sessile, authority::Authority};
use crate::terminate::backend::Recorder;
use crate::terminate::{self, Front};

/// Backends that say their names.
fn backends() -> [Recorder; 4] {
    ["w", "x", "y", "z"].map(Recorder::named)
}

fn addresses(backends: &[Recorder]) -> Vec<SocketAddr> {
    backends.iter().map(Recorder::address).collect()
}

/// A front whose clients are known by this key, as it is written.
fn keyed(key: &str, backends: &[Recorder]) -> Front {
    Front::start("", &format!("http = true\nkey = {key}\n"), &addresses(backends))
}

/// A front that asks clients for certificates of an authority.
fn asking_for_certificates(authority: &Authority, key: &str, backends: &[Recorder]) -> Front {
    let (server, dir) = (Authority::new(), tempfile::tempdir().expect("a scratch directory"));
    server.mint("a.test").write(dir.path(), "a");
    std::fs::write(dir.path().join("ca.pem"), server.pem()).expect("the file is written");
    std::fs::write(dir.path().join("clients.pem"), authority.pem()).expect("the file is written");
    let listener = "pool = \"p\"\nclient_certificate = { ca = \"$FILES/clients.pem\", required = false }\n";
    let pools = pool("p", &format!("http = true\nkey = {key}\n"), &addresses(backends));
    let text = terminate::config(&dir, "", listener, &pools);
    Front { sessile: Sessile::start(&text), authority: server, dir }
}
