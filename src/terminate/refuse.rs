//! [`refuse`]: tells a client why it gets no TLS handshake: by an alert, or by the status 400 if it speaks plain HTTP.
//!
//! Decides nothing; the worker's hello reader and the routes have refused the connection. Invariant: the reply is the
//! last thing that the client is sent, and no reset removes it from the client's buffer unread.

use std::future::poll_fn;
use std::os::fd::OwnedFd;

use super::byte_stream::Got;
use super::connect::write_all;
use super::conversation::Conversation;
use super::deadline::{LINGER, until};
use super::socket::Socket;
use super::stream::Stream;
use crate::admission::HeldBytes;
use crate::alert::{self, TlsRefusal};
use crate::clock::{self, Micros};
use crate::http::answer::{self, StatusCode};
use crate::outcome::Ended;
use crate::tls::TlsAlert;

/// Longest method of a request that is recognised.
const METHOD_MAX: usize = 16;

/// Refuses a connection. `preread` are the bytes that the worker has read.
pub async fn refuse(conversation: &Conversation, client: OwnedFd, preread: HeldBytes, refusal: TlsRefusal) -> Ended {
    let Ok(socket) = Socket::new(client) else { return Ended::NoDescriptor };
    let mut client = Stream::plain(socket);
    conversation.state.moved(preread.len() as u64, 0, clock::now());
    let listener = conversation.listener().filter(|_| refusal == TlsRefusal::NotTls);
    let http = match listener.filter(|listener| listener.serves_http) {
        Some(listener) => {
            let hello_until = conversation.client_info.accepted + Micros::from(listener.hello_ms) * 1_000;
            drop(listener);
            until(hello_until, plain_request(&mut client, preread.into_vec())).await.flatten()
        }
        None => {
            // Its memory is not held while the client is waited for.
            drop(preread);
            None
        }
    };
    conversation.forget_rules();
    let (mut reply, mut sent) = (Vec::new(), None);
    match http {
        Some(head_only) => {
            conversation.context.counters().answers.add(1);
            conversation.listener_counters().requests.count(StatusCode::BadRequest.code());
            answer::write_https_expected(&mut reply, head_only, clock::unix_s());
        }
        None => {
            let description = refusal.alert();
            reply.extend(alert::record(description));
            sent = Some(TlsAlert { received: false, description });
        }
    }
    if let Some(Ok(())) = until(clock::now() + LINGER, write_all(&mut client, &reply)).await {
        conversation.state.moved(0, reply.len() as u64, clock::now());
        conversation.state.alert().set(sent);
    }
    client.linger().await;
    refusal.ended()
}

/// Reads until the bytes begin like a request, or cannot any more. `Some(true)`: a HEAD request; `None`: not a request.
async fn plain_request(client: &mut Stream, mut bytes: Vec<u8>) -> Option<bool> {
    loop {
        if let Some(method) = method(&bytes) {
            return method.map(|method| method == b"HEAD");
        }
        let mut piece = [0; 64];
        match poll_fn(|cx| client.poll_read(cx, &mut piece)).await {
            Ok(Got::Bytes(n)) => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

/// The method at the start of a request. `Some(None)`: the bytes are no request; `None`: more bytes are needed.
fn method(bytes: &[u8]) -> Option<Option<&[u8]>> {
    match bytes.iter().take(METHOD_MAX + 1).position(|byte| !byte.is_ascii_uppercase()) {
        Some(length) if length > 0 && bytes[length] == b' ' => Some(Some(&bytes[..length])),
        None if bytes.len() <= METHOD_MAX => None,
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_method_and_the_space_behind_it() {
        assert_eq!(method(b"GET / HTTP/1.1\r\n"), Some(Some(&b"GET"[..])));
        assert_eq!(method(b"HEAD "), Some(Some(&b"HEAD"[..])));
        for more in [&b""[..], b"G", b"OPTIONS"] {
            assert_eq!(method(more), None, "{more:?}");
        }
        for other in [&b" "[..], b"SSH-2.0-x", b"get / HTTP/1.1", b"\x80\x2e\x01", b"GET\r\n", &[b'A'; 17]] {
            assert_eq!(method(other), Some(None), "{other:?}");
        }
    }
}
