//! What the page shows while a backend dies, is drained, and a client moves, and when the process is gone.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::json;

use super::{Scene, cell, client, configuration, has};
use crate::support::backend::Backend;
use crate::support::browser::Look;
use crate::support::eventually;
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
    let row =
        "[...document.querySelectorAll('#move-rows tr')].map(row => [...row.children].map(cell => cell.innerText))";
    page.until("the move", &format!("{row}.some(row => row[0] === 'p' && row[1] === 'b1' && row[3] === '1')"));
    page.until("its cause", &has("#move-rows", &["down", "its backend could not serve"]));
    page.until("the figure", "document.querySelector('#now-moved').textContent === '1'");
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
    let heads = "[...document.querySelectorAll('#table-list tbody th')]";
    scene.page.until("a hidden key", &format!("{heads}.some(head => head.textContent === 'hidden')"));
    scene.page.until("why", &has("#table-list", &["admin.clients"]));
    let is_named = "document.documentElement.outerHTML.includes('127.0.11.1')";
    assert_eq!(scene.page.evaluate(is_named), false);
    let times = "[...document.querySelectorAll('#event-list time')].map(time => time.dateTime)";
    scene.page.until("an event", &format!("{times}.length > 0"));
    let former = scene.page.evaluate(times);
    scene.page.evaluate("void risen.set('a count', { value: 5, at: 1 })");
    scene.sessile.signal(Signal::KILL);
    scene.sessile.wait();
    scene.page.until("the loss", &has("#link", &["No connection since", "What is shown is of", "Trying again"]));
    assert_eq!(scene.page.evaluate("document.body.classList.contains('lost')"), true);
    assert_eq!(scene.page.evaluate("document.title.startsWith('✕')"), true);
    for theme in ["light", "dark"] {
        scene.page.look(Look { width: 1_600, height: 1_000, theme });
        scene.page.until("the theme", &format!("matchMedia('(prefers-color-scheme: {theme})').matches"));
        assert_eq!(scene.page.evaluate(FAINT), json!([]), "{theme}");
    }
    scene.sessile.restart();
    scene.page.until("the return", &has("#link", &["Live again since"]));
    assert_eq!(scene.page.evaluate("document.body.classList.contains('lost')"), false);
    // Events and counts are those of the new process.
    let starts =
        "[...document.querySelectorAll('#event-list li')].filter(node => node.children[1].innerText === 'start')";
    scene.page.until("its start", &format!("{starts}.some(node => !{former}.includes(node.firstChild.dateTime))"));
    let foreign = "(async () => {
        const known = (await (await fetch('events')).json()).events.map(event => event.time + event.text);
        const listed = [...document.querySelectorAll('#event-list li')];
        return listed.map(node => node.firstChild.dateTime + node.lastChild.textContent).filter(one => !known.includes(one));
    })()";
    assert_eq!(scene.page.evaluate(foreign), json!([]));
    assert_eq!(scene.page.evaluate("risen.has('a count')"), false);
    // A stop does not wait for the stream.
    scene.sessile.signal(Signal::TERM);
    assert!(scene.sessile.wait().success());
    scene.page.until("the loss", "document.querySelector('#link').dataset.state === 'lost'");
}

/// Texts whose contrast with what is behind them is below 4.5.
const FAINT: &str = "(() => {
    const parts = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const linear = part => part <= 10.3 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4;
    const light = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    const paper = parts(getComputedStyle(document.body).backgroundColor);
    const opacity = Number(getComputedStyle(document.querySelector('main')).opacity);
    const seen = colour => light(parts(colour).map((part, at) => part * opacity + paper[at] * (1 - opacity)));
    const behind = node => {
        const colour = getComputedStyle(node).backgroundColor;
        return colour === 'rgba(0, 0, 0, 0)' ? behind(node.parentElement) : colour;
    };
    const hasText = node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    return [...document.querySelectorAll('main *')].filter(node => node.offsetParent && hasText(node)).filter(node => {
        const [ink, sheet] = [seen(getComputedStyle(node).color), seen(behind(node))];
        return (Math.max(ink, sheet) + 0.05) / (Math.min(ink, sheet) + 0.05) < 4.5;
    }).map(node => node.outerHTML.slice(0, 80));
})()";

