//! [`Termination`]: the TLS of one configuration: certificates, tickets, client certificates, and TLS to backends.
//!
//! Makes no handshake and holds no connection: `terminate` and `probe` do. All TLS files are read here, all of them on
//! every load, so that a reload finds changes of content under the same names.
//!
//! Invariant: a `Termination` is complete: every file was read, is valid and fits the others. A `Termination` never
//! changes; a connection keeps the part that it uses.

mod alert;
mod certs;
mod client;
mod clients;
mod loading;
mod pem;
mod revoked;
mod server;
mod subject;
mod tickets;
mod upstream;
mod words;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

pub use self::alert::TlsAlert;
pub use self::certs::{CertificateTrouble, Index, OwnCertificate};
pub use self::client::ServerTrust;
pub use self::clients::{CertificateExpired, Identity};
pub use self::server::{TlsFacts, TlsServer};
pub use self::subject::of_common_name;
pub use self::tickets::{LIFETIME_S, TicketSecrets};
pub use self::upstream::Upstream;
pub use self::words::{in_words, io_in_words};

/// Names of protocols in ALPN (RFC 7301 §6).
pub const HTTP1: &[u8] = b"http/1.1";
/// That of HTTP/2 (RFC 9113 §3.2).
pub const HTTP2: &[u8] = b"h2";

use self::loading::{Loading, provider};
use self::pem::Files;
use self::revoked::RevocationLists;
use self::server::SharedTls;
use self::tickets::{SteadyClock, TicketKeys};
use crate::config::{Config, FileProblem};
use crate::server_name::NamePattern;

/// The TLS of one configuration, ready for handshakes.
pub struct Termination {
    listeners: AHashMap<String, Servers>,
    upstreams: AHashMap<String, Arc<Upstream>>,
    certificates: Vec<Arc<OwnCertificate>>,
    /// The table of each certificate, in the same order.
    tables: Vec<String>,
    /// Certificates that backends are shown, each with its table.
    shown: Vec<(String, Arc<OwnCertificate>)>,
    /// Revocation lists, each with the first table that names them.
    lists: Vec<(String, Arc<RevocationLists>)>,
    /// Warnings about files that hold at any time.
    warnings: Vec<FileProblem>,
    /// `None` before any file was read.
    keys: Option<Arc<TicketKeys>>,
    files: Files,
}

/// The routes of a listener that terminate TLS.
#[derive(Default)]
struct Servers {
    /// The names of all certificates.
    names: Vec<NamePattern>,
    default: Option<Arc<TlsServer>>,
    routes: Vec<Option<Arc<TlsServer>>>,
}

impl Termination {
    /// Reads every file that the configuration names. `Err` holds all problems. Random ticket keys of `previous` stay in
    /// use; new ones are changed by `now_ms`, a clock that never goes back.
    pub fn load(config: &Config, previous: Option<&Self>, now_ms: fn() -> u64) -> Result<Self, Vec<FileProblem>> {
        Self::load_with(config, previous, Arc::new(DefaultTimeProvider), &(Arc::new(now_ms) as SteadyClock))
    }

    fn load_with(
        config: &Config,
        previous: Option<&Self>,
        clock: Arc<dyn TimeProvider>,
        steady: &SteadyClock,
    ) -> Result<Self, Vec<FileProblem>> {
        let mut loading = Loading::default();
        let keys = loading.keys(&config.tls, previous, steady);
        let versions = server::versions(config.tls.min_version);
        let common = SharedTls { provider: Arc::new(provider(&config.tls.groups)), versions, keys, clock };
        let pools = config.pools_by_name();
        let mut listeners = AHashMap::new();
        for listener in config.listeners.iter().filter(|listener| listener.terminates()) {
            listeners.insert(listener.name.clone(), loading.listener(listener, (&pools, &config.splits), &common));
        }
        let mut upstreams = AHashMap::new();
        for pool in &config.pools {
            let before = previous.and_then(|previous| previous.upstream(&pool.name));
            if let Some(upstream) = loading.upstream(pool, before, &common) {
                upstreams.insert(pool.name.clone(), upstream);
            }
        }
        let Loading { files, certificates, tables, shown, lists, warnings, problems, .. } = loading;
        if !problems.is_empty() {
            return Err(problems);
        }
        let keys = Some(common.keys);
        Ok(Self { listeners, upstreams, certificates, tables, shown, lists, warnings, keys, files })
    }

    /// The TLS server of a route, by its index in the listener; the index `None` is the default pool. Returns `None` if
    /// the route does not terminate.
    pub fn server(&self, listener: &str, route: Option<usize>) -> Option<&Arc<TlsServer>> {
        let servers = self.listeners.get(listener)?;
        match route {
            None => servers.default.as_ref(),
            Some(index) => servers.routes.get(index)?.as_ref(),
        }
    }

    /// The names in the certificates of a listener.
    pub fn names(&self, listener: &str) -> &[NamePattern] {
        self.listeners.get(listener).map_or(&[][..], |servers| &servers.names)
    }

    /// The TLS to the backends of a pool. `None`: connections to them are plain.
    pub fn upstream(&self, pool: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(pool)
    }

    /// The random ticket keys; `None`: they come from a file.
    pub fn ticket_secrets(&self) -> Option<TicketSecrets> {
        self.keys.as_ref()?.secrets()
    }

