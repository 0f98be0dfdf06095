//! What the page shows while a backend dies, is drained, and a client moves, and when the process is gone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use super::{Scene, cell, client, configuration, has};
use crate::support::backend::Backend;
use crate::support::http::exchange;

#[test]
fn what_happens_to_backends_and_clients_is_on_the_page() {
    let Some(mut scene) = Scene::start("what_happens_to_backends_and_clients_is_on_the_page", "clients = true\n")
    else {
        return;
    };
    let page = &scene.page;
    for backend in ["b0", "b1"] {
        page.until("both to be up", &format!("{}.startsWith('up')", cell(backend, 1)));
    }
    page.until("calm", &has("#attention", &["Nothing needs attention."]));
    page.until("the figures", &has("#now-backends", &["2", "of 2"]));
    page.until("no moves", "!document.querySelector('#no-moves').hidden");

    scene.order("b0", "drain");
    page.until("a drain", &format!("{}.startsWith('draining for ')", cell("b0", 1)));
    page.until("attention", &has("#attention", &["p/b0 is draining"]));
    page.until("its event", &has("#event-list", &["drain", "backend p/b0: draining, by command"]));
    scene.order("b0", "ready");
    page.until("its end", &format!("{}.startsWith('up')", cell("b0", 1)));

    let number = scene.client_at("b1");
    let connections = "Number(document.querySelector('#table-list .stick-table p').textContent.split(' ')[0]) > 0";
    page.until("known clients", connections);
    page.until(
        "the hottest key",
        &format!("document.querySelector('#table-list').textContent.includes('{}')", client(number)),
    );
    scene.backends[1].take();
    page.until("a death", &format!("{}.startsWith('down for ')", cell("b1", 1)));
    page.until("why", &format!("{}.includes('refused')", cell("b1", 1)));
    page.until("attention", &has("#attention", &["p/b1 is down", "refused"]));
    page.until("one that serves", &has("#now-backends", &["1", "of 2"]));
    page.until("a title that says so", "document.title.startsWith('(1) ')");
    assert_eq!(scene.home(number), "b0");
    page.until("the move", &has("#move-rows", &["p", "b1", "down", "its backend could not serve", "1"]));
    page.until("the figure", &has("#now-moved", &["1"]));
    assert_eq!(page.evaluate("document.querySelector('#move-rows .fresh') !== null"), true, "it has just happened");

    let ask = format!("document.querySelector('#ask-client').value = '{}'", client(number));
    page.evaluate(&ask);
    page.evaluate("document.querySelector('#ask-form').requestSubmit()");
    let why = format!("{} goes to b0 of pool p, because the stick table has it at b0.", client(number));
    page.until("an answer", &has("#answer", &[&why, "If b0 goes down, only b1 is left, which cannot serve now."]));

    // Names and texts from elsewhere are shown as they are.
    let markup = "<img/src=x/onerror=alert(1)>";
    page.evaluate(&format!("document.querySelector('#ask-client').value = '{markup}'"));
    page.evaluate("document.querySelector('#ask-form').requestSubmit()");
    page.until("the mistake", &has("#answer", &[markup, "is not an address"]));
    let backend = scene.backends[0].as_ref().unwrap().address;
    let wrong = configuration(scene.port, "", &[backend]).replace("pool = \"p\"", &format!("pool = \"{markup}\""));
    assert_eq!(scene.sessile.reload(&wrong)["accepted"], false);
    page.until("the event", &has("#event-list", &["reload_refused", markup]));
    page.until("the warning", &has("#attention", &["The last reload was refused", markup]));
    assert_eq!(page.evaluate("document.querySelectorAll('img').length"), 0);

    // The browser notes the mistake of the question, and nothing else.
    let complaints = page.complaints().into_iter().filter(|complaint| !complaint.contains("status of 400"));
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
    let own = format!("http://{}/", scene.port);
    let requested = page.requested();
    assert!(requested.len() >= 5, "{requested:?}");
    assert!(requested.iter().all(|address| address.starts_with(&own)), "{requested:?}");
}

