//! Backends that are drained, by command or by weight 0, while clients have connections to them.

use std::net::SocketAddr;

use super::site::Http2Site;
use super::{H2, plain};
use crate::http2::client::{Client, Reply};
use crate::http2::site::Site;
use crate::support::backend::{listener, pool};
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

/// Keys of a pool that places each client by itself.
const IN_TURN: &str = "http = \"h2\"\nbalance = \"round_robin\"\nkey = \"none\"\n";

fn drain(sessile: &Sessile, index: usize) {
    let socket = sessile.admin().display().to_string();
    let drained = run(&["drain", &format!("p/b{index}"), "--socket", &socket]);
    assert!(drained.status.success(), "{drained:?}");
}

fn leases(sessile: &Sessile, index: usize) -> u64 {
    sessile.status()["pools"][0]["backends"][index]["leases"].as_u64().expect("a number")
}

/// A client with a request that its backend holds; the index of that.
fn held(sessile: &Sessile, sites: &[Http2Site; 2]) -> (Client, crate::http2::client::Exchange, usize) {
    let client = Client::plain(sessile.address("l"));
    let exchange = client.ask("/hold", &[]);
    let at = eventually("the request", || sites.iter().position(|site| !site.seen().requests.is_empty()));
    (client, exchange, at)
}

#[test]
fn streams_at_a_backend_that_drains_end_there_and_its_connection_ends_with_the_last() {
    let sites = [Http2Site::new(), Http2Site::new()];
    let sessile = plain("", IN_TURN, &[sites[0].address, sites[1].address]);
    let (client, exchange, at) = held(&sessile, &sites);
    let (drained, other) = (&sites[at], &sites[1 - at]);
    drain(&sessile, at);
    for number in 1..4 {
        assert_eq!(client.get("/", &[]).status, 200);
        assert_eq!((other.seen().requests.len(), drained.seen().requests.len()), (number, 1));
    }
    drained.is_open(1);
    assert_eq!(leases(&sessile, at), 1);
    drained.door.add_permits(1);
    assert_eq!(exchange.reply().unwrap().text(), "held");
    drained.is_open(0);
    eventually("the lease to end", || (leases(&sessile, at) == 0).then_some(()));
    assert_eq!(client.get("/", &[]).status, 200);
    assert_eq!((other.seen().connections, drained.seen().connections), (1, 1));
}

#[test]
fn a_connection_that_no_stream_uses_ends_once_its_client_is_elsewhere() {
    let sites = [Http2Site::new(), Http2Site::new()];
    let sessile = plain("", IN_TURN, &[sites[0].address, sites[1].address]);
    let client = Client::plain(sessile.address("l"));
    assert_eq!(client.get("/", &[]).status, 200);
    let at = usize::from(sites[0].seen().requests.is_empty());
    sites[at].is_open(1);
    drain(&sessile, at);
    assert_eq!(client.get("/", &[]).status, 200);
    sites[at].is_open(0);
    assert_eq!(sites[1 - at].seen().requests.len(), 1);
}

#[test]
fn a_known_client_keeps_its_connection_to_a_backend_that_drains() {
    let sites = [Http2Site::new(), Http2Site::new()];
    let options = format!("{H2}cookie = {{ mode = \"route\", name = \"SID\" }}\n");
    let sessile = plain("", &options, &[sites[0].address, sites[1].address]);
    let client = Client::plain(sessile.address("l"));
    let known = |client: &Client| -> Reply { client.get("/", &[("cookie", "SID=abc.b1")]) };
    assert_eq!(known(&client).field("x-connection"), Some("1"));
    drain(&sessile, 1);
    for _ in 0..3 {
        assert_eq!(known(&client).field("x-connection"), Some("1"));
    }
    assert_eq!(sites[1].seen().requests.len(), 4);
    sites[1].is_open(1);
}

/// A pool of two backends, and the same with weight 0 for one of them.
fn with_weight_0(options: &str, addresses: [SocketAddr; 2], at: usize) -> [String; 2] {
    let text = listener("p", "") + &pool("p", options, &addresses);
    let name = format!("name = \"b{at}\"\n");
    [text.clone(), text.replace(&name, &format!("{name}weight = 0\n"))]
}

#[test]
fn a_connection_to_a_backend_of_weight_0_ends_once_its_client_is_elsewhere() {
    let (http2, http1) = ([(); 2].map(|()| Http2Site::new()), [(); 2].map(|()| Site::named("x")));
    let is_open = |is_http2: bool, at: usize| match is_http2 {
        true => http2[at].seen().open,
        false => http1[at].open(),
    };
    for (is_http2, options, addresses) in [
        (true, IN_TURN, [0, 1].map(|at| http2[at].address)),
        (false, "http = true\nbalance = \"round_robin\"\nkey = \"none\"\n", [0, 1].map(|at| http1[at].address())),
    ] {
        let sessile = Sessile::start(&with_weight_0(options, addresses, 0)[0]);
        let client = Client::plain(sessile.address("l"));
        assert_eq!(client.get("/", &[]).status, 200);
        let at = usize::from(is_open(is_http2, 0) == 0);
        assert_eq!((is_open(is_http2, at), is_open(is_http2, 1 - at)), (1, 0));
        sessile.reload(&with_weight_0(options, addresses, at)[1]);
        for _ in 0..3 {
            assert_eq!(client.get("/", &[]).status, 200);
        }
        eventually("the connection to end", || {
            ((is_open(is_http2, at), is_open(is_http2, 1 - at)) == (0, 1)).then_some(())
        });
    }
}

#[test]
fn a_known_client_keeps_its_connection_to_a_backend_of_weight_0() {
    let sites = [Http2Site::new(), Http2Site::new()];
    let options = format!("{H2}cookie = {{ mode = \"route\", name = \"SID\" }}\n");
    let [text, without] = with_weight_0(&options, [sites[0].address, sites[1].address], 1);
    let sessile = Sessile::start(&text);
    let (known, new) = (Client::plain(sessile.address("l")), Client::plain(sessile.address("l")));
    let ask = || known.get("/", &[("cookie", "SID=abc.b1")]).field("x-connection").map(str::to_owned);
    assert_eq!(ask().as_deref(), Some("1"));
    sessile.reload(&without);
    for _ in 0..3 {
        assert_eq!(ask().as_deref(), Some("1"));
        assert_eq!(new.get("/", &[]).status, 200);
    }
    assert_eq!((sites[0].seen().requests.len(), sites[1].seen().requests.len()), (3, 4));
    sites[1].is_open(1);
}
