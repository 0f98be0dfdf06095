//! [`request`] and [`read_reply`]: the two messages of the gRPC health service as bytes.
//!
//! Each is a protobuf message (<https://protobuf.dev/programming-guides/encoding/>) behind the five bytes that gRPC
//! puts in front of it (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>); their fields are those of
//! <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>:
//!
//! ```text
//! message HealthCheckRequest  { string service = 1; }
//! message HealthCheckResponse { enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
//!                               ServingStatus status = 1; }
//! ```
//!
//! Sends and receives nothing. Invariant: a reply is read in one pass over its bytes, whatever they are; fields that
//! are not known are passed over, and of a field that comes twice the last counts, as protobuf has it.

use std::fmt;

/// Most bytes of a reply's message. The message of today has two; later versions may have further fields.
pub const MESSAGE_MAX: usize = 4096;

/// Bytes in front of a message: a flag for compression, and the length.
pub const PREFIX: usize = 5;

/// Most bytes of a varint: ten times seven bits are enough for 64.
const VARINT_MAX: usize = 10;

/// What a health service says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServingStatus(i32);

impl ServingStatus {
    /// The service takes calls.
    pub const SERVING: Self = Self(1);
}

impl fmt::Display for ServingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("UNKNOWN"),
            1 => f.write_str("SERVING"),
            2 => f.write_str("NOT_SERVING"),
            3 => f.write_str("SERVICE_UNKNOWN"),
            other => write!(f, "{other}"),
        }
    }
}

/// A `HealthCheckRequest` for this service, with its prefix. The empty name asks for the server as a whole.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    // proto3 leaves out a field with its default.
    if !service.is_empty() {
        message.push(1 << 3 | LENGTH);
        write_varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.append(&mut message);
    bytes
}

/// Reads the body of a response that is complete: one `HealthCheckResponse` with its prefix. `Err`: what is wrong with
/// it.
pub fn read_reply(body: &[u8]) -> Result<ServingStatus, &'static str> {
    if body.is_empty() {
        return Err("has no message");
    }
    let Some((&[compressed, a, b, c, d], message)) = body.split_first_chunk::<PREFIX>() else {
        return Err("ends inside a message");
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    match compressed {
        0 if length > message.len() => Err("ends inside a message"),
        0 if length < message.len() => Err("has more than one message"),
        0 => read_status(message).ok_or("has a message that is not protobuf"),
        1 => Err("is compressed, which was not offered"),
        _ => Err("has a message that is not gRPC"),
    }
}

/// Wire types of protobuf.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

/// The field `status` of a `HealthCheckResponse`; `None`: the bytes are no message.
fn read_status(mut message: &[u8]) -> Option<ServingStatus> {
    let mut status = ServingStatus(0);
    while !message.is_empty() {
        let tag = u32::try_from(read_varint(&mut message)?).ok()?;
        let (field, wire_type) = (tag >> 3, (tag & 7) as u8);
        match wire_type {
            _ if field == 0 => return None,
            VARINT => {
                let value = read_varint(&mut message)?;
                if field == 1 {
                    // An enum is an int32: the low 32 bits count.
                    status = ServingStatus(value as i32);
                }
            }
            FIXED64 => message = message.get(8..)?,
            LENGTH => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            FIXED32 => message = message.get(4..)?,
            // Groups (3, 4) are not part of proto3.
            _ => return None,
        }
    }
    Some(status)
}

/// Takes a varint from the front: seven bits a byte, the low ones first. `None`: it does not end, or has over 64 bits.
fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(VARINT_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at + 1 == VARINT_MAX && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests;
