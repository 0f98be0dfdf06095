//! `haproxy-dns`: a client has one backend, few clients move with the set of backends, and the command in the head of
//! the file follows a name.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::backend::Web;
use super::client::{connect_from, get};
use super::{Proxy, Site, folder, host, with_quick_checks};
use crate::support::eventually;
use crate::support::program::{free_address, output};

const FILE: &str = "haproxy-dns";
const FRONT: &str = "127.0.0.1:33540";
const CLIENTS: u8 = 60;

fn homes(proxy: &Proxy) -> BTreeMap<u8, String> {
    let visit = |number| {
        let mut stream = connect_from(Ipv4Addr::new(127, 1, 5, number), proxy.at(FRONT)).unwrap();
        (number, get(&mut stream).unwrap().backend().to_owned())
    };
    (1..=CLIENTS).map(visit).collect()
}

/// The command of the head, in one line.
fn command_of_the_head() -> String {
    let text = fs::read_to_string(folder().join(FILE).with_extension("toml")).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with("#   $ ")).map_while(|line| line.strip_prefix('#'));
    lines.map(|line| line.trim_end_matches('\\')).collect::<String>().trim_start().trim_start_matches("$ ").to_owned()
}

/// The name has addresses, all with one port, which the command is to write.
struct Name {
    site: Site,
    port: u16,
}

impl Name {
    fn address(&self, last: u8) -> SocketAddr {
        SocketAddr::new(host(Ipv4Addr::new(10, 0, 5, last).into()), self.port)
    }

    /// The resolver knows these addresses from here on.
    fn is_at(&self, lasts: &[u8]) {
        let lines = lasts.iter().map(|last| {
            let ip = self.address(*last).ip();
            format!("{ip} STREAM chat.default.svc.cluster.local\n{ip} DGRAM\n{ip} RAW\n")
        });
        fs::write(self.site.path().join("addresses"), lines.collect::<String>()).unwrap();
    }

    /// Runs the command on the file of the process.
    fn follow(&self, proxy: &Proxy) {
        let file = proxy.ours().expect("ours").file().display().to_string();
        let command = command_of_the_head().replace(&format!("config/migrate/{FILE}.toml"), &file);
        let command = command.replace(&format!("config/migrate/{FILE}.new"), &format!("{file}.new"));
        let command = command.replace("8080", &self.port.to_string());
        let path = format!("{}/bin:{}", self.site.path().display(), std::env::var("PATH").unwrap());
        output(Command::new("bash").args(["-ec", &command]).env("PATH", path));
    }
}

#[test]
fn backends_follow_a_name_and_few_clients_move() {
    let name = Name { site: Site::new(), port: free_address().port() };
    let path = name.site.path();
    fs::create_dir(path.join("bin")).unwrap();
    let getent = path.join("bin/getent");
    fs::write(&getent, format!("#!/bin/sh\ncat {}/addresses\n", path.display())).unwrap();
    fs::set_permissions(&getent, PermissionsExt::from_mode(0o755)).unwrap();
    let _backends = [1, 2, 3].map(|last| Web::plain(&format!("chat{last}"), name.address(last)));

    let proxy = name.site.ours(FILE, with_quick_checks);
    let generation = || proxy.ours().unwrap().status()["generation"].as_u64().expect("a number");
    let becomes = |lasts: &[u8]| {
        let before = generation();
        name.is_at(lasts);
        name.follow(&proxy);
        eventually("the file to count", || (generation() > before).then_some(()));
        // A backend that a reload adds has no client before its first good check.
        eventually("all backends to be up", || {
            let backends = proxy.ours().unwrap().json("/backends");
            let mut states = backends.as_array().unwrap().iter().map(|backend| &backend["state"]);
            (states.len() == lasts.len() && states.all(|state| state == "up")).then_some(())
        });
    };
    // In whatever order a resolver has them.
    becomes(&[2, 1]);
    let two = homes(&proxy);
    assert!(["chat1", "chat2"].iter().all(|one| two.values().any(|home| home == one)), "{two:?}");
    assert_eq!(homes(&proxy), two);
    becomes(&[1, 2]);
    assert_eq!(homes(&proxy), two);

    becomes(&[3, 1, 2]);
    let three = homes(&proxy);
    assert!(three.values().any(|home| home == "chat3"), "{three:?}");
    let moved: Vec<_> = two.iter().filter(|(number, home)| three[*number] != **home).collect();
    assert!(moved.iter().all(|(number, _)| three[*number] == "chat3"), "{moved:?} {three:?}");
    assert!(moved.len() < usize::from(CLIENTS) * 3 / 5, "{} moved", moved.len());
    becomes(&[1, 2]);
    assert_eq!(homes(&proxy), two);

    // A name without an address is no reason to lose the backends.
    name.is_at(&[]);
    name.follow(&proxy);
    proxy.ours().unwrap().says("has no backend");
    assert_eq!(homes(&proxy), two);
}
