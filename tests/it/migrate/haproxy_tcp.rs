//! `haproxy-tcp-stick-table`, its pool of IMAP: placed by load, kept by address, over a drain, a failure and a restart.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::client::{connect_from, is_ended};
use super::{Process, Proxy, Site, with_quick_checks};
use crate::support::backend::Backend;
use crate::support::program::{free_address, output};
use crate::support::{eventually, has};

const FILE: &str = "haproxy-tcp-stick-table";
const IMAPS: &str = "127.0.0.1:33512";
const CLIENTS: u16 = 8;

/// A server of IMAP that has a mailbox of its own name, and notes the PROXY headers that it gets.
struct Imap {
    _backend: Backend,
    headers: Arc<Mutex<Vec<String>>>,
}

impl Imap {
    fn start(name: &'static str, address: SocketAddr) -> Self {
        let headers: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&headers);
        Self { _backend: Backend::on(address, move |stream| serve(name, &stream, &seen)), headers }
    }

    fn has_seen(&self, header: &str) -> bool {
        self.headers.lock().unwrap().iter().any(|seen| seen.starts_with(header))
    }
}

fn serve(name: &str, mut stream: &TcpStream, headers: &Mutex<Vec<String>>) -> std::io::Result<()> {
    write!(stream, "* OK {name} ready\r\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let mut words = line.split(' ');
        let (tag, command) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let said = match command {
            _ if tag == "PROXY" => {
                headers.lock().unwrap().push(line.clone());
                continue;
            }
            "CAPABILITY" => "* CAPABILITY IMAP4rev1\r\n".to_owned(),
            "LIST" => format!("* LIST () \"/\" {name}\r\n"),
            "LOGOUT" => "* BYE\r\n".to_owned(),
            _ => String::new(),
        };
        write!(stream, "{said}{tag} OK done\r\n")?;
    }
    Ok(())
}

/// The agent beside m1, which says a word.
fn agent(address: SocketAddr, word: &Arc<Mutex<&'static str>>) -> Backend {
    let word = Arc::clone(word);
    Backend::on(address, move |mut stream| {
        let said = *word.lock().unwrap();
        writeln!(stream, "{said}")
    })
}

fn client(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

/// A client that has been greeted, with the name of its server.
fn greeted(proxy: &Proxy, number: u16) -> std::io::Result<(TcpStream, String)> {
    let stream = connect_from(client(number), proxy.at(IMAPS))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let name = line.split(' ').nth(2).ok_or(std::io::ErrorKind::UnexpectedEof)?.to_owned();
    Ok((stream, name))
}

/// Homes of all clients, of one connection each.
fn homes(proxy: &Proxy) -> BTreeMap<u16, String> {
    let home = |number| eventually("a greeting", || greeted(proxy, number).ok()).1;
    (1..=CLIENTS).map(|number| (number, home(number))).collect()
}

struct Stage {
    proxies: Vec<Proxy>,
    site: Site,
    m1: Imap,
    m2: Option<Imap>,
    word: Arc<Mutex<&'static str>>,
    _agent: Backend,
}

impl Stage {
    fn start(test: &str) -> Self {
        let site = Site::new();
        let m1 = Imap::start("m1", site.backend("10.0.0.1:993"));
        let m2 = Some(Imap::start("m2", site.backend("10.0.0.2:993")));
        let word = Arc::new(Mutex::new("up"));
        let at = SocketAddr::new(site.backend("10.0.0.1:993").ip(), free_address().port());
        let agent = agent(at, &word);
        let change = |text: &str| {
            let text = with_quick_checks(text).replace("/var/lib/sessile", "$DIR");
            let text = text.replace("agent-port 9000", &format!("agent-port {}", at.port()));
            text.replace("agent = 9000", &format!("agent = {}", at.port()))
        };
        let proxies = site.both(test, FILE, change);
        Self { proxies, site, m1, m2, word, _agent: agent }
    }
}

#[test]
fn a_mail_program_reaches_a_server_that_learns_its_address() {
    let test = "a_mail_program_reaches_a_server_that_learns_its_address";
    if !has(test, "curl") {
        return;
    }
    let stage = Stage::start(test);
    let mut number = 20_000;
    for proxy in &stage.proxies {
        // As many as it takes until one has m1, which alone has a header in the original.
        eventually("a client at m1", || {
            number += 1;
            let source = client(number);
            let list = output(Command::new("curl").args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--interface",
                &source.to_string(),
                "--user",
                "name:word",
                &format!("imap://{}/", proxy.at(IMAPS)),
            ]));
            assert!(list.contains("* LIST () \"/\" m"), "{}: {list}", proxy.name);
            let header = format!("PROXY TCP4 {source} ");
            list.contains("m1").then(|| assert!(stage.m1.has_seen(&header), "{}: {header}", proxy.name))
        });
    }
}

