//! S3, S3f and S3u, S3h and S3hu: as many bytes as will go through, over one connection and over eight.
//!
//! S3f is a download as users have them: nginx sends a file with sendfile, so that every page of it is a piece of its
//! own on the way. S3u is the same file the other way, into nginx, which reads as servers do. In S3h and S3hu the proxy
//! reads the requests and the heads of responses. S3 comes from the memory
//! of a program, in pieces eight times as large. Invariant: only bytes that arrived count, and bytes of files only
//! where they are the right ones.

use std::io;
use std::time::Duration;

use super::Turn;
use crate::Result;
use crate::backends::Service;
use crate::load::bulk::Bulk;
use crate::load::download::Download;
use crate::load::upload::Upload;
use crate::report::Sample;
use crate::strace::{Calls, Count};

/// S3.
pub fn from_memory(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Bulk)?;
    one_and_eight(|connections| {
        let mut bulk = Bulk::open(front, connections)?;
        rate_and_cost(turn, |time| bulk.run(time))
    })
}

/// S3f.
pub fn files(turn: &Turn<'_>) -> Result<Sample> {
    downloads_of(turn, Service::Files)
}

/// S3h.
pub fn pages(turn: &Turn<'_>) -> Result<Sample> {
    downloads_of(turn, Service::Pages)
}

fn downloads_of(turn: &Turn<'_>, service: Service) -> Result<Sample> {
    let front = turn.proxy.front(service)?;
    let sample = one_and_eight(|connections| {
        let mut download = Download::open(front, "/file", connections)?;
        rate_and_cost(turn, |time| download.run(time))
    })?;
    let calls = count(turn, || {
        let mut download = Download::open(front, "/file", 1)?;
        Ok(move |time| download.run(time))
    })?;
    Ok(Sample { calls, ..sample })
}

/// S3u.
pub fn uploads(turn: &Turn<'_>) -> Result<Sample> {
    uploads_of(turn, Service::Files)
}

/// S3hu.
pub fn page_uploads(turn: &Turn<'_>) -> Result<Sample> {
    uploads_of(turn, Service::Pages)
}

fn uploads_of(turn: &Turn<'_>, service: Service) -> Result<Sample> {
    let front = turn.proxy.front(service)?;
    let sample = one_and_eight(|connections| {
        let mut upload = Upload::open(front, connections, turn.scale.upload)?;
        let figures = rate_and_cost(turn, |time| upload.run(time))?;
        upload.finish()?;
        Ok(figures)
    })?;
    let calls = count(turn, || {
        let mut upload = Upload::open(front, 1, turn.scale.upload)?;
        Ok(move |time| upload.run(time))
    })?;
    Ok(Sample { calls, ..sample })
}

fn one_and_eight(through: impl Fn(usize) -> Result<[f64; 2]>) -> Result<Sample> {
    let [one_rate, one_cost] = through(1)?;
    let [eight_rate, eight_cost] = through(8)?;
    Ok(Sample::default()
        .with("c1_gbit/s", one_rate)
        .with("c1_cpu_s/gib", one_cost)
        .with("c8_gbit/s", eight_rate)
        .with("c8_cpu_s/gib", eight_cost))
}

/// Gbit/s, and CPU seconds of the proxy per GiB, of bytes that go on for some time.
pub fn rate_and_cost(
    turn: &Turn<'_>,
    mut run: impl FnMut(Duration) -> io::Result<(u64, Duration)>,
) -> Result<[f64; 2]> {
    run(turn.scale.warm_up)?;
    let ((bytes, elapsed), cpu) = turn.account(|| Ok(run(turn.scale.window)?))?;
    let bytes = bytes as f64;
    Ok([bytes * 8.0 / 1e9 / elapsed.as_secs_f64(), cpu.total.as_secs_f64() / (bytes / f64::from(1 << 30))])
}

/// System calls per MiB of bytes that go on, if they are to be counted.
fn count<R: FnMut(Duration) -> io::Result<(u64, Duration)>>(
    turn: &Turn<'_>,
    begin: impl FnOnce() -> Result<R>,
) -> Result<Calls> {
    if !turn.count_calls {
        return Ok(Calls::new());
    }
    let mut run = begin()?;
    run(turn.scale.warm_up)?;
    let count = Count::begin(&turn.proxy.family(), turn.proxy.folder())?;
    let (bytes, _) = run(turn.scale.window)?;
    count.end(bytes >> 20)
}
