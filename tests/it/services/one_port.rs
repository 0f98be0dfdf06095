//! One port for everything: HTTPS by name, PostgreSQL because its clients speak no TLS, SSH because its server speaks first.

use crate::services::https::{curl, serve};
use crate::services::postgres::{ask, postgres};
use crate::services::ssh;
use crate::support::authority::Authority;
use crate::support::backend::pool;
use crate::support::program::{find, output};
use crate::support::{Sessile, has};

#[test]
fn one_port_serves_names_other_protocols_and_servers_that_speak_first() {
    let test = "one_port_serves_names_other_protocols_and_servers_that_speak_first";
    let Some(nginx) = find(test, "nginx").filter(|_| has(test, "curl")) else { return };
    let Some((_postgres, postgres)) = postgres(test) else { return };
    let Some(ssh) = ssh::Server::start(test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (_nginx, sites, _) = serve(&nginx, &dir, &Authority::new());
    let sessile = Sessile::start(
        &(r#"
[limits]
hello_timeout = "1s"
[[listener]]
name = "l"
bind = "127.0.0.1:0"
tls = "passthrough"
not_tls = "postgres"
silent = "ssh"
[[listener.route]]
sni = "a.test"
pool = "a"
[[listener.route]]
sni = "b.test"
pool = "b"
"#
        .to_owned()
            + &pool("a", "", &sites[..1])
            + &pool("b", "", &sites[1..])
            + &pool("postgres", "", &[postgres])
            + &pool("ssh", "", &[ssh.address])),
    );
    let address = sessile.address("l");
    for _ in 0..3 {
        assert_eq!(output(&mut curl("a.test", address, dir.path())), "a.test a.test 2");
        assert_eq!(output(&mut curl("b.test", address, dir.path())), "b.test b.test 2");
        assert_eq!(ask(address, "select 6 * 7"), "42\n");
        assert_eq!(ssh.keyscan(address), ssh.host_key);
    }
    for pool in ["a", "b", "postgres", "ssh"] {
        sessile.line(pool, |line| line["pool"] == pool && line["ended"] == "done");
    }
}
