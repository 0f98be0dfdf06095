//! Requests that are placed by what they carry, one by one.

use std::collections::HashSet;

use super::{backends, keyed};
use crate::http2::client::Client;
use crate::http2::site::name_of;
use crate::support::sessile::run;
use crate::terminate::client::Talk;
use crate::terminate::{Front, backend::Recorder};

/// A request: its target, and a field if it has one.
type Asked = (String, Option<(&'static str, String)>);

/// Where a request goes over HTTP/1.1, on this connection.
fn home<S: std::io::Read + std::io::Write>(talk: &mut Talk<S>, (target, field): &Asked) -> String {
    let fields = field.as_ref().map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
    name_of(&talk.get(target, &fields).text())
}

/// Sends the requests of twelve users over one connection each of HTTP/1.1 and HTTP/2, mixed: each user has one home.
fn every_user_has_a_home(key: &str, ask: impl Fn(usize, usize) -> Asked) {
    let backends = backends();
    let front = keyed(key, &backends);
    let (mut talk, client) = (Talk::with(&front), Client::with(&front));
    let homes: Vec<_> = (0..12).map(|user| home(&mut talk, &ask(user, 0))).collect();
    assert!(homes.iter().collect::<HashSet<_>>().len() > 1, "{key}: all at one backend");
    for visit in 1..4 {
        for user in (0..12).rev() {
            let asked = ask(user, visit);
            assert_eq!(home(&mut talk, &asked), homes[user], "{key} {asked:?}");
            let fields: Vec<_> =
                asked.1.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(name_of(&client.get(&asked.0, &fields).text()), homes[user], "{key} {asked:?}, HTTP/2");
        }
    }
}

#[test]
fn a_header_places_each_request_by_itself() {
    let name = |visit| ["X-User", "x-user", "X-USER", "X-uSER"][visit];
    every_user_has_a_home("\"header:X-User\"", |user, visit| {
        (format!("/{visit}"), Some((name(visit), format!("user {user}"))))
    });
}

#[test]
fn a_value_of_the_query_places_each_request_by_itself() {
    every_user_has_a_home("\"query:user\"", |user, visit| (format!("/{visit}?v={visit}&user=u{user}&w=1"), None));
}

#[test]
fn the_first_segments_of_the_path_place_each_request() {
    every_user_has_a_home("\"path:2\"", |user, visit| {
        let rest = ["", "/", "/list", "/list/7?page=2"][visit];
        (format!("/tenants/t{user}{rest}"), None)
    });
}

#[test]
fn a_parameter_of_the_path_places_each_request_by_itself() {
    every_user_has_a_home("\"path_parameter:jsessionid\"", |user, visit| {
        (format!("/shop/{visit};v={visit};jsessionid=5A0F{user}?x=;jsessionid=no"), None)
    });
}

#[test]
fn the_first_part_that_a_request_has_counts() {
    let backends = backends();
    let front = keyed("\"header:X-User or query:user or path:1\"", &backends);
    let mut talk = Talk::with(&front);
    let user = |value: &str| Some(("X-User", value.to_owned()));
    let mut at = |target: &str, field| home(&mut talk, &(target.to_owned(), field));
    let names: Vec<_> = (0..12).map(|number| format!("user-{number}")).collect();
    let homes: Vec<_> = names.iter().map(|name| at("/a?user=x", user(name))).collect();
    for (name, place) in names.iter().zip(&homes) {
        assert_eq!(at("/b?user=y", user(name)), *place, "the header counts");
    }
    let by_query: Vec<_> = names.iter().map(|name| at(&format!("/a?user={name}"), None)).collect();
    for (name, place) in names.iter().zip(&by_query) {
        assert_eq!(at(&format!("/b?user={name}"), user("")), *place, "an empty header is none");
    }
    let by_path: Vec<_> = names.iter().map(|name| at(&format!("/{name}?user="), None)).collect();
    for (name, place) in names.iter().zip(&by_path) {
        assert_eq!(at(&format!("/{name}/more"), None), *place, "an empty value is none");
    }
    let spread = |homes: &[String]| homes.iter().collect::<HashSet<_>>().len();
    assert!([homes, by_query, by_path].iter().all(|homes| spread(homes) > 1));
}

#[test]
fn a_key_of_requests_stays_at_its_backend_when_others_come() {
    let (backends, more) = (backends(), backends());
    let front = keyed("[\"header:X-User\", \"path:1\"]", &backends);
    let mut talk = Talk::with(&front);
    let asked: Vec<Asked> = (0..40).map(|user| ("/app".to_owned(), Some(("X-User", user.to_string())))).collect();
    let homes: Vec<_> = asked.iter().map(|asked| home(&mut talk, asked)).collect();
    let more: Vec<_> = backends.iter().chain(&more).map(Recorder::address).collect();
    let text = crate::terminate::config(
        &front.dir,
        "",
        "pool = \"p\"\n",
        &crate::support::backend::pool("p", "http = true\nkey = [\"header:X-User\", \"path:1\"]\n", &more),
    );
    assert_eq!(front.sessile.reload(&text)["accepted"], true);
    for (asked, place) in asked.iter().zip(&homes) {
        assert_eq!(home(&mut talk, asked), *place, "the stick table has it");
    }
}

#[test]
fn explain_foretells_where_a_request_goes() {
    let backends = backends();
    let front = keyed("\"header:X-User or query:user or path:1 or source\"", &backends);
    let mut talk = Talk::with(&front);
    for (target, field, key) in [
        ("/a", Some("ann"), "header x-user"),
        ("/a?user=bob", None, "query user"),
        ("/tenant/x", None, "path /tenant"),
        ("/", None, "source 127.0.0.1/32"),
    ] {
        let asked = (target.to_owned(), field.map(|value| ("X-User", value.to_owned())));
        let place = home(&mut talk, &asked);
        let report = explained(&front, target, field);
        assert_eq!(report["key"], key, "{report}");
        let choice = report["choice"].as_str().unwrap_or_else(|| panic!("{report}"));
        let number: usize = choice.strip_prefix('b').unwrap().parse().unwrap();
        assert_eq!(["w", "x", "y", "z"][number], place, "{report}");
    }
}

/// What the running process says of such a request from this machine.
fn explained(front: &Front, path: &str, user: Option<&str>) -> serde_json::Value {
    let socket = front.sessile.admin();
    let mut arguments = vec!["explain", "--live", "--json", "--client", "127.0.0.1", "--path", path];
    arguments.extend(["--socket", socket.to_str().expect("words")]);
    let header = user.map(|user| format!("X-User: {user}"));
    if let Some(header) = &header {
        arguments.extend(["--header", header]);
    }
    let said = run(&arguments);
    serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}
