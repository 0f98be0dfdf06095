//! The log: both streams by one rule, what a line says, where the lines go, and what a slow reader costs.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::http::unix_post;
use crate::support::load_support::Client;
use crate::support::rng::Rng;
use crate::support::sessile::run;
use crate::support::{PATIENCE, Sessile, eventually, logfmt};

/// A `[log]` table.
fn log(keys: &str) -> String {
    format!("[log]\n{keys}\n")
}

/// An HTTP backend that answers each request on a connection with 200.
fn web() -> Backend {
    Backend::serving(|stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            if line == "\r\n" {
                (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
            line.clear();
        }
        Ok(())
    })
}

/// Every line of a file, read by the rule.
fn lines_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().map(logfmt::read).collect()
}

fn access_lines(sessile: &Sessile) -> Vec<Value> {
    lines_of(&sessile.dir.path().join("out.log"))
}

/// Sends bytes, finishes, and reads everything that comes back.
fn send(sessile: &Sessile, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A request that tries to break its line.
fn hostile(rng: &mut Rng) -> Vec<u8> {
    const PIECES: [&str; 14] = [
        "\"",
        "\\",
        "=",
        " ",
        "\t",
        "\\\" ended=done",
        "%0a",
        "\u{202e}",
        "\u{85}",
        "\u{e9}",
        "?secret=1",
        "/a",
        "x",
        "\\n",
    ];
    let mut text = || {
        let mut bytes = Vec::new();
        for _ in 0..rng.below(6) {
            match rng.below(5) {
                0 => bytes.push(rng.below(256) as u8),
                _ => bytes.extend_from_slice(PIECES[rng.below(PIECES.len())].as_bytes()),
            }
        }
        bytes
    };
    let (path, host, agent, cookie) = (text(), text(), text(), text());
    let head: [&[u8]; 9] = [
        b"GET /",
        &path,
        b" HTTP/1.1\r\nHost: a",
        &host,
        b"\r\nUser-Agent: ",
        &agent,
        b"\r\nCookie: SID=",
        &cookie,
        b"\r\n\r\n",
    ];
    head.concat()
}

/// Ids of the replies of our own in what a client has received.
fn ids(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let ids = text.split("\r\nx-request-id: ").skip(1);
    ids.map(|rest| rest.split("\r\n").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_line_of_both_streams_follows_the_rule_and_every_reply_of_ours_is_found_by_its_id() {
    for format in ["text", "json"] {
        let backend = web();
        let pools = pool("p", "http = true\nkey = [\"source\", \"cookie:SID\"]\n", &[backend.address]);
        let fields = "fields = [\"default\", \"user_agent\"]";
        let config = log(&format!("format = \"{format}\"\nlevel = \"debug\"\n{fields}")) + &listener("p", "") + &pools;
        let sessile = Sessile::start(&config);
        let mut rng = Rng(17);
        let mut refused = Vec::new();
        for _ in 0..200 {
            refused.extend(ids(&send(&sessile, &hostile(&mut rng))));
        }
        send(&sessile, b"");
        assert_eq!(sessile.reload("nonsense = \"a\\\"b\"\n[[listener]]\n")["accepted"], false);
        assert!(refused.len() > 20, "{} of 200 were refused", refused.len());
        let lines = eventually("every line", || {
            let lines = access_lines(&sessile);
            (lines.iter().filter(|line| line["kind"] == "connection").count() == 201).then_some(lines)
        });
        for id in &refused {
            let of_id: Vec<_> = lines.iter().filter(|line| line["request"] == **id).collect();
            assert_eq!(of_id.len(), 1, "{id}");
            assert_ne!(of_id[0]["fault"], "none", "{}", of_id[0]);
        }
        let shows_query = |line: &Value| line["path"].as_str().is_some_and(|path| path.contains("secret"));
        assert!(!lines.iter().any(shows_query), "no query is logged");
        sessile.says("reload refused");
        let messages = lines_of(&sessile.dir.path().join("err.log"));
        assert!(messages.iter().all(|line| line["msg"].is_string()));
        let is_refusal = |line: &&Value| line["msg"].as_str().unwrap().starts_with("reload refused");
        assert_eq!(messages.iter().filter(is_refusal).map(|line| &line["level"]).collect::<Vec<_>>(), ["error"]);
    }
}

#[test]
fn a_request_line_has_bytes_times_the_session_and_on_request_the_user_agent() {
    let backend = web();
    let cookie = "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    let config = log("format = \"json\"\nfields = [\"default\", \"user_agent\"]")
        + &listener("p", "")
        + &pool("p", cookie, &[backend.address]);
    let sessile = Sessile::start(&config);
    let head = "GET /a?b HTTP/1.1\r\nHost: x\r\nUser-Agent: say \"hi\"\r\nCookie: other=1; SID=31d4\r\n\r\n";
    let answer = send(&sessile, head.as_bytes());
    let line = sessile.line("the request", |line| line["kind"] == "request");
    assert_eq!((&line["path"], &line["user_agent"]), (&"/a".into(), &"say \"hi\"".into()), "{line}");
    // What `printf %s 31d4 | sha256sum` prints.
    let known = format!("{:016x}", sessile::access_log::session_hash(b"31d4"));
    assert_eq!((&line["session"], known.len()), (&known.into(), 16), "{line}");
    assert!(!line.to_string().contains("31d4"), "{line}");
    assert_eq!(line["bytes_down"], answer.len(), "{line}");
    assert!(line["bytes_up"].as_u64() > Some(head.len() as u64 / 2), "{line}");
    let (first, all) = (line["first_byte_us"].as_u64().unwrap(), line["duration_us"].as_u64().unwrap());
    assert!(first <= all && all < 20_000_000, "{line}");
    assert!(line["started"].as_str() <= line["time"].as_str(), "{line}");
    // A reply of our own counts as what the client was sent, and a request that went nowhere has no backend.
    let refused = send(&sessile, b"GET / HTTP/1.1\r\n\r\n");
    let line = sessile.line("the refused head", |line| line["refused"] == "no_host");
    assert_eq!((&line["bytes_down"], &line["first_byte_us"]), (&refused.len().into(), &Value::Null), "{line}");
}

/// The backend of a line, and what it says of a move.
fn moved(line: &Value) -> (&Value, &Value, &Value) {
    (&line["backend"], &line["moved"], &line["from"])
}

#[test]
fn a_move_is_said_once_with_the_backend_that_the_client_had() {
    for http in [false, true] {
        let backends = [web(), web()];
        let options = if http { "http = true\n" } else { "" };
        let config = listener("p", "") + &pool("p", options, &backends.each_ref().map(|backend| backend.address));
        let sessile = Sessile::start(&config);
        let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut ask = || {
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"ok") {
                let mut piece = [0; 512];
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "an answer");
                answer.extend_from_slice(&piece[..count]);
            }
        };
        ask();
        let home = sessile.json("/connections")["connections"][0]["backend"].as_str().unwrap().to_owned();
        assert_eq!(unix_post(&sessile.admin(), &format!("/backends/p/{home}/close")).unwrap().0, 200);
        let other = if home == "b0" { "b1" } else { "b0" };
        if http {
            // On the same connection: each request has a backend of its own.
            ask();
            ask();
            drop(stream);
            let lines = eventually("every line", || {
                let lines = sessile.lines();
                lines.iter().any(|line| line["kind"] == "connection").then_some(lines)
            });
            let requests: Vec<_> = lines.iter().filter(|line| line["kind"] == "request").map(moved).collect();
            let (none, home, other) = (&Value::Null, &Value::from(home), &Value::from(other));
            assert_eq!(requests, [(home, none, none), (other, &"drain".into(), home), (other, none, none)]);
            let connection = lines.iter().find(|line| line["kind"] == "connection").unwrap();
            assert_eq!(moved(connection), (other, none, none), "{connection}");
        } else {
            drop(stream);
            send(&sessile, request.as_bytes());
            let line = sessile.line("the move", |line| line["backend"] == other);
            assert_eq!(moved(&line), (&other.into(), &"drain".into(), &home.as_str().into()), "{line}");
            send(&sessile, request.as_bytes());
            let told = || sessile.lines().iter().filter(|line| line["backend"] == other).count() == 2;
            eventually("the next line", || told().then_some(()));
            assert_eq!(sessile.lines().iter().filter(|line| line["moved"].is_string()).count(), 1);
        }
    }
}