#[test]
fn a_stream_that_is_lost_and_back_is_said_and_old_figures_are_marked() {
    let test = "a_stream_that_is_lost_and_back_is_said_and_old_figures_are_marked";
    let Some(mut scene) = Scene::start(test, "") else { return };
    scene.page.until("keys", "document.querySelector('#table-list .stick-table') !== null");
    scene.home(1);
    scene.page.until("no name of a client", &has("#table-list", &["hidden", "admin.clients"]));
    assert!(!scene.page.text("#table-list").contains("127.0.11.1"));
    scene.sessile.signal(Signal::KILL);
    scene.sessile.wait();
    scene.page.until("the loss", &has("#link", &["No connection since", "What is shown is of", "Trying again"]));
    assert_eq!(scene.page.evaluate("document.body.classList.contains('lost')"), true);
    assert_eq!(scene.page.evaluate("document.title.startsWith('✕')"), true);
    scene.sessile.restart();
    scene.page.until("the return", &has("#link", &["Live again since"]));
    assert_eq!(scene.page.evaluate("document.body.classList.contains('lost')"), false);
    // A stop does not wait for the stream.
    scene.sessile.signal(Signal::TERM);
    assert!(scene.sessile.wait().success());
    scene.page.until("the loss", "document.querySelector('#link').dataset.state === 'lost'");
}

#[test]
fn a_page_goes_on_with_the_process_that_an_upgrade_has_started() {
    let test = "a_page_goes_on_with_the_process_that_an_upgrade_has_started";
    let Some(mut scene) = Scene::start(test, "") else { return };
    let before = scene.sessile.pid();
    scene.page.until("its number", &has("#process", &[&format!("process {before} ")]));
    let verdict = scene.sessile.upgrade(None);
    assert_eq!(verdict["accepted"], true, "{verdict}");
    scene.page.until("the new process", &has("#process", &[&format!("process {} ", scene.sessile.pid())]));
    scene.page.until("its stream", "document.querySelector('#link').dataset.state === 'live'");
    // The stream of the old process does not keep it.
    scene.sessile.gone(before);
}

#[test]
fn a_rebound_name_and_a_foreign_page_get_nothing() {
    let Some(scene) = Scene::start("a_rebound_name_and_a_foreign_page_get_nothing", "") else { return };
    let foreign = scene.browser.page();
    foreign.open(&format!("http://rebound.test:{}/", scene.port.port()));
    assert!(foreign.text("body").contains("Host is not an address"), "{}", foreign.text("body"));
    let status = foreign.evaluate("fetch('/stream').then(reply => reply.status)");
    assert_eq!(status, 421, "its own script, too");
    // A page of a site of its own, which may ask for anything and read nothing.
    let other = Backend::serving(|mut stream| {
        BufReader::new(&stream).read_line(&mut String::new())?;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
    });
    foreign.open(&format!("http://{}/", other.address));
    for path in ["", "stream", "status"] {
        let address = format!("http://{}/{path}", scene.port);
        let read = foreign.evaluate(&format!("fetch('{address}').then(() => 'read', () => 'refused')"));
        assert_eq!(read, "refused", "{path}");
        let code = foreign_request(&scene, &format!("/{path}"));
        assert_eq!(code, 403, "{path}: it is not sent");
    }
    assert!(scene.page.complaints().is_empty());
    let served = exchange(TcpStream::connect(scene.port).unwrap(), "GET", "/").unwrap();
    assert_eq!(served.0, 200);
}

/// Status of a GET that a page of another site has sent.
fn foreign_request(scene: &Scene, path: &str) -> u16 {
    let mut stream = TcpStream::connect(scene.port).unwrap();
    let (port, site) = (scene.port, "http://attacker.test");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {port}\r\nOrigin: {site}\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.split(' ').nth(1).unwrap().parse().unwrap()
}
