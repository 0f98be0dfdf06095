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

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

pub use self::alert::TlsAlert;
pub use self::certs::{Index, ServerCertificate};
pub use self::client::ServerTrust;
pub use self::clients::{CertificateExpired, Identity};
pub use self::server::{TlsFacts, TlsServer};
pub use self::subject::of_common_name;
pub use self::tickets::LIFETIME_S;
pub use self::upstream::Upstream;

use self::clients::Policy;
use self::pem::Files;
use self::server::SharedTls;
use self::tickets::TicketKeys;
use crate::config::{self, ClientCertificate, Config, KeyExchange, Tls, TlsRules};
use crate::server_name::NamePattern;

/// A certificate that expires within this time causes a warning: seven days.
const SOON_S: i64 = 7 * 86_400;

/// The TLS of one configuration, ready for handshakes.
pub struct Termination {
    listeners: AHashMap<String, Servers>,
    upstreams: AHashMap<String, Arc<Upstream>>,
    certificates: Vec<Arc<ServerCertificate>>,
    keys: Arc<TicketKeys>,
    files: Files,
}

/// The routes of a listener that terminate TLS.
#[derive(Default)]
struct Servers {
    default: Option<Arc<TlsServer>>,
    routes: Vec<Option<Arc<TlsServer>>>,
}

impl Termination {
    /// Reads every file that the configuration names. `Err` holds all problems, one line each. Random ticket keys of
    /// `previous` stay in use.
    pub fn load(config: &Config, previous: Option<&Self>) -> Result<Self, Vec<String>> {
        Self::load_with(config, previous, Arc::new(DefaultTimeProvider))
    }

