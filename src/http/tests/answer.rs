//! Our own answers, read by our own reader.

use super::*;
use crate::http::answer::{self, Reply, StatusCode};

fn reply(status: StatusCode, id: &str) -> Reply<'_> {
    Reply { status, retry_after_s: None, id: Some((answer::ID_FIELD, id)), to_head: false }
}

#[test]
fn an_answer_says_all_there_is_to_say() {
    let mut out = Vec::new();
    let reply = reply(StatusCode::Misdirected, "7f3a");
    answer::write(&mut out, &Reply { retry_after_s: Some(9), ..reply }, 784_111_777);
    let wanted = "HTTP/1.1 421 Misdirected Request\r\n\
                  Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                  Content-Type: text/plain; charset=utf-8\r\n\
                  Content-Length: 37\r\n\
                  Cache-Control: no-store\r\n\
                  Retry-After: 9\r\n\
                  X-Request-Id: 7f3a\r\n\
                  Connection: close\r\n\r\n\
                  421 Misdirected Request\nrequest 7f3a\n";
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
}

#[test]
fn every_answer_is_a_whole_message_and_head_gets_no_body() {
    let id = "i".repeat(128);
    for status in StatusCode::ALL {
        let (mut answer, mut to_head) = (Vec::new(), Vec::new());
        let retry_after_s = (*status == StatusCode::TooManyRequests).then_some(u32::MAX);
        let reply = Reply { retry_after_s, ..reply(*status, &id) };
        answer::write(&mut answer, &reply, u64::MAX);
        answer::write(&mut to_head, &Reply { to_head: true, ..reply }, u64::MAX);
        assert!(answer.len() <= 512 && answer.starts_with(&to_head), "{}", answer.len());
        assert!(
            matches!(arrive(&answer, [], Some(ASKED)), Outcome::Whole(Framing::Length(_), end) if end == answer.len())
        );
        assert_eq!(arrive(&to_head, [], Some(ASKED_HEAD)), Outcome::Whole(Framing::None, to_head.len()));
        let reader = read_response(&answer, ASKED);
        assert_eq!(reader.response(&answer).status, status.code());
        assert!(!reader.response(&answer).persists());
    }
}

#[test]
fn plain_http_at_a_port_for_https_gets_a_whole_message_without_a_request_id() {
    let (mut answer, mut to_head) = (Vec::new(), Vec::new());
    answer::write_https_expected(&mut answer, false, 784_111_777);
    answer::write_https_expected(&mut to_head, true, 784_111_777);
    assert!(answer.len() <= 512 && answer.starts_with(&to_head), "{}", answer.len());
    assert!(matches!(arrive(&answer, [], Some(ASKED)), Outcome::Whole(Framing::Length(_), end) if end == answer.len()));
    let reader = read_response(&answer, ASKED);
    assert_eq!((reader.response(&answer).status, reader.response(&answer).persists()), (400, false));
    let text = String::from_utf8(answer).unwrap();
    assert!(!text.contains("X-Request-Id") && text.ends_with("\nplain HTTP was sent to a port that serves HTTPS\n"));
}
