//! Addresses that are taken: by a second instance, by another program, by a socket file of an earlier process.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use super::peer::{ask, connect, own_address};
use crate::support::backend::{Backend, listener, pool};
use crate::support::{Sessile, eventually};

/// A process that must not start: what it says, and that it says it with this exit code.
fn refused(config: &str, code: i32) -> String {
    let mut second = Sessile::spawn(config, |_| {});
    let status = second.wait();
    assert_eq!(status.code(), Some(code), "{}", second.said());
    assert!(!second.admin().exists(), "an admin socket is left behind");
    second.said()
}

/// A second instance on an address is refused by name: the first one's sockets would share with it.
#[test]
fn a_second_instance_is_refused() {
    let app = Backend::named("b0");
    let app = pool("app", "", &[app.address]);
    let first = Sessile::start(&(listener("app", "") + &app));
    let address = first.address("l");
    let taken = |name: &str, at: &str| {
        format!(
            "[[listener]]\nname = \"free\"\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                 [[listener]]\nname = \"{name}\"\nbind = \"{at}\"\npool = \"app\"\n"
        )
    };
    for admin in ["", "[admin]\nsocket = \"off\"\n"] {
        let said = refused(&(taken("mine", &address.to_string()) + admin + &app), 69);
        assert!(said.contains("\"mine\"") && said.contains(&address.to_string()), "{said}");
    }
    // Anybody else's socket counts as well, even one that would share.
    let stranger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    stranger.set_reuse_port(true).unwrap();
    stranger.bind(&SocketAddr::from((own_address(5), 0)).into()).unwrap();
    stranger.listen(1).unwrap();
    let held = stranger.local_addr().unwrap().as_socket().unwrap();
    let said = refused(&(taken("mine", &held.to_string()) + &app), 69);
    assert!(said.contains("\"mine\"") && said.contains(&held.to_string()), "{said}");
    // A wildcard address covers the one that is held.
    let everywhere = format!("0.0.0.0:{}", address.port());
    let said = refused(&(taken("mine", &everywhere) + &app), 69);
    assert!(said.contains("\"mine\"") && said.contains(&everywhere), "{said}");
    // All of them, not the first alone.
    let said = refused(
        &(taken("one", &address.to_string()) + &taken("two", &held.to_string()).replace("free", "other") + &app),
        69,
    );
    assert!(said.contains("\"one\"") && said.contains("\"two\""), "{said}");
    assert_eq!(ask(&connect(address), "hi").unwrap(), "b0 hi\n", "the first goes on");
}

#[test]
fn a_second_instance_with_the_same_admin_socket_is_refused() {
    let app = Backend::named("b0");
    let config = listener("app", "") + &pool("app", "", &[app.address]);
    let first = Sessile::start(&config);
    let same = format!("[admin]\nsocket = \"{}\"\n", first.admin().display());
    let said = refused(&(same + &config), 69);
    assert!(said.contains("another sessile runs with this admin socket"), "{said}");
    assert!(said.contains(first.dir.path().to_str().unwrap()), "{said}");
    assert_eq!(ask(&connect(first.address("l")), "hi").unwrap(), "b0 hi\n", "the first goes on");
    assert_eq!(first.status()["ready"], true);
}

/// A unix socket with a listening process is refused, a socket file of a process that has ended is replaced.
#[test]
fn a_unix_socket_of_somebody_is_refused() {
    let app = Backend::named("b0");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.sock");
    let config = format!("[[listener]]\nname = \"l\"\nbind = \"unix:{}\"\npool = \"app\"\n", path.display())
        + &pool("app", "key = \"none\"\nbalance = \"random\"", &[app.address]);
    let first = Sessile::start(&config);
    let said = refused(&config, 69);
    assert!(said.contains("\"l\"") && said.contains(path.to_str().unwrap()), "{said}");
    assert!(UnixStream::connect(&path).is_ok(), "the first goes on");
    first.signal(Signal::KILL);
    eventually("the first to be gone", || UnixStream::connect(&path).is_err().then_some(()));
    assert!(path.exists());
    let _second = Sessile::start(&config);
    assert!(UnixStream::connect(&path).is_ok(), "what was left behind is replaced");
}

/// A reload that adds an address of another process changes nothing at all.
#[test]
fn a_reload_on_an_address_of_others_is_refused() {
    let app = Backend::named("b0");
    let tables = pool("app", "", &[app.address]);
    let sessile = Sessile::start(&(listener("app", "") + &tables));
    let (before, address) = (sessile.status(), sessile.address("l"));
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = stranger.local_addr().unwrap();
    let more = format!(
        "[[listener]]\nname = \"good\"\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                        [[listener]]\nname = \"more\"\nbind = \"{held}\"\npool = \"app\"\n"
    );
    let verdict = sessile.reload(&(more + &tables));
    assert_eq!((&verdict["accepted"], &verdict["generation"]), (&false.into(), &before["generation"]), "{verdict}");
    let problems = verdict["problems"].to_string();
    assert!(problems.contains("more") && problems.contains(&held.to_string()), "{problems}");
    let after = sessile.status();
    assert_eq!(after["listeners"].as_array().unwrap().len(), 1, "{after}");
    assert_eq!(sessile.metric("sessile_reloads_total{verdict=\"refused\"}"), 1.0);
    sessile.says(&held.to_string());
    assert_eq!(ask(&connect(address), "hi").unwrap(), "b0 hi\n");
}
