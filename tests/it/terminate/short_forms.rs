//! A file in short forms: the balancer's own cookie with all defaults, and backends that are addresses alone.

use std::net::TcpStream;

use rustix::process::Signal;

use super::backend::Recorder;
use super::client::{Response, Talk};
use super::cookie::name_of;
use crate::support::Sessile;
use crate::support::backend::listener;
use crate::support::sessile::run;

fn config(backends: &[Recorder]) -> String {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address().to_string()).collect();
    format!(
        "stick_table_file = \"$DIR/state/stick-table\"\n{}[[pool]]\nname = \"p\"\nhttp = true\nbalance = \"round_robin\"\n\
         cookie = \"insert\"\ncheck = \"tcp\"\nbackend = {addresses:?}\n",
        listener("p", "")
    )
}

fn cookie_of(response: &Response) -> String {
    response.field("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned()
}

#[test]
fn a_cookie_with_all_defaults_keeps_clients_over_a_restart() {
    let backends: Vec<_> = ["x", "y", "z"].map(Recorder::named).into();
    let mut sessile = Sessile::start(&config(&backends));
    let talk = |sessile: &Sessile| Talk::new(TcpStream::connect(sessile.address("l")).unwrap());
    let mut first = talk(&sessile);
    let users: Vec<_> = (0..3)
        .map(|_| {
            let response = first.get("/", "");
            (name_of(&response.text()), cookie_of(&response))
        })
        .collect();
    drop(first);
    sessile.signal(Signal::TERM);
    assert!(sessile.wait().success());
    sessile.restart();
    let mut again = talk(&sessile);
    for (name, cookie) in users {
        let response = again.get("/", &format!("Cookie: {cookie}\r\n"));
        assert_eq!((name_of(&response.text()), response.field("set-cookie")), (name, None));
    }
    let status = sessile.status();
    let names: Vec<_> =
        status["pools"][0]["backends"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    let expected: Vec<_> = backends.iter().map(|one| format!("127.0.0.1-{}", one.address().port())).collect();
    assert_eq!(names, expected);
}

#[test]
fn check_makes_no_file_of_keys_and_says_where_none_can_be_made() {
    let backends: Vec<_> = ["x"].map(Recorder::named).into();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessile.toml");
    let checked = |folder: &str| {
        let text = format!("{}\n[admin]\nsocket = \"off\"\n", config(&backends).replace("$DIR", folder));
        std::fs::write(&file, text).unwrap();
        let output = run(&["check", file.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = checked(dir.path().to_str().unwrap());
    assert_eq!(code, Some(0), "{said}");
    assert!(!dir.path().join("state").exists());
    let (code, said) = checked(file.to_str().unwrap());
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains(":11:10: pool \"p\": cookie: keys \""), "{said}");
}
