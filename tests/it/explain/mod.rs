//! `sessile explain`, a process of its own, says of every live connection where it went, over twenty configurations.
//!
//! Clients are announced by PROXY v2; each backend tells its name as soon as it is connected. Where a key decides,
//! `explain` must name that very backend; where none does, it must name those that could be. Pool, range and reason must
//! be those of the log.

mod clients;
mod configurations;
mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use serde_json::Value;

use self::clients::Client;
use self::configurations::{CONFIGURATIONS, Configuration};
use crate::support::backend::Backend;
use crate::support::program::free_address;
use crate::support::sessile::command;
use crate::support::{PATIENCE, Sessile, eventually};

const CLIENTS: usize = 1_000;
const THREADS: usize = 32;
/// Backends there are, named `b0`, `b1` and so on; a configuration uses some of them.
const BACKENDS: usize = 10;

#[test]
fn explain_names_the_backend_of_every_live_connection() {
    assert_eq!(CONFIGURATIONS.len() * CLIENTS, 20_000);
    let backends: Vec<_> = (0..BACKENDS).map(|index| announcing(&format!("b{index}"), None)).collect();
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let mut mismatches = Vec::new();
    for (index, configuration) in CONFIGURATIONS.iter().enumerate() {
        let clients = clients::random(index as u64, CLIENTS, configuration);
        let run = Run::new(configuration, &addresses);
        let reached = run.connect(&clients);
        let lines = run.lines();
        let explained = run.explain(&clients);
        assert_eq!(explained.len(), clients.len(), "{}", configuration.what);
        for ((client, reached), explained) in clients.iter().zip(&reached).zip(&explained) {
            let line = &lines[&client.logged()];
            if let Err(why) = agree(configuration, client, reached, explained, line) {
                mismatches.push(format!("{}: {client:?}: {why}\n  {explained}\n  {line}", configuration.what));
            }
        }
        if !configuration.keyed {
            let reached: BTreeSet<_> = reached.iter().map(String::as_str).collect();
            assert_eq!(reached, candidates(&explained[0]), "{}: candidates and reached", configuration.what);
        } else if configuration.down.is_some() {
            let passed_over = explained.iter().any(|explained| explained["candidates"][0]["why_not"] == "down");
            assert!(passed_over, "{}: nobody missed who is down", configuration.what);
        }
    }
    assert!(mismatches.is_empty(), "{} mismatches:\n{}", mismatches.len(), mismatches.join("\n"));
}

/// Whether `explain` said what happened.
fn agree(
    configuration: &Configuration,
    client: &Client,
    reached: &str,
    explained: &Value,
    line: &Value,
) -> Result<(), String> {
    let same = |what: &str, explained: &Value, seen: &Value| match explained == seen {
        true => Ok(()),
        false => Err(format!("{what} is {seen}, explained as {explained}")),
    };
    same("client", &explained["client"], &client.address().to_string().into())?;
    if reached.is_empty() {
        return same("refusal", &explained["refused"], &line["ended"]);
    }
    same("backend in the log", &reached.into(), &line["backend"])?;
    same("range", &explained["range"], &line["range"])?;
    same("pool", &explained["pool"], &line["pool"])?;
    // `explain` has no stick table; where nothing has changed, the entry names the same backend.
    if line["reason"] != "stick_table" {
        same("reason", &explained["reason"], &line["reason"])?;
    }
    if configuration.keyed && client.has_key(configuration, &explained["pool"]) {
        same("whether a key decides", &explained["key"].is_string().into(), &true.into())?;
        return same("backend", &explained["choice"], &reached.into());
    }
    same("key", &explained["key"], &Value::Null)?;
    if candidates(explained).contains(reached) { Ok(()) } else { Err(format!("{reached} is no candidate")) }
}

/// Backends that may get a client without a key: usable primaries, or usable backups if there are none.
fn candidates(explained: &Value) -> BTreeSet<&str> {
    let rows = explained["candidates"].as_array().expect("candidates");
    let usable: Vec<_> = rows.iter().filter(|row| row["usable"] == true).collect();
    let backups_serve = usable.iter().all(|row| row["why_not"] == "backup");
    let serving = usable.iter().filter(|row| backups_serve || row["why_not"] != "backup");
    serving.map(|row| row["backend"].as_str().expect("a name")).collect()
}

