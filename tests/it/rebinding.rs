//! A page of a foreign site in Chromium reads nothing from the admin port and changes nothing by it, whether its name leads
//! there (DNS rebinding) or it names the port's own address.
//!
//! The browser reaches the port through two relays that note every byte of its replies: one under the name of the site,
//! which also serves the page, and one under an address. Invariant: the page is of the same origin as the first relay, as
//! after a rebinding, and foreign to the second.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::chromium::Chromium;
use crate::support::load_support::Client;
use crate::support::program::find;
use crate::support::{Sessile, eventually};

/// What the port knows and the page is not to learn.
const SECRETS: [&str; 3] = ["secret-pool", "127.0.7.7", "sessile_"];

const PAGE: &str = r#"<!doctype html><title>page</title><iframe name="frame"></iframe><script>
const admin = "127.0.0.4:FOREIGN", own = location.host, results = {};
const note = (name, value) => { results[name] = String(value) };
const request = async (name, url, options) => {
  try {
    const response = await fetch(url, options);
    note(name, `${response.type} ${response.status} ${await response.text()}`);
  } catch (error) { note(name, "failed") }
};
const element = (name, made, url) => new Promise(done => {
  made.onload = () => { note(name, "loaded"); done() };
  made.onerror = () => { note(name, "failed"); done() };
  made.src = url;
  document.head.append(made);
});
const stream = (name, made) => new Promise(done => {
  made.onopen = () => note(name, "open");
  made.onmessage = event => note(name, event.data);
  made.onerror = () => { if (!(name in results)) note(name, "failed"); made.close(); done() };
});
const form = async (name, action) => {
  const made = document.createElement("form"), frame = document.querySelector("iframe");
  Object.assign(made, { method: "post", action, target: "frame" });
  document.body.append(made);
  const loaded = new Promise(done => { frame.onload = done; setTimeout(done, 3000) });
  made.submit();
  await loaded;
  try { note(name, frame.contentDocument ? frame.contentDocument.body.textContent : "nothing") }
  catch (error) { note(name, "failed") }
};
(async () => {
  for (const path of ["/connections", "/status", "/events", "/metrics", "/explain?client=127.0.7.7"]) {
    await request(`rebound ${path}`, path);
    await request(`foreign ${path}`, `http://${admin}${path}`);
    await request(`no-cors ${path}`, `http://${admin}${path}`, { mode: "no-cors", credentials: "include" });
  }
  for (const path of ["/reload", "/backends/secret-pool/b0/drain"]) {
    await request(`rebound POST ${path}`, path, { method: "POST" });
    await request(`foreign POST ${path}`, `http://${admin}${path}`, { method: "POST", mode: "no-cors", body: "x" });
    await form(`rebound form ${path}`, path);
    await form(`foreign form ${path}`, `http://${admin}${path}`);
  }
  for (const [name, host] of [["rebound", own], ["foreign", admin]]) {
    await element(`${name} img`, new Image(), `http://${host}/status`);
    await element(`${name} script`, document.createElement("script"), `http://${host}/status`);
    await stream(`${name} EventSource`, new EventSource(`http://${host}/events`));
    await stream(`${name} WebSocket`, new WebSocket(`ws://${host}/events`));
  }
  await fetch("/result", { method: "POST", body: JSON.stringify(results) });
})();
</script>"#;

/// All replies of the port that passed a relay, as bytes.
type Replies = Arc<Mutex<Vec<u8>>>;

/// Passes a connection on to the port, after these bytes, and notes every reply.
fn relay(mut client: TcpStream, begun: &[u8], port: SocketAddr, replies: &Replies) -> std::io::Result<()> {
    let mut there = TcpStream::connect(port)?;
    there.write_all(begun)?;
    let (mut from, mut to) = (client.try_clone()?, there.try_clone()?);
    let up = thread::spawn(move || {
        let copied = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
        copied
    });
    let mut bytes = [0; 8_192];
    loop {
        let count = there.read(&mut bytes)?;
        if count == 0 {
            break;
        }
        replies.lock().unwrap().extend_from_slice(&bytes[..count]);
        client.write_all(&bytes[..count])?;
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = up.join();
    Ok(())
}

/// The foreign site: its page, its results, and behind every other path the port, as after a rebinding.
fn site(
    address: SocketAddr,
    port: SocketAddr,
    page: String,
    replies: &Replies,
    result: &Arc<Mutex<Option<Value>>>,
) -> Backend {
    let (replies, result) = (Arc::clone(replies), Arc::clone(result));
    Backend::on(address, move |stream| {
        let (mut reader, mut head) = (BufReader::new(&stream), Vec::new());
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let end = "Connection: close\r\n";
        if text.starts_with("GET /page ") {
            let length = page.len();
            let head = format!("HTTP/1.1 200 OK\r\n{end}Content-Type: text/html\r\nContent-Length: {length}\r\n\r\n");
            return (&stream).write_all((head + &page).as_bytes());
        }
        if text.starts_with("POST /result ") {
            let length =
                text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.expect("a length")];
            reader.read_exact(&mut body)?;
            *result.lock().unwrap() = Some(serde_json::from_slice(&body).expect("JSON"));
            return (&stream).write_all(format!("HTTP/1.1 204 No Content\r\n{end}\r\n").as_bytes());
        }
        let begun = [&head, reader.buffer()].concat();
        drop(reader);
        relay(stream, &begun, port, &replies)
    })
}

