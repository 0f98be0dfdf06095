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
mod pem;
mod server;
mod subject;
mod tickets;
mod upstream;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

pub use self::alert::TlsAlert;
pub use self::certs::{CertificateTrouble, Index, ServerCertificate};
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

use self::clients::Policy;
use self::pem::{Files, KeyError};
use self::server::SharedTls;
use self::tickets::{SteadyClock, TicketKeys};
use crate::config::{self, ClientCertificate, Config, FileProblem, KeyExchange, Tls, TlsRules};
use crate::server_name::NamePattern;

/// The TLS of one configuration, ready for handshakes.
pub struct Termination {
    listeners: AHashMap<String, Servers>,
    upstreams: AHashMap<String, Arc<Upstream>>,
    certificates: Vec<Arc<ServerCertificate>>,
    /// The table of each certificate, in the same order.
    tables: Vec<String>,
    /// Warnings about files that hold at any time.
    warnings: Vec<FileProblem>,
    /// `None` before any file was read.
    keys: Option<Arc<TicketKeys>>,
    files: Files,
}

/// The routes of a listener that terminate TLS.
#[derive(Default)]
struct Servers {
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
            listeners.insert(listener.name.clone(), loading.listener(listener, &pools, &common));
        }
        let mut upstreams = AHashMap::new();
        for pool in &config.pools {
            let before = previous.and_then(|previous| previous.upstream(&pool.name));
            if let Some(upstream) = loading.upstream(pool, before, &common) {
                upstreams.insert(pool.name.clone(), upstream);
            }
        }
        let Loading { files, certificates, tables, warnings, problems, .. } = loading;
        match problems.is_empty() {
            true => Ok(Self { listeners, upstreams, certificates, tables, warnings, keys: Some(common.keys), files }),
            false => Err(problems),
        }
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
    pub fn certificates(&self) -> &[Arc<ServerCertificate>] {
        &self.certificates
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
        let (new, old) = (by_file(&self.certificates), by_file(&previous.certificates));
        let mut changes = Vec::new();
        for certificate in &self.certificates {
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
        let gone = previous.certificates.iter().filter(|old| !new.contains_key(old.file.as_str()));
        changes.extend(gone.map(|old| format!("certificate \"{}\" removed: {}", old.file, old.summary(now_s))));
        // A certificate of two listeners is reported once.
        let mut seen = AHashSet::new();
        changes.retain(|line| seen.insert(line.clone()));
        let is_certificate = |path: &Path| path.to_str().is_some_and(|path| new.contains_key(path));
        let files = self.files.changed_since(&previous.files).filter(|path| !is_certificate(path));
        changes.extend(files.map(|path| format!("file \"{}\" changed", path.display())));
        changes
    }

    /// Certificates that clients refuse because of the time, now or soon: file, trouble, and words that follow the file.
    /// `now_s` is in seconds since 1970.
    pub fn troubles(&self, now_s: u64) -> Vec<(String, CertificateTrouble, String)> {
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let of_one = |certificate: &Arc<ServerCertificate>| {
            let of_file = |(trouble, words)| (certificate.file.clone(), trouble, words);
            certificate.troubles(now_s).into_iter().map(of_file).collect::<Vec<_>>()
        };
        self.certificates.iter().flat_map(of_one).collect()
    }

    /// Warnings about certificates that are not valid, expire soon or have no chain, and about keys that every user can
    /// read. `now_s` is in seconds since 1970.
    pub fn warnings(&self, now_s: u64) -> Vec<FileProblem> {
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let of_one = |(table, certificate): (&String, &Arc<ServerCertificate>)| {
            let place = |what: &String| FileProblem::new(table, "cert", format!("\"{}\"{what}", certificate.file));
            certificate.warnings(now_s).iter().map(place).collect::<Vec<_>>()
        };
        self.tables.iter().zip(&self.certificates).flat_map(of_one).chain(self.warnings.iter().cloned()).collect()
    }
}

/// The first certificate of each file.
fn by_file(certificates: &[Arc<ServerCertificate>]) -> AHashMap<&str, &Arc<ServerCertificate>> {
    certificates.iter().rev().map(|certificate| (certificate.file.as_str(), certificate)).collect()
}

