//! Rules for header fields of a pool.

use super::{check, config_of, resolve, shown, warnings};
use crate::config::{HeaderValue, RequestFact, ValuePart};

fn site(pool: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:80\"\npool = \"app\"\n\
         [[pool]]\nname = \"app\"\nbackend = [\"10.0.0.1:80\"]\n{pool}\n"
    )
}

#[test]
fn names_and_values_are_read_in_the_order_of_the_names() {
    let text = site(
        "http = true\n[pool.request_headers]\nset = { X-Real-IP = \"{client_ip}\", Host = \"a.test:8080\" }\nremove = \"X\"",
    );
    let config = config_of(&text);
    assert_eq!(warnings(&text), "");
    let rules = &config.pools[0].request_headers;
    let value = |part| HeaderValue(vec![part]);
    let mut set = rules.set.clone();
    set.sort_by(|one, other| one.0.cmp(&other.0));
    let wanted = [
        ("Host".to_owned(), value(ValuePart::Text("a.test:8080".into()))),
        ("X-Real-IP".to_owned(), value(ValuePart::Fact(RequestFact::ClientIp))),
    ];
    assert_eq!((&set[..], &rules.remove[..]), (&wanted[..], &["X".to_owned()][..]));
    assert!(rules.has_rule_for("x") && rules.has_rule_for("host") && !rules.has_rule_for("Y"));
}

#[test]
fn each_mistake_is_named_at_its_place() {
    let refused = |pool: &str| shown(&check(&site(pool), &resolve).unwrap_err());
    for (rules, problem) in [
        (
            "request_headers = { set = { Connection = \"close\" } }",
            "9:29: pool \"app\": request_headers: set \"Connection\" belongs to",
        ),
        (
            "request_headers = { set = { Content_Length = \"1\" } }",
            "9:29: pool \"app\": request_headers: set \"Content_Length\" belongs to",
        ),
        (
            "response_headers = { remove = [\"X\", \"Transfer-Encoding\"] }",
            "9:37: pool \"app\": response_headers: remove \"Transfer-Encoding\" belongs to",
        ),
        ("request_headers = { set = { Cookie = \"a=b\" } }", "set \"Cookie\" cannot be set: one line"),
        ("response_headers = { set = { set-cookie = \"a=b\" } }", "set \"set-cookie\" cannot be set: one line"),
        ("request_headers = { set = { Host = \"a b\" } }", "set \"Host\" is not a host"),
        ("request_headers = { set = { Host = \"a{host}\" } }", "set \"Host\" is not a host"),
        ("request_headers = { remove = [\"host\"] }", "remove \"Host\" leaves a request"),
        ("request_headers = { set = { X-A = \"a\\r\\nX: b\" } }", "is not the value of a header field"),
        (
            "request_headers = { set = { X-A = \"{client}\" } }",
            "has {client}, which is not one of {client_ip}, {scheme}",
        ),
        ("request_headers = { set = { X-A = \"1\", x_a = \"2\" } }", "stands twice: case and signs make no difference"),
        ("request_headers = { set = { X-A = \"1\" }, remove = [\"X_A\"] }", "remove \"X_A\" has no effect"),
        ("request_headers = { set = [\"X-A\"] }", "set [...] is not a table"),
        ("request_headers = { sets = { X-A = \"1\" } }", "unknown key \"sets\""),
    ] {
        let found = refused(&format!("http = true\n{rules}"));
        assert!(found.contains(problem), "{rules}\n{found}");
        assert_eq!(found.lines().filter(|line| !line.starts_with(' ')).count(), 1, "{found}");
    }
    assert!(
        refused("response_headers = { remove = [\"X\"] }")
            .contains("response_headers needs a pool that reads requests")
    );
    let learns =
        "http = true\ncookie = { mode = \"learn\", name = \"SID\" }\nresponse_headers = { remove = [\"Set-Cookie\"] }";
    assert!(refused(learns).contains("takes the cookie \"SID\" away, by which clients stay"));
    config_of(&site("http = true\ncookie = \"insert\"\nresponse_headers = { remove = [\"Set-Cookie\"] }"));
}
