//! The corpus, whole and cut.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::http::answer::StatusCode;

#[allow(clippy::duplicate_mod, reason = "one corpus for the reader and for the health check")]
#[path = "../../../tests/framing/corpus.rs"]
#[allow(clippy::module_inception, reason = "the shared file has the name of this one")]
mod corpus;

use corpus::{Case, Kind, Verdict, cases};

fn asked(kind: Kind) -> Option<RequestMeta> {
    match kind {
        Kind::Request => None,
        Kind::Response => Some(ASKED),
        Kind::ResponseToHead => Some(ASKED_HEAD),
        Kind::ResponseToOld => Some(ASKED_OLD),
        Kind::ResponseToWebSocket => Some(ASKED_WEB_SOCKET),
    }
}

fn name_of(framing: Option<Framing>) -> String {
    match framing {
        None => "-".into(),
        Some(Framing::None) => "none".into(),
        Some(Framing::Length(length)) => format!("length:{length}"),
        Some(Framing::Chunked) => "chunked".into(),
        Some(Framing::UntilClose) => "until-close".into(),
    }
}

/// The outcome in the corpus' words.
fn told(case: &Case, outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(refused) => {
            let status = if case.kind == Kind::Request { refused.status() } else { StatusCode::BadGateway };
            format!("refused {} {}", refused.word(), status.code())
        }
        Outcome::Whole(framing, end) => format!("accepted {} {}", name_of(Some(framing)), case.bytes.len() - end),
        Outcome::Partial(framing) => format!("incomplete {}", name_of(framing)),
    }
}

fn wanted(case: &Case) -> String {
    match case.verdict {
        Verdict::Refused(word, status) => format!("refused {word} {status}"),
        Verdict::Accepted(framing, rest) => format!("accepted {framing} {rest}"),
        Verdict::Incomplete(framing) => format!("incomplete {framing}"),
    }
}

#[test]
fn every_case_gets_its_verdict() {
    let wrong: Vec<_> = cases()
        .iter()
        .map(|case| (case, told(case, arrive(&case.bytes, [], asked(case.kind)))))
        .filter(|(case, told)| *told != wanted(case))
        .map(|(case, told)| format!("{}\n    wanted {}\n    got    {told}", case.title, wanted(case)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_corpus_is_large_and_knows_every_refusal() {
    let cases = cases();
    let refused: Vec<_> = cases.iter().filter(|case| matches!(case.verdict, Verdict::Refused(..))).collect();
    assert!(refused.len() >= 200, "{}", refused.len());
    let words: HashSet<_> = refused
        .iter()
        .map(|case| match case.verdict {
            Verdict::Refused(word, _) => word,
            _ => unreachable!("filtered"),
        })
        .collect();
    // Frames are judged before there is a head.
    for refused in Refused::ALL.iter().filter(|refused| **refused != Refused::BadFrames) {
        assert!(words.contains(refused.word()), "no case is refused as {}", refused.word());
    }
    let distinct: HashSet<_> = cases.iter().map(|case| (&case.bytes, format!("{:?}", case.kind))).collect();
    assert_eq!(distinct.len(), cases.len(), "a case is there twice");
}

#[test]
fn every_case_gets_the_same_verdict_at_every_cut_and_byte_by_byte() {
    for case in cases() {
        let whole = arrive(&case.bytes, [], asked(case.kind));
        // Long cases are long because one byte is repeated: their first and last cuts are enough.
        let length = case.bytes.len();
        for stop in (0..length).filter(|stop| *stop < 600 || length - stop < 600) {
            assert_eq!(arrive(&case.bytes, [stop], asked(case.kind)), whole, "{} cut at {stop}", case.title);
        }
        assert_eq!(arrive(&case.bytes, 0..length, asked(case.kind)), whole, "{} byte by byte", case.title);
    }
}

#[test]
fn what_is_refused_is_refused_whatever_follows() {
    for case in cases() {
        let whole = arrive(&case.bytes, [], asked(case.kind));
        for tail in [&b"\r\n\r\n"[..], b"\n\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[0; 70_000]] {
            let longer = arrive(&[&case.bytes, tail].concat(), [], asked(case.kind));
            match (whole, longer) {
                (Outcome::Refused(_), _) => assert_eq!(longer, whole, "{}", case.title),
                (Outcome::Whole(Framing::UntilClose, _), _) | (Outcome::Partial(_), _) => {}
                (Outcome::Whole(..), _) => assert_eq!(longer, whole, "{}", case.title),
            }
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_case_gets_one_verdict_however_it_is_cut(
        index in any::<prop::sample::Index>(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(), proptest::sample::select(b"\r\n\t\0 :;,=\"0\x0b\x7f\xff".to_vec())
        ]), 0..4),
        stops in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let cases: Vec<_> = cases().into_iter().filter(|case| case.bytes.len() < 2_000).collect();
        let case = index.get(&cases);
        let mut bytes = case.bytes.clone();
        for (at, byte) in hits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut stops: Vec<_> = stops.iter().map(|stop| stop.index(bytes.len())).collect();
        stops.sort_unstable();
        let outcome = arrive(&bytes, stops, asked(case.kind));
        prop_assert_eq!(outcome, arrive(&bytes, [], asked(case.kind)), "{}", bytes.escape_ascii());
    }
}

/// The bytes of every response that is let through, with the request.
pub(super) fn accepted_responses() -> Vec<(RequestMeta, Vec<u8>)> {
    let accepted = cases().into_iter().filter(|case| matches!(case.verdict, Verdict::Accepted(..)));
    accepted.filter_map(|case| Some((asked(case.kind)?, case.bytes))).collect()
}

/// The bytes of every request that is let through.
pub(super) fn accepted_requests() -> Vec<Vec<u8>> {
    let is_accepted = |case: &Case| case.kind == Kind::Request && matches!(case.verdict, Verdict::Accepted(..));
    cases().into_iter().filter(is_accepted).map(|case| case.bytes).collect()
}
