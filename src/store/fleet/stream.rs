//! The commands of Redis on the stream of the fleet: one key, with one field in each item.
//!
//! Repeats nothing. Invariant: what stands in the stream and is no item of this form is read as an item without bytes,
//! which no instance has written.

use std::time::Duration;

use redis::{Value, cmd};
use tokio::time::timeout;

use crate::store::batch::{BATCH_TIMEOUT, or_no_answer};
use crate::store::link::{Link, LinkError};

/// Most items that the stream keeps: the oldest go first. Redis keeps some more, because it drops whole nodes.
const ITEMS_MAX: usize = 65_536;
/// Items that are read at once.
const READ: usize = 64;
/// The field of an item.
const FIELD: &str = "m";

/// Number of an item: milliseconds of the store's clock, and a count.
pub(super) type ItemId = (u64, u64);

/// An item as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamItem {
    pub(super) id: ItemId,
    pub(super) bytes: Vec<u8>,
}

/// What an exchange gives, or that there was no answer.
pub(super) async fn in_time<T>(exchange: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    or_no_answer(timeout(BATCH_TIMEOUT, exchange).await)
}

/// Appends items in this order.
pub(super) async fn append(link: &Link, key: &str, items: &[Vec<u8>]) -> Result<(), LinkError> {
    for item in items {
        let mut add = cmd("XADD");
        add.arg(key).arg("MAXLEN").arg("~").arg(ITEMS_MAX).arg("*").arg(FIELD).arg(&item[..]);
        link.ask::<Value>(&add).await?;
    }
    Ok(())
}

/// Reads items after this one; waits so long for the first, or not at all.
pub(super) async fn read(
    link: &Link,
    key: &str,
    after: ItemId,
    wait: Option<Duration>,
) -> Result<Vec<StreamItem>, LinkError> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(READ);
    if let Some(wait) = wait {
        read.arg("BLOCK").arg(wait.as_millis() as u64);
    }
    read.arg("STREAMS").arg(key).arg(format!("{}-{}", after.0, after.1));
    link.ask(&read).await.map(items)
}

/// Whether the stream may have lost items because there were too many. Those that it loses by their age are of no use.
pub(super) async fn is_cut(link: &Link, key: &str) -> Result<bool, LinkError> {
    let mut length = cmd("XLEN");
    length.arg(key);
    let length: Result<usize, LinkError> = link.ask(&length).await;
    // A user without the right to ask is not told.
    length.map(|items| items >= ITEMS_MAX).or_else(|broken| if broken.is_refusal() { Ok(false) } else { Err(broken) })
}

/// Drops items that are older than this, and the whole stream once nothing was written to it for so long.
pub(super) async fn expire(link: &Link, key: &str, now_ms: u64, keep: Duration) -> Result<(), LinkError> {
    let keep_ms = keep.as_millis() as u64;
    let mut expire = cmd("PEXPIRE");
    expire.arg(key).arg(keep_ms);
    link.ask::<Value>(&expire).await?;
    let mut trim = cmd("XTRIM");
    trim.arg(key).arg("MINID").arg("~").arg(now_ms.saturating_sub(keep_ms));
    // Redis before 6.2 does not know it, and keeps items until there are too many.
    let trimmed: Result<Value, LinkError> = link.ask(&trim).await;
    trimmed.map(drop).or_else(|broken| if broken.is_refusal() { Ok(()) } else { Err(broken) })
}

/// The store's clock, in milliseconds since 1970.
pub(super) async fn time_ms(link: &Link) -> Result<u64, LinkError> {
    let (seconds, micros): (u64, u64) = link.ask(&cmd("TIME")).await?;
    Ok(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
}

/// The items in the reply to XREAD.
fn items(reply: Value) -> Vec<StreamItem> {
    let Value::Array(streams) = reply else { return Vec::new() };
    let of_stream = |stream: Value| match stream {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([_, Value::Array(items)]) => items,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    streams.into_iter().flat_map(of_stream).filter_map(item).collect()
}

fn item(item: Value) -> Option<StreamItem> {
    let Value::Array(parts) = item else { return None };
    let [Value::BulkString(id), fields] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let (ms, count) = std::str::from_utf8(&id).ok()?.split_once('-')?;
    let id = (ms.parse().ok()?, count.parse().ok()?);
    let bytes = match fields {
        Value::Array(fields) => match <[Value; 2]>::try_from(fields) {
            Ok([Value::BulkString(name), Value::BulkString(bytes)]) if name == FIELD.as_bytes() => bytes,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    Some(StreamItem { id, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn items_are_read_with_their_numbers_and_nonsense_is_an_item_without_bytes() {
        let item = |id: &str, fields: Vec<Value>| Value::Array(vec![bulk(id), Value::Array(fields)]);
        let all = vec![
            item("5-1", vec![bulk("m"), bulk("x")]),
            item("6-0", vec![bulk("other"), bulk("x")]),
            item("7-0", vec![bulk("m"), bulk("x"), bulk("n"), bulk("y")]),
            item("nonsense", vec![bulk("m"), bulk("x")]),
        ];
        let read = items(Value::Array(vec![Value::Array(vec![bulk("key"), Value::Array(all)])]));
        let item = |id, bytes: &str| StreamItem { id, bytes: bytes.into() };
        assert_eq!(read, [item((5, 1), "x"), item((6, 0), ""), item((7, 0), "")]);
        assert_eq!(items(Value::Nil), []);
        assert_eq!(items(Value::Int(3)), []);
    }
}