#[test]
fn a_file_takes_the_lines_is_opened_anew_after_a_rotation_and_a_reload_changes_everything_at_once() {
    let backend = Backend::named("b");
    let tables = listener("p", "") + &pool("p", "", &[backend.address]);
    let sessile = Sessile::start(&(log("format = \"text\"\noutput = \"$DIR/logs/access.log\"") + &tables));
    let folder = sessile.dir.path().join("logs");
    let (path, rotated) = (folder.join("access.log"), folder.join("access.log.1"));
    let connect = |file: &Path, count: usize| {
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
        eventually("a line", || (lines_of(file).len() == count).then_some(()));
    };
    connect(&path, 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    fs::rename(&path, &rotated).unwrap();
    connect(&rotated, 2);
    let reopen = || run(&["log", "reopen", "--socket", sessile.admin().to_str().unwrap()]);
    let output = reopen();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = format!("the access log goes to {}\n", path.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), said);
    connect(&path, 1);
    assert_eq!(lines_of(&rotated).len(), 2, "no line goes to the old file");
    assert!(fs::read_to_string(sessile.dir.path().join("out.log")).unwrap().is_empty());

    // An output that cannot be opened refuses the whole reload.
    let folder = log("format = \"json\"\noutput = \"$DIR/\"") + &tables;
    let verdict = sessile.reload(&folder);
    assert_eq!(verdict["accepted"], false, "{verdict}");
    assert!(verdict["problems"][0].as_str().unwrap().starts_with("log.output: "), "{verdict}");
    connect(&path, 2);

    let back = log("format = \"json\"\nfields = [\"id\"]") + &tables;
    assert_eq!(sessile.reload(&back)["accepted"], true);
    connect(&sessile.dir.path().join("out.log"), 1);
    let line = &sessile.lines()[0];
    let mut names: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["id", "kind", "level", "time"], "{line}");
    assert_eq!(lines_of(&path).len(), 2, "no line goes to the file");
    // Messages are JSON from the reload on.
    eventually("a message in JSON", || {
        sessile.said().lines().last().is_some_and(|line| line.starts_with('{')).then_some(())
    });
    let output = reopen();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("goes to standard output"));
}

