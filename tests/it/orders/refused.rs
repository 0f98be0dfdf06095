//! Orders that are refused: the reason is said, and nothing has changed.

use super::{digest, done, homes, order, set, three};
use crate::support::Sessile;
use crate::support::backend::{Backend, listener, pool};
use crate::support::http::{exchange, unix_post};

/// What a refused order says.
fn refused(sessile: &Sessile, words: &str) -> String {
    let before = (set(sessile), digest(sessile), sessile.status()["generation"].clone());
    let output = order(sessile, words);
    assert_eq!(output.status.code(), Some(64), "{words}");
    assert_eq!((set(sessile), digest(sessile), sessile.status()["generation"].clone()), before, "{words}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn what_cannot_be_ordered_is_said_and_changes_nothing() {
    let range = "range = [{ name = \"office\", cidr = \"10.0.0.0/8\", pin = \"b1\" }]";
    let (_backends, config) = three(range);
    let sessile = Sessile::start(&config);
    let front = sessile.address("l");
    let own = format!("add p/d {front}");
    for (words, why) in [
        ("add q/d 10.0.0.9:80", "there is no pool \"q\""),
        ("add p/b0 10.0.0.9:80", "pool \"p\" has a backend \"b0\" already"),
        ("add p/a%20b 10.0.0.9:80", "\"a%20b\" is not a name"),
        ("add p/d 10.0.0.9", "address \"10.0.0.9\" is not an address with a port"),
        ("add p/d web.example.org:80", "is not an address with a port"),
        ("add p/d 0.0.0.0:80", "is not an address that can be connected to"),
        ("add p/d unix:run/a.sock", "is not an absolute path"),
        (own.as_str(), "is an address of this process: connections would loop"),
        ("add p/d 10.0.0.9:80 --location a//b", "location \"a//b\" has the level \"\""),
        ("weight p/d 5", "pool \"p\" has no backend \"d\""),
        ("weight p/b0 257", "not \"default\", nor between 0 and 256"),
        ("address p/b0 224.0.0.1:80", "is not an address that can be connected to"),
        ("remove p/b1", "range \"office\" would be left without a backend that it is pinned to"),
        ("remove b1", "not of the form POOL/NAME"),
    ] {
        let said = refused(&sessile, words);
        assert!(said.contains(why), "{words}: {said}");
    }
    done(&sessile, "weight p/b1 0");
    assert!(refused(&sessile, "weight p/b0 0").contains("no backend would be left that takes new clients"));
    assert!(refused(&sessile, "remove p/b0 --now").contains("no backend would be left that takes new clients"));
    done(&sessile, "weight p/b1 default");
    done(&sessile, "remove p/b0 --now");
    for words in ["weight p/b0 2", "add p/b0 10.0.0.9:80", "remove p/b0"] {
        let said = refused(&sessile, words);
        assert!(said.contains("`sessile ready` takes it back"), "{words}: {said}");
    }
}

#[test]
fn an_order_by_which_too_many_would_move_is_refused_with_the_figure() {
    let (backends, config) = three("on_add = \"move\"");
    let sessile = Sessile::start(&config);
    let before = homes(&sessile, 1..=60);
    let add = format!("add p/b2 {}", backends[2].address);
    let said = refused(&sessile, &format!("{add} --max-move 5%"));
    assert!(said.starts_with("pool \"p\": ") && said.contains("and 5.0 % is allowed"), "{said}");
    let said = refused(&sessile, "remove p/b0 --max-move 5%");
    assert!(said.contains("of its clients would move"), "also those that stay until the drain is over: {said}");
    assert_eq!(homes(&sessile, 1..=60), before);
    done(&sessile, &format!("{add} --max-move 60%"));
}

#[test]
fn pools_of_one_group_have_equal_backends() {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    let group = "stick_group = \"g\"";
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", group, &addresses) + &pool("q", group, &addresses)));
    for words in ["add p/d 10.0.0.9:80", "remove p/b0"] {
        assert!(refused(&sessile, words).contains("stick_group \"g\""), "{words}");
    }
    done(&sessile, "weight p/b0 2");
}

#[test]
fn only_the_socket_takes_orders_and_values_that_are_none_are_refused() {
    let (_backends, config) = three("");
    let admin = "[admin]\nsocket = \"$DIR/admin.sock\"\nhttp = \"127.0.0.1:0\"\n";
    let sessile = Sessile::start(&(admin.to_owned() + &config));
    let port = crate::admin::port(&sessile);
    let ask = |method: &str, path: &str| exchange(std::net::TcpStream::connect(port).unwrap(), method, path);
    for path in ["/backends/p/b0/weight?weight=5", "/backends/p/d/add?address=10.0.0.9:80", "/backends/p/b0/remove"] {
        assert_eq!(ask("POST", path).unwrap().0, 404, "{path}");
    }
    assert_eq!(ask("GET", "/orders").unwrap().0, 404);
    for (path, code) in [
        ("/backends/p/d/add", 404),
        ("/backends/p/b0/paint", 404),
        ("/backends/p/b0/weight?weight=heavy", 400),
        ("/backends/p/b0/weight?colour=1", 400),
        ("/backends/p/b0/weight?weight=300", 409),
    ] {
        assert_eq!(unix_post(&sessile.admin(), path).unwrap().0, code, "{path}");
    }
    assert_eq!(super::names(&sessile), ["b0", "b1"]);
}
