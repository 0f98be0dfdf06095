//! redis-cli over TLS, in front of servers that speak none.

use std::process::{Command, Stdio};

use crate::support::has;
use crate::support::program::{Program, find, free_address, output};
use crate::terminate::Front;

#[test]
fn redis_cli_speaks_tls_with_a_server_that_does_not() {
    let test = "redis_cli_speaks_tls_with_a_server_that_does_not";
    let Some(server) = find(test, "redis-server").filter(|_| has(test, "redis-cli")) else { return };
    let addresses = [free_address(), free_address()];
    let _servers = addresses.map(|address| {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(&server);
        command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
        command.args(["--protected-mode", "no", "--save", "", "--dir"]).arg(dir.path());
        Program::start(dir, command, address)
    });
    let front = Front::start("", "", &addresses);
    let cli = |words: &[&str]| {
        let mut cli = Command::new("redis-cli");
        cli.args(["--tls", "--sni", "a.test", "-h", "127.0.0.1", "-p", &front.address().port().to_string()]);
        cli.arg("--cacert").arg(front.file("ca.pem")).args(words);
        cli
    };

    // A client that comes back finds its data, although the two servers share none.
    assert_eq!(output(&mut cli(&["set", "left", "here"])), "OK\n");
    assert_eq!(output(&mut cli(&["get", "left"])), "here\n");

    // Thousands of exchanges on one connection, then values that are larger than any buffer of sessile.
    assert_eq!(output(&mut cli(&["-r", "5000", "incr", "count"])).lines().last(), Some("5000"));
    let value = "0123456789abcdef".repeat(1 << 18);
    let input = front.file("value");
    std::fs::write(&input, &value).unwrap();
    let file = std::fs::File::open(&input).unwrap();
    assert_eq!(output(cli(&["-x", "set", "long"]).stdin(Stdio::from(file))), "OK\n");
    assert!(output(&mut cli(&["get", "long"])).trim_end() == value);

    // The server sends messages without a request.
    let mut listening = cli(&["--csv", "subscribe", "news"]).stdout(Stdio::piped()).spawn().unwrap();
    crate::support::eventually("a subscriber", || {
        (output(&mut cli(&["publish", "news", "hello"])) == "1\n").then_some(())
    });
    let mut heard = String::new();
    let mut lines = std::io::BufReader::new(listening.stdout.take().unwrap());
    while !heard.contains("\"message\",\"news\",\"hello\"") {
        assert!(std::io::BufRead::read_line(&mut lines, &mut heard).unwrap() > 0, "{heard}");
    }
    listening.kill().unwrap();
    listening.wait().unwrap();
    let blamed: Vec<_> = front.sessile.lines_of_all().into_iter().filter(|line| line["fault"] == "backend").collect();
    assert!(blamed.is_empty(), "{blamed:?}");
}
