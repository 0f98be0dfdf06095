//! [`Users`]: 100 users of one way, each with an address and cookies.
//!
//! Compares no results. Invariant: every request uses a new connection, and a user without a session logs in again at
//! once.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Way;
use crate::cli::CommandError;
use crate::cli::client;
use crate::cli::demo::clients::{TIMEOUT, connect};

/// Number of users of each way: 127.0.1.1, 127.0.1.2 and so on.
pub(super) const USERS: u8 = 100;

/// The users of one way.
pub(super) struct Users {
    way: Way,
    users: Vec<User>,
}

struct User {
    number: u8,
    cookies: BTreeMap<String, String>,
    /// Name of the backend that made the session.
    home: String,
}

impl Users {
    /// Logs in every user.
    pub(super) async fn log_in(way: Way, address: SocketAddr) -> Result<Self, CommandError> {
        let mut users = Vec::new();
        for number in 1..=USERS {
            let mut user = User { number, cookies: BTreeMap::new(), home: String::new() };
            user.log_in(way, address).await?;
            users.push(user);
        }
        Ok(Self { way, users })
    }

    /// Requests every user's account; returns the number of users that had to log in again.
    pub(super) async fn request_accounts(&mut self, address: SocketAddr) -> Result<usize, CommandError> {
        let mut lost = 0;
        for user in &mut self.users {
            if user.ask(self.way, address, "account").await?.is_none() {
                user.log_in(self.way, address).await?;
                lost += 1;
            }
        }
        Ok(lost)
    }

    /// Number of users with a session at this backend.
    pub(super) fn at(&self, backend: &str) -> usize {
        self.users.iter().filter(|user| user.home == backend).count()
    }
}

impl User {
    async fn log_in(&mut self, way: Way, address: SocketAddr) -> Result<(), CommandError> {
        let home = self.ask(way, address, &format!("login/{}", self.number)).await?;
        self.home = home.ok_or_else(|| CommandError::Internal(format!("user {} may not log in", self.number)))?;
        Ok(())
    }

    /// Sends a request; returns the backend that had the session, or `None` if it had none.
    async fn ask(&mut self, way: Way, address: SocketAddr, what: &str) -> Result<Option<String>, CommandError> {
        let path = if way.replicated { format!("/shared/{what}") } else { format!("/{what}") };
        let answered = timeout(TIMEOUT, self.exchange(address, &path)).await.unwrap_or_else(|late| Err(late.into()));
        answered.map_err(|error| CommandError::Internal(format!("user {} at {address}: {error}", self.number)))
    }

    async fn exchange(&mut self, address: SocketAddr, path: &str) -> io::Result<Option<String>> {
        let mut stream = connect(Ipv4Addr::new(127, 0, 1, self.number), address).await?;
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = if cookies.is_empty() { String::new() } else { format!("Cookie: {}\r\n", cookies.join("; ")) };
        let request = format!("GET {path} HTTP/1.1\r\nHost: demo\r\n{cookies}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let wrong = || io::Error::other(format!("not an answer: {text:?}"));
        let answer = client::parse(&text).ok_or_else(wrong)?;
        self.keep_cookies(&text);
        match answer.code {
            200 => {
                let (backend, user) = answer.body.trim_end().split_once(' ').ok_or_else(wrong)?;
                if user == self.number.to_string() { Ok(Some(backend.to_owned())) } else { Err(wrong()) }
            }
            401 => Ok(None),
            _ => Err(wrong()),
        }
    }

    fn keep_cookies(&mut self, answer: &str) {
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        for (_, value) in fields.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")) {
            if let Some((name, value)) = value.split(';').next().and_then(|pair| pair.split_once('=')) {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}
