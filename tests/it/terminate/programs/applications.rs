//! Applications that share no sessions, with the standard libraries of Python and Node as their users: a request that
//! reaches another backend finds no session, and the test fails.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use super::{node, python, run};
use crate::support::eventually;
use crate::support::program::{Program, find, free_address, nginx, output};
use crate::terminate::Front;

const USERS: usize = 12;
const REQUESTS: usize = 40;

fn application(interpreter: &Path, file: &str, name: &str) -> (Program, SocketAddr) {
    let address = free_address();
    let mut command = run(interpreter, file);
    command.args([&address.ip().to_string(), &address.port().to_string(), name]);
    (Program::start(tempfile::tempdir().unwrap(), command, address), address)
}

/// Runs all users at once; returns which backends served each of them.
fn visit(front: &Front, interpreter: &Path, file: &str) -> Vec<String> {
    let mut client = run(interpreter, file);
    client.arg(front.address().port().to_string()).arg(front.file("ca.pem"));
    let said = output(client.args([USERS, REQUESTS].map(|count| count.to_string())));
    said.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn sessions_of_python_and_node_applications_are_learned() {
    let test = "sessions_of_python_and_node_applications_are_learned";
    let (Some(python), Some(node)) = (python(test, "ssl, http.cookiejar"), node(test)) else { return };
    let applications = [
        application(&python, "application.py", "one"),
        application(&python, "application.py", "two"),
        application(&node, "application.js", "three"),
        application(&node, "application.js", "four"),
    ];
    let addresses = applications.each_ref().map(|(_, address)| *address);
    let options = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    let front = Front::start("", options, &addresses);
    for (interpreter, file) in [(&python, "client.py"), (&node, "client.js")] {
        let served = visit(&front, interpreter, file);
        assert_eq!(served.len(), USERS);
        let names: HashSet<_> = served.iter().map(String::as_str).collect();
        assert_eq!(names, HashSet::from(["one", "two", "three", "four"]), "{file}");
    }
    let requests = eventually("a line for every request", || {
        let requests = front.requests();
        let logins = requests.iter().filter(|line| line["path"] == "/login").count();
        (logins >= 2 * USERS && requests.len() - logins >= 2 * USERS).then_some(requests)
    });
    let odd = requests.iter().find(|line| line["status"] != 200 || line["ended"] != "done");
    assert!(odd.is_none(), "{odd:?}");
    let (logins, others): (Vec<_>, Vec<_>) = requests.iter().partition(|line| line["path"] == "/login");
    assert!(logins.len() >= 2 * USERS && others.len() >= 2 * USERS, "{} and {}", logins.len(), others.len());
    assert!(others.iter().all(|line| line["reason"] == "cookie"), "{others:?}");
}

#[test]
fn our_own_cookie_keeps_python_and_node_where_they_were() {
    let test = "our_own_cookie_keeps_python_and_node_where_they_were";
    let (Some(python), Some(node)) = (python(test, "ssl, http.cookiejar"), node(test)) else { return };
    let Some(program) = find(test, "nginx") else { return };
    let [one, two] = ["one", "two"].map(|name| application(&python, "application.py", name));
    // Applications often run behind nginx.
    let sites = [free_address(), free_address()];
    let server = |site: SocketAddr, application: SocketAddr| {
        format!(
            "upstream at{port} {{ server {application}; keepalive 8; }}\nserver {{ listen {site}; location / {{ \
             proxy_pass http://at{port}; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}\n",
            port = site.port()
        )
    };
    let _nginx = nginx(&program, sites[0], &(server(sites[0], one.1) + &server(sites[1], two.1)));
    let options =
        "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";
    let front = Front::start("", options, &sites);
    for (interpreter, file) in [(&python, "client.py"), (&node, "client.js")] {
        let served = visit(&front, interpreter, file);
        assert_eq!(served.iter().collect::<HashSet<_>>().len(), 2, "{file}");
    }
}
