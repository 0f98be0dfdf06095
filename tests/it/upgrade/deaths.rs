//! Either process is killed on the way.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::traffic::{Idle, mirror};
use crate::support::backend::{listener, pool};
use crate::support::rng::Rng;
use crate::support::{Sessile, eventually};

/// How often each process is killed; the environment may say more.
fn deaths() -> usize {
    std::env::var("SESSILE_TEST_DEATHS").map_or(6, |count| count.parse().expect("a number"))
}

/// Processes that an upgrade has started with this configuration.
fn started(config: &std::path::Path, but: u32) -> Option<u32> {
    let config = config.to_str().unwrap();
    let text = |pid: u32, name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let of_upgrade = |pid: &u32| {
        *pid != but && text(*pid, "cmdline").contains(config) && text(*pid, "environ").contains("SESSILE_UPGRADE=1")
    };
    let all =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(of_upgrade).max()
}

fn kill(pid: u32) {
    let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
}

/// Begins an upgrade; returns the command that asked for it and the new process.
fn begin(sessile: &Sessile) -> (std::process::Child, Option<u32>) {
    let mut upgrade: Command = sessile.upgrade_command(None);
    let asked = upgrade.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let look = || started(&sessile.file(), sessile.pid());
    let found = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_micros(200));
        look()
    });
    (asked, found)
}

#[test]
fn when_the_new_process_is_killed_before_the_commit_the_old_one_goes_on() {
    let backend = mirror();
    let config = listener("p", "") + &pool("p", "", &[backend.address]);
    let (mut rng, mut before_commit, mut after) = (Rng(14), 0, 0);
    while before_commit < deaths() {
        let mut sessile = Sessile::start(&config);
        let address = sessile.address("l");
        let mut idle: Vec<_> = (0..100).map(|_| Idle::open(address)).collect();
        while before_commit < deaths() {
            let (asked, started) = begin(&sessile);
            std::thread::sleep(Duration::from_micros(rng.below(120_000) as u64));
            started.into_iter().for_each(kill);
            let output = asked.wait_with_output().unwrap();
            let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
            if verdict["accepted"] == true {
                // Too late for this test: the process that was killed served already.
                after += 1;
                break;
            }
            before_commit += 1;
            // Pairs that were acknowledged belong to the process that was killed; all others live.
            let before = idle.len();
            idle.retain_mut(|idle| idle.try_lives().is_ok());
            println!("{verdict}: {} of {before} connections live", idle.len());
            Idle::open(address);
            assert_eq!(sessile.status()["ready"], true);
            idle.extend((idle.len()..100).map(|_| Idle::open(address)));
        }
        let _ = &mut sessile;
    }
    println!("{before_commit} killed before the commit, {after} after it");
}

#[test]
fn when_the_old_process_is_killed_the_new_one_serves_what_it_has() {
    let backend = mirror();
    let mut rng = Rng(15);
    for round in 0..deaths() {
        // The port stays the same without the process that chose it.
        let address = crate::support::program::free_address();
        let config = format!("[[listener]]\nname = \"l\"\nbind = \"{address}\"\npool = \"p\"\n");
        let mut sessile = Sessile::start(&(config + &pool("p", "", &[backend.address])));
        let mut idle: Vec<_> = (0..100).map(|_| Idle::open(address)).collect();
        let (mut asked, started) = begin(&sessile);
        let started = started.expect("the new process");
        std::thread::sleep(Duration::from_micros(rng.below(120_000) as u64));
        kill(sessile.pid());
        let old = sessile.pid();
        sessile.gone(old);
        sessile.is_now(started);
        eventually("the new process to serve", || {
            let mut client = std::net::TcpStream::connect(address).ok()?;
            use std::io::{Read, Write};
            client.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            client.write_all(b"hello").ok()?;
            client.read_exact(&mut [0; 5]).ok()
        });
        eventually("the admin interface", || {
            let (code, _) = crate::support::http::unix_get(&sessile.admin(), "/readyz")?;
            (code == 200).then_some(())
        });
        let open = sessile.json("/connections")["open"].as_u64().unwrap();
        let alive = idle.iter_mut().filter_map(|idle| idle.try_lives().ok()).count();
        println!("round {round}: {alive} of 100 connections live, {open} are listed");
        assert!(alive as u64 <= open + 1, "{alive} {open}");
        let _ = asked.kill();
        let _ = asked.wait();
    }
}
