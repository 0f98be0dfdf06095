//! Requests that their cookies place.

use std::collections::HashSet;

use super::Front;
use super::backend::Recorder;
use super::client::{Talk, config, connect};
use crate::support::backend::pool;
use crate::support::eventually;

const INSERT: &str =
    "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";

pub fn name_of(text: &str) -> String {
    text.split(' ').next().unwrap().to_owned()
}

pub fn cookie_of(response: &super::client::Response) -> String {
    let line = response.field("set-cookie").expect("a cookie");
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=86400"] {
        assert!(line.contains(attribute), "{line}");
    }
    assert_eq!(response.field("cache-control"), Some("private"));
    line.split(';').next().unwrap().to_owned()
}

#[test]
fn every_request_on_one_connection_goes_where_its_own_cookie_says() {
    let backends: Vec<_> = ["x", "y", "z"].map(Recorder::named).into();
    let addresses: Vec<_> = backends.iter().map(Recorder::address).collect();
    let front = Front::start("", INSERT, &addresses);
    let mut talk = Talk::with(&front);
    // Three users behind one proxy, which sends the requests of all over one connection.
    let users: Vec<_> = (0..3)
        .map(|_| {
            let response = talk.get("/", "");
            (name_of(&response.text()), cookie_of(&response))
        })
        .collect();
    assert_eq!(users.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), 3);
    for round in 0..30 {
        let (name, cookie) = &users[round * 7 % 3];
        let response = talk.get("/", &format!("Cookie: a=b; {cookie}; c=d\r\nCookie: e=f\r\n"));
        let text = response.text();
        assert_eq!(name_of(&text), *name);
        assert!(!text.contains("SESSILE") && text.contains("a=b; c=d") && text.contains("e=f"), "{text}");
        assert_eq!(response.field("set-cookie"), None, "sent only when new or due");
    }
    let told = |line: &serde_json::Value| line["reason"] == "cookie" && line["cookie"] == "fresh";
    crate::support::eventually("a line of each request that obeyed a cookie", || {
        (front.requests().into_iter().filter(told).count() == 30).then_some(())
    });
    // One connection to each backend, all of this client connection.
    assert_eq!(backends.iter().map(Recorder::connections).sum::<usize>(), 3);
    // A cookie cannot be forged, and does not name a backend.
    let forged = talk.get("/", &format!("Cookie: {}x\r\n", users[0].1));
    cookie_of(&forged);
    // By chance a cookie may contain two letters; that all three names are in them is no chance.
    let is_named = |name: &&str| users.iter().any(|(_, cookie)| cookie.contains(name));
    assert!(!["b0", "b1", "b2"].iter().all(is_named));
}

#[test]
fn a_twin_brings_a_client_back_from_pages_of_other_sites_and_no_backend_sees_it() {
    let answer = |name: &'static str| {
        move |head: &str| {
            let line = if head.starts_with("GET /sets") { "Set-Cookie: SESSILE-pCORS=theirs\r\n" } else { "" };
            let length = name.len() + 1 + head.len();
            Some(format!("HTTP/1.1 200 OK\r\n{line}Content-Length: {length}\r\n\r\n{name} {head}").into_bytes())
        }
    };
    let backends: Vec<_> = ["x", "y", "z"].map(|name| Recorder::answering(name, answer(name))).into();
    let addresses: Vec<_> = backends.iter().map(Recorder::address).collect();
    let options = INSERT.replace(" }", ", lifetime = \"session\", cross_site_twin = true }");
    let front = Front::start("", &options, &addresses);
    let mut talk = Talk::with(&front);
    for _ in 0..3 {
        let response = talk.get("/", "");
        let home = name_of(&response.text());
        let lines: Vec<_> = response.head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: ")).collect();
        let [own, twin] = lines[..] else { panic!("{}", response.head) };
        let (own, twin) = (own.split_once(';').unwrap(), twin.split_once(';').unwrap());
        assert_eq!(own.1, " Path=/; Secure; HttpOnly; SameSite=Lax");
        assert_eq!(twin.1, " Path=/; Secure; HttpOnly; SameSite=None");
        let value = own.0.strip_prefix("SESSILE-p=").unwrap();
        assert_eq!(twin.0.strip_prefix("SESSILE-pCORS=").unwrap(), value);
        for brought in [twin.0.to_owned(), own.0.to_owned(), format!("{}; {}", own.0, twin.0)] {
            let again = talk.get("/sets", &format!("Cookie: a=b; {brought}\r\n"));
            assert_eq!(name_of(&again.text()), home);
            assert_eq!(again.field("set-cookie"), None, "neither a new one nor that of the backend");
            assert!(again.text().contains("Cookie: a=b\r\n"), "{}", again.text());
        }
    }
    let dropped = || front.sessile.sum("sessile_dropped_set_cookies_total", &["pool=\"p\""]);
    eventually("the lines of the backends to be counted", || (dropped() == 9.0).then_some(()));
}

