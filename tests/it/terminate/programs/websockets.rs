//! A WebSocket library's client and server see the same of each other, frame by frame, with sessile between them and
//! without it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;

use super::{base, python, run};
use crate::support::program::{Program, free_address, output};
use crate::terminate::Front;

#[test]
fn a_websocket_library_sees_no_difference() {
    let test = "a_websocket_library_sees_no_difference";
    let Some(python) = python(test, "websockets") else { return };
    let server = free_address();
    let mut command = run(&python, "websockets_server.py");
    command.args([&server.ip().to_string(), &server.port().to_string()]);
    let _server = Program::start(tempfile::tempdir().unwrap(), command, server);
    let cookie = "cookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";
    let front = Front::start("", &format!("http = true\n{cookie}"), &[server]);
    let client = |uri: &str| {
        let mut client = run(&python, "websockets_client.py");
        client.arg(uri);
        client
    };
    let direct = output(&mut client(&format!("ws://{server}")));
    let through = output(
        client(&base(&front).replace("https", "wss")).arg(front.address().port().to_string()).arg(front.file("ca.pem")),
    );
    let difference = direct.lines().zip(through.lines()).find(|(direct, through)| direct != through);
    assert!(difference.is_none() && direct.len() == through.len(), "{difference:?}");
    for what in ["binary \"server\"", "fragments \"client\"", "deflate \"agreed\"", "closes ", "breaks \"server\""] {
        assert!(direct.lines().any(|line| line.starts_with(what)), "{what} is missing: {direct}");
    }
    // The WebSocket requests, and the requests for what the server has seen.
    assert_eq!(front.counted("upgrades"), 17);
}

#[test]
fn a_websocket_library_sees_1012_when_the_process_stops_and_its_server_sees_the_answer() {
    let test = "a_websocket_library_sees_1012_when_the_process_stops_and_its_server_sees_the_answer";
    let Some(python) = python(test, "websockets") else { return };
    let server = free_address();
    let mut command = run(&python, "websockets_server.py");
    command.args([&server.ip().to_string(), &server.port().to_string()]);
    let _server = Program::start(tempfile::tempdir().unwrap(), command, server);
    let mut front = Front::start("stop_deadline = \"0s\"\n", "http = true\n", &[server]);
    let mut client = run(&python, "websockets_until_closed.py");
    client.arg(base(&front).replace("https", "wss")).arg(front.address().port().to_string());
    client.arg(front.file("ca.pem")).arg(format!("ws://{server}"));
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "open permessage-deflate");
    front.sessile.signal(Signal::TERM);
    let said: Vec<_> = lines.map(|line| line.unwrap()).collect();
    assert_eq!(said, ["client 1012", "server 1012"]);
    assert!(client.wait().unwrap().success() && front.sessile.wait().success());
}
