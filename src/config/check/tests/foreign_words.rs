//! Tests of the words of other balancers: what they are translated to is accepted, and `check` shows the translation.

use super::{resolve, shown};
use crate::config::{check, foreign_words, keys};

/// A file with every table that a translation names. Each way of TLS has other keys.
const FILES: [&str; 5] = [HTTP, RELAY, ANY_CERTIFICATE, REQUESTS, ANSWERS];

const HTTP: &str = "[limits]
[log]
[admin]
[tls]
[[listener]]
name = \"l\"
bind = \"127.0.0.1:0\"
tls = \"terminate\"
pool = \"p\"
[[listener.certificate]]
cert = \"c.pem\"
[[listener.route]]
sni = \"a.example\"
pool = \"p\"
[[pool]]
name = \"p\"
http = true
send_proxy = \"v2\"
[[pool.backend]]
name = \"a\"
address = \"10.0.0.1:80\"
[[pool.backend]]
name = \"b\"
address = \"10.0.0.2:80\"
[pool.check]
kind = \"http\"
[pool.eject]
[pool.cookie]
mode = \"insert\"
[pool.tls]
ca = \"ca.pem\"
";

const RELAY: &str = "[limits]
[[listener]]
name = \"l\"
bind = \"127.0.0.1:0\"
tls = \"passthrough\"
pool = \"p\"
[listener.limits]
[[listener.route]]
sni = \"a.example\"
pool = \"p\"
[[pool]]
name = \"p\"
[[pool.backend]]
name = \"a\"
address = \"10.0.0.1:80\"
[pool.limits]
";

