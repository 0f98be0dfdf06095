//! The check of Redis and Valkey: PING, and ROLE where only a primary is up.
//!
//! Knows no password. A server that wants one (`-NOAUTH`) answers, and is up; it does not say its role, so it is no
//! primary. One that loads its data, has lost its primary or has no room for a client says so instead of `+PONG`, and is
//! down.

use super::CheckFailure;
use super::dialogue::{Dialogue, answered};

pub(super) async fn ask(mut dialogue: Dialogue<'_>, primary: bool) -> Result<(), CheckFailure> {
    dialogue.send(b"PING\r\n").await?;
    let reply = dialogue.line().await?;
    let wants_password = reply.starts_with(b"-NOAUTH");
    if reply != b"+PONG" && (primary || !wants_password) {
        return Err(CheckFailure::Backend(format!("PING: {}", answered(&reply))));
    }
    if primary {
        dialogue.send(b"ROLE\r\n").await?;
        let role = role(&mut dialogue).await?;
        if role != b"master" {
            return Err(CheckFailure::Backend(format!("ROLE: {}, expected \"master\"", answered(&role))));
        }
    }
    dialogue.end(b"").await;
    Ok(())
}

/// The first element of the reply to ROLE, a list of which the first is the name of the role; an error as it is.
async fn role(dialogue: &mut Dialogue<'_>) -> Result<Vec<u8>, CheckFailure> {
    let list = dialogue.line().await?;
    if !list.starts_with(b"*") {
        return Ok(list);
    }
    let length = dialogue.line().await?;
    if !length.starts_with(b"$") {
        return Ok(length);
    }
    dialogue.line().await
}
