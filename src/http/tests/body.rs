//! The scanner against a reader that has all bytes at once and is written another way.

use proptest::prelude::*;

use super::*;

/// Where a chunked body ends, if these bytes begin with a whole one.
fn reference(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = line_at(bytes, at)?;
        at += line.len() + 2;
        let text = line.iter().map(|byte| char::from(*byte)).collect::<String>();
        let (size, extensions) = text.split_at(text.find(';').unwrap_or(text.len()));
        if size.is_empty() || size.len() > 16 || !size.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        if extensions.len() > 256 || !are_extensions(extensions) {
            return None;
        }
        match i64::from_str_radix(size, 16).ok()? as usize {
            0 => break,
            size => {
                let end = at.checked_add(size)?;
                bytes.get(end..end + 2).filter(|end| end == b"\r\n")?;
                at = end + 2;
            }
        }
    }
    loop {
        let line = line_at(bytes, at)?;
        at += line.len() + 2;
        if line.is_empty() {
            return Some(at);
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (std::str::from_utf8(&line[..colon]).ok()?, &line[colon..]);
        let is_known = ["te", "host", "content-length", "cookie"].iter().any(|known| name.eq_ignore_ascii_case(known));
        if name.is_empty()
            || !name.chars().all(is_token)
            || is_known
            || value.iter().any(|b| *b < 32 && *b != 9 || *b == 127)
        {
            return None;
        }
    }
}

fn line_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    (!line.contains(&b'\n') && !line.contains(&b'\r')).then_some(line)
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn are_extensions(text: &str) -> bool {
    let Some(text) = text.strip_prefix(';') else { return text.is_empty() };
    let name = text.find(|c| !is_token(c)).unwrap_or(text.len());
    let rest = &text[name..];
    let rest = match rest.strip_prefix('=') {
        None => Some(rest),
        Some(value) => match value.strip_prefix('"') {
            Some(quoted) => after_quotes(quoted),
            None => {
                let end = value.find(|c| !is_token(c)).unwrap_or(value.len());
                (end > 0).then(|| &value[end..])
            }
        },
    };
    name > 0 && rest.is_some_and(are_extensions)
}

fn after_quotes(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if c.is_ascii_control() && c != '\t' => return None,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

fn extension() -> impl Strategy<Value = String> {
    let value =
        prop_oneof!["=[a-z!0-9]{1,9}", "=\"[a-z ;,=\t]{0,9}\"", Just("=\"\\\"\\\\\"".to_owned()), Just(String::new())];
    ("[A-Za-z#]{1,5}", value).prop_map(|(name, value)| format!(";{name}{value}"))
}

/// A whole chunked body and what it holds.
fn chunked() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (
        proptest::collection::vec(any::<u8>(), 1..40),
        "0{0,3}",
        proptest::collection::vec(extension(), 0..3),
        any::<bool>(),
    );
    let trailer = prop_oneof![Just("X: y"), Just("Digest:\t sha\u{e9}"), Just("Z:"), Just("Server-Timing: a;b=\"c\"")];
    (proptest::collection::vec(chunk, 0..6), proptest::collection::vec(trailer, 0..3)).prop_map(|(chunks, trailers)| {
        let mut bytes = Vec::new();
        for (content, zeros, extensions, upper) in chunks {
            let size = format!("{zeros}{:x}", content.len());
            let size = if upper { size.to_uppercase() } else { size };
            bytes.extend([size.as_bytes(), extensions.concat().as_bytes(), b"\r\n", &content, b"\r\n"].concat());
        }
        bytes.extend(b"0\r\n");
        trailers.iter().for_each(|trailer| bytes.extend([trailer.as_bytes(), b"\r\n"].concat()));
        bytes.extend(b"\r\n");
        bytes
    })
}

/// Where the body ends by the scanner, in pieces; `None` if it does not, or is refused.
fn scanned(bytes: &[u8], stops: &[prop::sample::Index]) -> Result<Option<usize>, Refused> {
    let mut stops: Vec<_> = stops.iter().map(|stop| stop.index(bytes.len() + 1)).collect();
    stops.extend([0, bytes.len()]);
    stops.sort_unstable();
    let mut body = Body::new(Framing::Chunked);
    let mut taken = 0;
    for pair in stops.windows(2) {
        let scanned = body.scan(&bytes[pair[0]..pair[1]])?;
        taken += scanned.length;
        if scanned.complete {
            return Ok(Some(taken));
        }
        assert_eq!(scanned.length, pair[1] - pair[0], "all bytes belong to a body that is not complete");
    }
    Ok(None)
}

proptest! {
    #[test]
    fn whole_bodies_end_where_they_end(bytes in chunked(), tail in proptest::collection::vec(any::<u8>(), 0..20), stops in proptest::collection::vec(any::<prop::sample::Index>(), 0..9)) {
        let all = [&bytes[..], &tail].concat();
        prop_assert_eq!(reference(&all), Some(bytes.len()));
        prop_assert_eq!(scanned(&all, &stops), Ok(Some(bytes.len())));
        for stop in stops {
            prop_assert_eq!(scanned(&bytes[..stop.index(bytes.len())], &[]), Ok(None));
        }
    }

    #[test]
    fn damaged_bodies_end_where_the_reference_ends_them(
        mut bytes in chunked(),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(), proptest::sample::select(b"\r\n\t\0 :;=\"\\0123afAFgx\x7f\xff".to_vec())
        ], any::<bool>()), 1..5),
        stops in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        for (at, byte, insert) in hits {
            let at = at.index(bytes.len());
            if insert { bytes.insert(at, byte) } else { bytes[at] = byte }
        }
        let scan = scanned(&bytes, &stops);
        prop_assert_eq!(scan.unwrap_or(None), reference(&bytes), "{}", bytes.escape_ascii());
        prop_assert_eq!(scan, scanned(&bytes, &[]));
    }

    #[test]
    fn a_length_is_counted(length in 1u64..500, cut in any::<prop::sample::Index>()) {
        let bytes = vec![b'x'; 600];
        let mut body = Body::new(Framing::Length(length));
        let first = cut.index(600);
        let one = body.scan(&bytes[..first]).unwrap();
        let two = body.scan(&bytes[first..]).unwrap();
        prop_assert_eq!((one.length + two.length) as u64, length);
        prop_assert!(two.complete && body.complete());
    }
}

