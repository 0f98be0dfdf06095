//! Tests of `send` and `expect`.

use super::*;
use crate::probe::dialogue::ANSWER_MAX;

fn talk(expect: &[u8]) -> CheckSettings {
    settings(CheckKind::Talk { tls: false, send: b"PING\r\n".to_vec(), expect: expect.to_vec() })
}

/// A backend that writes these pieces one after another and stays, once it was sent something.
async fn staying(pieces: &'static [&'static [u8]]) -> Address {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        stream.set_nodelay(true).unwrap();
        assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
        for piece in pieces {
            stream.write_all(piece).await.ok();
            tokio::task::yield_now().await;
        }
        let _ended = stream.read(&mut [0; 64]).await;
    });
    address
}

#[tokio::test]
async fn a_check_sends_and_finds_what_it_expects_wherever_it_stands() {
    let (address, told) = scripted(b"PING\r\n", "-LOADING\r\n+PONG\r\n").await;
    run(&address, &talk(b"+PONG")).await.unwrap();
    assert_eq!(told.await.unwrap(), b"PING\r\n");
    let address = staying(&[b"220 a", b" mail", b" server", b"\r\n"]).await;
    run(&address, &talk(b"a mail server\r")).await.unwrap();
    let (address, _) = scripted(b"", "220 mail\r\n").await;
    let greeting = settings(CheckKind::Talk { tls: false, send: vec![], expect: b"220 ".to_vec() });
    run(&address, &greeting).await.unwrap();
}

#[tokio::test]
async fn what_was_answered_instead_is_shown_and_harms_no_log() {
    for (answer, expected) in [
        ("-NOAUTH \"no\"\r\n", r#"answered "-NOAUTH \"no\"", expected "+PONG""#),
        ("", r#"no answer, expected "+PONG""#),
        ("\0\x1b[2J\u{fc}\nx", r#"answered "\x00\x1b[2J\xc3\xbc\nx", expected "+PONG""#),
    ] {
        let (address, _) = scripted(b"PING\r\n", answer).await;
        assert_eq!(complaint(&address, &talk(b"+PONG")).await, expected);
    }
}

#[tokio::test]
async fn a_backend_that_answers_otherwise_and_stays_is_quoted_after_the_timeout() {
    let address = staying(&[b"-ERR\r\n"]).await;
    let mut settings = talk(b"+PONG");
    settings.check.timeout = Duration::from_millis(300);
    assert_eq!(complaint(&address, &settings).await, r#"timeout after 300ms: answered "-ERR", expected "+PONG""#);
}

#[tokio::test]
async fn an_endless_answer_is_read_up_to_a_limit() {
    static ENDLESS: [u8; ANSWER_MAX] = [b'x'; ANSWER_MAX];
    static PIECES: [&[u8]; 3] = [&ENDLESS, &ENDLESS, b"+PONG"];
    let address = staying(&PIECES).await;
    let expected = format!("answered \"{}…\", expected \"+PONG\"", "x".repeat(100));
    assert_eq!(complaint(&address, &talk(b"+PONG")).await, expected);
}

#[tokio::test]
async fn bytes_go_inside_tls_where_the_kind_says_so() {
    let (address, told) = tls_server("250 here\r\n").await;
    let kind = CheckKind::Talk { tls: true, send: b"NOOP\r\n\r\n".to_vec(), expect: b"250".to_vec() };
    run(&address, &settings(kind)).await.unwrap();
    assert_eq!(told.await.unwrap().1.unwrap(), 0);
}
