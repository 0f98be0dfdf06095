//! Every line against the table of fields, and against the rule of `schema.rs` by a reader of its own.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::access_log::TlsLine;
use crate::access_log::tests::{connection, request};
use crate::log_field::{InLines, LogField, ValueForm};
use crate::outcome::{BreakCause, PickReason};
use crate::random::Random;
use crate::server_name::ServerName;
use crate::split::ChosenBy;
use crate::tls::TlsAlert;

const NOW: u64 = 1_709_251_201_000_000;

fn schema(json: bool) -> Schema {
    Schema { json, fields: LogFields::EVERY }
}

/// A connection with every field.
fn full() -> ConnectionLine {
    ConnectionLine {
        peer: Some("10.0.0.1:9".parse().unwrap()),
        sni: ServerName::parse("www.example.org"),
        ech: true,
        split: Some(("halves".into(), ChosenBy::Key)),
        pool: Some("web".into()),
        range: Some("office".into()),
        backend: Some("a".into()),
        reason: Some(PickReason::Placement),
        attempts: 2,
        connect_us: Some(412),
        tls: Some(Box::new(TlsLine {
            version: "TLSv1.3",
            cipher: Some("TLS_AES_128_GCM_SHA256"),
            resumed: true,
            subject: Some("CN=me".to_owned()),
        })),
        moved: Some(ClientMove { from: Some("b".into()), cause: BreakCause::Down }),
        alert: Some(TlsAlert { received: true, description: rustls::AlertDescription::UnknownCA }),
        sample: 10,
        ..connection()
    }
}

/// A request with every field.
fn full_request() -> RequestLine {
    RequestLine {
        request_id: Some("7f3a".to_owned()),
        user_agent: Some("curl/8".to_owned()),
        session: Some(0x0011_2233_aabb_ccdd),
        status: Some(502),
        route: Some(3),
        split: Some(("front".into(), ChosenBy::Weight)),
        pool: Some("web".into()),
        backend: Some("a".into()),
        reason: Some(PickReason::Cookie),
        cookie: Some("fresh"),
        reused: true,
        first_byte_us: Some(700),
        refused: Some("head_too_long"),
        subject: Some("CN=me".to_owned()),
        moved: Some(ClientMove { from: Some("b".into()), cause: BreakCause::Drain }),
        sample: 10,
        ..request()
    }
}

/// Reads a line of text by the letter of the rule.
fn read(line: &str) -> Result<Vec<(String, String)>, String> {
    let mut rest = line.strip_suffix('\n').ok_or("the line does not end")?;
    let mut fields = Vec::new();
    loop {
        let (name, value) = rest.split_once('=').ok_or("a field without =")?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(format!("name {name:?}"));
        }
        let length = if value.starts_with('"') {
            let mut escaped = false;
            let end = value.bytes().skip(1).position(|byte| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            });
            end.ok_or("a quoted value does not end")? + 2
        } else {
            value.find(' ').unwrap_or(value.len())
        };
        let (written, after) = value.split_at(length);
        let value = if written.starts_with('"') {
            let value: String = serde_json::from_str(written).map_err(|error| format!("{written}: {error}"))?;
            let may_be_bare = |byte: u8| byte.is_ascii_graphic() && !b"\"=\\".contains(&byte);
            if !value.is_empty() && value.bytes().all(may_be_bare) {
                return Err(format!("{written} is quoted without need"));
            }
            value
        } else if !written.is_empty()
            && written.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"=\\".contains(&byte))
        {
            written.to_owned()
        } else {
            return Err(format!("bare value {written:?}"));
        };
        fields.push((name.to_owned(), value));
        match after.strip_prefix(' ') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("{after:?} behind a value")),
        }
    }
}

