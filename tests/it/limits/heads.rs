//! `head_max` and `fields_max`: 431, and what clients of HTTP/2 are told.

use super::plain;
use crate::routes::Asking;
use crate::support::has;
use crate::terminate::backend::Recorder;

#[test]
fn a_head_that_holds_more_than_it_may_is_431_in_both_versions() {
    if !has("a_head_that_holds_more_than_it_may_is_431_in_both_versions", "curl") {
        return;
    }
    let site = Recorder::named("x");
    let limits = "[listener.limits]\nhead_max = \"4 KiB\"\nfields_max = 40\n";
    let sessile = plain(&site, "[limits]\nfields_max = 50\n", limits, "");
    let long = |size: usize| vec![("X-Long".to_owned(), "x".repeat(size))];
    let many = |count: usize| (0..count).map(|n| (format!("X-{n}"), "y".to_owned())).collect::<Vec<_>>();
    for asking in Asking::plain(sessile.address("l")) {
        for (fields, status, word) in [
            (long(3_700), 200, ""),
            (long(4_096), 431, "head_too_long"),
            (many(30), 200, ""),
            (many(41), 431, "too_many_fields"),
        ] {
            let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let arguments: Vec<_> = fields.iter().flat_map(|field| ["--header", field.as_str()]).collect();
            let got = asking.with(&arguments, "a.test/");
            assert_eq!(got.status, status, "{word} {}", got.body);
            if status == 431 {
                let id = got.field("x-request-id").unwrap().to_owned();
                let line = sessile.line("the refusal", |line| line["request"] == *id);
                assert_eq!((&line["ended"], &line["refused"]), (&"request_refused".into(), &word.into()), "{line}");
            }
        }
    }
    for word in ["head_too_long", "too_many_fields"] {
        assert_eq!(sessile.metric(&format!("sessile_requests_refused_total{{reason=\"{word}\"}}")), 2.0, "{word}");
    }
}
