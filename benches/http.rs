//! What the pure steps of a terminated request cost: its head, its route, its cookie, what is written for the backend, and
//! where bodies end.
//!
//! Measures no system call. Invariant: every case is checked once, before it is timed, to answer what its name says.

use std::net::{IpAddr, Ipv4Addr};

use divan::{Bencher, black_box};
use sessile::config;
use sessile::http::body::Body;
use sessile::http::cookie;
use sessile::http::edit::{CookieEdit, CookieNames, RequestEdit, ResponseEdit, write_request, write_response};
use sessile::http::forwarded::Forwarding;
use sessile::http::head::{RequestReader, ResponseReader};
use sessile::http::{Framing, Progress};
use sessile::route::RouteFacts;
use sessile::route::requests::{RequestFacts, RequestTable};

fn main() {
    divan::main();
}

/// What Chromium sends to a site that has given it a few cookies; the balancer's stands behind the others.
fn browser(cookies: &str) -> Vec<u8> {
    format!(
        "GET /account/orders?page=2&sort=date HTTP/1.1\r\n\
         Host: shop.example.org\r\n\
         Connection: keep-alive\r\n\
         sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\n\
         sec-ch-ua-mobile: ?0\r\n\
         sec-ch-ua-platform: \"Linux\"\r\n\
         Upgrade-Insecure-Requests: 1\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
         Sec-Fetch-Site: same-origin\r\n\
         Sec-Fetch-Mode: navigate\r\n\
         Referer: https://shop.example.org/account\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
         Cookie: {cookies}; SESSILE=AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8w\r\n\r\n"
    )
    .into_bytes()
}

fn usual() -> Vec<u8> {
    let head = browser(
        "_ga=GA1.2.1234567890.1690000000; _gid=GA1.2.987654321.1690086400; consent=yes; theme=dark; locale=en-GB; \
         sid=8f14e45fceea167a5a36dedd4bea2543; csrftoken=Jx0b7Qp2mVt5Yc8Zr1Lw4Ns6Ka9Hd3Fg; cart=3; \
         recent=10341%2C20518%2C31177%2C40962; seen=2026-03-14T09%3A26%3A53Z; experiment=checkout-b; last=%2Faccount%2Forders%2F000123",
    );
    assert!((1_024..1_100).contains(&head.len()), "{}", head.len());
    head
}

fn bench_head(bencher: Bencher<'_, '_>, head: &[u8]) {
    let mut reader = RequestReader::new();
    assert_eq!(reader.read(head), Progress::Done(head.len()));
    bencher.counter(divan::counter::BytesCount::of_slice(head)).bench_local(|| {
        reader.reset();
        reader.read(black_box(head))
    });
}

fn bench_cookie(bencher: Bencher<'_, '_>, head: &[u8]) {
    let mut reader = RequestReader::new();
    let mut run = |head: &[u8]| {
        reader.reset();
        assert!(matches!(reader.read(head), Progress::Done(_)));
        let found = cookie::find(reader.request(head).fields, b"SESSILE").next().expect("the cookie");
        found.value.len()
    };
    assert_eq!(run(head), 64);
    bencher.bench_local(|| run(black_box(head)));
}

#[divan::bench]
fn request_head_1_kib(bencher: Bencher<'_, '_>) {
    bench_head(bencher, &usual());
}

#[divan::bench]
fn request_head_1_kib_and_cookie(bencher: Bencher<'_, '_>) {
    bench_cookie(bencher, &usual());
}

#[divan::bench]
fn request_head_9_kib_of_cookies_and_cookie(bencher: Bencher<'_, '_>) {
    bench_cookie(bencher, &browser(&vec!["tracker_1234=abcdefgh0123456789"; 264].join("; ")));
}

#[divan::bench]
fn request_head_100_bytes(bencher: Bencher<'_, '_>) {
    bench_head(
        bencher,
        b"GET /health HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\nX: 0123\r\n\r\n",
    );
}

/// All that is done with the head of a usual request, from bytes to bytes.
#[divan::bench]
fn request_head_1_kib_and_cookie_and_edit(bencher: Bencher<'_, '_>) {
    let head = usual();
    let edit = RequestEdit {
        x_forwarded: Forwarding::Replace,
        forwarded: Forwarding::Remove,
        client: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        port: Some(443),
        secure: true,
        cookie: CookieEdit::Remove(CookieNames::one(b"SESSILE")),
        split_cookie: None,
        close: false,
        trailers: false,
        set: &[("X-Request-Id", Some("0123456789abcdef"))],
        remove: &[],
    };
    let mut reader = RequestReader::new();
    let mut out = Vec::with_capacity(4_096);
    bencher.bench_local(|| {
        reader.reset();
        out.clear();
        assert!(matches!(reader.read(black_box(&head)), Progress::Done(_)));
        let request = reader.request(&head);
        assert!(cookie::find(request.fields, b"SESSILE").next().is_some());
        write_request(&mut out, &request, &edit);
        out.len()
    });
}

