//! The race for kept connections, thousands of times: backends close them after 5 ms, and clients send the next request
//! after 5 ms.
//!
//! Invariant: no client gets an error by the race: a request that may be sent twice is served, any other is delivered
//! at most once and served, or its connection ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::spawn_local;

use super::load::{Backends, connect, run};
use crate::support::Sessile;
use crate::support::backend::{listener, pool};
use crate::support::load_support::alone;
use crate::support::rng::Rng;

const REQUESTS: usize = 50_000;
const CLIENTS: usize = 40;
const KEPT: Duration = Duration::from_millis(5);

/// Results of one client.
#[derive(Default)]
struct Seen {
    answered: usize,
    unanswered: usize,
}

#[test]
fn fifty_thousand_requests_race_with_backends_that_close_and_no_client_notices() {
    let _alone = alone();
    let delivered: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let record = Arc::clone(&delivered);
    let backends = Backends::start(2, Some(KEPT), async move |_, line, asked| {
        if asked.method() == "POST" {
            assert!(asked.body.is_empty() || asked.body == asked.path().as_bytes());
            *record.lock().unwrap().entry(asked.path().to_owned()).or_default() += 1;
        }
        let path = asked.path();
        line.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await?;
        Ok(true)
    });
    let text = "[log]\nconnections = false\n".to_owned()
        + &listener("p", "")
        + &pool("p", "http = true\nbalance = \"hash\"\n", &backends.addresses);
    let sessile = Sessile::start(&text);
    let (front, began) = (sessile.address("l"), Instant::now());
    let client = async move |number: usize| {
        let (mut seen, mut rng) = (Seen::default(), Rng(number as u64));
        let (mut line, mut next) = (connect(front).await, Instant::now());
        for count in 0..REQUESTS / CLIENTS {
            // Time from response to request, or from request to request: backends count from the former.
            if number.is_multiple_of(2) {
                next = Instant::now();
            }
            next += KEPT - Duration::from_micros(rng.below(1_500) as u64);
            tokio::time::sleep_until(next.into()).await;
            let (path, post) = (format!("/{number}/{count}"), rng.below(2) == 0);
            let head = format!("{} {path} HTTP/1.1\r\nHost: a\r\n", if post { "POST" } else { "GET" });
            let body = match (post, rng.below(2)) {
                (false, _) => "\r\n".to_owned(),
                // A POST without a body: it may not be sent twice all the same.
                (true, 0) => "Content-Length: 0\r\n\r\n".to_owned(),
                (true, _) => format!("Content-Length: {}\r\n\r\n{path}", path.len()),
            };
            line.send(head + &body).await.expect("a connection that is kept, or was closed behind its last answer");
            match line.head().await {
                Ok(head) => {
                    assert_eq!((head.status(), head.closes()), (200, false), "{head:?}");
                    assert_eq!(line.body(&head).await.expect("a body"), path.as_bytes());
                    seen.answered += 1;
                }
                Err(error) => {
                    assert!(post, "{path}: {error}");
                    seen.unanswered += 1;
                    line = connect(front).await;
                }
            }
        }
        seen
    };
    let seen = run(async {
        let clients: Vec<_> = (0..CLIENTS).map(|number| spawn_local(async move { client(number).await })).collect();
        let mut all = Seen::default();
        for client in clients {
            let seen = client.await.expect("a client that is content");
            all.answered += seen.answered;
            all.unanswered += seen.unanswered;
        }
        all
    });
    let delivered = delivered.lock().unwrap();
    let twice: Vec<_> = delivered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    assert_eq!(seen.answered + seen.unanswered, REQUESTS);
    let reused = sessile.status()["conversations"].clone();
    println!("{:.1?}, {} answered, {} POSTs without an answer", began.elapsed(), seen.answered, seen.unanswered);
    println!("{reused}");
    assert!(seen.unanswered > 100, "the race was never lost: {}", seen.unanswered);
}
