//! Checks against real sockets on loopback.

use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::LazyLock;

use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::config::{self, Balance, HttpCheck, ProxyVersion};

mod agent;
mod requests;
mod services;
mod talk;

const HTTP: HttpCheck = HttpCheck {
    tls: false,
    method: "GET",
    path: String::new(),
    host: None,
    headers: vec![],
    status_min: 200,
    status_max: 399,
    expect: vec![],
};

fn settings(kind: CheckKind) -> CheckSettings {
    let check = Check {
        kind,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        rise: 2,
        fall: 2,
        flap_damping: 8,
        port: None,
        agent: None,
        sni: None,
    };
    CheckSettings {
        check,
        proxy: None,
        source: vec![],
        on_marked_down: OnMarkedDown::Keep,
        drain_deadline: Duration::from_secs(60),
        http: PoolHttp::Off,
        tls: None,
    }
}

fn pool_of(settings: &CheckSettings, backends: &[(&str, &Address)]) -> config::Pool {
    let backend = |(name, address): &(&str, &Address)| config::Backend::of_test(name, (*address).clone());
    config::Pool {
        balance: Balance::Random,
        key: vec![],
        check: Some(settings.check.clone()),
        on_marked_down: settings.on_marked_down,
        ..config::Pool::of_test(backends.iter().map(backend).collect())
    }
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    (listener, address)
}

/// A backend that reads until `until`, answers and closes; the first request it saw.
async fn scripted(until: &'static [u8], response: &'static str) -> (Address, oneshot::Receiver<Vec<u8>>) {
    let (listener, address) = listen().await;
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut seen = Vec::new();
        while !seen.ends_with(until) {
            if stream.read_buf(&mut seen).await.unwrap() == 0 {
                break;
            }
        }
        stream.write_all(response.as_bytes()).await.ok();
        stream.shutdown().await.ok();
        tell.send(seen).ok();
    });
    (address, told)
}

async fn complaint(address: &Address, settings: &CheckSettings) -> String {
    match run(address, settings).await {
        Err(CheckFailure::Backend(complaint)) => complaint,
        other => panic!("expected a complaint, got {other:?}"),
    }
}

#[tokio::test]
async fn a_tcp_check_connects() {
    let (listener, address) = listen().await;
    run(&address, &settings(CheckKind::Tcp)).await.unwrap();
    drop(listener);
    assert!(complaint(&address, &settings(CheckKind::Tcp)).await.contains("refused"));
}

#[tokio::test]
async fn a_check_may_use_another_port_and_a_source_of_the_pool() {
    let (listener, address) = listen().await;
    let Address::Tcp(real) = address else { unreachable!() };
    let mut settings = settings(CheckKind::Tcp);
    settings.check.port = Some(real.port());
    settings.source = vec!["::1".parse().unwrap(), "127.0.0.9".parse().unwrap()];
    run(&Address::Tcp("127.0.0.1:1".parse().unwrap()), &settings).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().1.ip().to_string(), "127.0.0.9");
}

#[tokio::test]
async fn a_unix_backend_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app");
    let listener = StdUnixListener::bind(&path).unwrap();
    let address = Address::Unix(path);
    run(&address, &settings(CheckKind::Tcp)).await.unwrap();
    drop(listener);
    assert!(complaint(&address, &settings(CheckKind::Tcp)).await.contains("refused"));
}

#[tokio::test]
async fn an_http_check_asks_properly_and_reads_the_status() {
    let kind = CheckKind::Http(HttpCheck {
        path: "/up?a=b".to_owned(),
        host: Some("app.example".to_owned()),
        status_max: 299,
        ..HTTP
    });
    let answer = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let (address, told) = scripted(b"\r\n\r\n", answer).await;
    run(&address, &settings(kind.clone())).await.unwrap();
    let request = String::from_utf8(told.await.unwrap()).unwrap();
    assert!(request.starts_with("GET /up?a=b HTTP/1.1\r\nHost: app.example\r\n"), "{request}");
    let (address, _) = scripted(b"\r\n\r\n", "HTTP/1.0 503 Busy\r\n\r\n").await;
    assert_eq!(complaint(&address, &settings(kind)).await, "status 503, expected 200-299");
}

#[tokio::test]
async fn what_is_not_a_whole_http_response_fails() {
    for (response, expected) in [
        ("SSH-2.0-OpenSSH_9.9\r\n", "response refused: bad_status_line: "),
        ("HTTP/1.1 200 OK\r\nserver", "response: closed before"),
        ("", "response: closed before"),
    ] {
        let (address, _) = scripted(b"\r\n\r\n", response).await;
        let complaint = complaint(&address, &settings(CheckKind::Http(HTTP))).await;
        assert!(complaint.starts_with(expected), "{complaint}");
    }
}

