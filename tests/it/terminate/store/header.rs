//! Session ids in a header field, begun on one instance and followed on the other.

use super::redis::Redis;
use super::{AMPLE, Visitor, store};
use crate::support::Sessile;
use crate::support::backend::{listener, pool};
use crate::support::eventually;
use crate::terminate::backend::Recorder;

#[test]
fn a_session_id_in_a_header_is_known_on_the_other_instance_until_it_ends() {
    let Some(redis) = Redis::start("a_session_id_in_a_header_is_known_on_the_other_instance_until_it_ends") else {
        return;
    };
    let backends = ["w", "x", "y", "z"].map(|name| {
        Recorder::answering(name, move |head| {
            // Begins a session with each request that has none.
            let begins = !head.to_ascii_lowercase().contains("mcp-session-id");
            let id = head.split(' ').nth(1).unwrap().trim_start_matches('/');
            let field = if begins { format!("Mcp-Session-Id: {id}\r\n") } else { String::new() };
            let length = name.len();
            Some(format!("HTTP/1.1 200 OK\r\n{field}Content-Length: {length}\r\n\r\n{name}").into_bytes())
        })
    });
    let options =
        "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", header = \"Mcp-Session-Id\" }\n";
    let addresses = backends.each_ref().map(Recorder::address);
    let text = store(&redis.url(), AMPLE) + &listener("p", "") + &pool("p", options, &addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let mut visitors = instances.each_ref().map(Visitor::to);
    for number in 0..20 {
        let begun = visitors[number % 2].0.get(&format!("/secret-{number}"), "");
        assert_eq!(begun.field("mcp-session-id"), Some(&*format!("secret-{number}")));
        let field = format!("Mcp-Session-Id: secret-{number}\r\n");
        assert_eq!(visitors[(number + 1) % 2].0.get("/", &field).text(), begun.text(), "session {number}");
    }
    let dump = redis.dump();
    assert_eq!(dump.len(), 20);
    assert!(dump.iter().all(|(key, value, _)| !key.contains("secret") && !value.contains("secret")));
    let delete = "DELETE / HTTP/1.1\r\nHost: a.test\r\nMcp-Session-Id: secret-0\r\n\r\n";
    visitors[0].0.send(delete);
    assert_eq!(visitors[0].0.response_to("DELETE").expect("a response").status, 200);
    eventually("the end to be told", || (redis.dump().len() == 19).then_some(()));
}
