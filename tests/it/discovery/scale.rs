//! A pool that grows and shrinks: only clients of backends that are gone get another one, each once.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::Pods;
use crate::support::backend::Backend;
use crate::support::eventually;

const SHORT: &str = "drain_deadline = \"1s\"\ndrain_over = \"1s\"\n";

fn pairs<'b>(names: &'b [String], backends: &[Backend]) -> Vec<(&'b str, SocketAddr)> {
    names.iter().map(String::as_str).zip(backends.iter().map(|backend| backend.address)).collect()
}

#[test]
fn clients_known_by_address_move_only_from_backends_that_are_gone() {
    let names: Vec<_> = (0..10).map(|n| format!("b{n}")).collect();
    let backends: Vec<_> = names.iter().map(|name| Backend::named(name)).collect();
    let all = pairs(&names, &backends);
    let pods = Pods::start(SHORT, "", &all[..3]);
    let first = pods.homes(0..200);

    pods.name(&all);
    pods.are(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(pods.homes(0..200), first, "known clients stay when a pool grows");
    let later = pods.homes(200..400);
    assert!(later.iter().any(|home| home.as_str() > "b2"), "new clients come to new backends: {later:?}");

    // Those that are named no more drain: known clients stay until the deadline, new ones go elsewhere.
    pods.name(&all[..3]);
    eventually("the drain of b9", || (pods.backend("b9")["absent"] == true).then_some(()));
    pods.are(&["b0", "b1", "b2"]);
    let both: Vec<_> = first.iter().chain(&later).cloned().collect();
    let now = pods.homes(0..400);
    let moved = both.iter().zip(&now).filter(|(before, now)| before != now).count();
    let of_gone = both.iter().filter(|home| home.as_str() > "b2").count();
    assert_eq!(moved, of_gone, "only clients of backends that are gone");
    assert!(now.iter().all(|home| home.as_str() <= "b2"));
    assert_eq!(pods.homes(0..400), now, "once");
    let breaks = pods.pool()["breaks"].as_object().unwrap().values().filter_map(|count| count.as_u64()).sum::<u64>();
    assert_eq!(breaks, of_gone as u64);
}

/// A request with the cookie that a client has; the name of the backend, and the cookie that the client has then.
fn request(front: SocketAddr, cookie: &mut String) -> String {
    let mut stream = TcpStream::connect(front).unwrap();
    let own = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
    write!(stream, "GET / HTTP/1.1\r\nHost: a.test\r\n{own}Connection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let line =
        |name: &str| response.lines().find(|line| line.to_ascii_lowercase().starts_with(name)).map(str::to_owned);
    if let Some(set) = line("set-cookie:") {
        *cookie = set[11..].split(';').next().unwrap().trim().to_owned();
    }
    line("x-backend:").unwrap_or_else(|| panic!("{response}"))[10..].trim().to_owned()
}

/// Answers each request with its own name.
fn site(name: &str) -> Backend {
    let name = name.to_owned();
    Backend::serving(move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            if line == "\r\n" {
                write!(&stream, "HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nContent-Length: 0\r\n\r\n")?;
            }
            line.clear();
        }
        Ok(())
    })
}

#[test]
fn clients_known_by_cookie_move_only_from_backends_that_are_gone() {
    let names: Vec<_> = (0..10).map(|n| format!("b{n}")).collect();
    let backends: Vec<_> = names.iter().map(|name| site(name)).collect();
    let all = pairs(&names, &backends);
    let options =
        format!("{SHORT}http = true\nbalance = \"random\"\ncookie = {{ mode = \"insert\", keys = \"$DIR/keys\" }}\n");
    let config = super::config(&options, "").replace("pool = \"p\"\n", "pool = \"p\"\ntls = \"off\"\n");
    let pods = Pods {
        sessile: crate::support::Sessile::spawn(&config, |command| {
            let file = command.get_args().last().unwrap().to_owned();
            let folder = std::path::PathBuf::from(file).parent().unwrap().to_owned();
            std::fs::write(
                folder.join("keys"),
                (0..32).map(|n| format!("{:02x}", n * 7 + 1)).collect::<String>() + "\n",
            )
            .unwrap();
        }),
    };
    pods.name(&all[..3]);
    pods.sessile.ready();
    pods.are(&["b0", "b1", "b2"]);
    let front = pods.sessile.address("l");
    let mut cookies: BTreeMap<usize, String> = (0..200).map(|n| (n, String::new())).collect();
    let mut round = |range: std::ops::Range<usize>| -> Vec<String> {
        range.map(|n| request(front, cookies.entry(n).or_default())).collect()
    };
    let first = round(0..200);
    pods.name(&all);
    pods.are(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(round(0..200), first, "known clients stay when a pool grows");
    let later = round(200..300);
    assert!(later.iter().any(|home| home.as_str() > "b2"), "{later:?}");

    pods.name(&all[..3]);
    pods.are(&["b0", "b1", "b2"]);
    let both: Vec<_> = first.into_iter().chain(later).collect();
    let now = round(0..300);
    let moved = both.iter().zip(&now).filter(|(before, now)| before != now).count();
    assert_eq!(
        moved,
        both.iter().filter(|home| home.as_str() > "b2").count(),
        "only clients of backends that are gone"
    );
    assert_eq!(round(0..300), now, "once");
}
