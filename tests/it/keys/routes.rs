//! Values of applications that name their backend, in a cookie or in the path.

use super::{addresses, backends};
use crate::http2::client::Client;
use crate::http2::site::name_of;
use crate::support::has;
use crate::support::program::output;
use crate::terminate::Front;
use crate::terminate::client::Talk;
use crate::terminate::programs::{base, curl};

/// The names of the recorders, by the number of the backend in the configuration.
const NAMES: [&str; 4] = ["w", "x", "y", "z"];

fn start(more: &str, backends: &[crate::terminate::backend::Recorder]) -> Front {
    let cookie = format!("cookie = {{ mode = \"route\", name = \"JSESSIONID\"{more} }}\n");
    Front::start("", &format!("http = true\nbalance = \"round_robin\"\n{cookie}"), &addresses(backends))
}

#[test]
fn a_route_is_found_behind_and_before_its_separator() {
    let backends = backends();
    for (more, write) in [
        ("", (|n| format!("5A0F.b{n}")) as fn(usize) -> String),
        (", separator = \"!\"", |n| format!("5A0F!b{n}!b{}", (n + 1) % 4)),
        (", separator = \"-\", side = \"prefix\"", |n| format!("b{n}-5A-0F")),
    ] {
        let front = start(more, &backends);
        let (mut talk, client) = (Talk::with(&front), Client::with(&front));
        for _ in 0..3 {
            for (number, name) in NAMES.iter().enumerate().rev() {
                let cookie = format!("JSESSIONID={}", write(number));
                let response = talk.get("/", &format!("Cookie: {cookie}\r\n"));
                assert_eq!(name_of(&response.text()), *name, "{more}");
                assert!(response.text().contains(&cookie), "the backend has it as it was");
                assert_eq!(name_of(&client.get("/", &[("cookie", &cookie)]).text()), *name, "{more}, HTTP/2");
            }
        }
    }
}

#[test]
fn a_route_in_the_path_keeps_a_client_without_cookies() {
    let backends = backends();
    let front = start(", path_parameter = \"jsessionid\"", &backends);
    let (mut talk, client) = (Talk::with(&front), Client::with(&front));
    for _ in 0..3 {
        for (number, name) in NAMES.iter().enumerate().rev() {
            let path = format!("/list;jsessionid=5A0F.b{number}?page=2");
            let text = talk.get(&path, "").text();
            assert_eq!(name_of(&text), *name);
            assert!(text.contains(&format!("GET {path} HTTP/1.1")), "{text}");
            assert_eq!(name_of(&client.get(&path, &[]).text()), *name, "HTTP/2");
            let other = (number + 1) % 4;
            let cookie = format!("JSESSIONID=5A0F.b{other}");
            assert_eq!(
                name_of(&talk.get(&path, &format!("Cookie: {cookie}\r\n")).text()),
                NAMES[other],
                "the cookie counts"
            );
            let stale = talk.get(&path, "Cookie: JSESSIONID=5A0F.gone\r\n");
            assert_eq!(name_of(&stale.text()), *name, "a cookie that names no backend does not");
        }
    }
}

#[test]
fn curl_without_cookies_stays_by_its_path() {
    if !has("curl_without_cookies_stays_by_its_path", "curl") {
        return;
    }
    let backends = backends();
    let front = start(", path_parameter = \"jsessionid\", separator = \"!\"", &backends);
    for (number, name) in NAMES.iter().enumerate() {
        let url = format!("{}/a;jsessionid=5A0F!b{number}/b", base(&front));
        for http in ["--http1.1", "--http2", "--http1.1"] {
            assert_eq!(name_of(&output(curl(&front).args([http, &url]))), *name);
        }
    }
}
