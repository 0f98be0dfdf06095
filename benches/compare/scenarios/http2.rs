//! S11: HTTP/2 towards clients, behind TLS that ends at the proxy; HTTP/1.1 towards backends.
//!
//! Small answers over many streams and over one (S11a, S11o), handshakes (S11b), idle connections beside idle ones of
//! HTTP/1.1 (S11i), one long body each way (S11c). Invariant: an answer counts only if it came over HTTP/2, with status
//! 200, from the backend to which its cookie belongs.

use std::time::{Duration, SystemTime};

use super::exchanges::sample;
use super::{Turn, busy, microseconds_per};
use crate::Result;
use crate::backends::Service;
use crate::load::h2load::{Answer, Running, Shape};
use crate::load::http::Manner;
use crate::load::http2::{self, Stream, Trust};
use crate::load::transfer::Way;
use crate::report::{Sample, microseconds};
use crate::strace::{Calls, Count};

/// What h2load is given beside warm-up and measurement, for its own start.
const SLACK: Duration = Duration::from_millis(300);

/// S11a.
pub fn many_streams(turn: &Turn<'_>) -> Result<Sample> {
    small_answers(turn, turn.scale.multiplexed)
}

/// S11o.
pub fn one_stream(turn: &Turn<'_>) -> Result<Sample> {
    small_answers(turn, turn.scale.single)
}

fn small_answers(turn: &Turn<'_>, shape: Shape) -> Result<Sample> {
    let front = turn.proxy.front(Service::Http2)?;
    let visitors = http2::one_for_each_backend(front, turn.identity)?;
    let begin = |time| Running::begin(front, shape, &visitors, time, turn.proxy.folder());
    let mut running = begin(turn.scale.warm_up + turn.scale.window + turn.scale.window / 5 + SLACK)?;
    running.await_answers()?;
    std::thread::sleep(turn.scale.warm_up);
    let began = SystemTime::now();
    let (ended, cpu) = turn.account(|| {
        std::thread::sleep(turn.scale.window);
        Ok(SystemTime::now())
    })?;
    if !running.goes_on()? {
        return Err("h2load has ended before the measurement".into());
    }
    let heard = running.finish()?;
    let errors = heard.answers.iter().filter(|answer| !answer.good).count();
    let inside = |answer: &&Answer| answer.good && (began..ended).contains(&answer.at);
    let measured: Vec<_> = heard.answers.iter().filter(inside).collect();
    let mut took: Vec<_> = measured.iter().map(|answer| answer.took).collect();
    let (done, elapsed) = (took.len() as u64, ended.duration_since(began)?);
    let share = measured.iter().filter(|answer| answer.visitor == 0).count() as f64 / done.max(1) as f64;
    let [p50, p99] = microseconds(&mut took, [500, 990]);
    let calls = if turn.count_calls { count(turn, begin)? } else { Calls::new() };
    Ok(Sample { calls, note: heard.first_error.clone(), ..Sample::default() }
        .with("rate/s", done as f64 / elapsed.as_secs_f64())
        .with("p50_us", p50)
        .with("p99_us", p99)
        .with("cpu_us", microseconds_per(cpu, done))
        .with("user_share", cpu.user_share())
        .with("busy", busy(cpu, elapsed))
        .with("share_of_a", share)
        .with("errors", (errors.max(usize::from(heard.first_error.is_some()))) as f64))
}

/// System calls per request, of whole runs with their handshakes.
fn count(turn: &Turn<'_>, begin: impl Fn(Duration) -> Result<Running>) -> Result<Calls> {
    let count = Count::begin(&turn.proxy.family(), turn.proxy.folder())?;
    let heard = begin(turn.scale.window)?.finish()?;
    count.end(heard.answers.len() as u64)
}

/// S11b.
pub fn full_handshakes(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Http2)?;
    let config = http2::config(turn.identity, turn.proxy.contestant.exchange, Trust::Sight)?;
    sample(turn, Manner::Once, || Ok(http2::load(front, turn.scale.clients, &config)?))
}

/// S11c.
pub fn one_long_stream(turn: &Turn<'_>) -> Result<Sample> {
    let mut stream = Stream::open(turn.proxy.front(Service::Http2)?, turn.identity)?;
    let [down_rate, down_cost] = through(turn, &mut stream, Way::Down)?;
    let [up_rate, up_cost] = through(turn, &mut stream, Way::Up)?;
    Ok(Sample::default()
        .with("down_gbit/s", down_rate)
        .with("down_cpu_s/gib", down_cost)
        .with("up_gbit/s", up_rate)
        .with("up_cpu_s/gib", up_cost))
}

/// Gbit/s, and CPU seconds of the proxy per GiB, of one stream after a short one.
fn through(turn: &Turn<'_>, stream: &mut Stream, way: Way) -> Result<[f64; 2]> {
    let length = turn.scale.stream;
    stream.run(way, length / 64)?;
    let begin = std::time::Instant::now();
    let (elapsed, cpu) = turn.account(|| {
        stream.run(way, length)?;
        Ok(begin.elapsed())
    })?;
    let length = length as f64;
    Ok([length * 8.0 / 1e9 / elapsed.as_secs_f64(), cpu.total.as_secs_f64() / (length / f64::from(1 << 30))])
}
