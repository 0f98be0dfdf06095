//! Backends that tests control.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::eventually;
use super::program::free_local_address;

/// Accepts connections and treats each in a thread of its own. Stops accepting when dropped.
pub struct Backend {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Backend {
    /// Answers every line with its own name and the line.
    pub fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::serving(move |stream| echo(&name, &stream))
    }

    /// Serves every connection as told, on a free port of 127.0.0.1 that no other socket is given after it.
    pub fn serving(serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(free_local_address(), serve)
    }

    /// Serves every connection as told, on a given address. Waits until a socket that listened there has gone: a process
    /// that another test starts has it open until it runs its program.
    pub fn on(address: SocketAddr, serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = eventually("an address to be free", || TcpListener::bind(address).ok());
        // The standard library's 128 overflow in a burst, and what the kernel then drops is sent again a second later.
        rustix::net::listen(&listener, 4_096).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, serve) = (Arc::clone(&stop), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Relaxed) {
                    return;
                }
                let (Ok(stream), serve) = (stream, Arc::clone(&serve)) else { continue };
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, stop }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers every line with a name and the line.
pub fn echo(name: &str, mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        stream.write_all(format!("{name} {line}").as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// The tables of a pool with these backends, named `b0`, `b1` and so on, without checks.
pub fn pool(name: &str, options: &str, backends: &[SocketAddr]) -> String {
    let mut text = format!("[[pool]]\nname = \"{name}\"\n{options}\n");
    for (index, address) in backends.iter().enumerate() {
        text += &format!("[[pool.backend]]\nname = \"b{index}\"\naddress = \"{address}\"\n");
    }
    text + "[pool.check]\nkind = \"off\"\n"
}

/// A listener `l` on a free port in front of a pool.
pub fn listener(pool: &str, options: &str) -> String {
    format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n{options}\n")
}