#[test]
fn an_empty_body_is_complete_before_its_first_byte() {
    for framing in [Framing::None, Framing::Length(0)] {
        let mut body = Body::new(framing);
        assert!(body.complete() && body.may_end_here() && framing.is_empty());
        assert_eq!(body.scan(b"GET").map(|scanned| (scanned.length, scanned.complete)), Ok((0, true)));
    }
}

#[test]
fn only_a_body_until_close_may_end_with_the_connection() {
    let mut body = Body::new(Framing::UntilClose);
    assert_eq!(body.scan(b"abc").map(|scanned| (scanned.length, scanned.complete)), Ok((3, false)));
    assert!(body.may_end_here() && !body.complete());
    for (framing, bytes) in
        [(Framing::Length(4), &b"abc"[..]), (Framing::Chunked, b"3\r\nabc\r\n"), (Framing::Chunked, b"0\r\n")]
    {
        let mut body = Body::new(framing);
        assert_eq!(body.scan(bytes).map(|scanned| (scanned.length, scanned.complete)), Ok((bytes.len(), false)));
        assert!(!body.may_end_here());
    }
}

#[test]
fn what_was_refused_stays_refused() {
    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.scan(b"5\n"), Err(Refused::BareLineEnd));
    assert_eq!(body.scan(b"0\r\n\r\n"), Err(Refused::BareLineEnd));
    assert!(!body.complete() && !body.may_end_here());
}

#[test]
fn small_chunks_are_read_in_one_look_and_mean_what_they_mean_byte_by_byte() {
    let many = b"1\r\nx\r\nf\r\n0123456789abcde\r\nA\r\n0123456789\r\n".repeat(100);
    let mut at_once = Body::new(Framing::Chunked);
    let scanned = at_once.scan(&many).expect("a body");
    assert_eq!((scanned.length, scanned.complete), (many.len(), false));
    assert!(scanned.work <= 301, "{} for 300 chunks", scanned.work);
    let pieces = [
        "1\r\nx\r\n0\r\n\r\nGET",
        "1;a\r\nx\r\n",
        "01\r\nx\r\n",
        "1\r\nxy\r\n",
        "1\r\nx\n",
        "1\nx\r\n",
        "g\r\n",
        "2\r\nx",
    ];
    for text in pieces {
        let whole = Body::new(Framing::Chunked).scan(text.as_bytes()).map(|scanned| (scanned.length, scanned.complete));
        let (mut body, mut length, mut refused) = (Body::new(Framing::Chunked), 0, None);
        for byte in text.as_bytes() {
            match body.scan(&[*byte]) {
                Ok(scanned) => length += scanned.length,
                Err(why) => {
                    refused = Some(why);
                    break;
                }
            }
        }
        assert_eq!(whole, refused.map_or(Ok((length, body.complete())), Err), "{text:?}");
    }
}

#[test]
fn bytes_that_pass_by_count_as_those_that_are_read_and_only_inside_of_a_length_or_a_chunk() {
    let mut body = Body::new(Framing::Length(10));
    assert_eq!(body.opaque(), 10);
    body.pass_by(4);
    assert_eq!(body.scan(b"567").map(|scanned| scanned.length), Ok(3));
    assert_eq!(body.opaque(), 3);
    body.pass_by(3);
    assert!(body.complete());
    assert_eq!(body.opaque(), 0);

    let mut body = Body::new(Framing::Chunked);
    assert_eq!((body.opaque(), body.scan(b"1").is_ok()), (0, true));
    assert_eq!((body.opaque(), body.scan(b"0\r\n0").is_ok()), (0, true));
    assert_eq!(body.opaque(), 15);
    body.pass_by(15);
    assert_eq!((body.opaque(), body.complete()), (0, false));
    assert_eq!(body.scan(b"\r\n0\r\n\r\nGET").map(|scanned| (scanned.length, scanned.complete)), Ok((7, true)));

    for framing in [Framing::None, Framing::UntilClose] {
        assert_eq!(Body::new(framing).opaque(), 0);
    }
}

#[test]
fn a_body_announces_its_content_alone_however_it_is_cut() {
    let bytes = b"1\r\na\r\n10;x=1\r\n0123456789abcdef\r\nF\r\n0123456789abcde\r\n0\r\nX: y\r\n\r\n";
    for piece in 1..=bytes.len() {
        let mut body = Body::new(Framing::Chunked);
        for piece in bytes.chunks(piece) {
            body.scan(piece).unwrap();
        }
        assert_eq!((body.announced(), body.complete()), (32, true), "{piece}");
    }
    let mut body = Body::new(Framing::Chunked);
    body.scan(b"7fffffffffffffff\r\n").unwrap();
    assert_eq!(body.announced(), i64::MAX.unsigned_abs(), "before a byte of it has come");
    assert_eq!((Body::new(Framing::Length(7)).announced(), Body::new(Framing::UntilClose).announced()), (7, 0));
}
