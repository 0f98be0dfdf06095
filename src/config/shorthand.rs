//! Shorthands: a value that stands for a table, as `check = "http"` for `check = { kind = "http" }`.
//!
//! [`expand`] writes the tables out before a file is read or compared, so that no reader knows of the shorthands. Judges
//! nothing: a value with no such meaning stays. Invariant: a table that is written out has the place of its value, and
//! the name of a backend depends on its address alone.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Authorities for `tls = true` in a pool: the bundle of the system, where most distributions have it.
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Longest name of a backend in bytes.
const NAME_MAX: usize = 64;

/// What a value stands for.
enum LongForm {
    /// A word, which the key takes instead of a table.
    Word(&'static str),
    /// A table with these keys, all of them texts.
    Table(Vec<(&'static str, String)>),
}

/// The long form of a value; `None`: the value stands for itself.
type Expand = fn(&DeValue<'_>) -> Option<LongForm>;

/// Every key that has a shorthand, below the lists and tables that it is in.
const SHORTHANDS: [(&[&str], Expand); 12] = [
    (&["pool", "backend"], |value| {
        text(value, |address| vec![("name", backend_name(address)), ("address", address.into())])
    }),
    (&["pool", "check"], |value| one_text(value, "kind").or_else(|| switch(value, &[]))),
    (&["pool", "cookie"], |value| one_text(value, "mode").or_else(|| switch(value, &[("mode", "insert")]))),
    (&["pool", "eject"], |value| switch(value, &[])),
    (&["pool", "tls"], |value| switch(value, &[("ca", SYSTEM_AUTHORITIES)])),
    (&["listener", "certificate"], |value| one_text(value, "cert")),
    (&["listener", "client_certificate"], |value| one_text(value, "ca").or_else(|| off(value))),
    (&["listener", "route", "client_certificate"], |value| one_text(value, "ca").or_else(|| off(value))),
    (&["listener", "tls"], terminate),
    (&["listener", "route", "tls"], terminate),
    (&["listener", "route", "redirect"], |value| one_text(value, "to")),
    (&["store"], |value| text(value, |url| vec![("kind", "redis".into()), ("url", url.into())]).or_else(|| off(value))),
];

/// Writes out every shorthand of a file.
pub(super) fn expand(top: &mut DeTable<'_>) {
    for (path, long_form) in SHORTHANDS {
        expand_at(top, path, long_form);
    }
}

fn expand_at(table: &mut DeTable<'_>, path: &[&str], long_form: Expand) {
    let Some((key, below)) = path.split_first() else { return };
    let Some(value) = table.get_mut(*key) else { return };
    match value.get_mut() {
        DeValue::Array(elements) => elements.iter_mut().for_each(|element| expand_one(element, below, long_form)),
        _ => expand_one(value, below, long_form),
    }
}

fn expand_one(value: &mut Spanned<DeValue<'_>>, below: &[&str], long_form: Expand) {
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => expand_at(table, below, long_form),
        value if below.is_empty() => {
            if let Some(long) = long_form(value) {
                *value = written_out(long, &span);
            }
        }
        _ => {}
    }
}

fn written_out<'i>(long: LongForm, span: &Range<usize>) -> DeValue<'i> {
    let at = |value: DeValue<'i>| Spanned::new(span.clone(), value);
    match long {
        LongForm::Word(word) => DeValue::String(Cow::Borrowed(word)),
        LongForm::Table(keys) => {
            let key = |key| Spanned::new(span.clone(), Cow::Borrowed(key));
            DeValue::Table(
                keys.into_iter().map(|(name, text)| (key(name), at(DeValue::String(Cow::Owned(text))))).collect(),
            )
        }
    }
}

/// A text that stands for a table. "off" is a word of its own.
fn text(value: &DeValue<'_>, keys: impl Fn(&str) -> Vec<(&'static str, String)>) -> Option<LongForm> {
    value.as_str().filter(|text| *text != "off").map(|text| LongForm::Table(keys(text)))
}

/// A text that stands for one key of the table.
fn one_text(value: &DeValue<'_>, key: &'static str) -> Option<LongForm> {
    text(value, |text| vec![(key, text.to_owned())])
}

/// `true` for a table with these keys, `false` for "off".
fn switch(value: &DeValue<'_>, on: &[(&'static str, &str)]) -> Option<LongForm> {
    if value.as_bool()? {
        Some(LongForm::Table(on.iter().map(|(key, text)| (*key, (*text).to_owned())).collect()))
    } else {
        off(value)
    }
}