    fn load_with(config: &Config, previous: Option<&Self>, clock: Arc<dyn TimeProvider>) -> Result<Self, Vec<String>> {
        let mut loading = Loading::default();
        let keys = loading.keys(&config.tls, previous, &*clock);
        let versions = server::versions(config.tls.min_version);
        let common = SharedTls { provider: Arc::new(provider(&config.tls.groups)), versions, keys, clock };
        let mut certificates = Vec::new();
        let mut listeners = AHashMap::new();
        for listener in config.listeners.iter().filter(|listener| listener.terminates()) {
            listeners.insert(listener.name.clone(), loading.listener(listener, config, &common, &mut certificates));
        }
        let mut upstreams = AHashMap::new();
        for pool in &config.pools {
            let before = previous.and_then(|previous| previous.upstream(&pool.name));
            if let Some(upstream) = loading.upstream(pool, before, &common) {
                upstreams.insert(pool.name.clone(), upstream);
            }
        }
        let Loading { files, problems, .. } = loading;
        match problems.is_empty() {
            true => Ok(Self { listeners, upstreams, certificates, keys: common.keys, files }),
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

    /// The certificates of all listeners.
    pub fn certificates(&self) -> &[Arc<ServerCertificate>] {
        &self.certificates
    }

    /// One line for each file with other content than in `previous`.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        self.files.changed_since(&previous.files).map(|path| format!("file \"{}\" changed", path.display())).collect()
    }

    /// Like [`Termination::changes`], with the names and dates of certificates that were added, removed or replaced.
    pub fn changes_in_full(&self, previous: &Self, now_s: u64) -> Vec<String> {
        let old = |file: &str| previous.certificates.iter().find(|old| old.file == file);
        let mut changes = Vec::new();
        for certificate in &self.certificates {
            let file = &certificate.file;
            match old(file) {
                None => changes.push(format!("certificate \"{file}\" added: {}", certificate.summary(now_s))),
                Some(old) if !old.is_same(certificate) => changes.push(format!(
                    "certificate \"{file}\" changed: {} (before: {})",
                    certificate.summary(now_s),
                    old.summary(now_s)
                )),
                Some(_) => {}
            }
        }
        let stays = |file: &str| self.certificates.iter().any(|new| new.file == file);
        let gone = previous.certificates.iter().filter(|old| !stays(&old.file));
        changes.extend(gone.map(|old| format!("certificate \"{}\" removed: {}", old.file, old.summary(now_s))));
        // A certificate of two listeners is reported once.
        let mut seen = AHashSet::new();
        changes.retain(|line| seen.insert(line.clone()));
        let is_certificate = |path: &Path| self.certificates.iter().any(|new| Path::new(&new.file) == path);
        let files = self.files.changed_since(&previous.files).filter(|path| !is_certificate(path));
        changes.extend(files.map(|path| format!("file \"{}\" changed", path.display())));
        changes
    }

    /// Warnings about certificates that are not valid or expire soon, and about keys that every user can read. `now_s`
    /// is in seconds since 1970.
    pub fn warnings(&self, now_s: u64) -> Vec<String> {
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        let certificates = self.certificates.iter().filter_map(|certificate| warning(certificate, now_s));
        let exposed = |path: &Path| format!("file \"{}\" holds a key, and every user can read it", path.display());
        let mut warnings: Vec<_> = certificates.chain(self.files.exposed().map(exposed)).collect();
        warnings.sort_unstable();
        warnings.dedup();
        warnings
    }
}

impl Default for Termination {
    /// A `Termination` without listeners, certificates or TLS to backends.
    fn default() -> Self {
        let keys = Arc::new(TicketKeys::random(0));
        Self {
            listeners: AHashMap::new(),
            upstreams: AHashMap::new(),
            certificates: Vec::new(),
            keys,
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
    /// Policies by their configuration: many routes share one.
    policies: AHashMap<Option<ClientCertificate>, Policy>,
    problems: Vec<String>,
}

impl Loading {
    fn keys(&mut self, rules: &TlsRules, previous: Option<&Termination>, clock: &dyn TimeProvider) -> Arc<TicketKeys> {
        let now_s = clock.current_time().map_or(0, |now| now.as_secs());
        let Some(path) = &rules.ticket_keys else {
            let living =
                previous.map(|previous| &previous.keys).filter(|keys| matches!(***keys, TicketKeys::Random(_)));
            return living.cloned().unwrap_or_else(|| Arc::new(TicketKeys::random(now_s)));
        };
        let keys = TicketKeys::load(path, &mut self.files);
        Arc::new(self.record("ticket_keys", keys).unwrap_or_else(|| TicketKeys::random(now_s)))
    }

    fn listener(
        &mut self,
        listener: &config::Listener,
        config: &Config,
        common: &SharedTls,
        all: &mut Vec<Arc<ServerCertificate>>,
    ) -> Servers {
        let about = format!("listener \"{}\"", listener.name);
        let mut certificates = Vec::new();
        let mut default = 0;
        for written in &listener.certificates {
            let loaded = ServerCertificate::load(written, &mut self.files, &common.provider);
            let Some(loaded) = self.record(&format!("{about}: certificate"), loaded) else { continue };
            if written.default {
                default = certificates.len();
            } else if loaded.names.is_empty() {
                self.problems.push(format!(
                    "{about}: certificate \"{}\": it has no names and is not the default: no client would get it",
                    loaded.file
                ));
            }
            certificates.push(Arc::new(loaded));
        }
        if certificates.is_empty() {
            return Servers::default();
        }
        all.extend(certificates.iter().cloned());
        let index = Arc::new(Index::new(&certificates, default));
        // A client without a server name, or with one that no route has, gets one of these certificates.
        let names: Vec<_> = certificates.iter().flat_map(|certificate| certificate.names.iter().cloned()).collect();
        let mut server = |tls: Tls, client: &Option<ClientCertificate>, names: &[NamePattern], pool: &str| {
            let pool = config.pools.iter().find(|other| other.name == pool).filter(|_| tls == Tls::Terminate)?;
            let policy = self.policy(&about, client, common)?;
            let server = TlsServer::new(common, index.clone(), &policy, names, server::alpn(pool.http, &pool.alpn));
            self.record(&about, server.map_err(|error| error.to_string())).map(Arc::new)
        };
        let default =
            listener.pool.as_deref().and_then(|pool| server(listener.tls, &listener.client_certificate, &names, pool));
        let routes = listener.routes.iter().map(|route| {
            let names = if route.sni.is_empty() { &names } else { &route.sni };
            server(route.tls, &route.client_certificate, names, &route.pool)
        });
        Servers { routes: routes.collect(), default }
    }

    fn policy(&mut self, about: &str, client: &Option<ClientCertificate>, common: &SharedTls) -> Option<Policy> {
        if let Some(policy) = self.policies.get(client) {
            return Some(policy.clone());
        }
        let policy = Policy::load(client.as_ref(), &mut self.files, &common.provider);
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
        let protocols = server::alpn(pool.http, &pool.alpn);
        let upstream = Upstream::load(tls, protocols, previous, &mut self.files, &common.provider, &common.clock);
        self.record(&format!("pool \"{}\": tls", pool.name), upstream)
    }

    /// Records a problem, once: many routes may name one file.
    fn record<T>(&mut self, about: &str, result: Result<T, String>) -> Option<T> {
        let problem = result.as_ref().err().map(|what| format!("{about}: {what}"));
        self.problems.extend(problem.filter(|problem| !self.problems.contains(problem)));
        result.ok()
    }
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

fn warning(certificate: &ServerCertificate, now_s: i64) -> Option<String> {
    let ends_in_s = certificate.not_after_s - now_s;
    let what = if certificate.not_before_s > now_s {
        "is not good yet: clients will refuse it".to_owned()
    } else if ends_in_s < 0 {
        "has expired: clients will refuse it".to_owned()
    } else if ends_in_s < SOON_S {
        format!("expires in {} hours", ends_in_s / 3600)
    } else {
        return None;
    };
    Some(format!("certificate \"{}\" {what}", certificate.file))
}
