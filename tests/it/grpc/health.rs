//! The health checks of gRPC, against the health service of a server.

use std::io::Write;
use std::net::SocketAddr;

use serde_json::Value;

use super::{Server, addresses, has_grpc, python};
use crate::support::authority::Authority;
use crate::support::backend::{Backend, listener};
use crate::support::program::output;
use crate::support::{Sessile, eventually};

/// A pool that passes bytes, with this check.
fn checked(pool: &str, check: &str, servers: &[SocketAddr]) -> Sessile {
    let mut text = listener("p", "") + &format!("[[pool]]\nname = \"p\"\n{pool}\n");
    for (index, address) in servers.iter().enumerate() {
        text += &format!("[[pool.backend]]\nname = \"b{index}\"\naddress = \"{address}\"\n");
    }
    Sessile::start(
        &(text + &format!("[pool.check]\ninterval = \"50ms\"\ntimeout = \"5s\"\nrise = 1\nfall = 1\n{check}\n")),
    )
}

fn backend(sessile: &Sessile, index: usize) -> Value {
    sessile.status()["pools"][0]["backends"][index].clone()
}

/// Waits until the checks say this of a backend.
fn is(sessile: &Sessile, index: usize, health: &str) {
    eventually(&format!("backend {index} to be {health}"), || {
        (backend(sessile, index)["state"] == health).then_some(())
    });
}

/// Waits until a backend is down with this complaint.
fn complains(sessile: &Sessile, index: usize, complaint: &str) {
    eventually(&format!("the complaint {complaint:?}, not {}", backend(sessile, index)), || {
        let backend = backend(sessile, index);
        let found = backend["complaint"].as_str().unwrap_or_default();
        (backend["state"] == "down" && found == complaint).then_some(())
    });
}

/// The servers that answer new channels.
fn names(sessile: &Sessile) -> Value {
    let mut command = python("client.py");
    let text = output(command.arg("channels").arg(sessile.address("l").to_string()).args(["-", "6"]));
    serde_json::from_str::<Value>(&text).unwrap()["names"].clone()
}

#[test]
fn not_serving_takes_a_backend_out_and_serving_brings_it_back() {
    if !has_grpc("not_serving_takes_a_backend_out_and_serving_brings_it_back") {
        return;
    }
    let servers = ["a", "b"].map(Server::named);
    let sessile = checked("balance = \"round_robin\"", "kind = \"grpc\"\nflap_damping = \"off\"", &addresses(&servers));
    (0..2).for_each(|index| is(&sessile, index, "up"));
    assert_eq!(names(&sessile), serde_json::json!({ "a": 3, "b": 3 }));
    for (status, word) in
        [("NOT_SERVING", "NOT_SERVING"), ("UNKNOWN", "UNKNOWN"), ("SERVICE_UNKNOWN", "SERVICE_UNKNOWN")]
    {
        servers[0].is(&format!("={status}\n"));
        complains(&sessile, 0, &format!("status {word}, expected SERVING"));
        assert_eq!(names(&sessile), serde_json::json!({ "b": 6 }));
        servers[0].is("=SERVING\n");
        is(&sessile, 0, "up");
    }
    assert_eq!(names(&sessile), serde_json::json!({ "a": 3, "b": 3 }));
    // The server knows how long the check waits.
    let checks: Vec<_> = servers[0].said().into_iter().filter(|line| line["check"] == "").collect();
    let remaining: Vec<_> = checks.iter().filter_map(|line| line["remaining"].as_f64()).collect();
    assert!(remaining.iter().all(|left| *left > 0.0 && *left <= 5.0) && !remaining.is_empty(), "{remaining:?}");
}

#[test]
fn a_check_asks_for_its_service_and_fails_where_that_is_not_known() {
    if !has_grpc("a_check_asks_for_its_service_and_fails_where_that_is_not_known") {
        return;
    }
    let servers = [Server::named("a")];
    servers[0].is("=NOT_SERVING\nshop.Cart=SERVING\n");
    let sessile = checked("", "kind = \"grpc\"\nservice = \"shop.Cart\"", &addresses(&servers));
    is(&sessile, 0, "up");
    servers[0].is("=SERVING\n");
    complains(&sessile, 0, "grpc-status 5 (NOT_FOUND): no such service");
}

#[test]
fn a_check_uses_tls_as_its_pool_or_as_it_says() {
    if !has_grpc("a_check_uses_tls_as_its_pool_or_as_it_says") {
        return;
    }
    let authority = Authority::new();
    let servers = [Server::with_tls("a", &authority)];
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let tls = |sni: &str| format!("tls = {{ ca = \"{}\", sni = \"{sni}\" }}", ca.display());
    for (pool, check) in
        [(tls("a.test"), "kind = \"grpc\""), (tls("a.test"), "kind = \"grpcs\""), (String::new(), "kind = \"grpcs\"")]
    {
        let sessile = checked(&pool, check, &addresses(&servers));
        is(&sessile, 0, "up");
        servers[0].is("=NOT_SERVING\n");
        complains(&sessile, 0, "status NOT_SERVING, expected SERVING");
        servers[0].is("=SERVING\n");
    }
    let sessile = checked(&tls("b.test"), "kind = \"grpc\"", &addresses(&servers));
    is(&sessile, 0, "down");
    let complaint = backend(&sessile, 0)["complaint"].to_string();
    assert!(complaint.contains("TLS: the certificate is not for b.test"), "{complaint}");
    let sessile = checked("", "kind = \"grpc\"", &addresses(&servers));
    is(&sessile, 0, "down");
}

#[test]
fn what_is_no_server_of_grpc_is_down_with_a_clear_complaint() {
    let server = Backend::serving(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    });
    let sessile = checked("", "kind = \"grpc\"", &[server.address]);
    is(&sessile, 0, "down");
    let complaint = backend(&sessile, 0)["complaint"].to_string();
    assert!(complaint.starts_with("\"HTTP/2: the backend breaks the protocol: "), "{complaint}");
}
