//! [`Loading`]: reads the files of one configuration, and collects what is wrong with them.
//!
//! Puts nothing in force. Invariant: a problem or a warning names the table and the key that names the file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ahash::AHashMap;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};

use super::certs::{Index, OwnCertificate, ShownTo};
use super::clients::Policy;
use super::pem::{Files, KeyError};
use super::revoked::RevocationLists;
use super::server::{self, SharedTls, TlsServer};
use super::tickets::{SteadyClock, TicketKeys};
use super::upstream::Upstream;
use super::words::in_words;
use super::{Servers, Termination};
use crate::config::{self, ClientCertificate, FileProblem, KeyExchange, ShownCertificate, Tls, TlsRules};
use crate::server_name::NamePattern;

/// One load: the files read so far, and the problems found.
#[derive(Default)]
pub(super) struct Loading {
    pub(super) files: Files,
    pub(super) certificates: Vec<Arc<OwnCertificate>>,
    /// The table of each certificate.
    pub(super) tables: Vec<String>,
    /// Certificates that backends are shown, each with its table.
    pub(super) shown: Vec<(String, Arc<OwnCertificate>)>,
    pub(super) lists: Vec<(String, Arc<RevocationLists>)>,
    pub(super) warnings: Vec<FileProblem>,
    /// Policies by their configuration: many routes share one.
    policies: AHashMap<Option<ClientCertificate>, Policy>,
    pub(super) problems: Vec<FileProblem>,
}

impl Loading {
    pub(super) fn keys(
        &mut self,
        rules: &TlsRules,
        previous: Option<&Termination>,
        steady: &SteadyClock,
    ) -> Arc<TicketKeys> {
        let random = || TicketKeys::random(Arc::clone(steady));
        let Some(path) = &rules.ticket_keys else {
            let living = previous.and_then(|previous| previous.keys.as_ref()).filter(|keys| keys.are_random());
            return living.cloned().unwrap_or_else(|| Arc::new(random()));
        };
        let keys = TicketKeys::load(path, &mut self.files).map_err(|what| ("ticket_keys", what));
        self.warn_if_exposed("tls", "ticket_keys", path);
        Arc::new(self.record("tls", keys).unwrap_or_else(random))
    }

    pub(super) fn listener(
        &mut self,
        listener: &config::Listener,
        (pools, splits): (&HashMap<&str, &config::Pool>, &[config::Split]),
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
        let takes = listener.pool.is_some() || listener.split.is_some() || listener.takes_requests_alone();
        let is_terminated = takes && listener.tls == Tls::Terminate;
        // A split of connections has pools that agree in this.
        let of_split = |split: &str| {
            let first = splits.iter().find(|known| known.name == split)?.pools().next()?;
            pools.get(first).filter(|pool| !pool.http.is_read()).map(|pool| pool.name.as_str())
        };
        let own = listener.pool.as_deref().or_else(|| of_split(listener.split.as_deref()?));
        let default = is_terminated.then(|| server(&about, client, &names, own, listener.http2)).flatten();
        let routes = listener.routes.iter().enumerate().map(|(index, route)| {
            let names = if route.sni.is_empty() { &names } else { &route.sni };
            let about = format!("{about}: route #{}", index + 1);
            let certificate = &route.client_certificate;
            let pool = route.pool().or_else(|| of_split(route.split()?));
            route.terminates().then(|| server(&about, certificate, names, pool, route.http2)).flatten()
        });
        let routes = routes.collect();
        Servers { routes, default, names }
    }

    /// Loads the certificates of a listener; the second value is the index of the default.
    fn certificates(
        &mut self,
        listener: &config::Listener,
        about: &str,
        common: &SharedTls,
    ) -> (Vec<Arc<OwnCertificate>>, usize) {
        let (mut certificates, mut default) = (Vec::new(), 0);
        for (index, written) in listener.certificates.iter().enumerate() {
            let table = format!("{about}: certificate #{}", index + 1);
            let files = (written.cert.as_path(), written.key.as_path());
            let Some(loaded) = self.certificate(&table, files, ShownTo::Clients, common) else { continue };
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

    /// Reads a certificate and its key.
    fn certificate(
        &mut self,
        table: &str,
        (cert, key): (&Path, &Path),
        shown_to: ShownTo,
        common: &SharedTls,
    ) -> Option<Arc<OwnCertificate>> {
        match OwnCertificate::load((cert, key), shown_to, &mut self.files, &common.provider) {
            Ok(loaded) => {
                self.warn_if_exposed(table, if key == cert { "cert" } else { "key" }, key);
                Some(Arc::new(loaded))
            }
            Err(errors) => {
                self.problems.extend(errors.into_iter().map(|(key, what)| FileProblem::new(table, key, what)));
                None
            }
        }
    }

    fn policy(&mut self, about: &str, client: &Option<ClientCertificate>, common: &SharedTls) -> Option<Policy> {
        if let Some(policy) = self.policies.get(client) {
            return Some(policy.clone());
        }
        let table = format!("{about}: client_certificate");
        let policy = Policy::load(client.as_ref(), &mut self.files, &common.provider);
        let policy = self.record(&table, policy)?;
        self.lists.extend(policy.lists.clone().map(|lists| (table, lists)));
        self.policies.insert(client.clone(), policy.clone());
        Some(policy)
    }

    pub(super) fn upstream(
        &mut self,
        pool: &config::Pool,
        previous: Option<&Arc<Upstream>>,
        common: &SharedTls,
    ) -> Option<Arc<Upstream>> {
        let tls = pool.tls.as_ref()?;
        let table = format!("pool \"{}\": tls", pool.name);
        let shown = tls
            .certificate
            .as_ref()
            .map(|ShownCertificate { cert, key }| self.certificate(&table, (cert, key), ShownTo::Backends, common));
        let protocols = server::alpn_of_backends(pool.http, &pool.alpn);
        let own = shown.as_ref().and_then(Option::as_deref);
        let upstream = Upstream::load(tls, protocols, own, previous, &mut self.files, &common.provider, &common.clock);
        let upstream = self.record(&table, upstream);
        if let Some(shown) = shown.flatten() {
            self.shown.push((table, shown));
        }
        upstream
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

/// The cryptography provider, limited to these key exchanges.
pub(super) fn provider(groups: &[KeyExchange]) -> CryptoProvider {
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
