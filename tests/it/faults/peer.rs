//! Clients and backends as faults need them: connected from chosen addresses, resetting, refusing, swallowing.
//!
//! Knows nothing of the process between them. Invariant: no read waits for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::support::PATIENCE;
use crate::support::backend::Backend;

/// A client.
pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// A client at an address of its own; port 0 = any.
pub fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("a socket");
    socket.bind(&from.into()).unwrap_or_else(|error| panic!("{from}: {error}"));
    socket.connect(&to.into()).expect("a listener");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// The n-th of many addresses of this host, any port.
pub fn source(n: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, (n / 250) as u8 + 1, (n % 250) as u8 + 1], 0))
}

/// Sends all of it.
pub fn say(mut stream: &TcpStream, bytes: impl AsRef<[u8]>) {
    stream.write_all(bytes.as_ref()).expect("the other side takes it");
}

/// The next line, or what stands in its place.
pub fn hear(mut stream: &TcpStream) -> Result<String, ErrorKind> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.last() != Some(&b'\n') {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => line.push(byte[0]),
            Err(error) => return Err(error.kind()),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Says a line and returns the answer.
pub fn ask(stream: &TcpStream, line: &str) -> Result<String, ErrorKind> {
    let mut all = stream;
    all.write_all(format!("{line}\n").as_bytes()).map_err(|error| error.kind())?;
    hear(stream)
}

/// Everything until the other side has closed.
pub fn rest(mut stream: &TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.kind())
}

/// Whether the other side has neither said anything nor gone.
pub fn is_quiet(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let answer = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    answer.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Closes so that the other side sees a reset.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(stream);
}

/// The one way to lose a connection that is not the end of a stream.
pub const RESET: Result<Vec<u8>, ErrorKind> = Err(ErrorKind::ConnectionReset);

/// A loopback address that other tests, in this process and in others, do not use.
pub fn own_address(n: u8) -> Ipv4Addr {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 250, low, n)
}

/// A bound address that refuses connections until it is told to listen.
pub struct Refusing {
    pub address: SocketAddr,
    socket: Socket,
}

impl Refusing {
    pub fn new() -> Self {
        Self::bound((Ipv4Addr::LOCALHOST, 0).into(), false)
    }

    /// At an address of the test's own, where one may listen and refuse in turn.
    pub fn on(address: Ipv4Addr) -> Self {
        // By number: Linux takes a port it chose itself away from a socket that is shut down.
        let chosen = Self::bound((address, 0).into(), false).address;
        Self::bound(chosen, true)
    }

    fn bound(address: SocketAddr, reuse: bool) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(reuse).expect("a socket");
        socket.bind(&address.into()).expect("a free port");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        Self { address, socket }
    }

    /// Accepts connections from now on.
    pub fn listen(&self) {
        self.socket.listen(64).expect("a bound socket");
    }

    /// Refuses connections from now on.
    pub fn refuse(&self) {
        self.socket.shutdown(std::net::Shutdown::Read).expect("a listening socket");
    }

    /// Takes a connection; an error while the address refuses.
    pub fn accept(&self) -> std::io::Result<TcpStream> {
        let (socket, _) = self.socket.accept()?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// An address that never answers a connect: its backlog is full and nothing is accepted from it.
pub struct Blackhole {
    pub address: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Blackhole {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        listener.listen(0).expect("a bound socket");
        let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            queue.push(stream);
            assert!(queue.len() < 10, "a backlog of nothing has no end");
        }
        Self { address, _listener: listener, _queue: queue }
    }
}

/// A backend that greets every client with a line and then holds it, without a thread for each.
pub struct Holding {
    _backend: Backend,
    pub held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Holding {
    pub fn on(address: SocketAddr) -> Self {
        let held = Arc::new(Mutex::new(Vec::new()));
        let holder = Arc::clone(&held);
        let backend = Backend::on(address, move |mut stream| {
            // The connection is in the list before its client reads the greeting.
            let mut held = holder.lock().expect("no panic");
            stream.write_all(b"welcome\n")?;
            held.push(stream);
            Ok(())
        });
        Self { _backend: backend, held }
    }
}

/// Sends without end, until the other side is gone.
pub fn pour(mut stream: &TcpStream) -> std::io::Result<()> {
    loop {
        stream.write_all(&[b'x'; 64 * 1024])?;
    }
}

/// A ClientHello in one record: no more than what routing reads, padded to `length` bytes of handshake.
pub fn hello(name: Option<&str>, length: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [&[0][..], &two(name.len()), name.as_bytes()].concat();
        extensions.extend(extension(0, &[&two(entry.len())[..], &entry].concat()));
    }
    let body = hello_body(&[], &[0x13, 0x01], &[0], &extensions);
    let missing = length.saturating_sub(4 + body.len() + 4);
    if missing > 0 {
        extensions.extend(extension(21, &vec![0; missing]));
    }
    records(&hello_body(&[], &[0x13, 0x01], &[0], &extensions), 1 << 14)
}

/// The body of a ClientHello, made of its parts, which may be wrong.
pub fn hello_body(session: &[u8], ciphers: &[u8], compressions: &[u8], extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(session.len() as u8);
    body.extend(session);
    body.extend(two(ciphers.len()));
    body.extend(ciphers);
    body.push(compressions.len() as u8);
    body.extend(compressions);
    body.extend(two(extensions.len()));
    body.extend(extensions);
    body
}

/// One extension.
pub fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &two(value.len()), value].concat()
}

/// A handshake message of type ClientHello in records of at most `most` bytes.
pub fn records(body: &[u8], most: usize) -> Vec<u8> {
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    let message = [&[1, a, b, c][..], body].concat();
    message.chunks(most).flat_map(|part| [&[22, 3, 1][..], &two(part.len()), part].concat()).collect()
}

fn two(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}