    /// Goes on with the random ticket keys of another process; false if the keys come from a file.
    pub fn resume_tickets(&self, before: &TicketSecrets) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.resume(before))
    }

    /// The certificates of all listeners.
    pub fn certificates(&self) -> &[Arc<OwnCertificate>] {
        &self.certificates
    }

    /// Every certificate that is shown, to clients or to backends.
    fn own(&self) -> impl DoubleEndedIterator<Item = &Arc<OwnCertificate>> {
        self.certificates.iter().chain(self.shown.iter().map(|(_, certificate)| certificate))
    }

    /// When the first certificate of each name ends, or one of its issuers, in seconds since 1970. A certificate without
    /// names has the empty name.
    pub fn ends(&self) -> BTreeMap<String, i64> {
        let mut ends = BTreeMap::new();
        for certificate in &self.certificates {
            let own: Vec<_> = certificate.names.iter().map(ToString::to_string).collect();
            let names = if own.is_empty() { vec![String::new()] } else { own };
            for name in names {
                let end = ends.entry(name).or_insert(i64::MAX);
                *end = certificate.end_s().min(*end);
            }
        }
        ends
    }

    /// One line for each file with other content than in `previous`.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        self.files.changed_since(&previous.files).map(|path| format!("file \"{}\" changed", path.display())).collect()
    }

    /// Like [`Termination::changes`], with the names and dates of certificates that were added, removed or replaced.
    pub fn changes_in_full(&self, previous: &Self, now_s: u64) -> Vec<String> {
        let (new, old) = (by_file(self.own()), by_file(previous.own()));
        let mut changes = Vec::new();
        for certificate in self.own() {
            let file = &certificate.file;
            match old.get(file.as_str()) {
                None => changes.push(format!("certificate \"{file}\" added: {}", certificate.summary(now_s))),
                Some(old) if !old.is_same(certificate) => changes.push(format!(
                    "certificate \"{file}\" changed: {} (before: {})",
                    certificate.summary(now_s),
                    old.summary(now_s)
                )),
                Some(_) => {}
            }
        }
        let gone = previous.own().filter(|old| !new.contains_key(old.file.as_str()));
        changes.extend(gone.map(|old| format!("certificate \"{}\" removed: {}", old.file, old.summary(now_s))));
        // A certificate of two listeners is reported once.
        let mut seen = AHashSet::new();
        changes.retain(|line| seen.insert(line.clone()));
        let is_certificate = |path: &Path| path.to_str().is_some_and(|path| new.contains_key(path));
        let files = self.files.changed_since(&previous.files).filter(|path| !is_certificate(path));
        changes.extend(files.map(|path| format!("file \"{}\" changed", path.display())));
        changes
    }

    /// Certificates that the other side refuses because of the time, now or soon, and revocation lists because of which those of
    /// clients are refused: what it is, the trouble, and words that follow. `now_s` is in seconds since 1970.
    pub fn troubles(&self, now_s: u64) -> Vec<(String, CertificateTrouble, String)> {
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let of_one = |certificate: &Arc<OwnCertificate>| {
            let of_file = |(trouble, words)| (format!("certificate \"{}\"", certificate.file), trouble, words);
            certificate.troubles(now_s).into_iter().map(of_file).collect::<Vec<_>>()
        };
        let of_lists = self.lists.iter().flat_map(|(_, lists)| lists.troubles(now_s));
        self.own().flat_map(of_one).chain(of_lists).collect()
    }

    /// Warnings about certificates and revocation lists that are not valid, expire soon or lack a part, and about keys that
    /// every user can read. `now_s` is in seconds since 1970.
    pub fn warnings(&self, now_s: u64) -> Vec<FileProblem> {
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let of_one = |(table, certificate): (&String, &Arc<OwnCertificate>)| {
            let place = |what: &String| FileProblem::new(table, "cert", format!("\"{}\"{what}", certificate.file));
            certificate.warnings(now_s).iter().map(place).collect::<Vec<_>>()
        };
        let of_lists = self.lists.iter().flat_map(|(table, lists)| {
            lists.warnings(now_s).into_iter().map(move |what| FileProblem::new(table, "crl", what))
        });
        let shown = self.shown.iter().map(|(table, certificate)| (table, certificate));
        let of_certificates = self.tables.iter().zip(&self.certificates).chain(shown).flat_map(of_one);
        of_certificates.chain(of_lists).chain(self.warnings.iter().cloned()).collect()
    }
}

/// The first certificate of each file.
fn by_file<'c>(
    certificates: impl DoubleEndedIterator<Item = &'c Arc<OwnCertificate>>,
) -> AHashMap<&'c str, &'c Arc<OwnCertificate>> {
    certificates.rev().map(|certificate| (certificate.file.as_str(), certificate)).collect()
}

impl Default for Termination {
    /// A `Termination` without listeners, certificates or TLS to backends.
    fn default() -> Self {
        Self {
            listeners: AHashMap::new(),
            upstreams: AHashMap::new(),
            certificates: Vec::new(),
            tables: Vec::new(),
            shown: Vec::new(),
            lists: Vec::new(),
            warnings: Vec::new(),
            keys: None,
            files: Files::default(),
        }
    }
}

impl fmt::Debug for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Termination").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// True if a handshake with this server name in its hello can succeed; an address counts as no name.
pub fn takes_name(name: &str) -> bool {
    rustls::pki_types::ServerName::try_from(name).is_ok()
}
