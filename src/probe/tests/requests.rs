//! Tests of requests with a method, header lines and a body that is looked into.

use super::*;

fn looking_for(expect: &str) -> CheckSettings {
    settings(CheckKind::Http(HttpCheck { path: "/".to_owned(), expect: expect.as_bytes().to_vec(), ..HTTP }))
}

#[tokio::test]
async fn a_request_has_its_method_and_header_lines() {
    for (method, headers, expected) in [
        ("HEAD", vec![], "HEAD / HTTP/1.1\r\nHost: h\r\nUser-Agent: sessile\r\nConnection: close\r\n\r\n"),
        (
            "POST",
            vec!["X-Check: yes", "user-agent: me"],
            "POST / HTTP/1.1\r\nHost: h\r\nX-Check: yes\r\nuser-agent: me\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
        ),
    ] {
        // What a response to HEAD declares of its body does not come.
        let (address, told) = scripted(b"\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await;
        let kind = CheckKind::Http(HttpCheck {
            method,
            path: "/".to_owned(),
            host: Some("h".to_owned()),
            headers: headers.into_iter().map(str::to_owned).collect(),
            ..HTTP
        });
        run(&address, &settings(kind)).await.unwrap();
        assert_eq!(String::from_utf8(told.await.unwrap()).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_body_contains_what_is_expected_however_it_is_framed() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is ready",
        "HTTP/1.1 200 OK\r\n\r\nall is ready",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nall is re\r\n3;a=b\r\nady\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready",
    ] {
        let (address, _) = scripted(b"\r\n\r\n", response).await;
        run(&address, &looking_for("ready")).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_without_what_is_expected_fails_with_its_begin() {
    for (response, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nstarting ready",
            r#"body: answered "starting", expected "ready""#,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nrea", r#"body: answered "rea", expected "ready""#),
        ("HTTP/1.1 204 No Content\r\n\r\nready", r#"body: no answer, expected "ready""#),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2;d=ready\r\nxy\r\n0\r\n\r\n",
            r#"body: answered "reaxy", expected "ready""#,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nready", "response refused: bad_chunk"),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nready", "status 503, expected 200-399"),
    ] {
        let (address, _) = scripted(b"\r\n\r\n", response).await;
        let complaint = complaint(&address, &looking_for("ready")).await;
        assert!(complaint.starts_with(expected), "{complaint}");
    }
}
