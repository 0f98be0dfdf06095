//! [`write_chunk`] and [`write_end`]: the body of a stream in the chunks of HTTP/1.1.
//!
//! Judges no trailer: the reader of the body does. Invariant: what is written is read back as the same bytes, and only
//! [`write_end`] ends a body.

use http::HeaderMap;

use crate::http::http2_head::write_field;

/// The bytes of a chunk beside its size and its data: the two line ends.
const LINE_ENDS: usize = 4;

/// Writes as much of the data as fits as one chunk. Returns the number of bytes that were written, and how many of the
/// data are in them: (0, 0) if there is no room for one, or no data.
pub fn write_chunk(into: &mut [u8], data: &[u8]) -> (usize, usize) {
    let mut count = data.len().min(into.len());
    while count > 0 && digits(count) + LINE_ENDS + count > into.len() {
        count -= 1;
    }
    if count == 0 {
        return (0, 0);
    }
    let digits = digits(count);
    for (at, digit) in into[..digits].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[count >> (4 * (digits - 1 - at)) & 15];
    }
    let start = digits + 2;
    into[digits..start].copy_from_slice(b"\r\n");
    into[start..start + count].copy_from_slice(&data[..count]);
    into[start + count..start + count + 2].copy_from_slice(b"\r\n");
    (start + count + 2, count)
}

/// The digits of a size that is not 0, in hexadecimal.
fn digits(size: usize) -> usize {
    (size.ilog2() / 4 + 1) as usize
}

/// The end of a body: the last chunk, and the trailers.
pub fn write_end(trailers: Option<&HeaderMap>) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    for (name, value) in trailers.into_iter().flatten() {
        write_field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::http::body::Body;
    use crate::http::{Framing, Refused};

    /// The data as chunks, written into buffers of this size.
    fn written(data: &[u8], room: usize) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), data);
        let mut into = vec![0; room];
        while !rest.is_empty() {
            let (count, used) = write_chunk(&mut into, rest);
            assert!(used > 0 && count <= room);
            out.extend_from_slice(&into[..count]);
            rest = &rest[used..];
        }
        out
    }

    /// The data that a body holds, and whether it is complete; read in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, bool), Refused> {
        let (mut body, mut data, mut rest) = (Body::new(Framing::Chunked), Vec::new(), bytes);
        while !rest.is_empty() && !body.complete() {
            let opaque = rest.len().min(piece).min(body.opaque() as usize);
            let count = opaque.max(1);
            match opaque {
                0 => body.scan(&rest[..count]).map(drop)?,
                _ => body.pass_by(opaque),
            }
            data.extend_from_slice(&rest[..opaque]);
            rest = &rest[count..];
        }
        assert!(rest.is_empty(), "nothing behind the end");
        Ok((data, body.complete()))
    }

    #[test]
    fn the_data_is_read_back_however_it_is_cut() {
        let data: Vec<_> = (0..5_000u32).map(|n| (n / 3) as u8).collect();
        for room in [6, 7, 20, 21, 22, 23, 100, 261, 262, 263, 4_096, 10_000] {
            let mut bytes = written(&data, room);
            for piece in [1, 7, 100_000] {
                assert_eq!(read(&bytes, piece), Ok((data.clone(), false)), "{room}");
            }
            bytes.extend(write_end(None));
            assert_eq!(read(&bytes, 100_000), Ok((data.clone(), true)), "{room}");
            assert_eq!(Body::new(Framing::Chunked).scan(&bytes).map(|scanned| scanned.complete), Ok(true));
        }
        assert_eq!(read(&write_end(None), 1), Ok((Vec::new(), true)));
    }

    #[test]
    fn a_chunk_takes_all_room_that_there_is() {
        let data = [7; 70_000];
        for room in 0..70_100 {
            // Sizes about which the number of digits changes.
            if room % 997 != 0 && ![5, 6, 19, 20, 21, 22, 260, 261, 262, 4_102, 4_103, 4_104].contains(&room) {
                continue;
            }
            let mut into = vec![0; room];
            let (count, used) = write_chunk(&mut into, &data);
            match room {
                0..6 => assert_eq!((count, used), (0, 0), "{room}"),
                70_009.. => assert_eq!(used, data.len()),
                _ => assert!(room - count <= 1, "{room}: {count} for {used}"),
            }
        }
        assert_eq!(write_chunk(&mut [0; 100], b""), (0, 0), "an empty chunk would be the end");
    }

    #[test]
    fn trailers_are_judged_by_the_reader() {
        let trailers = |list: &[(&'static str, &'static str)]| {
            let mut fields = HeaderMap::new();
            for (name, value) in list {
                fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let mut bytes = written(b"data", 100);
            bytes.extend(write_end(Some(&fields)));
            (String::from_utf8(bytes.clone()).unwrap(), read(&bytes, 1))
        };
        let (text, read) = trailers(&[("grpc-status", "0"), ("x", "a"), ("x", "b")]);
        assert!(text.ends_with("0\r\ngrpc-status: 0\r\nx: a\r\nx: b\r\n\r\n"), "{text}");
        assert_eq!(read, Ok((b"data".to_vec(), true)));
        assert_eq!(trailers(&[("content-length", "4")]).1, Err(Refused::ForbiddenTrailer));
        assert_eq!(trailers(&[("transfer-encoding", "chunked")]).1, Err(Refused::ForbiddenTrailer));
        assert_eq!(trailers(&[("x", " a")]).1, Err(Refused::BadTrailer));
    }
}
