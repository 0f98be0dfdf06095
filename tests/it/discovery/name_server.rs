//! A name server that says whatever a test wants, by UDP and by TCP, such as what no real one does.
//!
//! Answers one question after another. Invariant: it counts every question that it reads.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::support::program::free_local_address;

/// How often a thread looks whether the server has stopped.
const LOOK: Duration = Duration::from_millis(20);

/// What the server says to a question.
#[derive(Clone)]
pub enum Say {
    /// Records of the answer section, and of the additional section.
    Records(Vec<Record>, Vec<Record>),
    /// Nothing there: a code, and the seconds for which that is valid.
    Nothing(ResponseCode, Option<u32>),
    /// A referral to other servers.
    Elsewhere,
    /// By UDP that the answer is cut; by TCP these records.
    Cut(Vec<Record>),
    /// The first bytes of a message.
    Half,
    /// An answer to another question.
    Beside,
    /// No word at all.
    Silence,
}

type Script = Box<dyn FnMut(&str, RecordType) -> Say + Send>;

/// A running server.
pub struct NameServer {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
    asked: Arc<AtomicUsize>,
    by_tcp: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl NameServer {
    /// Starts a server that says this. The name that a script is asked for has no last dot and is in lower case.
    pub fn start(script: impl FnMut(&str, RecordType) -> Say + Send + 'static) -> Self {
        let address = free_local_address();
        let server = Self {
            address,
            script: Arc::new(Mutex::new(Box::new(script))),
            asked: Arc::default(),
            by_tcp: Arc::default(),
            stopped: Arc::default(),
        };
        let udp = UdpSocket::bind(address).expect("a free port");
        let tcp = TcpListener::bind(address).expect("a free port");
        let (asked, script, stopped) = (server.asked.clone(), server.script.clone(), server.stopped.clone());
        thread::spawn(move || serve_udp(&udp, &script, &asked, &stopped));
        let (by_tcp, script, stopped) = (server.by_tcp.clone(), server.script.clone(), server.stopped.clone());
        thread::spawn(move || serve_tcp(&tcp, &script, &by_tcp, &stopped));
        server
    }

    /// Says this from now on.
    pub fn say(&self, script: impl FnMut(&str, RecordType) -> Say + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// Questions by UDP so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    /// Questions by TCP so far.
    pub fn asked_by_tcp(&self) -> usize {
        self.by_tcp.load(Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
    }
}

fn serve_udp(socket: &UdpSocket, script: &Mutex<Script>, asked: &AtomicUsize, stopped: &AtomicBool) {
    socket.set_read_timeout(Some(LOOK)).expect("an option");
    let mut buffer = [0; 2048];
    while !stopped.load(Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        asked.fetch_add(1, Relaxed);
        if let Some(answer) = answer(&buffer[..length], script, true) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn serve_tcp(listener: &TcpListener, script: &Mutex<Script>, asked: &AtomicUsize, stopped: &AtomicBool) {
    listener.set_nonblocking(true).expect("an option");
    while !stopped.load(Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(LOOK);
            continue;
        };
        stream.set_nonblocking(false).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("an option");
        while let Some(question) = read_message(&mut stream) {
            asked.fetch_add(1, Relaxed);
            let Some(answer) = answer(&question, script, false) else { continue };
            let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
            if stream.write_all(&framed).is_err() {
                break;
            }
        }
    }
}

fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

fn answer(question: &[u8], script: &Mutex<Script>, is_udp: bool) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).expect("a question");
    let query = asked.queries.first().expect("one question").clone();
    let name_asked = query.name().to_ascii().to_lowercase();
    let say = (script.lock().unwrap())(name_asked.trim_end_matches('.'), query.query_type());
    let mut message = Message::response(asked.metadata.id, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.recursion_available = true;
    message.add_query(query);
    match say {
        Say::Silence => return None,
        Say::Records(answers, beside) => {
            message.add_answers(answers);
            message.add_additionals(beside);
        }
        Say::Nothing(code, ttl) => {
            message.metadata.response_code = code;
            let soa = |ttl| SOA::new(name("ns.example"), name("admin.example"), 1, 60, 60, 60, ttl);
            message.add_authorities(ttl.map(|ttl| Record::from_rdata(name("example"), ttl, RData::SOA(soa(ttl)))));
        }
        Say::Elsewhere => {
            let ns = hickory_resolver::proto::rr::rdata::NS(name("ns.elsewhere.example"));
            message.add_authority(Record::from_rdata(name("example"), 60, RData::NS(ns)));
        }
        Say::Cut(_) if is_udp => message.metadata.truncation = true,
        Say::Cut(answers) => {
            message.add_answers(answers);
        }
        Say::Beside => {
            message.queries = vec![Query::query(name("other.example"), RecordType::A)];
            message.add_answer(a("other.example", [10, 6, 6, 6], 60));
        }
        Say::Half => return message.to_vec().ok().map(|whole| whole[..whole.len() / 2].to_vec()),
    }
    Some(message.to_vec().expect("a message"))
}

/// A name, written without its last dot.
pub fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("a name")
}

/// An A record.
pub fn a(owner: &str, address: [u8; 4], ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::from(address))))
}

/// An AAAA record.
pub fn aaaa(owner: &str, address: &str, ttl: u32) -> Record {
    let address: Ipv6Addr = address.parse().expect("an address");
    Record::from_rdata(name(owner), ttl, RData::AAAA(AAAA(address)))
}

/// A CNAME record.
pub fn cname(owner: &str, target: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

/// An SRV record of priority and weight 0.
pub fn srv(owner: &str, target: &str, port: u16, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::SRV(SRV::new(0, 0, port, name(target))))
}