#[test]
fn a_count_that_falls_counts_from_nothing_and_a_time_of_another_day_has_its_date() {
    let test = "a_count_that_falls_counts_from_nothing_and_a_time_of_another_day_has_its_date";
    let Some(scene) = Scene::start(test, "") else { return };
    let seen = "(() => {
        const line = row(MOVE)();
        fillCount(line, 'a count', 1000, 5);
        fillCount(line, 'a count', 61000, 1);
        return line.children[4].textContent === clock(61000);
    })()";
    assert_eq!(scene.page.evaluate(seen), true);
    let times = scene.page.evaluate("[clock(new Date(2001, 1, 3, 4, 5, 6).getTime()), clock(Date.now()).length]");
    assert_eq!(times, json!(["2001-02-03 04:05:06", 8]));
}

#[test]
fn a_hidden_page_has_no_stream() {
    let Some(scene) = Scene::start("a_hidden_page_has_no_stream", "") else { return };
    let hide = |hidden: bool| {
        let property = format!("Object.defineProperty(document, 'hidden', {{ configurable: true, value: {hidden} }})");
        scene.page.evaluate(&format!("{property}, document.dispatchEvent(new Event('visibilitychange'))"));
    };
    hide(true);
    assert_eq!(scene.page.evaluate("stream.readyState === EventSource.CLOSED"), true);
    assert!(scene.page.text("#link").starts_with("Not live: this page was hidden. What is shown is of "));
    // Its silence is no loss, however long it lasts.
    scene.page.evaluate("tried = heard = 0, new Promise(done => setTimeout(done, 2500))");
    let at_rest = "[stream.readyState === EventSource.CLOSED, document.querySelector('#link').dataset.state]";
    assert_eq!(scene.page.evaluate(at_rest), json!([true, "waiting"]));
    hide(false);
    scene.page.until("its stream", "document.querySelector('#link').dataset.state === 'live'");
}

#[test]
fn a_sample_that_cannot_be_read_is_said_and_another_version_has_another_page() {
    let test = "a_sample_that_cannot_be_read_is_said_and_another_version_has_another_page";
    let Some(scene) = Scene::start(test, "") else { return };
    scene.page.evaluate("void (show = () => { throw new Error('by intent'); })");
    scene.page.until("the failure", &has("#link", &["this page cannot read the sample; reload it"]));
    assert_eq!(scene.page.evaluate("document.body.classList.contains('lost')"), true);
    scene.page.evaluate("void (version = 'another')");
    scene.page.until("another page", "performance.getEntriesByType('navigation')[0].type === 'reload'");
    scene.page.until("its stream", "document.querySelector('#link')?.dataset.state === 'live'");
}

#[test]
fn a_question_without_a_reply_is_given_up() {
    let Some(scene) = Scene::start("a_question_without_a_reply_is_given_up", "") else { return };
    scene.sessile.signal(Signal::STOP);
    scene.page.evaluate("document.querySelector('#ask-client').value = '127.0.11.1'");
    scene.page.evaluate("document.querySelector('#ask-form').requestSubmit()");
    scene.page.until("the end", &has("#answer", &["There is no reply within 10 seconds."]));
    scene.sessile.signal(Signal::CONT);
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
        let statuses = eventually("a reply", || Some(foreign.statuses(&address)).filter(|all| !all.is_empty()));
        assert!(statuses.iter().all(|status| *status == 403), "{path}: {statuses:?}");
    }
    assert!(scene.page.complaints().is_empty());
    let served = exchange(TcpStream::connect(scene.port).unwrap(), "GET", "/").unwrap();
    assert_eq!(served.0, 200);
}
