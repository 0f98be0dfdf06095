//! [`Resolver`]: the name servers, and how they are asked; [`Inquiry`]: the questions of one look.
//!
//! Asks by UDP, and by TCP where an answer is cut. Reads `/etc/resolv.conf` again at each look; reads neither
//! `/etc/hosts` nor `/etc/nsswitch.conf`, and keeps no answer. Invariants: a server that fails, or refers to others,
//! says nothing, and the next one is asked; "nothing there" is said only by a server that answered so.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::FirstAnswer;
use hickory_resolver::net::{DnsError, DnsHandle, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use tokio::time::timeout;

use super::reply::{Chain, DnsReply, NameStep, words};
use super::resolv_conf::name_servers;
use crate::detached::{self, Patience};
use crate::{regular_file, remote_text};

/// Where a host names its name servers.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The longest such file, in bytes.
const RESOLV_CONF_MAX: u64 = 64 << 10;
/// How long files of the host may take.
pub(super) const READING: Patience = Patience { each: Duration::from_secs(2), whole: Duration::from_secs(2) };
/// How long a server may take by one of its two protocols.
const BY_ONE_PROTOCOL: Duration = Duration::from_secs(2);
/// How long a server may take in all.
const ONE_SERVER: Duration = Duration::from_secs(3);

/// The name servers of this process.
#[derive(Debug)]
pub struct Resolver {
    /// Servers that the configuration names; empty: those of the host.
    chosen: Vec<SocketAddr>,
    servers: Mutex<Arc<NameServers>>,
}

impl Resolver {
    /// Asks these servers, in this order; none: those of the host.
    pub fn new(chosen: Vec<SocketAddr>) -> Self {
        Self { chosen, servers: Mutex::default() }
    }

    /// The servers that were chosen; empty: those of the host.
    pub fn chosen(&self) -> &[SocketAddr] {
        &self.chosen
    }

    /// Begins a look, with the servers of this moment. Must be called on a runtime of tokio.
    pub(super) async fn begin(&self) -> Result<Inquiry, String> {
        let addresses = match &self.chosen[..] {
            [] => host_servers().await?,
            chosen => chosen.to_vec(),
        };
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if !servers.are_at(&addresses) {
            *servers = Arc::new(NameServers::new(&addresses)?);
        }
        Ok(Inquiry(Arc::clone(&servers)))
    }
}

/// The name servers of the host, as they are now.
async fn host_servers() -> Result<Vec<SocketAddr>, String> {
    let read = || regular_file::read(Path::new(RESOLV_CONF), RESOLV_CONF_MAX);
    let text = match detached::finished_within("resolv.conf", READING, read).await {
        Ok(Ok(file)) => String::from_utf8_lossy(&file.bytes).into_owned(),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Ok(Err(error)) => return Err(format!("\"{RESOLV_CONF}\" cannot be read: {error}")),
        Err(unfinished) => return Err(unfinished.to_string()),
    };
    Ok(name_servers(&text))
}

/// Servers, and the one that answered last.
#[derive(Debug, Default)]
struct NameServers {
    all: Vec<NameServer>,
    /// Index of the server that is asked first.
    first: AtomicUsize,
}

impl NameServers {
    fn new(addresses: &[SocketAddr]) -> Result<Self, String> {
        let all: Result<_, _> = addresses.iter().map(|address| NameServer::new(*address)).collect();
        Ok(Self { all: all.map_err(|error| error.to_string())?, first: AtomicUsize::new(0) })
    }

    fn are_at(&self, addresses: &[SocketAddr]) -> bool {
        self.all.iter().map(|server| &server.address).eq(addresses)
    }

    /// Asks one server after another until one answers.
    async fn ask(&self, query: &Query) -> Result<DnsReply, String> {
        let first = self.first.load(Relaxed);
        let count = self.all.len();
        let mut complaints = Vec::new();
        for index in (0..count).map(|turn| (first + turn) % count) {
            let server = &self.all[index];
            match server.ask(query).await {
                Ok(reply) => {
                    self.first.store(index, Relaxed);
                    return Ok(reply);
                }
                Err(why) => complaints.push(format!("{} {why}", server.address)),
            }
        }
        let asked = format!("{} of \"{}\"", query.query_type(), words(query.name()));
        Err(format!("{asked}: {}", complaints.join("; ")))
    }
}

/// One name server.
struct NameServer {
    address: SocketAddr,
    /// Connections to this server alone: a pool of several would take the first failure for the answer of all.
    handle: NameServerPool<TokioRuntimeProvider>,
}

impl std::fmt::Debug for NameServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

impl NameServer {
    fn new(address: SocketAddr) -> Result<Self, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = BY_ONE_PROTOCOL;
        let at_port = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port).to_vec();
        let config = NameServerConfig::new(address.ip(), true, connections);
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        Ok(Self { address, handle: NameServerPool::from_config([config], context, TokioRuntimeProvider::default()) })
    }

    /// The reply, or the reason why there is none, in words that follow the address of the server.
    async fn ask(&self, query: &Query) -> Result<DnsReply, String> {
        let answer = self.handle.lookup(query.clone(), DnsRequestOptions::default()).first_answer();
        match timeout(ONE_SERVER, answer).await {
            Ok(Ok(response)) => reply(&response, query),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => nothing(&none),
            Ok(Err(error)) => Err(complaint(&error)),
            Err(_) => Err(silent(ONE_SERVER)),
        }
    }
}

