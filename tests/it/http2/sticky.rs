//! Streams that their own cookies place.

use super::client::{Client, Reply};
use super::site::{Site, counts, name_of};
use super::{HTTP, INSERT, request_lines};
use crate::terminate::Front;

/// A front of three sites, and the sites.
fn three() -> (Front, [Site; 3]) {
    let sites = ["x", "y", "z"].map(Site::named);
    let front = Front::start("", INSERT, &sites.each_ref().map(Site::address));
    (front, sites)
}

/// Home and cookie of a new client, which has a connection of its own.
fn user(front: &Front) -> (String, String) {
    let reply = Client::with(front).get("/", &[]);
    (name_of(&reply.text()), reply.cookie().expect("a cookie"))
}

fn home(reply: &Reply) -> String {
    assert_eq!(reply.status, 200);
    name_of(&reply.text())
}

#[test]
fn every_stream_of_one_connection_goes_where_its_own_cookie_says() {
    let (front, sites) = three();
    let users: Vec<_> = (0..3).map(|_| user(&front)).collect();
    assert_eq!(counts(users.iter().map(|(home, _)| home)).len(), 3);
    let client = Client::with(&front);
    // All streams of a round are open at once.
    for round in 0..10 {
        let streams: Vec<_> = (0..9)
            .map(|n| {
                let (_, cookie) = &users[(n * 7 + round) % 3];
                client.ask("/", &[("cookie", "a=b"), ("cookie", cookie), ("cookie", "c=d")])
            })
            .collect();
        for (n, stream) in streams.into_iter().enumerate() {
            let reply = stream.reply().unwrap();
            assert_eq!(home(&reply), users[(n * 7 + round) % 3].0);
            let text = reply.text();
            assert!(!text.contains("SESSILE") && text.contains("a=b; c=d"), "{text}");
            assert_eq!(reply.cookie(), None, "sent only when new or due");
        }
    }
    let lines = request_lines(&front.sessile, 3 + 90);
    let by_cookie = lines.iter().filter(|line| line["reason"] == "cookie" && line["cookie"] == "fresh").count();
    assert_eq!(by_cookie, 90);
    assert!(sites.iter().all(|site| site.open() > 0));
}