#[test]
fn pools_of_a_stick_group_understand_each_others_cookies_and_others_do_not() {
    let backends: Vec<_> = ["x", "y", "z"].map(Recorder::named).into();
    let addresses: Vec<_> = backends.iter().map(Recorder::address).collect();
    let route = "pool = \"p\"\n[[listener.route]]\nsni = \"q.a.test\"\npool = \"q\"\n";
    for group in ["", "stick_group = \"web\"\n"] {
        let options = group.to_owned() + INSERT;
        let front = Front::with("", route, &(pool("p", &options, &addresses) + &pool("q", &options, &addresses)));
        let first = Talk::with(&front).get("/", "");
        let (home, cookie) = (name_of(&first.text()), cookie_of(&first));
        let mut other = Talk::new(connect(front.address(), &config(&front.authority), "q.a.test"));
        let answers = (0..3).map(|_| {
            other.send(format!("GET / HTTP/1.1\r\nHost: q.a.test\r\nCookie: {cookie}\r\n\r\n"));
            other.response().expect("an answer")
        });
        let kept: Vec<_> =
            answers.map(|answer| name_of(&answer.text()) == home && answer.field("set-cookie").is_none()).collect();
        assert_eq!(kept, [!group.is_empty(); 3]);
    }
}

#[test]
fn a_cookie_for_a_backend_that_is_down_is_placed_anew_and_issued_again() {
    let (x, y) = (Recorder::named("x"), Recorder::named("y"));
    let options = INSERT.to_owned() + "connect_timeout = \"200ms\"\n";
    let front = Front::start("", &options, &[x.address(), y.address()]);
    let mut talk = Talk::with(&front);
    let response = talk.get("/", "");
    let (name, cookie) = (name_of(&response.text()), cookie_of(&response));
    let (gone, stays) = if name == "x" { (x, "y") } else { (y, "x") };
    drop(talk);
    let address = gone.address();
    drop(gone);
    // The listening socket closes once its last accept has returned.
    crate::support::eventually("the backend to be gone", || {
        std::net::TcpStream::connect(address).is_err().then_some(())
    });
    let mut talk = Talk::with(&front);
    let response = talk.get("/", &format!("Cookie: {cookie}\r\n"));
    assert_eq!(name_of(&response.text()), stays);
    let anew = cookie_of(&response);
    let again = talk.get("/", &format!("Cookie: {anew}\r\n"));
    assert_eq!((name_of(&again.text()).as_str(), again.field("set-cookie")), (stays, None));
}

