//! [`Stage`]: sessile with one worker, a listener for each kind of attack, and the processes that attack.
//!
//! Measures nothing but CPU time. Invariant: whatever is started here ends when the stage or its attacker is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use rustls::version::TLS13;

use crate::attacks::{self, Attack};
use crate::launch::{Cores, on_cores, pin};
use crate::support::authority::Authority;
use crate::support::backend::{Backend, pool};
use crate::support::program::free_address;
use crate::support::{Sessile, eventually};
use crate::{Result, floods};

/// The name in the certificate.
pub const NAME: &str = "a.test";
/// Pieces of 64 KiB in the response that slow readers ask for.
const PIECES: usize = 16;

/// The process under attack and what stands around it.
pub struct Stage {
    pub sessile: Sessile,
    pub client: Arc<ClientConfig>,
    pub admin: SocketAddr,
    listeners: Vec<(&'static str, SocketAddr)>,
    core: usize,
    floods: Vec<Attacker>,
    _backends: [Backend; 2],
}

/// A process that ends when it is dropped.
pub struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stage {
    /// Starts everything but attackers.
    pub fn start(cores: &Cores) -> Result<Self> {
        pin(&[cores.others])?;
        let (web, echo) = (Backend::serving(web), Backend::named("e"));
        let authority = Authority::new();
        let admin = free_address();
        let floods = floods::KINDS.map(|kind| flood(kind, cores.others));
        let floods = floods.into_iter().collect::<Result<Vec<_>>>()?;
        let listener = |name: &str, pool: &str, options: &str| {
            format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n{options}\n")
        };
        let certificate = tempfile::tempdir()?;
        let (cert, key) = authority.mint(NAME).write(certificate.path(), "site");
        let certificate_table = format!(
            "tls = \"terminate\"\ncertificate = [{{ cert = \"{}\", key = \"{}\" }}]",
            cert.display(),
            key.display()
        );
        let mut config = format!(
            "workers = 1\n[admin]\nsocket = \"$DIR/admin.sock\"\nhttp = \"{admin}\"\n\
             [log]\nformat = \"json\"\nconnections = false\nlevel = \"error\"\n\
             [limits]\nhello_timeout = \"3s\"\nmax_handshakes = 16\n"
        );
        config += &listener("plain", "web", "");
        config += &listener("tls", "web", &certificate_table);
        config += &listener(
            "sni",
            "echo",
            &format!("tls = \"passthrough\"\nroute = [{{ sni = \"{NAME}\", pool = \"echo\" }}]"),
        );
        config += &listener("proxied", "echo", "trust = [\"127.0.0.0/8\"]");
        config += &listener("bodies", "web", "[listener.limits]\nbody_max = \"64 KiB\"");
        config += &listener("rated", "web", "[listener.limits]\nrequest_rate = \"10/s\"");
        config += &pool("web", "http = true", &[web.address]);
        config += &pool("echo", "", &[echo.address]);
        for (kind, (_, address)) in floods::KINDS.iter().zip(&floods) {
            config += &listener(kind, kind, "");
            config += &pool(kind, "http = true", &[*address]);
        }
        // The threads of a process begin on the cores of the one that starts it.
        pin(&[cores.proxy])?;
        let sessile = Sessile::start(&config);
        pin(&[cores.others])?;
        let client = Arc::new(authority.client(&[&TLS13], &[X25519]));
        let floods = floods.into_iter().map(|(attacker, _)| attacker).collect();
        // Asked once: the answer costs the process time, which would be measured.
        let names = ["plain", "tls", "sni", "proxied", "bodies", "rated"].into_iter().chain(floods::KINDS);
        let listeners = names.map(|name| (name, sessile.address(name))).collect();
        Ok(Self { sessile, client, admin, listeners, core: cores.others, floods, _backends: [web, echo] })
    }

    /// Starts an attack, and waits until it has begun.
    pub fn attack(&self, attack: &Attack) -> Result<Attacker> {
        let target = match attack.listener {
            "admin" => self.admin,
            listener => self.address(listener),
        };
        let mut command = on_cores(&[self.core], std::env::current_exe()?)?;
        command.args([attacks::ROLE, attack.name, &target.to_string()]);
        start(command).map(|(attacker, _)| attacker)
    }

    /// The address of a listener.
    pub fn address(&self, listener: &str) -> SocketAddr {
        let known = self.listeners.iter().find(|(name, _)| *name == listener);
        known.expect("a listener of this name").1
    }

    /// CPU time of an attacker, with the backends that may help it.
    pub fn attackers_cpu(&self, attacker: &Attacker) -> Duration {
        let processes: Vec<_> = self.floods.iter().chain([attacker]).map(|attacker| attacker.0.id()).collect();
        crate::cpu(&processes)
    }
}

/// A backend that attacks, and its address.
fn flood(kind: &str, core: usize) -> Result<(Attacker, SocketAddr)> {
    let mut command = on_cores(&[core], std::env::current_exe()?)?;
    command.args([floods::ROLE, kind]);
    let (attacker, line) = start(command)?;
    Ok((attacker, line.trim().parse()?))
}

/// A started process and its first line.
fn start(mut command: Command) -> Result<(Attacker, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let out = child.stdout.take().ok_or("no output")?;
    let attacker = Attacker(child);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    if line.is_empty() { Err("an attacker did not start".into()) } else { Ok((attacker, line)) }
}

/// Answers every request: a large body for `/large`, else two bytes. A POST is never answered.
fn web(mut stream: TcpStream) -> std::io::Result<()> {
    const PIECE: &[u8] = &[b'x'; 64 << 10];
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 << 10]);
    stream.set_nodelay(true)?;
    loop {
        while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            if bytes.starts_with(b"POST ") {
                return std::io::copy(&mut stream, &mut std::io::sink()).map(drop);
            }
            let (piece, pieces) = if bytes.starts_with(b"GET /large") { (PIECE, PIECES) } else { (&b"ok"[..], 1) };
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", piece.len() * pieces).into_bytes();
            answer.extend_from_slice(piece);
            stream.write_all(&answer)?;
            for _ in 1..pieces {
                stream.write_all(piece)?;
            }
            bytes.drain(..end + 4);
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Waits until a port is open.
pub fn is_open(address: SocketAddr) {
    eventually("a port", || TcpStream::connect(address).ok());
}
