//! [`RecentTimes`]: the times of about the last minute, out of histograms that count since the start.
//!
//! Reads no clock. Invariant: takes the same memory however long it goes on; a time counts less with each second, after a
//! minute about a third.

use super::sample::TimeBounds;
use crate::counters::{BUCKETS_US, HistogramSum};

/// Seconds after which a time counts 1/e.
const FADE_S: f64 = 60.0;

/// Times that fade.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentTimes {
    /// What was counted when it was last looked at; `None`: never.
    counted: Option<HistogramSum>,
    weights: [f64; BUCKETS_US.len() + 1],
}

impl RecentTimes {
    /// Adds what was counted since the last call, which was so many seconds ago; the first call adds nothing.
    pub(super) fn add(&mut self, now: &HistogramSum, seconds: f64) {
        let before = self.counted.replace(now.clone());
        let before = before.as_ref().unwrap_or(now);
        let keep = (-seconds / FADE_S).exp();
        for ((weight, now), before) in self.weights.iter_mut().zip(&now.buckets).zip(&before.buckets) {
            *weight = *weight * keep + now.saturating_sub(*before) as f64;
        }
    }

    /// Bounds of the times; `None`: there were hardly any.
    pub(super) fn bounds(&self) -> Option<TimeBounds> {
        let total: f64 = self.weights.iter().sum();
        (total >= 0.5).then(|| TimeBounds { half_us: self.bound(0.5 * total), most_us: self.bound(0.99 * total) })
    }

    /// Upper bound of the bucket in which this many times are reached.
    fn bound(&self, wanted: f64) -> u64 {
        let mut sum = 0.0;
        let reaches = |weight: &f64| {
            sum += weight;
            sum >= wanted
        };
        let bucket = self.weights.iter().position(reaches).unwrap_or(BUCKETS_US.len());
        BUCKETS_US[bucket.min(BUCKETS_US.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Histogram;

    #[test]
    fn times_of_the_last_minute_are_shown_and_older_ones_fade() {
        let (histogram, mut recent) = (Histogram::default(), RecentTimes::default());
        let sum = |histogram: &Histogram| {
            let mut sum = HistogramSum::default();
            histogram.add_to(&mut sum);
            sum
        };
        (0..1_000).for_each(|_| histogram.record_us(5_000_000));
        recent.add(&sum(&histogram), 1.0);
        assert_eq!(recent.bounds(), None, "what came before the first look is old");
        (0..98).for_each(|_| histogram.record_us(90));
        (0..2).for_each(|_| histogram.record_us(9_000));
        recent.add(&sum(&histogram), 1.0);
        assert_eq!(recent.bounds(), Some(TimeBounds { half_us: 100, most_us: 10_000 }));
        (0..100).for_each(|_| histogram.record_us(400));
        recent.add(&sum(&histogram), 180.0);
        assert_eq!(recent.bounds(), Some(TimeBounds { half_us: 500, most_us: 500 }), "after three minutes");
        recent.add(&sum(&histogram), 600.0);
        assert_eq!(recent.bounds(), None);
        histogram.record_us(u64::MAX / 2);
        recent.add(&sum(&histogram), 1.0);
        assert_eq!(recent.bounds().unwrap().half_us, BUCKETS_US[BUCKETS_US.len() - 1], "longer than any bound");
    }
}
