//! [`CertificateWatch`]: certificates and revocation lists that are not good yet, have expired or expire soon.
//!
//! Reads no file: a snapshot holds its certificates. Invariant: what is wrong with a certificate is said once, when it is
//! found, at a reload or within [`LOOK_S`] seconds; seven days, one day before the end and at the end are three findings.

use std::collections::BTreeSet;

use super::alarms::AlarmLine;
use crate::events::{Event, EventKind};
use crate::snapshot::Snapshot;
use crate::tls::CertificateTrouble;

/// Seconds between two looks at the certificates of a snapshot.
const LOOK_S: u64 = 60;

/// What was said of certificates and revocation lists.
#[derive(Debug, Default)]
pub(super) struct CertificateWatch {
    said: BTreeSet<(String, CertificateTrouble)>,
    /// Generation of the last look, and when that was.
    looked: Option<(u64, u64)>,
}

impl CertificateWatch {
    /// Looks at the certificates if that is due, and returns what was found.
    pub(super) fn observe(&mut self, snapshot: &Snapshot, now_s: u64) -> Vec<AlarmLine> {
        let is_due = self
            .looked
            .is_none_or(|(generation, at_s)| generation != snapshot.generation || now_s.abs_diff(at_s) >= LOOK_S);
        if !is_due {
            return Vec::new();
        }
        self.looked = Some((snapshot.generation, now_s));
        self.found(snapshot.tls.troubles(now_s))
    }

    /// What is new among what was found: what it is about, the trouble, and the trouble in words.
    fn found(&mut self, troubles: Vec<(String, CertificateTrouble, String)>) -> Vec<AlarmLine> {
        let mut lines = Vec::new();
        let before = std::mem::take(&mut self.said);
        for (what, trouble, words) in troubles {
            let key = (what, trouble);
            if !before.contains(&key) && !self.said.contains(&key) {
                let event = Event::new(EventKind::Certificate, &format!("{}{words}", key.0));
                lines.push(AlarmLine { is_over: false, event });
            }
            self.said.insert(key);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_said_once_until_it_becomes_another_or_comes_back() {
        let mut watch = CertificateWatch::default();
        let mut found = |troubles: &[(&str, CertificateTrouble)]| {
            let troubles = troubles.iter().map(|(what, trouble)| ((*what).to_owned(), *trouble, " is odd".to_owned()));
            watch.found(troubles.collect()).into_iter().map(|line| line.event.text.into()).collect::<Vec<String>>()
        };
        let odd = |what: &str| format!("{what} is odd");
        assert_eq!(found(&[("a", CertificateTrouble::Days), ("a", CertificateTrouble::Days)]), [odd("a")]);
        assert!(found(&[("a", CertificateTrouble::Days)]).is_empty());
        assert_eq!(found(&[("a", CertificateTrouble::Hours), ("b", CertificateTrouble::NotYet)]), [odd("a"), odd("b")]);
        assert!(found(&[]).is_empty());
        assert_eq!(found(&[("b", CertificateTrouble::NotYet)]), [odd("b")]);
    }
}
