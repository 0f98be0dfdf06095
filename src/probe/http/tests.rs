//! The check and the data path give every response of the corpus one verdict.

use tokio::io::duplex;

use super::*;

#[allow(clippy::duplicate_mod, reason = "one corpus for the reader and for the health check")]
#[path = "../../../tests/framing/corpus.rs"]
mod corpus;

use corpus::{Case, Kind, Verdict, cases};

/// The request of a check, as far as the response depends on it.
const REQUEST: RequestMeta =
    RequestMeta { method: Method::Get, version: Version::Http11, persists: false, upgrade: None };

/// The verdict on all responses that the bytes hold, as the exchange of the data path reaches it: the final status,
/// `None` if the bytes end before the final head is whole.
fn data_path(mut bytes: &[u8]) -> Result<Option<u16>, Refused> {
    let mut reader = ResponseReader::new();
    loop {
        match reader.read(bytes, REQUEST) {
            Progress::More => return Ok(None),
            Progress::No(refused) => return Err(refused),
            Progress::Done(length) if reader.response(bytes).is_interim() => {
                bytes = &bytes[length..];
                reader.pass_interim()?;
            }
            Progress::Done(_) => return Ok(Some(reader.response(bytes).status)),
        }
    }
}

/// The verdict of the check when the bytes arrive in pieces of at most `piece` bytes.
async fn check(bytes: &[u8], piece: usize) -> Result<u16, String> {
    let (mut backend, mut stream) = duplex(piece);
    let (verdict, _) = tokio::join!(
        async {
            let verdict = read_head(&mut stream, &mut Vec::new(), REQUEST).await.map(|(status, _)| status);
            drop(stream);
            verdict
        },
        async {
            // A check that has its verdict no longer reads.
            backend.write_all(bytes).await.ok();
            drop(backend);
        },
    );
    verdict.map_err(|failure| match failure {
        CheckFailure::Backend(complaint) => complaint,
        CheckFailure::Local(error) => panic!("{error}"),
    })
}

/// Responses to a GET in HTTP/1.1, the request of a check.
fn responses() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| case.kind == Kind::Response)
}

#[tokio::test]
async fn check_and_data_path_agree() {
    let (mut refused, mut accepted) = (0, 0);
    for case in responses() {
        for piece in [1, 7, 64 * 1024] {
            match (data_path(&case.bytes), check(&case.bytes, piece).await) {
                (Ok(Some(status)), Ok(found)) => {
                    assert_eq!(found, status, "{}", case.title);
                    accepted += 1;
                }
                (Ok(None), Err(complaint)) => assert!(complaint.contains("closed before"), "{}", case.title),
                (Err(why), Err(complaint)) => {
                    let wanted = format!("response refused: {}: {}", why.word(), why.meaning());
                    assert_eq!(complaint, wanted, "{}", case.title);
                    refused += 1;
                }
                (data_path, check) => panic!("{}: data path {data_path:?}, check {check:?}", case.title),
            }
        }
    }
    assert!(refused >= 3 * 30 && accepted >= 3 * 10, "{refused} refused and {accepted} accepted, in three cuts");
}

#[tokio::test]
async fn a_refused_head_fails_the_check_with_the_word_of_the_corpus() {
    for case in responses() {
        let Verdict::Refused(word, _) = case.verdict else { continue };
        // The check does not read the body.
        let is_in_body =
            ["chunk_", "trailer"].iter().any(|part| word.contains(part)) || case.title.contains("chunk size");
        match check(&case.bytes, 512).await {
            Ok(status) => assert!(is_in_body && status == 200, "{}", case.title),
            Err(complaint) => {
                let wanted = format!("response refused: {word}: ");
                assert!(!is_in_body && complaint.starts_with(&wanted), "{}: {complaint}", case.title);
            }
        }
    }
}

#[tokio::test]
async fn an_endless_head_is_refused_and_so_are_endless_interim_responses() {
    let endless = "HTTP/1.1 200 OK\r\na: ".to_owned() + &"b".repeat(1 << 20);
    let complaint = check(endless.as_bytes(), 64 * 1024).await.unwrap_err();
    assert!(complaint.starts_with("response refused: head_too_long: "), "{complaint}");
    let interim =
        |count| "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(count) + "HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(check(interim(16).as_bytes(), 64 * 1024).await, Ok(204));
    let complaint = check(interim(10_000).as_bytes(), 64 * 1024).await.unwrap_err();
    assert!(complaint.starts_with("response refused: too_many_interims: "), "{complaint}");
}
