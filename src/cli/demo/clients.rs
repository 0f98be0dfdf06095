//! The clients of the demo: 200 addresses of this machine, one connection at a time.
//!
//! Clients connect one after the other, so that the result of round robin is certain. Compares no results; `findings`
//! does. Invariant: every request uses a new connection, bound to the client's address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::backends::DemoAnswer;
use crate::cli::{CommandError, client};

/// Number of clients: 127.0.0.2, 127.0.0.3 and so on.
pub(super) const CLIENTS: usize = 200;
/// Longest wait for a response; on one machine a longer wait means a failure.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest response in bytes.
const RESPONSE_MAX: u64 = 64 << 10;

/// Addresses of all clients.
pub(super) fn all() -> impl Iterator<Item = Ipv4Addr> {
    (2..).map(|last| Ipv4Addr::new(127, 0, 0, last)).take(CLIENTS)
}

/// Responses to one request of every client, in the order of the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round(Vec<DemoAnswer>);

impl Round {
    /// Sends one request from every client.
    pub(super) async fn of_all(address: SocketAddr) -> Result<Self, CommandError> {
        let mut answers = Vec::with_capacity(CLIENTS);
        for client in all() {
            answers.push(ask(client, address).await?);
        }
        Ok(Self(answers))
    }

    /// Name of the backend that served each client.
    pub(super) fn backends(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|answer| answer.backend.as_str())
    }

    /// Number of clients that a backend served.
    pub(super) fn count(&self, backend: &str) -> usize {
        self.backends().filter(|name| *name == backend).count()
    }

    /// Counter in the last response of a backend; 0 without a response.
    pub(super) fn counter(&self, backend: &str) -> u64 {
        self.0.iter().rev().find(|answer| answer.backend == backend).map_or(0, |answer| answer.count)
    }

    /// The clients that another backend serves in a later round.
    pub(super) fn moves<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = DemoMove<'a>> {
        let pairs = all().zip(self.backends().zip(later.backends()));
        pairs.filter(|(_, (from, to))| from != to).map(|(client, (from, to))| DemoMove { client, from, to })
    }
}

#[cfg(test)]
impl<'a> FromIterator<&'a str> for Round {
    fn from_iter<T: IntoIterator<Item = &'a str>>(backends: T) -> Self {
        Self(backends.into_iter().map(|backend| DemoAnswer { backend: backend.to_owned(), count: 1 }).collect())
    }
}

/// One client that another backend served later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DemoMove<'a> {
    /// Address of the client.
    pub(super) client: Ipv4Addr,
    /// Backend in the earlier round.
    pub(super) from: &'a str,
    /// Backend in the later round.
    pub(super) to: &'a str,
}

/// Sends one request over a new connection.
pub(super) async fn ask(client: Ipv4Addr, address: SocketAddr) -> Result<DemoAnswer, CommandError> {
    let answered = timeout(TIMEOUT, exchange(client, address)).await.unwrap_or_else(|late| Err(late.into()));
    answered.map_err(|error| CommandError::Internal(format!("client {client} at {address}: {error}")))
}

async fn exchange(client: Ipv4Addr, address: SocketAddr) -> io::Result<DemoAnswer> {
    let mut stream = connect(client, address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.take(RESPONSE_MAX).read_to_string(&mut text).await?;
    let answer = client::parse(&text).filter(|answer| answer.code == 200);
    let answer = answer.and_then(|answer| DemoAnswer::parse(&answer.body));
    answer.ok_or_else(|| io::Error::other(format!("not an answer: {text:?}")))
}

/// Connects from the client's own address.
pub(super) async fn connect(client: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((client, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