#[tokio::test]
async fn a_check_announces_itself_as_local() {
    for (version, header) in
        [(ProxyVersion::V1, &b"PROXY UNKNOWN\r\n"[..]), (ProxyVersion::V2, b"\r\n\r\n\0\r\nQUIT\n\x20")]
    {
        let (address, told) = scripted(b"Connection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n").await;
        let settings =
            CheckSettings { proxy: Some(ProxyOut { version, tlvs: vec![] }), ..settings(CheckKind::Http(HTTP)) };
        run(&address, &settings).await.unwrap();
        assert!(told.await.unwrap().starts_with(header), "{version:?}");
    }
}

/// A TLS server with an untrusted certificate; reports the name it was asked for and how the client left.
async fn tls_server(answer: &'static str) -> (Address, oneshot::Receiver<(Option<String>, io::Result<usize>)>) {
    let made = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        if !answer.is_empty() {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        // An end without close_notify would be an error here.
        let left = stream.read(&mut [0]).await;
        tell.send((name, left)).ok();
    });
    (address, told)
}

#[tokio::test]
async fn a_tls_check_shakes_hands_with_any_certificate_and_says_goodbye() {
    for sni in [None, Some("app.example")] {
        let (address, told) = tls_server("").await;
        let mut settings = settings(CheckKind::Tls);
        settings.check.sni = sni.and_then(crate::server_name::ServerName::parse);
        run(&address, &settings).await.unwrap();
        let (name, left) = told.await.unwrap();
        assert_eq!((name.as_deref(), left.unwrap()), (sni, 0));
    }
    let (address, _) = scripted(b"", "220 mail\r\n").await;
    assert!(complaint(&address, &settings(CheckKind::Tls)).await.starts_with("TLS: "));
}

/// A check by TLS of a pool with these rules for TLS.
fn shaking_hands(tls: &str) -> CheckSettings {
    let text = format!(
        "[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\npool = 'p'\n\
         [[pool]]\nname = 'p'\ntls = {{ {tls} }}\nbackend = [{{ name = 'a', address = '127.0.0.1:1' }}]\n"
    );
    let config = config::check(&text, &|_| Err(io::Error::other("no names"))).unwrap().config;
    let termination = Termination::load(&config, None, crate::clock::now_ms).unwrap();
    CheckSettings { tls: termination.upstream("p").cloned(), ..settings(CheckKind::Tls) }
}

#[tokio::test]
async fn a_tls_check_asks_for_the_http2_of_its_pool() {
    for (http, complaint) in
        [(PoolHttp::Http2, Some("TLS: the backend does not choose \"h2\" by ALPN")), (PoolHttp::Http1, None)]
    {
        let (address, _told) = tls_server("").await;
        let settings = CheckSettings { http, ..shaking_hands("verify = false") };
        match (run(&address, &settings).await, complaint) {
            (Ok(()), None) => {}
            (Err(CheckFailure::Backend(text)), Some(complaint)) => assert_eq!(text, complaint),
            (other, _) => panic!("{http:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_check_believes_whom_its_pool_believes() {
    for (tls, is_believed) in [("verify = false", true), (&*format!("pin = \"sha256:{}\"", "00".repeat(32)), false)] {
        let (address, _told) = tls_server("").await;
        let settings = shaking_hands(tls);
        assert_eq!(run(&address, &settings).await.is_ok(), is_believed, "{tls}");
    }
}

#[tokio::test]
async fn an_https_check_reads_the_status_inside_tls() {
    let (address, told) = tls_server("HTTP/1.1 200 OK\r\n\r\n").await;
    let kind = CheckKind::Http(HttpCheck { tls: true, path: "/".to_owned(), status_max: 200, ..HTTP });
    run(&address, &settings(kind)).await.unwrap();
    assert_eq!(told.await.unwrap().1.unwrap(), 0);
}

#[test]
fn local_errors_are_not_the_backends_fault() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM] {
        assert!(matches!(CheckFailure::from_io("connect", errno.into()), CheckFailure::Local(_)), "{errno}");
    }
    assert!(matches!(CheckFailure::from_io("connect", Errno::CONNREFUSED.into()), CheckFailure::Backend(_)));
    assert!(matches!(CheckFailure::from_io("TLS", io::Error::other("alert")), CheckFailure::Backend(_)));
}

#[test]
fn intervals_vary_by_a_tenth() {
    let interval = Duration::from_secs(10);
    let of = |random| jittered(interval, random).as_secs_f64();
    assert!((of(0) - 9.0).abs() < 1e-6 && (of(u64::MAX) - 11.0).abs() < 1e-6);
}

fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}

