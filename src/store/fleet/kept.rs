//! The commands of Redis on the hash of orders that stand: one field for each matter of a backend.
//!
//! Compares nothing (the book does). The name of a field is a hash of what the order is about, under the key of the
//! fleet: instances with another secret have other fields, and no name of a backend is in the store in the open but in
//! the items. Invariant: a hash that others have filled is read up to [`FIELDS_MAX`] fields.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use redis::{Value, cmd};

use crate::pool::OrderKey;
use crate::store::link::{Link, LinkError};

/// The hash is gone after so long without an instance.
const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// Fields that are read at once, and most fields that are read.
const READ: usize = 1_024;
const FIELDS_MAX: usize = 16_384;
/// Bytes of a field's name, before they are text.
const FIELD: usize = 16;

/// The field of a matter. What is hashed begins as no item does.
pub(super) fn field(about: &OrderKey, key: &hmac::Key) -> String {
    let OrderKey { pool, backend, matter } = about;
    let text = format!("\0sessile order\0{pool}\0{backend}\0{}", matter.word());
    BASE64URL_NOPAD.encode(&hmac::sign(key, text.as_bytes()).as_ref()[..FIELD])
}

/// Every field with its value.
pub(super) async fn read(link: &Link, hash: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>, LinkError> {
    let (mut fields, mut cursor) = (Vec::new(), 0_u64);
    loop {
        let mut scan = cmd("HSCAN");
        scan.arg(hash).arg(cursor).arg("COUNT").arg(READ);
        let (next, some): (u64, Vec<Vec<u8>>) = link.ask(&scan).await?;
        let mut some = some.into_iter();
        while let Some(pair) = some.next().zip(some.next()) {
            fields.push(pair);
        }
        cursor = next;
        if cursor == 0 || fields.len() >= FIELDS_MAX {
            return Ok(fields);
        }
    }
}

/// Writes fields, and renews the time of the hash.
pub(super) async fn write(link: &Link, hash: &str, fields: &[(String, Vec<u8>)]) -> Result<(), LinkError> {
    let mut set = cmd("HSET");
    set.arg(hash);
    for (field, value) in fields {
        set.arg(field).arg(&value[..]);
    }
    link.ask::<Value>(&set).await?;
    renew(link, hash).await
}

/// Deletes fields.
pub(super) async fn delete(link: &Link, hash: &str, fields: &[Vec<u8>]) -> Result<(), LinkError> {
    let mut delete = cmd("HDEL");
    delete.arg(hash);
    fields.iter().for_each(|field| _ = delete.arg(&field[..]));
    link.ask::<Value>(&delete).await.map(drop)
}

/// Renews the time of the hash.
pub(super) async fn renew(link: &Link, hash: &str) -> Result<(), LinkError> {
    let mut expire = cmd("PEXPIRE");
    expire.arg(hash).arg(KEEP.as_millis() as u64);
    link.ask::<Value>(&expire).await.map(drop)
}

/// How many fields there are.
pub(super) async fn count(link: &Link, hash: &str) -> Result<usize, LinkError> {
    let mut length = cmd("HLEN");
    length.arg(hash);
    link.ask(&length).await
}