/// The status of every reply.
fn statuses(replies: &Replies) -> Vec<String> {
    let text = String::from_utf8_lossy(&replies.lock().unwrap()).into_owned();
    text.split("HTTP/1.1 ").skip(1).map(|reply| reply.chars().take(3).collect()).collect()
}

#[test]
fn a_page_of_a_foreign_site_reads_nothing_from_the_admin_port_and_changes_nothing() {
    let test = "a_page_of_a_foreign_site_reads_nothing_from_the_admin_port_and_changes_nothing";
    let Some(chromium) = find(test, "chromium") else { return };
    let backend = Backend::named("b0");
    let admin = "[admin]\nsocket = \"$DIR/admin.sock\"\nhttp = \"127.0.0.1:0\"\nclients = true\n";
    let sessile = Sessile::start(&(listener("secret-pool", "") + admin + &pool("secret-pool", "", &[backend.address])));
    // A connection that /connections shows, with its client's address.
    let mut client = Client::connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 7, 7)), sessile.address("l"));
    assert_eq!(client.ask("x"), "b0 x");
    let port = crate::admin::port(&sessile);

    let (rebound, foreign, result) = (Replies::default(), Replies::default(), Arc::default());
    let other_replies = Arc::clone(&foreign);
    let other = Backend::on(([127, 0, 0, 4], 0).into(), move |stream| relay(stream, &[], port, &other_replies));
    let page = PAGE.replace("FOREIGN", &other.address.port().to_string());
    let site = site(([127, 0, 0, 3], port.port()).into(), port, page, &rebound, &result);
    // No other name resolves.
    let hosts = format!("MAP evil.test {}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.4", site.address.ip());
    let page = format!("http://evil.test:{}/page", site.address.port());
    let _browser = Chromium::start(&chromium, &hosts, &[page]);
    let results: Value = eventually("the page to have tried everything", || result.lock().unwrap().take());

    let results = results.as_object().unwrap();
    assert_eq!(results.len(), 15 + 8 + 8, "{results:?}");
    for (name, value) in results {
        let value = value.as_str().unwrap();
        assert!(SECRETS.iter().all(|secret| !value.contains(secret)), "{name}: {value}");
        let refused = "Host is not an address, not localhost, and not listed in admin.names\n";
        let wanted = match name.split(' ').collect::<Vec<_>>()[..] {
            ["rebound", path] if path.starts_with('/') => format!("basic 421 {refused}"),
            ["rebound", "POST", _] => format!("basic 421 {refused}"),
            ["no-cors", _] | ["foreign", "POST", _] => "opaque 0 ".to_owned(),
            // No other page may show a reply in a frame.
            ["rebound" | "foreign", "form", _] => "nothing".to_owned(),
            _ => "failed".to_owned(),
        };
        assert_eq!(value, wanted, "{name}");
    }
    // The port has refused every single request, whatever the browser would have given the page of a reply.
    let (rebound_statuses, foreign_statuses) = (statuses(&rebound), statuses(&foreign));
    assert!(
        rebound_statuses.len() >= 13 && rebound_statuses.iter().all(|it| ["421", "403"].contains(&it.as_str())),
        "{rebound_statuses:?}"
    );
    assert!(foreign_statuses.len() >= 18 && foreign_statuses.iter().all(|it| it == "403"), "{foreign_statuses:?}");
    for replies in [rebound, foreign] {
        let text = String::from_utf8_lossy(&replies.lock().unwrap()).into_owned();
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
    }
    // Nothing has changed.
    assert_eq!(sessile.status()["generation"], 1);
    assert!(sessile.json("/backends")[0]["runtime"].is_null());
    let events = sessile.json("/events")["events"].clone();
    assert!(events.as_array().unwrap().iter().all(|event| event["kind"] == "start"), "{events}");
    // An operator at the same port reads all of it.
    let status = crate::support::http::exchange(TcpStream::connect(port).unwrap(), "GET", "/connections").unwrap();
    assert!(status.0 == 200 && status.1.contains(SECRETS[0]) && status.1.contains(SECRETS[1]), "{status:?}");
}