#[tokio::test]
async fn a_backend_goes_down_and_comes_up_with_its_service() {
    let (listener, address) = listen().await;
    let settings = CheckSettings { on_marked_down: OnMarkedDown::Close, ..settings(CheckKind::Tcp) };
    let pool = Arc::new(Pool::new(&pool_of(&settings, &[("a", &address)]), None, 1));
    let backend = pool.backends()[0].clone();
    let mut probes = Probes::new(now_ms);
    probes.adopt(std::slice::from_ref(&pool), &Termination::default());
    until("checked", || backend.standing() == CheckState::Up).await;
    drop(listener);
    until("down", || backend.standing() == CheckState::Down).await;
    assert!(backend.closing() && !backend.usable(now_ms()));
    assert!(backend.complaint().contains("refused"), "{}", backend.complaint());
    let Address::Tcp(address) = address else { unreachable!() };
    let _listener = TcpListener::bind(address).await.unwrap();
    until("up again", || backend.usable(now_ms())).await;
    assert!(!backend.closing());
}

#[tokio::test]
async fn a_backend_that_never_answers_is_down_after_the_timeout() {
    let (_listener, address) = listen().await;
    let mut settings = settings(CheckKind::Http(HTTP));
    settings.check.timeout = Duration::from_millis(50);
    let pool = Arc::new(Pool::new(&pool_of(&settings, &[("a", &address)]), None, 1));
    let mut probes = Probes::new(now_ms);
    probes.adopt(std::slice::from_ref(&pool), &Termination::default());
    until("down", || pool.backends()[0].standing() == CheckState::Down).await;
    assert_eq!(pool.backends()[0].complaint(), "timeout after 50ms");
}

#[tokio::test]
async fn adopting_keeps_carried_checks_and_ends_those_of_others() {
    let (_listener, here) = listen().await;
    let (_other, there) = listen().await;
    let settings = settings(CheckKind::Tcp);
    let mut config = pool_of(&settings, &[("kept", &here), ("moved", &here), ("gone", &here)]);
    let first = Arc::new(Pool::new(&config, None, 1));
    let mut probes = Probes::new(now_ms);
    let ids = |probes: &Probes| -> AHashMap<String, tokio::task::Id> {
        probes.tasks.iter().map(|((_, name), task)| (name.clone(), task.handle.id())).collect()
    };
    probes.adopt(std::slice::from_ref(&first), &Termination::default());
    let before = ids(&probes);
    config = pool_of(&settings, &[("kept", &here), ("moved", &there), ("new", &here)]);
    config.backends[0].weight = 7;
    let second = Arc::new(Pool::new(&config, Some(&first), 1));
    probes.adopt(std::slice::from_ref(&second), &Termination::default());
    let after = ids(&probes);
    assert_eq!(probes.running(), 3);
    assert_eq!(before["kept"], after["kept"]);
    assert_ne!(before["moved"], after["moved"]);
    assert!(!after.contains_key("gone"));
    until("new is up", || second.backends()[2].standing() == CheckState::Up).await;

    config.check.as_mut().unwrap().fall = 9;
    let third = Arc::new(Pool::new(&config, Some(&second), 1));
    probes.adopt(std::slice::from_ref(&third), &Termination::default());
    assert_ne!(ids(&probes)["kept"], before["kept"], "settings changed");

    let gone = first.backends()[2].clone();
    drop((first, second));
    until("the ended task has let go", || Arc::strong_count(&gone) == 1).await;

    config.check = None;
    let last = Arc::new(Pool::new(&config, Some(&third), 1));
    probes.adopt(std::slice::from_ref(&last), &Termination::default());
    assert_eq!((probes.running(), last.backends()[0].standing()), (0, CheckState::Unchecked));
}

#[tokio::test]
async fn a_running_check_holds_no_pool() {
    let (_listener, address) = listen().await;
    let pool = Arc::new(Pool::new(&pool_of(&settings(CheckKind::Tcp), &[("a", &address)]), None, 1));
    let mut probes = Probes::new(now_ms);
    probes.adopt(std::slice::from_ref(&pool), &Termination::default());
    let held = Arc::downgrade(&pool);
    drop(pool);
    assert!(held.upgrade().is_none());
}
