//! The keys of requests, as `tests/key_reference.py` makes them from the same text.

use std::net::IpAddr;

use super::*;
use crate::config::{self, Config};
use crate::http::Progress;
use crate::http::head::RequestReader;
use crate::sticky::Facts;
use crate::sticky::key::{Key, SourceAs};

/// What the script writes of one request.
#[derive(serde::Deserialize)]
struct Vector {
    key: Vec<String>,
    head: String,
    subject: Option<String>,
    source: Option<IpAddr>,
    bytes: Option<String>,
}

/// A pool with this key, behind a listener at which all of it can be known.
fn config_of(key: &[String]) -> Config {
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\ntrust = [\"127.0.0.1/32\"]\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\nhttp = true\nkey = {key:?}\nbackend = \"127.0.0.1:2\"\n"
    );
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    checked.unwrap_or_else(|problems| panic!("{text}\n{problems:?}")).config
}

#[test]
fn keys_of_requests_are_those_of_an_independent_script() {
    let path = format!("{}/tests/golden/keys.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: Vec<Vector> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(vectors.len() >= 400 && vectors.iter().any(|vector| vector.bytes.is_none()));
    for Vector { key, head, subject, source, bytes } in vectors {
        let config = config_of(&key);
        let pool = Pool::new(&config.pools[0], None, 1);
        let mut reader = RequestReader::new();
        assert!(matches!(reader.read(head.as_bytes()), Progress::Done(_)), "{head:?}");
        let request = reader.request(head.as_bytes());
        let values = values_of_key(&pool, &request, subject.as_deref());
        let facts = Facts { source, values: &values, ..Facts::default() };
        let made = Key::encode(&config.pools[0].key, SourceAs::prefix(32), &facts);
        let made = made.map(|key| data_encoding::HEXLOWER.encode(key.as_bytes()));
        assert_eq!(made, bytes, "{key:?} {head:?} {subject:?}");
    }
}
