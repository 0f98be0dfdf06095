//! Many connections at once: an echo that spends no thread on a connection, and loads of short ones.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// A connect takes no longer; a client that waits longer for its handshake has none.
const CONNECT_MAX: Duration = Duration::from_millis(1_500);

/// One of the tests that fill the machine or measure it: they wait for each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends back whatever it gets, over any number of connections, on one thread. Ends when dropped.
pub struct Echo {
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start() -> Self {
        Self::on("127.0.0.1:0".parse().expect("an address"))
    }

    pub fn on(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&address.into()).expect("a free port");
        socket.listen(4_096).expect("a backlog");
        socket.set_nonblocking(true).expect("an option");
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = watch::channel(false);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(echo(listener, stopped));
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn echo(listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let Ok((mut stream, _)) = accepted else { continue };
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            // A buffer only while there is something in it, so that thousands of silent connections cost nothing.
            while stream.readable().await.is_ok() {
                bytes.resize(16 << 10, 0);
                match stream.try_read(&mut bytes) {
                    Ok(0) => break,
                    Ok(n) if stream.write_all(&bytes[..n]).await.is_err() => break,
                    Err(error) if error.kind() != ErrorKind::WouldBlock => break,
                    _ => bytes = Vec::new(),
                }
            }
            let _ = stream.shutdown().await;
        });
    }
}

/// An echo in a process of its own, for tests that need more descriptors than one process has.
pub struct EchoProcess {
    pub port: u16,
    child: Child,
}

/// Where the other process says its port.
const PORT_FILE: &str = "SESSILE_TEST_ECHO_PORT_FILE";

impl EchoProcess {
    /// On every loopback address.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = dir.path().join("port");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "support::load_support::an_echo_for_another_process", "--ignored"])
            .env(PORT_FILE, &file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("this program starts");
        let port =
            super::eventually("the other process to listen", || std::fs::read_to_string(&file).ok()?.parse().ok());
        Self { port, child }
    }
}

impl Drop for EchoProcess {
    fn drop(&mut self) {
        // The process ends with its standard input, also where this is never reached.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Not a test: what [`EchoProcess`] runs.
#[test]
#[ignore = "only for another process"]
fn an_echo_for_another_process() {
    let Some(file) = std::env::var_os(PORT_FILE) else { return };
    descriptors_at_least(0);
    let echo = Echo::on("0.0.0.0:0".parse().expect("an address"));
    let beside = PathBuf::from(&file).with_extension("new");
    std::fs::write(&beside, echo.address.port().to_string()).expect("a file");
    std::fs::rename(&beside, &file).expect("a file");
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// Takes as many descriptors as this user may have; whether those are enough.
pub fn descriptors_at_least(wanted: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the own limit");
    maximum.is_none_or(|maximum| maximum >= wanted)
}

/// A number when it has come to rest: the same at several looks, one after the other.
pub fn at_rest(mut look: impl FnMut() -> usize) -> usize {
    let (mut last, mut same) = (usize::MAX, 0);
    super::eventually("a number to come to rest", || {
        let now = look();
        same = if now == std::mem::replace(&mut last, now) { same + 1 } else { 0 };
        (same >= 4).then_some(now)
    })
}

/// A client that says lines and reads the answers.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("a connection"))
    }

    /// One with a source address of its own.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        Self::try_connect_from(source, address).expect("a connection")
    }

    /// The same; the error says why there is no connection.
    pub fn try_connect_from(source: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("a loopback address");
        socket.connect_timeout(&address.into(), super::PATIENCE)?;
        Ok(Self::of(socket.into()))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(super::PATIENCE)).expect("an option");
        stream.set_nodelay(true).expect("an option");
        Self(BufReader::new(stream))
    }

    /// Says a line and waits for the one that comes back.
    pub fn try_ask(&mut self, line: &str) -> io::Result<String> {
        ask(&mut self.0, line)
    }

    /// Sends a line and returns the one that comes back; panics without one.
    pub fn ask(&mut self, line: &str) -> String {
        self.try_ask(line).unwrap_or_else(|error| panic!("{line:?} was not answered: {error}"))
    }

    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Waits for the other side to end: `Ok` with an orderly end, `Err` with a reset.
    pub fn end(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).map(|_| ())
    }
}

