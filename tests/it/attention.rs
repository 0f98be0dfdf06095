//! What costs clients something and shows on no line of their own: said once in the log, counted, and in the status.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

/// What `sessile status` prints.
fn status_text(sessile: &Sessile) -> String {
    let output = run(&["status", "--wide", "--socket", sessile.admin().to_str().unwrap()]);
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a message was said, and returns how often.
fn said(sessile: &Sessile, part: &str) -> usize {
    eventually(&format!("a message: {part}"), || sessile.said().contains(part).then_some(()));
    sessile.said().matches(part).count()
}

#[test]
fn a_limit_that_is_reached_and_left_is_said() {
    let backend = Backend::named("b");
    for (of_process, name, series) in [
        (true, "max_connections", "sessile_permits_max_reached_total"),
        (false, "listener \\\"l\\\": max_connections", "sessile_connections_max_reached_total{listener=\"l\"}"),
    ] {
        let limits = if of_process { "[limits]\nmax_connections = 2\n" } else { "" };
        let own = if of_process { "" } else { "max_connections = 2" };
        let config = format!("{limits}{}{}", listener("p", own), pool("p", "", &[backend.address]));
        let sessile = Sessile::start(&config);
        let mut held: Vec<_> = (0..2).map(|_| Client::connect(sessile.address("l"))).collect();
        held.iter_mut().for_each(|client| drop(client.ask("x")));
        let mut third = Client::connect(sessile.address("l"));
        assert_eq!(said(&sessile, &format!("\"{name} is reached")), 1);
        assert_eq!(sessile.metric(series), 1.0);
        assert!(status_text(&sessile).contains("at the limit"), "{}", status_text(&sessile));
        held.clear();
        assert_eq!(third.ask("x"), "b x");
        assert_eq!(said(&sessile, &format!("\"{name} is left")), 1);
        assert_eq!((sessile.metric(series), said(&sessile, "is reached")), (1.0, 1), "once");
        assert!(!status_text(&sessile).contains("at the limit"));
    }
}

/// A backend that passes checks of kind `http` while the switch is on.
fn switched() -> (Backend, Arc<AtomicBool>) {
    let good = Arc::new(AtomicBool::new(true));
    let is_good = Arc::clone(&good);
    let backend = Backend::serving(move |mut stream| {
        let _ = stream.read(&mut [0; 1024])?;
        let status = if is_good.load(SeqCst) { "200 OK" } else { "500 No" };
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
    });
    (backend, good)
}

/// Waits until the backend of the pool `p` has this state.
fn has_state(sessile: &Sessile, state: &str) {
    eventually(&format!("the backend to be {state}"), || {
        (sessile.json("/backends")[0]["state"] == state).then_some(())
    });
}

#[test]
fn a_backend_that_answers_and_is_held_down_for_flapping_is_named() {
    let (backend, good) = switched();
    let check = "[pool.check]\nkind = \"http\"\ninterval = \"50ms\"\nrise = 2\nfall = 1\n";
    let config = |more: &str| {
        let pool = pool("p", "", &[backend.address]).replace("[pool.check]\nkind = \"off\"\n", check);
        listener("p", "") + &pool + more
    };
    let sessile = Sessile::start(&config("flap_damping = 1000\n"));
    has_state(&sessile, "up");
    // Each fall after a rise doubles the good checks that the next rise needs.
    for _ in 0..5 {
        good.store(false, SeqCst);
        has_state(&sessile, "down");
        good.store(true, SeqCst);
        has_state(&sessile, "up");
    }
    good.store(false, SeqCst);
    has_state(&sessile, "down");
    good.store(true, SeqCst);
    has_state(&sessile, "damped");
    let shown = sessile.json("/backends")[0].clone();
    assert!(shown["complaint"].as_str().unwrap().contains("held down by flap_damping"), "{shown}");
    assert_eq!(sessile.metric("sessile_backend_damped{pool=\"p\",backend=\"b0\"}"), 1.0);
    assert!(status_text(&sessile).contains("damped"));
    assert!(said(&sessile, "backend answers again, and stays down for now") >= 1);
    // Switched off, it is up after `rise` good checks.
    assert_eq!(sessile.reload(&config("flap_damping = \"off\"\n"))["accepted"], true);
    has_state(&sessile, "up");
    good.store(false, SeqCst);
    has_state(&sessile, "down");
    good.store(true, SeqCst);
    has_state(&sessile, "up");
}

#[test]
fn a_stick_table_that_loses_entries_is_named() {
    let backend = Backend::named("b");
    // Placement never sends a learned value anywhere, so each entry is worth keeping; 1 KiB holds 64.
    let options = "http = true\nstick_table = \"1 KiB\"\ncookie = { mode = \"learn\", name = \"SID\" }";
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", options, &[backend.address])));
    let (mut asks, address) = (0, sessile.address("l"));
    eventually("entries to be lost", || {
        for _ in 0..200 {
            asks += 1;
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=value-{asks}\r\n\r\n").unwrap();
            // The backend replies with its own line, which is no response: the request is placed all the same.
            let _ = stream.read(&mut [0; 512]);
        }
        (sessile.json("/stick-table")[0]["full"] == true).then_some(())
    });
    assert_eq!(said(&sessile, "is full and loses entries"), 1);
    assert_eq!(sessile.metric("sessile_stick_table_full{stick_table=\"p\"}"), 1.0);
    let status = status_text(&sessile);
    assert!(status.contains(" full"), "{status}");
}

#[test]
fn a_stick_table_file_that_cannot_be_written_is_said_once_and_when_it_can_again() {
    let backend = Backend::named("b");
    let config = "stick_table_file = \"$DIR/folder/stick-table\"\nstick_table_interval = \"1s\"\n".to_owned()
        + &listener("p", "")
        + &pool("p", "", &[backend.address]);
    let sessile = Sessile::start(&config);
    let failures = || sessile.status()["stick_table_file"]["failures"].as_u64().unwrap();
    // The folder was made; now a file takes its place.
    let folder = sessile.dir.path().join("folder");
    eventually("the first write", || folder.join("stick-table").exists().then_some(()));
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    eventually("two writes to fail", || (failures() >= 2).then_some(()));
    assert_eq!(said(&sessile, "cannot be written: the folder"), 1);
    assert!(sessile.metric("sessile_stick_table_file_failures_total") >= 2.0);
    assert!(status_text(&sessile).contains("stick-table cannot be written: the folder"), "{}", status_text(&sessile));
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(said(&sessile, "is written again"), 1);
    assert!(sessile.status()["stick_table_file"]["complaint"].is_null());
    assert!(!status_text(&sessile).contains("cannot be written"));
}

#[test]
fn an_address_in_use_is_called_listened_on_only_where_a_process_listens() {
    let backend = Backend::named("b");
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let verdict = |address: &str| {
        let more = format!("[[listener]]\nname = \"m\"\nbind = \"{address}\"\npool = \"p\"\n");
        let verdict = sessile.reload(&(listener("p", "") + &more + &pool("p", "", &[backend.address])));
        verdict["problems"][0].as_str().unwrap().to_owned()
    };
    assert!(verdict(&backend.address.to_string()).ends_with(": another program listens there"));
    let client = TcpStream::connect(backend.address).unwrap();
    let problem = verdict(&client.local_addr().unwrap().to_string());
    assert!(problem.contains("no process listens there, but the connection of"), "{problem}");
}

/// Opens and closes connections without asking anything; each makes a line of the log.
fn connections(sessile: &Sessile, count: usize) {
    let address = sessile.address("l");
    for _ in 0..count {
        drop(TcpStream::connect(address).unwrap());
    }
}

#[test]
fn lines_that_a_slow_reader_drops_are_counted_and_said_in_either_half() {
    for http in ["", "http = true"] {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        let backend = Backend::named("b");
        let config = listener("p", "") + &pool("p", http, &[backend.address]);
        let sessile = Sessile::spawn(&config, |command| {
            command.stdout(Stdio::from(writer));
        });
        sessile.ready();
        // Nothing reads standard output: the pipe fills, then the queue of batches, one each 50 ms, and connections go on.
        connections(&sessile, 50);
        eventually("lines to be dropped", || {
            connections(&sessile, 4);
            (sessile.status()["log_dropped"].as_u64() > Some(0)).then_some(())
        });
        assert_eq!(said(&sessile, "lines are dropped, because standard output is read too slowly"), 1);
        let status = status_text(&sessile);
        assert!(status.contains("access log: ") && status.contains(" lines dropped, 0 lost"), "{status}");
        let pages = sessile.metrics();
        let rows = pages.lines().filter(|line| line.starts_with("sessile_log_dropped_total{"));
        let by_worker: f64 = rows.map(|row| row.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
        assert!(by_worker > 0.0, "{pages}");
        drop(reader);
    }
}

#[test]
fn lines_that_a_full_disk_refuses_are_counted_and_said_once() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let backend = Backend::named("b");
    let config = listener("p", "") + &pool("p", "", &[backend.address]);
    let sessile = Sessile::spawn(&config, |command| {
        command.stdout(Stdio::from(full));
    });
    sessile.ready();
    connections(&sessile, 10);
    eventually("every line to be lost", || (sessile.status()["log_lost"] == 10).then_some(()));
    assert_eq!(
        said(&sessile, "lines are lost, because standard output does not take them: No space left on device"),
        1
    );
    connections(&sessile, 10);
    eventually("more lines to be lost", || (sessile.status()["log_lost"] == 20).then_some(()));
    assert_eq!((said(&sessile, "lines are lost"), sessile.metric("sessile_log_lost_total")), (1, 20.0));
    let status = status_text(&sessile);
    assert!(status.contains("access log: 0 lines dropped, 20 lost: No space left on device"), "{status}");
}