const REQUESTS: &str = "[[listener]]
name = \"l\"
bind = \"127.0.0.1:0\"
[[listener.route]]
host = \"a.example\"
pool = \"p\"
[[pool]]
name = \"p\"
http = true
backend = [\"10.0.0.1:80\"]
";

const ANSWERS: &str = "[[listener]]
name = \"l\"
bind = \"127.0.0.1:0\"
pool = \"p\"
[[listener.route]]
host = \"a.example\"
[[pool]]
name = \"p\"
http = true
backend = [\"10.0.0.1:80\"]
";

const ANY_CERTIFICATE: &str = "[[listener]]
name = \"l\"
bind = \"127.0.0.1:0\"
pool = \"p\"
[[pool]]
name = \"p\"
backend = [\"10.0.0.1:80\"]
[pool.tls]
";

/// The file with a line in a table, in the place of what the table says of that key.
fn with(file: &str, line: &str, table: &str) -> String {
    let key = line.split(" = ").next().unwrap();
    let below = format!("{}.{key}", table.trim_matches(['[', ']']));
    let (mut here, mut text) = (table.is_empty(), String::new());
    if table.is_empty() {
        text += &format!("{line}\n");
    }
    let (mut is_done, mut is_replaced) = (table.is_empty(), false);
    for written in file.lines() {
        if written.starts_with('[') {
            here = written == table;
            is_replaced = written.trim_matches(['[', ']']) == below;
        }
        let says_otherwise = here && written.starts_with(&format!("{key} = "));
        if !is_replaced && !says_otherwise {
            text += &format!("{written}\n");
        }
        if here && !is_done {
            text += &format!("{line}\n");
            is_done = true;
        }
    }
    text
}

#[test]
fn what_is_written_for_a_foreign_word_is_accepted() {
    let mut wrong = String::new();
    for word in foreign_words().iter().filter(|word| !word.ours.is_empty()) {
        if word.ours.starts_with('[') {
            assert!(keys::ALL.iter().any(|table| table.table == word.ours), "{word}");
            continue;
        }
        let at_top = word.ours.strip_suffix(" at the top of the file").map(|line| (line, ""));
        let (line, table) = at_top.or_else(|| word.ours.rsplit_once(" in ")).expect(word.ours);
        let known = keys::ALL.iter().find(|known| known.table == table).expect(word.ours);
        assert!(known.keys.contains(&line.split(" = ").next().unwrap()), "{word}");
        let found: Vec<_> = FILES.iter().map(|file| check(&with(file, line, table), &resolve)).collect();
        let is_written = FILES.iter().any(|file| with(file, line, table).contains(line));
        if !is_written || !found.iter().any(Result::is_ok) {
            wrong += &format!(
                "{word}\n{}\n",
                found.into_iter().filter_map(Result::err).map(|p| shown(&p)).collect::<String>()
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Hints of all problems that a text has.
fn hints(text: &str) -> Vec<String> {
    let problems = check(text, &resolve).unwrap_err();
    problems.into_iter().filter_map(|problem| problem.hint).collect()
}

#[test]
fn a_value_of_another_balancer_is_translated_at_its_place() {
    for (word, expected) in [
        ("leastconn", "\"leastconn\" of HAProxy is balance = \"least_connections\" in [[pool]]"),
        ("ip_hash", "\"ip_hash\" of nginx is balance = \"hash\" in [[pool]]; "),
        ("RING_HASH", "\"RING_HASH\" of Envoy is balance = \"ring\" in [[pool]]"),
        ("wrr", "\"wrr\" of Traefik is balance = \"round_robin\" in [[pool]]"),
        ("weighted_random", "\"weighted_random\" of AWS is balance = \"random\" in [[pool]]"),
        ("uri", "\"uri\" of HAProxy is key = \"path:16\" in [[pool]]; "),
    ] {
        let text = with(RELAY, &format!("balance = \"{word}\""), "[[pool]]");
        let found = hints(&text);
        assert!(matches!(&found[..], [hint] if hint.starts_with(expected)), "{word}: {found:?}");
    }
    let mode = hints(&with(RELAY, "mode = \"http\"", "[[listener]]"));
    assert!(
        matches!(&mode[..], [hint] if hint.starts_with("\"mode http\" of HAProxy is http = true in [[pool]]")),
        "{mode:?}"
    );
}

/// A file has a hint at every line, however long it is, but for those that look like lines of ours and for names.
#[test]
fn files_of_other_balancers_are_translated_to_their_last_line() {
    for (file, without) in [
        (include_str!("../../../../config/migrate/haproxy-cookie-site.cfg"), 0),
        (include_str!("../../../../config/migrate/haproxy-tcp-stick-table.cfg"), 0),
        (include_str!("../../../../config/migrate/haproxy-sni.cfg"), 0),
        (include_str!("../../../../config/migrate/haproxy-dns.cfg"), 0),
        (include_str!("../../../../config/migrate/nginx-http.conf"), 1),
        (include_str!("../../../../config/migrate/nginx-stream.conf"), 3),
    ] {
        let problems = check(file, &resolve).unwrap_err();
        let closes = |line: &str| line.trim().trim_matches(['}', ' ']).is_empty();
        let bare: Vec<_> = problems
            .iter()
            .filter(|problem| problem.hint.is_none())
            .filter_map(|problem| file.lines().nth(problem.line - 1))
            .filter(|line| !closes(line))
            .collect();
        assert!(bare.len() <= without, "{bare:#?}");
    }
}

#[test]
fn a_key_or_a_line_of_another_balancer_is_translated() {
    for (line, expected) in [
        ("sticky = true", "\"sticky\" of nginx is cookie = \"insert\" in [[pool]]"),
        ("timeout.connect = \"5s\"", "\"timeout connect\" of HAProxy is connect_timeout = \"2s\" in [[pool]]"),
        ("stickiness.enabled = true", "\"stickiness.enabled\" of AWS is cookie = \"insert\" in [[pool]]"),
        ("balance leastconn", "\"leastconn\" of HAProxy is balance = \"least_connections\" in [[pool]]"),
        ("option httpchk GET /up", "\"option httpchk\" of HAProxy is check = \"http\" in [[pool]]; "),
        ("alpn h2,http/1.1", "\"alpn h2,http/1.1\" of HAProxy is http2 = true in [[listener]]; the default"),
        ("http2 on;", "\"http2 on\" of nginx is http2 = true in [[listener]]; the default"),
        ("http2_protocol_options = {}", "\"http2_protocol_options\" of Envoy is http2 = true in [[listener]]; "),
    ] {
        let found = hints(&with(RELAY, line, "[[pool]]"));
        assert!(found.iter().any(|hint| hint.starts_with(expected)), "{line}: {found:?}");
    }
}