impl Default for Termination {
    /// A `Termination` without listeners, certificates or TLS to backends.
    fn default() -> Self {
        Self {
            listeners: AHashMap::new(),
            upstreams: AHashMap::new(),
            certificates: Vec::new(),
            tables: Vec::new(),
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

/// One load: the files read so far, and the problems found.
#[derive(Default)]
struct Loading {
    files: Files,
    certificates: Vec<Arc<ServerCertificate>>,
    /// The table of each certificate.
    tables: Vec<String>,
    warnings: Vec<FileProblem>,
    /// Policies by their configuration: many routes share one.
    policies: AHashMap<Option<ClientCertificate>, Policy>,
    problems: Vec<FileProblem>,
}

impl Loading {
    fn keys(&mut self, rules: &TlsRules, previous: Option<&Termination>, steady: &SteadyClock) -> Arc<TicketKeys> {
        let random = || TicketKeys::random(Arc::clone(steady));
        let Some(path) = &rules.ticket_keys else {
            let living = previous.and_then(|previous| previous.keys.as_ref()).filter(|keys| keys.are_random());
            return living.cloned().unwrap_or_else(|| Arc::new(random()));
        };
        let keys = TicketKeys::load(path, &mut self.files).map_err(|what| ("ticket_keys", what));
        self.warn_if_exposed("tls", "ticket_keys", path);
        Arc::new(self.record("tls", keys).unwrap_or_else(random))
    }

    fn listener(
        &mut self,
        listener: &config::Listener,
        pools: &HashMap<&str, &config::Pool>,
        common: &SharedTls,
    ) -> Servers {
        let about = format!("listener \"{}\"", listener.name);
        let (certificates, default) = self.certificates(listener, &about, common);
        let index = (!certificates.is_empty()).then(|| Arc::new(Index::new(&certificates, default)));
        // A client without a server name, or with one that no route has, gets one of these certificates.
        let names: Vec<_> = certificates.iter().flat_map(|certificate| certificate.names.iter().cloned()).collect();
        let mut server = |about: &str, client: &Option<_>, names: &[NamePattern], pool: Option<&str>, http2: bool| {
            // The authorities are read first: their problems are reported together with those of certificates.
            let policy = self.policy(about, client, common)?;
            let index = index.clone()?;
            // Without a pool, requests are read.
            let protocols = match pool.map(|pool| pools.get(pool)) {
                None => server::alpn(true, http2, &[]),
                Some(pool) => server::alpn(pool?.http.is_read(), http2, &pool?.alpn),
            };
            let server = TlsServer::new(common, index, &policy, names, protocols);
            self.record(about, server.map_err(|error| ("tls", in_words(&error)))).map(Arc::new)
        };
        let client = &listener.client_certificate;
        let takes = listener.pool.is_some() || listener.takes_requests_alone();
        let is_terminated = takes && listener.tls == Tls::Terminate;
        let own = listener.pool.as_deref();
        let default = is_terminated.then(|| server(&about, client, &names, own, listener.http2)).flatten();
        let routes = listener.routes.iter().enumerate().map(|(index, route)| {
            let names = if route.sni.is_empty() { &names } else { &route.sni };
            let about = format!("{about}: route #{}", index + 1);
            let certificate = &route.client_certificate;
            route.terminates().then(|| server(&about, certificate, names, route.pool(), route.http2)).flatten()
        });
        Servers { routes: routes.collect(), default }
    }

    /// Loads the certificates of a listener; the second value is the index of the default.
    fn certificates(
        &mut self,
        listener: &config::Listener,
        about: &str,
        common: &SharedTls,
    ) -> (Vec<Arc<ServerCertificate>>, usize) {
        let (mut certificates, mut default) = (Vec::new(), 0);
        for (index, written) in listener.certificates.iter().enumerate() {
            let table = format!("{about}: certificate #{}", index + 1);
            let loaded = match ServerCertificate::load(written, &mut self.files, &common.provider) {
                Ok(loaded) => Arc::new(loaded),
                Err(errors) => {
                    self.problems.extend(errors.into_iter().map(|(key, what)| FileProblem::new(&table, key, what)));
                    continue;
                }
            };
            self.warn_if_exposed(&table, if written.key == written.cert { "cert" } else { "key" }, &written.key);
            if written.default {
                default = certificates.len();
            } else if loaded.names.is_empty() {
                let why = "it has no names and is not the default: no client would get it";
                self.problems.push(FileProblem::new(&table, "cert", format!("\"{}\": {why}", loaded.file)));
            }
            self.certificates.push(Arc::clone(&loaded));
            self.tables.push(table);
            certificates.push(loaded);
        }
        (certificates, default)
    }

    fn policy(&mut self, about: &str, client: &Option<ClientCertificate>, common: &SharedTls) -> Option<Policy> {
        if let Some(policy) = self.policies.get(client) {
            return Some(policy.clone());
        }
        let policy = Policy::load(client.as_ref(), &mut self.files, &common.provider).map_err(|what| ("ca", what));
        let policy = self.record(&format!("{about}: client_certificate"), policy)?;
        self.policies.insert(client.clone(), policy.clone());
        Some(policy)
    }

    fn upstream(
        &mut self,
        pool: &config::Pool,
        previous: Option<&Arc<Upstream>>,
        common: &SharedTls,
    ) -> Option<Arc<Upstream>> {
        let tls = pool.tls.as_ref()?;
        let protocols = server::alpn_of_backends(pool.http, &pool.alpn);
        let upstream = Upstream::load(tls, protocols, previous, &mut self.files, &common.provider, &common.clock);
        self.record(&format!("pool \"{}\": tls", pool.name), upstream)
    }

    /// Records the problem of a table.
    fn record<T>(&mut self, table: &str, result: Result<T, KeyError>) -> Option<T> {
        result.map_err(|(key, what)| self.problems.push(FileProblem::new(table, key, what))).ok()
    }

    /// Records a warning if every user can read a file with secrets.
    fn warn_if_exposed(&mut self, table: &str, key: &'static str, path: &Path) {
        if self.files.is_exposed(path) {
            self.warnings.push(FileProblem::exposed(table, key, path, "a key"));
        }
    }
}

/// True if a handshake with this server name in its hello can succeed; an address counts as no name.
pub fn takes_name(name: &str) -> bool {
    rustls::pki_types::ServerName::try_from(name).is_ok()
}

/// The cryptography provider, limited to these key exchanges.
fn provider(groups: &[KeyExchange]) -> CryptoProvider {
    let group = |group: &KeyExchange| -> &'static dyn SupportedKxGroup {
        match group {
            KeyExchange::X25519MlKem768 => aws_lc_rs::kx_group::X25519MLKEM768,
            KeyExchange::X25519 => aws_lc_rs::kx_group::X25519,
            KeyExchange::Secp256r1 => aws_lc_rs::kx_group::SECP256R1,
            KeyExchange::Secp384r1 => aws_lc_rs::kx_group::SECP384R1,
        }
    };
    CryptoProvider { kx_groups: groups.iter().map(group).collect(), ..aws_lc_rs::default_provider() }
}
