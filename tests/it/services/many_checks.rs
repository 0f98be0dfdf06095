//! Checks that go on for long: servers that count failures of a host, or have few places, never mind them.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::services::checks::{COUNTED, MYSQL_PORT, mariadb, sql};
use crate::services::postgres::{ask, postgres};
use crate::support::backend::{listener, pool};
use crate::support::program::output;
use crate::support::{Sessile, size};

/// Time of each test; with `SESSILE_TEST_CHECK_SECONDS` as many seconds as that says.
const SECONDS: usize = 10;
const SECONDS_VARIABLE: &str = "SESSILE_TEST_CHECK_SECONDS";
const PAUSE: Duration = Duration::from_millis(500);

fn duration() -> Duration {
    Duration::from_secs(size(SECONDS_VARIABLE, SECONDS) as u64)
}

/// A pool that is checked every 200 ms.
fn checked(name: &str, check: &str, backend: SocketAddr) -> String {
    let check = format!("{check}\ninterval = \"200ms\"\ntimeout = \"2s\"\nfall = 1\n");
    pool(name, "", &[backend]).replace("kind = \"off\"\n", &check)
}

/// Does something again and again for as long as a test lasts, and looks after it that no backend was ever down.
fn goes_on(sessile: &Sessile, mut work: impl FnMut()) {
    let began = Instant::now();
    while began.elapsed() < duration() {
        work();
        let backends = sessile.json("/backends");
        let bad = backends.as_array().expect("backends").iter().find(|one| one["up"] != true || one["falls"] != 0);
        assert!(bad.is_none(), "after {:.1?}: {bad:?}", began.elapsed());
        thread::sleep(PAUSE);
    }
}

#[test]
fn mariadb_never_blocks_a_host_that_checks_it_for_long() {
    let Some(server) = mariadb("mariadb_never_blocks_a_host_that_checks_it_for_long") else { return };
    let ask = |statement: &str| output(&mut sql(server.dir.path(), statement));
    ask("create user 'sessile'@'client.test'; create user 'closed'@'client.test' identified by 'secret'");
    let address = SocketAddr::from(([192, 0, 2, 7], MYSQL_PORT));
    let config = listener("p", "")
        + &checked("p", "kind = \"mysql\"", address)
        + &checked("denied", "kind = \"mysql\"\nuser = \"closed\"", address)
        + &checked("unknown", "kind = \"mysql\"\nuser = \"nobody\"", address);
    let inside = format!("--net=/proc/{}/ns/net", server.pid());
    let sessile = Sessile::start_in_shell(&["nsenter", &inside], "exec \"$0\" \"$@\"", &config);
    let front = sessile.address("l");
    let connections = || {
        let row = ask("show global status like 'Connections'");
        row.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let (before, mut queries) = (connections(), 0);
    goes_on(&sessile, || {
        let mut client = Command::new("nsenter");
        client.args([&inside, "mariadb", "--no-defaults", "--protocol=tcp", "--user=sessile", "--skip-ssl", "--batch"]);
        client.args([format!("--host={}", front.ip()), format!("--port={}", front.port())]);
        assert_eq!(output(client.args(["--skip-column-names", "--execute", "select 6 * 7"])), "42\n");
        queries += 1;
    });
    let (checks, least) = (connections() - before - queries, 3 * duration().as_millis() as u64 / 200);
    println!("{checks} checks and {queries} queries from {COUNTED}, none refused");
    assert!(checks > least / 2, "{checks} checks");
}

#[test]
fn postgres_keeps_its_places_and_a_calm_log_under_checks_for_long() {
    let test = "postgres_keeps_its_places_and_a_calm_log_under_checks_for_long";
    let Some((server, address)) = postgres(test) else { return };
    let text = listener("p", "") + &checked("p", "kind = \"postgres\"", address);
    let sessile = Sessile::start(&text);
    let front = sessile.address("l");
    let (before, mut most) = (server.said(), 0);
    goes_on(&sessile, || {
        let places = ask(front, "select count(*) from pg_stat_activity where backend_type = 'client backend'");
        most = most.max(places.trim().parse::<u32>().expect("a number"));
    });
    println!("at most {most} sessions at once");
    assert!(most <= 3, "{most} sessions at once");
    assert_eq!(server.said(), before, "the log stays calm");
}
