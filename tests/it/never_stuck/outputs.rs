//! Outputs that are full.

use super::*;

/// A pipe without room for one byte, and the end to read it from.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    assert_eq!(rustix::io::write(&writer, &vec![b'\n'; size]).unwrap(), size);
    (reader, writer)
}

/// Refused by a reload with a message of a quarter of a megabyte.
fn many_problems() -> String {
    (0..4_000).map(|n| format!("an_unknown_key_with_a_long_name_{n} = {n}\n")).collect::<String>() + &small_config()
}

/// A process whose standard error is full for so long, while everything else goes on.
fn with_a_full_standard_error(time: Duration) {
    let begun = Instant::now();
    let (checks, checked) = channel();
    let probed = Backend::serving(move |_| checks.send(()).map_err(std::io::Error::other));
    let backend = Backend::named("b");
    let config = "workers = 1\n".to_owned()
        + &listener("p", "")
        + &pool("p", "", &[backend.address])
        + &pool("checked", "", &[probed.address]).replace("kind = \"off\"", "kind = \"tcp\"\ninterval = \"100ms\"");
    let (reader, writer) = full_pipe();
    let mut sessile = Sessile::spawn(&config, |command| {
        command.stderr(Stdio::from(writer));
    });
    sessile.ready();
    let _watchdog = Watchdog::over(sessile.pid());
    let lost = || sessile.metric("sessile_messages_lost_total");
    let mut held = Client::connect(sessile.address("l"));
    assert_eq!(held.ask("x"), "b x");
    // A panic is a message as well: the thread that says it serves other connections.
    let id = sessile.json("/connections?pool=p")["connections"][0]["id"].as_u64().unwrap();
    assert_eq!(unix_post(&sessile.admin(), &format!("/connections/{id}/panic")).unwrap().0, 202);
    let _ = held.try_ask("x");
    assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    // A thousand messages of the control thread.
    let orders = Instant::now();
    for order in ["drain", "ready"].iter().cycle().take(1_000) {
        assert_eq!(unix_post(&sessile.admin(), &format!("/backends/checked/b0/{order}")).unwrap().0, 200);
    }
    assert!(orders.elapsed() < Duration::from_secs(15), "{:?}", orders.elapsed());
    let good = fs::read_to_string(sessile.file()).unwrap();
    eventually("messages to be lost", || {
        assert_eq!(sessile.reload(&many_problems())["accepted"], false);
        (lost() > 0.0).then_some(())
    });
    fs::write(sessile.file(), good).unwrap();
    while begun.elapsed() < time {
        checked.try_iter().for_each(drop);
        checked.recv_timeout(PATIENCE).expect("a check goes on");
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
        assert_eq!(unix_get(&sessile.admin(), "/readyz").unwrap().0, 200);
    }
    assert_eq!(reload(&sessile)["accepted"], true);
    let count = lost();
    let shown = run(&["status", "--socket", sessile.admin().to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("messages about the process: {count} lost")), "{count}: {shown}");

    // Read again: what waited comes whole, then what was lost is said.
    let mut lines = BufReader::new(File::from(reader)).lines().map(Result::unwrap).filter(|line| !line.is_empty());
    let first = lines.find(|line| line.contains("ready: 1 workers"));
    assert!(first.is_some_and(|line| serde_json::from_str::<Value>(&line).is_ok()), "lines of the start");
    assert!(lines.any(|line| line.contains("panicked at")), "the panic is said");
    let said = lines.find(|line| line.contains("messages about the process were lost")).expect("the loss is said");
    assert!(said.contains(&format!("{count} messages")), "{count}: {said}");
    sessile.signal(Signal::TERM);
    assert!(lines.any(|line| line.contains("stopping:")), "messages come again");
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_full_standard_error_holds_no_check_no_admin_no_reload_and_what_it_lost_is_said() {
    with_a_full_standard_error(Duration::from_secs(5));
}

#[test]
#[ignore = "takes a minute"]
fn a_standard_error_that_is_full_for_a_minute_holds_nothing() {
    with_a_full_standard_error(Duration::from_secs(60));
}

#[test]
fn a_process_with_both_outputs_full_serves_and_ends_when_it_is_told_so() {
    let backend = Backend::named("b");
    let config = listener("p", "") + &pool("p", "", &[backend.address]);
    let ((_errors, error_end), (_lines, output_end)) = (full_pipe(), full_pipe());
    let mut sessile = Sessile::spawn(&config, |command| {
        command.stderr(Stdio::from(error_end)).stdout(Stdio::from(output_end));
    });
    sessile.ready();
    for _ in 0..100 {
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    }
    assert_eq!(sessile.reload(&config)["accepted"], true);
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_start_that_fails_ends_although_its_standard_error_is_full() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = small_config().replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    for (config, code) in [("bogus = 1\n".to_owned(), 64), (in_use, 69)] {
        let (_reader, writer) = full_pipe();
        let mut sessile = Sessile::spawn(&config, |command| {
            command.stderr(Stdio::from(writer));
        });
        assert_eq!(sessile.wait().code(), Some(code), "{config}");
    }
}