/// Checks that both forms have the same fields, each with the form that the table gives it; returns them.
fn agree(text: &str, json: &str) -> BTreeMap<String, String> {
    assert_eq!((text.matches('\n').count(), json.matches('\n').count()), (1, 1), "{text:?}");
    let fields = read(text).unwrap_or_else(|why| panic!("{why}: {text:?}"));
    let object: serde_json::Map<String, Value> = serde_json::from_str(json).unwrap();
    assert_eq!(object.len(), fields.len(), "a field comes once: {text:?}");
    let mut table = LogField::ALL.iter();
    for (name, value) in &fields {
        let field = table.find(|field| field.name() == name).unwrap_or_else(|| panic!("{name} is not in its place"));
        match (field.form(), &object[name]) {
            (ValueForm::Text, Value::String(written)) => assert_eq!(written, value),
            (ValueForm::Number, Value::Number(written)) => assert_eq!(&written.to_string(), value),
            (ValueForm::Flag, Value::Bool(true)) => assert_eq!(value, "true"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for name in ["time", "level"] {
        assert!(object.contains_key(name), "{text:?}");
    }
    assert!(object.contains_key("msg") != (object.contains_key("kind") && object.contains_key("started")), "{text:?}");
    fields.into_iter().collect()
}

fn connection_fields(line: &ConnectionLine) -> BTreeMap<String, String> {
    let [text, json] = [false, true].map(|json| {
        let mut out = String::new();
        write(&mut out, line, schema(json), &rfc3339(NOW / 1_000));
        out
    });
    agree(&text, &json)
}

fn request_fields(line: &RequestLine) -> BTreeMap<String, String> {
    let [text, json] = [false, true].map(|json| {
        let mut out = String::new();
        write_request(&mut out, line, schema(json), &rfc3339(NOW / 1_000));
        out
    });
    agree(&text, &json)
}

fn message_fields(message: &str) -> BTreeMap<String, String> {
    let [text, json] = [false, true].map(|json| {
        let mut out = String::new();
        write_message(&mut out, "warn", message, json, NOW);
        out
    });
    agree(&text, &json)
}

#[test]
fn every_line_has_the_fields_that_the_table_gives_it_and_no_other() {
    let of_table = |own: InLines, both: bool| -> Vec<_> {
        let is_in = |field: &&LogField| {
            let lines = field.lines();
            lines == InLines::Every || lines == own || both && lines == InLines::Both
        };
        let mut names: Vec<_> = LogField::ALL.iter().filter(is_in).map(|field| field.name().to_owned()).collect();
        names.sort();
        names
    };
    let names = |fields: BTreeMap<String, String>| -> Vec<_> { fields.into_keys().collect() };
    assert_eq!(names(connection_fields(&full())), of_table(InLines::Connection, true));
    assert_eq!(names(request_fields(&full_request())), of_table(InLines::Request, true));
    assert_eq!(names(message_fields("ready")), of_table(InLines::Message, false));
}

#[test]
fn a_connection_is_written_as_the_manual_shows() {
    let mut out = String::new();
    write(&mut out, &full(), schema(false), &rfc3339(NOW / 1_000));
    assert_eq!(
        out,
        "time=2024-03-01T00:00:01.000Z level=info kind=connection started=2024-02-29T23:59:59.999Z id=7 \
         listener=front client=192.0.2.1:4711 peer=10.0.0.1:9 sni=www.example.org ech=true split=halves \
         split_by=key pool=web range=office \
         backend=a reason=placement attempts=2 connect_us=412 duration_us=1500 bytes_up=10 bytes_down=20 ended=done \
         fault=none tls=TLSv1.3 cipher=TLS_AES_128_GCM_SHA256 resumed=true subject=\"CN=me\" \
         alert=received:unknown_ca moved=down from=b sample=10\n"
    );
    let bare = ConnectionLine { client: None, ended: Ended::Silent, ..connection() };
    out.clear();
    write(&mut out, &bare, schema(false), &rfc3339(NOW / 1_000));
    assert_eq!(
        out,
        "time=2024-03-01T00:00:01.000Z level=info kind=connection started=2024-02-29T23:59:59.999Z id=7 \
         listener=front client=unix duration_us=1500 bytes_up=10 bytes_down=20 ended=silent fault=client\n"
    );
}

#[test]
fn a_message_is_one_line_whatever_it_quotes() {
    let text = "reload refused: \"a.toml\": 2 problems\ntime=x level=error\u{1b}[2J\u{202e}";
    assert_eq!(message_fields(text)["msg"], text);
}

/// Pieces of what strangers send to break a line, and every byte beside them.
fn hostile(random: &mut Random) -> String {
    const PIECES: [&str; 16] = [
        "",
        " ",
        "=",
        "\"",
        "\\",
        "\n",
        "\r\n",
        "\" ended=done ",
        "\\\"",
        "\u{1b}[2J",
        "\u{2028}",
        "\u{202e}",
        "\u{0}",
        "a",
        "/",
        "\u{1f600}",
    ];
    let mut bytes = Vec::new();
    for _ in 0..random.below(8) {
        match random.below(4) {
            0 => bytes.push(random.below(256) as u8),
            _ => bytes.extend_from_slice(PIECES[random.below(16)].as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What strangers send stands in a line as it is, and ends neither a field nor a line.
#[test]
fn none_of_a_hundred_thousand_hostile_requests_forges_a_field() {
    let mut random = Random::new(17);
    let usual = request_fields(&request()).len();
    for _ in 0..100_000 {
        let [method, host, path, agent] = std::array::from_fn(|_| hostile(&mut random));
        let line = RequestLine {
            method: Some(method.clone()),
            host: Some(host.clone()),
            path: Some(path.clone()),
            user_agent: Some(agent.clone()),
            ..request()
        };
        let fields = request_fields(&line);
        for (name, sent) in [("method", &method), ("host", &host), ("path", &path), ("user_agent", &agent)] {
            assert_eq!(&fields[name], sent);
        }
        assert_eq!(fields.len(), usual + 1);
    }
}
