//! A WebSocket library's client and server see the same of each other, frame by frame, with sessile between them and
//! without it.

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
