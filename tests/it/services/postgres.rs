//! PostgreSQL: logins, transactions, rows and copies.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::backend::{listener, pool};
use crate::support::program::{self, Program, find, free_address};
use crate::support::{Sessile, has, skip};

#[test]
fn pgbench_and_psql_work_as_without_us() {
    let test = "pgbench_and_psql_work_as_without_us";
    let Some((_server, backend)) = postgres(test) else { return };
    if !has(test, "pgbench") {
        return;
    }
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend])));
    let address = sessile.address("l");

    let bench = |options: &str| {
        let mut command = client("pgbench", address);
        program::output(command.args(options.split(' ')).arg("postgres"))
    };
    bench("--initialize --quiet");
    for options in ["--client 8 --transactions 100", "--client 4 --transactions 25 --connect"] {
        let said = bench(options);
        assert!(said.contains("number of failed transactions: 0 "), "{said}");
    }

    // A query returns the same rows through sessile and directly.
    let rows = "select i, md5(i::text) from generate_series(1, 100000) i";
    let [through, direct] = [address, backend].map(|address| ask(address, rows));
    assert!(through.len() > 3_000_000);
    assert!(through == direct);

    let mut copy = client("psql", address);
    copy.args([
        "--quiet",
        "--command",
        "create table t (i int, m text)",
        "--command",
        "copy t from stdin csv",
        "postgres",
    ]);
    let mut copy = copy.stdin(Stdio::piped()).spawn().unwrap();
    copy.stdin.take().unwrap().write_all(through.replace('|', ",").as_bytes()).unwrap();
    assert!(copy.wait().unwrap().success());
    assert_eq!(ask(address, "select count(*), count(*) filter (where m = md5(i::text)) from t"), "100000|100000\n");

    let faults: Vec<_> = sessile.lines_of_all().into_iter().filter(|line| line["ended"] != "done").collect();
    assert!(faults.is_empty(), "{faults:?}");
}

/// What psql prints for a query.
pub fn ask(address: SocketAddr, query: &str) -> String {
    program::output(client("psql", address).args(["--no-align", "--tuples-only", "--command", query, "postgres"]))
}

/// A server, and where it is. It refuses to run as root, so it runs as its own user then.
pub fn postgres(test: &str) -> Option<(Program, SocketAddr)> {
    let (initdb, server) = (find(test, "initdb")?, find(test, "postgres")?);
    if !has(test, "psql") {
        return None;
    }
    let dir = tempfile::tempdir().expect("a scratch directory");
    let owner = owner(test, dir.path())?;
    let address = free_address();
    let as_owner = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(dir.path()).arg("-D").arg(dir.path().join("data"));
        if let Some((user, group)) = owner {
            command.gid(group).uid(user);
        }
        command
    };
    program::output(as_owner(&initdb).args(["--username", "postgres", "--auth", "trust", "--no-sync", "--no-locale"]));
    let mut command = as_owner(&server);
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-k", "", "-F"]);
    command.args(["-c", "shared_buffers=16MB"]);
    Some((Program::start(dir, command, address).stopped_by(Signal::QUIT), address))
}

/// User and group of the server when the test runs as root; the directory then belongs to them.
fn owner(test: &str, dir: &Path) -> Option<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Some(None);
    }
    let Some((user, group)) = program::user("postgres") else {
        skip(test, "there is no user postgres, and root may not run the server");
        return None;
    };
    chown(dir, Some(user), Some(group)).expect("root may give files away");
    Some(Some((user, group)))
}

/// One of the programs of PostgreSQL, with the server in its environment.
pub fn client(program: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.env("PGHOST", address.ip().to_string()).env("PGPORT", address.port().to_string());
    command.env("PGUSER", "postgres").env("PGCONNECT_TIMEOUT", "20");
    command
}