fn off(value: &DeValue<'_>) -> Option<LongForm> {
    (value.as_bool() == Some(false)).then_some(LongForm::Word("off"))
}

/// `tls = true` of a listener or route: TLS ends here.
fn terminate(value: &DeValue<'_>) -> Option<LongForm> {
    Some(LongForm::Word(if value.as_bool()? { "terminate" } else { "off" }))
}

/// Name of a backend that is written as an address alone: `10.0.0.1-80`, `2001-db8--1-443`, `unix-run-app.sock`. Two
/// spellings of one IP address have one name. Of an address longer than a name can be, the end counts.
pub fn backend_name(address: &str) -> String {
    let canonical = match address.parse::<SocketAddr>() {
        Ok(ip) => SocketAddr::new(ip.ip().to_canonical(), ip.port()).to_string(),
        Err(_) if address.starts_with("unix:") => address.replacen("unix:/", "unix-", 1),
        Err(_) => address.to_ascii_lowercase(),
    };
    let letter = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = canonical.chars().filter(|c| !matches!(c, '[' | ']')).map(letter).collect();
    let end = name.len().saturating_sub(NAME_MAX);
    if name.is_empty() { "-".to_owned() } else { name[end..].to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_depends_on_the_address_alone() {
        for (address, name) in [
            ("10.0.0.1:80", "10.0.0.1-80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1-80"),
            ("[2001:db8::1]:443", "2001-db8--1-443"),
            ("[2001:DB8:0:0::1]:443", "2001-db8--1-443"),
            ("App.example.org:8080", "app.example.org-8080"),
            ("unix:/run/App.sock", "unix-run-App.sock"),
            ("", "-"),
            ("\u{e4}", "-"),
        ] {
            assert_eq!(backend_name(address), name, "{address}");
        }
        let long = format!("unix:/{}/app.sock", "x".repeat(90));
        assert_eq!((backend_name(&long).len(), backend_name(&long).ends_with("x-app.sock")), (NAME_MAX, true));
    }

    #[test]
    fn what_is_written_out_has_the_place_of_its_value() {
        let text = "[[pool]]\ncheck = \"http\"\nbackend = [\"10.0.0.1:80\"]\n";
        let mut top = DeTable::parse(text).unwrap().into_inner();
        expand(&mut top);
        let pool = top["pool"].get_ref()[0].get_ref().as_table().unwrap();
        let place = |value: &Spanned<DeValue<'_>>| &text[value.span()] == "\"http\"";
        let check = &pool["check"];
        assert!(place(check) && place(&check.get_ref().as_table().unwrap()["kind"]));
        let backend = &pool["backend"].get_ref()[0];
        assert_eq!(&text[backend.span()], "\"10.0.0.1:80\"");
        assert_eq!(backend.get_ref().as_table().unwrap()["name"].get_ref().as_str(), Some("10.0.0.1-80"));
    }

    #[test]
    fn what_stands_for_nothing_stays() {
        for text in [
            "store = \"off\"\n",
            "store = true\n",
            "[[pool]]\ncheck = 5\nbackend = [1]\neject = \"off\"\ncookie = []\n",
            "[listener]\ntls = \"terminate\"\nclient_certificate = true\n",
            "pool = 1\nlistener = []\n",
            "[pool.check]\nkind = \"http\"\n",
        ] {
            let before = DeTable::parse(text).unwrap().into_inner();
            let mut after = before.clone();
            expand(&mut after);
            assert_eq!(format!("{after:?}"), format!("{before:?}"), "{text}");
        }
    }
}
