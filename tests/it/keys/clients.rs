//! Clients of others: curl with headers, with certificates, over both protocols.

use std::collections::HashSet;
use std::path::PathBuf;

use super::{asking_for_certificates, backends, keyed};
use crate::support::authority::Authority;
use crate::support::has;
use crate::support::program::output;
use crate::terminate::Front;
use crate::terminate::programs::{base, curl};

/// Names of the backends that answer these arguments, over each protocol.
fn homes(front: &Front, arguments: &[&str]) -> HashSet<String> {
    let home = |http: &&str| {
        let said = output(curl(front).arg(http).args(arguments));
        said.split(' ').next().expect("a name").to_owned()
    };
    ["--http1.1", "--http2", "--http1.1"].iter().map(home).collect()
}

#[test]
fn curl_is_known_by_its_header_and_by_its_path() {
    if !has("curl_is_known_by_its_header_and_by_its_path", "curl") {
        return;
    }
    let backends = backends();
    let front = keyed("\"header:X-User or path_parameter:sid\"", &backends);
    let url = base(&front);
    let of_user = |user: usize| homes(&front, &["-H", &format!("X-User: u{user}"), &format!("{url}/{user}")]);
    let of_session = |id: usize| homes(&front, &[&format!("{url}/a;sid={id}/b?x={id}")]);
    for of in [&of_user as &dyn Fn(usize) -> HashSet<String>, &of_session] {
        let all: Vec<_> = (0..8).map(of).collect();
        assert!(all.iter().all(|homes| homes.len() == 1), "{all:?}");
        assert!(all.iter().flatten().collect::<HashSet<_>>().len() > 1, "{all:?}");
    }
}

#[test]
fn a_client_keeps_its_backend_when_its_certificate_is_renewed() {
    if !has("a_client_keeps_its_backend_when_its_certificate_is_renewed", "curl") {
        return;
    }
    let (backends, authority) = (backends(), Authority::new());
    let front = asking_for_certificates(&authority, "\"client_certificate\"", &backends);
    let url = base(&front);
    let shown = |(certificate, key): &(PathBuf, PathBuf)| {
        homes(&front, &["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap(), &url])
    };
    let places: Vec<_> = (0..8)
        .map(|number| {
            let mint =
                |age: &str| authority.mint(&format!("c{number}")).write(front.dir.path(), &format!("{age}{number}"));
            let (old, new) = (mint("old"), mint("new"));
            assert_ne!(std::fs::read(&old.0).unwrap(), std::fs::read(&new.0).unwrap(), "another certificate and key");
            let homes: HashSet<_> = shown(&old).into_iter().chain(shown(&new)).collect();
            assert_eq!(homes.len(), 1, "client {number}: {homes:?}");
            homes.into_iter().next().unwrap()
        })
        .collect();
    assert!(places.iter().collect::<HashSet<_>>().len() > 1, "{places:?}");
}
