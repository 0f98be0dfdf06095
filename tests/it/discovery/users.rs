//! Many users at once: those known by their source addresses, each with one of its own, and those known by cookies.
//!
//! A user by source connects, asks once and leaves, a few users at a time; users by cookie ask over connections that
//! they share, one request behind the other. Invariant: there are never more connections open than there are threads
//! here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Range;
use std::thread;

use crate::support::PATIENCE;
use crate::support::load_support::Client;

/// Threads that ask.
const THREADS: usize = 4;
/// Requests that are sent behind each other before the first answer is read.
const AT_ONCE: usize = 50;

/// Answers each line with the name, and each HTTP request with the name as its body.
pub fn serve(name: &str, mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line.ends_with(" HTTP/1.1\r\n") {
            let length = head(&mut reader, |_| ())?;
            reader.read_exact(&mut vec![0; length])?;
            let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            stream.write_all(response.as_bytes())?;
        } else {
            stream.write_all(format!("{name} {line}").as_bytes())?;
        }
        line.clear();
    }
    Ok(())
}

/// Reads the fields of a head, and returns the length of the body. `set`: is called with each cookie that is set.
fn head(reader: &mut impl BufRead, mut set: impl FnMut(&str)) -> std::io::Result<usize> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Ok(length) };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a number"),
            "set-cookie" => set(value.split(';').next().expect("a cookie")),
            _ => {}
        }
    }
}

/// The address of a user.
pub fn source(user: usize) -> IpAddr {
    let (high, low) = (user / 62_500, user % 62_500);
    IpAddr::from([127, 20 + high as u8, (low / 250) as u8, (low % 250 + 1) as u8])
}

/// The name that serves each of these users by its source address.
pub fn by_source(front: SocketAddr, users: Range<usize>) -> Vec<String> {
    let all: Vec<_> = users.collect();
    let home = move |user: &usize| {
        let answer = Client::connect_from(source(*user), front).ask("x");
        answer.split(' ').next().expect("a name").to_owned()
    };
    thread::scope(|scope| {
        let parts = all.chunks(all.len().div_ceil(THREADS).max(1));
        let threads: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(home).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("every user is served")).collect()
    })
}

/// The cookies of users.
pub struct Jar(Vec<String>);

impl Jar {
    /// So many users without a cookie.
    pub fn new(users: usize) -> Self {
        Self(vec![String::new(); users])
    }

    /// The cookie of a user.
    pub fn cookie(&self, user: usize) -> &str {
        &self.0[user]
    }

    /// The name that serves each of these users by its cookie. A user that is given one has it from then on.
    pub fn homes(&mut self, front: SocketAddr, users: Range<usize>) -> Vec<String> {
        let cookies = &mut self.0[users];
        let part = cookies.len().div_ceil(THREADS).max(1);
        thread::scope(|scope| {
            let ask = move |part: &mut [String]| -> Vec<String> {
                part.chunks_mut(AT_ONCE).flat_map(|some| ask_in_a_row(front, some)).collect()
            };
            let threads: Vec<_> = cookies.chunks_mut(part).map(|part| scope.spawn(move || ask(part))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("every user is served")).collect()
        })
    }
}

/// The names that serve requests with these cookies, over one connection.
fn ask_in_a_row(front: SocketAddr, cookies: &mut [String]) -> Vec<String> {
    let stream = TcpStream::connect(front).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let request = |cookie: &String| {
        let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
        format!("GET / HTTP/1.1\r\nHost: a.example\r\n{cookie}\r\n")
    };
    let requests: String = cookies.iter().map(request).collect();
    (&stream).write_all(requests.as_bytes()).expect("requests are sent");
    let mut reader = BufReader::new(&stream);
    cookies.iter_mut().map(|cookie| answer(&mut reader, |set| *cookie = set.to_owned())).collect()
}

/// The body of a response.
pub fn answer(reader: &mut impl BufRead, set: impl FnMut(&str)) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a response");
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    let length = head(reader, set).expect("a head");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    String::from_utf8(body).expect("a name")
}
