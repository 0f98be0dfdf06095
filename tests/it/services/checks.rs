//! Checks that speak the protocol of a service, against the real one: it is judged rightly, and does not mind.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::faults::namespace;
use crate::services::postgres::{client, postgres};
use crate::support::backend::{listener, pool};
use crate::support::program::{self, Program, find, free_address};
use crate::support::{Sessile, eventually, has, skip};

/// A listener and a pool with this check, every few milliseconds.
fn checked(check: &str, backends: &[SocketAddr]) -> String {
    let quick = format!("{check}\ninterval = \"20ms\"\ntimeout = \"2s\"\n");
    listener("p", "") + &pool("p", "", backends).replace("kind = \"off\"\n", &quick)
}

fn backend(sessile: &Sessile, name: &str) -> Value {
    let backends = sessile.json("/backends");
    backends.as_array().unwrap().iter().find(|backend| backend["name"] == name).expect("a backend").clone()
}

/// Waits until a backend has this state, and a complaint with this in it.
fn becomes(sessile: &Sessile, name: &str, state: &str, complaint: &str) {
    eventually(&format!("{name} to be {state}: {complaint}"), || {
        let backend = backend(sessile, name);
        let says = backend["complaint"].as_str().unwrap_or_default();
        (backend["state"] == state && says.contains(complaint)).then_some(())
    });
}

#[test]
fn only_the_primary_of_redis_is_up_as_primary_and_its_replica_takes_over() {
    let test = "only_the_primary_of_redis_is_up_as_primary_and_its_replica_takes_over";
    let Some(server) = find(test, "redis-server") else { return };
    if !has(test, "redis-cli") {
        return;
    }
    let addresses = [free_address(), free_address()];
    let start = |address: SocketAddr, more: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(&server);
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--protected-mode", "no", "--save", "", "--dir"]).arg(dir.path()).args(more);
        Program::start(dir, command, address)
    };
    let primary = start(addresses[0], &[]);
    let (host, port) = (addresses[0].ip().to_string(), addresses[0].port().to_string());
    let _replica = start(addresses[1], &["--replicaof", &format!("{host} {port}")]);
    let cli = |address: SocketAddr, words: &[&str]| {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        program::output(Command::new("redis-cli").args(["-h", &host, "-p", &port]).args(words))
    };
    let sessile = Sessile::start(&checked("kind = \"redis\"\nrole = \"primary\"", &addresses));
    becomes(&sessile, "b0", "up", "");
    becomes(&sessile, "b1", "down", "ROLE: answered \"slave\", expected \"master\"");
    // What is written arrives at the primary: a replica takes no writes.
    for value in ["a", "b", "c"] {
        assert_eq!(cli(sessile.address("l"), &["set", "k", value]), "OK\n");
    }

    drop(primary);
    becomes(&sessile, "b0", "down", "refused");
    cli(addresses[1], &["replicaof", "no", "one"]);
    becomes(&sessile, "b1", "up", "");
    assert_eq!(cli(sessile.address("l"), &["set", "k", "d"]), "OK\n");

    // A password that the check does not have hides the role, and nothing else.
    cli(addresses[1], &["config", "set", "requirepass", "secret"]);
    becomes(&sessile, "b1", "down", "NOAUTH");
    sessile.reload(&checked("kind = \"redis\"", &addresses));
    becomes(&sessile, "b1", "up", "");
}

