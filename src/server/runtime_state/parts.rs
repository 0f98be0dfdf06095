//! Parts of an object of JSON, each read for itself: one that cannot be read is named and costs no other part.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A part of an object; its default if it is missing or cannot be read.
pub(super) fn take<T: DeserializeOwned + Default>(
    fields: &mut Map<String, Value>,
    key: &str,
    called: &str,
    unread: &mut Vec<String>,
) -> T {
    let part = fields.remove(key).map(serde_json::from_value).transpose();
    part.unwrap_or_else(|_| {
        unread.push(called.to_owned());
        None
    })
    .unwrap_or_default()
}

/// The objects of a list; those that are none are left out.
pub(super) fn take_objects(
    fields: &mut Map<String, Value>,
    key: &str,
    called: &str,
    unread: &mut Vec<String>,
) -> Vec<Map<String, Value>> {
    let values: Vec<Value> = take(fields, key, called, unread);
    let mut objects = Vec::new();
    for value in values {
        match value {
            Value::Object(object) => objects.push(object),
            _ => unread.push(format!("one of {called}")),
        }
    }
    objects
}