/// The worst arrival: one byte at a time. One iteration is all of it.
#[divan::bench]
fn request_head_1_kib_byte_by_byte(bencher: Bencher<'_, '_>) {
    let head = usual();
    let mut reader = RequestReader::new();
    bencher.bench_local(|| {
        reader.reset();
        for length in 0..head.len() {
            assert_eq!(reader.read(black_box(&head[..length])), Progress::More);
        }
        reader.read(&head)
    });
}

#[divan::bench]
fn response_head_and_edit(bencher: Bencher<'_, '_>) {
    let request = usual();
    let mut reader = RequestReader::new();
    assert!(matches!(reader.read(&request), Progress::Done(_)));
    let asked = reader.request(&request).asked();
    let head =
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/html\r\n\
                 Content-Length: 48123\r\nConnection: keep-alive\r\nETag: \"5f1d-62a9\"\r\nX-Frame-Options: DENY\r\n\
                 Cache-Control: no-cache\r\nVary: Accept-Encoding\r\nSet-Cookie: sid=8f14; Path=/; HttpOnly\r\n\r\n";
    let mut reader = ResponseReader::new();
    let mut out = Vec::with_capacity(4_096);
    bencher.bench_local(|| {
        reader.reset();
        out.clear();
        assert!(matches!(reader.read(black_box(head), asked), Progress::Done(_)));
        let response = reader.response(head);
        assert_eq!(response.framing, Framing::Length(48_123));
        write_response(&mut out, &response, &asked, &ResponseEdit::default());
        out.len()
    });
}

fn bench_chunks(bencher: Bencher<'_, '_>, size: usize) {
    let chunk = [format!("{size:x}\r\n").as_bytes(), &vec![b'x'; size], b"\r\n"].concat();
    let mut body = chunk.repeat(65_536 / size);
    body.extend(b"0\r\n\r\n");
    assert!(Body::new(Framing::Chunked).scan(&body).is_ok_and(|scanned| scanned.complete));
    bencher
        .counter(divan::counter::BytesCount::of_slice(&body))
        .bench(|| Body::new(Framing::Chunked).scan(black_box(&body)));
}

#[divan::bench]
fn body_64_kib_in_chunks_of_4_kib(bencher: Bencher<'_, '_>) {
    bench_chunks(bencher, 4_096);
}

#[divan::bench]
fn body_64_kib_in_chunks_of_16_bytes(bencher: Bencher<'_, '_>) {
    bench_chunks(bencher, 16);
}

/// Finds the route of a usual request among so many: twenty of one path for each host, of which half ask for a method, too.
#[divan::bench(args = [1, 100, 10_000])]
fn request_route_by_host_and_path(bencher: Bencher<'_, '_>, routes: usize) {
    let table = request_table(routes);
    let head = usual();
    let mut reader = RequestReader::new();
    assert!(matches!(reader.read(&head), Progress::Done(_)));
    let request = reader.request(&head);
    let find = || {
        let mut host = [0; sessile::server_name::NAME_MAX];
        table.find(&RequestFacts::of(black_box(&request), RouteFacts::default(), &mut host))
    };
    assert_eq!(find().and_then(|found| found.route), Some(routes - 1));
    bencher.bench_local(find);
}

/// The last route is that of the usual request.
fn request_table(routes: usize) -> RequestTable {
    let mut text = String::from("[[pool]]\nname = \"app\"\nhttp = true\nbackend = [\"127.0.0.1:9000\"]\n");
    text += "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:8080\"\npool = \"app\"\n";
    for number in 0..routes {
        let back = routes - 1 - number;
        let (host, path) = match (back / 20, back % 20) {
            (0, 0) => ("shop.example.org".to_owned(), "/account".to_owned()),
            (0, path) => ("shop.example.org".to_owned(), format!("/account{}/p{path}", "/orders".repeat(path % 4))),
            (host, path) => (format!("host{host}.example.org"), format!("/area{}/p{path}", "/orders".repeat(path % 4))),
        };
        let method = if back % 2 == 1 { "method = [\"GET\"]\n" } else { "" };
        text += &format!("[[listener.route]]\nhost = [\"{host}\"]\npath = [\"{path}\"]\n{method}pool = \"app\"\n");
    }
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
    let listener = &config.listeners[0];
    RequestTable::new(&listener.routes, Some(0), |_| 0)
}
