//! Responses of a backend that come before the end of an upload, as curl reads them: by HTTP/2 and HTTP/1.1, from
//! backends of either version.
//!
//! Invariant: the backend reads no more of the upload than came before its response. Not here: success by HTTP/2, of
//! which curl 7 reads no end, whatever server it comes from.

use std::io::{Read, Write};

use super::{HTTP, line_of, plain};
use crate::http2_backend::site::Http2Site;
use crate::support::backend::Backend;
use crate::support::has;
use crate::support::program::output;
use crate::terminate::Front;
use crate::terminate::programs::{base, curl};

/// An upload that does not fit into the windows and buffers on its way.
const LONG: usize = 24 << 20;

/// Statuses of the responses; what a client does with the rest of its upload depends on them.
const STATUSES: [&str; 3] = ["403", "413", "200"];

/// A backend of HTTP/1.1 that responds with the status in the path, and closes while the body comes.
fn impatient() -> Backend {
    Backend::serving(|stream| {
        let (mut byte, mut seen) = ([0], Vec::new());
        while !seen.ends_with(b"\r\n\r\n") && (&stream).read(&mut byte)? > 0 {
            seen.extend(byte);
        }
        // A byte of the body has come, and will not be read.
        stream.peek(&mut byte)?;
        let head = String::from_utf8_lossy(&seen);
        let status = STATUSES.into_iter().find(|status| head.contains(&format!("/{status} "))).expect("a status");
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 6\r\nConnection: close\r\n\r\nenough");
        (&stream).write_all(text.as_bytes())
    })
}

#[test]
fn curl_reads_the_response_of_a_backend_that_takes_no_more_of_its_upload() {
    let test = "curl_reads_the_response_of_a_backend_that_takes_no_more_of_its_upload";
    if !has(test, "curl") {
        return;
    }
    let (http1, http2) = (impatient(), Http2Site::new());
    let backends = [(HTTP, http1.address), ("http = \"h2\"\n", http2.address)];
    let dir = tempfile::tempdir().unwrap();
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    std::fs::write(&up, vec![b'x'; LONG]).unwrap();
    for (options, address) in backends {
        let (front, clear) = (Front::start("", options, &[address]), plain("", options, &[address]));
        let http = format!("http://{}", clear.address("l"));
        let ways = [
            ("--http2", base(&front)),
            ("--http2-prior-knowledge", http.clone()),
            ("--http1.1", base(&front)),
            ("--http1.1", http),
        ];
        for (way, base) in &ways {
            let is_lost = |status: &str| status == "200" && way.starts_with("--http2");
            for status in STATUSES.into_iter().filter(|status| !is_lost(status)) {
                let _ = std::fs::remove_file(&down);
                let mut curl = curl(&front);
                curl.args([way, "--header", "Expect:", "--write-out", "%{http_code}", "--output"]).arg(&down);
                let said = output(curl.arg("--upload-file").arg(&up).arg(format!("{base}/early/{status}")));
                let text = std::fs::read_to_string(&down).unwrap_or_default();
                assert_eq!((&*said, &*text), (status, "enough"), "{options} {way} {base}");
            }
        }
        let line = line_of(&front.sessile, "/early/413");
        assert_eq!((&line["ended"], &line["status"]), (&"request_cut".into(), &413.into()), "{line}");
    }
}
