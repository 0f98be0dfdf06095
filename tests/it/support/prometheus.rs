//! A reader of the Prometheus text format, version 0.0.4, that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

/// A page, read.
#[derive(Debug, Default)]
pub struct Page {
    /// What kind each family is.
    pub kinds: BTreeMap<String, String>,
    /// Each series, by its name and sorted labels as they would be written.
    pub samples: BTreeMap<String, f64>,
}

impl Page {
    /// Reads a page; panics at whatever a scraper could stumble over.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut page, mut helped, mut done) = (Self::default(), BTreeSet::new(), BTreeSet::new());
        let mut family = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let owner = match line.strip_prefix("# ") {
                Some(comment) => page.comment(comment, &mut helped),
                None => page.sample(line),
            };
            if owner != family {
                assert!(done.insert(owner.clone()), "{owner} is in two places: {line}");
                family = owner;
            }
        }
        assert!(page.kinds.keys().eq(&helped), "a family without type or help");
        page.histograms();
        page
    }

    /// `HELP` or `TYPE`; answers the family.
    fn comment(&mut self, comment: &str, helped: &mut BTreeSet<String>) -> String {
        let mut words = comment.splitn(3, ' ');
        let [Some(what), Some(name), Some(rest)] = [words.next(), words.next(), words.next()] else {
            panic!("neither HELP nor TYPE: {comment}");
        };
        assert_name(name);
        match what {
            "HELP" => assert!(helped.insert(name.to_owned()) && !rest.trim().is_empty(), "help: {comment}"),
            "TYPE" => {
                assert!(["counter", "gauge", "histogram"].contains(&rest), "kind: {comment}");
                assert!(self.kinds.insert(name.to_owned(), rest.to_owned()).is_none(), "twice: {comment}");
            }
            _ => panic!("neither HELP nor TYPE: {comment}"),
        }
        name.to_owned()
    }

    /// One series; answers its family.
    fn sample(&mut self, line: &str) -> String {
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
        let (name, rest) = line.split_at(end);
        assert_name(name);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest, line),
            None => (BTreeMap::new(), rest),
        };
        let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("no space before the value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        assert!(value.is_finite() && value >= 0.0, "nothing here is negative or endless: {line}");
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
            let family = name.strip_suffix(end)?;
            (self.kinds.get(family).map(String::as_str) == Some("histogram")).then_some(family)
        });
        let family = of_histogram.unwrap_or(name);
        let kind = self.kinds.get(family).unwrap_or_else(|| panic!("a sample before its TYPE: {line}"));
        assert_eq!(kind == "histogram", of_histogram.is_some(), "{line}");
        assert_eq!(labels.contains_key("le"), name.ends_with("_bucket"), "{line}");
        let shown: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let series = if shown.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", shown.join(",")) };
        assert!(self.samples.insert(series, value).is_none(), "twice: {line}");
        family.to_owned()
    }

    /// Buckets rise to `+Inf`, which is the count; nothing of a histogram is missing.
    fn histograms(&self) {
        let families = self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name);
        for family in families {
            let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            let own = format!("{family}_bucket{{");
            for (series, value) in self.samples.range(own.clone()..).take_while(|(series, _)| series.starts_with(&own))
            {
                let labels = series[own.len()..].strip_suffix('}').expect("labels");
                let (le, others): (Vec<_>, Vec<_>) = labels.split(',').partition(|label| label.starts_with("le="));
                let bound = le[0].trim_start_matches("le=\"").trim_end_matches('"').parse().expect("a bound");
                buckets.entry(others.join(",")).or_default().push((bound, *value));
            }
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{family} {labels}: {buckets:?}");
                let last = buckets.last().expect("a bucket");
                let count = self.samples.get(&format!("{family}_count{{{labels}}}"));
                assert_eq!((last.0, Some(&last.1)), (f64::INFINITY, count), "{family} {labels}");
                assert!(self.samples.contains_key(&format!("{family}_sum{{{labels}}}")), "{family} {labels}");
            }
        }
    }

    /// The value of a series that must be there.
    pub fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no series {series}"))
    }
}

fn assert_name(name: &str) {
    let good = |(index, c): (usize, char)| c.is_ascii_alphabetic() || c == '_' || (index > 0 && c.is_ascii_digit());
    assert!(!name.is_empty() && name.chars().enumerate().all(good), "not a name: {name:?}");
}

/// Labels up to the closing brace, and what follows it.
fn labels<'a>(mut rest: &'a str, line: &str) -> (BTreeMap<String, String>, &'a str) {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return (labels, after);
        }
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        assert_name(name);
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("no end of a label: {line}")) {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    _ => panic!("not an escape: {line}"),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "a label twice: {line}");
        rest = &after[end..];
        assert!(rest.starts_with([',', '}']), "between labels: {line}");
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}
