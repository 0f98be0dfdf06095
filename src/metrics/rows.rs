//! [`Rows`]: families of series that are written as text at once, one line for each pool, stick table or backend.
//!
//! Holds nothing between scrapes but the room for the text: ten thousand backends have half a million lines. Invariants:
//! a family stands in one place, with its help and type before its lines; a family without a line has neither.

use std::fmt::{Display, Write};

use crate::counters::{BUCKETS_US, HistogramSum};

/// Names and values of the labels of one series.
pub(super) type MetricLabels<'a, const N: usize> = [(&'static str, &'a str); N];

/// Upper bounds that a histogram shows, in microseconds, a part of [`BUCKETS_US`].
pub(super) type Bounds = [u64];

/// The text of the families so far.
#[derive(Debug, Default)]
pub(super) struct Rows(String);

impl Rows {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn counter<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, u64)>,
    ) {
        self.family("counter", name, help, samples);
    }

    pub(super) fn gauge<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, u64)>,
    ) {
        self.family("gauge", name, help, samples);
    }

    /// A counter with a fraction.
    pub(super) fn amount<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, f64)>,
    ) {
        self.family("counter", name, help, samples);
    }

    /// A gauge with a fraction.
    pub(super) fn level<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, f64)>,
    ) {
        self.family("gauge", name, help, samples);
    }

    /// A histogram with these bounds, which add up the buckets between them.
    pub(super) fn histogram<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        bounds: &Bounds,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, &'a HistogramSum)>,
    ) {
        let bounds: Vec<_> = bounds.iter().map(|us| (*us, seconds(*us).to_string())).collect();
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        self.head("histogram", name, help);
        for (labels, sum) in samples {
            let total: u64 = sum.buckets.iter().sum();
            for (us, bound) in &bounds {
                let below = BUCKETS_US.partition_point(|bucket| bucket <= us);
                self.line(name, "_bucket", labels, Some(bound), sum.buckets[..below].iter().sum::<u64>());
            }
            self.line(name, "_bucket", labels, Some("+Inf"), total);
            self.line(name, "_sum", labels, None, seconds(sum.sum_us));
            self.line(name, "_count", labels, None, total);
        }
        self.0.push('\n');
    }

    fn family<'a, const N: usize>(
        &mut self,
        kind: &str,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, impl Display)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        self.head(kind, name, help);
        samples.for_each(|(labels, value)| self.line(name, "", labels, None, value));
        self.0.push('\n');
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line<const N: usize>(
        &mut self,
        name: &str,
        end: &str,
        labels: MetricLabels<'_, N>,
        le: Option<&str>,
        value: impl Display,
    ) {
        let out = &mut self.0;
        out.push_str(name);
        out.push_str(end);
        let mut before = '{';
        for (label, value) in labels.into_iter().chain(le.map(|le| ("le", le))) {
            out.push(before);
            out.push_str(label);
            out.push_str("=\"");
            out.push_str(value);
            out.push('"');
            before = ',';
        }
        if before == ',' {
            out.push('}');
        }
        let _ = writeln!(out, " {value}");
    }
}

/// Seconds of a time in microseconds.
pub(super) fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_without_a_line_is_not_there() {
        let mut rows = Rows::default();
        rows.counter::<1>("a_total", "Nothing.", []);
        rows.histogram::<1>("b_seconds", "Nothing.", &[100], []);
        assert_eq!(rows.text(), "");
    }

    #[test]
    fn fewer_bounds_hold_the_buckets_between_them() {
        let mut sum = HistogramSum { sum_us: 1_500_000, ..HistogramSum::default() };
        sum.buckets = std::array::from_fn(|index| index as u64);
        let mut rows = Rows::default();
        rows.histogram("t_seconds", "Times.", &[500, 10_000_000], [([("pool", "web")], &sum)]);
        let all: u64 = sum.buckets.iter().sum();
        let expected = format!(
            "# HELP t_seconds Times.\n# TYPE t_seconds histogram\n\
             t_seconds_bucket{{pool=\"web\",le=\"0.0005\"}} 3\n\
             t_seconds_bucket{{pool=\"web\",le=\"10\"}} {}\n\
             t_seconds_bucket{{pool=\"web\",le=\"+Inf\"}} {all}\n\
             t_seconds_sum{{pool=\"web\"}} 1.5\nt_seconds_count{{pool=\"web\"}} {all}\n\n",
            all - sum.buckets[BUCKETS_US.iter().position(|us| *us == 60_000_000).unwrap()..].iter().sum::<u64>()
        );
        assert_eq!(rows.text(), expected);
        rows.clear();
        rows.level("share_ratio", "A share.", [([], 0.25)]);
        assert_eq!(rows.text(), "# HELP share_ratio A share.\n# TYPE share_ratio gauge\nshare_ratio 0.25\n\n");
    }
}