fn ask<S: Read + Write>(stream: &mut BufReader<S>, line: &str) -> io::Result<String> {
    stream.get_mut().write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    if stream.read_line(&mut answer)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(answer.trim_end().to_owned())
}

/// Where a load goes.
#[derive(Debug, Clone)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Short connections, one after the other in each of several threads, until the door is shut: each says a line and
/// wants it back.
pub struct Load {
    threads: Vec<JoinHandle<Vec<String>>>,
    served: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    begun: Instant,
}

/// What became of a load.
#[derive(Debug)]
pub struct Toll {
    /// Connections that got their answer.
    pub served: usize,
    /// Connections that were established and did not.
    pub broken: Vec<String>,
}

impl Load {
    /// Starts `rate` connections a second over `threads` threads.
    pub fn start(target: &Target, threads: u32, rate: u32) -> Self {
        let (served, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let begun = Instant::now();
        let pause = Duration::from_secs(1) * threads / rate;
        let one = |number: u32| {
            let (target, served, stop) = (target.clone(), Arc::clone(&served), Arc::clone(&stop));
            let first = begun + pause * number / threads;
            thread::spawn(move || knock_until_shut(&target, first, pause, &served, &stop))
        };
        Self { threads: (0..threads).map(one).collect(), served, stop, begun }
    }

    /// Connections that got their answer so far.
    pub fn served(&self) -> usize {
        self.served.load(Relaxed)
    }

    /// Connections a second so far.
    pub fn rate(&self) -> f64 {
        self.served() as f64 / self.begun.elapsed().as_secs_f64()
    }

    /// Waits until it is in full swing.
    pub fn warm(&self, served: usize) {
        super::eventually("the load to be served", || (self.served() >= served).then_some(()));
    }

    /// Ends it where the door stays open.
    pub fn stop(self) -> Toll {
        self.stop.store(true, Relaxed);
        self.wait()
    }

    /// Waits until every thread has found the door shut.
    pub fn wait(self) -> Toll {
        let broken = self.threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the load"));
        Toll { broken: broken.collect(), served: self.served.load(Relaxed) }
    }
}

fn knock_until_shut(
    target: &Target,
    mut next: Instant,
    pause: Duration,
    served: &AtomicUsize,
    stop: &AtomicBool,
) -> Vec<String> {
    let mut broken = Vec::new();
    while !stop.load(Relaxed) && broken.len() < 10 {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += pause;
        let answer = match target {
            Target::Tcp(address) => TcpStream::connect_timeout(address, CONNECT_MAX)
                .map(|stream| stream.set_read_timeout(Some(super::PATIENCE)).and_then(|()| talk(&stream))),
            Target::Unix(path) => UnixStream::connect(path)
                .map(|stream| stream.set_read_timeout(Some(super::PATIENCE)).and_then(|()| talk(&stream))),
        };
        match answer {
            // Refused, timed out, not there: no handshake, no promise.
            Err(_) => break,
            Ok(Ok(())) => drop(served.fetch_add(1, Relaxed)),
            Ok(Err(error)) => broken.push(error.to_string()),
        }
    }
    broken
}

fn talk<S>(stream: &S) -> io::Result<()>
where
    for<'a> &'a S: Read + Write,
{
    let answer = ask(&mut BufReader::new(stream), "hello")?;
    if answer == "hello" { Ok(()) } else { Err(io::Error::other(format!("answered {answer:?}"))) }
}

/// A ClientHello for a name, in one record. The name is not looked at.
pub fn client_hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let entry = [&[0], &sized(name.as_bytes())[..]].concat();
    let extension = [&[0, 0], &sized(&sized(&entry))[..]].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &sized(&extension)].concat();
    let message = [&[1, 0], &sized(&body)[..]].concat();
    [&[22, 3, 1], &sized(&message)[..]].concat()
}
