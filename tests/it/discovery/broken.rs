//! Sources that cannot be relied on change nothing, and say so.

use std::fs;

use super::Pods;
use crate::support::backend::Backend;
use crate::support::eventually;
use crate::support::sessile::run;

#[test]
fn a_broken_file_keeps_the_last_set_and_is_complained_of_everywhere() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [("a", backends[0].address), ("b", backends[1].address)];
    let pods = Pods::start("", "max_backends = 3\n", &[a, b]);
    let before =
        (pods.homes(0..20), pods.sessile.status()["digest"].clone(), pods.sessile.status()["generation"].clone());
    let own = pods.sessile.address("l");
    let failed = || pods.sessile.metric("sessile_discover_failed{pool=\"p\"}");
    assert_eq!(failed(), 0.0);
    let good = format!("a {}\nb {}\n", a.1, b.1);
    for (text, why) in [
        (format!("a {}\nb 10.0.", a.1), "does not end with a newline: it may be cut short"),
        (format!("{good}c\n"), "line 3: has a name and no address"),
        (format!("{good}a {}\n", b.1), "line 3: name \"a\" is taken by line 1"),
        (format!("{good}c 10.0.0.1:80\nd 10.0.0.2:80\n"), "it names 4 backends; max_backends is 3"),
        (format!("{good}c 0.0.0.0:80\n"), "is not an address that can be connected to"),
        (format!("{good}c {own}\n"), "is an address of this process: connections would loop"),
        ("[{\"name\": \"a\"".to_owned(), "is no list of backends in JSON"),
        ("# nothing\n".to_owned(), "it names no backend"),
        (String::new(), "the file is empty"),
    ] {
        pods.replace(&text);
        pods.complains(why);
        assert_eq!(pods.names(), ["a", "b"], "{why}");
    }
    fs::remove_file(pods.file()).unwrap();
    pods.complains("No such file");
    assert_eq!(failed(), 1.0);
    assert!(pods.sessile.metric("sessile_discover_failures_total{pool=\"p\"}") >= 10.0);
    let status = pods.sessile.status();
    assert_eq!((pods.homes(0..20), status["digest"].clone(), status["generation"].clone()), before);
    let shown = run(&["status", "--socket", pods.sessile.admin().to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("pool p: file ") && shown.contains("the last backends stay"), "{shown}");
    pods.sessile.says("No such file or directory (os error 2); the last set stays");
    let events = pods.sessile.json("/events").to_string();
    assert!(events.contains("discover_failed"), "{events}");

    pods.replace(&good);
    pods.complains("");
    assert_eq!(failed(), 0.0);
    let is_said = || pods.sessile.json("/events").to_string().contains("discover_works").then_some(());
    eventually("the event about a good file", is_said);
}

#[test]
fn with_empty_apply_a_source_that_names_none_takes_every_backend_away() {
    let a = Backend::named("a");
    let options = "stick_table = \"0\"\n";
    let pods = Pods::start(options, "empty = \"apply\"\nvanish = \"remove\"\n", &[("a", a.address)]);
    pods.replace("[]\n");
    pods.are(&[]);
    let mut refused = std::net::TcpStream::connect(pods.sessile.address("l")).unwrap();
    assert_eq!(std::io::Read::read(&mut refused, &mut [0; 8]).unwrap_or(0), 0, "no backend, no service");
    pods.name(&[("a", a.address)]);
    pods.are(&["a"]);
    assert_eq!(pods.home(1), "a");
}

#[test]
fn a_shuffled_file_is_no_change() {
    let backends: Vec<_> = (0..6).map(|n| Backend::named(&format!("b{n}"))).collect();
    let names: Vec<_> = (0..6).map(|n| format!("b{n}")).collect();
    let mut all: Vec<_> =
        names.iter().map(String::as_str).zip(backends.iter().map(|backend| backend.address)).collect();
    let pods = Pods::start("", "", &all);
    let of = || (pods.sessile.status()["digest"].clone(), pods.sessile.status()["generation"].clone());
    let before = of();
    for _ in 0..3 {
        all.rotate_left(2);
        pods.name(&all);
        // What is read after it tells that it was read.
        pods.replace("b0\n");
        pods.complains("line 1");
        pods.name(&all);
        pods.complains("");
    }
    assert_eq!(of(), before);
}
