//! Destinations that cannot be connected to, each beside a good backend: routes that lead nowhere, a socket that this
//! user may not open.
//!
//! The kernel refuses such a connect at once, with a word about the destination, not about this process. So it is the
//! backend's failure: every client is served by the other backend, and the bad one is ejected without health checks.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::peer::{ask, connect_from, source};
use super::{Case, Scene, backend_status, case, namespace, play, with_listeners};
use crate::support::backend::{Backend, pool};
use crate::support::{Sessile, has};

const CLIENTS: u64 = 200;

/// A backend that only the routes of a test are for.
const BEHIND: &str = "10.9.1.1:80";

#[test]
fn a_blackhole_route_beside_a_good_backend() {
    routed("blackhole", "backend-behind-a-blackhole-route", "ip route add blackhole 10.9.1.0/24");
}

#[test]
fn a_prohibit_route_beside_a_good_backend() {
    routed("prohibit", "backend-behind-a-prohibit-route", "ip route add prohibit 10.9.1.0/24");
}

#[test]
fn an_unreachable_route_beside_a_good_backend() {
    routed("unreachable", "backend-behind-an-unreachable-route", "ip route add unreachable 10.9.1.0/24");
}

/// Plays one case in a namespace that a script has prepared.
fn routed(what: &str, name: &'static str, prepare: &str) {
    if !namespace::possible(&format!("a {what} beside a good backend")) {
        return;
    }
    let good = "127.0.0.1:9001".parse().expect("an address");
    let tables = pool("app", "", &[BEHIND.parse().expect("an address"), good]);
    let (sessile, namespace) = namespace::start(prepare, &with_listeners(&tables, &[beside_a_good_one(name)]));
    namespace.inside(|| {
        let _good = Backend::on(good, |stream| greet(&stream));
        play(&sessile, vec![beside_a_good_one(name)]);
    });
    assert_ejected(&sessile);
}

/// The folder of the socket has no permissions, and the process runs as an ordinary user.
#[test]
fn a_forbidden_unix_socket_beside_a_good_backend() {
    let test = "a_forbidden_unix_socket_beside_a_good_backend";
    let root = rustix::process::geteuid().is_root();
    if root && !["setpriv", "install"].iter().all(|program| has(test, program)) {
        return;
    }
    let folder = tempfile::tempdir().expect("a scratch directory");
    let socket = folder.path().join("app.sock");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    set_permissions(folder.path(), Permissions::from_mode(0o000)).expect("our own folder");
    let good = Backend::serving(|stream| greet(&stream));
    let name = "backend-behind-a-forbidden-socket";
    let tables = pool("app", "", &[good.address]).replace(
        "[[pool.backend]]\nname = \"b0\"",
        &format!(
            "[[pool.backend]]\nname = \"b0\"\naddress = \"unix:{}\"\n[[pool.backend]]\nname = \"b1\"",
            socket.display()
        ),
    );
    let config = with_listeners(&tables, &[beside_a_good_one(name)]);
    // $0 run --config FILE: the user has to read the binary and to write beside the file.
    let as_another = "folder=${3%/*}; chmod 777 \"$folder\"; install -m 755 \"$0\" \"$folder/sessile\"\n\
                      exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$folder/sessile\" \"$@\"";
    let sessile = if root { Sessile::start_in_shell(&[], as_another, &config) } else { Sessile::start(&config) };
    play(&sessile, vec![beside_a_good_one(name)]);
    set_permissions(folder.path(), Permissions::from_mode(0o700)).expect("our own folder");
    assert_ejected(&sessile);
}

/// Clients of many addresses, one after the other: each is served.
fn beside_a_good_one(name: &'static str) -> Case<'static> {
    let provoke = |scene: &Scene<'_>| {
        for n in 0..CLIENTS as usize {
            let answer = ask(&connect_from(source(n), scene.address), "hi");
            assert_eq!(answer.as_deref(), Ok("good hi\n"), "client {n}");
        }
    };
    case(name, "pool = \"app\"", provoke).times(CLIENTS)
}

fn greet(stream: &std::net::TcpStream) -> std::io::Result<()> {
    let line = super::peer::hear(stream)?;
    super::peer::say(stream, format!("good {line}"));
    Ok(())
}

/// Asserts that the bad backend failed and is ejected, and that the good one served every client.
fn assert_ejected(sessile: &Sessile) {
    let bad = backend_status(sessile, "app", "b0");
    assert_eq!((&bad["ejected"], &bad["connections"]), (&true.into(), &0.into()), "{bad}");
    assert!(bad["connect_failures"].as_u64() >= Some(3), "{bad}");
    let failures = "sessile_backend_connect_failures_total{pool=\"app\",backend=\"b0\"}";
    assert_eq!(Some(sessile.metric(failures) as u64), bad["connect_failures"].as_u64());
    let good = backend_status(sessile, "app", "b1");
    let counts = [&good["connections"], &good["connect_failures"]].map(|count| count.as_u64());
    assert_eq!(counts, [Some(CLIENTS), Some(0)], "{good}");
}
