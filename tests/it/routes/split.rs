//! Splits: browsers with cookies over weights that change, restarts, two instances, drains and failures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use super::Asking;
use crate::http2::client::Client;
use crate::support::backend::pool;
use crate::support::http::unix_post;
use crate::support::program::free_address;
use crate::support::rng::Rng;
use crate::support::sessile::run;
use crate::support::{Sessile, has};
use crate::terminate::backend::Recorder;

/// A site of three versions behind one split.
struct Site {
    dir: tempfile::TempDir,
    versions: [Recorder; 3],
}

const NAMES: [&str; 3] = ["stable", "canary", "next"];

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("cookie.keys"),
            "8f14e45fceea167a5a36dedd4bea25437c6a180b36896a0a8c02787eeafb0e4c\n",
        )
        .unwrap();
        Self { dir, versions: NAMES.map(Recorder::named) }
    }

    /// The file with these weights; a pool without one is not in the split.
    fn file(&self, weights: [Option<u16>; 3]) -> String {
        let to = NAMES
            .iter()
            .zip(weights)
            .filter_map(|(name, weight)| Some(format!("{{ pool = \"{name}\", weight = {} }}", weight?)));
        let to = to.collect::<Vec<_>>().join(", ");
        let keys = self.dir.path().join("cookie.keys").display().to_string();
        let split = format!("[[split]]\nname = \"web\"\nto = [{to}]\n[split.cookie]\nkeys = \"{keys}\"\n");
        let listener = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nsplit = \"web\"\n\
            [[listener.route]]\npath = \"/stable\"\npool = \"stable\"\n";
        let cookie = format!("http = true\ncookie = {{ mode = \"insert\", keys = \"{keys}\" }}\n");
        let pools = NAMES.iter().zip(&self.versions).map(|(name, site)| pool(name, &cookie, &[site.address()]));
        listener.to_owned() + &split + &pools.collect::<String>()
    }

    fn browser(&self, number: usize) -> Browser {
        Browser { jar: self.dir.path().join(format!("jar{number}")) }
    }
}

/// A client that keeps its cookies.
struct Browser {
    jar: PathBuf,
}

impl Browser {
    /// The version that answers.
    fn visit(&self, asking: &Asking) -> String {
        self.asks(asking, "a.test/").1
    }