/// A backend that sends its name and reads until the client has gone.
fn announcing(name: &str, address: Option<SocketAddr>) -> Backend {
    let name = name.to_owned();
    let serve = move |mut stream: TcpStream| {
        stream.write_all(name.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(())
    };
    match address {
        Some(address) => Backend::on(address, serve),
        None => Backend::serving(serve),
    }
}

/// A balancer with one configuration.
struct Run<'a> {
    configuration: &'a Configuration,
    sessile: Sessile,
}

impl<'a> Run<'a> {
    fn new(configuration: &'a Configuration, addresses: &[SocketAddr]) -> Self {
        let mut addresses = addresses.to_vec();
        // Listens on an address that no other program can take later.
        let doomed = configuration.down.map(|name| {
            let address = free_address();
            addresses[name[1..].parse::<usize>().expect("a number")] = address;
            (name, announcing(name, Some(address)))
        });
        let run = Self { configuration, sessile: Sessile::start(&configuration.text(&addresses)) };
        if let Some((name, backend)) = doomed {
            run.wait_for(name, "up");
            drop(backend);
            run.wait_for(name, "down");
        }
        run
    }

    /// Waits until checks say so of a backend, in every pool that has it.
    fn wait_for(&self, name: &str, state: &str) {
        eventually(&format!("{name} to be {state}"), || {
            let status = self.sessile.status();
            let pools = status["pools"].as_array().expect("pools");
            let backends = pools.iter().flat_map(|pool| pool["backends"].as_array().expect("backends"));
            let mut states = backends.filter(|backend| backend["name"] == name).map(|backend| &backend["state"]);
            states.all(|seen| seen == state).then_some(())
        });
    }

    /// Connects every client; the names of the backends they reached, empty where refused.
    fn connect(&self, clients: &[Client]) -> Vec<String> {
        let address = self.sessile.address("l");
        let next = AtomicUsize::new(0);
        let reached = Mutex::new(vec![String::new(); clients.len()]);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let index = next.fetch_add(1, Relaxed)
                        && let Some(client) = clients.get(index)
                    {
                        let name = ask(address, client);
                        reached.lock().unwrap()[index] = name;
                    }
                });
            }
        });
        reached.into_inner().unwrap()
    }

    /// The connections in the log, by client.
    fn lines(&self) -> BTreeMap<String, Value> {
        eventually("a line for every connection", || {
            let lines = self.sessile.lines();
            (lines.len() == CLIENTS).then_some(lines)
        })
        .into_iter()
        .map(|line| (line["client"].as_str().expect("a client").to_owned(), line))
        .collect()
    }

    /// What another process says of the same clients.
    fn explain(&self, clients: &[Client]) -> Vec<Value> {
        let file = self.sessile.file();
        let mut arguments = vec!["explain", "--json", "--listener", "l", "--config", file.to_str().expect("words")];
        arguments.extend(self.configuration.down.iter().flat_map(|name| ["--down", name]));
        if self.configuration.tlv {
            arguments.extend(["--tlv", clients::TLV]);
        }
        explained(&arguments, clients)
    }
}

/// What `sessile explain` says of clients that are given to it line by line.
fn explained(arguments: &[&str], clients: &[Client]) -> Vec<Value> {
    let mut explain =
        command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let input: String = clients.iter().map(Client::line).collect();
    let mut stdin = explain.stdin.take().expect("a pipe");
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = explain.wait_with_output().expect("an answer");
    writer.join().unwrap().expect("it reads");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Connects as a client and returns the name of the backend.
fn ask(address: SocketAddr, client: &Client) -> String {
    let mut stream = TcpStream::connect(address).expect("the balancer accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(&client.first_bytes()).expect("the balancer reads");
    let mut name = String::new();
    stream.read_to_string(&mut name).map_or_else(|error| error.to_string(), |_| name)
}
