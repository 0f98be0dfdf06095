//! The work of a head in proportion to its bytes, over heads that are made to be expensive.
//!
//! Counts looks at bytes and elements (`http/work.rs`), no time. Invariant: what is done with a head is what the
//! terminated half does: read it, look its cookies up, write it for the other side.

use super::*;
use crate::http::cookie::find;
use crate::http::edit::{CookieEdit, CookieNames, RequestEdit, ResponseEdit, write_request, write_response};
use crate::http::forwarded::Forwarding;
use crate::http::head::HEAD_MAX;
use crate::http::set_cookie::set_cookies;
use crate::http::work::{spend, spent};

/// Most units of work for a byte of a head. The dearest of these needs 17, over four ways of writing it.
const PER_BYTE: usize = 24;

/// Work of one request: reading, cookies, writing. The head arrives in pieces of `piece` bytes.
fn work_of_request(head: &[u8], piece: usize) -> usize {
    let (mut reader, mut out) = (RequestReader::new(), Vec::new());
    spent();
    let mut stop = 0;
    while stop < head.len() && reader.read(&head[..stop]) == Progress::More {
        stop = (stop + piece).min(head.len());
    }
    if let Progress::Done(_) = reader.read(head) {
        let request = reader.request(head);
        let (_, _, _) = (request.asked(), request.host(), request.expects_continue());
        // The value, the verdict, and two parts of a key.
        for name in [b"S", b"S", b"K", b"L"] {
            spend(find(request.fields, name).count());
        }
        for cookie in
            [CookieEdit::Remove(CookieNames::one(b"S")), CookieEdit::CutPrefix { name: b"S", separator: b'~' }]
        {
            let edit = RequestEdit { cookie, set: &[("X-Client-Certificate-Subject", None)], ..RequestEdit::default() };
            write_request(&mut out, &request, &edit);
        }
        for forwarding in [Forwarding::Append, Forwarding::Off] {
            let edit = RequestEdit { x_forwarded: forwarding, forwarded: forwarding, ..RequestEdit::default() };
            write_request(&mut out, &request, &edit);
        }
    }
    spent()
}

fn work_of_response(head: &[u8], asked: RequestMeta) -> usize {
    let (mut reader, mut out) = (ResponseReader::new(), Vec::new());
    spent();
    if let Progress::Done(_) = reader.read(head, asked) {
        let response = reader.response(head);
        spend(set_cookies(response.fields, b"S").count());
        let edit = ResponseEdit { cookie_prefix: Some((b"S", "b1~")), ..ResponseEdit::default() };
        write_response(&mut out, &response, &asked, &edit);
    }
    spent()
}

/// As many of these texts as a head has room for, between a start and an end.
fn filled(start: &str, text: &str, end: &str, most: usize) -> Vec<u8> {
    let room = HEAD_MAX - start.len() - end.len() - 2;
    format!("{start}{}{end}\r\n", text.repeat((room / text.len()).min(most))).into_bytes()
}

/// Heads with many of something, each as large as may be and as large as is still let through.
fn hostile(start: &str) -> Vec<(String, Vec<u8>)> {
    let mut heads = Vec::new();
    let lists = ["Connection", "Upgrade", "Cookie", "Transfer-Encoding", "Expect", "Trailer", "X-Forwarded-For", "TE"];
    for name in lists {
        for text in [",", "a,", "X-A, ", ";", "S=;", "S=1; ", "a=b;", " ;", " ", "\t", "=", "websocket,"] {
            for most in [60, 1_000, 2_000, usize::MAX] {
                let head = filled(&format!("{start}{name}: "), text, "\r\n", most);
                heads.push((format!("{name}: {text:?} {most} times"), head));
            }
        }
    }
    for line in [
        "a:\r\n",
        "a_b:\r\n",
        "Cookie:;\r\n",
        "Cookie: S=1\r\n",
        "Connection:a\r\n",
        "X-Forwarded-For: 1\r\n",
        "X_F.:\r\n",
    ] {
        heads.push((format!("lines {line:?}"), filled(start, line, "", 120)));
    }
    // Every line is compared with every option.
    let options: String = (0..63).map(|index| format!("a{},", index % 10)).collect();
    let lines: String = (0..120).map(|index| format!("b{}:\r\n", index % 10)).collect();
    heads.push(("options and lines".to_owned(), format!("{start}Connection: {options}\r\n{lines}\r\n").into_bytes()));
    let options = "a,".repeat(10_000);
    heads.push(("more options".to_owned(), format!("{start}Connection: {options}\r\n{lines}\r\n").into_bytes()));
    heads
}

#[test]
fn the_work_of_a_request_is_bounded_by_its_bytes() {
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    let mut most = (0, String::new());
    for (title, head) in hostile(start) {
        for piece in [usize::MAX / 2, 1_000] {
            most = most.max((work_of_request(&head, piece) / head.len(), title.clone()));
        }
    }
    println!("at most {} units a byte: {}", most.0, most.1);
    assert!(most.0 <= PER_BYTE, "{} units a byte: {}", most.0, most.1);
    assert!(most.0 >= 4, "what is counted is too little to tell: {}", most.0);
}

#[test]
fn the_work_of_a_response_is_bounded_by_its_bytes() {
    let start = "HTTP/1.1 200 OK\r\n";
    let mut heads = hostile(start);
    for text in ["Content-Length: 1\r\n", "Set-Cookie: S=1;;;;\r\n", "Set-Cookie: S\r\n"] {
        heads.push((format!("lines {text:?}"), filled(start, text, "", 128)));
    }
    for (name, text) in [("Content-Length", "1,"), ("Set-Cookie", ";"), ("Set-Cookie", "Max-Age=1;")] {
        heads.push((format!("{name}: {text:?}"), filled(&format!("{start}{name}: "), text, "1\r\n", usize::MAX)));
    }
    for (title, head) in heads {
        for asked in [ASKED, ASKED_WEB_SOCKET] {
            let work = work_of_response(&head, asked);
            assert!(work <= PER_BYTE * head.len(), "{} units a byte: {title}", work / head.len());
        }
    }
}

/// Twice the bytes are at most twice the work, and a little.
#[test]
fn the_work_of_a_head_does_not_grow_faster_than_its_bytes() {
    for name in ["Connection", "Cookie", "Upgrade", "X-Forwarded-For", "X-Any"] {
        for text in [",", ";", "a=b; ", "x, "] {
            let start = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: ");
            let (one, two) = (filled(&start, text, "\r\n", 30), filled(&start, text, "\r\n", 60));
            let (once, twice) = (work_of_request(&one, 4_096), work_of_request(&two, 4_096));
            assert!(twice <= 2 * once + 64, "{name}: {text:?}: {once}, then {twice}");
        }
    }
}
