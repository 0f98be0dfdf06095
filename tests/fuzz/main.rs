//! Fuzz targets for everything that reads bytes of strangers: heads, hellos, PROXY headers, cookies and files.
//!
//! | where | what |
//! |---|---|
//! | `targets/` | one file a target: a function of bytes that panics where a property does not hold |
//! | `corpus/` | the committed inputs, one folder a target; every run begins with them |
//! | `engine`, `mutate` | corpus, mutants, search, minimizing |
//! | `coverage`, `cost` | counters of an instrumented build; bounds on allocations and steps per byte |
//! | `run`, `rustc` | the same targets guided by coverage, for any time |
//!
//! `cargo test --test fuzz` runs the corpus and a fixed number of mutants, the same in every run.
//! `tests/fuzz/run 3600` searches for an hour. `SESSILE_FUZZ_INPUT=FILE cargo test --test fuzz TARGET` runs one input.
//!
//! Opens no connection. Invariant: a target is a pure function of its input, so every failure is found again in it.

mod cost;
mod coverage;
mod engine;
#[path = "../framing/corpus.rs"]
#[allow(dead_code, reason = "the targets have verdicts of their own")]
mod messages;
mod mutate;
#[path = "../it/support/rng.rs"]
mod rng;
mod targets;

#[test]
fn request() {
    engine::hold(&targets::request::TARGET);
}

#[test]
fn http2_frames() {
    engine::hold(&targets::http2_frames::TARGET);
}

#[test]
fn http2_head() {
    engine::hold(&targets::http2_head::TARGET);
}

#[test]
fn response() {
    engine::hold(&targets::response::TARGET);
}

#[test]
fn client_hello() {
    engine::hold(&targets::client_hello::TARGET);
}

#[test]
fn proxy_header() {
    engine::hold(&targets::proxy_header::TARGET);
}

#[test]
fn cookie() {
    engine::hold(&targets::cookie::TARGET);
}

#[test]
fn key_ring() {
    engine::hold(&targets::key_ring::TARGET);
}

#[test]
fn table_file() {
    engine::hold(&targets::table_file::TARGET);
}

#[test]
fn configuration() {
    engine::hold(&targets::configuration::TARGET);
}

#[test]
fn the_corpus_is_small_and_every_target_has_one() {
    let names = [
        "request",
        "http2_head",
        "http2_frames",
        "response",
        "client_hello",
        "proxy_header",
        "cookie",
        "key_ring",
        "table_file",
        "configuration",
    ];
    let sizes = names.map(|name| (name, engine::committed(name).iter().map(Vec::len).collect::<Vec<_>>()));
    let total: usize = sizes.iter().flat_map(|(_, sizes)| sizes).sum();
    assert!(sizes.iter().all(|(_, sizes)| !sizes.is_empty()), "{sizes:?}");
    assert!(total < 500_000, "{total} bytes");
}
