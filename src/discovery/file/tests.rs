//! Files as they are written, well and badly.

use std::fs;

use super::*;

fn names(text: &str) -> Vec<String> {
    parse(text).unwrap().iter().map(|found| format!("{} {}", found.name, found.address)).collect()
}

#[test]
fn lines_have_name_and_address_and_may_have_weight_location_and_state() {
    let text = "# pods\nb 10.0.0.2:80   # the second\n\n a\t10.0.0.1:80 3 dc1/host3 drain\n\
                c [2001:db8::1]:80 ready\nd [::ffff:10.0.0.4]:80 dc1\n";
    let found = parse(text).unwrap();
    let own = |index: usize| {
        let Found { name, weight, location, state, .. } = &found[index];
        (&**name, *weight, location.as_deref(), *state)
    };
    assert_eq!(own(0), ("a", Some(3), Some("dc1/host3"), Some(FoundState::Drain)));
    assert_eq!(own(1), ("b", None, None, None));
    assert_eq!(own(2), ("c", None, None, Some(FoundState::Ready)));
    assert_eq!(own(3), ("d", None, Some("dc1"), None));
    assert_eq!(found[3].address.to_string(), "10.0.0.4:80", "a mapped address is IPv4");
}

#[test]
fn json_says_the_same_as_lines() {
    let lines = "a 10.0.0.1:80 3 dc1 drain\nb 10.0.0.2:80\n";
    let json = r#" [{"name": "b", "address": "10.0.0.2:80"},
        {"name": "a", "address": "10.0.0.1:80", "weight": 3, "location": "dc1", "state": "drain"}]"#;
    assert_eq!(parse(lines), parse(json));
    assert_eq!(names("b 10.0.0.2:80\na 10.0.0.1:80\n"), names("a 10.0.0.1:80\nb 10.0.0.2:80\n"), "no order");
}

#[test]
fn json_alone_has_most_connections_and_backup() {
    let json = r#"[{"name": "a", "address": "10.0.0.1:80", "max_connections": 500, "backup": true},
        {"name": "b", "address": "10.0.0.2:80", "backup": false}]"#;
    let found = parse(json).unwrap();
    let own = |index: usize| (found[index].max_connections, found[index].backup);
    assert_eq!((own(0), own(1)), ((Some(500), true), (None, false)));
    for most in [0, u64::from(u32::MAX) + 1] {
        let json = format!(r#"[{{"name": "a", "address": "10.0.0.1:80", "max_connections": {most}}}]"#);
        let why = format!("backend #1: max_connections {most} is not between 1 and 4294967295");
        assert_eq!(parse(&json), Err(why));
    }
}

#[test]
fn one_mistake_refuses_the_file_and_is_named() {
    for (text, why) in [
        ("", "the file is empty: a comment or [] says that there is no backend"),
        ("a 10.0.0.1:80\nb 10.0.", "the file does not end with a newline: it may be cut short"),
        ("a\n", "line 1: has a name and no address"),
        ("\na/b 10.0.0.1:80\n", "line 2: name \"a/b\" is not a name: 1 to 64 letters, digits, '.', '_' or '-'"),
        ("a 10.0.0.300:80\n", "line 1: address \"10.0.0.300:80\" is not an address with a port"),
        ("a app.example:80\n", "line 1: address \"app.example:80\" is not an address with a port"),
        ("a 0.0.0.0:80\n", "line 1: address \"0.0.0.0:80\" is not an address that can be connected to"),
        ("a 10.0.0.1:0\n", "line 1: address \"10.0.0.1:0\" is not an address that can be connected to"),
        ("a [ff02::1]:80\n", "line 1: address \"[ff02::1]:80\" is not an address that can be connected to"),
        ("a 10.0.0.1:80 257\n", "line 1: weight 257 is not between 0 and 256"),
        ("a 10.0.0.1:80 99999999999\n", "line 1: weight 99999999999 is not between 0 and 256"),
        ("a 10.0.0.1:80 dc1//x\n", "line 1: location \"dc1//x\" has the level \"\", which is not a name"),
        ("a 10.0.0.1:80 drain 3\n", "line 1: \"3\" is none of weight, location and state, in this order"),
        ("b 10.0.0.1:80\na 10.0.0.2:80\nb 10.0.0.3:80\n", "line 3: name \"b\" is taken by line 1"),
        ("[{\"name\": \"a\", \"address\": \"10.0.0.1:80\"}", "is no list of backends in JSON: EOF while parsing"),
        ("[{\"name\": \"a\", \"adress\": \"10.0.0.1:80\"}]", "is no list of backends in JSON: unknown field `adress`"),
        (
            "[{\"name\": \"a\", \"address\": \"10.0.0.1:80\", \"weight\": -1}]",
            "is no list of backends in JSON: invalid value",
        ),
        (
            "[{\"name\": \"a\", \"address\": \"10.0.0.1:80\", \"state\": \"off\"}]",
            "backend #1: state \"off\" is not \"ready\" or \"drain\"",
        ),
        ("{\"a\": 1}\n", "line 1: name \"{\\\"a\\\":\" is not a name"),
    ] {
        let found = parse(text).unwrap_err();
        assert!(found.starts_with(why), "{text:?}: {found}");
    }
    assert_eq!((parse("# none\n"), parse("[]"), parse(" \n")), (Ok(vec![]), Ok(vec![]), Ok(vec![])));
}

#[test]
fn what_a_hostile_file_has_is_shown_in_bounds() {
    let name = "\u{1b}[31m".repeat(1_000);
    let why = parse(&format!("{} 10.0.0.1:80\n", name.replace(' ', ""))).unwrap_err();
    assert!(why.len() < 1_000 && !why.contains('\u{1b}'), "{why}");
}

#[test]
fn a_file_is_read_again_when_another_takes_its_place_and_a_broken_one_also_when_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backends");
    let mut source = FileSource::new(&path);
    let count = |reading: Option<Reading>| match reading {
        None => "as it was".to_owned(),
        Some(Reading::Set { found, .. }) => found.len().to_string(),
        Some(Reading::Empty { .. }) => "empty".to_owned(),
        Some(Reading::Failed { .. }) => "failed".to_owned(),
    };
    assert_eq!(count(source.look()), "failed", "no file");
    assert_eq!(count(source.look()), "as it was");
    fs::write(&path, "a 10.0.0.1:80\n").unwrap();
    assert_eq!(count(source.look()), "1");
    fs::write(&path, "a 10.0.0.1:80\nb 10.0.0.2:80\n").unwrap();
    assert_eq!(count(source.look()), "as it was", "written in place");
    let rename = |text: &str| {
        fs::write(folder.path().join("new"), text).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
    };
    rename("a 10.0.0.1:80\nb 10.0.0.2:80\n");
    assert_eq!(count(source.look()), "2");
    rename("a 10.0.0.1:80\nb 10.");
    assert_eq!(count(source.look()), "failed");
    assert_eq!(count(source.look()), "as it was");
    fs::write(&path, "a 10.0.0.1:80\nb 10.0.0.2:80\nc 10.0.0.3:80\n").unwrap();
    assert_eq!(count(source.look()), "3", "mended in place");
    rename("# scaled to nothing\n");
    assert_eq!(count(source.look()), "empty");
    fs::remove_file(&path).unwrap();
    assert_eq!(count(source.look()), "failed", "gone");
}
