//! Pages of a listener for replies of sessile itself.

use super::Asking;
use crate::support::backend::pool;
use crate::support::program::free_address;
use crate::support::{Sessile, has};

#[test]
fn a_reply_has_the_page_of_its_status_and_others_their_own_text() {
    if !has("a_reply_has_the_page_of_its_status_and_others_their_own_text", "curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (gone, nowhere) = (dir.path().join("503.html"), dir.path().join("nowhere"));
    std::fs::write(&gone, "<p>soon back</p>").unwrap();
    std::fs::write(&nowhere, "<p>nowhere</p>").unwrap();
    let pages = format!("error_page = {{ 503 = \"{}\", 404 = \"{}\" }}\n", gone.display(), nowhere.display());
    let route = "[[listener.route]]\npath = [\"/api\"]\npool = \"p\"\n";
    let listener = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n{pages}{route}");
    let text = listener + &pool("p", "http = true\n", &[free_address()]);
    let sessile = Sessile::start(&text);
    let asking = Asking::plain(sessile.address("l"));
    for asking in &asking {
        for (path, status, page) in [("/api", 503, "<p>soon back</p>"), ("/x", 404, "<p>nowhere</p>")] {
            let got = asking.get(&format!("a.test{path}"));
            assert_eq!((got.status, &*got.body), (status, page));
            assert_eq!(got.field("content-type"), Some("text/html; charset=utf-8"));
            assert_eq!(got.field("cache-control"), Some("no-store"));
            assert!(got.field("x-request-id").is_some());
            let head = asking.with(&["--head"], &format!("a.test{path}"));
            assert_eq!((head.status, &*head.body), (status, ""));
            assert_eq!(head.field("content-length"), Some(page.len().to_string().as_str()));
        }
    }
    let refused = asking[0].with(&["--header", "Host: a b"], "a.test/");
    assert_eq!(refused.status, 400);
    assert!(refused.body.starts_with("400 Bad Request\n"), "{}", refused.body);
    std::fs::write(&gone, "later").unwrap();
    let verdict = sessile.reload(&text);
    assert_eq!(verdict["changes"][0], format!("file \"{}\" changed", gone.display()), "{verdict}");
    assert_eq!(asking[1].get("a.test/api").body, "later");
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_at_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("long.html");
    std::fs::write(&long, "x".repeat((64 << 10) + 1)).unwrap();
    let file = dir.path().join("sessile.toml");
    let page = |name: &str| {
        let listener = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n";
        let path = dir.path().join(name).display().to_string();
        let pool = pool("p", "http = true\n", &[free_address()]);
        std::fs::write(&file, format!("{listener}[listener.error_page]\n503 = \"{path}\"\n{pool}")).unwrap();
        let said = crate::support::sessile::run(&["check", file.to_str().unwrap()]);
        String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout)
    };
    let said = page("missing.html");
    assert!(said.contains(":6:7: listener \"l\": error_page: 503 \"") && said.contains("No such file"), "{said}");
    let said = page("long.html");
    assert!(said.contains("it is longer than 64 KiB"), "{said}");
}