#[test]
fn a_client_is_placed_by_load_and_then_kept_by_its_address() {
    let mut stage = Stage::start("a_client_is_placed_by_load_and_then_kept_by_its_address");
    let mut before = Vec::new();
    for proxy in &stage.proxies {
        let held: Vec<_> = (1..=CLIENTS).map(|number| greeted(proxy, number).unwrap()).collect();
        let at_m1 = held.iter().filter(|(_, name)| name == "m1").count();
        assert_eq!(at_m1, usize::from(CLIENTS / 2), "{}: by load", proxy.name);
        let names: BTreeMap<_, _> = (1..).zip(held.iter().map(|(_, name)| name.clone())).collect();
        drop(held);
        assert_eq!(homes(proxy), names, "{}", proxy.name);
        before.push(names);
    }

    // An agent that drains: known clients stay, new ones go elsewhere.
    *stage.word.lock().unwrap() = "drain";
    for (proxy, before) in stage.proxies.iter().zip(&before) {
        let mut number = 1_000;
        let mut in_a_row = 0;
        eventually("new clients at m2 alone", || {
            number += 1;
            in_a_row = if greeted(proxy, number).ok()?.1 == "m2" { in_a_row + 1 } else { 0 };
            (in_a_row == 10).then_some(())
        });
        assert_eq!(homes(proxy), *before, "{}: known clients", proxy.name);
    }
    *stage.word.lock().unwrap() = "ready";

    // A server that is down loses its connections and its clients, which stay where they are from then on.
    let mut held = Vec::new();
    for (proxy, before) in stage.proxies.iter().zip(&before) {
        let known = *before.iter().find(|(_, name)| *name == "m2").expect("a client at m2").0;
        held.push(greeted(proxy, known).unwrap().0);
    }
    stage.m2 = None;
    for (proxy, connection) in stage.proxies.iter().zip(held) {
        assert!(is_ended(connection), "{}: the connection is closed", proxy.name);
        assert!(homes(proxy).values().all(|name| name == "m1"), "{}", proxy.name);
    }
    stage.m2 = Some(Imap::start("m2", stage.site.backend("10.0.0.2:993")));
    for proxy in &stage.proxies {
        let mut number = 10_000;
        eventually("m2 to have new clients", || {
            number += 1;
            (greeted(proxy, number).ok()?.1 == "m2").then_some(())
        });
        assert!(homes(proxy).values().all(|name| name == "m1"), "{}: all stay there", proxy.name);
    }
}

/// What peers of the same host do for a reload there.
#[test]
fn the_stick_table_outlives_the_process() {
    let mut stage = Stage::start("the_stick_table_outlives_the_process");
    stage.proxies.truncate(1);
    let held: Vec<_> = (1..=CLIENTS).map(|number| greeted(&stage.proxies[0], number).unwrap()).collect();
    let before: BTreeMap<_, _> = (1..).zip(held.iter().map(|(_, name)| name.clone())).collect();
    drop(held);
    let Process::Ours(sessile) = &mut stage.proxies[0].process else { panic!("the first is ours") };
    sessile.signal(Signal::TERM);
    assert!(sessile.wait().success());
    sessile.restart();
    assert_eq!(homes(&stage.proxies[0]), before);
}

/// What `balance = "hash"` does in the place of peers: two instances that exchange nothing.
#[test]
fn two_instances_place_alike_by_a_hash() {
    let stage = Stage::start("two_instances_place_alike_by_a_hash");
    let by_hash = |text: &str| {
        let text = with_quick_checks(text).replace("/var/lib/sessile", "$DIR");
        let changed = text.replace("balance = \"least_connections\"", "balance = \"hash\"");
        assert_ne!(changed, text);
        changed
    };
    let [one, two] = [(); 2].map(|()| stage.site.ours(FILE, by_hash));
    let placed = homes(&one);
    assert_eq!(homes(&two), placed);
    assert!(placed.values().any(|name| name == "m1") && placed.values().any(|name| name == "m2"), "{placed:?}");
}
