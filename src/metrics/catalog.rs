//! [`catalog`]: every family that a page can have, for the manual.
//!
//! Writes no page of a process. Invariant: names, kinds, labels and help texts are read from a page that the exporter has
//! written, of a process that has everything; so the manual cannot say anything else than a page.

use std::collections::BTreeMap;

use super::Exporter;
use super::status::{
    BackendStatus, BreakCount, CertificateStatus, Descriptors, DiscoverStatus, FleetStatus, ListenerKinds,
    ListenerStatus, PoolStatus, ProcessUsage, QueueStatus, RequestTotals, ResolveStatus, RuntimeStatus,
    SplitPoolStatus, SplitStatus, Status, StickTableStatus, StoreStatus, TableFileStatus, WorkerStatus,
};

/// One family of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricFamily {
    /// Name of the family.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Names of the labels, in their order, without the bound of a bucket.
    pub labels: Vec<String>,
    /// The help text.
    pub help: String,
}

impl MetricFamily {
    /// The part of the product that the family is about, by the beginning of its name.
    fn part(&self) -> &'static str {
        let starts = |start: &str| self.name.starts_with(start);
        let parts = [
            (starts("sessile_store_") || starts("sessile_fleet_"), "store"),
            (starts("sessile_backend_"), "backends"),
            (self.has("stick_table"), "stick_tables"),
            (self.has("worker"), "threads"),
            (self.has("pool"), "pools"),
            (self.has("listener"), "listeners"),
        ];
        parts.iter().find(|(is_part, _)| *is_part).map_or("process", |(_, part)| part)
    }

    fn has(&self, label: &str) -> bool {
        self.labels.iter().any(|own| own == label)
    }
}

/// Every family, by the part of the product that it is about.
pub fn catalog() -> BTreeMap<&'static str, Vec<MetricFamily>> {
    let mut parts = BTreeMap::<_, Vec<_>>::new();
    for family in families(&Exporter::default().render(&everything())) {
        parts.entry(family.part()).or_default().push(family);
    }
    parts
}

/// The families of a page, in the order of their names.
fn families(page: &str) -> Vec<MetricFamily> {
    let mut families = BTreeMap::<String, MetricFamily>::new();
    let of_name = |name: &str| MetricFamily {
        name: name.to_owned(),
        kind: String::new(),
        labels: Vec::new(),
        help: String::new(),
    };
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_insert_with(|| of_name(name)).help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_insert_with(|| of_name(name)).kind = kind.to_owned();
        } else if let Some((series, labels)) = line.split_once('{') {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end));
            let known = [Some(series), name].into_iter().flatten().find(|name| families.contains_key(*name));
            let family = known.and_then(|name| families.get_mut(name));
            family.into_iter().for_each(|family| family.labels = labels_of(labels));
        }
    }
    families.into_values().collect()
}

fn labels_of(labels: &str) -> Vec<String> {
    let names = labels.split("=\"").filter_map(|part| part.rsplit([',', '"', '{']).next());
    let all = labels.matches("=\"").count();
    names.take(all).filter(|name| *name != "le").map(str::to_owned).collect()
}

/// The status of a process that has one of everything.
fn everything() -> Status {
    let file = || Some(TableFileStatus { written_unix_s: Some(0), ..TableFileStatus::default() });
    let breaks_from = vec![BreakCount::default()];
    let cookies = [(String::new(), 0)].into();
    let pool = PoolStatus {
        breaks_from,
        cookies,
        requests: Some(RequestTotals::default()),
        queue: Some(QueueStatus::default()),
        discover: Some(DiscoverStatus::default()),
        removed: vec![String::new()],
        checks: true,
        ejects: true,
        backends: vec![BackendStatus { resolve: Some(ResolveStatus::default()), ..BackendStatus::default() }],
        ..PoolStatus::default()
    };
    let listener = ListenerStatus {
        max: Some(0),
        kinds: ListenerKinds { tls: true, http: true, proxy: true },
        ..ListenerStatus::default()
    };
    let of_split = SplitPoolStatus { requests: [(String::new(), 0)].into(), ..SplitPoolStatus::default() };
    let requests = [(String::new(), [(String::new(), 0)].into())].into();
    Status {
        descriptors: Some(Descriptors { open: 0, max: 0 }),
        usage: Some(ProcessUsage::default()),
        certificates: vec![CertificateStatus::default()],
        stick_table_file: file(),
        state_file: file(),
        listeners: vec![listener],
        pools: vec![pool],
        splits: vec![SplitStatus { pools: vec![of_split], ..SplitStatus::default() }],
        stick_tables: vec![StickTableStatus {
            known_by_age: [(String::new(), 0)].into(),
            ..StickTableStatus::default()
        }],
        store: Some(StoreStatus { requests, ..StoreStatus::default() }),
        fleet: Some(FleetStatus { received: [(String::new(), 0)].into(), ..FleetStatus::default() }),
        workers: vec![WorkerStatus::default()],
        conversations: vec![RuntimeStatus::default()],
        ..Status::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_labels_without_bounds() {
        let parts = catalog();
        let find = |part: &str, name: &str| parts[part].iter().find(|family| family.name == name).unwrap().clone();
        let breaks = find("pools", "sessile_sticky_breaks_total");
        assert_eq!((&*breaks.kind, breaks.labels), ("counter", ["pool", "from", "cause"].map(str::to_owned).to_vec()));
        let duration = find("pools", "sessile_pool_request_duration_seconds");
        assert_eq!((&*duration.kind, duration.labels), ("histogram", vec!["pool".to_owned()]));
        assert!(find("process", "process_open_fds").labels.is_empty());
        assert!(parts.values().flatten().all(|family| family.help.ends_with('.') && !family.kind.is_empty()));
    }

    #[test]
    fn labels_are_read_behind_values_of_any_kind() {
        assert_eq!(labels_of("a=\"x,y=z\",b=\"{}\",le=\"+Inf\"} 3"), ["a", "b"]);
        assert_eq!(labels_of("a=\"\"} 3"), ["a"]);
    }
}
