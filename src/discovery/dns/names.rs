//! [`BackendNames`]: the addresses that the names of single backends have, in `/etc/hosts` or in DNS.
//!
//! Asks as the C library does without modules: `/etc/hosts` first, then name servers, in the domains of the search list of
//! `/etc/resolv.conf`; where the configuration chooses the name servers, every name is a full name. A name has IPv4
//! addresses, or IPv6 addresses where it has no other, as a name of a source has. Keeps no answer. Invariants: a look has
//! an end; a server that fails says nothing of a name, whatever follows in the search list.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::hosts;
use super::resolv_conf::SearchList;
use super::resolver::{READING, RESOLV_CONF, Resolver};
use super::{LOOK, NO_THREAD, blocking, full_name, too_late, valid_for};
use crate::detached;
use crate::regular_file;

/// Where a host has names of its own.
const HOSTS: &str = "/etc/hosts";
/// The longest of both files, in bytes.
const FILE_MAX: u64 = 8 << 20;
/// How long both files stand as they were read.
const FILES_FRESH: Duration = Duration::from_secs(1);
/// Most names that are asked for at a time.
const AT_A_TIME: usize = 64;

/// What a look at a name has found; the error says why nothing can be relied on.
pub type HostReading = Result<HostAnswer, String>;

/// The addresses that a name has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAnswer {
    /// The addresses, each once and the lowest first; empty: there is no such name, or it has none.
    pub ips: Vec<IpAddr>,
    /// Time after which the name is to be asked for again.
    pub valid_for: Duration,
    /// Why there may be another answer: name servers did not answer for a domain of the search list before that of these
    /// addresses. `None`: there is no other.
    pub doubt: Option<String>,
}

/// Where names are looked for.
#[derive(Debug)]
pub struct BackendNames {
    resolver: Resolver,
    /// Path of the file with names of this host.
    hosts: PathBuf,
    files: Mutex<Option<(Instant, Arc<HostFiles>)>>,
    /// Room for the names that are asked for at a time.
    turns: Semaphore,
}

/// What the files of the host say.
#[derive(Debug)]
struct HostFiles {
    /// Text of the file with names; the error is why it cannot be read.
    hosts: Result<String, String>,
    search: SearchList,
}

impl BackendNames {
    /// Asks these name servers; none: those of the host.
    pub fn new(resolver: Resolver) -> Self {
        Self::beside(HOSTS, resolver)
    }

    fn beside(hosts: impl Into<PathBuf>, resolver: Resolver) -> Self {
        Self { resolver, hosts: hosts.into(), files: Mutex::default(), turns: Semaphore::new(AT_A_TIME) }
    }

    /// The name servers that were chosen; empty: those of the host.
    pub fn chosen(&self) -> &[SocketAddr] {
        self.resolver.chosen()
    }

    /// Looks what addresses a name has. Must run on a runtime of tokio.
    pub async fn look(&self, host: &str) -> HostReading {
        // Closed never.
        let _turn = self.turns.acquire().await.ok();
        timeout(LOOK, self.look_at_leisure(host)).await.unwrap_or_else(|_| Err(too_late(LOOK)))
    }

    async fn look_at_leisure(&self, host: &str) -> HostReading {
        let files = self.files().await;
        let own = hosts::addresses(files.hosts.as_ref().map_err(Clone::clone)?, host);
        if !own.is_empty() {
            return Ok(HostAnswer { ips: own, valid_for: valid_for(None), doubt: None });
        }
        let inquiry = self.resolver.begin().await?;
        let (mut doubt, mut shortest) = (None, None);
        for name in files.search.full_names(host) {
            let (ips, ttl) = match inquiry.addresses(&full_name(&name)?).await {
                Ok(answer) => answer,
                Err(why) => {
                    doubt.get_or_insert(why);
                    continue;
                }
            };
            if !ips.is_empty() {
                return Ok(HostAnswer { ips, valid_for: valid_for(ttl), doubt });
            }
            shortest = [shortest, ttl].into_iter().flatten().min();
        }
        match doubt {
            Some(why) => Err(why),
            None => Ok(HostAnswer { ips: Vec::new(), valid_for: valid_for(shortest), doubt: None }),
        }
    }

