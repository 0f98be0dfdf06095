//! Cookies of the application of which a request brings several values, or a response has several lines.

use super::Front;
use super::backend::Recorder;
use super::client::{Talk, Tls};
use super::cookie::name_of;

const LEARN: &str = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";

/// Replies to `/set?LINES` with the lines that the path names, as `Set-Cookie: SID=…` each, separated by `&`.
fn application(name: &'static str) -> Recorder {
    Recorder::answering(name, move |head| {
        let lines = head.split(' ').nth(1)?.strip_prefix("/set?")?;
        let lines: String =
            lines.split('&').map(|line| format!("Set-Cookie: SID={}\r\n", line.replace('+', "; "))).collect();
        Some(format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 1\r\n\r\n{name}").into_bytes())
    })
}

/// An instance before two backends of one application, with a connection.
struct Learning {
    front: Front,
    talk: Talk<Tls>,
    _backends: [Recorder; 2],
}

impl Learning {
    fn start() -> Self {
        let backends = ["x", "y"].map(application);
        let front = Front::start("", LEARN, &backends.each_ref().map(Recorder::address));
        let talk = Talk::with(&front);
        Self { front, talk, _backends: backends }
    }

    /// Name of the backend that served a request with these cookies.
    fn get(&mut self, path: &str, cookies: &[&str]) -> String {
        let pairs: Vec<_> = cookies.iter().map(|value| format!("SID={value}")).collect();
        let line = if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) };
        name_of(&self.talk.get(path, &line).text())
    }

    /// Number of values in the stick table.
    fn known(&self) -> u64 {
        self.front.sessile.json("/stick-table")[0]["known"].as_u64().expect("a number")
    }
}

#[test]
fn what_a_response_sets_survives_the_line_that_expires_the_same_cookie() {
    let mut learning = Learning::start();
    // The application has moved its cookie to another domain and ends the old one with every response.
    let home = learning.get("/set?s1", &[]);
    for lines in ["/set?s1+Domain=a.test&+Max-Age=0", "/set?+Max-Age=0&s1+Domain=a.test"] {
        for _ in 0..3 {
            assert_eq!(learning.get(lines, &["s1"]), home, "{lines}");
            assert_eq!(learning.known(), 1);
        }
    }
    // A new value with the end of the old one: the new one stays, the old one goes.
    assert_eq!(learning.get("/set?+Max-Age=0+Path=/old&s2", &["s1"]), home);
    assert_eq!(learning.known(), 1);
    assert_eq!(learning.get("/", &["s2"]), home);
    assert_eq!(learning.get("/", &["s2"]), home);
}

#[test]
fn a_value_is_ended_only_if_the_request_brought_no_other() {
    let mut learning = Learning::start();
    let homes = [learning.get("/set?s1", &[]), learning.get("/set?s2", &[])];
    assert_ne!(homes[0], homes[1]);
    assert_eq!(learning.get("/set?+Max-Age=0", &["s1", "s2"]), homes[0]);
    assert_eq!(learning.known(), 2);
    assert_eq!([learning.get("/", &["s1"]), learning.get("/", &["s2"])], homes);
    // The same value twice is one value.
    assert_eq!(learning.get("/set?+Max-Age=0", &["s1", "s1"]), homes[0]);
    assert_eq!(learning.known(), 1);
    assert_eq!(learning.get("/", &["s2"]), homes[1]);
}

#[test]
fn a_value_that_only_clients_brought_pulls_no_user_from_the_backend_of_its_session() {
    let mut learning = Learning::start();
    // Every visitor has the constant before the login.
    let shared = learning.get("/", &["guest"]);
    let mut users = Vec::new();
    for n in 0..6 {
        users.push((format!("s{n}"), learning.get(&format!("/set?s{n}"), &[])));
    }
    assert!(users.iter().any(|(_, home)| *home != shared));
    for (value, home) in &users {
        assert_eq!(learning.get("/", &["guest", value]), *home, "{value}");
        assert_eq!(learning.get("/", &[value, "guest"]), *home, "{value}");
    }
    assert_eq!(learning.get("/", &["guest"]), shared);
}

#[test]
fn a_value_above_4_kib_is_not_learned() {
    let mut learning = Learning::start();
    let [longest, longer] = [4096, 4097].map(|length| "v".repeat(length));
    let home = learning.get(&format!("/set?{longest}"), &[]);
    assert_eq!(learning.known(), 1);
    learning.get(&format!("/set?{longer}"), &[&longer]);
    assert_eq!(learning.known(), 1);
    for _ in 0..3 {
        assert_eq!(learning.get("/", &[&longest]), home);
    }
}