#[test]
fn what_the_application_sets_is_learned_before_the_client_can_use_it() {
    let answer = |name: &'static str| {
        move |head: &str| {
            head.starts_with("GET /login").then(|| {
                format!("HTTP/1.1 200 OK\r\nSet-Cookie: SID=of-{name}; Path=/\r\nContent-Length: 1\r\n\r\n{name}")
                    .into_bytes()
            })
        }
    };
    let (x, y) = (Recorder::answering("x", answer("x")), Recorder::answering("y", answer("y")));
    let options = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    let front = Front::start("", options, &[x.address(), y.address()]);
    let mut talk = Talk::with(&front);
    for _ in 0..4 {
        let name = talk.get("/login", "").text();
        for _ in 0..3 {
            let text = talk.get("/", &format!("Cookie: SID=of-{name}\r\n")).text();
            assert_eq!(name_of(&text), name);
            assert!(text.contains(&format!("Cookie: SID=of-{name}\r\n")), "{text}");
        }
    }
}

#[test]
fn what_the_application_has_ended_is_not_known_again_when_connections_end() {
    let answer = |head: &str| {
        let cookie = match head.split(' ').nth(1)? {
            "/login" => "SID=secret",
            "/logout" => "SID=; Max-Age=0",
            _ => return None,
        };
        Some(format!("HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}; Path=/\r\nContent-Length: 0\r\n\r\n").into_bytes())
    };
    let backend = Recorder::answering("x", answer);
    let options = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    let front = Front::start("", options, &[backend.address()]);
    let known = || front.sessile.json("/stick-table")[0]["known"].as_u64();
    // A browser has several connections.
    let [mut one, mut other] = [Talk::with(&front), Talk::with(&front)];
    one.get("/login", "");
    other.get("/", "Cookie: SID=secret\r\n");
    assert_eq!(known(), Some(1));
    one.get("/logout", "Cookie: SID=secret\r\n");
    assert_eq!(known(), Some(0));
    drop((one, other));
    eventually("both to have ended", || {
        let lines = front.sessile.lines();
        (lines.iter().filter(|line| line["ended"].is_string() && line["request"].is_null()).count() == 2).then_some(())
    });
    assert_eq!(known(), Some(0));
}

#[test]
fn names_before_and_behind_values_are_obeyed() {
    let answer = |name: &'static str| {
        move |head: &str| {
            head.starts_with("GET /login").then(|| {
                format!("HTTP/1.1 200 OK\r\nSet-Cookie: SID=1234; Path=/\r\nContent-Length: 1\r\n\r\n{name}")
                    .into_bytes()
            })
        }
    };
    let backends = [Recorder::answering("x", answer("x")), Recorder::answering("y", answer("y"))];
    let addresses = backends.each_ref().map(Recorder::address);
    let options = |mode: &str| {
        format!("http = true\nbalance = \"round_robin\"\ncookie = {{ mode = \"{mode}\", name = \"SID\" }}\n")
    };
    let front = Front::start("", &options("prefix"), &addresses);
    let mut talk = Talk::with(&front);
    for _ in 0..3 {
        let login = talk.get("/login", "");
        let cookie = login.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("SID=b") && cookie.ends_with("~1234"), "{cookie}");
        let text = talk.get("/", &format!("Cookie: {cookie}\r\n")).text();
        assert_eq!(name_of(&text), login.text());
        assert!(text.contains("Cookie: SID=1234\r\n"), "{text}");
    }
    let front = Front::start("", &options("route"), &addresses);
    let mut talk = Talk::with(&front);
    for (index, name) in ["x", "y", "x", "y", "y", "x"].iter().enumerate() {
        let backend = ["x", "y"].iter().position(|known| known == name).unwrap();
        let text = talk.get(&format!("/{index}"), &format!("Cookie: SID=A1B2.b{backend}\r\n")).text();
        assert_eq!(name_of(&text), *name);
    }
    let hash = options("hash").replace("round_robin", "hash");
    let front = Front::start("", &hash, &addresses);
    let mut talk = Talk::with(&front);
    let mut served = HashSet::new();
    for user in 0..16 {
        let ask = |talk: &mut Talk<_>| name_of(&talk.get("/", &format!("Cookie: SID=user{user}\r\n")).text());
        let name = ask(&mut talk);
        assert_eq!(ask(&mut talk), name);
        served.insert(name);
    }
    assert_eq!(served.len(), 2);
}