#[test]
fn postgres_is_up_without_a_word_in_its_log_and_down_while_it_shuts_down() {
    let test = "postgres_is_up_without_a_word_in_its_log_and_down_while_it_shuts_down";
    let Some((server, address)) = postgres(test) else { return };
    let sessile = Sessile::start(&checked("kind = \"postgres\"", &[address]));
    becomes(&sessile, "b0", "up", "");
    let before = server.said();
    // Sessions of others than these questions.
    let mut asked = 0;
    let mut sessions = || {
        let query = "select sessions from pg_stat_database where datname = 'postgres'";
        let answer = program::output(client("psql", address).args(["-Atc", query, "postgres"]));
        asked += 1;
        answer.trim().parse::<u64>().expect("a number").saturating_sub(asked)
    };
    let first = sessions();
    eventually("checks to have had sessions", || (sessions() > first + 20).then_some(()));
    assert_eq!(backend(&sessile, "b0")["falls"], 0);
    assert_eq!(server.said(), before, "the log stays calm");

    // A server that is asked to stop waits for its sessions, and takes no other.
    let mut session = client("psql", address);
    let mut session = session.args(["-q", "postgres"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    session.stdin.as_mut().unwrap().write_all(b"\\echo here\n").unwrap();
    session.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    server.signal(Signal::TERM);
    becomes(&sessile, "b0", "down", "57P03: the database system is shutting down");
    drop(session.stdin.take());
    session.wait().unwrap();
}

/// Address that is not 127.0.0.0/8: a MySQL counts no failures of those.
pub const COUNTED: &str = "192.0.2.7";
pub const MYSQL_PORT: u16 = 3306;

/// A MariaDB in a namespace of its own that blocks a host after ten failures.
pub fn mariadb(test: &str) -> Option<Program> {
    let (install, server) = (find(test, "mariadb-install-db")?, find(test, "mariadbd")?);
    if !has(test, "mariadb") || !has(test, "nsenter") || !namespace::possible(test) {
        return None;
    }
    let dir = tempfile::tempdir().expect("a scratch directory");
    let Some((user, group)) = program::user("mysql") else {
        skip(test, "there is no user mysql, and root may not run the server");
        return None;
    };
    chown(dir.path(), Some(user), Some(group)).expect("root may give files away");
    let data = dir.path().join("data");
    let mut command = Command::new(install);
    command.args(["--no-defaults", "--user=mysql", "--skip-test-db", "--auth-root-authentication-method=normal"]);
    program::output(command.arg(format!("--datadir={}", data.display())));
    // The server counts only hosts whose address has a name.
    fs::write(dir.path().join("hosts"), format!("{COUNTED} client.test\n")).expect("the file is written");
    let script = format!(
        "ip link set lo up; ip address add {COUNTED}/32 dev lo; mount --bind \"$1/hosts\" /etc/hosts; \
         exec \"$0\" --no-defaults --user=mysql --datadir=\"$1/data\" --socket=\"$1/socket\" \
         --bind-address={COUNTED} --port={MYSQL_PORT} --max-connect-errors=10 --innodb-buffer-pool-size=8M"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-ec", &script]).arg(server).arg(dir.path());
    let is_ready = |dir: &Path| sql(dir, "select 1").output().is_ok_and(|output| output.status.success());
    Some(Program::start_until(dir, command, COUNTED, is_ready))
}

pub fn sql(dir: &Path, statement: &str) -> Command {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--user=root", "--skip-column-names", "--batch", "--socket"]);
    command.arg(dir.join("socket")).args(["--execute", statement]);
    command
}

#[test]
fn mariadb_never_blocks_the_host_of_a_check_and_is_down_where_it_says_no() {
    let test = "mariadb_never_blocks_the_host_of_a_check_and_is_down_where_it_says_no";
    let Some(server) = mariadb(test) else { return };
    let ask = |statement: &str| program::output(&mut sql(server.dir.path(), statement));
    ask("create user 'sessile'@'client.test'; create user 'closed'@'client.test' identified by 'secret'");
    let address = SocketAddr::from(([192, 0, 2, 7], MYSQL_PORT));
    let config = checked("kind = \"mysql\"", &[address]);
    let inside = format!("--net=/proc/{}/ns/net", server.pid());
    let sessile = Sessile::start_in_shell(&["nsenter", &inside], "exec \"$0\" \"$@\"", &config);
    becomes(&sessile, "b0", "up", "");
    let connections = || {
        let row = ask("show global status like 'Connections'");
        row.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
    };
    let checks_pass = |user: &str| {
        sessile.reload(&config.replace("kind = \"mysql\"", &format!("kind = \"mysql\"\nuser = \"{user}\"")));
        let first = connections();
        eventually("many more checks than failures that block", || (connections() > first + 100).then_some(()));
        assert_eq!(backend(&sessile, "b0")["falls"], 0, "{user}");
    };
    let before = server.said();
    checks_pass("sessile");
    assert_eq!(server.said(), before, "the log stays calm");
    for refused in ["closed", "nobody"] {
        checks_pass(refused);
    }

    // An error of the server is another thing. The command line has the one connection that is left to administrators.
    ask("set global max_connections = 10");
    let namespace = namespace::of(server.pid());
    let connect = || TcpStream::connect(address).expect("a connection");
    let crowd = || namespace.inside(|| (0..12).map(|_| connect()).collect::<Vec<_>>());
    let full = crowd();
    becomes(&sessile, "b0", "down", "error 1040: Too many connections");
    // These leave after the greeting, as a check must not. A check in between starts the count again.
    drop(full);
    eventually("the host to be blocked", || {
        drop(crowd());
        backend(&sessile, "b0")["complaint"].as_str()?.contains("error 1129: Host '192.0.2.7' is blocked").then_some(())
    });
    ask("flush hosts");
    becomes(&sessile, "b0", "up", "");
}
