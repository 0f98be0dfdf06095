//! The check of MySQL and MariaDB: the greeting, a login without a password, and COM_QUIT.
//!
//! Runs no statement and knows no password. A server that answers that the user may not log in does answer, and is up.
//! Invariant: the handshake that the server has begun is ended in order, so that it never counts against this host
//! (`max_connect_errors`); a check that leaves after the greeting would be counted.

use super::CheckFailure;
use super::dialogue::{ANSWER_MAX, Dialogue, answered};
use crate::remote_text;

/// Length and number before the payload of a packet.
const HEADER: usize = 4;
/// Most packets that follow the login.
const PACKETS_MAX: usize = 4;
/// Most bytes of a message that a complaint shows.
const MESSAGE_MAX: usize = 200;

/// Capabilities: CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x8000 | 0x8_0000;
/// Character set utf8mb4_general_ci.
const CHARACTER_SET: u8 = 45;
/// Method of authentication of a server that names none.
const NATIVE_PASSWORD: &[u8] = b"mysql_native_password";
/// Errors after the greeting that concern the user of the check alone: access denied, access denied without a password,
/// no login without TLS.
const OF_THE_USER: [u16; 3] = [1045, 1698, 3159];

/// First bytes of packets.
const OK: u8 = 0x00;
const MORE_DATA: u8 = 0x01;
const OTHER_METHOD: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// Version of the protocol, which begins a greeting.
const VERSION: u8 = 10;
/// COM_QUIT as a whole packet.
const QUIT: [u8; 5] = [1, 0, 0, 0, 1];

/// One packet of a server.
struct Packet {
    number: u8,
    payload: Vec<u8>,
}

pub(super) async fn ask(mut dialogue: Dialogue<'_>, user: &str) -> Result<(), CheckFailure> {
    let greeting = packet(&mut dialogue).await?;
    match greeting.payload.first() {
        Some(&VERSION) => {}
        Some(&ERROR) => return Err(CheckFailure::Backend(error(&greeting.payload).1)),
        _ => return Err(no_packet(&greeting.payload)),
    }
    let login = login(user, method(&greeting.payload).unwrap_or(NATIVE_PASSWORD));
    dialogue.send(&as_packet(greeting.number.wrapping_add(1), &login)).await?;
    for _ in 0..PACKETS_MAX {
        let reply = packet(&mut dialogue).await?;
        match reply.payload.first() {
            Some(&OK) => {
                dialogue.end(&QUIT).await;
                return Ok(());
            }
            Some(&ERROR) => {
                let (code, complaint) = error(&reply.payload);
                dialogue.end(b"").await;
                return if OF_THE_USER.contains(&code) { Ok(()) } else { Err(CheckFailure::Backend(complaint)) };
            }
            // Whatever the method is, an empty password is an empty answer.
            Some(&(OTHER_METHOD | MORE_DATA)) => {
                dialogue.send(&as_packet(reply.number.wrapping_add(1), b"")).await?;
            }
            _ => return Err(no_packet(&reply.payload)),
        }
    }
    Err(CheckFailure::Backend("the login does not come to an end".to_owned()))
}

async fn packet(dialogue: &mut Dialogue<'_>) -> Result<Packet, CheckFailure> {
    dialogue.at_least(HEADER).await?;
    let &[low, middle, high, number, ..] = dialogue.heard() else { return Err(no_packet(dialogue.heard())) };
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    if !(1..=ANSWER_MAX - HEADER).contains(&length) {
        return Err(no_packet(dialogue.heard()));
    }
    let packet = dialogue.take(HEADER + length).await?;
    Ok(Packet { number, payload: packet[HEADER..].to_vec() })
}

fn no_packet(bytes: &[u8]) -> CheckFailure {
    CheckFailure::Backend(format!("{}, which is not the protocol of MySQL", answered(bytes)))
}

fn as_packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = (payload.len() as u32).to_le_bytes();
    [&[low, middle, high, number][..], payload].concat()
}

/// Number and text of an error, without its state of SQL (`#` and five characters).
fn error(payload: &[u8]) -> (u16, String) {
    let (code, rest) = match payload {
        [_, low, high, rest @ ..] => (u16::from_le_bytes([*low, *high]), rest),
        _ => (0, &b""[..]),
    };
    let message = if rest.first() == Some(&b'#') { rest.get(6..).unwrap_or_default() } else { rest };
    (code, format!("error {code}: {}", remote_text::text_of(message, MESSAGE_MAX)))
}

/// Name of the method of authentication in a greeting.
fn method(greeting: &[u8]) -> Option<&[u8]> {
    let after_version = greeting.iter().position(|byte| *byte == 0)? + 1;
    // Thread, first part of the challenge, a zero, capabilities, character set, status, more capabilities; the length of
    // the challenge; ten zeros; the rest of the challenge, at least 13 bytes.
    let fields = greeting.get(after_version..)?;
    let challenge = usize::from(*fields.get(20)?);
    let name = fields.get(31 + challenge.saturating_sub(8).max(13)..)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(&name[..end]).filter(|name| !name.is_empty())
}

fn login(user: &str, method: &[u8]) -> Vec<u8> {
    let largest_packet: u32 = 1 << 24;
    let head = [CAPABILITIES.to_le_bytes(), largest_packet.to_le_bytes()].concat();
    // Behind the user's name stands the length of the answer to the challenge: none without a password.
    [&head[..], &[CHARACTER_SET], &[0; 23], user.as_bytes(), &[0, 0], method, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greeting of a MariaDB 10.11.
    const GREETING: &[u8] = b"\n5.5.5-10.11.6-MariaDB\0\x1f\0\0\x00abcdefgh\0\xfe\xf7\x2d\x02\x00\xff\x81\x15\
        \0\0\0\0\0\0\x1d\0\0\0abcdefghijkl\0mysql_native_password\0";

    #[test]
    fn the_method_stands_behind_the_challenge() {
        assert_eq!(method(GREETING), Some(NATIVE_PASSWORD));
        for end in 0..GREETING.len() - NATIVE_PASSWORD.len() - 1 {
            assert_eq!(method(&GREETING[..end]), None, "{end}");
        }
    }

    #[test]
    fn an_error_has_a_number_and_a_text() {
        assert_eq!(error(b"\xff\x10\x04Too many connections"), (1040, "error 1040: Too many connections".to_owned()));
        assert_eq!(error(b"\xff\x15\x04#28000Access denied"), (1045, "error 1045: Access denied".to_owned()));
        assert_eq!(error(b"\xff").0, 0);
    }
}
