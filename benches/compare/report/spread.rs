//! Median and quartiles of a few figures, and percentiles of many times.
//!
//! Quartiles are interpolated linearly between neighbours, percentiles are the nearest rank above. Invariant: an empty
//! series has none, rather than a zero.

use std::time::Duration;

use serde_json::{Value, json};

/// Median and quartiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// A quarter is below.
    pub lower: f64,
    /// Half is below.
    pub median: f64,
    /// Three quarters are below.
    pub upper: f64,
}

impl Spread {
    /// Median and quartiles of figures in any order.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |part: f64| {
            let place = part * last as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { lower: at(0.25), median: at(0.5), upper: at(0.75) })
    }

    /// For the file.
    pub fn json(self) -> Value {
        json!({ "q1": self.lower, "median": self.median, "q3": self.upper })
    }
}

/// Times in microseconds at so many per mille; the series is sorted in passing.
pub fn microseconds<const N: usize>(times: &mut [Duration], per_mille: [usize; N]) -> [f64; N] {
    times.sort_unstable();
    per_mille.map(|part| {
        let rank = (times.len() * part).div_ceil(1000).max(1) - 1;
        times.get(rank).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    })
}