#[test]
fn a_sample_leaves_out_no_line_of_a_failure() {
    let backend = Backend::named("b");
    let config = log("format = \"json\"\nsample = 20") + &listener("p", "") + &pool("p", "", &[backend.address]);
    let sessile = Sessile::start(&config);
    for _ in 0..400 {
        let mut client = Client::connect(sessile.address("l"));
        assert_eq!(client.ask("x"), "b x");
    }
    drop(backend);
    for _ in 0..20 {
        send(&sessile, b"x\n");
    }
    let is_failure = |line: &&Value| line["fault"] != "none";
    let lines = eventually("the failures", || {
        let lines = sessile.lines();
        (lines.iter().filter(is_failure).count() == 20).then_some(lines)
    });
    let sampled = lines.iter().filter(|line| line["fault"] == "none");
    let sampled: Vec<_> = sampled.map(|line| line["sample"].as_u64()).collect();
    assert!((4..60).contains(&sampled.len()) && sampled.iter().all(|sample| *sample == Some(20)), "{sampled:?}");
    assert!(lines.iter().filter(is_failure).all(|line| line["sample"].is_null()));
}

#[test]
fn with_both_streams_full_nothing_stops_and_every_line_is_written_or_counted() {
    for http in ["", "http = true\n"] {
        let pipe = || {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
            (reader, writer)
        };
        let ((lines, out), (messages, err)) = (pipe(), pipe());
        let backend = Backend::named("b");
        let config = listener("p", "") + &pool("p", http, &[backend.address]);
        let mut sessile = Sessile::spawn(&config, |command| {
            command.stdout(Stdio::from(out)).stderr(Stdio::from(err));
        });
        sessile.ready();
        let mut made = 0;
        let mut connect = |count: usize| {
            for _ in 0..count {
                drop(TcpStream::connect(sessile.address("l")).unwrap());
            }
            made += count as u64;
        };
        eventually("lines to be dropped", || {
            connect(20);
            (sessile.status()["log_dropped"].as_u64() > Some(0)).then_some(())
        });
        eventually("every connection to end", || (sessile.json("/connections")["open"] == 0).then_some(()));
        for order in ["close", "ready"].iter().cycle().take(100) {
            assert_eq!(unix_post(&sessile.admin(), &format!("/backends/p/b0/{order}")).unwrap().0, 200);
        }
        // The readers are back.
        let read = |pipe| {
            let (sent, received) = mpsc::channel();
            thread::spawn(move || {
                let lines = BufReader::new(File::from(pipe)).lines().map_while(Result::ok);
                lines.map(|line| logfmt::read(&line)).try_for_each(|line| sent.send(line))
            });
            received
        };
        let (lines, messages) = (read(lines), read(messages));
        let mut written = 0;
        let dropped = eventually("the sum to be right", || {
            written += lines.try_iter().filter(|line| line["kind"] == "connection").count() as u64;
            let status = sessile.status();
            let counted = status["log_dropped"].as_u64().unwrap() + status["log_lost"].as_u64().unwrap();
            assert!(written + counted <= made, "{written} + {counted} of {made}");
            (written + counted == made).then_some(counted)
        });
        let over = format!("access log: lines are not dropped any more; {dropped} were");
        let mut told = 0;
        loop {
            match messages.recv_timeout(PATIENCE) {
                Ok(line) if line["msg"] == *over => {
                    told += 1;
                    sessile.signal(rustix::process::Signal::TERM);
                }
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("what was dropped is not said"),
            }
        }
        assert_eq!(told, 1);
        assert_eq!(sessile.wait().code(), Some(0));
    }
}