fn reply(response: &DnsResponse, query: &Query) -> Result<DnsReply, String> {
    let code = response.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(refusal(code));
    }
    if !response.queries.contains(query) {
        return Err("answered another question".to_owned());
    }
    let authorities = &response.authorities;
    if response.answers.is_empty() && refers_to_others(authorities) {
        return Err(NO_RESOLVER.to_owned());
    }
    Ok(DnsReply {
        no_such_name: code == ResponseCode::NXDomain,
        answers: response.answers.clone(),
        beside: response.additionals.clone(),
        negative_ttl: response.negative_ttl(),
    })
}

fn nothing(none: &NoRecords) -> Result<DnsReply, String> {
    match none.response_code {
        _ if none.soa.is_none() && none.ns.is_some() => Err(NO_RESOLVER.to_owned()),
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(DnsReply {
            no_such_name: none.response_code == ResponseCode::NXDomain,
            negative_ttl: none.negative_ttl,
            ..DnsReply::default()
        }),
        code => Err(refusal(code)),
    }
}

/// What a server says that knows others which may know it.
const NO_RESOLVER: &str = "refers to other servers: it is no resolver for this name";

/// True for the authority section of a referral (RFC 2308 §2.2).
fn refers_to_others(authorities: &[Record]) -> bool {
    let has = |kind| authorities.iter().any(|record| record.record_type() == kind);
    has(RecordType::NS) && !has(RecordType::SOA)
}

fn refusal(code: ResponseCode) -> String {
    let word = match code {
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::NotImp => "NOTIMP",
        code => return format!("answered with response code {}", u16::from(code)),
    };
    format!("answered {word}")
}

fn complaint(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::ResponseCode(code)) => refusal(*code),
        NetError::Timeout => silent(BY_ONE_PROTOCOL),
        NetError::Proto(error) => format!("sent what is no answer: {}", remote_text::shown(&error.to_string())),
        NetError::Io(error) => format!("cannot be asked: {error}"),
        error => format!("failed: {}", remote_text::shown(&error.to_string())),
    }
}

fn silent(after: Duration) -> String {
    format!("did not answer within {} s", after.as_secs())
}

/// All that was found of one name.
#[derive(Debug)]
pub(super) struct RecordsOfName {
    /// Data of the records; empty: a server said that there are none.
    pub(super) records: Vec<RData>,
    /// Seconds for which that stays true; `None`: no server said it.
    pub(super) ttl: Option<u32>,
    /// Records that the last reply had beside its answer.
    pub(super) beside: Vec<Record>,
}

/// The questions of one look, which all go to the same servers.
#[derive(Debug, Clone)]
pub(super) struct Inquiry(Arc<NameServers>);

impl Inquiry {
    /// The records of a type that a name has, if need be by way of aliases.
    pub(super) async fn records(&self, name: &Name, kind: RecordType) -> Result<RecordsOfName, String> {
        let mut chain = Chain::new(name.clone(), kind);
        loop {
            let reply = self.0.ask(&Query::query(chain.name.clone(), kind)).await?;
            let records = match chain.read(&reply)? {
                NameStep::Ahead => continue,
                NameStep::Found(records) => records,
                NameStep::Nothing => Vec::new(),
            };
            let ttl = Some(chain.ttl).filter(|ttl| *ttl < u32::MAX);
            return Ok(RecordsOfName { records, ttl, beside: reply.beside });
        }
    }

    /// The IPv4 addresses of a name, or the IPv6 addresses of one without, and the seconds for which they are valid.
    pub(super) async fn addresses(&self, name: &Name) -> Result<(Vec<IpAddr>, Option<u32>), String> {
        let v4 = self.records(name, RecordType::A).await?;
        if !v4.records.is_empty() {
            return Ok((ips(&v4.records), v4.ttl));
        }
        let v6 = self.records(name, RecordType::AAAA).await?;
        let ttl = [v4.ttl, v6.ttl].into_iter().flatten().min();
        Ok((ips(&v6.records), ttl))
    }
}

/// The addresses of records, each once, the lowest first.
pub(super) fn ips(records: &[RData]) -> Vec<IpAddr> {
    let mut all: Vec<_> = records
        .iter()
        .filter_map(|data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0).to_canonical()),
            _ => None,
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}
