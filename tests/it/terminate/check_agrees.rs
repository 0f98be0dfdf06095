//! The HTTP check and the data path give every response one verdict: a check fails where clients get a 502.
//!
//! Takes the responses of the corpus to a GET in HTTP/1.1, but for those that are refused only in their body, which no
//! check reads.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;
use sessile::http::head::ResponseReader;
use sessile::http::upgrade::RequestMeta;
use sessile::http::{Method, Progress, Version};

use super::framing::corpus::{Case, Kind, Verdict, cases};
use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile, eventually};

/// The cases, with those that are refused in their body left out.
fn responses() -> Vec<Case> {
    let meta = RequestMeta { method: Method::Get, version: Version::Http11, persists: false, upgrade: None };
    let head_is_good = |mut bytes: &[u8]| {
        let mut reader = ResponseReader::new();
        while let Progress::Done(length) = reader.read(bytes, meta) {
            if !reader.response(bytes).is_interim() {
                return true;
            }
            bytes = &bytes[length..];
            if reader.pass_interim().is_err() {
                return false;
            }
        }
        false
    };
    let is_in_body = |case: &Case| matches!(case.verdict, Verdict::Refused(..)) && head_is_good(&case.bytes);
    cases().into_iter().filter(|case| case.kind == Kind::Response && !is_in_body(case)).collect()
}

/// Replies to `GET /INDEX` with the bytes of that case, and closes.
fn backend(cases: &[Case]) -> Backend {
    let replies: Vec<_> = cases.iter().map(|case| case.bytes.clone()).collect();
    Backend::serving(move |mut stream| {
        let (mut request, mut piece) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                n => request.extend_from_slice(&piece[..n]),
            }
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let index: usize = text.split(['/', ' ']).nth(2).and_then(|index| index.parse().ok()).expect("GET /INDEX");
        stream.write_all(&replies[index])?;
        stream.shutdown(Shutdown::Write)?;
        let _ = stream.read(&mut piece);
        Ok(())
    })
}

/// One pool a case, whose check asks for that case.
fn checked_pools(count: usize, backend: &Backend) -> String {
    let pool = |index: usize| {
        format!(
            "[[pool]]\nname = \"c{index}\"\nhttp = true\n\
             backend = [{{ name = \"b\", address = \"{}\" }}]\n\
             [pool.check]\nkind = \"http\"\npath = \"/{index}\"\nstatus = \"100-599\"\ninterval = \"1s\"\n",
            backend.address
        )
    };
    (0..count).map(pool).collect()
}

/// What a client gets: the final status, and how the log says that its request ended.
fn data_path(sessile: &Sessile, listener: SocketAddr, index: usize) -> (Option<u16>, String) {
    let mut stream = TcpStream::connect(listener).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(format!("GET /{index} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    // A body that is cut ends with a reset.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let statuses = text.split("\r\n\r\n").map_while(|head| head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = statuses.into_iter().find(|status: &u16| *status >= 200);
    let path = format!("/{index}");
    let line = sessile.line("the request", |line| line["path"] == path.as_str());
    (status, line["ended"].as_str().expect("a word").to_owned())
}

/// The verdicts of the checks, in order: whether the backend is up, and the complaint.
fn checks(sessile: &Sessile, count: usize) -> Vec<(bool, String)> {
    let verdict = |pool: &Value| {
        let backend = &pool["backends"][0];
        let complaint = backend["complaint"].as_str().unwrap_or_default().to_owned();
        (backend["state"] != "unchecked").then(|| (backend["state"] == "up", complaint))
    };
    eventually("the first check of every pool", || {
        let status = sessile.status();
        let pools = status["pools"].as_array()?;
        let find = |index| pools.iter().find(|pool| pool["name"] == format!("c{index}").as_str());
        (0..count).map(|index| find(index).and_then(verdict)).collect()
    })
}

#[test]
fn a_backend_is_up_exactly_if_clients_get_its_response() {
    let cases = responses();
    assert!(cases.len() >= 40, "{}", cases.len());
    let backend = backend(&cases);
    let text = listener("p", "") + &pool("p", "http = true\n", &[backend.address]);
    let sessile = Sessile::start(&(text + &checked_pools(cases.len(), &backend)));
    let address = sessile.address("l");
    let mut wrong = String::new();
    for (index, (case, (up, complaint))) in cases.iter().zip(checks(&sessile, cases.len())).enumerate() {
        let (status, ended) = data_path(&sessile, address, index);
        let agree = match ended.as_str() {
            "response_refused" => {
                let word = match case.verdict {
                    Verdict::Refused(word, _) => word,
                    // The refused response comes behind an interim one.
                    _ => "",
                };
                status == Some(502) && !up && complaint.starts_with(&format!("response refused: {word}"))
            }
            "response_cut" if status == Some(502) => !up && complaint.starts_with("response: closed before"),
            // The check allows statuses to 599.
            _ if status > Some(599) => !up && complaint.starts_with("status "),
            _ => up && complaint.is_empty() && matches!(case.verdict, Verdict::Accepted(..) | Verdict::Incomplete(_)),
        };
        if !agree {
            wrong += &format!("{}: client {status:?} {ended}, backend up: {up}, {complaint:?}\n", case.title);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