#[test]
fn a_cookie_is_the_same_over_both_protocols() {
    let (front, _sites) = three();
    let (place, cookie) = user(&front);
    let mut talk = crate::terminate::client::Talk::with(&front);
    for _ in 0..3 {
        let response = talk.get("/", &format!("Cookie: {cookie}\r\n"));
        assert_eq!((name_of(&response.text()), response.field("set-cookie")), (place.clone(), None));
    }
    let response = talk.get("/", "");
    let cookie = response.field("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
    let client = Client::with(&front);
    for _ in 0..3 {
        let reply = client.get("/", &[("cookie", &cookie)]);
        assert_eq!((home(&reply), reply.cookie()), (name_of(&response.text()), None));
    }
}

#[test]
fn a_new_cookie_has_the_same_attributes_as_over_http_1_1() {
    let (front, _sites) = three();
    let reply = Client::with(&front).get("/", &[]);
    let line = reply.field("set-cookie").expect("a cookie");
    for attribute in ["SESSILE-p=", "Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=86400"] {
        assert!(line.contains(attribute), "{line}");
    }
    assert_eq!(reply.field("cache-control"), Some("private"));
}

#[test]
fn a_stream_with_an_invalid_cookie_is_judged_as_over_http_1_1() {
    let (front, _sites) = three();
    let (_, cookie) = user(&front);
    let (_, other) = user(&front);
    let client = Client::with(&front);
    // Each is a new client's request, and gets a cookie; a client with good ones on the same connection keeps them.
    for (word, value) in [("forged", format!("{cookie}x")), ("forged", "SESSILE-p=nonsense".to_owned())] {
        let counted = || front.sessile.sum("sessile_cookies_total", &["pool=\"p\"", &format!("verdict=\"{word}\"")]);
        let before = counted();
        let reply = client.get(&format!("/{}", value.len()), &[("cookie", &value)]);
        assert_eq!(reply.status, 200);
        assert_ne!(reply.cookie().expect("a new cookie"), value);
        assert_eq!(counted(), before + 1.0, "{word}");
        let line = super::line_of(&front.sessile, &format!("/{}", value.len()));
        assert!(line["cookie"] == word && line["reason"] != "cookie", "{line}");
        let mut talk = crate::terminate::client::Talk::with(&front);
        assert!(talk.get("/", &format!("Cookie: {value}\r\n")).field("set-cookie").is_some());
        assert_eq!(counted(), before + 2.0, "{word}");
        assert_eq!(client.get("/", &[("cookie", &other)]).cookie(), None);
    }
}

#[test]
fn a_cookie_for_a_backend_that_is_gone_is_placed_anew_and_the_other_streams_stay() {
    let sites = ["x", "y"].map(Site::named);
    let options = INSERT.to_owned() + "connect_timeout = \"200ms\"\n";
    let front = Front::start("", &options, &sites.each_ref().map(Site::address));
    let users = [user(&front), user(&front)];
    let client = Client::with(&front);
    let [x, y] = sites;
    let address = x.address();
    drop(x);
    crate::support::eventually("the backend to be gone", || std::net::TcpStream::connect(address).err());
    let (gone, stays) = if users[0].0 == "x" { (&users[0], &users[1]) } else { (&users[1], &users[0]) };
    let moved = client.ask("/", &[("cookie", &gone.1)]);
    let kept = client.ask("/", &[("cookie", &stays.1)]);
    let (moved, kept) = (moved.reply().unwrap(), kept.reply().unwrap());
    assert_eq!((home(&moved), home(&kept), kept.cookie()), ("y".to_owned(), "y".to_owned(), None));
    let anew = moved.cookie().expect("a cookie for its new backend");
    let again = client.get("/", &[("cookie", &anew)]);
    assert_eq!((home(&again), again.cookie()), ("y".to_owned(), None));
    assert!(y.requests() > 0);
}

#[test]
fn a_cookie_of_the_application_is_learned_before_the_client_can_use_it() {
    let sites = ["x", "y"].map(Site::named);
    let options = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    let front = Front::start("", options, &sites.each_ref().map(Site::address));
    for n in 0..6 {
        let client = Client::with(&front);
        let sets = format!("SID=of-{n}");
        let place = client.get(&format!("/login/{sets}"), &[]);
        assert_eq!(place.cookie().as_deref(), Some(sets.as_str()));
        for _ in 0..3 {
            let other = Client::with(&front);
            let reply = other.get("/", &[("cookie", "a=b"), ("cookie", &sets)]);
            assert_eq!(home(&reply), home(&place));
            assert!(reply.text().contains(&format!("a=b; {sets}\r\n")), "{}", reply.text());
        }
    }
}

#[test]
fn two_users_of_one_connection_each_keep_what_the_application_has_set_for_them() {
    let sites = ["x", "y"].map(Site::named);
    let options = "http = true\nbalance = \"hash\"\ncookie = { mode = \"hash\", name = \"SID\" }\n";
    let front = Front::start("", options, &sites.each_ref().map(Site::address));
    let client = Client::with(&front);
    let places = || -> Vec<_> {
        let streams: Vec<_> = (0..20).map(|n| client.ask("/", &[("cookie", &format!("SID=user{n}"))])).collect();
        streams.into_iter().map(|stream| home(&stream.reply().unwrap())).collect()
    };
    let first = places();
    assert_eq!(counts(&first).len(), 2);
    for _ in 0..3 {
        assert_eq!(places(), first);
    }
}

#[test]
fn a_pool_without_a_cookie_places_each_stream_by_its_clients_key() {
    let sites = ["x", "y", "z"].map(Site::named);
    let front = Front::start("", HTTP, &sites.each_ref().map(Site::address));
    let places: Vec<_> = (0..4)
        .flat_map(|_| {
            let client = Client::with(&front);
            let streams: Vec<_> = (0..10).map(|_| client.ask("/", &[])).collect();
            streams.into_iter().map(|stream| home(&stream.reply().unwrap())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(counts(&places).len(), 1, "one address, one backend");
}
