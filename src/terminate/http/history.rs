//! Cookies in the memory of moves: the one that a client brought when it moved, and the one that it got.
//!
//! Keeps no value: a cookie is known by the hash that stick tables have for it. Invariant: only a request of a client
//! that has moved costs a hash here.

use crate::http::head::Request;
use crate::pool::Pool;
use crate::pool::request_cookie::values_of;
use crate::terminate::conversation::Conversation;
use crate::terminate::runtime::RuntimeContext;

/// Hash of the first value of the pool's cookie; `None`: the pool has no cookie, or the request has none.
pub(super) fn brought_cookie(context: &RuntimeContext, pool: &Pool, request: &Request<'_>) -> Option<u64> {
    let value = values_of(pool.cookie()?, request).next()?;
    Some(context.current.load().secret.cookie(value).to_bits())
}

/// Adds the cookie of a `Set-Cookie` line of ours to the move of the client that gets it, if it has moved.
pub(super) fn note_new_cookie(conversation: &Conversation, line: &str) {
    let context = &conversation.context;
    if let Some(value) = value_of(line).filter(|_| conversation.state.has_moved()) {
        let hash = context.current.load().secret.cookie(value.as_bytes()).to_bits();
        context.history.got_cookie(context.counters_index, conversation.client_info.id, hash);
    }
}

/// The value in a `Set-Cookie` line.
fn value_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once('=')?;
    rest.split(';').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_line_ends_before_its_attributes() {
        assert_eq!(value_of("STICKY=abc.def; Max-Age=9; Path=/"), Some("abc.def"));
        assert_eq!(value_of("STICKY=abc"), Some("abc"));
        assert_eq!(value_of("no line"), None);
    }
}
