//! S5: what it costs to end TLS: requests on kept connections, handshakes full and resumed, bulk, WebSockets.
//!
//! Visitors hold the cookie that they are given, and fail if another backend answers. Invariant: what was no full
//! handshake is never counted as one, nor what was none resumed.

use super::Turn;
use super::bulk::rate_and_cost;
use super::exchanges::sample;
use crate::Result;
use crate::backends::Service;
use crate::load::http::Manner;
use crate::load::https::{self, Visitors};
use crate::load::transfer::{Transfer, Way};
use crate::load::{Until, frames};
use crate::report::Sample;

/// S5a.
pub fn kept_alive(turn: &Turn<'_>) -> Result<Sample> {
    visits(turn, Manner::Kept, &Visitors::strangers(turn.identity, turn.proxy.contestant.exchange)?)
}

/// S5b.
pub fn full_handshakes(turn: &Turn<'_>) -> Result<Sample> {
    visits(turn, Manner::Once, &Visitors::strangers(turn.identity, turn.proxy.contestant.exchange)?)
}

/// S5r.
pub fn resumed_handshakes(turn: &Turn<'_>) -> Result<Sample> {
    let visitors = Visitors::returning(turn.identity, turn.proxy.contestant.exchange)?;
    // The first visit of each, which cannot be resumed, comes before everything.
    let front = turn.proxy.front(Service::Https)?;
    https::load(front, turn.scale.clients, Manner::Once, &visitors)?.run(Until::Count(turn.scale.clients))?;
    visits(turn, Manner::Once, &visitors)
}

fn visits(turn: &Turn<'_>, manner: Manner, visitors: &std::rc::Rc<Visitors>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Https)?;
    sample(turn, manner, || Ok(https::load(front, turn.scale.clients, manner, visitors)?))
}

/// S5c.
pub fn bulk(turn: &Turn<'_>) -> Result<Sample> {
    let [down_rate, down_cost] = through(turn, Way::Down)?;
    let [up_rate, up_cost] = through(turn, Way::Up)?;
    Ok(Sample::default()
        .with("down_gbit/s", down_rate)
        .with("down_cpu_s/gib", down_cost)
        .with("up_gbit/s", up_rate)
        .with("up_cpu_s/gib", up_cost))
}

fn through(turn: &Turn<'_>, way: Way) -> Result<[f64; 2]> {
    let mut transfer = Transfer::open(turn.proxy.front(Service::Https)?, way, turn.identity)?;
    rate_and_cost(turn, |time| transfer.run(time))
}

/// S5w.
pub fn frames(turn: &Turn<'_>) -> Result<Sample> {
    let front = turn.proxy.front(Service::Https)?;
    sample(turn, Manner::Kept, || frames::load(front, turn.scale.clients, turn.identity))
}
