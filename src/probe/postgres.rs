//! The check of PostgreSQL: a session is begun, and ended once the server has shown that it takes sessions.
//!
//! Runs no statement and knows no password. A server that asks for a password (R), or says that the user may not log in
//! (class 28) or has no such database (3D000), answers and is up; one that starts, stops, recovers or has no connection
//! left says so instead, and is down. Invariant: a session is left where a server writes nothing about it to its log:
//! before a password that it has asked for, or by Terminate.

use super::CheckFailure;
use super::dialogue::{ANSWER_MAX, Dialogue, answered};
use crate::remote_text;

/// Version 3.0 of the protocol.
const VERSION: u32 = 3 << 16;
/// Database that every installation has.
const DATABASE: &str = "postgres";
/// Type and length before the body of a message.
const HEADER: usize = 5;
/// Most messages before a session is ready: parameters and notices.
const MESSAGES_MAX: usize = 200;
/// Most bytes of a message that a complaint shows.
const MESSAGE_MAX: usize = 200;
/// Terminate as a whole message.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

pub(super) async fn ask(mut dialogue: Dialogue<'_>, user: &str) -> Result<(), CheckFailure> {
    dialogue.send(&startup(user)).await?;
    for _ in 0..MESSAGES_MAX {
        let (kind, body) = message(&mut dialogue).await?;
        match kind {
            // Anything but zero asks for a password.
            b'R' if body != [0; 4] => {
                dialogue.end(b"").await;
                return Ok(());
            }
            b'Z' => {
                dialogue.end(TERMINATE).await;
                return Ok(());
            }
            b'E' => {
                dialogue.end(b"").await;
                return judge(&body);
            }
            // Parameters, the key for cancels, notices, a version that is not known.
            b'R' | b'S' | b'K' | b'N' | b'v' => {}
            _ => return Err(no_message(&[&[kind][..], &body].concat())),
        }
    }
    Err(CheckFailure::Backend("the session does not begin".to_owned()))
}

async fn message(dialogue: &mut Dialogue<'_>) -> Result<(u8, Vec<u8>), CheckFailure> {
    dialogue.at_least(HEADER).await?;
    let &[kind, a, b, c, d, ..] = dialogue.heard() else { return Err(no_message(dialogue.heard())) };
    // The length counts itself and the body.
    let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
    if !(HEADER..=ANSWER_MAX).contains(&length) {
        return Err(no_message(dialogue.heard()));
    }
    let message = dialogue.take(length).await?;
    Ok((kind, message[HEADER..].to_vec()))
}

fn no_message(bytes: &[u8]) -> CheckFailure {
    CheckFailure::Backend(format!("{}, which is not the protocol of PostgreSQL", answered(bytes)))
}

fn startup(user: &str) -> Vec<u8> {
    let parameters = ["user", user, "database", DATABASE, "application_name", "sessile"].join("\0");
    let body = [&VERSION.to_be_bytes()[..], parameters.as_bytes(), b"\0\0"].concat();
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

/// Judges an ErrorResponse: fields of a letter and a text.
fn judge(body: &[u8]) -> Result<(), CheckFailure> {
    let fields = body.split(|byte| *byte == 0);
    let field = |letter: u8| {
        let text = fields.clone().find(|field| field.first() == Some(&letter)).and_then(|field| field.get(1..));
        remote_text::text_of(text.unwrap_or_default(), MESSAGE_MAX)
    };
    let code = field(b'C');
    if code.starts_with("28") || code == "3D000" {
        return Ok(());
    }
    Err(CheckFailure::Backend(format!("{code}: {}", field(b'M'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_message_has_its_length_and_ends_with_an_empty_name() {
        let message = startup("me");
        assert_eq!(message.len(), usize::from(message[3]));
        assert_eq!(&message[4..], b"\0\x03\0\0user\0me\0database\0postgres\0application_name\0sessile\0\0");
    }

    #[test]
    fn an_error_about_the_user_is_an_answer_and_others_are_not() {
        for (fields, good) in [
            ("SFATAL\0C28P01\0Mpassword authentication failed\0\0", true),
            ("SFATAL\0C28000\0Mno pg_hba.conf entry\0\0", true),
            ("SFATAL\0C3D000\0Mdatabase does not exist\0\0", true),
            ("SFATAL\0C53300\0Msorry, too many clients already\0\0", false),
            ("", false),
        ] {
            assert_eq!(judge(fields.as_bytes()).is_ok(), good, "{fields:?}");
        }
        let starting = judge(b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0");
        assert!(
            matches!(starting, Err(CheckFailure::Backend(text)) if text == "57P03: the database system is starting up")
        );
    }
}