    fn asks(&self, asking: &Asking, url: &str) -> (u16, String) {
        let jar = self.jar.to_str().unwrap();
        let got = asking.with(&["--cookie", jar, "--cookie-jar", jar], url);
        (got.status, got.body.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Its cookies as a request has them.
    fn cookies(&self) -> String {
        let text = std::fs::read_to_string(&self.jar).unwrap_or_default();
        let pair = |line: &str| {
            let fields: Vec<_> = line.trim_start_matches("#HttpOnly_").split('\t').collect();
            Some(format!("{}={}", fields.get(5)?, fields.get(6)?))
        };
        text.lines().filter_map(pair).collect::<Vec<_>>().join("; ")
    }
}

fn explain(place: &[&str], cookies: &str) -> Value {
    let more = ["--host", "a.test", "--cookie", cookies];
    let more = if cookies.is_empty() { &more[..2] } else { &more[..] };
    let said = run(&[&["explain", "--json", "--client", "127.0.0.1"][..], place, more].concat());
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{said:?}"))
}

#[test]
fn browsers_keep_their_version_through_weights_a_restart_and_another_instance() {
    if !has("browsers_keep_their_version_through_weights_a_restart_and_another_instance", "curl") {
        return;
    }
    let site = Site::new();
    let mut one = Sessile::start(&site.file([Some(1), Some(1), Some(0)]));
    let browsers: Vec<_> = (0..8).map(|number| site.browser(number)).collect();
    let homes: Vec<_> = {
        let asking = Asking::plain(one.address("l"));
        browsers.iter().enumerate().map(|(number, browser)| browser.visit(&asking[number % 2])).collect()
    };
    let at_canary = homes.iter().filter(|home| **home == "canary").count();
    assert!((3..=5).contains(&at_canary), "{homes:?}");
    for round in 0..5 {
        match round {
            3 => {
                one.signal(Signal::TERM);
                one.wait();
                one.restart();
            }
            _ => {
                let verdict = one.reload(&site.file([Some(round), Some(9 * round % 5), Some(1)]));
                assert_eq!(verdict["accepted"], true, "{verdict}");
            }
        }
        let two = Sessile::start(&site.file([Some(0), Some(0), Some(1)]));
        for instance in [&one, &two] {
            let asking = Asking::plain(instance.address("l"));
            for (browser, home) in browsers.iter().zip(&homes) {
                assert_eq!(browser.visit(&asking[usize::from(round % 2 == 0)]), *home, "round {round}");
            }
        }
        assert_eq!(two.sum("sessile_split_requests_total", &["by=\"cookie\""]), 8.0);
    }
    // The split without their version gives them another one, once.
    one.reload(&site.file([Some(1), None, None]));
    let asking = Asking::plain(one.address("l"));
    assert!(browsers.iter().all(|browser| browser.visit(&asking[0]) == "stable"));
}

#[test]
fn backends_never_see_the_cookie_of_the_split_and_the_log_names_the_choice() {
    if !has("backends_never_see_the_cookie_of_the_split_and_the_log_names_the_choice", "curl") {
        return;
    }
    let site = Site::new();
    let sessile = Sessile::start(&site.file([Some(0), Some(1), Some(0)]));
    let [asking, _] = Asking::plain(sessile.address("l"));
    let first = asking.get("a.test/first");
    let lines: Vec<_> = first.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie")).collect();
    assert_eq!(lines.len(), 2, "{}", first.head);
    assert!(lines[0].contains("SESSILE-web=") && lines[1].contains("SESSILE-canary="), "{lines:?}");
    assert!(lines[0].contains("; Max-Age=86400; Path=/; HttpOnly; SameSite=Lax"), "{}", lines[0]);
    assert_eq!(first.field("cache-control"), Some("private"));
    let browser = site.browser(0);
    browser.visit(&asking);
    browser.asks(&asking, "a.test/second");
    browser.asks(&asking, "a.test/stable");
    let cookies = browser.cookies();
    let own = cookies.split("; ").find(|pair| pair.starts_with("SESSILE-web=")).unwrap();
    let why = run(&["why", own, "--socket", sessile.admin().to_str().unwrap()]);
    let why = String::from_utf8_lossy(&why.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(why.contains("The cookie SESSILE-web of split web is fresh: it is valid (it names canary)."), "{why}");
    let heads = String::from_utf8_lossy(&site.versions[1].seen().concat()).into_owned();
    assert!(heads.contains("GET /second") && !heads.contains("SESSILE-web"), "{heads}");
    for (path, split, by) in [("/first", "web", "weight"), ("/second", "web", "cookie")] {
        let line = sessile.line("the request", |line| line["path"] == path);
        assert_eq!((&line["split"], &line["split_by"], &line["pool"]), (&split.into(), &by.into(), &"canary".into()));
    }
    let line = sessile.line("the request", |line| line["path"] == "/stable");
    assert_eq!((&line["split"], &line["pool"]), (&Value::Null, &"stable".into()), "{line}");
    let counted = |by: &str| {
        sessile.metric(&format!("sessile_split_requests_total{{split=\"web\",pool=\"canary\",by=\"{by}\"}}"))
    };
    assert_eq!([counted("weight"), counted("cookie"), counted("connection")], [2.0, 1.0, 0.0]);
}

#[test]
fn requests_of_one_connection_of_http2_get_one_version() {
    let site = Site::new();
    let sessile = Sessile::start(&site.file([Some(1), Some(1), Some(1)]));
    for _ in 0..6 {
        let client = Client::plain(sessile.address("l"));
        let version = |number: u8| {
            let body = client.get(&format!("/{number}"), &[]).body;
            String::from_utf8_lossy(&body).split(' ').next().map(str::to_owned)
        };
        let versions: BTreeSet<_> = (1..=4).map(version).collect();
        assert_eq!(versions.len(), 1, "{versions:?}");
    }
    assert_eq!(sessile.sum("sessile_split_requests_total", &["by=\"weight\""]), 6.0);
    assert_eq!(sessile.sum("sessile_split_requests_total", &["by=\"connection\""]), 18.0);
}

#[test]
fn new_clients_avoid_a_version_that_drains_and_known_ones_see_the_one_that_fails() {
    if !has("new_clients_avoid_a_version_that_drains_and_known_ones_see_the_one_that_fails", "curl") {
        return;
    }
    let site = Site::new();
    let sessile = Sessile::start(&site.file([Some(1), Some(1), None]));
    let [asking, _] = Asking::plain(sessile.address("l"));
    let browser = site.browser(0);
    let home = browser.visit(&asking);
    let other = NAMES[..2].iter().find(|name| **name != home).unwrap();
    let (status, said) = unix_post(&sessile.admin(), &format!("/backends/{home}/b0/drain")).unwrap();
    assert_eq!(status, 200, "{said}");
    for _ in 0..5 {
        assert!(asking.get("a.test/").body.starts_with(&format!("{other} ")));
        assert_eq!(browser.visit(&asking), home, "it is known there");
    }
    // A version that fails keeps its clients: they see it, and no new one comes there once it is known to be down.
    let dead = site.file([Some(1), Some(1), None]).replace(&address(&site, &home), &free_address().to_string());
    assert_eq!(sessile.reload(&dead)["accepted"], true);
    assert_eq!(browser.asks(&asking, "a.test/").0, 503);
    let ready = unix_post(&sessile.admin(), &format!("/backends/{home}/b0/ready")).unwrap();
    assert_eq!(ready.0, 200, "{}", ready.1);
    assert_eq!(browser.asks(&asking, "a.test/").0, 503);
    assert_eq!(browser.asks(&asking, "a.test/").0, 503);
    // A new client that came there has no cookie of the split: the next request may go elsewhere.
    let statuses: Vec<_> = (0..4).map(|_| asking.get("a.test/")).collect();
    let failed = statuses.iter().filter(|got| got.status == 503);
    assert!(failed.clone().all(|got| got.field("set-cookie").is_none()));
    assert!(statuses.iter().any(|got| got.status == 200));
}

fn address(site: &Site, version: &str) -> String {
    let index = NAMES.iter().position(|name| *name == version).unwrap();
    site.versions[index].address().to_string()
}

#[test]
fn explain_is_what_requests_do() {
    if !has("explain_is_what_requests_do", "curl") {
        return;
    }
    let mut rng = Rng(20_261_130);
    let site = Site::new();
    let sessile = Sessile::start(&site.file([Some(1), Some(1), Some(1)]));
    let (file, socket) = (sessile.file().display().to_string(), sessile.admin().display().to_string());
    let places: [&[&str]; 2] = [&["--live", "--socket", &socket], &["--config", &file]];
    let browsers: Vec<_> = (0..6).map(|number| site.browser(number)).collect();
    for round in 0..4 {
        let weights: [Option<u16>; 3] = std::array::from_fn(|index| {
            (rng.below(4) > 0 || index == round % 3).then(|| rng.below(3) as u16 + u16::from(index == round % 3))
        });
        assert_eq!(sessile.reload(&site.file(weights))["accepted"], true);
        let asking = Asking::plain(sessile.address("l"));
        let total: u16 = weights.iter().flatten().sum();
        for browser in &browsers {
            let said = places.map(|place| explain(place, &browser.cookies()));
            let got = browser.visit(&asking[rng.below(2)]);
            for report in &said {
                let split = &report["split"];
                assert_eq!(split["name"], "web", "{report}");
                match split["by"].as_str() {
                    Some("cookie") => {
                        assert_eq!((split["pool"].as_str(), report["pool"].as_str()), (Some(&*got), Some(&*got)));
                    }
                    by => {
                        assert_eq!((by, report["pool"].as_str()), (Some("weight"), None), "{report}");
                        let shares: BTreeMap<&str, f64> = split["new_clients"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|share| (share["pool"].as_str().unwrap(), share["share"].as_f64().unwrap()))
                            .collect();
                        assert!(shares[&*got] > 0.0, "{report} {got}");
                        for (name, weight) in NAMES.iter().zip(weights) {
                            let share = weight.map(|weight| f64::from(weight) / f64::from(total));
                            assert_eq!(shares.get(name).copied(), share, "{report}");
                        }
                    }
                }
            }
        }
    }
    let text = |cookies: &str| said_of(&file, cookies);
    assert!(text("").contains("split web, a new client: gets a pool by weight: "), "{}", text(""));
    let known = text(&browsers[0].cookies());
    assert!(known.contains("split web, by the cookie of the split, pool "), "{known}");
}

fn said_of(file: &str, cookies: &str) -> String {
    let asked = ["explain", "--client", "127.0.0.1", "--host", "a.test", "--config", file, "--cookie", cookies];
    let said = run(if cookies.is_empty() { &asked[..7] } else { &asked[..] });
    String::from_utf8_lossy(&said.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_plan_names_the_shares_and_what_routes_lead_to_a_split() {
    let site = Site::new();
    let write = |name: &str, text: &str| {
        let path = site.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let plan = |old: &Path, new: &Path| {
        let said = run(&["plan", old.to_str().unwrap(), new.to_str().unwrap()]);
        String::from_utf8_lossy(&said.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let before = site.file([Some(19), Some(1), None]);
    let (old, new) = (write("old", &before), write("new", &site.file([Some(9), Some(1), None])));
    let said = plan(&old, &new);
    let wanted = "split \"web\": new clients: stable 90.0 %, canary 10.0 % instead of stable 95.0 %, canary 5.0 %; \
        no known client moves";
    assert!(said.contains(wanted), "{said}");
    let alone = write("alone", &before.replace("split = \"web\"\n", "pool = \"stable\"\n"));
    let said = plan(&alone, &old);
    assert!(said.contains("go to split \"web\" instead of \"stable\""), "{said}");
}
