//! The check of a mail server: its greeting, EHLO, and QUIT.
//!
//! Sends no mail. A server that greets with anything but 220, or answers EHLO with anything but 250, is down: it is
//! overloaded, about to stop (421), or no mail server.

use super::CheckFailure;
use super::dialogue::{Dialogue, answered};

pub(super) async fn ask(mut dialogue: Dialogue<'_>) -> Result<(), CheckFailure> {
    expect(&mut dialogue, "greeting", b"220").await?;
    dialogue.send(b"EHLO localhost\r\n").await?;
    expect(&mut dialogue, "EHLO", b"250").await?;
    dialogue.end(b"QUIT\r\n").await;
    Ok(())
}

/// Reads a reply, of which each line but the last has a `-` behind its code (RFC 5321 §4.2.1).
async fn expect(dialogue: &mut Dialogue<'_>, step: &str, code: &[u8]) -> Result<(), CheckFailure> {
    loop {
        let line = dialogue.line().await?;
        if !line.starts_with(code) {
            return Err(CheckFailure::Backend(format!("{step}: {}", answered(&line))));
        }
        if line.get(code.len()) != Some(&b'-') {
            return Ok(());
        }
    }
}