    /// The files of the host, as they were a second ago at the earliest.
    async fn files(&self) -> Arc<HostFiles> {
        let mut known = self.files.lock().await;
        if let Some((_, files)) = known.as_ref().filter(|(read, _)| read.elapsed() < FILES_FRESH) {
            return Arc::clone(files);
        }
        let (hosts, is_chosen) = (self.hosts.clone(), !self.chosen().is_empty());
        let read = move || {
            let search = if is_chosen { Ok(String::new()) } else { text_of(Path::new(RESOLV_CONF)) };
            (text_of(&hosts), search)
        };
        let files = match detached::finished_within("hosts", READING, read).await {
            // The resolver complains of the other file.
            Ok((hosts, search)) => HostFiles { hosts, search: SearchList::of(&search.unwrap_or_default()) },
            Err(unfinished) => HostFiles { hosts: Err(unfinished.to_string()), search: SearchList::NONE },
        };
        let files = Arc::new(files);
        *known = Some((Instant::now(), Arc::clone(&files)));
        files
    }
}

/// The text of a file that this host may not have, or not for this process.
fn text_of(path: &Path) -> Result<String, String> {
    let is_none = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
    match regular_file::read(path, FILE_MAX) {
        Ok(file) => Ok(String::from_utf8_lossy(&file.bytes).into_owned()),
        Err(error) if is_none(&error) => Ok(String::new()),
        Err(error) => Err(format!("\"{}\" cannot be read: {error}", path.display())),
    }
}

/// Looks at names, all at the same time, and blocks until each has said something, or its time is over. `hosts`: each with
/// the time that it may take.
pub fn look_at_names(names: &BackendNames, hosts: &BTreeMap<String, Duration>) -> BTreeMap<String, HostReading> {
    if hosts.is_empty() {
        return BTreeMap::new();
    }
    let look = |host: String, patience: Duration| async move {
        let reading = timeout(patience, names.look(&host)).await;
        (host, reading.unwrap_or_else(|_| Err(too_late(patience))))
    };
    let said = blocking(|| join_all(hosts.iter().map(|(host, patience)| look(host.clone(), *patience))));
    let no_thread = hosts.keys().map(|host| (host.clone(), Err(NO_THREAD.to_owned())));
    no_thread.chain(said.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_the_host_needs_no_name_server_and_is_looked_up_in_the_file_of_now() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // No server answers there.
        let resolver = Resolver::new(vec!["127.0.0.1:1".parse().unwrap()]);
        let names = BackendNames::beside(file.path(), resolver);
        let look = async |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            *names.files.lock().await = None;
            names.look("web").await
        };
        let at = |ip: &str| HostAnswer { ips: vec![ip.parse().unwrap()], valid_for: valid_for(None), doubt: None };
        assert_eq!(look("10.0.0.1 web\n").await, Ok(at("10.0.0.1")));
        assert_eq!(look("10.0.0.2 a web\n").await, Ok(at("10.0.0.2")));
        assert!(look("10.0.0.2 a\n").await.unwrap_err().contains("127.0.0.1:1"));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_no_file_without_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let resolver = || Resolver::new(vec!["127.0.0.1:1".parse().unwrap()]);
        let is_folder = BackendNames::beside(folder.path(), resolver()).look("web").await.unwrap_err();
        assert!(is_folder.contains("cannot be read: it is a folder"), "{is_folder}");
        let missing = BackendNames::beside(folder.path().join("none"), resolver()).look("web").await.unwrap_err();
        assert!(missing.contains("127.0.0.1:1"), "{missing}");
    }
}
