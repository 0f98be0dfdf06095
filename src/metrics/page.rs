//! The text of a scrape: a [`Page`] holds one handle per series of the process and its listeners, and fills it each time.
//!
//! Names no series (`mod.rs` does). Series of pools, stick tables and backends, of which there may be very many, are
//! written as [`Rows`] and not held. Invariant: a text has exactly the series that were filled last; the recorder itself
//! forgets no series and lowers no counter, so [`Page::fill`] reports when a new page is needed.

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::rows::{MetricLabels, Rows};

/// Labels as borrowed texts.
pub(super) fn labels<const N: usize>(labels: MetricLabels<'_, N>) -> MetricLabels<'_, N> {
    labels
}

/// The page between scrapes: counters and gauges are the exporter's, rows are ours.
pub(super) struct Page {
    recorder: PrometheusRecorder,
    /// The series of the last scrape, in the order in which they are filled.
    held: Vec<HeldSeries>,
    /// The place in `held` of the next series.
    next: usize,
    /// False once this scrape has met a series that `held` lacks at its place, or a counter that fell.
    fits: bool,
    pub(super) rows: Rows,
}

/// A series that the recorder has.
struct HeldSeries {
    key: Key,
    handle: SeriesHandle,
}

enum SeriesHandle {
    Counter {
        counter: Counter,
        /// The value at the last scrape.
        last: u64,
    },
    Gauge(Gauge),
}

impl Page {
    const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

    pub(super) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        Self { recorder, held: Vec::new(), next: 0, fits: true, rows: Rows::default() }
    }

    /// Fills every series by `write`; false if the recorder has a series that was not written, or a counter fell: a new
    /// page is needed then.
    pub(super) fn fill(&mut self, write: impl FnOnce(&mut Self)) -> bool {
        (self.next, self.fits) = (0, true);
        self.rows.clear();
        write(self);
        self.fits && self.next == self.held.len()
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.recorder.handle().render();
        text.push_str(self.rows.text());
        text
    }

    pub(super) fn counter<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, u64)>,
    ) {
        for (labels, value) in samples {
            let register = |recorder: &PrometheusRecorder, key: &Key| {
                recorder.describe_counter(name.into(), None, help.into());
                SeriesHandle::Counter { counter: recorder.register_counter(key, &Self::METADATA), last: 0 }
            };
            match self.held_series(name, labels, register) {
                Some(SeriesHandle::Counter { counter, last }) if *last <= value => {
                    counter.absolute(value);
                    *last = value;
                }
                _ => self.fits = false,
            }
        }
    }

    pub(super) fn gauge<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, u64)>,
    ) {
        self.level(name, help, samples.into_iter().map(|(labels, value)| (labels, value as f64)));
    }

    /// A gauge with a fraction.
    pub(super) fn level<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels<'a, N>, f64)>,
    ) {
        for (labels, value) in samples {
            let register = |recorder: &PrometheusRecorder, key: &Key| {
                recorder.describe_gauge(name.into(), None, help.into());
                SeriesHandle::Gauge(recorder.register_gauge(key, &Self::METADATA))
            };
            match self.held_series(name, labels, register) {
                Some(SeriesHandle::Gauge(gauge)) => gauge.set(value),
                _ => self.fits = false,
            }
        }
    }

    /// The handle of the next series: the held one, or a new one behind all held ones. `None`: another series is held
    /// at this place.
    fn held_series<const N: usize>(
        &mut self,
        name: &'static str,
        labels: MetricLabels<'_, N>,
        register: impl FnOnce(&PrometheusRecorder, &Key) -> SeriesHandle,
    ) -> Option<&mut SeriesHandle> {
        if self.next == self.held.len() {
            let owned: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
            let key = Key::from_parts(name, owned);
            let handle = register(&self.recorder, &key);
            self.held.push(HeldSeries { key, handle });
        }
        let series = self.held.get_mut(self.next)?;
        self.next += 1;
        let same = series.key.name() == name
            && series.key.labels().map(|label| (label.key(), label.value())).eq(labels.iter().copied());
        same.then_some(&mut series.handle)
    }
}
