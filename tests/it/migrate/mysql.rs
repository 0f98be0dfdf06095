//! `haproxy-tcp-stick-table`, its pool of MySQL: one database serves, and another one only while that is down.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::{Proxy, Site, with_quick_checks};
use crate::support::program::{self, Program, find};
use crate::support::{eventually, has, is_root, skip};

const FILE: &str = "haproxy-tcp-stick-table";
const MYSQL: &str = "127.0.0.1:33513";

/// MariaDB with a user `haproxy`, whose data is copied for each server.
struct Installed {
    server: PathBuf,
    data: tempfile::TempDir,
    owner: (u32, u32),
}

impl Installed {
    fn new(test: &str) -> Option<Self> {
        let (install, server) = (find(test, "mariadb-install-db")?, find(test, "mariadbd")?);
        if !has(test, "mariadb") || !is_root(test) {
            return None;
        }
        let Some(owner) = program::user("mysql") else {
            skip(test, "there is no user mysql, and root may not run the server");
            return None;
        };
        let data = tempfile::tempdir().unwrap();
        give(data.path(), owner);
        let mut command = Command::new(install);
        command.args(["--no-defaults", "--user=mysql", "--skip-test-db", "--auth-root-authentication-method=normal"]);
        program::output(command.arg(format!("--datadir={}", data.path().join("data").display())));
        Some(Self { server, data, owner })
    }

    fn start(&self, address: SocketAddr) -> Program {
        let dir = tempfile::tempdir().unwrap();
        give(dir.path(), self.owner);
        program::output(Command::new("cp").arg("-a").arg(self.data.path().join("data")).arg(dir.path()));
        let init = dir.path().join("init.sql");
        std::fs::write(&init, "create user if not exists 'haproxy'@'%';\n").unwrap();
        let mut command = Command::new(&self.server);
        command.args(["--no-defaults", "--user=mysql", "--skip-name-resolve", "--innodb-buffer-pool-size=8M"]);
        command.arg(format!("--datadir={}", dir.path().join("data").display()));
        command.arg(format!("--socket={}", dir.path().join("socket").display()));
        command.arg(format!("--init-file={}", init.display()));
        command.args([format!("--bind-address={}", address.ip()), format!("--port={}", address.port())]);
        let ready = |_: &Path| port(address).is_some();
        Program::start_until(dir, command, &address.to_string(), ready).stopped_by(Signal::TERM)
    }
}

fn give(folder: &Path, (user, group): (u32, u32)) {
    chown(folder, Some(user), Some(group)).expect("root may give files away");
}

/// The port of the database that serves a client of an address; `None`: there is none.
fn port(address: SocketAddr) -> Option<u16> {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--user=haproxy", "--skip-column-names", "--batch", "--skip-ssl"]);
    client.args(["--connect-timeout=5", "--host", &address.ip().to_string(), "--port", &address.port().to_string()]);
    let output = client.args(["--execute", "select @@port"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().ok()
}

#[test]
fn the_standby_serves_only_while_the_first_database_is_down() {
    let test = "the_standby_serves_only_while_the_first_database_is_down";
    let Some(installed) = Installed::new(test) else { return };
    let site = Site::new();
    let [first, standby] = ["10.0.1.1:3306", "10.0.1.2:3306"].map(|written| site.backend(written));
    let db1 = installed.start(first);
    let _db2 = installed.start(standby);
    let change = |text: &str| with_quick_checks(text).replace("/var/lib/sessile", "$DIR");
    let proxies = site.both(test, FILE, change);
    let become_one = |proxy: &Proxy, wanted: SocketAddr| {
        eventually("the database", || (port(proxy.at(MYSQL))? == wanted.port()).then_some(()));
        for _ in 0..3 {
            assert_eq!(port(proxy.at(MYSQL)), Some(wanted.port()), "{}", proxy.name);
        }
    };
    proxies.iter().for_each(|proxy| become_one(proxy, first));
    drop(db1);
    proxies.iter().for_each(|proxy| become_one(proxy, standby));
    let _db1 = installed.start(first);
    proxies.iter().for_each(|proxy| become_one(proxy, first));
}
