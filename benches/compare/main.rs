//! Races sessile against HAProxy and nginx on this machine and prints what each costs: `cargo bench --bench compare`.
//!
//! | where | what |
//! |---|---|
//! | `cli` | which contestants, which scenarios, and on what scale |
//! | `proxies/` | the contestants: configurations of equal meaning, start, reload, stop |
//! | `backends/` | what they balance to: small servers in processes of their own, and nginx for files |
//! | `load/` | the clients: single-threaded, non-blocking, cheaper than what they measure |
//! | `scenarios/` | one file a question; each makes one sample of one contestant |
//! | `stage` | what all turns share: cores, certificate, the file that is served, folders and ports |
//! | `measure`, `strace` | what the kernel says a process cost |
//! | `report/` | medians, quartiles and paired ratios, as tables and as JSON, and which bars they pass |
//!
//! The proxy has one core to itself, clients and backends share another. Contestants take turns round by round, so
//! that a slow minute of the machine hits all of them; a ratio is always between samples of the same round. A second
//! sessile runs as its own rival: its ratio is what a difference has to exceed to mean anything.
//!
//! Where TLS ends at the proxy (S5) all show one certificate (ECDSA, P-256) and exchange keys by X25519; sessile also
//! with X25519MLKEM768, which runs beside as a contestant of its own and counts for no bar.
//!
//! Where clients speak HTTP/2 (S11) backends speak HTTP/1.1 with every contestant. The client of many small answers is
//! h2load; handshakes, idle connections and long bodies have clients of ours, made of the `h2` crate.
//!
//! Bulk comes as users have it: S3f is a file that nginx sends with sendfile from the page cache, S3u are uploads into
//! nginx; S3 comes from the memory of a program, where a slot of a pipe holds eight times as much.
//!
//! Peers race as they come and once more well tuned; `proxies/tuned.rs` has every setting with its reason, and a run
//! prints them. HAProxy: `splice-request` and `splice-response` where bulk is expected (2.6 never splices by
//! `splice-auto` here) with `tune.pipesize` 1 MiB (a page of a file fills a slot of a pipe), `tune.bufsize` 64 KiB (the
//! rest moves by more than 16 KiB), `tune.maxaccept` 64 (fewer turns for many new connections), `tcp-smart-accept` and
//! `tcp-smart-connect` (an ACK less each). nginx: `multi_accept`, `reuseport`, buffers of 64 KiB both ways, a log that
//! is written by 64 KiB, frames of 16 KiB in HTTP/2. Both have 1 MiB for what a stream of HTTP/2 uploads ahead. Ratios
//! are to the lowest peer of all, figure by figure.
//!
//! With `--off` no program writes an access log, serves metrics or checks backends: what is left is the data path.
//!
//! A full run wants two and a half hours of an otherwise idle machine and says beforehand how long it takes; with
//! `--out results` every scenario leaves a file of its own, so that `--only S2 --out results` replaces one and keeps the
//! others (with `--off` the file is `S2-off.json`). Installs nothing and needs no network but loopback. Without `--bench` (as
//! `cargo test --benches` runs it) every scenario runs once, small, with sessile alone, and every peer that is
//! installed is asked whether it accepts its configurations; `--smoke` races them too. Invariant: it leaves no process
//! behind.

mod backends;
mod cli;
mod launch;
mod load;
mod measure;
mod proxies;
mod race;
mod report;
mod scenarios;
mod stage;
mod strace;

use std::process::ExitCode;

/// What goes wrong here is told to a person and ends a sample or the run.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let done = match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some(launch::LAUNCH) => launch::become_program(arguments).map(|never| match never {}),
        Some(launch::BACKEND) => backends::serve(arguments),
        _ => cli::settings().and_then(|settings| settings.map_or(Ok(()), |settings| race::run(&settings))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}
