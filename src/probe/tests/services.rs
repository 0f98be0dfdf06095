//! Tests of the checks that speak a service's protocol, against scripted answers. Real programs are in `tests/it/services`.

use super::*;

/// What a check says of a server that writes these answers, each after something was sent to it but for the first if
/// `greets`. `Ok` has all that was sent.
async fn judged(kind: CheckKind, greets: bool, answers: &'static [&'static [u8]]) -> Result<Vec<u8>, String> {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, mut sent) = (listener.accept().await.unwrap().0, Vec::new());
        for (index, answer) in answers.iter().enumerate() {
            if index > 0 || !greets {
                stream.read_buf(&mut sent).await.unwrap();
            }
            stream.write_all(answer).await.unwrap();
        }
        stream.read_to_end(&mut sent).await.unwrap();
        sent
    });
    match run(&address, &settings(kind)).await {
        Ok(()) => Ok(server.await.unwrap()),
        Err(CheckFailure::Backend(complaint)) => Err(complaint),
        Err(CheckFailure::Local(error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn redis_answers_ping_and_says_its_role() {
    let any = CheckKind::Redis { primary: false };
    let primary = CheckKind::Redis { primary: true };
    const PONG: &[u8] = b"+PONG\r\n";
    const NO_AUTH: &[u8] = b"-NOAUTH Authentication required.\r\n";
    assert_eq!(judged(any.clone(), false, &[PONG]).await.unwrap(), b"PING\r\n");
    assert!(judged(any.clone(), false, &[NO_AUTH]).await.is_ok());
    for (kind, answers, expected) in [
        (
            any.clone(),
            &[b"-LOADING Redis is loading\r\n" as &[u8]][..],
            r#"PING: answered "-LOADING Redis is loading""#,
        ),
        (any, &[b"220 mail\r\n"], r#"PING: answered "220 mail""#),
        (primary.clone(), &[NO_AUTH], r#"PING: answered "-NOAUTH Authentication required.""#),
        (
            primary.clone(),
            &[PONG, b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n"],
            r#"ROLE: answered "slave", expected "master""#,
        ),
        (primary.clone(), &[PONG, b"-NOPERM no\r\n"], r#"ROLE: answered "-NOPERM no", expected "master""#),
    ] {
        assert_eq!(judged(kind, false, answers).await.unwrap_err(), expected);
    }
    let sent = judged(primary, false, &[PONG, b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"]).await.unwrap();
    assert_eq!(sent, b"PING\r\nROLE\r\n");
}

/// The greeting of a MySQL 8.
const GREETING: &[u8] = b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15\
    \0\0\0\0\0\0\0\0\0\0abcdefghijkl\0caching_sha2_password\0";

#[tokio::test]
async fn mysql_is_left_in_order_whatever_it_says_of_the_user() {
    const OK: &[u8] = b"\x07\0\0\x02\0\0\0\x02\0\0\0";
    const OTHER_METHOD: &[u8] = b"\x17\0\0\x02\xfemysql_native_password\0";
    const DENIED: &[u8] = b"\x17\0\0\x02\xff\x15\x04#28000Access denied.";
    let kind = || CheckKind::Mysql { user: "me".to_owned() };
    let sent = judged(kind(), true, &[GREETING, OK]).await.unwrap();
    let login = b"\x3a\0\0\x01\x01\x82\x08\0\0\0\0\x01\x2d";
    assert!(sent.starts_with(login), "{:x?}", &sent[..13]);
    assert!(sent.ends_with(b"me\0\0caching_sha2_password\0\x01\0\0\0\x01"), "{}", sent.escape_ascii());
    let sent = judged(kind(), true, &[GREETING, OTHER_METHOD, OK]).await.unwrap();
    assert!(sent.ends_with(b"\0\0\0\x03\x01\0\0\0\x01"), "{}", sent.escape_ascii());
    assert!(judged(kind(), true, &[GREETING, DENIED]).await.is_ok());
}

#[tokio::test]
async fn mysql_that_takes_no_session_is_down_with_its_text() {
    let kind = || CheckKind::Mysql { user: "me".to_owned() };
    for (answers, expected) in [
        (&[b"\x17\0\0\0\xff\x10\x04Too many connections" as &[u8]][..], "error 1040: Too many connections"),
        (&[GREETING, b"\x11\0\0\x02\xff\x1d\x04#HY000stopping"], "error 1053: stopping"),
        (&[b"220 mail.example\r\n"], "answered \"220 mail.example\", which is not the protocol of MySQL"),
    ] {
        assert_eq!(judged(kind(), true, answers).await.unwrap_err(), expected);
    }
}

#[tokio::test]
async fn postgres_is_left_where_it_does_not_mind() {
    let kind = || CheckKind::Postgres { user: "me".to_owned() };
    const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0K\0\0\0\x0c12345678Z\0\0\0\x05I";
    const PASSWORD: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    let sent = judged(kind(), false, &[READY]).await.unwrap();
    assert!(sent.ends_with(b"sessile\0\0X\0\0\0\x04"), "{}", sent.escape_ascii());
    let sent = judged(kind(), false, &[PASSWORD]).await.unwrap();
    assert!(sent.ends_with(b"sessile\0\0"), "{}", sent.escape_ascii());
    for (answer, expected) in [
        (b"E\0\0\0\x1aC57P03\0Mstarting up\0\0\0" as &[u8], "57P03: starting up"),
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            "answered \"HTTP/1.1 400 Bad Request\", which is not the protocol of PostgreSQL",
        ),
        (b"R\0\0\0\x17", "closed the connection: answered \"R\\x00\\x00\\x00\\x17\""),
    ] {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        });
        assert_eq!(complaint(&address, &settings(kind())).await, expected);
    }
}

#[tokio::test]
async fn a_mail_server_greets_and_answers() {
    let sent = judged(CheckKind::Smtp, true, &[b"220-a\r\n220 b\r\n", b"250-a\r\n250 SIZE\r\n"]).await.unwrap();
    assert_eq!(sent, b"EHLO localhost\r\nQUIT\r\n");
    for (answers, expected) in [
        (&[b"421 busy\r\n" as &[u8]][..], r#"greeting: answered "421 busy""#),
        (&[b"220 a\r\n", b"502 what?\r\n"], r#"EHLO: answered "502 what?""#),
        (&[b"220 a\r\n", b"250-a\r\n421 bye\r\n"], r#"EHLO: answered "421 bye""#),
    ] {
        assert_eq!(judged(CheckKind::Smtp, true, answers).await.unwrap_err(), expected);
    }
}
